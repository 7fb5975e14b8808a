"""Columns of feature values, and where in a batch's matrix each feature stands.

Knows the plan and the merged aggregates, nothing of how rows came or were repaired.

Invariants
1. Within a kind, values stand in the order of the plan's inputs; null is the layout's in-band marker.
2. A count that was made of no row, because the row failed, has not come or found no room in the store, is
   null whatever the request asks for: zero would be a value. So is every aggregate that an older row lacks,
   whatever was pushed since.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastserve.errors import RequestError
from fastserve.plan.service import Output, ServicePlan
from fastserve.tiles.aggregates import AggregateFeature
from fastserve.tiles.layout import (
    NULL_BOOL,
    NULL_FLOAT32_BITS,
    NULL_FLOAT64_BITS,
    NULL_INT64,
    Column,
    Storage,
    storage_of,
)
from fastserve.tiles.merge import MergePlan, Words
from fastserve.tiles.wide_values import NULL

Array = npt.NDArray[Any]
Merged = tuple[npt.NDArray[np.float64], Words]
"""The merged aggregates of a batch: floats and integers, one line per request."""

ZeroCounts = Sequence[Collection[int] | None]
"""Per line: None where an empty count is null, else the places whose counts stay null all the same."""

NULL_FLOAT32 = np.array([NULL_FLOAT32_BITS], "<i4").view("<f4")[0]


@dataclass(slots=True)
class RowReport:
    """What was unusual about a batch's rows: for metrics and statuses.

    ``unreadable`` has the reason by (line, place), ``lacking`` the outputs of which an older row there holds
    nothing, though there may be something. ``missing`` are rows that weren't there, ``unwritten`` those of
    them in whose place there is `NO_ROW`.
    """

    unreadable: dict[tuple[int, int], str] = field(default_factory=dict)
    expired: int = 0
    transcoded: int = 0
    missing: int = 0
    unwritten: set[tuple[int, int]] = field(default_factory=set)
    lacking: dict[tuple[int, int], Sequence[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Computed:
    """What the on-demand views of a service gave for the lines of a batch.

    ``results`` holds by view and line the checked values in the view's order, an empty list for a line that
    failed or came late; ``errors`` has the failed lines. ``late`` are by line the views that weren't computed
    within the caller's budget. ``wait_s`` is how long the lines waited for it all.
    """

    results: Sequence[Sequence[Sequence[Any]]]
    errors: Mapping[int, RequestError]
    late: Mapping[int, Collection[int]]
    wait_s: float


@dataclass(slots=True)
class Columns:
    """Feature values of a batch, by storage kind, one line per request.

    ``floats`` (float64), ``ints`` (int64), ``times`` (int64 ns), ``singles`` (float32), ``bools`` (uint8, 2
    is null) and ``texts`` (lists of JSON bytes) are in the order of the plan's inputs of that kind.
    ``effective_ns`` has shape (requests, places), the smallest int64 where there is no usable row. ``exact``
    maps (line, output number) to values that look like a null marker and aren't. ``odd`` is true when a float
    may be a NaN or infinity that is not null. ``computed`` is what on-demand views made of all this.
    """

    floats: npt.NDArray[np.float64]
    ints: Words
    times: Words
    singles: npt.NDArray[np.float32]
    bools: npt.NDArray[np.uint8]
    texts: list[list[bytes]]
    effective_ns: Words
    odd: bool
    exact: dict[tuple[int, int], int]
    report: RowReport
    computed: Computed | None = None
    evaluated_from_s: float = 0.0  # where somebody measures: when the evaluation began,
    evaluated_s: float = 0.0  # and how long it took


def no_columns(lines: int) -> Columns:
    """Return the columns of a service that reads no rows."""
    return Columns(
        _NO_FLOATS,
        _NO_INTS,
        _NO_INTS,
        _NO_SINGLES,
        _NO_BOOLS,
        [],
        np.empty((lines, 0), np.int64),
        False,
        {},
        RowReport(),
    )


_NO_FLOATS = np.empty((0, 0))
_NO_INTS = np.empty((0, 0), np.int64)
_NO_SINGLES = np.empty((0, 0), np.float32)
_NO_BOOLS = np.empty((0, 0), np.uint8)


def output_storage(output: Output) -> Storage:
    """Return the kind of column in which an output's values come.

    Wide aggregates and series come as texts, whatever their type: `serving.wide` makes them.
    """
    source = output.source
    if isinstance(source, AggregateFeature) and source.value is None:
        return Storage.JSON
    return storage_of(output.dtype)


@dataclass(frozen=True, slots=True)
class _Gather:
    """How one kind of column is read.

    ``look_ups`` are elements of the matrix's lines seen as ``dtype``, ``order`` goes over those and the
    merged aggregates behind them (None: as read). ``nothing`` is given where the service has no column of the
    kind.
    """

    look_ups: npt.NDArray[np.intp]
    order: npt.NDArray[np.intp] | None
    dtype: np.dtype[Any]
    nothing: Array | None


class ColumnIndex:
    """Where each output's value stands: in the matrix, or in the merged aggregates."""

    def __init__(self, plan: ServicePlan, merge: MergePlan | None) -> None:
        aggregates = _aggregate_columns(plan, merge)
        kinds = [output_storage(output) for output in plan.inputs]
        gathers = {
            storage: _gather(plan, kinds, storage, aggregates)
            for storage in Storage
            if storage is not Storage.JSON
        }
        self._f8 = gathers[Storage.F8]
        self._i8 = gathers[Storage.I8]
        self._time = gathers[Storage.TIME]
        self._f4 = gathers[Storage.F4]
        self._bool = gathers[Storage.BOOL]
        self._aggregates = aggregates
        self._texts = _numbered(kinds, Storage.JSON)
        self._counts = 0 if merge is None else merge.counts
        self._counts_of_place: dict[int, list[int]] = {}
        for output, column in zip(plan.inputs, aggregates, strict=True):
            if column is not None and not column[0] and 0 <= column[1] < self._counts:
                self._counts_of_place.setdefault(output.place, []).append(column[1])

    def read(
        self, matrix: Words, merged: Merged, zero_counts: ZeroCounts | None, report: RowReport
    ) -> tuple[Array, Array, Array, Array, Array]:
        """Return floats, ints, times, singles and bools; counts in ``merged`` are changed in place."""
        floats, ints = merged
        if self._counts:
            self._put_null_counts(ints, zero_counts, report)
        for (line, _), outputs in report.lacking.items():
            self._put_nulls(merged, line, outputs)
        return (
            _column(self._f8, matrix, floats),
            _column(self._i8, matrix, ints),
            _column(self._time, matrix, ints),
            self._singles(matrix, floats),
            self._bools(matrix, ints),
        )

    def _put_nulls(self, merged: Merged, line: int, outputs: Sequence[int]) -> None:
        floats, ints = merged
        for column in [self._aggregates[number] for number in outputs]:
            if column is None or column[1] < 0:  # a text
                continue
            is_float, index = column
            if is_float:
                floats.view("<i8")[line, index] = NULL_FLOAT64_BITS
            else:
                ints[line, index] = NULL_INT64

    def put_null_texts(self, texts: list[list[bytes]], report: RowReport) -> None:
        """Put null in the place of what older rows lack, of the kinds that come as texts."""
        for (line, _), outputs in report.lacking.items():
            for number in outputs:
                if number in self._texts:
                    texts[line][self._texts[number]] = NULL

    def _singles(self, matrix: Words, floats: Array) -> Array:
        if self._f4.order is not None:
            with np.errstate(over="ignore"):  # of float64 sums beside them, which nobody reads from here
                singles = floats.astype("<f4")
            np.copyto(singles, NULL_FLOAT32, where=floats.view("<i8") == NULL_FLOAT64_BITS)
            floats = singles
        return _column(self._f4, matrix, floats)

    def _bools(self, matrix: Words, ints: Words) -> Array:
        if self._bool.order is None:
            return _column(self._bool, matrix, ints)
        return _column(self._bool, matrix, np.where(ints == NULL_INT64, NULL_BOOL, ints).astype("u1"))

    def _put_null_counts(self, ints: Words, zero_counts: ZeroCounts | None, report: RowReport) -> None:
        counts = ints[:, : self._counts]
        empty = counts == 0
        if zero_counts is not None:
            empty &= np.array([places is None for places in zero_counts], np.bool_)[:, None]
            lacking_rows = [
                (line, place) for line, places in enumerate(zero_counts) for place in places or ()
            ]
            for line, place in (*lacking_rows, *report.unreadable, *report.unwritten):
                empty[line, self._counts_of_place.get(place, [])] = True
        np.copyto(counts, NULL_INT64, where=empty)


def _numbered(kinds: Sequence[Storage], storage: Storage) -> dict[int, int]:
    """Return by output of this kind its number among them."""
    outputs = [number for number, kind in enumerate(kinds) if kind is storage]
    return {output: number for number, output in enumerate(outputs)}


def _gather(
    plan: ServicePlan, kinds: list[Storage], storage: Storage, aggregates: list[tuple[bool, int] | None]
) -> _Gather:
    look_ups: list[int] = []
    order: list[tuple[bool, int]] = []
    for output, kind, aggregate in zip(plan.inputs, kinds, aggregates, strict=True):
        if kind is not storage:
            continue
        if aggregate is not None:
            order.append((True, aggregate[1]))
        elif isinstance(output.source, Column):
            byte = plan.places[output.place].word * 8 + output.source.offset
            order.append((False, len(look_ups)))
            look_ups.append(byte // storage.width_bytes)
    final = [place + len(look_ups) if merged else place for merged, place in order]
    needs_merged = any(merged for merged, _ in order)
    dtype = np.dtype(storage.numpy_type)  # made once: from text it costs as much as a small take
    nothing = None if order else np.empty((0, 0), dtype)
    return _Gather(
        np.array(look_ups, np.intp), np.array(final, np.intp) if needs_merged else None, dtype, nothing
    )


def _column(gather: _Gather, matrix: Words, merged: Array) -> Array:
    if gather.nothing is not None:
        return gather.nothing
    if gather.order is None:
        return matrix.view(gather.dtype).take(gather.look_ups, axis=1)
    if not gather.look_ups.size:
        return merged.take(gather.order, axis=1)
    looked_up = matrix.view(gather.dtype).take(gather.look_ups, axis=1)
    return np.concatenate([looked_up, merged], axis=1).take(gather.order, axis=1)


def _aggregate_columns(plan: ServicePlan, merge: MergePlan | None) -> list[tuple[bool, int] | None]:
    """Return for each output its column in the merged floats (true) or integers; None for look-ups."""
    columns: list[tuple[bool, int] | None] = [None] * len(plan.inputs)
    if merge is None:
        return columns
    for position, place in enumerate(merge.place_numbers.tolist()):
        numbers = [
            number
            for number, output in enumerate(plan.inputs)
            if output.place == place and isinstance(output.source, AggregateFeature)
        ]
        for number, feature in zip(numbers, merge.feature_places[position], strict=True):
            columns[number] = (feature.is_float, feature.index)
    return columns
