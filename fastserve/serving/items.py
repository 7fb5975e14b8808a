"""Ordinary DynamoDB items to packed rows: an attribute per feature, or what Feast wrote.

Slower than packed rows, with the same meaning: what comes out is evaluated like any other row.

Invariants
1. An attribute that is absent or NULL is a null feature. One of another type than the view declares makes the
   whole row unreadable.
2. Numbers are exact: an int64 is never read through a float.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from fastserve.errors import shown
from fastserve.plan.views import ViewPlan
from fastserve.sdk.types import Array, Bool, DataType, Float32, Float64, Int64, Map, String, Struct, Timestamp
from fastserve.serving.feast_items import feast_values
from fastserve.tiles.layout import Column, Storage
from fastserve.tiles.rows import RowError, encode_row
from fastserve.tiles.times import format_time, parse_time_ns

Attribute = Mapping[str, Any]

INT64_LIMIT = 2**63


def item_row(view: ViewPlan, item: Mapping[str, Attribute]) -> bytes:
    """Return an item (attribute name to DynamoDB JSON) as a packed row of the view.

    The effective time is that of the view's timestamp attribute, 0 where it has none; of Feast's items it is
    their own.

    Raises:
        RowError: an attribute has another type than the view declares.
    """
    if view.feast is not None:
        converted, time_ns = feast_values(view, item)
        row = {column.name: _stored(column, converted[column.name]) for column in view.layout.columns}
        return encode_row(view.layout, row, time_ns)
    values = {column.name: _column_value(column, item.get(column.name)) for column in view.layout.columns}
    effective_ns = 0
    if view.timestamp_attribute is not None:
        raw = item.get(view.timestamp_attribute)
        found = None if raw is None else _converted(view.timestamp_attribute, Timestamp, raw)
        if found is None and view.ttl_ns is not None:
            raise RowError(f"attribute {view.timestamp_attribute!r}: expected a time, got none")
        effective_ns = found or 0
    return encode_row(view.layout, values, effective_ns)


def _column_value(column: Column, attribute: Attribute | None) -> Any:
    if attribute is None:
        return None
    return _stored(column, _converted(column.name, column.dtype, attribute))


def _stored(column: Column, value: Any) -> Any:
    if value is None or column.storage is not Storage.JSON:
        return value
    return orjson.dumps(api_value(column.dtype, value))


def _converted(name: str, dtype: DataType, attribute: Attribute) -> Any:
    """Return the Python value of a DynamoDB attribute, None for NULL."""
    if "NULL" in attribute:
        return None
    try:
        return _reader(dtype)(name, dtype, attribute)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise RowError(f"attribute {name!r}: expected {dtype}, got {shown(dict(attribute))}") from None


def _integer(_name: str, _dtype: DataType, attribute: Attribute) -> int:
    number = int(attribute["N"])
    if not -INT64_LIMIT <= number < INT64_LIMIT:
        raise ValueError(number)
    return number


def _number(_name: str, _dtype: DataType, attribute: Attribute) -> float:
    return float(attribute["N"])


def _string(_name: str, _dtype: DataType, attribute: Attribute) -> str:
    value = attribute["S"]
    if type(value) is not str:
        raise TypeError(value)
    return value


def _bool(_name: str, _dtype: DataType, attribute: Attribute) -> bool:
    value = attribute["BOOL"]
    if type(value) is not bool:
        raise TypeError(value)
    return value


def _time(name: str, dtype: DataType, attribute: Attribute) -> int:
    """Return a time: ISO-8601 text, or a number of nanoseconds since the epoch."""
    return parse_time_ns(attribute["S"]) if "S" in attribute else _integer(name, dtype, attribute)


def _array(name: str, dtype: DataType, attribute: Attribute) -> list[Any]:
    element = dtype.element  # type: ignore[attr-defined]
    for kind, single in (("SS", "S"), ("NS", "N")):
        if kind in attribute:
            return [_converted(name, element, {single: value}) for value in attribute[kind]]
    return [_converted(name, element, value) for value in attribute["L"]]


def _struct(name: str, dtype: DataType, attribute: Attribute) -> list[Any]:
    members = attribute["M"]
    fields = dtype.fields  # type: ignore[attr-defined]
    return [_converted(name, f.dtype, members[f.name]) if f.name in members else None for f in fields]


def _map(name: str, dtype: DataType, attribute: Attribute) -> dict[str, Any]:
    value_type = dtype.value  # type: ignore[attr-defined]
    return {key: _converted(name, value_type, value) for key, value in attribute["M"].items()}


_SCALARS: dict[DataType, Callable[[str, DataType, Attribute], Any]] = {
    Int64: _integer,
    Float64: _number,
    Float32: _number,
    String: _string,
    Bool: _bool,
    Timestamp: _time,
}


def _reader(dtype: DataType) -> Callable[[str, DataType, Attribute], Any]:
    if isinstance(dtype, Array):
        return _array
    if isinstance(dtype, Struct):
        return _struct
    return _map if isinstance(dtype, Map) else _SCALARS[dtype]


def api_value(dtype: DataType, value: Any) -> Any:
    """Return a value as the API writes it.

    int64 and non-finite floats are strings, times ISO-8601, structs lists.
    """
    if value is None:
        return None
    if isinstance(dtype, Array):
        return [api_value(dtype.element, item) for item in value]
    if isinstance(dtype, Struct):
        return [api_value(f.dtype, item) for f, item in zip(dtype.fields, value, strict=True)]
    if isinstance(dtype, Map):
        return {key: api_value(dtype.value, item) for key, item in value.items()}
    if dtype == Int64:
        return str(value)
    if dtype == Timestamp:
        return format_time(value)
    if dtype in (Float64, Float32) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
