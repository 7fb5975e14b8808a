"""`fastserve ingest`: standard input into a store."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.cli.conftest import Run

REPO = """
from datetime import timedelta
from fastserve import *

user = Entity("user", Field("user_id", String))
pushes = PushSource(
    "pushes", [Field("user_id", String), Field("at", Timestamp), Field("cents", Int64)], timestamp_field="at"
)
spend = FeatureView(
    "spend", user, pushes, [Aggregate(Field("cents", Int64), "sum", TimeWindow(timedelta(days=7)))],
    aggregation_interval=timedelta(minutes=5),
)
service = FeatureService("spending", [spend])
"""
CLOCK = ["--clock", "2026-01-01T00:00:00Z"]
GOOD = '{"user_id": "u1", "at": "2025-12-31T23:59:59Z", "cents": %d}\n'


@pytest.fixture
def repo(tmp_path: Path, run: Run) -> list[str]:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "defs.py").write_text(REPO)
    settings = ["--repo", str(folder), "--store", f"local:{tmp_path}/store"]
    assert run("apply", "--yes", *settings).code == 0
    return settings


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))


def test_records_are_written_and_summed_up(
    run: Run, repo: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, GOOD % 1 + GOOD % 2)
    ran = run("ingest", "--source", "pushes", *CLOCK, *repo)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("2 records written in ")
    assert ran.out.endswith("by view: spend 2\n")


def test_one_record_is_no_plural(run: Run, repo: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, GOOD % 1)
    assert run("ingest", "--source", "pushes", *CLOCK, *repo).out.startswith("1 record written in ")


def test_bad_lines_are_listed_and_the_exit_code_tells(
    run: Run, repo: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, GOOD % 1 + "nonsense\n" * 25 + GOOD % 2)
    ran = run("ingest", "--source", "pushes", "--batch", "4", *CLOCK, *repo)
    assert ran.code == 1
    assert "2 records written" in ran.out
    assert "25 lines were bad and left out:" in ran.err
    assert "  line 2: expected a JSON object, got malformed JSON" in ran.err
    assert "and 5 more, in lines 22, 23, 24, 25, 26" in ran.err


def test_an_unknown_source_is_refused(run: Run, repo: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for text in (GOOD % 1, ""):
        typed(monkeypatch, text)
        ran = run("ingest", "--source", "other", *CLOCK, *repo)
        assert ran.code == 2
        assert "--source: Unknown push source 'other': expected 'pushes'" in ran.err


def test_a_store_without_tables_is_told(
    run: Run, repo: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    typed(monkeypatch, GOOD % 1)
    ran = run("ingest", "--source", "pushes", *CLOCK, *repo[:2], "--store", f"local:{tmp_path}/empty")
    assert ran.code == 1
    assert "there is no such table" in ran.err
    assert "no line is; begin again at line 1" in ran.err
