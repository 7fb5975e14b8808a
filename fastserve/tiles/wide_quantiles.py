"""Sketches: approximate percentiles by KLL, the quantile sketch of `datasketches`, without its dice.

The algorithm is that of Karnin, Lang and Liberty ("Optimal Quantile Approximation in Streams", 2016) with the
level capacities of Apache DataSketches: level h holds values of weight ``2**h``; a full level is sorted and
every second of its values moves up, the even ones or the odd ones. DataSketches throws a coin from the clock
for that, which can't be seeded: the same events gave another percentile each time that they were tiled, and
each time that they were merged for a request. Here the coin is a checksum of the values themselves.
`docs/decisions/0005-percentiles.md` has the figures.

    offset  bytes  what
    0       1      format, 1
    1       1      levels
    2       4 n    values on each level
    …       16     only with more than one level: the least and the greatest value
    …       8      each value, float64, level by level, ascending within one

Up to k values it is exact: one level that holds all. For an answer the levels of all slots are laid together
as they are, without another compaction, so it depends neither on the order of the slots nor on chance.

Invariants
1. Weights add up to the number of values.
2. The IR of a slot is a function of the multiset of its values, an answer one of the multiset of IRs.
3. The answer's rank is off by at most `datasketches`' ``normalized_rank_error(k)`` in 99 of 100 cases.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from fastserve.tiles.wide_values import NULL, number_token

Floats = npt.NDArray[np.float64]

FORMAT = 1
MIN_LEVEL = 8
"""No level holds fewer, as in DataSketches."""
MAX_LEVELS = 48
"""More than any count of events needs; an IR that says more is damaged."""
_EXTREMES = struct.Struct("<2d")
_SINGLE = 6
"""Where the values of a sketch with one level begin."""


class Percentile:
    """The least value that ``percentile`` of all values don't exceed; NaN and infinities are passed over."""

    def __init__(self, percentile: float, k: int) -> None:
        self._share = Fraction(repr(float(percentile)))
        self._k = k

    def tile(self, times_ns: Sequence[int], values: Sequence[Any]) -> bytes:
        """Return the IR of a slot's values."""
        numbers = np.array(values, np.float64)
        numbers = numbers[np.isfinite(numbers)] + 0.0  # one zero
        if not len(numbers):
            return b""
        return _encode(_compacted([numbers], self._k), float(numbers.min()), float(numbers.max()))

    def merge(self, irs: Sequence[bytes]) -> bytes:
        """Return the IR of all slots together."""
        if len(irs) == 1:
            return irs[0]
        levels, least, greatest = _laid_together(irs)
        return _encode(_compacted(levels, self._k), least, greatest)

    def finalize(self, ir: bytes) -> bytes:
        """Return the JSON of an IR's value."""
        return self.answer([ir]) if ir else NULL

    def answer(self, irs: Sequence[bytes]) -> bytes:
        """Return the JSON of all slots together."""
        if not irs:
            return NULL
        levels, least, greatest = _laid_together(irs)
        values = np.concatenate(levels) if len(levels) > 1 else levels[0]
        count = sum(len(level) << height for height, level in enumerate(levels))
        rank = -(-self._share.numerator * count // self._share.denominator)
        if rank <= 1:
            return number_token(least)
        if rank >= count:
            return number_token(greatest)
        if len(levels) == 1:
            return number_token(float(np.partition(values, rank - 1)[rank - 1]))
        weights = np.repeat(np.int64(1) << np.arange(len(levels)), list(map(len, levels)))
        order = np.argsort(values)
        ranks = np.cumsum(weights[order])
        return number_token(float(values[order[np.searchsorted(ranks, rank)]]))


def capacities(k: int, levels: int) -> list[int]:
    """Return how many values each level holds at most: k at the top, two thirds of it on each level below."""
    return [max(MIN_LEVEL, ((2 * k << depth) // 3**depth + 1) >> 1) for depth in reversed(range(levels))]


def _compacted(levels: list[Floats], k: int) -> list[Floats]:
    """Return levels, sorted, that hold together no more than they may."""
    levels = list(levels)
    limits = capacities(k, len(levels))
    while sum(map(len, levels)) > sum(limits):
        height = next(h for h, limit in enumerate(limits) if len(levels[h]) >= limit)
        if height == len(levels) - 1:
            levels.append(np.empty(0))
            limits = capacities(k, len(levels))
        values = np.sort(levels[height])
        odd = len(values) % 2
        coin = crc32(values.tobytes()) & 1
        levels[height] = values[:odd]
        levels[height + 1] = np.concatenate([levels[height + 1], values[odd + coin :: 2]])
    return [np.sort(level) for level in levels]


def _laid_together(irs: Iterable[bytes]) -> tuple[list[Floats], float, float]:
    """Return the levels of several IRs, and the least and greatest value.

    Most IRs are a few values on one level: these are laid together as bytes, before NumPy sees them.
    """
    parts: list[list[bytes]] = [[]]
    extremes: list[float] = []
    for ir in irs:
        if ir[1] == 1 and ir[0] == FORMAT:
            if len(ir) != _SINGLE + 8 * int.from_bytes(ir[2:_SINGLE], "little") or len(ir) == _SINGLE:
                raise ValueError(f"expected a sketch of whole values, got {len(ir)} bytes")
            parts[0].append(ir[_SINGLE:])
            continue
        levels, least, greatest = _decode(ir)
        extremes += (least, greatest)
        parts += ([] for _ in range(len(levels) - len(parts)))
        for part, level in zip(parts, levels, strict=False):
            part.append(level)
    together = [np.frombuffer(b"".join(part), "<f8") for part in parts]
    if len(together[0]):
        extremes += (float(together[0].min()), float(together[0].max()))
    return together, min(extremes), max(extremes)


def _encode(levels: Sequence[Floats], least: float, greatest: float) -> bytes:
    head = struct.pack(f"<BB{len(levels)}I", FORMAT, len(levels), *map(len, levels))
    extremes = _EXTREMES.pack(least, greatest) if len(levels) > 1 else b""
    return head + extremes + b"".join(level.astype("<f8", copy=False).tobytes() for level in levels)


def _decode(ir: bytes) -> tuple[list[bytes], float, float]:
    """Return the levels' values as bytes, and the extremes, of an IR with several levels."""
    form, count = ir[0], ir[1]
    if form != FORMAT or not 1 < count <= MAX_LEVELS:
        raise ValueError(f"expected a sketch of format {FORMAT}, got format {form} with {count} levels")
    at = 2 + 4 * count
    cuts = list(accumulate(struct.unpack_from(f"<{count}I", ir, 2), initial=0))
    least, greatest = _EXTREMES.unpack_from(ir, at)
    at += _EXTREMES.size
    if at + 8 * cuts[-1] != len(ir) or not cuts[-1]:
        raise ValueError(f"expected a sketch of {at + 8 * cuts[-1]} bytes, got {len(ir)}")
    return [ir[at + 8 * low : at + 8 * high] for low, high in pairwise(cuts)], least, greatest
