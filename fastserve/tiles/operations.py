"""What merges the words of a component: one reduction per operation, over the slots of many rows at once.

Serving merges the slots of rows, the writer two parts of one row, streams the tiles of a block; all of them
come here, so that they can't disagree. Knows no window and no feature.

Moments (count n, mean, sum of squared deviations M2) are merged the stable way, after Chan, Golub and LeVeque
("Algorithms for computing the sample variance", 1983): with each slot's distance from one reference mean,
d_i = mean_i - reference, and d = sum(n_i d_i) / N,

    N = sum(n_i)    mean = reference + d    M2 = sum(M2_i) + sum(n_i (d_i - d)^2)

so that values which are all the same have no variance at all, and one slot alone stays as it is.

Invariants
1. A reduction gives the same, to the last digit, whichever neutral elements stand among its terms (floats:
   terms in the same order, and more than one component side by side: see `merge`).
2. No integer sum wraps: sums that leave int64 are null, and so are those with a term that is null.
3. LAST and FIRST depend on the set of terms alone, not on their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastserve.tiles.aggregates import FIRST_OPS, INT64_MAX, LAST_OPS, Op
from fastserve.tiles.layout import NULL_FLOAT64_BITS, NULL_INT64

Words = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

FLOAT64 = np.dtype("<f8")
INT64 = np.dtype("<i8")
NULL_FLOAT64 = np.array([NULL_FLOAT64_BITS], "<i8").view("<f8")[0]
NAN_BITS = 0x7FF8_0000_0000_0000
"""How a NaN is stored; the reserved null has another payload."""
OPERATION_CODES = {
    Op.ADD_F: 0,
    Op.ADD_I: 1,
    Op.COUNT: 2,
    Op.MIN_F: 3,
    Op.MAX_F: 4,
    Op.MIN_I: 5,
    Op.MAX_I: 6,
    Op.MOMENTS: 7,
    Op.LAST_F: 8,
    Op.LAST_I: 8,
    Op.FIRST_F: 9,
    Op.FIRST_I: 9,
}
"""Operations as programs for the loops in C name them (`_words.h`)."""


@dataclass(frozen=True, slots=True)
class Over:
    """What terms are merged over: an axis, or segments. ``spread`` gives each term its merged value."""

    reduce: Callable[[Any, Any], Any]
    spread: Callable[[Any], Any]
    longest: int


def over_axis(terms: int) -> Over:
    """Return the merge over the second axis, of that length."""
    return Over(_reduced, lambda merged: merged[:, None], terms)


def _reduced(ufunc: Any, values: Any) -> Any:
    if ufunc is np.add and values.dtype == FLOAT64:
        return np.add.reduce(values, axis=1, initial=-0.0)  # see `REDUCTIONS`
    return ufunc.reduce(values, axis=1)


def over_segments(starts: Index, count: int) -> Over:
    """Return the merge of ``count`` terms along the first axis, in segments that begin at ``starts``.

    None of them is empty: ``reduceat`` would give such a one its neighbour's value.
    """
    lengths = np.diff(starts, append=count)
    owners = np.repeat(np.arange(len(starts)), lengths)
    return Over(
        lambda ufunc, values: ufunc.reduceat(values, starts, axis=0),
        lambda merged: merged[owners],
        int(lengths.max(initial=0)),
    )


# --- one part -----------------------------------------------------------------------------------------------


def sum_exactly(terms: Words, over: Over) -> Words:
    """Sum int64; sums outside its range become null, and so do those with a term that is null."""
    limit = 2**62 // max(1, over.longest)
    if not terms.size or (int(terms.max()) <= limit and int(terms.min()) >= -limit):
        result: Words = over.reduce(np.add, terms)
        return result
    exact = over.reduce(np.add, terms.astype(object))
    fits = (exact > NULL_INT64) & (exact <= INT64_MAX)
    # A slot whose own sum left int64 (`write`) spoils the whole, whatever the others hold.
    fits &= ~over.reduce(np.logical_or, terms == NULL_INT64)
    return np.where(fits, exact, NULL_INT64).astype(np.int64)


def add_exactly(terms: Words) -> Words:
    """Sum int64 ``terms`` of shape (rows, terms, components) over the middle axis, as `sum_exactly`."""
    return sum_exactly(terms, over_axis(terms.shape[1]))


REDUCTIONS: dict[Op, Callable[[Any], Any]] = {
    # initial: NumPy starts a sum at 0.0, which would turn an empty window's -0.0 into a zero.
    Op.ADD_F: lambda terms: np.add.reduce(terms, axis=1, initial=-0.0),
    Op.ADD_I: add_exactly,
    Op.COUNT: lambda terms: np.add.reduce(terms, axis=1),
    Op.MIN_F: lambda terms: np.fmin.reduce(terms, axis=1),
    Op.MAX_F: lambda terms: np.fmax.reduce(terms, axis=1),
    Op.MIN_I: lambda terms: np.minimum.reduce(terms, axis=1),
    Op.MAX_I: lambda terms: np.maximum.reduce(terms, axis=1),
}
"""Merge terms of one part: shape (rows, terms, components) to (rows, components)."""

_UFUNCS: dict[Op, Any] = {
    Op.ADD_F: np.add,
    Op.COUNT: np.add,
    Op.MIN_F: np.fmin,
    Op.MAX_F: np.fmax,
    Op.MIN_I: np.minimum,
    Op.MAX_I: np.maximum,
}

# --- several parts ------------------------------------------------------------------------------------------


def merge_moments(
    counts: Floats, means: Floats, squares: Floats, over: Over
) -> tuple[Floats, Floats, Floats]:
    """Merge moments; where nothing was counted the mean is NaN."""
    empty = counts == 0
    reference = over.reduce(np.fmax, means)  # any slot's would do: the largest is it in every order
    apart = means - over.spread(reference)
    np.copyto(apart, 0.0, where=empty)
    count = over.reduce(np.add, counts)
    mean_apart = over.reduce(np.add, counts * apart) / np.where(count == 0, 1.0, count)
    apart -= over.spread(mean_apart)
    apart *= apart
    apart *= counts
    np.copyto(apart, 0.0, where=empty)  # and not 0 * infinity
    apart += squares
    return count, reference + mean_apart, over.reduce(np.add, apart)


def pick(op: Op, times: Words, values: Words, over: Over) -> tuple[Words, Words]:
    """Merge (time, value) pairs: the last time and the largest value at it, or the first and the smallest."""
    ufunc, neutral = (np.maximum, NULL_INT64) if op in LAST_OPS else (np.minimum, INT64_MAX)
    time = over.reduce(ufunc, times)
    return time, over.reduce(ufunc, np.where(times == over.spread(time), values, neutral))


def reduce_parts(op: Op, parts: Sequence[Words], over: Over) -> list[Words]:
    """Merge terms given part by part, floats as their bits; so is what comes out, as rows hold it."""
    with np.errstate(invalid="ignore", over="ignore"):
        if op is Op.ADD_I:
            return [sum_exactly(parts[0], over)]
        if op is Op.MOMENTS:
            counts, means, squares = map(_floats, parts)
            count, mean, squares = merge_moments(counts, means, squares, over)
            mean_bits = stored_bits(mean, NAN_BITS)
            mean_bits[count == 0] = NULL_FLOAT64_BITS
            return [stored_bits(count, NAN_BITS), mean_bits, stored_bits(squares, NAN_BITS)]
        if op.parts > 1:
            return list(pick(op, parts[0], parts[1], over))
        if op.is_float:
            merged = over.reduce(_UFUNCS[op], _floats(parts[0]))
            return [stored_bits(merged, NAN_BITS if op is Op.ADD_F else NULL_FLOAT64_BITS)]
        return [over.reduce(_UFUNCS[op], parts[0])]


def merge_terms(op: Op, terms: Words) -> Any:
    """Merge terms of several parts for finalizing: shape (rows, parts, terms, components).

    Gives of moments the counts, and behind them the squares, as floats; of a pick its value, null if none.
    """
    over = over_axis(terms.shape[2])
    if op is Op.MOMENTS:
        floats = terms.view(FLOAT64)
        count, _, squares = merge_moments(floats[:, 0], floats[:, 1], floats[:, 2], over)
        return np.concatenate([count, squares], axis=1)
    time, value = pick(op, terms[:, 0], terms[:, 1], over)
    if op in FIRST_OPS:
        np.copyto(value, NULL_INT64, where=time == INT64_MAX)
    return value


def _floats(bits: Words) -> Floats:
    return np.ascontiguousarray(bits).view(FLOAT64)


def stored_bits(values: Floats, nan_bits: int) -> Words:
    """Return floats as rows hold them: every NaN with the same bits."""
    bits = values.view(INT64).copy()
    bits[np.isnan(values)] = nan_bits
    return bits


# --- floats in their order ----------------------------------------------------------------------------------

_ALL_BUT_SIGN = np.int64(INT64_MAX)


def order_keys(values: Floats) -> Words:
    """Return integers that sort as the floats do: -inf, …, -0.0, 0.0, …, inf, NaN."""
    bits = stored_bits(values, NAN_BITS)
    return bits ^ ((bits >> 63) & _ALL_BUT_SIGN)


def floats_of_keys(keys: Words) -> Floats:
    """Return the floats of their `order_keys`, and null where a key is the smallest int64."""
    bits = keys ^ ((keys >> 63) & _ALL_BUT_SIGN)
    np.copyto(bits, NULL_FLOAT64_BITS, where=keys == NULL_INT64)
    return bits.view(FLOAT64)
