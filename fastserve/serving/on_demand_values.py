"""Stored values as a function gets them: Python values out of columns and out of rows' JSON texts.

Invariants
1. A null is None, and only a null: NaN and the smallest int64, where they were stored, come as they are.
2. Every value is made anew by each call: nobody else holds its lists and dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import orjson

from fastserve.plan.service import Output, ServicePlan
from fastserve.sdk.types import Array, DataType, Float32, Float64, Int64, Map, Struct, Timestamp
from fastserve.serving.columns import Columns, output_storage
from fastserve.serving.on_demand_batch import datetime_of
from fastserve.tiles.layout import NULL_FLOAT32_BITS, NULL_FLOAT64_BITS, NULL_INT64, Storage
from fastserve.tiles.times import parse_time_ns

Read = Callable[[Columns], list[Any]]
"""Gives one feature's values, line by line."""
BOOLS = (False, True, None)


def kind_positions(plan: ServicePlan) -> list[int]:
    """Return for each of the plan's inputs its column's number within its kind."""
    seen = dict.fromkeys(Storage, 0)
    positions = []
    for output in plan.inputs:
        kind = output_storage(output)
        positions.append(seen[kind])
        seen[kind] += 1
    return positions


def value_reader(output: Output, number: int, place: int) -> Read:
    """Return what reads input ``number``, the ``place``-th of its kind."""
    return _READERS[output_storage(output)](output.dtype, number, place)


def _floats(_dtype: DataType, _number: int, place: int) -> Read:
    def read(columns: Columns) -> list[Any]:
        column = columns.floats[:, place]
        if columns.odd:
            return _less_null(column, column.copy().view("<i8") == NULL_FLOAT64_BITS)
        return [None if value != value else value for value in column.tolist()]  # noqa: PLR0124 - NaN isn't

    return read


def _singles(_dtype: DataType, _number: int, place: int) -> Read:
    def read(columns: Columns) -> list[Any]:
        column = columns.singles[:, place]
        if columns.odd:
            return _less_null(column, column.copy().view("<i4") == NULL_FLOAT32_BITS)
        return [None if value != value else value for value in column.tolist()]  # noqa: PLR0124 - as above

    return read


def _less_null(column: Any, nulls: Any) -> list[Any]:
    values: list[Any] = column.tolist()
    for line in np.flatnonzero(nulls).tolist():
        values[line] = None
    return values


def _integers(column_of: Callable[[Columns], Any], number: int, place: int) -> Read:
    def read(columns: Columns) -> list[Any]:
        values: list[int] = column_of(columns)[:, place].tolist()
        if columns.exact:
            exact = columns.exact
            return [
                None if value == NULL_INT64 and (line, number) not in exact else value
                for line, value in enumerate(values)
            ]
        return [None if value == NULL_INT64 else value for value in values]

    return read


def _ints(_dtype: DataType, number: int, place: int) -> Read:
    return _integers(lambda columns: columns.ints, number, place)


def _times(_dtype: DataType, number: int, place: int) -> Read:
    times_ns = _integers(lambda columns: columns.times, number, place)

    def read(columns: Columns) -> list[Any]:
        return [None if time_ns is None else datetime_of(time_ns) for time_ns in times_ns(columns)]

    return read


def _bools(_dtype: DataType, _number: int, place: int) -> Read:
    def read(columns: Columns) -> list[Any]:
        return [BOOLS[value] for value in columns.bools[:, place].tolist()]

    return read


def _texts(dtype: DataType, _number: int, place: int) -> Read:
    decode = json_decoder(dtype)
    if decode is None:
        loads = orjson.loads

        def read_plain(columns: Columns) -> list[Any]:
            return [loads(texts[place]) for texts in columns.texts]

        return read_plain

    def read(columns: Columns) -> list[Any]:
        return [decode(orjson.loads(texts[place])) for texts in columns.texts]

    return read


_READERS: dict[Storage, Callable[[DataType, int, int], Read]] = {
    Storage.F8: _floats,
    Storage.F4: _singles,
    Storage.I8: _ints,
    Storage.TIME: _times,
    Storage.BOOL: _bools,
    Storage.JSON: _texts,
}


# --- JSON as rows hold it, which is as the API writes it


def json_decoder(dtype: DataType) -> Callable[[Any], Any] | None:
    """Return what turns parsed JSON into the type's Python value; None where it is that already."""
    if isinstance(dtype, Array):
        return _of_array(json_decoder(dtype.element))
    if isinstance(dtype, Struct):
        return _of_struct(
            [field.name for field in dtype.fields], [json_decoder(f.dtype) for f in dtype.fields]
        )
    if isinstance(dtype, Map):
        return _of_map(json_decoder(dtype.value))
    if dtype == Int64:
        return _or_none(int)
    if dtype in (Float64, Float32):
        return _or_none(float)  # of "NaN" and "Infinity", too
    return _or_none(lambda text: datetime_of(parse_time_ns(text))) if dtype == Timestamp else None


def _or_none(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)


def _of_array(element: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    if element is None:
        return None
    return _or_none(lambda items: [element(item) for item in items])


def _of_map(member: Callable[[Any], Any] | None) -> Callable[[Any], Any] | None:
    if member is None:
        return None
    return _or_none(lambda items: {key: member(item) for key, item in items.items()})


def _of_struct(names: Sequence[str], members: Sequence[Callable[[Any], Any] | None]) -> Callable[[Any], Any]:
    if not any(members):
        return _or_none(lambda items: dict(zip(names, items, strict=True)))
    decoders = [member or _same for member in members]
    return _or_none(
        lambda items: {name: decode(item) for name, decode, item in zip(names, decoders, items, strict=True)}
    )


def _same(value: Any) -> Any:
    return value
