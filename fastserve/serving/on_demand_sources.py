"""The sources of an on-demand view as its function gets them: a dict of values per line, or of arrays.

Compiled per binding. What a request brought and what another view computed may be wanted by several
functions, so lists and dicts of those are copied; what rows hold is parsed anew for each.

Invariants
1. Dicts and arrays are made for one call; a function may change whatever it gets.
2. `Source.rows` gives an entry for every line, also for one that has failed, whose entry may hold nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Protocol

import numpy as np
import orjson

from fastserve.errors import ECHO_LIMIT, RequestError
from fastserve.plan.on_demand import InputsBinding, OnDemandBinding, RequestBinding, SourceBinding
from fastserve.plan.service import Output, ServicePlan
from fastserve.sdk.on_demand_columns import column, nullable
from fastserve.sdk.types import Field
from fastserve.sdk.values import copier
from fastserve.serving.columns import Columns, output_storage
from fastserve.serving.on_demand_batch import Batch, Values
from fastserve.serving.on_demand_values import json_decoder, kind_positions, value_reader
from fastserve.serving.texts import NULL
from fastserve.tiles.layout import NULL_BOOL, NULL_INT64, Storage

UNREADABLE = (ValueError, TypeError, AttributeError)
"""What a row's JSON text raises that isn't of its type: it was written by another hand."""

Row = dict[str, Any]
Arrays = dict[str, Any]


class Source(Protocol):
    """One source of one view."""

    def rows(self, batch: Batch) -> list[Row]:
        """Return a dict of Python values for each line."""

    def arrays(self, batch: Batch, lines: Sequence[int] | None) -> Arrays:
        """Return an array for each feature over these lines, over all when None."""


def compile_source(plan: ServicePlan, binding: SourceBinding) -> Source:
    """Return what gives the values of one source."""
    if isinstance(binding, RequestBinding):
        return RequestValues(plan, binding)
    if isinstance(binding, OnDemandBinding):
        return ComputedValues(plan, binding)
    return StoredValues(plan, binding)


Pick = Callable[[Sequence[Any]], Sequence[Any]]


def _picker(positions: Sequence[int], width: int) -> Pick | None:
    """Return what takes the values at these positions of a line; None where that is the whole line."""
    if list(positions) == list(range(width)):
        return None
    if len(positions) == 1:
        only = positions[0]
        return lambda line: (line[only],)
    return itemgetter(*positions)


Copiers = Sequence[tuple[str, Callable[[Any], Any]]]


def _copiers(fields: Sequence[Field]) -> Copiers:
    found = [(field.name, copier(field.dtype)) for field in fields]
    return [(name, copy) for name, copy in found if copy is not None]


def _dicts(names: tuple[str, ...], lines: Sequence[Sequence[Any]], pick: Pick | None) -> list[Row]:
    # `strict` would take as long as the rest; a line that has failed may be empty.
    if pick is None:
        return [dict(zip(names, line)) for line in lines]  # noqa: B905
    return [dict(zip(names, pick(line))) if line else {} for line in lines]  # noqa: B905


def _copy_members(rows: Sequence[Row], copiers: Copiers) -> None:
    for row in rows:
        if row:
            for name, copy in copiers:
                row[name] = copy(row[name])


class RequestValues:
    """What came with the request."""

    def __init__(self, plan: ServicePlan, binding: RequestBinding) -> None:
        self._fields = binding.fields
        self._names = tuple(field.name for field in binding.fields)
        self._pick = _picker(binding.positions, len(plan.context_fields))
        # A list that only one call sees is its own: it was parsed for this request.
        users = [
            position
            for view in plan.on_demand
            for source in view.sources
            if isinstance(source, RequestBinding)
            for position in source.positions
        ]
        shared = [f for f, at in zip(binding.fields, binding.positions, strict=True) if users.count(at) > 1]
        self._shared = _copiers(shared)
        self._all = _copiers(binding.fields)

    def rows(self, batch: Batch) -> list[Row]:
        """As `Source.rows`."""
        return self._rows(batch, self._shared)

    def _rows(self, batch: Batch, copiers: Copiers) -> list[Row]:
        rows = _dicts(self._names, batch.contexts, self._pick)
        if copiers:
            _copy_members(rows, copiers)
        return rows

    def arrays(self, batch: Batch, lines: Sequence[int] | None) -> Arrays:
        """As `Source.arrays`; a call that raised may have changed what it got, and is repeated."""
        return _arrays_of(self._fields, self._rows(batch, self._all), lines)


class ComputedValues:
    """What an earlier view computed."""

    def __init__(self, plan: ServicePlan, binding: OnDemandBinding) -> None:
        fields = plan.on_demand[binding.plan].output_fields
        self._fields = [fields[position] for position in binding.fields]
        self._names = binding.names
        self._plan = binding.plan
        self._pick = _picker(binding.fields, len(fields))
        self._copiers = _copiers(self._fields)

    def rows(self, batch: Batch) -> list[Row]:
        """As `Source.rows`."""
        results: list[Values] = batch.results[self._plan]
        rows = _dicts(self._names, results, self._pick)
        if self._copiers:
            _copy_members(rows, self._copiers)
        return rows

    def arrays(self, batch: Batch, lines: Sequence[int] | None) -> Arrays:
        """As `Source.arrays`."""
        return _arrays_of(self._fields, self.rows(batch), lines)


def _arrays_of(fields: Sequence[Field], rows: Sequence[Row], lines: Sequence[int] | None) -> Arrays:
    taken = rows if lines is None else [rows[line] for line in lines]
    return {field.name: column(field.dtype, [row[field.name] for row in taken]) for field in fields}


class StoredValues:
    """Features of a view, read from rows."""

    def __init__(self, plan: ServicePlan, binding: InputsBinding) -> None:
        places = kind_positions(plan)
        outputs = [(plan.inputs[number], number, places[number]) for number in binding.inputs]
        self._view = binding.name
        self._names = binding.names
        self._readers = [value_reader(*output) for output in outputs]
        self._only = self._readers[0] if len(self._readers) == 1 else None
        self._texts = [
            (place, json_decoder(output.dtype) or _same)
            for output, _, place in outputs
            if output_storage(output) is Storage.JSON
        ]
        self._array_readers = [_array_reader(*output) for output in outputs]

    def rows(self, batch: Batch) -> list[Row]:
        """As `Source.rows`."""
        try:
            return self._rows(batch.columns)
        except UNREADABLE:
            self._refuse_unreadable(batch)
            return self._rows(batch.columns)

    def _rows(self, columns: Columns) -> list[Row]:
        names = self._names
        if self._only is not None:
            (name,) = names
            return [{name: value} for value in self._only(columns)]
        values = [read(columns) for read in self._readers]
        return [dict(zip(names, line)) for line in zip(*values)]  # noqa: B905 - as in `_dicts`

    def arrays(self, batch: Batch, lines: Sequence[int] | None) -> Arrays:
        """As `Source.arrays`."""
        try:
            return self._arrays(batch.columns, lines)
        except UNREADABLE:
            self._refuse_unreadable(batch)
            return self._arrays(batch.columns, lines)

    def _arrays(self, columns: Columns, lines: Sequence[int] | None) -> Arrays:
        readers = zip(self._names, self._array_readers, strict=True)
        return {name: read(columns, lines) for name, read in readers}

    def _refuse_unreadable(self, batch: Batch) -> None:
        """Refuse the lines whose texts can't be read, and put null in their places."""
        for line, texts in enumerate(batch.columns.texts):
            for place, decode in self._texts:
                try:
                    decode(orjson.loads(texts[place]))
                except UNREADABLE as error:
                    reason = f"A row of view `{self._view}` can't be read: {str(error)[:ECHO_LIMIT]}"
                    batch.fail(line, RequestError(503, reason))
                    texts[place] = NULL


def _same(value: Any) -> Any:
    return value


ReadArray = Callable[[Columns, Sequence[int] | None], Any]


def _array_reader(output: Output, number: int, place: int) -> ReadArray:
    """Return what gives one feature's values as an array of its own."""
    kind = output_storage(output)
    if kind is Storage.F8:
        return lambda columns, lines: _taken(columns.floats, place, lines)
    if kind is Storage.F4:
        return lambda columns, lines: _taken(columns.singles, place, lines)
    if kind is Storage.TIME:
        # The mark of a null is NumPy's own: the smallest int64 is NaT.
        return lambda columns, lines: _taken(columns.times, place, lines).view("M8[ns]")
    if kind is Storage.I8:
        return lambda columns, lines: _taken_ints(columns, number, place, lines)
    if kind is Storage.BOOL:
        return lambda columns, lines: _taken_bools(columns, place, lines)
    read = value_reader(output, number, place)

    def read_objects(columns: Columns, lines: Sequence[int] | None) -> Any:
        values = read(columns)
        return column(output.dtype, values if lines is None else [values[line] for line in lines])

    return read_objects


def _taken(matrix: Any, place: int, lines: Sequence[int] | None) -> Any:
    return matrix[:, place].copy() if lines is None else matrix[lines, place]


def _taken_ints(columns: Columns, number: int, place: int, lines: Sequence[int] | None) -> Any:
    data = columns.ints[:, place].copy()
    nulls = data == NULL_INT64
    for line, exact in columns.exact:
        if exact == number:
            nulls[line] = False
    data[nulls] = 0
    return nullable(data, nulls) if lines is None else nullable(data[lines], nulls[lines])


def _taken_bools(columns: Columns, place: int, lines: Sequence[int] | None) -> Any:
    stored = columns.bools[:, place] if lines is None else columns.bools[lines, place]
    return nullable(np.equal(stored, 1), np.equal(stored, NULL_BOOL))
