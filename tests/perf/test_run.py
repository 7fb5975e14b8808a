from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from perf import server
from perf.environment import describe_environment
from perf.load.child import ChildError
from perf.load.load_plan import LoadPlan
from perf.load.processes import process_tree
from perf.report import format_table
from perf.run import RunOptions, measure_service, measure_services


@pytest.mark.parametrize(
    "service, keys, rate_per_s, latency",
    [("sweep_window_28", 1, None, None), ("sweep_views_5", 5, 200.0, "dynamodb")],
)
def test_a_service_is_measured_with_right_values_and_all_figures(
    service: str, keys: int, rate_per_s: float | None, latency: str | None
) -> None:
    before = process_tree(os.getpid())  # tests before this one may have left multiprocessing's tracker
    options = RunOptions(
        duration_s=0.5 if rate_per_s is None else 1.0,
        warmup_s=0.1 if rate_per_s is None else 0.3,
        rounds=1,
        entities=1_000,
        rate_per_s=rate_per_s,
        latency_ms=latency,
        with_floor=not latency,
        with_bare=not latency,
    )

    figures = measure_service(service, options)

    assert (figures["errors"], figures["wrong"], figures["problems"]) == (0, 0, [])
    if rate_per_s is None:
        assert figures["verified"] > 0
        assert figures["floor"]["all_bytes"]["cpu_us_per_request"] < figures["cpu_us_per_request"]
        assert figures["bare"]["name"] == "lookups_1x100"
        assert (figures["bare"]["errors"], figures["bare"]["wrong"]) == (0, 0)
        assert figures["bare"]["verified"] > 0
    else:
        assert figures["fs_qps"] == pytest.approx(rate_per_s, rel=0.3)
        assert figures["p50_ms"] > 3
    # Keys are those of the measured time, requests those that were meant to begin in it.
    assert figures["keys_per_request"] == pytest.approx(keys, rel=0.2)
    assert figures["cpu_us_per_request"] > 10
    assert 20 < figures["rss_mib"] < 1_000
    assert service in format_table([figures])
    assert set(process_tree(os.getpid())) <= set(before)


def report(cpu_us: float) -> dict[str, Any]:
    """Return what a generator says of a turn, as far as figures are made of it."""
    latency = {"p50": 1.0, "p99": 2.0, "count": 100}
    stream = {"latency_ms": latency, "errors": 0, "verified": 2, "wrong": 0, "problems": []}
    costs = {"cpu_us_per_request": cpu_us, "system_share": 0.5, "rss_mib": 50.0}
    names = (
        "ddb_qps",
        "calls_per_s",
        "keys_per_call",
        "keys_per_request",
        "bytes_out_per_request",
        "call_ms",
    )
    return {
        "fs_qps": 100.0,
        "streams": [{**stream, "response_bytes": 10}],
        "processes": dict.fromkeys(("server", "stand_in", "generator"), costs),
        "store": dict.fromkeys(names, 1.0),
    }


def test_services_take_turns_with_one_bare_server_and_are_told_in_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers = itertools.count(1)
    turns: list[tuple[int, int]] = []

    @contextmanager
    def started(*_arguments: object) -> Iterator[Any]:
        number = next(numbers)
        yield number, number

    @contextmanager
    def stand_in() -> Iterator[Any]:
        yield SimpleNamespace(port=0, pid=0, store_url=lambda: "local:", control=lambda **_wanted: {})

    def loaded(plan: LoadPlan) -> dict[str, Any]:
        turns.append((plan.port, plan.seed))
        return report(10.0 * plan.port + plan.seed)

    monkeypatch.setattr("perf.run.server.running", started)
    monkeypatch.setattr("perf.run.module_process", started)
    monkeypatch.setattr("perf.run.standin_client.running", stand_in)
    monkeypatch.setattr("perf.run.prepare_service", lambda _stand_in, _service: None)
    monkeypatch.setattr("perf.run.run_load", loaded)

    found = measure_services(["lookups_1x100", "fs_1x10"], RunOptions(rounds=3, with_floor=False))

    # Every other round goes backwards; a round's turns have the same keys.
    assert turns == [*((1, 1), (2, 1), (3, 1)), *((3, 2), (2, 2), (1, 2)), *((1, 3), (2, 3), (3, 3))]
    assert [figures["name"] for figures in found] == ["lookups_1x100", "fs_1x10"]
    assert found[0]["bare"] == found[1]["bare"]
    for number, figures in enumerate((*found, found[0]["bare"]), 1):
        assert figures["rounds_cpu_us"] == [10.0 * number + seed for seed in (1, 2, 3)]
        assert figures["cpu_us_per_request"] == 10.0 * number + 2
        assert figures["verified"] == 6


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


def test_measuring_takes_nothing_that_only_pictures_need() -> None:
    code = "import sys; sys.modules['matplotlib'] = None; import perf.__main__"
    subprocess.run([sys.executable, "-c", code], check=True)
