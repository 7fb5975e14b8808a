from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fastserve.cli.compact import report_text
from fastserve.ingest.compact import CompactReport
from fastserve.plan.views import plan_view
from fastserve.sdk.repo import load_repo
from fastserve.store.url import open_store
from tests.cli.conftest import Run
from tests.ingest.pushing import Pushed, push

UNTIL_NS = 1_767_225_600 * 10**9
HOUR_NS = 3_600 * 10**9
DEFINITIONS = """
from datetime import timedelta
from fastserve import *
user = Entity("user", Field("user_id", String))
schema = [Field("user_id", String), Field("amount", Float64), Field("at", Timestamp)]
pushed = PushSource("pushed", schema, timestamp_field="at")
features = [Aggregate(Field("amount", Float64), "sum", TimeWindow(timedelta(days=1)))]
spend = FeatureView("spend", user, pushed, features, aggregation_interval=timedelta(hours=1))
newest = FeatureView("newest", user, pushed, [Attribute("amount", Float64)])
"""
WHERE = ("--repo", "repo", "--store", "local:store")


@pytest.fixture
def pushed(run: Run, tmp_path: Path) -> None:
    """Apply a repo with a pushed view, and push an event to it."""
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "defs.py").write_text(DEFINITIONS)
    assert run("apply", *WHERE, "--yes").code == 0

    async def work() -> None:
        store = await open_store("local:store")
        repo = load_repo(folder)
        plan = plan_view(repo.views["spend"], repo.workspace, "")
        try:
            await push(store, plan, [Pushed("u1", UNTIL_NS - HOUR_NS, 2.0)])
        finally:
            await store.close()

    asyncio.run(work())


@pytest.mark.usefixtures("pushed")
def test_pushed_views_are_compacted_by_name_or_all(run: Run) -> None:
    for names in (["spend"], ["--all"]):
        ran = run("compact", *names, "--until", "2026-01-01T00:30:00Z", *WHERE)

        assert (ran.code, ran.err) == (0, "")
        heading, row = (line.split() for line in ran.out.splitlines())
        assert heading[:4] == ["view", "blocks", "tiles", "keys"]
        assert [*row[:4], row[-1]] == ["spend", "1", "1", "1", "2026-01-01T00:00:00Z"]


@pytest.mark.usefixtures("pushed")
def test_views_are_compacted_until_a_minute_ago(run: Run) -> None:
    ran = run("compact", "spend", *WHERE)

    assert ran.code == 0
    assert ran.out.splitlines()[1].split()[3:6] == ["0", "0", "1"]  # nobody has been there for long


@pytest.mark.usefixtures("pushed")
@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "compact: expected names of views, or --all for spend; got neither"),
        (["spend", "--all"], "compact: expected names of views or --all, got both"),
        (["newest"], "FeatureView 'newest': expected aggregates of pushed events to compact, got none"),
        (["other"], "view: expected one of spend, newest, got 'other'"),
        (
            ["spend", "--until", "2199-01-01"],
            "--until: expected a time 60 s ago or more, as what is pushed",
        ),
    ],
)
def test_what_cannot_be_compacted_is_refused(run: Run, argv: list[str], message: str) -> None:
    ran = run("compact", *argv, *WHERE)

    assert ran.code == 2
    assert message in ran.err


@pytest.mark.usefixtures("pushed")
def test_a_store_that_was_not_applied_to_is_refused(run: Run) -> None:
    ran = run("compact", "spend", "--repo", "repo", "--store", "local:other")

    assert ran.code == 2
    assert "table default.fastserve: expected it in the store local:other" in ran.err


def test_keys_that_came_to_grief_are_named() -> None:
    report = CompactReport("spend", UNTIL_NS, UNTIL_NS, 1, 2, 3, 4, 5, 6, 0.25, ("u1", "u2"), ("u3",))

    lines = report_text([report]).splitlines()

    assert lines[1].split() == ["spend", "1", "2", "3", "4", "5", "6", "0.2", "2026-01-01T00:00:00Z"]
    assert lines[2:] == [
        "spend: keys have a sum beyond int64, which is null: u1, u2",
        "spend: rows are too large for a store and were left out: u3",
    ]
