from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.api.values import key_text
from fastserve.errors import RequestError
from fastserve.plan.keys import encode_key
from fastserve.sdk.types import Bool, DataType, Field, Int64, String, Timestamp

INT64 = "int64 (an integer or a decimal string, -2^63 to 2^63 - 1)"
TIME = "timestamp; expected an ISO-8601 time such as 2026-01-02T00:25:06.5Z"
YEARS = "timestamp; expected a time between the years 1678 and 2262"


def text(dtype: DataType, value: Any) -> str:
    return key_text(Field("k", dtype))(value)


def refusal(dtype: DataType, value: Any) -> str:
    with pytest.raises(RequestError) as caught:
        text(dtype, value)
    assert (caught.value.status, caught.value.code) == (400, 3)
    return caught.value.message


@pytest.mark.parametrize(
    "value, expected",
    [
        (0, "0"),
        ("0", "0"),
        ("-0", "0"),
        (9007199254740993, "9007199254740993"),
        ("9007199254740993", "9007199254740993"),
        (2**63 - 1, "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        (None, "\\0"),
    ],
    ids=repr,
)
def test_int64_comes_as_an_integer_or_as_decimal_text_and_stays_exact(value: Any, expected: str) -> None:
    assert text(Int64, value) == expected


@pytest.mark.parametrize(
    "value, came",
    [
        (2**63, "integer 9223372036854775808"),
        (str(2**63), "string '9223372036854775808'"),
        (-(2**63) - 1, "integer -9223372036854775809"),
        (float(2**64), "number 1.8446744073709552e+19"),
        (str(2**64), "string '18446744073709551616'"),
        ("12x", "string '12x'"),
        ("", "string ''"),
        (" 1", "string ' 1'"),
        ("+1", "string '+1'"),
        ("1_000", "string '1_000'"),
        ("\u0661", "string '\u0661'"),
        ("1\n", "string '1\\n'"),
        (1.0, "number 1.0"),
        (True, "boolean True"),
        ([1], "array [1]"),
        ({"a": 1}, "object {'a': 1}"),
    ],
    ids=repr,
)
def test_what_is_no_int64_is_refused_and_named(value: Any, came: str) -> None:
    assert refusal(Int64, value) == f"Join key `k`: expected {INT64}, got {came}"


@pytest.mark.parametrize(
    "value", ["u1", "", "a|b", "\\", "\\0", "\\e", "naïve", "😀", " ", "a\0b", "x" * 255, None]
)
def test_a_string_s_key_text_is_the_writer_s(value: str | None) -> None:
    assert text(String, value) == encode_key([String], [value])


@given(st.text())
def test_any_string_s_key_text_is_the_writer_s(value: str) -> None:
    assert text(String, value) == encode_key([String], [value])


@pytest.mark.parametrize(
    "value, came",
    [(1, "integer 1"), (1.5, "number 1.5"), (False, "boolean False"), ([], "array []"), ({}, "object {}")],
)
def test_a_string_is_no_number_and_no_object(value: Any, came: str) -> None:
    assert refusal(String, value) == f"Join key `k`: expected string, got {came}"


def test_a_key_is_as_long_as_a_table_s_key_may_be_and_its_echo_short() -> None:
    assert text(String, "x" * 2048) == "x" * 2048
    message = refusal(String, "é" * 1025)
    assert message.startswith("Join key `k`: expected at most 2048 bytes, got string '")
    assert len(message) < 150


def test_escapes_do_not_push_a_key_over_the_store_s_limit() -> None:
    assert "at most 2048 bytes" in refusal(String, "|" * 1500)


@pytest.mark.parametrize("value, expected", [(True, "true"), (False, "false"), (None, "\\0")])
def test_a_bool_is_true_false_or_null(value: Any, expected: str) -> None:
    assert text(Bool, value) == expected == encode_key([Bool], [value])


@pytest.mark.parametrize("value, came", [(1, "integer 1"), ("true", "string 'true'"), (0.0, "number 0.0")])
def test_what_is_no_bool_is_refused(value: Any, came: str) -> None:
    assert refusal(Bool, value) == f"Join key `k`: expected bool (true or false), got {came}"


@pytest.mark.parametrize(
    "value, expected",
    [
        ("1970-01-01", "0"),
        ("1970-01-01T00:00:01", "1000000000"),
        ("1970-01-01T01:00:00+01:00", "0"),
        ("1970-01-01T00:00:00.000000001Z", "1"),
        (None, "\\0"),
    ],
)
def test_a_timestamp_is_iso_text_in_nanoseconds(value: Any, expected: str) -> None:
    assert text(Timestamp, value) == expected


@pytest.mark.parametrize(
    "value, expected",
    [
        (0, "timestamp (ISO-8601 text)"),
        (1.5, "timestamp (ISO-8601 text)"),
        (True, "timestamp (ISO-8601 text)"),
        ([], "timestamp (ISO-8601 text)"),
        ("", TIME),
        ("yesterday", TIME),
        ("2026-13-01", "timestamp; "),
        ("2026-01-01T25:00", "timestamp; "),
        ("1500-01-01", YEARS),
        ("0001-01-01T00:00:00+01:00", YEARS),
        ("9999-12-31T23:00:00-17:59", YEARS),
    ],
    ids=repr,
)
def test_what_is_no_timestamp_is_refused(value: Any, expected: str) -> None:
    message = refusal(Timestamp, value)
    assert message.startswith(f"Join key `k`: expected {expected}")
    assert ", got " in message
