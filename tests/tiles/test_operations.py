"""What merges components: in any grouping and order the same, whether along an axis or in segments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.tiles.aggregates import FIRST_OPS, LAST_OPS, NEUTRAL_BITS, Op
from fastserve.tiles.layout import NULL_FLOAT64_BITS, NULL_INT64
from fastserve.tiles.operations import (
    NAN_BITS,
    Words,
    floats_of_keys,
    merge_terms,
    order_keys,
    over_axis,
    over_segments,
    reduce_parts,
)

FINITE = st.integers(-(2**30), 2**30).map(lambda number: number / 8)
ANY_FLOAT = FINITE | st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1e300, 5e-324])
INT64S = st.integers(-(2**63) + 1, 2**63 - 1)
TIMES = st.integers(-3, 3)


def bits(value: float) -> int:
    """Return a float's bits as a row holds them."""
    return NAN_BITS if math.isnan(value) else int(np.array([value], "<f8").view("<i8")[0])


def key(value: float) -> int:
    return int(order_keys(np.array([value]))[0])


def values_of(op: Op) -> st.SearchStrategy[tuple[int, ...]]:
    """One IR of the operation, part by part, among them the empty one."""
    empty = st.just(NEUTRAL_BITS[op])
    if op is Op.MOMENTS:
        some = st.tuples(st.integers(1, 9).map(float), FINITE, FINITE.map(abs))
        return empty | some.map(lambda parts: (bits(parts[0]), bits(parts[1]), bits(parts[2])))
    if op in LAST_OPS | FIRST_OPS:
        real = op in (Op.LAST_F, Op.FIRST_F)
        return empty | st.tuples(TIMES, ANY_FLOAT.map(key) if real else INT64S)
    if op is Op.ADD_F:
        return empty | FINITE.map(lambda value: (bits(value + 0.0),))
    if op.is_float:
        return empty | st.tuples(
            (FINITE | st.sampled_from([math.inf, -math.inf])).map(lambda v: bits(v + 0.0))
        )
    return empty | st.tuples(st.integers(0, 2**40) if op is Op.COUNT else INT64S)


def merged(op: Op, irs: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Merge IRs along an axis, their double beside them."""
    parts = [np.array([[[ir[part]] * 2 for ir in irs]], np.int64) for part in range(op.parts)]
    return tuple(int(part[0, 0]) for part in reduce_parts(op, parts, over_axis(len(irs))))


def same(op: Op, left: tuple[int, ...], right: tuple[int, ...]) -> bool:
    if op is not Op.MOMENTS:
        return left == right
    one, other = (np.array(each, np.int64).view(np.float64) for each in (left, right))
    return bool(np.allclose(one, other, rtol=1e-9, atol=1e-3, equal_nan=True))


@pytest.mark.parametrize("op", list(Op))
@given(st.data())
def test_merging_is_associative_and_commutative(op: Op, data: st.DataObject) -> None:
    irs = data.draw(st.lists(values_of(op), min_size=2, max_size=6))
    cut = data.draw(st.integers(1, len(irs) - 1))
    halves = [merged(op, irs[:cut]), merged(op, irs[cut:])]
    whole = merged(op, irs)
    if op is Op.ADD_I:
        # A part that leaves int64 spoils the whole, though that be inside again: null, never another number.
        exact = sum(ir[0] for ir in irs)
        assert whole[0] in {exact, NULL_INT64}
        assert merged(op, halves)[0] in {exact, NULL_INT64}
        assert merged(op, irs[::-1]) == whole
        return
    assert same(op, merged(op, halves), whole)
    assert same(op, merged(op, data.draw(st.permutations(irs))), whole)


@pytest.mark.parametrize("op", list(Op))
@given(st.data())
def test_empty_slots_change_nothing_to_the_last_digit(op: Op, data: st.DataObject) -> None:
    irs = data.draw(st.lists(values_of(op), min_size=1, max_size=5))
    spread = [each for ir in irs for each in (ir, NEUTRAL_BITS[op])]
    assert merged(op, spread) == merged(op, irs)
    assert merged(op, [NEUTRAL_BITS[op]] * 3) == NEUTRAL_BITS[op]
    assert merged(op, [irs[0], NEUTRAL_BITS[op]]) == irs[0]


@pytest.mark.parametrize("op", list(Op))
@given(st.data())
def test_segments_merge_as_an_axis_does(op: Op, data: st.DataObject) -> None:
    segments = data.draw(st.lists(st.lists(values_of(op), min_size=1, max_size=4), min_size=1, max_size=4))
    terms = np.array([ir for segment in segments for ir in segment], np.int64)
    starts = np.cumsum([0, *map(len, segments)][:-1])
    got = reduce_parts(op, [terms[:, part] for part in range(op.parts)], over_segments(starts, len(terms)))
    for number, segment in enumerate(segments):
        assert same(op, tuple(int(part[number]) for part in got), merged(op, segment))


@given(st.lists(ANY_FLOAT, min_size=1, max_size=8))
def test_order_keys_sort_as_floats_with_nan_above_all(values: list[float]) -> None:
    keys = order_keys(np.array(values))
    back = floats_of_keys(keys)
    assert list(map(repr, back.tolist())) == list(map(repr, values))
    ordered = sorted(values, key=lambda v: (math.isnan(v), 0.0 if math.isnan(v) else v, math.copysign(1, v)))
    assert list(map(repr, floats_of_keys(np.sort(keys)).tolist())) == list(map(repr, ordered))
    assert NULL_INT64 < int(keys.min()) <= int(keys.max()) < 2**63 - 1
    assert floats_of_keys(np.array([NULL_INT64])).view("<i8")[0] == NULL_FLOAT64_BITS


def terms_of(*irs: tuple[int, ...]) -> Words:
    """Return terms as `merge_terms` takes them: one row, two equal components."""
    return np.array(irs, np.int64).T[None, :, :, None].repeat(2, axis=3).copy()


def test_of_values_at_one_time_the_last_is_the_largest_and_the_first_the_smallest() -> None:
    ties = [(5, 1), (5, 7), (5, -3), (4, 99)]
    assert merge_terms(Op.LAST_I, terms_of(*ties)).tolist() == [[7, 7]]
    ties = [(5, 1), (5, 7), (5, -3), (6, -99)]
    assert merge_terms(Op.FIRST_I, terms_of(*ties)).tolist() == [[-3, -3]]


@pytest.mark.parametrize("op", [Op.LAST_I, Op.FIRST_I, Op.LAST_F, Op.FIRST_F])
def test_nothing_to_pick_is_null_and_the_largest_int64_is_not(op: Op) -> None:
    assert merge_terms(op, terms_of(NEUTRAL_BITS[op], NEUTRAL_BITS[op])).tolist() == [[NULL_INT64] * 2]
    if op in (Op.LAST_I, Op.FIRST_I):
        assert merge_terms(op, terms_of((0, 2**63 - 1), NEUTRAL_BITS[op])).tolist() == [[2**63 - 1] * 2]


@given(st.lists(st.lists(FINITE, min_size=1, max_size=5), min_size=1, max_size=5))
def test_moments_of_parts_are_those_of_the_whole(parts: list[list[float]]) -> None:
    irs = []
    for part in parts:
        mean = math.fsum(part) / len(part)
        irs.append((bits(float(len(part))), bits(mean), bits(math.fsum((v - mean) ** 2 for v in part))))
    count, squares = merge_terms(Op.MOMENTS, terms_of(*irs))[0, ::2].tolist()
    whole = [value for part in parts for value in part]
    mean = math.fsum(whole) / len(whole)
    assert count == len(whole)
    expected = math.fsum((value - mean) ** 2 for value in whole)
    slip = max(map(abs, whole)) * 2.0**-48
    assert math.isclose(math.sqrt(squares), math.sqrt(expected), rel_tol=1e-12, abs_tol=slip)


@given(FINITE, st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_equal_values_have_no_variance_at_all(value: float, counts: list[int]) -> None:
    irs = [(bits(float(count)), bits(value / 3), bits(0.0)) for count in counts]
    assert merge_terms(Op.MOMENTS, terms_of(*irs))[0].tolist() == [float(sum(counts))] * 2 + [0.0] * 2


def test_moments_that_overflow_are_no_number_or_infinite_with_or_without_empty_slots() -> None:
    huge = [(bits(1.0), bits(1.7e308), bits(0.0)), (bits(2.0), bits(-1.7e308), bits(0.0))]
    with np.errstate(all="ignore"):
        one = merge_terms(Op.MOMENTS, terms_of(*huge))
        other = merge_terms(Op.MOMENTS, terms_of(huge[0], NEUTRAL_BITS[Op.MOMENTS], huge[1]))
    assert repr(one.tolist()) == repr(other.tolist())
    assert not math.isfinite(one[0, 2])
