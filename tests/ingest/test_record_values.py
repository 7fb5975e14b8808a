"""Pushed values: taken exactly or refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fastserve.errors import RequestError
from fastserve.ingest.record_values import RecordReader, value_reader
from fastserve.sdk.types import (
    Array,
    Bool,
    DataType,
    Field,
    Float32,
    Float64,
    Int64,
    Map,
    String,
    Struct,
    Timestamp,
)

POINT = Struct([Field("x", Int64), Field("at", Timestamp)])
GOOD: list[tuple[DataType, Any, Any]] = [
    (Int64, 5, 5),
    (Int64, "9007199254740993", 9007199254740993),
    (Int64, -(2**63), -(2**63)),
    (Float64, 1, 1.0),
    (Float64, 0.1, 0.1),
    (Float64, "Infinity", math.inf),
    (Float32, 0.1, 0.10000000149011612),
    (String, "é", "é"),
    (String, "", ""),
    (Bool, False, False),
    (Timestamp, "2026-01-02T00:25:06.123456789+01:00", 1767309906123456789),
    (Array(Int64), [1, None, "2"], [1, None, 2]),
    (Map(String, Float64), {"a": 1, "b": None}, {"a": 1.0, "b": None}),
    (POINT, {"at": "1970-01-01", "x": 1}, [1, 0]),
]
BAD: list[tuple[DataType, Any]] = [
    (Int64, 1.5),
    (Int64, True),
    (Int64, "1.0"),
    (Int64, 2**63),
    (Int64, "NaN"),
    (Float64, "1"),
    (Float64, True),
    (Float64, "nan"),
    (Float32, 1e39),
    (String, 1),
    (String, "\ud800"),
    (Bool, 0),
    (Timestamp, 5),
    (Timestamp, "yesterday"),
    (Timestamp, "2026-02-30"),
    (Array(Int64), {}),
    (Array(Int64), ["x"]),
    (Map(String, Int64), []),
    (Map(String, Int64), {"a": "x"}),
    (POINT, {"x": 1}),
    (POINT, {"x": 1, "at": None, "z": 1}),
    (POINT, [1, 2]),
]


@pytest.mark.parametrize("dtype, value, expected", GOOD, ids=repr)
def test_a_value_of_its_type_is_taken_exactly(dtype: DataType, value: Any, expected: Any) -> None:
    got = value_reader(dtype, "c")(value)
    assert got == expected
    assert type(got) is type(expected)


def test_nan_is_a_float() -> None:
    assert math.isnan(value_reader(Float64, "c")("NaN"))


@pytest.mark.parametrize("dtype", list(dict.fromkeys(dtype for dtype, *_ in GOOD)), ids=repr)
def test_null_is_none_for_every_type(dtype: DataType) -> None:
    assert value_reader(dtype, "c")(None) is None


@pytest.mark.parametrize("dtype, value", BAD, ids=ascii)
def test_a_value_of_another_type_is_refused_by_the_columns_name(dtype: DataType, value: Any) -> None:
    with pytest.raises(RequestError, match="Column `c"):
        value_reader(dtype, "c")(value)


def test_a_record_gives_its_values_in_the_schemas_order() -> None:
    reader = RecordReader([("a", Int64), ("b", String)])
    assert reader.values({"b": "x", "a": 1}) == [1, "x"]
    assert reader.values({}) == [None, None]
    with pytest.raises(RequestError, match="Unknown column: expected `a`, `b`, got `c`"):
        reader.values({"a": 1, "c": 2})
