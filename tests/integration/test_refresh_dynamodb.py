"""Schedules, leases and compaction on DynamoDB servers, as tests/ingest has them on the local store."""

from __future__ import annotations

import asyncio
import textwrap
from pathlib import Path

import pytest

from fastserve.ingest.apply import execute, plan_apply
from fastserve.ingest.refresh import RefreshSettings, refresh, scheduled_plans, statuses
from fastserve.ingest.registry import Registry
from fastserve.ingest.schedule import SETTLE_NS
from fastserve.plan.views import plan_view
from fastserve.sdk.repo import Repo, load_repo
from fastserve.store.interface import OnlineStore
from fastserve.store.url import open_store
from perf.load.standin_client import StandInAddress
from tests.ingest.pushing import Pushed, ask, expected, push
from tests.ingest.runners import Clock
from tests.ingest.support import HEADER, HOUR_NS, UNTIL_NS
from tests.support.dynamodb_servers import DYNAMODB_URLS, aws_environment, dynoxide_endpoint, moto_endpoint
from tests.support.standin import stand_in

__all__ = ["aws_environment", "dynoxide_endpoint", "moto_endpoint", "stand_in"]

DEFINITIONS = """
schema = [Field("user_id", String), Field("amount", Float64), Field("at", Timestamp)]
files = FileSource("files", "events.csv", timestamp_field="at")
pushed = PushSource("pushed", schema, timestamp_field="at")
both = PushSource("both", schema, batch_source=files, timestamp_field="at")
features = aggregates(Field("amount", Float64), ["count", "sum"], [hours(1), days(7)])
spend = FeatureView("spend", user, pushed, features, aggregation_interval=timedelta(minutes=5),
                    batch_schedule=hours(1), horizon=hours(6))
batch = FeatureView("batch", user, files, features, aggregation_interval=hours(1), batch_schedule=hours(1))
newest = FeatureView("newest", user, both, [Attribute("amount", Float64)], batch_schedule=hours(1))
"""
SETTINGS = RefreshSettings(progress=False)


@pytest.fixture(params=[*DYNAMODB_URLS, "stand-in"])
def store_url(request: pytest.FixtureRequest) -> str:
    if request.param in DYNAMODB_URLS:
        return DYNAMODB_URLS[request.param](request)
    request.getfixturevalue("aws_environment")
    address: StandInAddress = request.getfixturevalue("stand_in")
    return address.store_url()


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    (tmp_path / "defs.py").write_text(HEADER + textwrap.dedent(DEFINITIONS))
    (tmp_path / "events.csv").write_text("user_id,amount,at\nu1,1,2025-12-31T23:00:00Z\n")
    return load_repo(tmp_path)


def test_runners_at_once_do_each_view_once_and_answers_stay_exact(store_url: str, repo: Repo) -> None:
    clock = Clock(UNTIL_NS + SETTLE_NS)

    async def story(store: OnlineStore) -> None:
        await execute(await plan_apply(repo, store), store, clock_ns=lambda: UNTIL_NS - HOUR_NS)
        plan = plan_view(repo.views["spend"], repo.workspace, store.table_prefix)
        events = [Pushed(f"u{n % 3}", UNTIL_NS - HOUR_NS + n * HOUR_NS // 40, float(n)) for n in range(40)]
        await push(store, plan, events)

        runs = [refresh(repo, [], store, settings=SETTINGS, runner=clock.eager(name)) for name in "abc"]
        results = await asyncio.gather(*runs)

        done = sorted(result.view for run in results for result in run if result.outcome == "done")
        assert done == ["batch", "newest", "spend"], results
        plans = scheduled_plans(repo, [], workspace=None, prefixes=store.table_prefix)
        standing = await statuses(plans, Registry(store, repo.workspace), clock.now_ns)
        assert {status.standing for status in standing} == {"up to date"}
        late = [Pushed("u1", UNTIL_NS + HOUR_NS // 2, 5.0), Pushed("new", UNTIL_NS + HOUR_NS // 2, 6.0)]
        await push(store, plan, late)
        for key in ("u0", "u1", "u2", "new", "nobody"):
            now_ns = UNTIL_NS + HOUR_NS
            assert await ask(store, plan, key, now_ns) == expected(plan, events + late, key, now_ns)
        assert (await plan_apply(repo, store)).empty

    async def run() -> None:
        store = await open_store(store_url)
        try:
            await story(store)
        finally:
            await store.close()

    asyncio.run(run())
