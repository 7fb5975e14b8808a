"""Heads of many places at once against each by itself, and against tiles merged one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastserve.tiles import head_classes, head_runs
from fastserve.tiles.aggregates import AggregateSpec, Op, make_schema
from fastserve.tiles.blocks import Block, block_schema, from_events
from fastserve.tiles.heads import HeadPlace, HeadPlan, Runs, narrow_components
from fastserve.tiles.layout import NULL_INT64
from fastserve.tiles.operations import over_axis, reduce_parts
from fastserve.tiles.windows import DAY_NS, HOUR_NS, LIFETIME_NS, MINUTE_NS, Window
from tests.differential.tiling import COLUMNS, FUNCTIONS, spec

Words = npt.NDArray[np.int64]
NOW_NS = 20_000 * DAY_NS + 10 * HOUR_NS + 1
INTERVALS_NS = (MINUTE_NS, 5 * MINUTE_NS, HOUR_NS)


@st.composite
def specs(draw: st.DrawFn, interval_ns: int) -> list[AggregateSpec]:
    made = []
    for _ in range(draw(st.integers(1, 12))):
        column = draw(st.sampled_from(["amount", "units", "flag"]))
        window = draw(
            st.sampled_from(
                [
                    Window(interval_ns, interval_ns, interval_ns, DAY_NS),
                    Window(3 * interval_ns, interval_ns, interval_ns, DAY_NS),
                    Window(3 * interval_ns, interval_ns, interval_ns, DAY_NS, -2 * interval_ns),
                    Window(30 * DAY_NS, DAY_NS, interval_ns, DAY_NS),
                    Window(LIFETIME_NS, interval_ns, interval_ns, DAY_NS),
                ]
            )
        )
        made.append(spec(column, draw(st.sampled_from(FUNCTIONS[column])), window))
    return list({each.name: each for each in made}.values())


@st.composite
def places(draw: st.DrawFn) -> HeadPlace:
    schema = make_schema(draw(specs(draw(st.sampled_from(INTERVALS_NS)))), DAY_NS)
    return HeadPlace(schema, block_schema(schema), tuple(sorted(narrow_components(schema.features))))


def block_of(place: HeadPlace, count: int, seed: int) -> Block:
    """Return the tiles of so many events of the last hours."""
    chance = np.random.default_rng(seed)
    interval_ns = place.blocks.interval_ns
    back = chance.choice(max(count, 40), count, replace=False) * interval_ns
    values: dict[str, list[Any]] = {
        "amount": [
            None if n % 5 == 0 else float(v) / 8 for n, v in enumerate(chance.integers(-99, 99, count))
        ],
        "units": chance.integers(-(2**56), 2**56, count).tolist(),
        "flag": [None if v == 2 else bool(v) for v in chance.integers(0, 3, count).tolist()],
        "kind": [None] * count,
    }
    assert set(values) == set(COLUMNS)
    made = from_events(place.blocks, ["k"] * count, (NOW_NS - 1 - back).tolist(), values)
    parts = [made[key] for key in sorted(made)]
    return Block(
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.words for part in parts]),
        [irs for part in parts for irs in part.wide],
    )


def cut(block: Block, tiles: int) -> list[Block]:
    """Return a block in two, as the end of a block's time cuts it; an empty half is none."""
    halves = [
        Block(block.starts[part], block.words[part], block.wide[part])
        for part in (slice(0, tiles), slice(tiles, None))
    ]
    return [half for half in halves if half.tiles]


def heads_of(plan: HeadPlan, blocks: Sequence[Sequence[Sequence[Block]]]) -> Words:
    """Return the heads of lines, whose blocks stand by position, at most two of a key."""
    buffer: list[Words] = []
    at, counts, owners, starts, word = [], [], [], [], 0
    for line, by_position in enumerate(blocks):
        for position, own in enumerate(by_position):
            for block in own:
                at.append(word)
                counts.append(block.tiles)
                owners.append(line * len(plan.places) + position)
                for start, words in zip(block.starts, block.words, strict=True):
                    buffer.append(np.concatenate([[start], words]))
                    starts.append(start)
                    word += len(buffer[-1])
    heads = np.tile(plan.neutral, (len(blocks), 1))
    if at:
        everything = np.concatenate([*buffer, plan.empty_tiles])
        runs = Runs(everything, np.array(at), np.array(counts), np.array(owners), np.array(starts, np.int64))
        plan.merge(runs, NOW_NS, heads)
    return heads


def slow_head(place: HeadPlace, number: int, blocks: Sequence[Block]) -> list[int] | None:
    """Return a component's head, tile by tile; None where no tile counts."""
    component = place.schema.components[number]
    window, first = component.window, place.blocks.component_words[number]
    low, high = window.start_ns(NOW_NS), window.end_ns(NOW_NS)
    merged: list[Words] | None = None
    tiles = [tile for block in blocks for tile in zip(block.starts, block.words, strict=True)]
    for start, words in tiles:
        if low <= start < high:
            parts = [words[None, None, first + part : first + part + 1] for part in range(component.op.parts)]
            if merged is not None:
                parts = [np.stack([m, p[0]], axis=1) for m, p in zip(merged, parts, strict=True)]
            merged = reduce_parts(component.op, parts, over_axis(parts[0].shape[1]))
    return None if merged is None else [int(part[0, 0]) for part in merged]


def own_words(plan: HeadPlan, heads: Words, position: int, number: int) -> list[int]:
    return [int(heads[0, word]) for word in plan.words_of(position, number)]


def agree(place: HeadPlace, number: int, got: Sequence[int], want: Sequence[int] | None) -> bool:
    component = place.schema.components[number]
    if want is None:
        want = [bits[0] for bits in np.array_split(component.neutral_bits, component.op.parts)]
    if not component.op.is_float:
        return list(got) == [int(value) for value in want]
    one, other = (np.array(values, np.int64).view(np.float64) for values in (got, want))
    return np.allclose(one, other, rtol=1e-9, atol=1e-9, equal_nan=True)


@settings(deadline=None, max_examples=60)
@given(
    st.data(),
    st.lists(places(), min_size=1, max_size=4),
    st.integers(0, 2**32),
    st.sampled_from([64, 2**18]),
    st.sampled_from([-(2**62), 2**62]),
)
def test_heads_are_those_of_each_key_alone_and_of_its_tiles_one_by_one(
    data: st.DataObject, made: list[HeadPlace], seed: int, max_terms: int, nested_from: int
) -> None:
    plan = HeadPlan(made)
    counts = st.sampled_from([0, 0, 1, 2, 5, 40])
    lines: list[list[list[Block]]] = []
    for line in range(data.draw(st.integers(1, 5))):
        row: list[list[Block]] = []
        for position, place in enumerate(made):
            count = data.draw(counts)
            block = block_of(place, count, seed + 10 * line + position) if count else None
            row.append(cut(block, data.draw(st.integers(0, count))) if block else [])
        lines.append(row)
    with (
        patch.object(head_runs, "MAX_TERMS", max_terms),
        patch.object(head_classes, "NESTED_FROM", nested_from),
    ):
        together = heads_of(plan, lines)
    for number, row in enumerate(lines):
        alone = heads_of(plan, [row])
        assert (alone[0] == together[number]).all()
        for position, place in enumerate(made):
            single = heads_of(plan, [[own if p == position else [] for p, own in enumerate(row)]])
            for component in place.components:
                got = own_words(plan, alone, position, component)
                assert got == own_words(plan, single, position, component)
                assert agree(place, component, got, slow_head(place, component, row[position]))


def place_of(*specs: AggregateSpec) -> HeadPlace:
    schema = make_schema(list(specs), DAY_NS)
    return HeadPlace(schema, block_schema(schema), tuple(sorted(narrow_components(schema.features))))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 120), min_size=1, max_size=60), st.sampled_from([64, 2**18]))
@example([100, *[26] * 20], 2**18)
def test_runs_of_any_lengths_are_merged_together(lengths: list[int], max_terms: int) -> None:
    place = place_of(spec("units", "max", Window(LIFETIME_NS, MINUTE_NS, MINUTE_NS, DAY_NS)))
    plan = HeadPlan([place])
    lines = [[[block_of(place, count, number)]] for number, count in enumerate(lengths)]
    with patch.object(head_runs, "MAX_TERMS", max_terms):
        together = heads_of(plan, lines)
    for number, row in enumerate(lines):
        (word, *_) = plan.words_of(0, place.components[0])
        assert slow_head(place, place.components[0], row[0]) == [int(together[number, word])]


@pytest.mark.parametrize("nested_from", [-(2**62), 2**62])
def test_a_sum_that_older_tiles_bring_back_is_the_same_whichever_way_it_is_merged(nested_from: int) -> None:
    windows = [Window(length, MINUTE_NS, MINUTE_NS, DAY_NS) for length in (MINUTE_NS, LIFETIME_NS)]
    place = place_of(*[spec("units", "sum", window) for window in windows])
    times = [NOW_NS - 1 - back * MINUTE_NS for back in (2, 1, 0)]
    (block,) = from_events(place.blocks, ["k"] * 3, times, {"units": [-(2**62), 2**62, 2**62]}).values()
    plan = HeadPlan([place])
    with patch.object(head_classes, "NESTED_FROM", nested_from):
        heads = heads_of(plan, [[[block]]])
    sums = {
        place.schema.components[number].window.is_lifetime: own_words(plan, heads, 0, number)
        for number in place.components
        if place.schema.components[number].op is Op.ADD_I
    }
    assert sums == {False: [NULL_INT64], True: [2**62]}


def test_infinities_of_both_signs_in_two_tiles_are_no_number_and_no_warning() -> None:
    window = Window(HOUR_NS, 5 * MINUTE_NS, MINUTE_NS, DAY_NS)
    schema = make_schema([spec("amount", name, window) for name in ("sum", "max")], DAY_NS)
    place = HeadPlace(schema, block_schema(schema), (0, 1))
    values = {"amount": [float("inf"), float("-inf")]}
    (block,) = from_events(place.blocks, ["k"] * 2, [NOW_NS - 2 * MINUTE_NS, NOW_NS - 1], values).values()
    plan = HeadPlan([place])
    total, largest = (
        np.array(own_words(plan, heads_of(plan, [[[block]]]), 0, number), np.int64).view(np.float64)[0]
        for number in (0, 1)
    )
    assert np.isnan(total)
    assert largest == float("inf")


def test_heads_have_a_length_that_rows_can_be_joined_with() -> None:
    window = Window(HOUR_NS, 5 * MINUTE_NS, MINUTE_NS, DAY_NS)
    schema = make_schema([spec("amount", "sum", window)], DAY_NS)
    plan = HeadPlan([HeadPlace(schema, block_schema(schema), (0,))])
    assert plan.words % 3 == len(plan.empty_tiles) % 3 == 0
    assert plan.words_of(0, 0)[0] < plan.words
