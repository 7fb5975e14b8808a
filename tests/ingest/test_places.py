"""Jobs that end after `apply` has moved their view, or made its tables anew."""

from __future__ import annotations

import pytest

from fastserve.errors import DefinitionError, StoreError
from fastserve.ingest.apply import execute, plan_apply
from fastserve.ingest.badrows import BadRows
from fastserve.ingest.compact import compact_view
from fastserve.ingest.lease import Unguarded
from fastserve.ingest.materialize import StoreOutlet, make_report
from fastserve.ingest.progress import Silent
from fastserve.ingest.registry import Registry
from fastserve.store.interface import OnlineStore
from tests.ingest.support import UNTIL_NS, Workbench

APART = """
    files = FileSource("events", "events.csv", timestamp_field="at")
    pushes = PushSource("pushes", [Field("user_id", String), Field("at", Timestamp), Field("n", Int64)],
                        timestamp_field="at")
    profile = FeatureView("profile", user, files, [Attribute("name", String)])
    spend = FeatureView("spend", user, pushes, [Aggregate(Field("n", Int64), "sum", TimeWindow(days(1)))],
                        aggregation_interval=hours(1))
"""
BUNDLED = APART.replace('[Attribute("name", String)]', '[Attribute("name", String)], bundle="items"').replace(
    "interval=hours(1)", 'interval=hours(1), bundle="items"'
)


async def ended(outlet: StoreOutlet, bench: Workbench) -> None:
    plan = bench.plan(bench.define(APART), "profile")
    bad = BadRows("profile", None)
    report = make_report(
        plan, UNTIL_NS, rows_read=0, rows_outside=0, bad=bad, results=[], done={}, seconds=0.0
    )
    await outlet.finish(report)


def test_what_was_written_where_the_view_lay_before_is_not_recorded(bench: Workbench) -> None:
    before, after = bench.define(APART), bench.define(BUNDLED)
    bench.apply(before)

    async def story(store: OnlineStore) -> None:
        registry = Registry(store, "default")
        outlet = StoreOutlet(bench.plan(before, "profile"), store, registry, Unguarded())
        await outlet.begin("job", 1)
        await execute(await plan_apply(after, store), store)
        with pytest.raises(StoreError, match=r"'profile': .* moved from table default\.profile to table"):
            await ended(outlet, bench)
        assert (await registry.materialized(["profile"]))["profile"] is None

    bench.with_store(story)


def test_what_was_written_into_tables_that_are_gone_is_not_recorded(bench: Workbench) -> None:
    repo = bench.define(APART)
    bench.apply(repo)

    async def story(store: OnlineStore) -> None:
        registry = Registry(store, "default")
        outlet = StoreOutlet(bench.plan(repo, "profile"), store, registry, Unguarded())
        await outlet.begin("job", 1)
        definition = (await registry.definitions(["profile"]))["profile"] or {}
        await registry.record_definitions({"profile": definition | {"created_ns": 1}})
        with pytest.raises(StoreError, match=r"view 'profile': .* made anew"):
            await ended(outlet, bench)
        assert (await registry.materialized(["profile"]))["profile"] is None

    bench.with_store(story)


def test_definitions_of_before_write_nothing(bench: Workbench) -> None:
    bench.write("events.csv", "user_id,at,name\nu1,2025-12-31T00:00:00Z,n\n")
    before = bench.define(APART)
    bench.apply(before)
    bench.apply(bench.define(BUNDLED))

    async def story(store: OnlineStore) -> None:
        registry = Registry(store, "default")
        outlet = StoreOutlet(bench.plan(before, "profile"), store, registry, Unguarded())
        with pytest.raises(DefinitionError, match=r"'profile': expected its rows in table default\.items"):
            await outlet.begin("job", 1)
        with pytest.raises(DefinitionError, match=r"'spend': expected its rows in table default\.items"):
            await compact_view(
                bench.plan(before, "spend"),
                store,
                registry,
                until_ns=UNTIL_NS,
                now_ns=UNTIL_NS,
                guard=Unguarded(),
                shows=Silent(),
            )

    bench.with_store(story)
