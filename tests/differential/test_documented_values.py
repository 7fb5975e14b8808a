"""What docs/aggregations.md says of values out of the ordinary, function by function, in rows and blocks.

Each case stands in a cell of the page's tables: the events of one entity key, and what each function answers.
It is asked three times: with all events in the row, all in blocks, and the first in the row and the rest in
blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import orjson
import pytest

from fastserve.api.encode import FeaturesEncoder
from fastserve.plan.service import ServicePlan
from fastserve.serving.heads import Watermarks
from fastserve.serving.transport import RAW_ROWS
from fastserve.serving.vectors import VectorEvaluator
from tests.differential.definitions import COLUMNS, Definition, define, push_source
from tests.differential.readable import value_of
from tests.differential.test_rows_and_blocks import Line, items_of, plan_of
from tests.differential.twin import DAY_NS, HOUR_NS, MINUTE_NS, RawEvent, Rules, Span, Wanted

NOW_NS = 20_000 * DAY_NS + 12 * HOUR_NS
AS_OF_NS = NOW_NS - HOUR_NS
NAN, INF, MAX = math.nan, math.inf, 2**63 - 1

NUMERIC = ("sum", "mean", "min", "max", "var_pop", "var_samp", "stddev_pop", "stddev_samp")
PARAMS: dict[str, dict[str, float]] = {
    "last_n": {"n": 2},
    "first_n": {"n": 2},
    "last_distinct": {"n": 2},
    "first_distinct": {"n": 2},
    "approx_count_distinct": {"precision": 8},
    "approx_percentile": {"percentile": 0.5, "precision": 100},
}
PICKED = ("last", "first", "last_n", "first_n", "last_distinct", "first_distinct", "approx_count_distinct")
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "amount": ("count", *NUMERIC, *PICKED, "approx_percentile"),
    "units": ("count", *NUMERIC, *PICKED, "approx_percentile"),
    "flag": ("count", *PICKED),
    "kind": ("count", "min", "max", *PICKED),
}


def same(pairs: str, value: Any) -> dict[str, Any]:
    """Return one answer for several functions."""
    return dict.fromkeys(pairs.split(), value)


SPREADS = "var_pop var_samp stddev_pop stddev_samp"
POP, SAMP = "var_pop stddev_pop", "var_samp stddev_samp"
LISTS = "last_n first_n last_distinct first_distinct"
ALL = {column: " ".join(functions) for column, functions in FUNCTIONS.items()}

Case = tuple[str, str, list[Any], dict[str, Any]]
CASES: list[Case] = [
    ("no value", "amount", [], same(ALL["amount"], None)),
    ("nulls alone", "amount", [None, None], same(ALL["amount"], None)),
    ("nulls alone", "units", [None, None], same(ALL["units"], None)),
    ("nulls alone", "flag", [None], same(ALL["flag"], None)),
    ("nulls alone", "kind", [None], same(ALL["kind"], None)),
    (
        "a null is passed over",
        "amount",
        [None, 4.0, None, 2.0, None],
        {"count": 2, "sum": 6.0, "mean": 3.0, "min": 2.0, "max": 4.0, "var_pop": 1.0, "var_samp": 2.0}
        | {"stddev_pop": 1.0, "stddev_samp": math.sqrt(2), "last": 2.0, "first": 4.0}
        | same(LISTS, [4.0, 2.0])
        | {"approx_count_distinct": 2},
    ),
    (
        "a single value",
        "amount",
        [2.5],
        {"count": 1, **same("sum mean min max last first approx_percentile", 2.5), **same(POP, 0.0)}
        | {**same(SAMP, None), **same(LISTS, [2.5]), "approx_count_distinct": 1},
    ),
    (
        "a single value",
        "units",
        [MAX],
        {"count": 1, **same("sum min max last first", MAX), **same("mean approx_percentile", float(MAX))}
        | {**same(POP, 0.0), **same(SAMP, None), **same(LISTS, [MAX]), "approx_count_distinct": 1},
    ),
    ("a single value", "kind", ["é"], {"count": 1, **same("min max last first", "é"), **same(LISTS, ["é"])}),
    ("a single value", "flag", [False], {"count": 1, **same("last first", False), **same(LISTS, [False])}),
    (
        "nothing but NaN",
        "amount",
        [NAN, NAN],
        {"count": 2, **same(f"sum mean {SPREADS} last first", NAN), **same("min max approx_percentile", None)}
        | {**same("last_n first_n", [NAN, NAN]), **same("last_distinct first_distinct", [NAN])}
        | {"approx_count_distinct": 1},
    ),
    (
        "NaN beside numbers",
        "amount",
        [3.0, NAN],
        {"count": 2, **same(f"sum mean {SPREADS}", NAN), **same("min max approx_percentile first", 3.0)}
        | {"last": NAN, **same(LISTS, [3.0, NAN]), "approx_count_distinct": 2},
    ),
    ("a single NaN", "amount", [NAN], {**same(POP, NAN), **same(SAMP, None), "last": NAN, "min": None}),
    (
        "infinity",
        "amount",
        [INF, 1.0],
        {"count": 2, **same("sum mean max first", INF), **same(SPREADS, NAN)}
        | {**same("min last approx_percentile", 1.0), **same(LISTS, [INF, 1.0]), "approx_count_distinct": 2},
    ),
    (
        "both infinities",
        "amount",
        [INF, -INF],
        {**same(f"sum mean {SPREADS}", NAN), "min": -INF, "max": INF, "approx_percentile": None},
    ),
    ("a single infinity", "amount", [-INF], {**same(POP, NAN), **same(SAMP, None), "sum": -INF, "min": -INF}),
    (
        "minus zero",
        "amount",
        [-0.0],
        {**same(f"sum mean min max {POP} approx_percentile", 0.0), **same("last first", -0.0)}
        | {**same("last_n first_n", [-0.0]), **same("last_distinct first_distinct", [0.0])},
    ),
    ("both zeros", "amount", [-0.0, 0.0], {"approx_count_distinct": 1, "last_distinct": [0.0], "sum": 0.0}),
    ("beyond float64", "amount", [1.5e308, 1.5e308], {"sum": INF, "mean": INF, "max": 1.5e308}),
    ("beyond int64", "units", [MAX, 1], {"sum": None, "mean": None, "max": MAX, "count": 2}),
    ("up to the end of int64", "units", [MAX - 1, 1], {"sum": MAX, "mean": float(MAX) / 2}),
    (
        "more than n",
        "kind",
        ["b", "a", "b", "c"],
        {"last_n": ["b", "c"], "first_n": ["b", "a"], "last_distinct": ["b", "c"]}
        | {"first_distinct": ["b", "a"], "min": "a", "max": "c", "approx_count_distinct": 3},
    ),
]

TIES: list[Case] = [
    ("numbers", "amount", [2.0, 1.0], {"last": 2.0, "first": 1.0, **same(LISTS, [1.0, 2.0])}),
    ("NaN is above all", "amount", [NAN, INF], {"last": NAN, "first": INF, "last_n": [INF, NAN]}),
    ("zeros", "amount", [0.0, -0.0], {"last": 0.0, "first": -0.0, "last_n": [-0.0, 0.0]}),
    ("truth", "flag", [True, False], {"last": True, "first": False, "first_n": [False, True]}),
    ("texts", "kind", ["b", "a"], {"last": "b", "first": "a", "last_n": ["a", "b"]}),
]


@cache
def world(column: str) -> tuple[Definition, ServicePlan]:
    """Return a view with all functions of a column over a day."""
    asked = [
        Wanted(name.removesuffix("_n"), column, Span(DAY_NS), PARAMS.get(name, {}))
        for name in FUNCTIONS[column]
    ]
    definition = define("view", push_source("pushed", None), Rules(5 * MINUTE_NS), asked, 2 * DAY_NS)
    return definition, plan_of(definition)


def answers(column: str, line: Line) -> dict[str, Any]:
    """Return what each function answers."""
    definition, plan = world(column)
    evaluator = VectorEvaluator(plan, RAW_ROWS, watermarks=Watermarks({"view": AS_OF_NS}))
    columns = evaluator.evaluate([items_of(plan, line, NOW_NS, RAW_ROWS)], NOW_NS)
    values = orjson.loads(FeaturesEncoder(plan).encode(columns, 0))
    by_feature = {
        output.feature: value_of(output.dtype, value)
        for output, value in zip(plan.inputs, values, strict=True)
    }
    return {
        name: by_feature[feature] for name, feature in zip(FUNCTIONS[column], definition.asked, strict=True)
    }


def events_of(column: str, values: Sequence[Any], *, at_once: bool) -> list[RawEvent]:
    """Return events in the last hour and the one before it, half in each, or all at one time."""
    gap_ns = 0 if at_once else 7 * MINUTE_NS
    first_ns = NOW_NS - HOUR_NS - gap_ns * (len(values) // 2)
    return [
        RawEvent("k", first_ns + number * gap_ns, {**dict.fromkeys(COLUMNS), column: value})
        for number, value in enumerate(values)
    ]


def check(column: str, values: Sequence[Any], expected: dict[str, Any], *, at_once: bool) -> None:
    events = events_of(column, values, at_once=at_once)
    before = [event for event in events if event.time_ns < AS_OF_NS]
    after = [event for event in events if event.time_ns >= AS_OF_NS]
    assert at_once or len(values) < 2 or (before and after)
    ways = {
        "in the row": Line(NOW_NS, events, []),
        "in blocks": Line(None, (), [events] if events else []),
        "in both": Line(AS_OF_NS, before, [after] if after else []),
    }
    for way, line in ways.items():
        got = answers(column, line)
        # As text: NaN is like NaN there, and -0.0 unlike 0.0.
        assert {name: repr(got[name]) for name in expected} == {
            name: repr(value) for name, value in expected.items()
        }, way


@pytest.mark.parametrize(
    "column, values, expected", [case[1:] for case in CASES], ids=[f"{c[1]}: {c[0]}" for c in CASES]
)
def test_values_out_of_the_ordinary_are_answered_as_the_page_says(
    column: str, values: list[Any], expected: dict[str, Any]
) -> None:
    check(column, values, expected, at_once=False)


@pytest.mark.parametrize(
    "column, values, expected", [case[1:] for case in TIES], ids=[f"{c[1]}: {c[0]}" for c in TIES]
)
def test_of_values_at_one_time_the_page_says_which_is_the_last(
    column: str, values: list[Any], expected: dict[str, Any]
) -> None:
    check(column, values, expected, at_once=True)


def test_every_function_has_its_cases() -> None:
    for column, functions in FUNCTIONS.items():
        named = {name for case in CASES if case[1] == column for name in case[3]}
        assert named == set(functions)
