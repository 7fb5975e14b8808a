"""Services that read several stores: a coalescer for each store, and rows in more than one form.

Nothing of this is on the way of a request where the workspace has one store.

Invariants
1. A read goes to the coalescer of its group's store and to no other: calls to one store are as large, and
   leave as early, as if there were no other.
2. A request is ready when the last of its reads is settled, whatever store that came from.
3. Rows that came as text are decoded before rows of several stores are joined; text that can't be decoded is
   an unreadable row of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import pybase64

from fastserve.plan.reads import ReadGroup
from fastserve.plan.stores import MAIN_STORE
from fastserve.serving.coalescer import Coalescer, KeyRead, Reader, Waiter
from fastserve.serving.columns import Columns, ZeroCounts
from fastserve.serving.transport import RAW_ROWS, RowTransport
from fastserve.serving.vector_rows import Lines
from fastserve.serving.vectors import VectorEvaluator

MakeReader = Callable[[Callable[[Sequence[KeyRead]], None]], Reader]
"""Makes a store's hot side, given the function to settle reads with."""


def _unwrapped(row: Any) -> bytes:
    return pybase64.b64decode(row, validate=True) if isinstance(row, str) else bytes(row)


MIXED_ROWS = RowTransport(
    join=RAW_ROWS.join,
    join_writable=RAW_ROWS.join_writable,
    wrap=RAW_ROWS.wrap,
    unwrap=_unwrapped,
    fixed_length=RAW_ROWS.fixed_length,
    bytes_per_unit=RAW_ROWS.bytes_per_unit,
)
"""Rows of services that read stores of both forms, after `DecodingEvaluator` has made bytes of all text."""


@dataclass(frozen=True, slots=True)
class StoreTransports:
    """The form in which rows come from the main store, and from each named one."""

    main: RowTransport
    named: Mapping[str, RowTransport] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, stores: Collection[str]) -> RowTransport:
        """Return the form of rows that are joined, where they come from these stores."""
        forms = [self.main if name == MAIN_STORE else self.named[name] for name in stores]
        if not forms:
            return self.main
        return forms[0] if all(form is forms[0] for form in forms) else MIXED_ROWS


class DecodingEvaluator:
    """The evaluator of a service whose rows come in both forms."""

    __slots__ = ("_evaluator",)

    def __init__(self, evaluator: VectorEvaluator) -> None:
        self._evaluator = evaluator

    def evaluate(self, lines: Lines, now_ns: int, zero_counts: ZeroCounts | None = None) -> Columns:
        """Evaluate a batch, as `VectorEvaluator.evaluate` does."""
        return self._evaluator.evaluate([_decoded(line) for line in lines], now_ns, zero_counts)


def _decoded(line: Sequence[Any]) -> list[Any]:
    try:
        return [pybase64.b64decode(row, validate=True) if type(row) is str else row for row in line]
    except ValueError:
        return [_decoded_alone(row) for row in line]


def _decoded_alone(row: Any) -> Any:
    try:
        return _unwrapped(row) if isinstance(row, str) else row
    except ValueError:
        return row  # no row of any length: it is told, as text, where rows are looked at one by one


class StoreCoalescers:
    """The coalescers of several stores, as one; ``by_store`` has one for the store of each group."""

    __slots__ = ("_all", "_read_of_group")

    def __init__(self, groups: Sequence[ReadGroup], by_store: Mapping[str, Coalescer]) -> None:
        self._all = tuple(by_store.values())
        self._read_of_group = [by_store[group.store].read for group in groups]

    def read(self, group: ReadGroup, key: str, waiter: Waiter, deadline_s: float) -> KeyRead:
        """See `Coalescer.read`."""
        return self._read_of_group[group.index](group, key, waiter, deadline_s)

    def substitute(self, request: Any) -> bool:
        """See `Coalescer.substitute`: a cache is shared, so any of them knows what there is."""
        return self._all[0].substitute(request)

    def in_flight(self) -> int:
        """Return how many reads are not settled."""
        return sum(coalescer.in_flight() for coalescer in self._all)
