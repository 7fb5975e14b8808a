from __future__ import annotations

import os
from pathlib import Path

import pytest

from perf import server
from perf.environment import describe_environment
from perf.load.child import ChildError
from perf.load.processes import process_tree
from perf.report import format_table
from perf.run import RunOptions, measure_service


@pytest.mark.parametrize("rate_per_s, latency", [(None, None), (200.0, "dynamodb")])
def test_a_service_is_measured_with_right_values_and_all_figures(
    rate_per_s: float | None, latency: str | None
) -> None:
    options = RunOptions(
        duration_s=1.0,
        warmup_s=0.3,
        rounds=1,
        rate_per_s=rate_per_s,
        latency_ms=latency,
        with_floor=not latency,
    )

    figures = measure_service("fs_5x100", options)

    assert (figures["errors"], figures["wrong"], figures["problems"]) == (0, 0, [])
    if rate_per_s is None:
        assert figures["verified"] > 0
        assert figures["floor"]["all_bytes"]["cpu_us_per_request"] < figures["cpu_us_per_request"]
    else:
        assert figures["fs_qps"] == pytest.approx(rate_per_s, rel=0.3)
        assert figures["p50_ms"] > 3
    assert 4.5 < figures["keys_per_request"] <= 5.5
    assert figures["cpu_us_per_request"] > 10
    assert 20 < figures["rss_mib"] < 1_000
    assert "fs_5x100" in format_table([figures])
    assert process_tree(os.getpid()) == [os.getpid()]


def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(ChildError, match="it wrote:"),
        server.running(tmp_path / "nothing", "local:" + str(tmp_path)),
    ):
        pass


def test_the_environment_is_told() -> None:
    told = describe_environment()

    assert set(told) == {"machine", "versions", "commit", "date"}
    assert told["machine"]["cpus"] >= 1
    assert {"python", "python_build", "uvloop", "numpy"} <= set(told["versions"])
