from __future__ import annotations

import numpy as np
import pytest

from perf.load.histogram import Histogram


@pytest.mark.parametrize("percent", [50.0, 90.0, 95.0, 99.0, 99.9])
def test_a_percentile_is_within_a_bucket_of_the_exact_one(percent: float) -> None:
    durations_ns = np.random.default_rng(1).lognormal(15, 1, 200_000).astype(np.int64)
    histogram = Histogram()
    for duration_ns in durations_ns.tolist():
        histogram.record(duration_ns)

    exact = np.percentile(durations_ns, percent, method="inverted_cdf")
    assert histogram.percentile_ns(percent) == pytest.approx(exact, rel=0.008)


def test_nothing_is_lost_outside_the_range() -> None:
    histogram = Histogram()
    for duration_ns in (0, 1, 1 << 50):
        histogram.record(duration_ns)

    assert histogram.count == 3
    assert histogram.max_ns == 1 << 50
    assert sum(count for _, count in histogram.buckets_ms()) == 3


def test_an_empty_histogram_has_zero_percentiles() -> None:
    assert Histogram().summary_ms() == dict.fromkeys(("p50", "p90", "p95", "p99", "p99.9", "max", "count"), 0)


def test_histograms_add_up() -> None:
    one, other, both = Histogram(), Histogram(), Histogram()
    for number in range(1, 1_001):
        (one if number % 2 else other).record(number * 1_000)
        both.record(number * 1_000)
    one.add(other)

    assert one.summary_ms() == both.summary_ms()


def test_a_percentile_never_exceeds_the_longest_duration() -> None:
    histogram = Histogram()
    histogram.record(1_000_001)

    assert histogram.percentile_ns(99) == 1_000_001


def test_durations_over_a_limit_are_counted() -> None:
    histogram = Histogram()
    for duration_ms in (1, 9, 11, 30):
        histogram.record(duration_ms * 1_000_000)

    assert histogram.count_over(10_000_000) == 2
    assert Histogram().count_over(10_000_000) == 0
