from __future__ import annotations

import json
from pathlib import Path

import pytest

from perf.data import REPOS
from tests.cli.conftest import Run

ROOT = REPOS.parent.parent
ARTICLE = str(REPOS / "article")


def test_a_rate_is_given_for_each_service(run: Run) -> None:
    ran = run("capacity", "fs_5x100", "fs_1x10", "--qps", "1000", "--repo", ARTICLE)
    assert (ran.code, ran.err) == (2, "fastserve: error: --qps: expected 2 numbers, one a service, got 1\n")
    ran = run("capacity", "fs_5x100", "fs_1x10", "--qps", "1000", "2500", "--repo", ARTICLE)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("An ESTIMATE for 3,500 requests per second of fs_5x100, fs_1x10\n")


def test_assumptions_and_prices_are_the_caller_s(run: Run) -> None:
    arguments = ["capacity", "fs_5x100", "--qps", "1e4", "--repo", ARTICLE, "--json"]
    usual = json.loads(run(*arguments).out)
    given = ["--mean-share", "0.5", "--price-per-million-read-units", "0.25", "--utilization", "0.3"]
    other = json.loads(run(*arguments, *given, "--zones", "1", "--store-connections", "64").out)
    assert other["on_demand_usd_per_month"] == usual["on_demand_usd_per_month"]
    assert other["assumed"]["mean_share"] == 0.5
    assert other["assumed"]["store_connections"] == 64
    assert other["workers"] in {2 * usual["workers"], 2 * usual["workers"] - 1}


def test_measured_figures_go_before_the_estimate(run: Run) -> None:
    file = ROOT / "perf" / "results" / "busy-2.json"
    ran = run("capacity", "fs_5x100", "--qps", "1", "--repo", ARTICLE, "--measured", str(file), "--json")
    (load,) = json.loads(ran.out)["services"]
    (entry,) = [entry for entry in json.loads(file.read_text())["services"] if entry["name"] == "fs_5x100"]
    assert load["cpu_us"] == entry["cpu_us_per_request"]
    assert load["cpu_source"] == "measured, busy-2.json of 2026-11-22"


def test_reads_of_redis_have_no_price(run: Run) -> None:
    arguments = ["capacity", "fs_5x100", "--qps", "1", "--repo", ARTICLE]
    assert "USD per month" in run(*arguments).out
    assert "USD per month" not in run(*arguments, "--store", "redis://127.0.0.1").out


@pytest.mark.parametrize(
    "content, said",
    [
        (None, "No such file"),
        ("[", "expected what `python -m perf"),
        ("[]", "expected what `python -m perf"),
        ('{"services": [{"name": "a"}]}', "'cpu_us_per_request'"),
        (
            '{"services": [{"name": "a", "cpu_us_per_request": -1}]}',
            "above 0, got -1",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused(run: Run, tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "figures.json"
    if content is not None:
        file.write_text(content)
    ran = run("capacity", "fs_5x100", "--qps", "1", "--repo", ARTICLE, "--measured", str(file))
    assert ran.code == 2
    assert said in ran.err


@pytest.mark.parametrize("flags", [["--qps", "-1"], ["--qps", "many"], ["--qps", "1", "--zones", "0"]])
def test_what_is_no_rate_or_assumption_is_refused(run: Run, flags: list[str]) -> None:
    ran = run("capacity", "fs_5x100", "--repo", ARTICLE, *flags)
    assert ran.code == 2
    assert "expected a " in ran.err
