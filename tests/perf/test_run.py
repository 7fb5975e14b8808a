from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from perf import server
from perf.environment import describe_environment
from perf.load.child import ChildError
from perf.load.processes import process_tree
from perf.report import format_table
from perf.run import RunOptions, measure_service, measure_services


@pytest.mark.parametrize("rate_per_s, latency", [(None, None), (200.0, "dynamodb")])
def test_a_service_is_measured_with_right_values_and_all_figures(
    rate_per_s: float | None, latency: str | None
) -> None:
    before = process_tree(os.getpid())  # tests before this one may have left multiprocessing's tracker
    options = RunOptions(
        duration_s=1.0,
        warmup_s=0.3,
        rounds=1,
        rate_per_s=rate_per_s,
        latency_ms=latency,
        with_floor=not latency,
        with_bare=not latency,
    )

    figures = measure_service("fs_5x100", options)

    assert (figures["errors"], figures["wrong"], figures["problems"]) == (0, 0, [])
    if rate_per_s is None:
        assert figures["verified"] > 0
        assert figures["floor"]["all_bytes"]["cpu_us_per_request"] < figures["cpu_us_per_request"]
        assert figures["bare"]["name"] == "lookups_5x100"
        assert (figures["bare"]["errors"], figures["bare"]["wrong"]) == (0, 0)
        assert figures["bare"]["verified"] > 0
    else:
        assert figures["fs_qps"] == pytest.approx(rate_per_s, rel=0.3)
        assert figures["p50_ms"] > 3
    assert 4.5 < figures["keys_per_request"] <= 5.5
    assert figures["cpu_us_per_request"] > 10
    assert 20 < figures["rss_mib"] < 1_000
    assert "fs_5x100" in format_table([figures])
    assert set(process_tree(os.getpid())) <= set(before)


def test_services_take_turns_with_one_bare_server_and_are_told_in_their_order() -> None:
    options = RunOptions(duration_s=0.3, warmup_s=0.1, rounds=2, with_floor=False)

    found = measure_services(["lookups_1x100", "fs_1x10"], options)

    assert [figures["name"] for figures in found] == ["lookups_1x100", "fs_1x10"]
    assert found[0]["bare"] == found[1]["bare"]
    for figures in (*found, found[0]["bare"]):
        assert (figures["errors"], figures["wrong"]) == (0, 0)
        assert len(figures["rounds_cpu_us"]) == 2
        assert figures["cpu_us_per_request"] in figures["rounds_cpu_us"]


@pytest.mark.parametrize(
    "changes", [{"clients": 8}, {"key_law": "zipf"}, {"rate_per_s": 5.0}, {"latency_ms": "dynamodb"}]
)
def test_another_load_than_the_budgets_is_told_from_it(changes: dict[str, Any]) -> None:
    assert RunOptions(duration_s=1.0, rounds=1, with_floor=False).is_reference
    assert not RunOptions(**changes).is_reference


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
