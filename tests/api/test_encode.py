from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.api.encode import SHORT_RUN, FeaturesEncoder
from fastserve.plan.service import ServicePlan
from fastserve.sdk.features import Attribute
from fastserve.sdk.on_demand import on_demand_feature_view
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
from fastserve.sdk.views import FeatureView
from fastserve.serving.columns import Columns
from fastserve.serving.transport import RAW_ROWS
from fastserve.serving.vectors import VectorEvaluator
from fastserve.tiles.layout import NULL_INT64
from fastserve.tiles.times import parse_time_ns
from tests.support.plans import EVENTS, NOW_NS, USER, attribute_row, workspace_plan

VALUES: dict[DataType, st.SearchStrategy[Any]] = {
    Float64: st.floats(allow_nan=False, allow_infinity=False),
    Float32: st.floats(width=32, allow_nan=False, allow_infinity=False),
    Int64: st.integers(-(2**63) + 1, 2**63 - 1),
    Timestamp: st.integers(-(2**63) + 1, 2**63 - 1),
    Bool: st.booleans(),
    String: st.text(max_size=5).map(orjson.dumps),
}


def plan_of(dtypes: Sequence[DataType], shown: Sequence[int] = ()) -> ServicePlan:
    """Return a service of a view with such features; with ``shown`` only these, the others for code."""
    features = [Attribute(f"f{number:03}", dtype) for number, dtype in enumerate(dtypes)]
    view = FeatureView("v", entities=USER, source=EVENTS, features=features)
    if not shown:
        return workspace_plan({"s": [view]}).services["s"]
    code = on_demand_feature_view(sources=[view], features=[Attribute("x", Int64)], name="code")
    parts: list[Any] = [view[[f"f{number:03}" for number in shown]], code(lambda row: {"x": len(row)})]
    return workspace_plan({"s": parts}).services["s"]


def columns_of(plan: ServicePlan, *lines: Sequence[Any]) -> Columns:
    rows = [
        [attribute_row(plan.places[0].view, {f"f{n:03}": v for n, v in enumerate(values)})]
        for values in lines
    ]
    return VectorEvaluator(plan, RAW_ROWS).evaluate(rows, NOW_NS)


def encoded(dtypes: Sequence[DataType], values: Sequence[Any]) -> bytes:
    """Encode one line; the way taken must agree with the exact one."""
    plan = plan_of(dtypes)
    columns = columns_of(plan, values)
    encoder = FeaturesEncoder(plan)
    text = encoder.encode(columns, 0)
    assert text == encoder.encode_exactly(columns, 0)
    return text


@st.composite
def typed_lines(draw: st.DrawFn) -> tuple[list[DataType], list[list[Any]]]:
    run = draw(st.sampled_from([1, 1, 2, SHORT_RUN, 9]))
    kinds = draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=6))
    dtypes = [kind for kind in kinds for _ in range(run)]
    lines = draw(
        st.lists(
            st.tuples(*[st.one_of(st.none(), VALUES[dtype]) for dtype in dtypes]).map(list),
            min_size=1,
            max_size=3,
        )
    )
    return dtypes, lines


@settings(max_examples=200)
@given(typed_lines())
def test_whole_columns_give_the_bytes_that_single_values_give(
    case: tuple[list[DataType], list[list[Any]]],
) -> None:
    dtypes, lines = case
    plan = plan_of(dtypes)
    columns = columns_of(plan, *lines)
    encoder = FeaturesEncoder(plan)
    assert not columns.odd
    for number, values in enumerate(lines):
        text = encoder.encode(columns, number)
        assert text == encoder.encode_exactly(columns, number)
        for dtype, value, got in zip(dtypes, values, orjson.loads(text), strict=True):
            assert read_back(dtype, got) == value
            assert dtype != Float64 or repr(got) == repr(value)


@settings(max_examples=100)
@given(typed_lines(), st.data())
def test_what_only_on_demand_views_take_is_not_answered(
    case: tuple[list[DataType], list[list[Any]]], data: st.DataObject
) -> None:
    dtypes, lines = case
    shown = sorted(data.draw(st.sets(st.integers(0, len(dtypes) - 1), min_size=1)))
    plan = plan_of(dtypes, shown)
    columns = columns_of(plan, *lines)
    encoder = FeaturesEncoder(plan)
    for line, values in enumerate(lines):
        text = encoder.encode(columns, line)
        assert text == encoder.encode_exactly(columns, line)
        got = [read_back(dtypes[n], value) for n, value in zip(shown, orjson.loads(text), strict=True)]
        assert got == [values[number] for number in shown]


def read_back(dtype: DataType, got: Any) -> Any:
    if got is None:
        return None
    if dtype == Int64:
        assert type(got) is str
        return int(got)
    if dtype == Timestamp:
        return parse_time_ns(got)
    if dtype == String:
        return orjson.dumps(got)
    return float(np.float32(got)) if dtype == Float32 else got


@pytest.mark.parametrize(
    "dtypes",
    [
        pytest.param([Float64] * 12, id="all float64"),
        pytest.param([Float64] * 8 + [Int64] * 8 + [Float32] * 8, id="runs"),
        pytest.param([Float64, Int64, Bool, Timestamp, String, Float32] * 3, id="single values"),
        pytest.param([Int64], id="one value"),
    ],
)
def test_a_line_of_nulls_is_a_line_of_nulls(dtypes: list[DataType]) -> None:
    assert encoded(dtypes, [None] * len(dtypes)) == b"[" + b",".join([b"null"] * len(dtypes)) + b"]"


def test_int64_leaves_as_a_string_to_the_last_digit() -> None:
    values = [0, -1, 2**53 + 1, 2**63 - 1, -(2**63) + 1, None]
    assert encoded([Int64] * 6, values) == (
        b'["0","-1","9007199254740993","9223372036854775807","-9223372036854775807",null]'
    )


def test_the_smallest_int64_leaves_as_itself_among_all_other_types() -> None:
    dtypes = [Int64, Float64, Timestamp, Int64, Bool, Float32, String]
    values = [NULL_INT64, 1.5, 0, None, True, 0.1, b'"x"']
    assert encoded(dtypes, values) == (
        b'["-9223372036854775808",1.5,"1970-01-01T00:00:00Z",null,true,0.1,"x"]'
    )


def test_a_float_as_small_as_the_smallest_int64_beside_it_stays_a_number() -> None:
    values = [-(2.0**63), NULL_INT64, -(2.0**63)]
    assert encoded([Float64, Int64, Float32], values) == (
        b'[-9.223372036854776e+18,"-9223372036854775808",-9.223372e+18]'
    )


@pytest.mark.parametrize("dtype", [Float64, Float32])
def test_nan_and_infinities_are_strings_and_null_beside_them_is_null(dtype: DataType) -> None:
    text = encoded([dtype] * 5, [math.nan, math.inf, -math.inf, None, 0.5])
    assert text == b'["NaN","Infinity","-Infinity",null,0.5]'


def test_a_float_has_the_fewest_digits_that_give_it_back() -> None:
    assert encoded([Float64] * 5, [0.1, -0.0, 1e300, 5e-324, 100.0]) == b"[0.1,-0.0,1e+300,5e-324,100.0]"
    assert encoded([Float32] * 3, [0.1, 16777216.0, 3.4028235e38]) == b"[0.1,16777216.0,3.4028235e+38]"


def test_timestamps_have_the_digits_they_need() -> None:
    times = [0, 1_000_000, 1_000, 1, -1, 1_783_000_000_123_000_000]
    assert json.loads(encoded([Timestamp] * 6, times)) == [
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:00:00.001Z",
        "1970-01-01T00:00:00.000001Z",
        "1970-01-01T00:00:00.000000001Z",
        "1969-12-31T23:59:59.999999999Z",
        "2026-07-02T13:46:40.123Z",
    ]


def test_stored_json_is_copied_and_commas_and_brackets_in_it_cut_nothing() -> None:
    array, struct, text = b'["1","],[",null]', b'[1.5,"a,b"]', b'"],[\\",\\""'
    dtypes = [
        Int64,
        Array(String),
        Float64,
        Struct([Field("x", Float64), Field("y", String)]),
        String,
        Map(String, Int64),
        Int64,
    ]
    got = encoded(dtypes, [1, array, 2.0, struct, text, b'{"a":"1"}', 2])
    assert got == b'["1",' + array + b",2.0," + struct + b"," + text + b',{"a":"1"},"2"]'
