"""Which partitions of an unfinished job count as written."""

from __future__ import annotations

from fastserve.ingest.jobs import JobRecords, name_of_job
from fastserve.ingest.registry import Registry
from fastserve.ingest.spark import _FrameJob
from fastserve.sdk.repo import Repo
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


def test_what_was_written_before_the_tables_were_made_anew_does_not_count(bench: Workbench) -> None:
    bench.apply(bench.define(VIEW))

    async def story(store: OnlineStore) -> None:
        registry = Registry(store, "default")
        before = await name_of_job(registry, "profile", "f")
        await JobRecords(registry, before, 2).record(1, 10, 100)
        assert await name_of_job(registry, "profile", "f") == before
        await made_anew(registry, 1)
        after = await name_of_job(registry, "profile", "f")
        assert await JobRecords(registry, after, 2).done() == {}
        assert await JobRecords(registry, before, 2).done() == {1: (10, 100)}

    bench.with_store(story)


def test_a_job_on_spark_counts_them_alike(bench: Workbench) -> None:
    repo: Repo = bench.define(VIEW)
    bench.apply(repo)
    plan = bench.plan(repo, "profile")
    job = _FrameJob(plan, "default", StoreAddresses(bench.url), UNTIL_NS, UNTIL_NS, 2, None, None, "v7")

    async def story(store: OnlineStore) -> None:
        registry = Registry(store, "default")
        name, done = await job._begin(registry, store)
        assert name is not None
        assert done == {}
        await JobRecords(registry, name, 2).record(1, 10, 100)
        assert (await job._begin(registry, store))[1] == {1: (10, 100)}
        await made_anew(registry, 1)
        assert (await job._begin(registry, store))[1] == {}

    bench.with_store(story)
