"""How long the stand-in DynamoDB takes for a call: a law fitted to published percentiles.

Knows no clock and no sockets.

The logarithm of the latency is a straight line between knots over the normal quantile: near the median that
is a log-normal law, while the tail may be heavier than a log-normal's (one fitted to p50 and p99 has its
p99.9 at 40 ms, where 60 to 120 are published).

Invariants:
1. The quantiles at the knots are the ones given, to the sampling table's resolution.
2. A law with one seed draws the same latencies again.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

# Percent -> ms; p50, p90, p99 and p99.9 as the wire's published single reads, both ends bounded.
DYNAMODB_MS = {0.01: 1.2, 1.0: 1.9, 50.0: 3.5, 90.0: 7.0, 99.0: 22.0, 99.9: 90.0, 99.99: 150.0}
_TABLE_SIZE = 1 << 17


class LatencyLaw:
    """Draws latencies from a table made once, so that a draw costs an index."""

    def __init__(self, knots_ms: dict[float, float], seed: int = 1) -> None:
        normal = NormalDist()
        percents = sorted(knots_ms)
        at = [normal.inv_cdf(percent / 100) for percent in percents]
        logs = np.log([knots_ms[percent] for percent in percents])
        middle = (np.arange(_TABLE_SIZE) + 0.5) / _TABLE_SIZE
        quantiles = np.array([normal.inv_cdf(float(share)) for share in middle])
        latencies_s = np.exp(np.interp(quantiles, at, logs)) / 1_000
        # A shuffled list, walked round: the law holds exactly over one lap, with no draw per call.
        np.random.default_rng(seed).shuffle(latencies_s)
        self._latencies_s: list[float] = latencies_s.tolist()
        self._next = 0

    def draw_s(self) -> float:
        """Give the next call's latency in seconds."""
        position = self._next
        self._next = position + 1 if position + 1 < _TABLE_SIZE else 0
        return self._latencies_s[position]
