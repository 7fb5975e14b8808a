"""Sketches: how many distinct values there were, by the HyperLogLog of `datasketches`.

The IR is the sketch as `datasketches` serializes it (HLL_4, compact), behind a byte that says our format:
12 bytes for one value, 8 + 4 n for a few, and from ``2**precision / 10`` values on 40 + ``2**precision / 2``.

A sketch that was fed value by value estimates from the order in which they came as well (HIP), one that was
united from others can't. Only the second is a function of the values, so every sketch is marked as united,
and what only the first kind needs is zero.

Invariants
1. What is answered is a function of the set of values: neither of their order nor of the slots they lay in.
2. `datasketches` is imported when the first such feature is tiled or answered, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from fastserve.sdk.types import Bool, DataType, Float32, Float64, String
from fastserve.tiles.wide_values import NULL

FORMAT = b"\1"
# In a serialized sketch: where its mode and flags stand, the bit of a united one, where HIP's number lies.
_MODE_BYTE, _MODE_MASK, _MODE_HLL = 7, 3, 2
_FLAGS_BYTE, _OUT_OF_ORDER = 5, 16
_HIP = slice(8, 16)
EMPTY_STRING = 0
"""What is counted for ``""``, which the sketch would pass over: an integer, which no other string is."""


class DistinctCount:
    """About how many distinct values there were; ``precision`` is the binary logarithm of the registers."""

    def __init__(self, dtype: DataType, precision: int) -> None:
        self._precision = precision
        self._is_string = dtype == String
        self._is_float = dtype in (Float64, Float32)
        self._is_bool = dtype == Bool

    @cached_property
    def _library(self) -> Any:
        import datasketches  # 10 MB that few services need

        return datasketches

    def tile(self, times_ns: Sequence[int], values: Sequence[Any]) -> bytes:
        """Return the IR of a slot's values."""
        if not values:
            return b""
        sketch = self._library.hll_sketch(self._precision, self._library.HLL_4)
        update = sketch.update
        for value in dict.fromkeys(self._plain(values)):  # a set's order is another one in each process
            update(value)
        return FORMAT + _united(sketch)

    def merge(self, irs: Sequence[bytes]) -> bytes:
        """Return the IR of all slots together."""
        return irs[0] if len(irs) == 1 else FORMAT + self._union(irs)

    def finalize(self, ir: bytes) -> bytes:
        """Return the JSON of an IR's value."""
        return self._estimate(_body(ir)) if ir else NULL

    def answer(self, irs: Sequence[bytes]) -> bytes:
        """Return the JSON of all slots together."""
        if not irs:
            return NULL
        return self._estimate(_body(irs[0]) if len(irs) == 1 else self._union(irs))

    def _plain(self, values: Sequence[Any]) -> Sequence[Any]:
        """Return values that are equal to each other exactly where the sketch takes them for one."""
        if self._is_string:
            return [value or EMPTY_STRING for value in values]
        if self._is_float:
            # One zero and, for a set knows a NaN by its identity only, one NaN.
            return [_NAN if value != value else float(value) + 0.0 for value in values]  # noqa: PLR0124
        return list(map(int, values)) if self._is_bool else values

    def _union(self, irs: Sequence[bytes]) -> bytes:
        union = self._library.hll_union(self._precision)
        deserialize = self._library.hll_sketch.deserialize
        for ir in irs:
            union.update(deserialize(_body(ir)))
        return _united(union.get_result(self._library.HLL_4))

    def _estimate(self, body: bytes) -> bytes:
        return b'"%d"' % round(self._library.hll_sketch.deserialize(body).get_estimate())


_NAN = float("nan")


def _body(ir: bytes) -> bytes:
    if ir[:1] != FORMAT:
        raise ValueError(f"expected a sketch of format {FORMAT[0]}, got {ir[:1].hex() or 'nothing'}")
    return ir[1:]


def _united(sketch: Any) -> bytes:
    """Return a sketch's bytes, marked as one that was united from others."""
    raw = bytearray(sketch.serialize_compact())
    if raw[_MODE_BYTE] & _MODE_MASK == _MODE_HLL:
        raw[_FLAGS_BYTE] |= _OUT_OF_ORDER
        raw[_HIP] = bytes(8)
    return bytes(raw)
