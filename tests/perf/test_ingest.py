"""Measuring pushed records: figures come out, and are shown as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from perf.ingest import IngestOptions, _measure_one, draw_ingest, format_ingest

SHORT = IngestOptions(duration_s=0.3, warmup_s=0.1, clients=2, entities=50, rounds=1)


@pytest.mark.parametrize("store", ["local", "stand-in"])
def test_a_moment_of_load_gives_every_figure(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "perf")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "perf")
    report = _measure_one(store, 10, SHORT, 0)
    assert report["requests"] > 0
    assert report["events_per_s"] > 0
    assert report["cpu_us_per_event"] > 0
    assert 0 < report["alone_p50_ms"] <= report["alone_p99_ms"]
    if store == "local":
        assert report["write_units_per_event"] is None
    else:
        assert 0 < report["write_units_per_event"] <= 3


def figures(store: str, batch: int) -> dict[str, object]:
    return {
        "store": store,
        "batch": batch,
        "events_per_s": 1000,
        "cpu_us_per_event": 123.4,
        "alone_p50_ms": 1.5,
        "alone_p99_ms": 9.0,
        "write_units_per_event": None if store == "local" else 1.02,
        "store_calls_per_event": None if store == "local" else 1.3,
    }


def test_the_figures_become_a_table_and_a_picture(tmp_path: Path) -> None:
    measured = [figures(store, batch) for store in ("local", "stand-in") for batch in (1, 10, 100)]
    text = format_ingest(measured)
    assert "Tecton's published ingest, 1 record a request: p50 55 ms, p99 108 to 165 ms" in text
    assert text.splitlines()[1].split() == ["local", "1", "1000", "123.4", "1.5", "9.0", "–", "–"]
    machine = {"cpu": "a CPU", "cpus": 2}
    draw_ingest({"ingest": measured, "machine": machine, "date": "2026-01-10T12:00:00"}, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1_000
