"""Tiling against the naive twin, through rows and both ways of merging them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.sdk.types import Float64, Int64
from fastserve.tiles.aggregates import AggregateSpec, make_schema
from fastserve.tiles.layout import FLAG_NONFINITE
from fastserve.tiles.windows import DAY_NS, HOUR_NS, MINUTE_NS, Window, floor_to
from fastserve.tiles.write import EventColumn, Events, earliest_ns, encode_words, merge_words, tile_events
from tests.differential.merging import Merging, null_row
from tests.differential.naive import Event, naive_answer
from tests.differential.tiling import (
    all_specs,
    chunk_of,
    compact,
    event_lists,
    spec,
    spoilt_keys,
    window_sets,
)
from tests.support.examples import examples

T0 = 1_388_404_800 * 10**9  # 2013-12-30T12:00:00Z
DAY_WINDOW = Window(DAY_NS, HOUR_NS, HOUR_NS, 2 * DAY_NS)


def same(got: Any, expected: Any) -> bool:
    """Whether two feature values are the same; the bits of zero count, sums may differ in rounding."""
    if isinstance(got, float) and isinstance(expected, (int, float)):
        if math.isnan(expected) or math.isinf(expected):
            return repr(got) == repr(float(expected))
        return math.isclose(got, expected, rel_tol=1e-12, abs_tol=0.0)
    return type(got) is type(expected) and bool(got == expected)


def agrees(got: Any, expected: Any, aggregate: AggregateSpec, events: Sequence[Event]) -> bool:
    """As `same`; of a variance what the values' own rounding leaves of their distances is forgiven."""
    finite = isinstance(got, float) and isinstance(expected, float) and math.isfinite(got + expected)
    if not finite or not aggregate.function.startswith(("var_", "stddev_")):
        return same(got, expected)
    values = [event.values[aggregate.column] for event in events]
    scale = max(abs(value) for value in values if value is not None and math.isfinite(value))
    roots = (
        (got, expected) if aggregate.function.startswith("stddev_") else (math.sqrt(got), math.sqrt(expected))
    )
    return math.isclose(*roots, rel_tol=1e-12, abs_tol=4 * len(values) * 2.0**-52 * scale)


@given(st.data(), window_sets())
def test_a_row_answers_as_the_twin_until_its_horizon(data: st.DataObject, windows: list[Window]) -> None:
    interval, horizon = windows[0].interval_ns, windows[0].horizon_ns
    as_of = floor_to(T0, interval) + data.draw(st.integers(0, 200)) * interval
    events = data.draw(event_lists(as_of, windows))
    specs = all_specs(windows)
    schema = make_schema(specs, horizon)
    rows = compact(schema, events, as_of, cut=data.draw(st.integers(0, len(events))))
    merging = Merging(schema)
    edges = {as_of, as_of + horizon} | {w.changes_ns(as_of) + d for w in windows for d in (-1, 0)}
    usable = sorted(edge for edge in edges if as_of <= edge <= as_of + horizon)
    time = data.draw(st.sampled_from(usable) | st.integers(as_of - 10**9, as_of + horizon))
    keys = ["a", "b", "c"]
    answers = merging.fast([[rows.get(key) or null_row(schema, as_of)] for key in keys], [as_of], time)
    for key, (got,) in zip(keys, answers, strict=True):
        for aggregate in specs:
            expected = naive_answer(events, aggregate, key, as_of, time)
            agreed = agrees(got[aggregate.name], expected, aggregate, events)
            assert agreed, (key, aggregate, got[aggregate.name], expected)


@settings(max_examples=examples(40))
@given(st.data())
def test_rows_of_several_views_and_as_ofs_merge_in_one_matrix(data: st.DataObject) -> None:
    month = Window(28 * DAY_NS, DAY_NS, HOUR_NS, 2 * DAY_NS)
    windows = [[DAY_WINDOW, month], [Window(HOUR_NS, 5 * MINUTE_NS, MINUTE_NS, DAY_NS)]]
    schemas = [make_schema(all_specs(w), w[0].horizon_ns) for w in windows]
    hours = [[data.draw(st.integers(-20, 0)) for _ in schemas] for _ in range(3)]
    as_ofs = [[T0 + hour * HOUR_NS for hour in row] for row in hours]
    time = T0 + data.draw(st.integers(0, 4 * HOUR_NS))
    requests, events = [], []
    for stamps in as_ofs:
        events.append([data.draw(event_lists(as_of, w, 6)) for as_of, w in zip(stamps, windows, strict=True)])
        built = [compact(s, e, a).get("a") for s, e, a in zip(schemas, events[-1], stamps, strict=True)]
        requests.append([row or null_row(s, a) for row, s, a in zip(built, schemas, stamps, strict=True)])
    answers = Merging(*schemas).masked(requests, as_ofs, time)
    for request in range(3):
        for view, ws in enumerate(windows):
            for aggregate in all_specs(ws):
                expected = naive_answer(events[request][view], aggregate, "a", as_ofs[request][view], time)
                answer = answers[request][view][aggregate.name]
                assert agrees(answer, expected, aggregate, events[request][view])


def test_an_int64_sum_that_leaves_its_range_spoils_the_slot_and_is_told() -> None:
    schema = make_schema([spec("units", f, DAY_WINDOW) for f in ("sum", "mean", "max", "count")], 2 * DAY_NS)
    big = 2**63 - 1
    events = [Event("a", T0 - 1, {"units": big}), Event("a", T0 - 2, {"units": 1})]
    events += [Event("b", T0 - 1, {"units": big})]
    assert spoilt_keys(schema, events, T0) == {"a"}
    rows = compact(schema, events, T0)
    ((a,), (b,)) = Merging(schema).fast([[rows["a"]], [rows["b"]]], [T0], T0)
    assert list(a.values()) == [None, None, big, 2]
    assert list(b.values()) == [big, float(big), big, 1]


def test_a_spoilt_slot_is_not_made_whole_by_another_one() -> None:
    schema = make_schema([spec("units", "sum", DAY_WINDOW)], 2 * DAY_NS)
    events = [Event("a", T0 - 1, {"units": 2**62}), Event("a", T0 - 2, {"units": 2**62})]
    events += [Event("a", T0 - 2 * HOUR_NS, {"units": 2**62})]
    ((got,),) = Merging(schema).fast([[compact(schema, events, T0)["a"]]], [T0], T0)
    assert list(got.values()) == [None]


@pytest.mark.parametrize("sign", [1, -1])
def test_sums_near_the_end_of_int64_are_exact(sign: int) -> None:
    schema = make_schema([spec("units", "sum", DAY_WINDOW)], 2 * DAY_NS)
    values = [sign * (2**62), sign * (2**62 - 1), -sign * 5, sign * 4]
    events = [Event("a", T0 - 1 - n, {"units": value}) for n, value in enumerate(values)]
    for cut in range(4):
        ((got,),) = Merging(schema).fast([[compact(schema, events, T0, cut=cut)["a"]]], [T0], T0)
        assert list(got.values()) == [sum(values)]


def test_two_chunks_of_an_entity_that_overflow_together_spoil_the_slot() -> None:
    schema = make_schema([spec("units", "sum", DAY_WINDOW)], 2 * DAY_NS)
    events = [Event("a", T0 - 1, {"units": 2**62}), Event("a", T0 - 2, {"units": 2**62})]
    ((got,),) = Merging(schema).fast([[compact(schema, events, T0, cut=1)["a"]]], [T0], T0)
    assert list(got.values()) == [None]


def test_a_zero_sum_is_told_from_an_empty_one() -> None:
    schema = make_schema([spec("amount", "sum", DAY_WINDOW)], 2 * DAY_NS)
    for values in ([-0.0], [0.0], [5.0, -5.0], [-0.0, -0.0]):
        events = [Event("a", T0 - 1 - n, {"amount": value}) for n, value in enumerate(values)]
        ((got,),) = Merging(schema).fast([[compact(schema, events, T0)["a"]]], [T0], T0)
        assert repr(list(got.values())) == "[0.0]"
    nothing = [Event("a", T0 - 1, {"amount": None})]
    ((got,),) = Merging(schema).fast([[compact(schema, nothing, T0)["a"]]], [T0], T0)
    assert list(got.values()) == [None]


@pytest.mark.parametrize("values", [[-0.0], [-0.0, 0.0], [0.0, -0.0], [-0.0] * 9])
def test_an_extreme_that_is_zero_is_stored_without_a_sign(values: list[float]) -> None:
    schema = make_schema([spec("amount", name, DAY_WINDOW) for name in ("min", "max")], 2 * DAY_NS)
    times = np.arange(T0 - len(values), T0)
    events = Events(np.array([0, len(values)]), times, {"amount": EventColumn(np.array(values))})
    words = tile_events(schema, events, T0)
    for component in schema.components:
        own = words[0, component.word : component.word + component.words]
        assert sorted(set(own.tolist()) - set(component.neutral_bits)) == [0]


def test_nan_spoils_sum_and_mean_and_is_passed_over_by_min_and_max() -> None:
    names = ("sum", "mean", "min", "max", "count")
    schema = make_schema([spec("amount", f, DAY_WINDOW) for f in names], 2 * DAY_NS)
    negative_nan = -float("nan")
    events = [Event("a", T0 - 1, {"amount": negative_nan}), Event("a", T0 - 2, {"amount": 3.0})]
    events += [Event("b", T0 - 1, {"amount": float("nan")})]
    rows = compact(schema, events, T0)
    ((a,), (b,)) = Merging(schema).fast([[rows["a"]], [rows["b"]]], [T0], T0)
    assert repr(list(a.values())) == "[nan, nan, 3.0, 3.0, 2]"
    assert repr(list(b.values())) == "[nan, nan, None, None, 1]"
    assert rows["a"][1] & FLAG_NONFINITE


def test_infinities_of_both_signs_sum_to_nan_without_a_warning() -> None:
    schema = make_schema([spec("amount", f, DAY_WINDOW) for f in ("sum", "mean")], 2 * DAY_NS)
    infinity = float("inf")
    for gap in (1, 3 * HOUR_NS):  # in one slot and in two
        events = [Event("a", T0 - 1, {"amount": infinity}), Event("a", T0 - 1 - gap, {"amount": -infinity})]
        ((got,),) = Merging(schema).fast([[compact(schema, events, T0)["a"]]], [T0], T0)
        assert repr(list(got.values())) == "[nan, nan]"


def test_events_outside_every_window_leave_no_trace() -> None:
    schema = make_schema(all_specs([DAY_WINDOW]), 2 * DAY_NS)
    assert earliest_ns(schema, T0) == T0 - DAY_NS
    values = {"amount": 1.0, "units": 1, "kind": "a"}
    outside = [Event("a", time, values) for time in (T0 - DAY_NS - 1, T0, T0 + 1)]
    assert compact(schema, outside, T0)["a"] == null_row(schema, T0)


def test_a_chunk_without_events_of_a_column_is_tiled() -> None:
    schema = make_schema([spec("amount", "min", DAY_WINDOW), spec("units", "sum", DAY_WINDOW)], 2 * DAY_NS)
    columns = {
        "amount": EventColumn(np.zeros(2), np.zeros(2, np.bool_)),
        "units": EventColumn(np.zeros(2, np.int64), np.zeros(2, np.bool_)),
    }
    events = Events(np.array([0, 1, 2]), np.array([T0 - 1, T0 - 2]), columns)
    rows = encode_words(schema, tile_events(schema, events, T0), T0)
    assert rows == [null_row(schema, T0)] * 2


def test_float_sums_of_two_chunks_add_up() -> None:
    specs = [spec("amount", "sum", DAY_WINDOW, Float64), spec("units", "min", DAY_WINDOW, Int64)]
    schema = make_schema(specs, 2 * DAY_NS)
    events = [Event("a", T0 - 1 - n, {"amount": 0.1 * n, "units": -n}) for n in range(50)]
    whole = tile_events(schema, chunk_of(events)[1], T0)
    halves = [tile_events(schema, chunk_of(part)[1], T0) for part in (events[:20], events[20:])]
    merged = merge_words(schema, *halves)
    assert np.allclose(whole.view("<f8"), merged.view("<f8"), rtol=1e-12, equal_nan=True)
