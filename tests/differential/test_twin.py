"""The twin held against DuckDB, which says the same windows and functions in SQL, and against plain cases."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.differential import drawn
from tests.differential.second_opinion import COLUMNS, FLOATS, ask, take_events
from tests.differential.twin import (
    DAY_NS,
    HOUR_NS,
    MINUTE_NS,
    EitherOr,
    Lifetime,
    Near,
    RawEvent,
    Rules,
    Series,
    Span,
    Wanted,
    Within,
    agrees,
    answer,
    bounds_ns,
)
from tests.support.examples import examples

T = drawn.T0_NS
HOURLY = Rules(HOUR_NS)


def event(time_ns: int, key: str = "a", **values: Any) -> RawEvent:
    return RawEvent(key, time_ns, dict.fromkeys(COLUMNS) | values)


@pytest.fixture(scope="module")
def sql() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@settings(deadline=None, max_examples=examples(60))
@given(st.data())
def test_the_twin_and_duckdb_agree(sql: duckdb.DuckDBPyConnection, data: st.DataObject) -> None:
    rules = data.draw(drawn.rules())
    asked = data.draw(st.lists(drawn.wanted(rules), min_size=1, max_size=8))
    times = data.draw(st.lists(drawn.request_times(rules), min_size=1, max_size=2))
    events = data.draw(drawn.events(drawn.edges_ns(rules, asked, times)))
    take_events(sql, events)
    for wanted in asked:
        for time_ns in times:
            if not beyond_sql(events, wanted):
                want, got = answer(events, rules, wanted, time_ns), ask(sql, rules, wanted, "a", time_ns)
                assert agrees(want, got), (wanted, time_ns, want, got)


def beyond_sql(events: list[RawEvent], wanted: Wanted) -> bool:
    """Tell whether DuckDB answers otherwise: it refuses infinities, and its sums don't end at int64."""
    values = [e.values[wanted.column] for e in events if e.values[wanted.column] is not None]
    if wanted.function.startswith(("var", "stddev")):
        return any(abs(v) >= 1e15 or not math.isfinite(v) for v in values)
    if wanted.column == "units" and wanted.function in {"sum", "mean"}:
        return bool(sum(map(abs, values)) >= 2**63)
    if wanted.column in FLOATS and wanted.function in {"sum", "mean"}:
        return any(math.isinf(v) for v in values)
    return False


@pytest.mark.parametrize(
    "period, hop_ns, start_ns, end_ns",
    [
        (Span(HOUR_NS), None, T - HOUR_NS + 5 * MINUTE_NS, T + 8 * MINUTE_NS),
        (Span(DAY_NS), None, T - DAY_NS, T + 8 * MINUTE_NS),
        (Span(12 * DAY_NS), None, T - 12 * DAY_NS, T + 8 * MINUTE_NS),
        (Span(DAY_NS), MINUTE_NS, T - DAY_NS + 7 * MINUTE_NS, T + 8 * MINUTE_NS),
        (Span(HOUR_NS, -HOUR_NS), None, T - 2 * HOUR_NS + 5 * MINUTE_NS, T - HOUR_NS + 5 * MINUTE_NS),
        (Lifetime(), None, None, T + 8 * MINUTE_NS),
    ],
)
def test_windows_are_where_the_documentation_has_them(
    period: Span | Lifetime, hop_ns: int | None, start_ns: int | None, end_ns: int
) -> None:
    asked_ns = T + 7 * MINUTE_NS + 1
    assert bounds_ns(Rules(MINUTE_NS), period, hop_ns, asked_ns) == (start_ns, end_ns)


def test_the_last_complete_tile_ends_a_window_whose_hop_is_the_interval() -> None:
    rules = Rules(MINUTE_NS, last_complete_tile=True)
    asked_ns = T + 7 * MINUTE_NS + 1
    assert bounds_ns(rules, Span(DAY_NS), None, asked_ns) == (T - DAY_NS + 7 * MINUTE_NS, T + 7 * MINUTE_NS)
    assert bounds_ns(rules, Span(DAY_NS), None, asked_ns - 2) == (
        T - DAY_NS + 6 * MINUTE_NS,
        T + 6 * MINUTE_NS,
    )


def test_a_series_is_its_windows_oldest_first() -> None:
    series = Series(-6 * DAY_NS, 0, 2 * DAY_NS, DAY_NS)
    assert [span.offset_ns // DAY_NS for span in series.spans()] == [-4, -3, -2, -1, 0]
    events = [event(T - 5 * DAY_NS, units=1), event(T - 1, units=2)]
    assert answer(events, HOURLY, Wanted("sum", "units", series), T) == [1, 1, None, None, 2]


def test_ties_in_time_are_broken_by_value_and_nan_is_above_all() -> None:
    events = [event(T - 1, amount=v) for v in (3.0, math.nan, math.inf)] + [event(T - 2, amount=9.0)]
    span = Span(DAY_NS)
    assert math.isnan(answer(events, HOURLY, Wanted("last", "amount", span), T))
    assert answer(events[:3], HOURLY, Wanted("first", "amount", span), T) == 3.0
    got = answer(events, HOURLY, Wanted("last", "amount", span, {"n": 3}), T)
    assert agrees([3.0, math.inf, math.nan], got)


def test_distinct_values_stand_in_the_order_of_their_last_or_first_occurrence() -> None:
    events = [event(T - ago, kind=kind) for ago, kind in ((5, "a"), (4, "b"), (3, "a"), (2, "c"), (2, "b"))]
    for function, expected in (("last_distinct", ["b", "c"]), ("first_distinct", ["a", "b"])):
        assert answer(events, HOURLY, Wanted(function, "kind", Span(DAY_NS), {"n": 2}), T) == expected


def test_a_secondary_key_without_values_keeps_its_place() -> None:
    events = [event(T - 1, shop="b", units=1), event(T - 1, shop="a"), event(T - 1, units=5)]
    span = Span(DAY_NS)
    assert answer(events, HOURLY, Wanted("secondary_keys", "", span, secondary="shop"), T) == ["a", "b"]
    assert answer(events, HOURLY, Wanted("sum", "units", span, secondary="shop"), T) == [None, 1]


def test_an_integer_sum_is_exact_or_null() -> None:
    span, most = Span(DAY_NS), 2**63 - 1
    both = [event(T - 1, units=most), event(T - 1, units=-1)]
    assert answer(both, HOURLY, Wanted("sum", "units", span), T) == EitherOr(most - 1)
    assert answer([both[0], both[0]], HOURLY, Wanted("sum", "units", span), T) is None
    assert agrees(EitherOr(3), None)
    assert not agrees(EitherOr(3), 4)


@pytest.mark.parametrize(
    "want, right, wrong",
    [
        (1, [1, 1.0], [True, None, 2, "1"]),
        (True, [True], [1, False, None]),
        (None, [None], [0, [], False]),
        (math.nan, [math.nan], [None, 0.0, math.inf]),
        (Near(1.0, 1e-12), [1.0, 1 + 1e-13], [1 + 1e-11, None, math.nan, math.inf]),
        (Within(2, 4), [2, 3.5, 4], [1.9, 5, None, math.nan]),
        ([1, None], [[1, None]], [[1], [None, 1], 1, [1, None, None]]),
    ],
)
def test_an_answer_agrees_with_what_it_may_be(want: Any, right: list[Any], wrong: list[Any]) -> None:
    assert all(agrees(want, got) for got in right)
    assert not any(agrees(want, got) for got in wrong)
