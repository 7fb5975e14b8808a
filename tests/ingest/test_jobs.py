"""Which partitions of an unfinished job count as written."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fastserve.ingest.lease import Unguarded
from fastserve.ingest.materialize import StoreOutlet
from fastserve.ingest.partition import PartitionResult
from fastserve.ingest.registry import Registry
from fastserve.ingest.spark import _FrameJob
from fastserve.store.addresses import StoreAddresses
from fastserve.store.interface import OnlineStore
from tests.ingest.support import UNTIL_NS, Workbench

VIEW = """
    source = FileSource("events", "events.csv", timestamp_field="at")
    profile = FeatureView("profile", user, source, [Attribute("name", String)])
"""


async def made_anew(registry: Registry, since_ns: int) -> None:
    """Do as `apply` that has made the view's tables."""
    definition = (await registry.definitions(["profile"]))["profile"] or {}
    await registry.record_definitions({"profile": definition | {"created_ns": since_ns}})


@pytest.mark.parametrize("on_spark", [False, True])
def test_what_was_written_before_the_tables_were_made_anew_does_not_count(
    bench: Workbench, *, on_spark: bool
) -> None:
    repo = bench.define(VIEW)
    bench.apply(repo)
    plan = bench.plan(repo, "profile")
    spark = _FrameJob(plan, "default", StoreAddresses(bench.url), UNTIL_NS, UNTIL_NS, 2, None, None, "v7")
    result = PartitionResult(10, 100, 0, ())

    async def story(store: OnlineStore) -> None:
        registry = Registry(store, "default")

        async def begun() -> Mapping[int, tuple[int, int]]:
            if on_spark:
                since_ns, done = await spark._begin(registry, store)
                records = spark._records(registry, since_ns)
                assert records is not None
                await records.record(1, 10, 100)
                return done
            outlet = StoreOutlet(plan, store, registry, Unguarded())
            done = dict(await outlet.begin("job", 2))
            await outlet.partition_done(1, result)
            return done

        assert await begun() == {}
        assert await begun() == {1: (10, 100)}
        await made_anew(registry, 1)
        assert await begun() == {}

    bench.with_store(story)
