"""Columns of join keys as they come in JSON, checked and made into entity ids.

Invariants
1. A value is taken only if Feast would make the same key of it; any other is a `FeastFault` that names the
   column, the row, what was expected and what came.
2. Views with the same join keys share their ids: they are made once a request.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastserve.api.feast import FeastFault, FeastRequest
from fastserve.errors import shown
from fastserve.plan.feast import NO_ENTITY_KEYS, FeastPlan, FeastSelection
from fastserve.plan.feast_keys import entity_key
from fastserve.tiles.times import parse_time_ns
from fastserve.wire.feast_key import FeastKeyForm, entity_id_of, int_limits

SECOND_NS = 1_000_000_000
Columns = Mapping[str, list[Any]]


class KeyColumns:
    """Makes the keys of all rows of a request for some parts."""

    def __init__(self, parts: Sequence[FeastSelection]) -> None:
        forms: dict[tuple[FeastKeyForm, tuple[str, ...]], int] = {}
        self._of_part = [
            forms.setdefault((part.view.key_form, part.request_keys), len(forms)) for part in parts
        ]
        self._makers = [_maker(form, names) for form, names in forms]

    def texts(self, columns: Columns, rows: int) -> list[tuple[str, ...]]:
        """Return for each row the key texts of its parts.

        Raises:
            FeastFault: a column lacks, or has a value that no key is made of.
        """
        made = [make(columns, rows) for make in self._makers]
        return list(zip(*[made[number] for number in self._of_part], strict=True))


def join_key_columns(plan: FeastPlan, request: FeastRequest, parts: Sequence[FeastSelection]) -> Columns:
    """Return the columns of join keys under the names that views have for them, in the request's order.

    Columns that no entity of the project has are left out, as Feast does.

    Raises:
        FeastFault: there is no row, or columns have different lengths.
    """
    lengths = {len(values) for values in request.columns.values()}
    if len(lengths) > 1:
        counts = ", ".join(f"{shown(name)} {len(values)}" for name, values in request.columns.items())
        raise FeastFault(400, f"`entities`: expected columns of one length, got {counts[:160]}")
    if not request.columns and all(part.request_keys == NO_ENTITY_KEYS for part in parts):
        return {}
    if not any(lengths):
        raise FeastFault(400, "`entities`: expected at least one row, got none")
    found: dict[str, list[Any]] = {}
    for name, values in request.columns.items():
        join_key = name if name in plan.join_keys else plan.entities.get(name)
        if join_key is not None:
            found[join_key] = values
    return found


def row_count(request: FeastRequest) -> int:
    """Return how many rows a request asks for."""
    return len(next(iter(request.columns.values()), (None,)))


def _maker(form: FeastKeyForm, names: Sequence[str]) -> Callable[[Columns, int], list[str]]:
    make = entity_id_of(form)
    if form.names == NO_ENTITY_KEYS:
        only = entity_key(make([""]))
        return lambda _columns, rows: [only] * rows
    readers = [
        (name, _COLUMNS[kind](name, kind, form.version)) for name, kind in zip(names, form.types, strict=True)
    ]

    def keys(columns: Columns, _rows: int) -> list[str]:
        taken = []
        for name, read in readers:
            values = columns.get(name)
            if values is None:
                raise FeastFault(400, f"`entities`: expected the join key {shown(name)}, got none of it")
            taken.append(read(values))
        return [entity_key(make(row)) for row in zip(*taken, strict=True)]

    return keys


Reader = Callable[[list[Any]], Sequence[Any]]


def _wrong(name: str, row: int, expected: str, value: object) -> FeastFault:
    came = "null" if value is None else shown(value)
    return FeastFault(400, f"`entities.{name}[{row}]`: expected {expected}, got {came}")


def _strings(name: str, _kind: str, _version: int) -> Reader:
    def read(values: list[Any]) -> Sequence[Any]:
        for row, value in enumerate(values):
            if type(value) is not str:
                raise _wrong(name, row, "a string", value)
        return values

    return read


def _integers(name: str, kind: str, version: int) -> Reader:
    least, end = int_limits(kind, version)

    def read(values: list[Any]) -> Sequence[Any]:
        for row, value in enumerate(values):
            if type(value) is not int or not least <= value < end:
                raise _wrong(name, row, f"an integer from {least} to {end - 1}", value)
        return values

    return read


def _times(name: str, kind: str, version: int) -> Reader:
    least, end = int_limits(kind, version)

    def read(values: list[Any]) -> Sequence[Any]:
        found = []
        for row, value in enumerate(values):
            seconds = value
            if type(value) is str:
                try:
                    seconds = parse_time_ns(value) // SECOND_NS
                except ValueError:
                    seconds = None
            if type(seconds) is not int or not least <= seconds < end:
                raise _wrong(name, row, "seconds since the epoch, or an ISO-8601 time", value)
            found.append(seconds)
        return found

    return read


def _byte_strings(name: str, _kind: str, _version: int) -> Reader:
    def read(values: list[Any]) -> Sequence[Any]:
        found = []
        for row, value in enumerate(values):
            try:
                found.append(b64decode(value, validate=True))
            except (TypeError, ValueError, binascii.Error):
                raise _wrong(name, row, "bytes in base64", value) from None
        return found

    return read


_COLUMNS: Mapping[str, Callable[[str, str, int], Reader]] = {
    "STRING": _strings,
    "INT64": _integers,
    "INT32": _integers,
    "UNIX_TIMESTAMP": _times,
    "BYTES": _byte_strings,
}
