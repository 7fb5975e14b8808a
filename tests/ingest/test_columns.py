"""A column's SQL on a table of texts and values: what is taken, what is refused, exactly."""

from __future__ import annotations

import math
from typing import Any

import duckdb
import numpy as np
import pytest

from fastserve.errors import DefinitionError
from fastserve.ingest.columns import check_column, check_key_length
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

BAD = object()
T0 = 1_735_689_600 * 10**9  # 2025-01-01T00:00:00Z


def checked(dtype: DataType, values: str, **options: bool) -> list[Any]:
    """Return each of the SQL ``values`` as the type, or `BAD`."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"CREATE TABLE t AS SELECT unnest([{values}]) AS x")
        kind = connection.execute("DESCRIBE t").fetchall()[0][1]
        column = check_column(Field("x", dtype), kind, **options)
        rows = connection.execute(f"SELECT {column.value}, {column.fault} FROM t").fetchall()
    return [BAD if fault else value for value, fault in rows]


@pytest.mark.parametrize(
    "dtype, values, expected",
    [
        (Int64, "'7', ' -7 ', '+7', '7.0', '7.', NULL", [7, -7, 7, 7, 7, None]),
        (Int64, "'1.5', '0x1F', '1_000', '1e3', 'x', '', '9223372036854775808'", [BAD] * 7),
        (Int64, "'9007199254740993', '-9223372036854775808'", [2**53 + 1, -(2**63)]),
        (Int64, "1::UBIGINT, 18446744073709551615::UBIGINT", [1, BAD]),
        (Int64, "1.0::DOUBLE, 1.5::DOUBLE, 'nan'::DOUBLE, 1e30::DOUBLE, NULL", [1, BAD, BAD, BAD, None]),
        (Int64, "1.00::DECIMAL(9,2), 1.25::DECIMAL(9,2)", [1, BAD]),
        (Float64, "'1e3', '-Infinity', 'inf', NULL", [1000.0, -math.inf, math.inf, None]),
        (Float64, "'x', '1e999', '-1e999'", [BAD] * 3),
        (Float64, "1::BIGINT, 2::BIGINT", [1.0, 2.0]),
        (Float32, "1.5::DOUBLE, 1e40::DOUBLE", [1.5, BAD]),
        (Float32, "'1.5', '1e40'", [1.5, BAD]),
        (Bool, "'true', 'FALSE', 't', '0', 'maybe', NULL", [True, False, True, False, BAD, None]),
        (String, "7, 8, NULL", ["7", "8", None]),
        (Timestamp, "'2025-01-01', '2025-01-01T00:00:00Z', '2025-01-01 01:00:00+01:00'", [T0] * 3),
        (Timestamp, "'2025-01-01T00:00:00.123456789Z'", [T0 + 123456789]),
        (Timestamp, "'2025-01-01 00:00:00.5', NULL", [T0 + 5 * 10**8, None]),
        (Timestamp, "'yesterday', '1735689600', '2025-13-01', '2500-01-01', 'infinity'", [BAD] * 5),
        (Timestamp, "DATE '2025-01-01', NULL", [T0, None]),
        (Timestamp, "TIMESTAMP '2025-01-01', TIMESTAMP '2500-01-01', TIMESTAMP 'infinity'", [T0, BAD, BAD]),
        (Timestamp, "TIMESTAMPTZ '2025-01-01 01:00:00+01'", [T0]),
        (Timestamp, "TIMESTAMP_NS '2025-01-01 00:00:00.000000001'", [T0 + 1]),
        (Array(Int64), "[1, NULL], NULL", [[1, None], None]),
        (Array(Int64), "'[1, 2]', '[oops', '{}', NULL", [[1, 2], BAD, BAD, None]),
        (Array(Int64), "[1.0, 2.5, NULL]::DOUBLE[], [3.0]::DOUBLE[], NULL", [BAD, [3], None]),
        (Array(Int64), "['x', '3'], ['3', ' 4 ', NULL], []", [BAD, [3, 4, None], []]),
        (Array(Int64), "'[1.5]', '[\"x\"]', '[true]', '[[1]]', '[99999999999999999999]'", [BAD] * 5),
        (Array(Int64), "'[\"7\", 7.0, null]', '[]', 'null'", [[7, 7, None], [], BAD]),
        (Array(Float64), "'[1, 2.5]', '[1e999]', '[\"x\"]'", [[1.0, 2.5], BAD, BAD]),
        (Array(Float32), "[0.1]::DOUBLE[], [1e40]::DOUBLE[]", [[float(np.float32(0.1))], BAD]),
        (Array(Bool), "'[true, null]', '[1.5]', '[\"0\"]'", [[True, None], BAD, BAD]),
        (Array(String), "'[\"a\", 1]', '[null]'", [["a", "1"], [None]]),
        (Array(Array(Int64)), "[[1.5]], [[2.0], NULL]", [BAD, [[2], None]]),
        (Array(Array(Int64)), "'[[1], null]', '[1]', '[[1.5]]'", [[[1], None], BAD, BAD]),
        (Struct([Field("a", Int64)]), "{'a': 'x', 'b c': 1}, {'a': '2', 'b c': 1}", [BAD, {"a": 2}]),
        (Struct([Field("a", Int64)]), "'{\"a\": 1.5}', '{\"a\": 2, \"b\": 3}'", [BAD, {"a": 2}]),
        (Struct([Field("a", Int64)]), "'{}', '{\"a\": null}', '[1]'", [{"a": None}, {"a": None}, BAD]),
        (Map(String, Int64), "MAP {'a': 1.5}, MAP {'a': 2.0}", [BAD, {"a": 2}]),
        (Map(String, Int64), "'{\"a\": \"x\"}', '{\"a\": 2}', '[1]'", [BAD, {"a": 2}, BAD]),
        (Struct([Field("a", Int64)]), "{'a': 1}, NULL", [{"a": 1}, None]),
        (Map(String, Int64), "MAP {'a': 1}, NULL", [{"a": 1}, None]),
    ],
)  # fmt: skip
def test_a_value_has_the_declared_type_or_is_bad(dtype: DataType, values: str, expected: list[Any]) -> None:
    assert checked(dtype, values) == expected


def test_nan_is_a_value() -> None:
    assert [repr(value) for value in checked(Float64, "'NaN', 'nan'")] == ["nan", "nan"]


def test_a_column_without_any_value_is_null_in_every_type() -> None:
    for dtype in (Int64, Float64, String, Bool, Timestamp, Array(Int64)):
        column = check_column(Field("x", dtype), '"NULL"')
        row = duckdb.execute(f"SELECT {column.value}, {column.fault} FROM (SELECT NULL AS x)").fetchall()
        assert row == [(None, False)]


def test_a_required_value_must_not_be_null() -> None:
    assert checked(String, "'a', NULL", required=True) == ["a", BAD]


def test_the_smallest_int64_is_bad_where_it_would_mean_null() -> None:
    assert checked(Int64, "-9223372036854775808, 1", summed=True) == [BAD, 1]


def test_nan_and_infinities_are_bad_where_there_is_no_number_for_them() -> None:
    assert checked(Float64, "'nan'::DOUBLE, 'inf'::DOUBLE, 1.0, NULL", finite=True) == [BAD, BAD, 1.0, None]


@pytest.mark.parametrize(
    "dtype, kind",
    [
        (Int64, "BOOLEAN"),
        (Int64, "DATE"),
        (Float64, "BOOLEAN"),
        (String, "DATE"),
        (Bool, "BIGINT"),
        (Timestamp, "BIGINT"),
        (Array(Int64), "BIGINT"),
        (Map(String, Int64), "STRUCT(a BIGINT)"),
        (Array(Int64), "BOOLEAN[]"),
        (Array(Int64), "BIGINT[][]"),
        (Map(String, Int64), "MAP(VARCHAR, DATE)"),
        (Struct([Field("a", Int64)]), 'STRUCT("b,""c" DECIMAL(3,2), A DATE[])'),
    ],
)
def test_a_type_that_cannot_be_the_declared_one_is_refused(dtype: DataType, kind: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        check_column(Field("x", dtype), kind)
    assert str(caught.value) == f"column 'x': expected {dtype}, the source has {kind}"


def test_names_and_quotes_in_names_are_only_names() -> None:
    column = check_column(Field("select", Int64), "VARCHAR")
    rows = duckdb.execute(f"SELECT {column.value} FROM (SELECT '1' AS \"select\")").fetchall()
    assert rows == [(1,)]


def test_the_length_of_a_key_is_counted_in_bytes_with_its_escapes() -> None:
    column = check_key_length(check_column(Field("x", String), "VARCHAR"), 2)
    texts = ["a" * 1000, "a" * 1001, "|" * 500, "|" * 501, "ä" * 500, "ä" * 501, "\\" * 501]
    values = ", ".join(f"'{text}'" for text in texts)
    rows = duckdb.execute(f"SELECT {column.fault} FROM (SELECT unnest([{values}]) AS x)").fetchall()
    assert [fault for (fault,) in rows] == [False, True, False, True, False, True, True]


def test_a_key_of_strings_may_be_whole_numbers_in_the_source() -> None:
    column = check_key_length(check_column(Field("x", String), "BIGINT", required=True), 1)
    rows = duckdb.execute(f"SELECT {column.value}, {column.fault} FROM (SELECT 7::BIGINT AS x)").fetchall()
    assert rows == [("7", False)]
