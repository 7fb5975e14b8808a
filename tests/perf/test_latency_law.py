from __future__ import annotations

import numpy as np
import pytest

from perf.load.latency_law import DYNAMODB_MS, LatencyLaw


@pytest.mark.parametrize("percent, latency_ms", [(50, 3.5), (90, 7.0), (99, 22.0), (99.9, 90.0)])
def test_the_law_has_the_published_percentiles(percent: float, latency_ms: float) -> None:
    law = LatencyLaw(DYNAMODB_MS)
    drawn_ms = np.array([law.draw_s() for _ in range(1 << 17)]) * 1_000

    assert np.percentile(drawn_ms, percent) == pytest.approx(latency_ms, rel=0.03)


def test_one_seed_draws_the_same_latencies() -> None:
    one, other = LatencyLaw(DYNAMODB_MS, seed=7), LatencyLaw(DYNAMODB_MS, seed=7)

    assert [one.draw_s() for _ in range(100)] == [other.draw_s() for _ in range(100)]
