"""Arrow columns to what rows keep: JSON texts in the API's encoding, and values of DynamoDB items.

Invariants
1. A JSON text is what the API answers with: `serving.items.api_value` says how a value is written.
2. int64 and timestamps are exact: nothing goes through a float or a clock with microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from fastserve.sdk.types import Array, DataType, Map, String, Struct, Timestamp
from fastserve.serving.items import api_value
from fastserve.tiles.times import format_time


def single_array(column: Any) -> Any:
    """Return a column (chunked or not) as one array that begins at its buffers' beginning."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.take(pa.array(np.arange(len(array)))) if array.offset else array


def python_values(dtype: DataType, array: Any) -> list[Any]:
    """Return the values of an array, None for null.

    Timestamps are ints (ns), structs lists in the fields' order, maps dicts.
    """
    array = single_array(array)
    if isinstance(dtype, Array):
        return _cut(array, python_values(dtype.element, array.values), array.offsets)
    if isinstance(dtype, Map):
        pairs = zip(array.keys.to_pylist(), python_values(dtype.value, array.items), strict=True)
        return [None if part is None else dict(part) for part in _cut(array, list(pairs), array.offsets)]
    if isinstance(dtype, Struct):
        members = [python_values(f.dtype, array.field(place)) for place, f in enumerate(dtype.fields)]
        valid = array.is_valid().to_pylist()
        rows = zip(*members, strict=True)
        return [list(row) if there else None for row, there in zip(rows, valid, strict=True)]
    if dtype == Timestamp and not pa.types.is_int64(array.type):
        array = array.cast(pa.timestamp("ns", "UTC")).cast(pa.int64())
    values: list[Any] = array.to_pylist()
    return values


def _cut(array: Any, values: list[Any], offsets: Any) -> list[Any]:
    ends = offsets.to_pylist()
    valid = array.is_valid().to_pylist()
    return [values[a:b] if v else None for a, b, v in zip(ends, ends[1:], valid, strict=False)]


def json_texts(dtype: DataType, array: Any) -> list[bytes]:
    """Return each value as the JSON text that the API answers with."""
    dumps = orjson.dumps
    if dtype == String:
        return [dumps(value) for value in array.to_pylist()]
    return [dumps(api_value(dtype, value)) for value in python_values(dtype, array)]


def item_values(dtype: DataType, array: Any) -> list[Any]:
    """Return each value as an attribute of an item holds it."""
    convert = _item_converter(dtype)
    return [None if value is None else convert(value) for value in python_values(dtype, array)]


def _item_converter(dtype: DataType) -> Callable[[Any], Any]:
    if dtype == Timestamp:
        return format_time
    if isinstance(dtype, Array):
        element = _optional(dtype.element)
        return lambda value: [element(item) for item in value]
    if isinstance(dtype, Map):
        inner = _optional(dtype.value)
        return lambda value: {key: inner(item) for key, item in value.items()}
    if isinstance(dtype, Struct):
        fields = [(field.name, _optional(field.dtype)) for field in dtype.fields]
        return lambda value: {name: f(item) for (name, f), item in zip(fields, value, strict=True)}
    return lambda value: value


def _optional(dtype: DataType) -> Callable[[Any], Any]:
    convert = _item_converter(dtype)
    return lambda value: None if value is None else convert(value)
