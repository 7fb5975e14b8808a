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
from fastserve.tiles.windows import CLOCK_SKEW_NS, DAY_NS, HOUR_NS, LIFETIME_NS, MINUTE_NS, Window
from tests.differential.tiling import spec
from tests.support.examples import examples
from tests.support.guarded import guarded_memory
from tests.support.loops import no_loops
from tests.tiles.test_heads import NOW_NS, block_of, place_of, places

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
        done = self.plan.loop().merge(
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


@settings(deadline=None, max_examples=examples(60))
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


@settings(deadline=None, max_examples=examples(25))
@given(st.lists(places(), min_size=1, max_size=3), st.integers(0, 2**32), st.integers(0, 60))
def test_blocks_of_plain_events_are_never_left_to_the_twin(
    made: list[HeadPlace], seed: int, cut: int
) -> None:
    plan = HeadPlan(made)
    parts: list[Words] = []
    placed, at = [], 0
    for position, place in enumerate(made):
        block = block_of(place, 40, seed + position)
        for own in (slice(0, cut), slice(cut, None)):
            tiles = np.hstack([block.starts[own, None], block.words[own]])
            parts += [np.zeros(HEADER_WORDS, np.int64), tiles.ravel()]
            placed.append((at, len(tiles)))
            at += HEADER_WORDS + tiles.size
    words = np.concatenate([*parts, plan.empty_tiles])
    batch = Batch(plan, words, np.array(placed), np.full((1, len(made)), NOW_NS - 30 * MINUTE_NS))
    done, heads, newest = batch.looped(NOW_NS, is_told=False)
    twin, newest_by_twin = batch.by_numpy(NOW_NS)
    assert done
    assert batch.read(heads) == batch.read(twin)
    assert (newest == newest_by_twin).all()


def one_tile(floor_ns: int, tiles: int = 1) -> Batch:
    """Return a batch of one line and one place, whose block has a tile of an hour ago, or none."""
    plan = HeadPlan([place_of(spec("units", "max", Window(LIFETIME_NS, MINUTE_NS, MINUTE_NS, DAY_NS)))])
    block = block_of(plan.places[0], 1, 0)
    start = (NOW_NS - HOUR_NS) // MINUTE_NS * MINUTE_NS
    words = np.concatenate([[0, 0, start], block.words[0], plan.empty_tiles])
    return Batch(plan, words, np.array([(0, 0), (0, tiles)]), np.array([[floor_ns]]))


@pytest.mark.parametrize(
    "floor_ns, tiles, done",
    [
        (NOW_NS - 2 * DAY_NS, 1, None),  # the horizon is a day
        (NOW_NS - 2 * DAY_NS, 0, None),
        (NOW_NS - DAY_NS - 1, 1, None),
        (NOW_NS - DAY_NS, 1, True),
        (NOW_NS + CLOCK_SKEW_NS, 1, True),
        (NOW_NS + CLOCK_SKEW_NS + 1, 1, None),
        (NULL_INT64, 1, None),
        (NULL_INT64, 0, True),
    ],
)
def test_nothing_is_done_where_a_row_can_t_answer_and_nobody_told_what_counts(
    floor_ns: int, tiles: int, done: bool | None
) -> None:
    batch = one_tile(floor_ns, tiles)
    outcome, heads, _ = batch.looped(NOW_NS, is_told=False)
    assert outcome is done
    if done is None:
        assert (heads == batch.heads()).all()
        assert batch.looped(NOW_NS, is_told=True)[0] is True


def test_starts_that_do_not_ascend_are_left_to_the_twin() -> None:
    batch = one_tile(NOW_NS - DAY_NS)
    width = 1 + batch.plan.places[0].blocks.words
    tile = batch.words[HEADER_WORDS : HEADER_WORDS + width]
    batch.words = np.concatenate([[0, 0], tile, [tile[0] - 1], tile[1:], batch.plan.empty_tiles])
    batch.placed = np.array([(0, 0), (0, 2)])
    assert batch.looped(NOW_NS)[0] is False


def behind_which_is_nothing(words: Words) -> Words:
    found: Words = np.frombuffer(guarded_memory(words.nbytes), "<i8")
    found[:] = words
    return found


@settings(deadline=None, max_examples=examples(60))
@given(st.data(), batches())
def test_whatever_it_is_told_it_writes_to_no_word_beside_the_heads(
    data: st.DataObject, asked: tuple[Batch, int]
) -> None:
    batch, now_ns = asked
    loop = batch.plan.loop()
    loop.merge(
        batch.words.tobytes(),
        batch.placed,
        batch.floors,
        np.arange(batch.floors.shape[1]),
        batch.heads(),
        batch.floors.copy(),
        0,
        now_ns,
        is_told=True,
    )  # so that there are bounds
    lines, places_count = batch.floors.shape
    wild = st.one_of(
        st.integers(-3, 60),
        st.sampled_from([2**31, 2**62, NEVER, NULL_INT64, -(2**32)]),
        st.integers(0, 9999),
    )
    arguments = [
        np.frombuffer(loop.program, "<i8").copy(),
        np.frombuffer(loop.bounds, "<i8").copy(),
        batch.words.copy(),
        batch.placed.copy(),
        batch.floors.copy(),
        np.arange(places_count),
    ]
    for _ in range(data.draw(st.integers(1, 3))):
        flat = arguments[data.draw(st.sampled_from([0, 0, 0, 1, 3, 5]))].reshape(-1)
        if len(flat):
            flat[data.draw(st.integers(0, len(flat) - 1))] = data.draw(wild)
    heads = batch.heads()
    guarded = np.full((lines + 2, heads.shape[1]), GUARD)
    guarded[1:-1] = heads
    newest = np.full((lines + 2, places_count), GUARD)
    first_word = data.draw(st.sampled_from([0, 0, 0, 1, -1, 2**40]))
    written = (guarded[1:-1], newest[1:-1])
    arguments[:3] = [behind_which_is_nothing(words) for words in arguments[:3]]
    done = native.merge_heads(*arguments, *written, first_word, now_ns, data.draw(st.booleans()))
    assert done in (True, False, None)
    for words in (guarded, newest):
        assert (words[0] == GUARD).all()
        assert (words[-1] == GUARD).all()


def test_other_arguments_than_words_are_refused() -> None:
    with pytest.raises(TypeError, match="expected 11 arguments, got 1"):
        native.merge_heads(b"")
    with pytest.raises(TypeError, match="bytes-like"):
        native.merge_heads(*["text"] * 8, 0, 0, True)
    with pytest.raises(TypeError, match="expected a list"):
        native.find_blocks((), 24, b"", b"", bytearray())
    with pytest.raises(BufferError, match="not writable"):
        native.find_blocks([], 24, b"", b"", b"")


def test_without_the_loop_all_is_left_to_the_twin() -> None:
    batch = one_tile(NOW_NS - DAY_NS)
    with no_loops():
        loop = batch.plan.loop()
    arguments = (batch.words.tobytes(), batch.placed, batch.floors, np.arange(1), batch.heads(), batch.floors)
    assert loop.merge(*arguments, 0, NOW_NS, is_told=True) is False
    assert loop.find([], 24, b"", b"", batch.placed) is False
