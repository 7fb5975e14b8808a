from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from fastserve import Array, Bool, Field, Float32, Float64, Int64, Map, String, Struct, Timestamp
from fastserve.api.context import ContextReader
from fastserve.errors import RequestError
from fastserve.sdk.types import DataType

INT64 = "expected int64 (an integer or a decimal string, -2^63 to 2^63 - 1)"
TIME = "timestamp; expected an ISO-8601 time such as 2026-01-02T00:25:06.5Z"
POINT = Struct([Field("x", Float64), Field("tags", Array(Int64))])


def read(dtype: DataType, value: Any) -> Any:
    (got,) = ContextReader([Field("f", dtype)]).values({"f": value})
    return got


@pytest.mark.parametrize(
    "dtype, value, expected",
    [
        (Int64, "9223372036854775807", 2**63 - 1),
        (Int64, -(2**63), -(2**63)),
        (Float64, 1, 1.0),
        (Float64, 2**63, float(2**63)),
        (Float64, 1.5, 1.5),
        (Float64, "Infinity", math.inf),
        (Float64, "-Infinity", -math.inf),
        (Float32, 0.1, 0.10000000149011612),
        (Float32, "Infinity", math.inf),
        (String, "", ""),
        (Bool, False, False),
        (Timestamp, "2026-01-02T00:25:06.123456789Z", datetime(2026, 1, 2, 0, 25, 6, 123456, UTC)),
        (Timestamp, "2026-01-02T02:25:06+02:00", datetime(2026, 1, 2, 0, 25, 6, 0, UTC)),
        (Array(String), ["a", None], ["a", None]),
        (Array(Int64), ["1", 2, None], [1, 2, None]),
        (Array(Array(Float64)), [[1], None], [[1.0], None]),
        (POINT, {"tags": ["7"], "x": 2}, {"x": 2.0, "tags": [7]}),
        (
            Map(String, Timestamp),
            {"k": "1970-01-01", "n": None},
            {"k": datetime(1970, 1, 1, tzinfo=UTC), "n": None},
        ),
    ],
    ids=str,
)
def test_a_value_of_its_type_is_taken(dtype: DataType, value: Any, expected: Any) -> None:
    got = read(dtype, value)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    "dtype",
    [Int64, Float64, Float32, String, Bool, Timestamp, Array(String), POINT, Map(String, Bool)],
    ids=str,
)
def test_null_is_null(dtype: DataType) -> None:
    assert read(dtype, None) is None


def test_the_word_nan_is_a_number_of_its_own() -> None:
    assert math.isnan(read(Float64, "NaN"))


@pytest.mark.parametrize(
    "dtype, value, text",
    [
        (
            Int64,
            1.0,
            f"`f`: {INT64}, got number 1.0",
        ),
        (
            Int64,
            True,
            f"`f`: {INT64}, got boolean True",
        ),
        (
            Int64,
            "9223372036854775808",
            f"`f`: {INT64}, got string '9223372036854775808'",
        ),
        (
            Float64,
            True,
            '`f`: expected float64 (a number, "NaN", "Infinity" or "-Infinity"), got boolean True',
        ),
        (
            Float64,
            "1.5",
            '`f`: expected float64 (a number, "NaN", "Infinity" or "-Infinity"), got string \'1.5\'',
        ),
        (Float32, 1e39, "`f`: expected float32 (up to 3.4e38), got number 1e+39"),
        (String, 1, "`f`: expected string, got integer 1"),
        (Bool, 0, "`f`: expected bool (true or false), got integer 0"),
        (Timestamp, 0, "`f`: expected timestamp (ISO-8601 text), got integer 0"),
        (
            Timestamp,
            "soon",
            f"`f`: expected {TIME}, got string 'soon'",
        ),
        (Array(String), "ab", "`f`: expected array<string> (an array), got string 'ab'"),
        (Array(String), ["a", 1], "`f[]`: expected string, got integer 1"),
        (Array(Int64), {}, "`f`: expected array<int64> (an array), got object {}"),
        (POINT, {"x": 1}, "`f`: expected an object of exactly x, tags, got object {'x': 1}"),
        (
            POINT,
            {"x": 1, "tags": ["b"]},
            f"`f.tags[]`: {INT64}, got string 'b'",
        ),
        (Map(String, Bool), {"k": 1}, "`f{}`: expected bool (true or false), got integer 1"),
        (Map(String, Bool), [], "`f`: expected map<string, boolean> (an object), got array []"),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused_where_it_stands(dtype: DataType, value: Any, text: str) -> None:
    with pytest.raises(RequestError) as refusal:
        read(dtype, value)
    assert refusal.value.message == f"Request context field {text}"
    assert refusal.value.status == 400


FIELDS = [Field("a", Int64), Field("b", String)]


def test_values_come_in_the_fields_order() -> None:
    assert ContextReader(FIELDS).values({"b": "x", "a": 1}) == [1, "x"]


@pytest.mark.parametrize(
    "context, text",
    [
        ({"a": 1}, "Missing required request context field: `b`{row}"),
        ({"a": 1, "B": ""}, "Missing required request context field: `b`{row}; got the unknown 'B'"),
        ({"a": 1, "b": "", "c": 2}, "Unknown request context field{row}: expected `a`, `b`, got 'c'"),
        ({"a": 1, "b": 2}, "Request context field `b`: expected string, got integer 2{row}"),
    ],
    ids=["missing", "misspelt", "extra", "type"],
)
@pytest.mark.parametrize("row", ["", " (request_data[3])"])
def test_a_refusal_names_the_field_and_the_row(context: dict[str, Any], text: str, row: str) -> None:
    with pytest.raises(RequestError) as refusal:
        ContextReader(FIELDS).values(context, row)
    assert refusal.value.message == text.format(row=row)


def test_extra_fields_may_be_welcome() -> None:
    assert ContextReader(FIELDS).values({"a": 1, "b": "", "c": 2}, ignore_extra=True) == [1, ""]
    assert ContextReader([]).values({"c": 2}, ignore_extra=True) == []


def test_a_service_without_context_takes_none() -> None:
    with pytest.raises(RequestError, match="Unknown request context field: expected none, got 'c'"):
        ContextReader([]).values({"c": 2})
