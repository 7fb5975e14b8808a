"""Calculations: held against DuckDB over a table of awkward values, and their faults told one by one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve import (
    Array,
    Bool,
    Calculation,
    DataType,
    DefinitionError,
    Field,
    Float32,
    Float64,
    Int64,
    OnDemandFeatureView,
    RequestSource,
    String,
    Timestamp,
)
from fastserve.sdk.checks import collecting

FIELDS = [
    Field("i", Int64),
    Field("j", Int64),
    Field("x", Float64),
    Field("y", Float64),
    Field("s", String),
    Field("u", String),
    Field("b", Bool),
    Field("c", Bool),
    Field("since", Timestamp),
    Field("till", Timestamp),
]
SOURCE = RequestSource(FIELDS, name="r")
TIMES = [
    None,
    datetime(1969, 12, 28, 23, 59, 59, 250_000, tzinfo=UTC),
    datetime(2023, 12, 31, 23, 30, tzinfo=UTC),
    datetime(2024, 2, 29, tzinfo=UTC),
]
VALUES: dict[DataType, list[Any]] = {
    Int64: [None, 0, -7, 3, 2**53 + 1],
    Float64: [None, 0.0, -2.5, 0.1],
    String: [None, "", "a", "ä'b"],
    Bool: [None, True, False],
    Timestamp: TIMES,
}
COLUMNS: dict[DataType, str] = {
    Int64: "BIGINT",
    Float64: "DOUBLE",
    String: "VARCHAR",
    Bool: "BOOLEAN",
    Timestamp: "TIMESTAMP",
}
# Every operator and function over every pair of values of its columns, DuckDB saying what is right.
EXPRESSIONS = [
    "i + 1", "i - j / 2", "i % 3", "i % (j % 5)", "x % 0.3", "i * 2 + 1", "i + x * 2", "-i", "- x + 1", "+i",
    "i / j", "x / y", "i / 0", "2 * -3", "7 - 2 - 1", "12 / 2 / 3", "(7 - 2) * 3",
    "i = j", "i <> j", "i != 3", "i < x", "i >= j", "x <= y", "s = u", "s < u", "b = c", "since < till",
    "b AND c", "b OR c", "NOT b", "NOT b AND c OR b", "b AND i > 0", "NOT i = j", "b OR c AND NOT b",
    "i IS NULL", "s IS NOT NULL", "(b AND c) IS NULL", "since IS NULL OR till IS NULL",
    "i IN (3, 0)", "i IN (j, 3)", "i NOT IN (j, 3)", "s IN ('a', 'ä''b')", "i IN (3, NULL)",
    "i BETWEEN 0 AND 5", "x NOT BETWEEN -1 AND y", "i BETWEEN j AND j + 1 AND b",
    "COALESCE(i, j, 5)", "COALESCE(x, i)", "COALESCE(s, u, '-')", "NULLIF(i, 0)", "x / NULLIF(y, 0)",
    "IF(b, i, j)", "IF(i > 0, x, 1)", "LEAST(i, j)", "GREATEST(x, y, 0)", "LEAST(s, u)",
    "GREATEST(since, till)", "CASE WHEN i > 0 THEN 'up' WHEN i < 0 THEN 'down' ELSE s END",
    "CASE WHEN b THEN 1 WHEN c THEN 2.5 END",
    "ABS(i)", "ABS(x)", "EXP(x)", "SQRT(ABS(x))", "LN(ABS(i) + 1)", "LENGTH(s)",
    *(f"DATEDIFF('{unit}', since, till)" for unit in ("second", "minute", "hour", "day")),
    *(f"DATEDIFF('{unit}', since, till)" for unit in ("month", "quarter", "year")),
    *(f"EXTRACT({part} FROM since)" for part in ("year", "quarter", "month", "week", "day", "hour")),
    *(f"EXTRACT({part} FROM since)" for part in ("minute", "second", "dow", "doy", "epoch")),
    "since > TIMESTAMP '2024-01-01 00:00:00'", "DATEDIFF('hour', TIMESTAMP '2024-01-01', since)",
]  # fmt: skip


def computed(expr: str, row: Mapping[str, Any], dtype: DataType | None = None) -> Any:
    """Return what a view with that calculation gives for a request."""
    view = OnDemandFeatureView("v", SOURCE, [Calculation("result", expr, dtype)])
    values = {field.name: row.get(field.name) for field in FIELDS}
    return view.test_run({"r": values}, datetime(2024, 1, 2, tzinfo=UTC))["result"]


def type_of(expr: str) -> DataType:
    return OnDemandFeatureView("v", SOURCE, [Calculation("result", expr)]).output_type("result")


def fault_of(expr: str, dtype: DataType | None = None) -> str:
    with pytest.raises(DefinitionError) as caught:
        OnDemandFeatureView("v", SOURCE, [Calculation("result", expr, dtype)])
    assert caught.value.location is not None
    assert caught.value.location.file == __file__
    return caught.value.message


@pytest.fixture(scope="module")
def table() -> tuple[duckdb.DuckDBPyConnection, list[dict[str, Any]]]:
    """Return a table of every pair of values of a type, and the same rows as dicts."""
    pairs = {dtype: list(product(values, values)) for dtype, values in VALUES.items()}
    rows: list[dict[str, Any]] = []
    for number in range(max(map(len, pairs.values()))):
        row: list[Any] = []
        for of_type in pairs.values():
            row += of_type[number % len(of_type)]
        rows.append(dict(zip((field.name for field in FIELDS), row, strict=True)))
    connection = duckdb.connect()
    columns = ", ".join(f"{field.name} {COLUMNS[field.dtype]}" for field in FIELDS)
    # As most of SQL has it; DuckDB by itself gives NaN and infinities, and refuses a remainder by zero.
    connection.execute("SET ieee_floating_point_ops = false; SET error_on_division_by_zero = false")
    connection.execute(f"SET TimeZone = 'UTC'; CREATE TABLE t (n INTEGER, {columns})")
    for number, values in enumerate(rows):
        plain = [v.replace(tzinfo=None) if isinstance(v, datetime) else v for v in values.values()]
        connection.execute(f"INSERT INTO t VALUES (?{', ?' * len(FIELDS)})", [number, *plain])
    return connection, rows


@pytest.mark.parametrize("expr", EXPRESSIONS)
def test_a_calculation_gives_what_duckdb_gives(
    expr: str, table: tuple[duckdb.DuckDBPyConnection, list[dict[str, Any]]]
) -> None:
    connection, rows = table
    found = connection.execute(f"SELECT {expr} FROM t ORDER BY n").fetchall()
    for row, (value,) in zip(rows, found, strict=True):
        assert computed(expr, row) == as_ours(value), row


def test_weeks_begin_on_monday_before_1970_too() -> None:
    # DuckDB drops the first Monday before 1970.
    times = {"since": datetime(1969, 12, 28, 23, 59, tzinfo=UTC), "till": datetime(1969, 12, 29, tzinfo=UTC)}
    assert computed("DATEDIFF('week', since, till)", times) == 1
    assert computed("DATEDIFF('week', till, since)", times) == -1
    times = {"since": datetime(2024, 2, 26, tzinfo=UTC), "till": datetime(2024, 3, 3, 23, tzinfo=UTC)}
    assert computed("DATEDIFF('week', since, till)", times) == 0


def as_ours(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    return pytest.approx(float(value), rel=1e-12) if isinstance(value, (Decimal, float)) else value


def test_float_arithmetic_is_pythons_own() -> None:
    assert computed("x + y * 3 - x / y", {"x": 0.1, "y": 0.7}) == 0.1 + 0.7 * 3 - 0.1 / 0.7


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1))
@settings(max_examples=50, deadline=None)
def test_integers_are_exact_or_refused(i: int, j: int) -> None:
    for sign, expected in {"+": i + j, "-": i - j, "*": i * j}.items():
        if -(2**63) <= expected < 2**63:
            assert computed(f"i {sign} j", {"i": i, "j": j}) == expected
        else:
            with pytest.raises(ValueError, match="feature `result`: the result is an integer outside int64"):
                computed(f"i {sign} j", {"i": i, "j": j})
    if j:
        quotient = abs(i) // abs(j) * (1 if (i < 0) == (j < 0) else -1)
        assert computed("i % j", {"i": i, "j": j}) == i - j * quotient


@pytest.mark.parametrize(
    "expr, row, message",
    [
        ("SQRT(x)", {"x": -1.0}, "feature `result`: SQRT of a number below 0"),
        ("LN(i)", {"i": 0}, "feature `result`: LN of a number that isn't above 0"),
        ("EXP(x)", {"x": 1e9}, "feature `result`: EXP of a number that is too large"),
        ("x % i", {"x": float("-inf"), "i": 2}, "feature `result`: % of an infinite number"),
        ("ABS(i)", {"i": -(2**63)}, "feature `result`: the result is an integer outside int64"),
        ("-i", {"i": -(2**63)}, "feature `result`: the result is an integer outside int64"),
        ("x - x", {"x": float("inf")}, "feature `result`: expected float64 that is a number, got NaN"),
    ],
)
def test_a_value_that_there_is_not_is_an_error(expr: str, row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        computed(expr, row)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "expr, dtype",
    [
        ("i", Int64), ("i + j", Int64), ("i + x", Float64), ("i / j", Float64), ("i % j", Int64),
        ("i = j", Bool), ("NULL = i", Bool), ("s", String), ("COALESCE(i, x)", Float64),
        ("COALESCE(NULL, s)", String), ("NOW()", Timestamp), ("EXTRACT(EPOCH FROM since)", Float64),
        ("EXTRACT(HOUR FROM since)", Int64), ("IF(b, NULL, 1)", Int64), ("-NULL", Int64), ("ABS(x)", Float64),
    ],
)  # fmt: skip
def test_the_type_is_the_expression_s(expr: str, dtype: DataType) -> None:
    assert type_of(expr) == dtype


def test_a_dtype_widens_integers_and_types_a_null() -> None:
    widened = computed("i + 1", {"i": 2}, Float64)
    assert (widened, type(widened)) == (3.0, float)
    assert computed("NULL", {}, String) is None
    assert fault_of("i + 1", String).endswith("calculation 'result' (expected String, got Int64)")
    assert "a dtype, as it may only be null" in fault_of("NULL")


def test_values_have_the_type_that_is_said() -> None:
    assert type(computed("COALESCE(i, x)", {"i": 1})) is float
    assert type(computed("CASE WHEN b THEN i ELSE x END", {"b": True, "i": 1})) is float
    assert type(computed("LEAST(i, x)", {"i": 1, "x": 2.0})) is float
    assert type(computed("i / j", {"i": 4, "j": 2})) is float


def test_now_is_the_request_s_time() -> None:
    assert computed("NOW()", {}) == datetime(2024, 1, 2, tzinfo=UTC)
    then = datetime(2024, 1, 1, 12, tzinfo=UTC)
    assert computed("EXTRACT(EPOCH FROM NOW()) - EXTRACT(EPOCH FROM since)", {"since": then}) == 43_200.0
    assert OnDemandFeatureView("v", SOURCE, [Calculation("r", "IF(b, NOW(), since)")]).needs_time
    assert not OnDemandFeatureView("v", SOURCE, [Calculation("r", "since")]).needs_time


def test_a_comparison_of_integers_and_floats_is_exact() -> None:
    assert computed("i > x", {"i": 2**53 + 1, "x": float(2**53)}) is True


def test_float32_is_computed_as_float64_and_arrays_have_a_length() -> None:
    source = RequestSource([Field("f", Float32), Field("tags", Array(String)), Field("end", Int64)], name="q")
    view = OnDemandFeatureView(
        "v",
        source,
        [Calculation("a", "f * 2"), Calculation("b", "LENGTH(q.tags)"), Calculation("c", 'q.end + "end"')],
    )
    assert [str(field) for field in view.output_fields] == ["a: float64", "b: int64", "c: int64"]
    assert view.test_run({"q": {"f": 0.5, "tags": ["x", None], "end": 3}}) == {"a": 1.0, "b": 2, "c": 6}


def test_names_are_found_in_the_one_source_that_has_them() -> None:
    other = RequestSource([Field("i", Int64), Field("z", Int64)], name="q")
    view = OnDemandFeatureView("v", [SOURCE, other], [Calculation("sum", "r.i + q.i + z")])
    row = {field.name: None for field in FIELDS} | {"i": 1}
    assert view.test_run({"r": row, "q": {"i": 10, "z": 100}}) == {"sum": 111}
    with pytest.raises(DefinitionError, match=r"expected r\.i or q\.i, got 'i' at column 5"):
        OnDemandFeatureView("v", [SOURCE, other], [Calculation("sum", "1 + i")])


@pytest.mark.parametrize(
    "expr, message",
    [
        ("", "Calculation 'result': expr: expected a value, got the end at column 1"),
        ("i +", "expr: expected a value, got the end at column 4"),
        ("(i", "expr: expected ), got the end at column 3"),
        ("i j", "expr: expected an operator or the end, got 'j' at column 3"),
        ("i ; j", "expected a name, a number, a 'text' or an operator, got '; j' at column 3"),
        ("'open", 'got "\'open" at column 1'),
        ("1.5.2", "got '1.5.2' at column 1"),
        ("12ab", "got '12ab' at column 1"),
        ("r.i.j", "expr: expected an operator or the end, got '.' at column 4"),
        ("r.5", "expected an operator or the end, got '.5' at column 2"),
        ("CASE i END", "expr: expected WHEN, got 'i' at column 6"),
        ("i NOT 3", "expr: expected IN or BETWEEN, got '3' at column 7"),
        ("i BETWEEN 1", "expr: expected AND, got the end at column 12"),
        ("- - i", "expr: expected a value, or brackets, got '-' at column 3"),
        ("NOT NOT b", "expr: expected a comparison, or brackets, got 'NOT' at column 5"),
        ("EXTRACT(hour, since)", "expr: expected FROM, got ',' at column 13"),
        ("a b" * 5_000, "expr: expected at most 10000 characters, got 15000 at column 10001"),
        (
            "(" * 40 + "1" + ")" * 40,
            "expr: expected at most 32 brackets around a value, got '(' at column 33",
        ),
        ("1" + "+1" * 300, "expr: expected operators at most 200 deep, got 301 at column 1"),
        ("nosuch", "expected one of r.i, r.j, r.x"),
        ("q.i", "got 'q.i' at column 1"),
        ("FOO(i)", "expected one of the functions COALESCE, NULLIF, IF"),
        ("__import__('os')", "got '__IMPORT__' at column 1"),
        ("i + s", "expected a number for + of type int64 or float64, got string at column 5"),
        ("i / b", "expected a number for / of type int64 or float64, got boolean at column 5"),
        ("-s", "expected a number for -"),
        ("i = s", "expected a value of type int64, as before, got string at column 5"),
        ("b < c", "expected a value for < of type int64 or float64 or string or timestamp, got bool"),
        ("i AND b", "expected a condition for AND of type boolean, got int64 at column 1"),
        ("NOT i", "expected a condition for NOT of type boolean, got int64 at column 5"),
        ("IF(i, 1, 2)", "expected a condition for IF of type boolean, got int64 at column 4"),
        ("IF(b, 1)", "expected 3 arguments of IF, got 2 at column 1"),
        ("COALESCE()", "expected 1 or more arguments of COALESCE, got 0 at column 1"),
        ("COALESCE(i, s)", "expected a value of type int64, as before, got string at column 13"),
        ("CASE WHEN i THEN 1 END", "expected a condition of type boolean, got int64 at column 11"),
        ("CASE WHEN b THEN 1 ELSE 'x' END", "expected a value of type int64, as before, got string"),
        ("i IN ()", "expected 2 or more arguments of IN, got 1 at column 3"),
        ("i IN ('x')", "expected a value of type int64, as before, got string at column 7"),
        ("LENGTH(i)", "expected a string, an array or a map for LENGTH, got int64 at column 8"),
        ("SQRT(s)", "expected a number for SQRT of type int64 or float64, got string at column 6"),
        ("DATEDIFF('eon', since, till)", "expected a unit (second, minute, hour"),
        ("DATEDIFF(i, since, till)", "expected a unit (second, minute, hour"),
        (
            "DATEDIFF('day', i, till)",
            "expected a time for DATEDIFF of type timestamp, got int64 at column 17",
        ),
        ("DATEDIFF('day', since)", "expected 3 arguments of DATEDIFF, got 2"),
        ("EXTRACT(eon FROM since)", "expected a unit (year, quarter, month"),
        ("EXTRACT(hour FROM i)", "expected a time for EXTRACT of type timestamp, got int64"),
        ("NOW(1)", "expected 0 arguments of NOW, got 1"),
        ("TIMESTAMP 'soon'", "expected a time such as '2024-01-31T12:00:00Z', got 'soon' at column 11"),
        ("TIMESTAMP '1492-10-12'", "expected a time such as '2024-01-31T12:00:00Z', got '1492-10-12'"),
        ("9223372036854775808", "expected int64 (-2^63 to 2^63 - 1), got 9223372036854775808 at column 1"),
        ("1e999", "expected a number that float64 holds, got a larger one at column 1"),
    ],
)
def test_a_wrong_expression_says_what_was_expected_what_came_and_where(expr: str, message: str) -> None:
    assert message in fault_of(expr)


@given(st.text(max_size=40) | st.text("ijxsb()+-*/%<>=., 'ANDORNTCSEWHIUL0123456789e\"", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_is_an_expression_or_a_definition_error(text: str) -> None:
    with collecting() as collector:
        view = OnDemandFeatureView("v", SOURCE, [Calculation("result", text)])
    assert view.valid == (not collector.errors)
    assert all(len(error.message) < 1000 for error in collector.errors)


def test_the_deepest_expression_runs() -> None:
    nested = "(" * 31 + "i" + ")" * 31
    assert computed(nested + " + 1" * 199, {"i": 1}) == 200
    assert computed("NOT (" * 31 + "b" + ")" * 31, {"b": True}) is False
