"""Pushed JSON values to the Python values that tiles and rows are made of.

Invariants
1. A value is taken only if it has the declared type, as of join keys: int64 also as a decimal string, times
   as ISO-8601 text, floats also as an integer or as "NaN", "Infinity", "-Infinity". null is None.
2. What comes out is what `ingest.values.python_values` gives for the same value in a file: timestamps are
   ints (ns), structs lists in the fields' order, maps dicts, a Float32 the nearest one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from struct import Struct as Packing
from typing import Any

from fastserve.api.values import bad_value, int64_value, timestamp_value
from fastserve.errors import RequestError
from fastserve.sdk.types import (
    Array,
    Bool,
    DataType,
    Float32,
    Float64,
    Int64,
    Map,
    String,
    Struct,
    Timestamp,
)

WHAT = "Column"
FLOAT_WORDS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": -float("inf")}
SURROGATE = re.compile("[\ud800-\udfff]")
_FLOAT32 = Packing("<f")

Read = Callable[[Any], Any]


def value_reader(dtype: DataType, name: str) -> Read:
    """Return the function that checks a JSON value of column ``name``; it raises `RequestError`."""
    if isinstance(dtype, Array):
        element = value_reader(dtype.element, f"{name}[]")
        return _of_type(name, f"{dtype} (an array)", list, lambda value: [element(item) for item in value])
    if isinstance(dtype, Map):
        member = value_reader(dtype.value, f"{name}{{}}")
        return _of_type(
            name,
            f"{dtype} (an object)",
            dict,
            lambda value: {key: member(item) for key, item in value.items()},
        )
    if isinstance(dtype, Struct):
        return _struct(dtype, name)
    return _SCALARS[dtype](name)


def _of_type(name: str, expected: str, kind: type, convert: Read) -> Read:
    def read(value: Any) -> Any:
        if type(value) is kind:
            return convert(value)
        if value is None:
            return None
        raise bad_value(WHAT, name, expected, value)

    return read


def _string(name: str) -> Read:
    def read(value: Any) -> Any:
        if type(value) is str:
            if not value.isascii() and SURROGATE.search(value):
                raise bad_value(WHAT, name, "text without lone surrogates", value)
            return value
        if value is None:
            return None
        raise bad_value(WHAT, name, "string", value)

    return read


def _bool(name: str) -> Read:
    return _of_type(name, "boolean (true or false)", bool, lambda value: value)


def _int64(name: str) -> Read:
    def read(value: Any) -> Any:
        return None if value is None else int64_value(WHAT, name, value)

    return read


def _timestamp(name: str) -> Read:
    def read(value: Any) -> Any:
        return None if value is None else timestamp_value(WHAT, name, value)

    return read


def _float64(name: str) -> Read:
    def read(value: Any) -> Any:
        if type(value) is float or value is None:
            return value
        return _float_of(name, "float64", value)

    return read


def _float_of(name: str, dtype: str, value: Any) -> float:
    if type(value) in (int, float):
        return float(value)  # JSON's integers end at 2^64
    if type(value) is str and value in FLOAT_WORDS:
        return FLOAT_WORDS[value]
    raise bad_value(WHAT, name, f'{dtype} (a number, "NaN", "Infinity" or "-Infinity")', value)


def _float32(name: str) -> Read:
    def read(value: Any) -> Any:
        if value is None:
            return None
        number = _float_of(name, "float32", value)
        try:
            return _FLOAT32.unpack(_FLOAT32.pack(number))[0]
        except OverflowError:
            raise bad_value(WHAT, name, "float32 (up to 3.4e38)", value) from None

    return read


def _struct(dtype: Struct, name: str) -> Read:
    members = [(field.name, value_reader(field.dtype, f"{name}.{field.name}")) for field in dtype.fields]
    names = {member for member, _ in members}
    expected = f"an object of exactly {', '.join(member for member, _ in members)}"

    def read(value: Any) -> Any:
        if value is None:
            return None
        if type(value) is not dict or value.keys() != names:
            raise bad_value(WHAT, name, expected, value)
        return [check(value[member]) for member, check in members]

    return read


_SCALARS: dict[DataType, Callable[[str], Read]] = {
    Int64: _int64,
    Float64: _float64,
    Float32: _float32,
    String: _string,
    Bool: _bool,
    Timestamp: _timestamp,
}


class RecordReader:
    """Checks the records of one source against its schema."""

    def __init__(self, fields: list[tuple[str, DataType]]) -> None:
        self._readers = [(name, value_reader(dtype, name)) for name, dtype in fields]
        self._names = {name for name, _ in fields}

    def values(self, record: dict[str, Any]) -> list[Any]:
        """Return a record's values in the schema's order; a column that lacks is null.

        Raises:
            RequestError: a value of the wrong type, or a column that the source doesn't have.
        """
        get = record.get
        values = [read(get(name)) for name, read in self._readers]
        if not self._names.issuperset(record):
            extra = next(name for name in record if name not in self._names)
            listed = ", ".join(f"`{name}`" for name, _ in self._readers)
            raise RequestError(400, f"Unknown column: expected {listed}, got `{extra[:64]}`")
        return values
