"""The short form of the soak: five seconds of faults, a kill and a reload, and every answer judged."""

from __future__ import annotations

from pathlib import Path

import orjson

from perf.progress import Progress
from perf.soak.command import keep, problems_of
from perf.soak.matrix import GROUPS, MATRIX
from perf.soak.run import SoakOptions, soak


def test_under_faults_kills_and_reloads_no_answer_is_wrong_and_no_failure_unexplained(tmp_path: Path) -> None:
    # This seed begins with a fault of each group, a dead store comes later; none of them outlasts its phase.
    options = SoakOptions(
        seconds=5.0,
        phase_s=0.25,
        calm_s=0.05,
        last_calm_s=1.0,
        kill_every_s=1.7,
        reload_every_s=2.2,
        batch_rows=20,
        sample_every_s=0.5,
        seed=282,
    )
    with Progress("soak", 10) as bar:
        report = soak(options, bar)
    assert problems_of(report) == []
    assert report["reads"] > 5_000
    assert report["ingest"]["events"] > 100
    assert report["killed"] >= 1
    # Where a new worker is killed before it is ready nothing is reloaded.
    assert report["reloads"] + report["failed_reloads"] >= 1
    met = [phase["name"] for phase in report["phases"]]
    assert {fault.group for fault in MATRIX if fault.name in met} == set(GROUPS)
    document = {**report, "machine": {"cpu": "", "cpus": 2}, "versions": {"python": ""}}
    keep({**document, "date": "2026-01-01", "commit": ""}, tmp_path / "soak.json", tmp_path / "soak.png")
    assert orjson.loads((tmp_path / "soak.json").read_bytes())["reads"] == report["reads"]
    assert (tmp_path / "soak.png").stat().st_size > 10_000
