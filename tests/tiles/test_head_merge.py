"""The loop in C against its twin: the same heads to the bit, or refused, and nothing beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.tiles.aggregates import NEUTRAL_BITS, Op
from fastserve.tiles.heads import HeadPlace, HeadPlan, Runs
from fastserve.tiles.layout import NULL_FLOAT64_BITS, NULL_INT64
from fastserve.tiles.operations import NAN_BITS
from fastserve.tiles.windows import DAY_NS, HOUR_NS, MINUTE_NS
from tests.support.examples import examples
from tests.tiles.test_heads import NOW_NS, places

native = pytest.importorskip("fastserve.tiles._head_merge", reason="no C compiler was there")

Words = npt.NDArray[np.int64]

HEADER_WORDS = 2
NEVER = np.iinfo(np.int64).max
GUARD = 0x5A5A_5A5A_5A5A_5A5A
"""Stands before and behind the words that are written to."""


def bits_of(*values: float) -> list[int]:
    return [int(bits) for bits in np.array(values, np.float64).view(np.int64)]


FLOATS = bits_of(0.0, 1.5, -2.25, 0.1, 1e16, 1.7e308, -1.7e308, 5e-324, float("inf"), -float("inf"))
FLOATS += [NULL_INT64, NAN_BITS, NULL_FLOAT64_BITS, -1]  # -0.0, and a NaN that nobody writes
INTS = [0, 1, -7, 2**62, -(2**62), NEVER, NULL_INT64 + 1, NULL_INT64]
MOMENTS = [
    [0, NULL_FLOAT64_BITS, 0],
    bits_of(1.0, 0.1, 0.0),
    bits_of(3.0, -2.5, 7.25),
    bits_of(2.0, 1e300, 1e10),
    bits_of(2.0, -1e300, 1e300),
]
ODD_MOMENTS = [
    bits_of(1.0, -0.0, 0.0),
    bits_of(1.0, float("inf"), float("nan")),
    bits_of(1.0, 2.0, -0.0),
    bits_of(0.0, 3.0, 1.0),
    bits_of(-1.0, 3.0, float("inf")),
]


@dataclass
class Batch:
    """Blocks of some lines as the loop takes them, and rows' floors."""

    plan: HeadPlan
    words: Words
    placed: Words
    floors: Words

    def heads(self) -> Words:
        return np.tile(self.plan.neutral, (len(self.floors), 1))

    def looped(self, now_ns: int, *, is_told: bool = True) -> tuple[bool | None, Words, Words]:
        """Return whether the loop has done it, heads, and newest tiles' ends."""
        heads, newest = self.heads(), np.empty_like(self.floors)
        columns = np.arange(len(self.plan.places))
        done = self.plan.loop.merge(
            self.words.tobytes(), self.placed, self.floors, columns, heads, newest, 0, now_ns, is_told=is_told
        )
        return done, heads, newest

    def by_numpy(self, now_ns: int) -> tuple[Words, Words]:
        """Return heads and newest tiles' ends, tiles found one by one."""
        heads, newest = self.heads(), np.full(self.floors.shape, NULL_INT64)
        at, counts, owners, starts = [], [], [], []
        for block, (word, count) in enumerate(self.placed.tolist()):
            owner = block // 2
            line, position = divmod(owner, len(self.plan.places))
            place = self.plan.places[position].blocks
            tiles = [word + HEADER_WORDS + tile * (1 + place.words) for tile in range(count)]
            own = [tile for tile in tiles if self.floors[line, position] <= self.words[tile] < now_ns]
            if own:
                at.append(own[0])
                counts.append(len(own))
                owners.append(owner)
                starts += [int(self.words[tile]) for tile in own]
                newest[line, position] = min(starts[-1] + place.interval_ns, now_ns)
        if at:
            runs = Runs(
                self.words, np.array(at), np.array(counts), np.array(owners), np.array(starts, np.int64)
            )
            self.plan.merge(runs, now_ns, heads)
        return heads, newest

    def read(self, heads: Words) -> dict[tuple[int, int, int, int], int]:
        """Return the words of heads that stand for a component, and not to fill up."""
        return {
            (line, position, number, part): int(heads[line, word])
            for line in range(len(heads))
            for position, place in enumerate(self.plan.places)
            for number in place.components
            for part, word in enumerate(self.plan.words_of(position, number))
        }


def words_of(place: HeadPlace, tiles: int, chance: np.random.Generator, *, is_odd: bool) -> Words:
    """Return so many tiles' words behind their starts, of any values a component may have and some others."""
    words = np.empty((tiles, place.blocks.words), np.int64)
    for component in place.blocks.tile_schema.components:
        first, op = component.word - 2, component.op  # a row's header
        for tile in range(tiles):
            own = list(NEUTRAL_BITS[op])
            if chance.random() < 0.8:
                if op is Op.MOMENTS:
                    known = MOMENTS + ODD_MOMENTS * is_odd
                    own = known[chance.integers(len(known))]
                elif op.is_float:
                    own = [FLOATS[chance.integers(len(FLOATS) if is_odd else 8)]]
                else:
                    own = [INTS[chance.integers(len(INTS))] for _ in range(op.parts)]
            words[tile, first : first + op.parts] = own
    return words


@st.composite
def batches(draw: st.DrawFn) -> tuple[Batch, int]:
    """Return a batch and the time it is asked at."""
    plan = HeadPlan(draw(st.lists(places(), min_size=1, max_size=4)))
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    is_odd = draw(st.booleans())
    lines = draw(st.integers(1, 3))
    back = st.sampled_from([0, MINUTE_NS, HOUR_NS, 3 * HOUR_NS, 2 * DAY_NS])
    now_ns = NOW_NS + draw(st.sampled_from([-1, 0, 7, HOUR_NS]))
    floors = [
        draw(st.one_of(back.map(lambda ns: now_ns - ns), st.sampled_from([NULL_INT64, NEVER])))
        for _ in range(lines * len(plan.places))
    ]
    parts: list[Words] = []
    placed = []
    counts = st.sampled_from([0, 1, 1, 2, 3, 9, 30])
    at = 0
    for _ in range(lines):
        for place in plan.places:
            for _ in range(2):
                count = draw(counts)
                placed.append((at, count))
                interval_ns = place.blocks.interval_ns
                steps = np.sort(chance.choice(60, count, replace=False))
                starts = (now_ns // interval_ns - 58 + steps) * interval_ns
                tiles = words_of(place, count, chance, is_odd=is_odd)
                parts += [np.zeros(HEADER_WORDS, np.int64), np.hstack([starts[:, None], tiles]).ravel()]
                at += HEADER_WORDS + count * (1 + place.blocks.words)
    words = np.concatenate([*parts, plan.empty_tiles])
    shape = (lines, len(plan.places))
    return Batch(plan, words, np.array(placed), np.array(floors).reshape(shape)), now_ns


@settings(deadline=None, max_examples=examples(120))
@given(batches())
def test_heads_are_the_twins_to_the_bit_or_left_to_it(asked: tuple[Batch, int]) -> None:
    batch, now_ns = asked
    done, heads, newest = batch.looped(now_ns)
    twin, newest_by_twin = batch.by_numpy(now_ns)
    if done:
        assert batch.read(heads) == batch.read(twin)
        assert (newest == newest_by_twin).all()
    else:
        held = batch.words.tolist()
        assert done is False
        assert NULL_INT64 in held or any(triple[1] in held for triple in ODD_MOMENTS)
