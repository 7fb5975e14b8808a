"""Merging prepared rows: the corners that a random comparison seldom meets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.tiles.aggregates import NEUTRAL_BITS, Op, make_schema
from fastserve.tiles.layout import NULL_INT64
from fastserve.tiles.merge import BEYOND_ALL_TAILS, CONSTANT_BITS, MergePlan
from fastserve.tiles.operations import REDUCTIONS, add_exactly
from fastserve.tiles.windows import DAY_NS, HOUR_NS, Window
from tests.differential.merging import Merging, null_row
from tests.differential.naive import Event
from tests.differential.tiling import all_specs, compact, spec

T0 = 1_388_404_800 * 10**9
DAY = Window(DAY_NS, HOUR_NS, HOUR_NS, 2 * DAY_NS)
int64s = st.integers(-(2**63) + 1, 2**63 - 1)


@given(st.lists(st.lists(int64s, min_size=3, max_size=3), min_size=1, max_size=4))
def test_int64_sums_are_exact_or_null(rows: list[list[int]]) -> None:
    got = add_exactly(np.array(rows, np.int64)[:, :, None])[:, 0].tolist()
    assert got == [sum(row) if -(2**63) < sum(row) < 2**63 else NULL_INT64 for row in rows]


def test_a_term_that_is_null_makes_the_sum_null() -> None:
    terms = np.array([[NULL_INT64, 2**62], [1, 2]], np.int64)[:, :, None]
    assert add_exactly(terms)[:, 0].tolist() == [NULL_INT64, 3]


@pytest.mark.parametrize("op", list(REDUCTIONS))
def test_a_neutral_element_changes_nothing(op: Op) -> None:
    kind = "<f8" if op.is_float else "<i8"
    values = np.array([1.5, -0.0, 0.0, np.inf] if op.is_float else [1, 0, -5, 2**62], kind)
    neutral = np.array(NEUTRAL_BITS[op], "<i8").view(kind)
    terms = np.stack([values, np.repeat(neutral, 4), np.repeat(neutral, 4)])[None, :, :]
    assert REDUCTIONS[op](terms).view("<i8")[0].tolist() == values.view("<i8").tolist()
    alone = REDUCTIONS[op](np.repeat(neutral, 2)[None, :, None])
    assert alone.view("<i8")[0, 0] == NEUTRAL_BITS[op][0]


def test_the_constants_hold_every_neutral_element_and_keep_rows_aligned() -> None:
    assert {bits for words in NEUTRAL_BITS.values() for bits in words} <= set(CONSTANT_BITS)
    assert len(CONSTANT_BITS) * 8 % 24 == 0


def test_an_absent_row_is_empty_windows() -> None:
    schema = make_schema(all_specs([DAY]), 2 * DAY_NS)
    ((values,),) = Merging(schema).fast([[null_row(schema, T0)]], [T0], T0 + HOUR_NS)
    expected = {name: 0 if "_count_" in name else None for name in values}
    assert values == expected


def test_a_window_that_is_all_tails_empties_before_the_horizon() -> None:
    window = Window(3 * HOUR_NS, HOUR_NS, HOUR_NS, 2 * DAY_NS)
    schema = make_schema(all_specs([window]), 2 * DAY_NS)
    event = Event("a", T0 - 1, {"amount": 1.0, "units": 1, "kind": "x"})
    row = compact(schema, [event], T0)["a"]
    counts = []
    for time in (T0, T0 + 3 * HOUR_NS - 1, T0 + 3 * HOUR_NS, T0 + 2 * DAY_NS):
        ((values,),) = Merging(schema).fast([[row]], [T0], time)
        counts.append(values[f"kind_count_{window.window_ns}_{window.hop_ns}"])
    assert counts == [1, 1, 0, 0]


def test_an_epoch_holds_until_the_first_window_moves() -> None:
    month = Window(28 * DAY_NS, DAY_NS, HOUR_NS, 2 * DAY_NS)
    schema = make_schema(all_specs([DAY, month]), 2 * DAY_NS)
    plan = Merging(schema).plan
    epoch = plan.epoch(np.array([T0], np.int64), T0 + 5)
    assert (epoch.start_ns, epoch.end_ns) == (T0 + 5, T0 + HOUR_NS)
    rows = {
        h: compact(schema, [Event("a", T0 - DAY_NS + h, {"amount": 1.0, "units": 1})], T0)["a"]
        for h in (0, 1)
    }
    matrix = Merging(schema).matrix([[row] for row in rows.values()])
    later = plan.epoch(np.array([T0], np.int64), epoch.end_ns - 1)
    for left, right in zip(plan.fast(matrix, epoch), plan.fast(matrix, later), strict=True):
        assert left.tobytes() == right.tobytes()


def test_a_plan_without_aggregates_has_no_end() -> None:
    plan = MergePlan([], 0)
    epoch = plan.epoch(np.empty(0, np.int64), T0)
    assert epoch.end_ns == BEYOND_ALL_TAILS
    floats, ints = plan.fast(np.empty((2, 6), np.int64), epoch)
    assert (floats.shape, ints.shape, plan.floats, plan.ints) == ((2, 0), (2, 0), 0, 0)


def test_a_service_reads_only_the_features_it_selects() -> None:
    schema = make_schema([spec("units", f, DAY) for f in ("sum", "count", "mean", "min")], 2 * DAY_NS)
    chosen = [schema.features[3], schema.features[1]]
    plan = MergePlan([(0, 0, schema, chosen)], schema.layout.fixed_words)
    assert (plan.floats, plan.ints, plan.counts) == (0, 2, 1)
    row = compact(schema, [Event("a", T0 - 1, {"units": 7}), Event("a", T0 - 2, {"units": 5})], T0)["a"]
    matrix = Merging(schema).matrix([[row]])
    _, ints = plan.fast(matrix, plan.epoch(np.array([T0], np.int64), T0))
    assert [int(ints[0, place.index]) for place in plan.feature_places[0]] == [5, 2]


def test_a_series_comes_out_as_its_elements() -> None:
    days = tuple(Window(DAY_NS, HOUR_NS, HOUR_NS, 2 * DAY_NS, -n * DAY_NS) for n in (2, 1, 0))
    series = replace(spec("units", "sum", days[0]), series=days)
    schema = make_schema([series, spec("units", "max", DAY)], 2 * DAY_NS)
    plan = MergePlan([(0, 0, schema, schema.features)], schema.layout.fixed_words)
    whole, single = plan.feature_places[0]
    assert (whole.index, len(whole.elements), single.elements) == (-1, 3, ())
    events = [Event("a", T0 - 1 - n * DAY_NS, {"units": 10**n}) for n in (0, 2)]
    matrix = Merging(schema).matrix([[compact(schema, events, T0)["a"]]])
    _, ints = plan.fast(matrix, plan.epoch(np.array([T0], np.int64), T0))
    assert [int(ints[0, place.index]) for place in whole.elements] == [100, NULL_INT64, 1]
    assert int(ints[0, single.index]) == 1
    masked = plan.masked(matrix, np.array([[T0]]), T0)
    assert masked[1].tolist() == ints.tolist()


def test_what_is_bytes_is_left_to_others() -> None:
    schema = make_schema([spec("kind", "last", DAY), spec("units", "sum", DAY)], 2 * DAY_NS)
    plan = MergePlan([(0, 0, schema, schema.features)], schema.layout.fixed_words)
    assert [place.index for place in plan.feature_places[0]] == [-1, 0]
    assert (plan.floats, plan.ints) == (0, 1)


@pytest.mark.parametrize("function", ["sum", "var_pop", "last", "first", "min"])
def test_head_slots_count_in_both_ways_whatever_is_live(function: str) -> None:
    past = Window(DAY_NS, HOUR_NS, HOUR_NS, 2 * DAY_NS, -DAY_NS)
    schema = make_schema([spec("amount", function, window) for window in (DAY, past)], 2 * DAY_NS)
    words = schema.layout.fixed_words
    heads: dict[tuple[int, int], tuple[int, ...]] = {}
    for number, component in enumerate(schema.components):
        heads[0, number] = tuple(range(words, words + component.op.parts))
        words += component.op.parts
    plan = MergePlan([(0, 0, schema, schema.features)], words, heads)
    tile = compact(schema, [Event("a", T0 - 1, {"amount": 3.0})], T0)["a"]
    slot = schema.components[0].word + DAY.slots - 1
    head = [
        np.frombuffer(tile, "<i8")[slot + part * DAY.slots] for part in range(schema.components[0].op.parts)
    ]
    row = np.frombuffer(null_row(schema, T0), "<i8")
    matrix = np.concatenate([row, head, head, np.array(CONSTANT_BITS)]).astype(np.int64)[None]
    expected = 0.0 if function == "var_pop" else 3.0
    for time in (T0, T0 + DAY_NS, T0 + 2 * DAY_NS):
        fast, _ = plan.fast(matrix, plan.epoch(np.array([T0]), time))
        masked, _ = plan.masked(matrix, np.array([[T0]]), time)
        assert fast.tolist() == masked.tolist() == [[expected] * 2]
