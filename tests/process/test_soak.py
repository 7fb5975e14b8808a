"""The short form of the soak: a few seconds of faults, kills and reloads, and every answer judged."""

from __future__ import annotations

from pathlib import Path

import orjson

from perf.progress import Progress
from perf.soak.command import keep, problems_of
from perf.soak.run import SoakOptions, soak


def test_under_faults_kills_and_reloads_no_answer_is_wrong_and_no_failure_unexplained(tmp_path: Path) -> None:
    options = SoakOptions(
        seconds=9.0,
        phase_s=0.4,
        calm_s=0.1,
        kill_every_s=3.0,
        reload_every_s=4.0,
        batch_rows=20,
        sample_every_s=0.5,
    )
    with Progress("soak", 20) as bar:
        report = soak(options, bar)
    assert problems_of(report) == []
    assert report["reads"] > 10_000
    assert report["ingest"]["events"] > 100
    assert report["killed"] >= 1
    assert report["reloads"] >= 1
    assert len(report["phases"]) >= 5
    document = {**report, "machine": {"cpu": "", "cpus": 2}, "versions": {"python": ""}}
    keep({**document, "date": "2026-01-01", "commit": ""}, tmp_path / "soak.json", tmp_path / "soak.png")
    assert orjson.loads((tmp_path / "soak.json").read_bytes())["reads"] == report["reads"]
    assert (tmp_path / "soak.png").stat().st_size > 10_000
