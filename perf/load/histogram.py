"""A histogram of durations with log-linear buckets, in the way of HDR histograms.

Knows no clock.

Invariants:
1. Each power of two is cut into 128 buckets, so a percentile is within 0.8 % of the value recorded.
2. Nothing recorded is lost: what lies outside the range counts in the first or the last bucket.
3. Two histograms added are the histogram of both runs.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BUCKETS_PER_OCTAVE = 128
# 2^40 ns are 18 minutes.
_OCTAVES = 40
_PENDING_MAX = 1 << 16
PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


class Histogram:
    """Counts of durations in nanoseconds."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(_OCTAVES * _BUCKETS_PER_OCTAVE, np.int64)
        self._pending = array("q")
        self._max_ns = 0

    def record(self, duration_ns: int) -> None:
        """Count one duration."""
        self._pending.append(duration_ns)
        if len(self._pending) >= _PENDING_MAX:
            self._settle()

    def add(self, other: Histogram) -> None:
        """Count all that another has counted."""
        other._settle()
        self._counts += other._counts
        self._max_ns = max(self._max_ns, other._max_ns)

    @property
    def count(self) -> int:
        """How many durations were recorded."""
        self._settle()
        return int(self._counts.sum())

    @property
    def max_ns(self) -> int:
        """The longest duration."""
        self._settle()
        return self._max_ns

    def percentile_ns(self, percent: float) -> int:
        """Give the duration that this share of all does not exceed; 0 when nothing was recorded."""
        self._settle()
        total = self._counts.sum()
        if not total:
            return 0
        rank = max(1, int(np.ceil(total * percent / 100)))
        bucket = int(np.searchsorted(np.cumsum(self._counts), rank))
        return min(int(_upper_edge_ns(bucket)), self._max_ns)

    def count_over(self, duration_ns: int) -> int:
        """Give how many were longer than a duration, which is taken at its bucket's upper edge."""
        self._settle()
        return int(self._counts[_bucket(duration_ns) + 1 :].sum())

    def summary_ms(self) -> dict[str, float]:
        """Give the percentiles, the longest and the count."""
        named = {f"p{percent:g}": self.percentile_ns(percent) / 1e6 for percent in PERCENTILES}
        return {**named, "max": self.max_ns / 1e6, "count": self.count}

    def buckets_ms(self) -> list[tuple[float, int]]:
        """Give each bucket in use as its upper edge in ms and its count."""
        self._settle()
        return [(_upper_edge_ns(int(at)) / 1e6, int(self._counts[at])) for at in np.flatnonzero(self._counts)]

    def _settle(self) -> None:
        if not self._pending:
            return
        durations = np.maximum(np.frombuffer(self._pending, np.int64), 1)
        self._max_ns = max(self._max_ns, int(durations.max()))
        fractions, exponents = np.frexp(durations.astype(np.float64))
        # frexp's fraction lies in [0.5, 1): twice it less one is the place within the octave.
        places = ((fractions * 2 - 1) * _BUCKETS_PER_OCTAVE).astype(np.int64)
        buckets = np.minimum((exponents - 1) * _BUCKETS_PER_OCTAVE + places, len(self._counts) - 1)
        self._counts += np.bincount(buckets, minlength=len(self._counts))
        self._pending = array("q")


def _bucket(duration_ns: int) -> int:
    fraction, exponent = np.frexp(float(duration_ns))
    return (int(exponent) - 1) * _BUCKETS_PER_OCTAVE + int((fraction * 2 - 1) * _BUCKETS_PER_OCTAVE)


def _upper_edge_ns(bucket: int) -> float:
    octave, place = divmod(bucket, _BUCKETS_PER_OCTAVE)
    return float(2.0**octave * (1 + (place + 1) / _BUCKETS_PER_OCTAVE))
