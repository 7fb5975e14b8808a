"""Numeric functions as wide IRs: what a view with a secondary key keeps for each of its keys.

Without such a key these are words of the compacted row (`aggregates`), merged by NumPy; here each is a few
bytes, and means the same:

    function        IR
    count           the number, as few bytes as hold it
    sum of Int64    the sum, as few bytes as hold it: beyond int64 it is kept, and answered as null
    sum of floats   float64
    mean            the count in 8 bytes, and the sum as above
    var, stddev     three float64: count, mean, M2 (the sum of squared deviations from the mean)

They stand inside `secondary`'s IR, whose format covers theirs.

Invariants
1. Integer sums are exact, whatever the order; float sums of one slot are rounded once.
2. Deviations merge by the count-weighted way (Chan, Golub and LeVeque 1979), which doesn't cancel.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

from fastserve.sdk.types import DataType, Int64
from fastserve.tiles.wide_values import NULL, number_token

INT64_LIMIT = 2**63
_FLOAT = struct.Struct("<d")
_COUNT = struct.Struct("<q")
_MOMENTS = struct.Struct("<3d")


def add_floats(values: Sequence[float]) -> float:
    """Return the sum, rounded once; infinities and NaN as IEEE 754 adds them; a sum of zero is 0.0."""
    try:
        return math.fsum(values) + 0.0
    except (OverflowError, ValueError):  # beyond float64 on the way, or inf - inf
        return sum(values, 0.0)


def _int_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def _int_of(raw: bytes) -> int:
    return int.from_bytes(raw, "little", signed=True)


class _Merging:
    """What all share: an answer is the finalized merge."""

    def merge(self, irs: Sequence[bytes]) -> bytes:
        raise NotImplementedError

    def finalize(self, ir: bytes) -> bytes:
        raise NotImplementedError

    def answer(self, irs: Sequence[bytes]) -> bytes:
        """Return the JSON of all slots together."""
        return self.finalize(irs[0] if len(irs) == 1 else self.merge(irs)) if irs else NULL


class Count(_Merging):
    """How many values there are."""

    def tile(self, times_ns: Sequence[int], values: Sequence[Any]) -> bytes:
        """Return the IR of a slot's values."""
        return _int_bytes(len(values)) if values else b""

    def merge(self, irs: Sequence[bytes]) -> bytes:
        """Return the IR of all slots together."""
        return _int_bytes(sum(map(_int_of, irs)))

    def finalize(self, ir: bytes) -> bytes:
        """Return the JSON of an IR's value."""
        return b'"%d"' % _int_of(ir) if ir else NULL


class Sum(_Merging):
    """The sum, exact for integers."""

    def __init__(self, dtype: DataType) -> None:
        self._integral = dtype == Int64

    def tile(self, times_ns: Sequence[int], values: Sequence[Any]) -> bytes:
        """Return the IR of a slot's values."""
        return self.encode(self._add(values)) if values else b""

    def merge(self, irs: Sequence[bytes]) -> bytes:
        """Return the IR of all slots together."""
        return self.encode(self._add(list(map(self.decode, irs))))

    def finalize(self, ir: bytes) -> bytes:
        """Return the JSON of an IR's value."""
        if not ir:
            return NULL
        total = self.decode(ir)
        if not self._integral:
            return number_token(total)
        return b'"%d"' % total if -INT64_LIMIT < total < INT64_LIMIT else NULL

    def _add(self, values: Sequence[Any]) -> Any:
        return sum(values) if self._integral else add_floats(values)

    def encode(self, total: Any) -> bytes:
        """Return a sum as bytes."""
        return _int_bytes(total) if self._integral else _FLOAT.pack(total)

    def decode(self, raw: bytes) -> Any:
        """Return the sum."""
        return _int_of(raw) if self._integral else _FLOAT.unpack(raw)[0]


class Mean(_Merging):
    """The sum, divided by the count at the end."""

    def __init__(self, dtype: DataType) -> None:
        self._sum = Sum(dtype)
        self._integral = dtype == Int64

    def tile(self, times_ns: Sequence[int], values: Sequence[Any]) -> bytes:
        """Return the IR of a slot's values."""
        return _COUNT.pack(len(values)) + self._sum.tile(times_ns, values) if values else b""

    def merge(self, irs: Sequence[bytes]) -> bytes:
        """Return the IR of all slots together."""
        count = sum(_COUNT.unpack_from(ir)[0] for ir in irs)
        return _COUNT.pack(count) + self._sum.merge([ir[_COUNT.size :] for ir in irs])

    def finalize(self, ir: bytes) -> bytes:
        """Return the JSON of an IR's value."""
        if not ir:
            return NULL
        count, total = _COUNT.unpack_from(ir)[0], self._sum.decode(ir[_COUNT.size :])
        if self._integral and not -INT64_LIMIT < total < INT64_LIMIT:
            return NULL
        return number_token(float(total) / count)


class Deviation(_Merging):
    """Variance or standard deviation, of the population or of a sample."""

    def __init__(self, function: str) -> None:
        self._sample = function.endswith("_samp")
        self._root = function.startswith("stddev_")

    def tile(self, times_ns: Sequence[int], values: Sequence[Any]) -> bytes:
        """Return the IR of a slot's values."""
        if not values:
            return b""
        numbers = list(map(float, values))
        # Values that are all the same have themselves as their mean, and no deviation, to the last digit.
        same = min(numbers) == max(numbers)
        mean = numbers[0] if same else add_floats(numbers) / len(numbers)
        return _MOMENTS.pack(len(numbers), mean, _squares([number - mean for number in numbers]))

    def merge(self, irs: Sequence[bytes]) -> bytes:
        """Return the IR of all slots together."""
        parts = [_MOMENTS.unpack(ir) for ir in irs]
        count = sum(n for n, _, _ in parts)
        same = len({part for _, part, _ in parts}) == 1
        mean = parts[0][1] if same else add_floats([n * part for n, part, _ in parts]) / count
        between = [math.sqrt(n) * (part - mean) for n, part, _ in parts]
        return _MOMENTS.pack(count, mean, add_floats([*(m2 for _, _, m2 in parts), _squares(between)]))

    def finalize(self, ir: bytes) -> bytes:
        """Return the JSON of an IR's value."""
        if not ir:
            return NULL
        count, _, m2 = _MOMENTS.unpack(ir)
        degrees = count - self._sample
        if degrees <= 0:
            return NULL
        variance = m2 / degrees
        return number_token(math.sqrt(variance) if self._root else variance)


def _squares(deviations: Sequence[float]) -> float:
    return add_floats([deviation * deviation for deviation in deviations])
