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
    String,
    Timestamp,
    TimeWindow,
)
from fastserve.sdk.functions import FUNCTIONS
from fastserve.sdk.types import SCALARS
from tests.sdk.authoring import fault_of

AMOUNT = Field("amount", Float64)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


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
    assert AggregateFunction("approx_percentile", (("percentile", 0.5), ("precision", 100))).label == (
        "approx_percentile_0_5_100"
    )


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
        ("min", {Int64: Int64, Float64: Float64, Float32: Float32, Timestamp: Timestamp}),
        ("max", {Int64: Int64, Float64: Float64, Float32: Float32, Timestamp: Timestamp}),
    ],
)
def test_each_function_over_each_type_gives_its_type_or_is_refused(
    function: str, outputs: dict[DataType, DataType]
) -> None:
    for dtype in (*SCALARS, Array(Int64)):
        column = Field("c", dtype)
        if dtype in outputs or function == "count":
            assert Aggregate(column, function, DAY).output_type == outputs.get(dtype, Int64)
        else:
            with pytest.raises(DefinitionError, match=rf"{function} of column 'c' \(expected .*, got "):
                Aggregate(column, function, DAY)


def test_the_functions_are_those_that_are_served() -> None:
    assert list(FUNCTIONS) == ["count", "sum", "mean", "min", "max"]


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


@given(
    st.lists(
        st.tuples(st.sampled_from(list(FUNCTIONS)), st.integers(1, 10_000)),
        min_size=2,
        max_size=2,
        unique=True,
    )
)
def test_different_functions_and_windows_give_different_default_names(chosen: list[tuple[str, int]]) -> None:
    one, other = (
        Aggregate(AMOUNT, function, timedelta(minutes=m)).feature_name(HOUR) for function, m in chosen
    )
    assert one != other


FUNCTION = "one of count, sum, mean, min, max"
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
            f"Aggregate: function (expected {FUNCTION}, got <built-in function sum>)",
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
            'Aggregate(Field("s", String), "max", DAY, name="z")',
            "Aggregate 'z': max of column 's' (expected Int64, Float64, Float32, Timestamp, got String)",
        ),
        (
            'Aggregate("amount", "sum", DAY)',
            "Aggregate: input_column (expected a Field such as Field(\"amount\", Float64), got 'amount')",
        ),
        (
            'Aggregate(AMOUNT, "sum", 7)',
            "Aggregate: time_window (expected a TimeWindow or a timedelta, got 7)",
        ),
        (
            'Aggregate(AMOUNT, "sum", "7d")',
            "Aggregate: time_window (expected a TimeWindow or a timedelta, got '7d')",
        ),
        (
            'Aggregate(AMOUNT, "sum", timedelta(0))',
            "Aggregate: time_window (expected a timedelta above zero, got 0s)",
        ),
        ("TimeWindow(-DAY)", "TimeWindow: window_size (expected a timedelta above zero, got -1d)"),
        ("TimeWindow(7)", "TimeWindow: window_size (expected a timedelta above zero, got 7)"),
        (
            "TimeWindow(DAY, -DAY)",
            "TimeWindow: offset (expected none, for windows in the past aren't served yet, got -1d)",
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
