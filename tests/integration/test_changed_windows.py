"""A view with files and a stream that changes: what is answered until its rows are made anew."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from fastserve.ingest.apply import execute, plan_apply
from fastserve.sdk.repo import load_repo
from tests.support.feature_server import GET_FEATURES, apply_and_materialize, clean_environ, with_store
from tests.support.served import serving

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)  # blocks expire by the real clock
NOW_NS = int(NOW.timestamp()) * 10**9
UNTIL_NS = NOW_NS - 12 * 3600 * 10**9
DAYS = """
from datetime import timedelta
from fastserve import *

user = Entity("user", Field("user_id", String))
COLUMNS = [Field("user_id", String), Field("at", Timestamp), Field("v", Int64)]
files = FileSource("files", "events.csv", timestamp_field="at")
pushed = PushSource("pushed", COLUMNS, files, "at")
def aggregates(days):
    window = timedelta(days=days)
    return [
        Aggregate(Field("v", Int64), "sum", window, name=f"sum_{days}"),
        Aggregate(Field("v", Int64), "count", window, name=f"count_{days}"),
        Aggregate(Field("v", Int64), last(3), window, name=f"last_{days}"),
    ]
"""
VIEW = """
hour = timedelta(hours=1)
view = FeatureView("view", user, pushed, features=FEATURES, aggregation_interval=hour)
service = FeatureService("s", [view])
"""
SERIES = """
two_days = TimeWindowSeries(timedelta(days=-2), timedelta(days=1))
FEATURES += [Aggregate(Field("v", Int64), "count", two_days, name="series")]
"""


def define(folder: Path, *windows: int) -> None:
    features = "FEATURES = [*" + ", *".join(f"aggregates({days})" for days in windows) + "]\n"
    more = SERIES if len(windows) > 1 else ""
    (folder / "views.py").write_text(DAYS + features + more + VIEW)


def events(file: Path, *found: tuple[str, int, int]) -> None:
    """Write a file of events: whose, how many hours ago, what."""
    lines = [f"{user},{(NOW - timedelta(hours=hours)).isoformat()},{value}" for user, hours, value in found]
    file.write_text("\n".join(["user_id,at,v", *lines]) + "\n")


def apply(folder: Path, url: str) -> None:
    async def work(store: Any) -> None:
        await execute(await plan_apply(load_repo(folder), store), store)

    with_store(url, work)


def ask(folder: Path, url: str, *pushed: tuple[str, int], user: str = "u") -> dict[str, Any]:
    """Push values of two hours ago, and return the features of a user by name."""
    at = (NOW - timedelta(hours=2)).isoformat()
    records = [{"record": {"user_id": key, "at": at, "v": value}} for key, value in pushed]
    params = {
        "featureServiceName": "s",
        "joinKeyMap": {"user_id": user},
        "requestOptions": {"coerceNullCountsToZero": True},
        "metadataOptions": {"includeNames": True},
    }

    async def work() -> dict[str, Any]:
        async with serving(load_repo(folder), url) as served:
            if records:
                body = {"workspace_name": "default", "records": {"pushed": records}}
                status, answer = await served.post("/ingest", body, NOW_NS)
                assert status == 200, answer
            status, answer = await served.post(GET_FEATURES, {"params": params}, NOW_NS)
            assert status == 200, answer
            names = [feature["name"].removeprefix("view.") for feature in answer["metadata"]["features"]]
            return dict(zip(names, answer["result"]["features"], strict=True))

    with patch.dict(os.environ, clean_environ(), clear=True):
        return asyncio.run(work())


def test_a_window_that_an_older_row_lacks_is_null_until_the_files_are_read_again(tmp_path: Path) -> None:
    url = f"local:{tmp_path / 'store'}"
    folder = tmp_path / "repo"
    folder.mkdir()
    events(folder / "events.csv", ("u", 30, 1), ("u", 480, 100))
    define(folder, 7)
    apply_and_materialize(load_repo(folder), url, UNTIL_NS)
    week = {"sum_7": "1001", "count_7": "2", "last_7": ["1", "1000"]}
    assert ask(folder, url, ("u", 1000)) == week

    define(folder, 7, 28)
    apply(folder, url)
    week = {"sum_7": "11001", "count_7": "3", "last_7": ["1", "1000", "10000"]}
    unknown = dict.fromkeys(("sum_28", "count_28", "last_28", "series"))
    assert ask(folder, url, ("u", 10000)) == week | unknown

    apply_and_materialize(load_repo(folder), url, UNTIL_NS)
    month = {"sum_28": "11101", "count_28": "4", "last_28": ["1", "1000", "10000"], "series": ["1", "2"]}
    assert ask(folder, url) == week | month


def test_a_key_without_a_row_is_missing_until_changed_files_are_read(tmp_path: Path) -> None:
    url = f"local:{tmp_path / 'store'}"
    folder = tmp_path / "repo"
    folder.mkdir()
    events(folder / "events.csv", ("u", 30, 1))
    define(folder, 7)
    apply_and_materialize(load_repo(folder), url, UNTIL_NS)
    assert ask(folder, url, ("new", 10), user="new")["sum_7"] == "10"

    definitions = folder / "views.py"
    definitions.write_text(definitions.read_text().replace("events.csv", "history.csv"))
    events(folder / "history.csv", ("u", 30, 1), ("new", 40, 500))
    apply(folder, url)
    assert ask(folder, url, user="new")["sum_7"] is None
    assert ask(folder, url, ("u", 20))["sum_7"] == "21"

    apply_and_materialize(load_repo(folder), url, UNTIL_NS)
    assert ask(folder, url, user="new")["sum_7"] == "510"
