"""Attributes and aggregates: their names, their types, and what is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve import (
    Aggregate,
    AggregateFunction,
    Array,
    Attribute,
    Bool,
    DataType,
    DefinitionError,
    Field,
    Float32,
    Float64,
    Int64,
    LifetimeWindow,
    String,
    Timestamp,
    TimeWindow,
    TimeWindowSeries,
    approx_count_distinct,
    approx_percentile,
    first,
    first_distinct,
    last,
    last_distinct,
)
from fastserve.sdk.functions import FUNCTIONS
from fastserve.sdk.types import NUMERIC, SCALARS
from fastserve.sdk.windows import AnyWindow
from tests.sdk.authoring import fault_of

AMOUNT = Field("amount", Float64)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
SPREADS = ("var_pop", "var_samp", "stddev_pop", "stddev_samp")


@pytest.mark.parametrize(
    "column,function,window,interval,name",
    [
        ("amt", "mean", timedelta(hours=1), timedelta(minutes=10), "amt_mean_1h_10m"),
        ("dep_delay", "mean", timedelta(days=7), timedelta(hours=1), "dep_delay_mean_7d_1h"),
        ("dep_delay", "count", timedelta(days=356), timedelta(hours=24), "dep_delay_count_356d_1d"),
        ("x", "max", timedelta(minutes=90), timedelta(minutes=90), "x_max_90m_90m"),
        ("x", "sum", timedelta(days=1), None, "x_sum_1d_continuous"),
    ],
)
def test_an_aggregates_default_name(
    column: str, function: str, window: timedelta, interval: timedelta | None, name: str
) -> None:
    assert Aggregate(Field(column, Float64), function, window).feature_name(interval) == name


def test_a_name_given_is_the_name() -> None:
    assert Aggregate(AMOUNT, "sum", DAY, name="spent").feature_name(HOUR) == "spent"


def test_a_functions_parameters_are_part_of_its_label() -> None:
    assert AggregateFunction("last", (("n", 3),)).label == "last_3"
    assert last(3).label == "last_3"
    assert [approx_count_distinct(p).label for p in (8, 12)] == [
        "approx_count_distinct",
        "approx_count_distinct_precision_12",
    ]
    assert [approx_percentile(*p).label for p in ((0.5,), (0.999,), (0.5, 200), (1e-07,))] == [
        "approx_percentile_p50",
        "approx_percentile_p99_9",
        "approx_percentile_p50_precision_200",
        "approx_percentile_p0_00001",
    ]


def test_a_window_may_be_given_as_a_duration() -> None:
    assert Aggregate(AMOUNT, "sum", DAY).time_window == Aggregate(AMOUNT, "sum", TimeWindow(DAY)).time_window
    assert hash(TimeWindow(DAY)) == hash(TimeWindow(timedelta(hours=24)))
    assert TimeWindow(DAY) != TimeWindow(HOUR)


@pytest.mark.parametrize(
    "function,outputs",
    [
        (
            "count",
            {Int64: Int64, Float64: Int64, Float32: Int64, String: Int64, Bool: Int64, Timestamp: Int64},
        ),
        ("sum", {Int64: Int64, Float64: Float64, Float32: Float64}),
        ("mean", {Int64: Float64, Float64: Float64, Float32: Float64}),
        ("min", {Int64: Int64, Float64: Float64, Float32: Float32, Timestamp: Timestamp, String: String}),
        ("max", {Int64: Int64, Float64: Float64, Float32: Float32, Timestamp: Timestamp, String: String}),
        *((name, dict.fromkeys(NUMERIC, Float64)) for name in SPREADS),
        ("last", {dtype: dtype for dtype in SCALARS}),
        ("first", {dtype: dtype for dtype in SCALARS}),
        (last(1), {dtype: Array(dtype) for dtype in SCALARS}),
        (first(1000), {dtype: Array(dtype) for dtype in SCALARS}),
        (last_distinct(2), {dtype: Array(dtype) for dtype in SCALARS}),
        (first_distinct(2), {dtype: Array(dtype) for dtype in SCALARS}),
        ("approx_count_distinct", dict.fromkeys(SCALARS, Int64)),
        (approx_percentile(0.5), dict.fromkeys(NUMERIC, Float64)),
    ],
)
def test_each_function_over_each_type_gives_its_type_or_is_refused(
    function: str | AggregateFunction, outputs: dict[DataType, DataType]
) -> None:
    name = function if isinstance(function, str) else function.name
    for dtype in (*SCALARS, Array(Int64)):
        column = Field("c", dtype)
        if dtype in outputs or function == "count":
            assert Aggregate(column, function, DAY).output_type == outputs.get(dtype, Int64)
        else:
            with pytest.raises(DefinitionError, match=rf"{name} of column 'c' \(expected .*, got "):
                Aggregate(column, function, DAY)


def test_the_functions_are_those_that_are_served() -> None:
    assert ", ".join(FUNCTIONS) == FUNCTION.removeprefix("one of ")


def test_an_attribute_may_be_given_as_a_field() -> None:
    one, other = (
        Attribute("age", Int64, "years", {"a": "b"}),
        Attribute(Field("age", Int64), description="years"),
    )
    assert (
        (one.name, one.dtype, one.column)
        == (other.name, other.dtype, other.column)
        == ("age", Int64, Field("age", Int64))
    )
    assert (one.description, one.tags) == ("years", {"a": "b"})


LENGTHS = st.integers(1, 10_000).map(lambda count: timedelta(minutes=count))
WHOLE = st.integers(1, 1000)
CHOSEN_FUNCTIONS = st.one_of(
    st.sampled_from(["count", "sum", "mean", "min", "max", "last", "first", *SPREADS]),
    WHOLE.flatmap(lambda n: st.sampled_from([f(n) for f in (last, first, last_distinct, first_distinct)])),
    st.integers(4, 16).map(approx_count_distinct),
    st.builds(approx_percentile, st.floats(0, 1), st.integers(20, 500)),
)
CHOSEN_WINDOWS: st.SearchStrategy[AnyWindow] = st.one_of(
    LENGTHS.map(TimeWindow),
    st.builds(TimeWindow, LENGTHS, LENGTHS.map(lambda length: -length)),
    st.just(LifetimeWindow()),
    st.builds(
        lambda size, end, step, count: TimeWindowSeries(end - size - count * step, size, end, step),
        LENGTHS,
        LENGTHS.map(lambda length: -length) | st.just(timedelta(0)),
        LENGTHS,
        st.integers(0, 20),
    ),
)


@given(st.lists(st.tuples(CHOSEN_FUNCTIONS, CHOSEN_WINDOWS), min_size=2, max_size=2))
def test_different_functions_and_windows_give_different_default_names(
    chosen: list[tuple[str | AggregateFunction, AnyWindow]],
) -> None:
    one, other = (Aggregate(AMOUNT, function, window) for function, window in chosen)
    same = (one.function, one.time_window) == (other.function, other.time_window)
    assert (one.feature_name(HOUR) == other.feature_name(HOUR)) == same


def test_a_series_is_windows_from_its_start_to_its_end() -> None:
    series = TimeWindowSeries(-3 * DAY, DAY)
    assert series.elements == (TimeWindow(DAY, -2 * DAY), TimeWindow(DAY, -DAY), TimeWindow(DAY))
    overlapping = TimeWindowSeries(-5 * HOUR, 2 * HOUR, -HOUR, HOUR)
    assert [each.offset for each in overlapping.elements] == [-3 * HOUR, -2 * HOUR, -HOUR]
    assert [series.label, overlapping.label] == ["1d_series_3d", "2h_series_5h_to_1h_step_1h"]
    assert Aggregate(AMOUNT, "count", series).output_type == Array(Int64)
    assert Aggregate(AMOUNT, last(2), series).output_type == Array(Array(Float64))


def test_windows_in_the_past_and_of_all_time_have_names_of_their_own() -> None:
    assert Aggregate(AMOUNT, "sum", TimeWindow(7 * DAY, -DAY)).feature_name(HOUR) == (
        "amount_sum_7d_offset_1d_1h"
    )
    assert Aggregate(AMOUNT, last(3), LifetimeWindow()).feature_name(HOUR) == "amount_last_3_lifetime_1h"


def test_a_function_without_a_parameter_that_has_a_default_has_it() -> None:
    by_name, with_it = (
        Aggregate(AMOUNT, f, DAY) for f in ("approx_count_distinct", approx_count_distinct(8))
    )
    assert by_name.function == with_it.function == approx_count_distinct()


FUNCTION = (
    "one of count, sum, mean, min, max, var_pop, var_samp, stddev_pop, stddev_samp, last, first, "
    "last_distinct, first_distinct, approx_count_distinct, approx_percentile"
)
SPAN = "a start at most 36500d before the request; LifetimeWindow() has none"
STEPS = "a whole number of steps of 2d to the last window"
WHOLE_N = "a whole number from 1 to 1,000"
MOST = "Int64, Float64, Float32, Timestamp, String"
WINDOW = "a TimeWindow, LifetimeWindow, TimeWindowSeries or timedelta"
IDENTIFIER = "letters, digits and _, no digit first, at most 120 characters"
DTYPE = "a data type such as Int64, String or Array(Int64)"


@pytest.mark.parametrize(
    "expression,message",
    [
        (
            'Aggregate(AMOUNT, "median", DAY)',
            f"Aggregate: function (expected {FUNCTION}, got 'median')",
        ),
        (
            'Aggregate(AMOUNT, "avg", DAY)',
            f"Aggregate: function (expected {FUNCTION}; did you mean \"mean\"?, got 'avg')",
        ),
        (
            'Aggregate(AMOUNT, "SUM", DAY)',
            f"Aggregate: function (expected {FUNCTION}; did you mean \"sum\"?, got 'SUM')",
        ),
        (
            "Aggregate(AMOUNT, sum, DAY)",
            f'Aggregate: function (expected {FUNCTION}; did you mean "sum"?, got <built-in function sum>)',
        ),
        (
            'Aggregate(AMOUNT, AggregateFunction("sum", (("n", 3),)), DAY)',
            "Aggregate: function 'sum' (expected no parameters, got (('n', 3),))",
        ),
        (
            'Aggregate(Field("s", String), "sum", DAY)',
            "Aggregate: sum of column 's' (expected Int64, Float64, Float32, got String)",
        ),
        (
            'Aggregate(Field("s", Bool), "max", DAY, name="z")',
            f"Aggregate 'z': max of column 's' (expected {MOST}, got Bool)",
        ),
        (
            'Aggregate("amount", "sum", DAY)',
            "Aggregate: input_column (expected a Field such as Field(\"amount\", Float64), got 'amount')",
        ),
        (
            'Aggregate(AMOUNT, "sum", 7)',
            f"Aggregate: time_window (expected {WINDOW}, got 7)",
        ),
        (
            'Aggregate(AMOUNT, "sum", "7d")',
            f"Aggregate: time_window (expected {WINDOW}, got '7d')",
        ),
        (
            'Aggregate(AMOUNT, "sum", timedelta(0))',
            "Aggregate: time_window (expected a timedelta above zero, got 0s)",
        ),
        ("TimeWindow(-DAY)", "TimeWindow: window_size (expected a timedelta above zero, got -1d)"),
        ("TimeWindow(7)", "TimeWindow: window_size (expected a timedelta above zero, got 7)"),
        (
            "TimeWindow(DAY, DAY)",
            "TimeWindow: offset (expected a timedelta from -36500d to zero, got 1d)",
        ),
        (
            "TimeWindow(36500 * DAY, -DAY)",
            f"TimeWindow: window_size (expected {SPAN}, got 36500d)",
        ),
        (
            "TimeWindowSeries(DAY, DAY)",
            "TimeWindowSeries: series_start (expected a timedelta from -36500d to zero, got 1d)",
        ),
        (
            "TimeWindowSeries(-DAY, 2 * DAY)",
            "TimeWindowSeries: series_start (expected at most -2d, or no window fits, got -1d)",
        ),
        (
            "TimeWindowSeries(-5 * DAY, 2 * DAY)",
            f"TimeWindowSeries: series_start (expected {STEPS}, got -5d)",
        ),
        (
            "TimeWindowSeries(-1001 * DAY, DAY)",
            "TimeWindowSeries: series_start (expected at most 1,000 windows, got 1001)",
        ),
        (
            "Aggregate(AMOUNT, last(1001), DAY)",
            f"Aggregate: last: n (expected {WHOLE_N}, got 1001)",
        ),
        (
            'Aggregate(AMOUNT, "last_distinct", DAY)',
            f"Aggregate: last_distinct: n (expected {WHOLE_N}, as in last_distinct(n), got None)",
        ),
        (
            "Aggregate(AMOUNT, approx_percentile(50), DAY)",
            "Aggregate: approx_percentile: percentile (expected a number from 0 to 1, got 50)",
        ),
        (
            "Aggregate(AMOUNT, approx_count_distinct(3), DAY)",
            "Aggregate: approx_count_distinct: precision (expected a whole number from 4 to 16, got 3)",
        ),
        (
            'Aggregate(AMOUNT, "sum", DAY, tail_hop=timedelta(0))',
            "Aggregate: tail_hop (expected a timedelta above zero, got 0s)",
        ),
        (
            'Aggregate(AMOUNT, "sum", DAY, name="a b")',
            f"Aggregate 'a b': name (expected {IDENTIFIER}, got 'a b')",
        ),
        ('Attribute("a-b", Int64)', f"Attribute 'a-b': name (expected {IDENTIFIER}, got 'a-b')"),
        ('Attribute("a")', f"Attribute 'a': dtype (expected {DTYPE}, got None)"),
        (
            'Attribute("a", "float")',
            f"Attribute 'a': dtype (expected {DTYPE}; did you mean Float64?, got 'float')",
        ),
        (
            'Attribute(Field("a", Int64), String)',
            "Attribute 'a': dtype (expected none beside a Field, which has Int64, got String)",
        ),
        (
            'Attribute("a", Int64, tags=["x"])',
            "Attribute 'a': tags (expected a dict of str to str, got ['x'])",
        ),
    ],
)
def test_a_wrong_feature_says_what_was_expected_and_what_came(expression: str, message: str) -> None:
    assert fault_of(expression, AMOUNT=AMOUNT) == message
