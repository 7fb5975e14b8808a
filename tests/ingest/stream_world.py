"""A repo with pushed views, its store, and what of the stream lies in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastserve.ingest.apply import execute, plan_apply
from fastserve.ingest.putting import destination, get_put
from fastserve.ingest.stream import IngestSettings
from fastserve.ingest.stream_writer import StreamWriter
from fastserve.plan.keys import split_block_key
from fastserve.plan.service import plan_workspace
from fastserve.plan.views import ViewPlan
from fastserve.store.interface import OnlineStore
from fastserve.store.url import open_store
from fastserve.tiles.blocks import block_schema, decode
from fastserve.tiles.rows import decode_row
from fastserve.tiles.times import format_time
from tests.ingest.support import Workbench

NOW_NS = 1_767_225_600 * 10**9  # 2026-01-01T00:00:00Z
SECOND_NS = 10**9
DAY_NS = 86_400 * SECOND_NS
REPO = """
    pushes = PushSource(
        "pushes",
        [Field("user_id", String), Field("at", Timestamp), Field("amount", Float64), Field("cents", Int64),
         Field("shop", String)],
        timestamp_field="at",
    )
    spend = FeatureView(
        "spend", user, pushes,
        [Aggregate(Field("cents", Int64), "sum", TimeWindow(days(7))),
         Aggregate(Field("amount", Float64), "count", TimeWindow(days(1))),
         Aggregate(Field("amount", Float64), "sum", TimeWindow(days(1)))],
        aggregation_interval=timedelta(minutes=5),
    )
    latest = FeatureView("latest", user, pushes, [Attribute("amount", Float64), Attribute("shop", String)])
"""


def record(user: str = "u1", ago_s: float = 0, **values: Any) -> dict[str, Any]:
    """Return a good record of so many seconds ago."""
    time_ns = NOW_NS - int(ago_s * SECOND_NS)
    return {"user_id": user, "at": format_time(time_ns), "amount": 1.0, "cents": 100, "shop": "s1"} | values


class StreamWorld:
    """A workbench whose definitions are applied, with writers into it."""

    def __init__(self, bench: Workbench, definitions: str = REPO) -> None:
        self.bench = bench
        self.define(definitions)

    def define(self, definitions: str) -> None:
        """Take over definitions and apply them."""
        repo = self.bench.define(definitions)

        async def apply(store: OnlineStore) -> None:
            await execute(await plan_apply(repo, store), store, clock_ns=lambda: NOW_NS)

        self.bench.with_store(apply)
        self.plans: dict[str, ViewPlan] = dict(plan_workspace(repo, "").views)

    def writer(self, **settings: Any) -> StreamWriter:
        """Return a writer whose clock stands at `NOW_NS`."""
        return StreamWriter(
            self.bench.folder / "repo",
            self.bench.url,
            settings=IngestSettings(**settings),
            clock_ns=lambda: NOW_NS,
        )

    def told(self, story: Callable[[StreamWriter], Awaitable[None]]) -> None:
        """Run a story with an open writer."""

        async def run() -> None:
            async with asyncio.timeout(30), self.writer() as writer:
                await story(writer)

        asyncio.run(run())

    def tiles(self, view: str = "spend") -> dict[tuple[str, int], list[int]]:
        """Return the words of all tiles by entity key and start."""
        return asyncio.run(self.read_tiles(view))

    async def read_tiles(self, view: str = "spend") -> dict[tuple[str, int], list[int]]:
        """Return the words of all tiles by entity key and start."""
        plan = self.plans[view]
        assert plan.stream is not None
        assert plan.schema is not None
        found = {}
        store = await open_store(self.bench.url)
        try:
            async for rows in store.scan_rows(plan.stream.table):
                for key, value in rows:
                    block = decode(block_schema(plan.schema), value)
                    for start, words in zip(block.starts.tolist(), block.words.tolist(), strict=True):
                        found[split_block_key(key)[0], start] = words
        finally:
            await store.close()
        return found

    def row(self, key: str, view: str = "latest") -> dict[str, Any] | None:
        """Return a row's values."""
        plan = self.plans[view]
        (found,) = self.bench.with_store(lambda store: get_put(store, destination(plan), [key]))
        return None if found is None else decode_row(plan.layout, found)


def cents(tiles: dict[tuple[str, int], list[int]]) -> dict[tuple[str, int], int]:
    """Return the sums of cents, the first word of spend's tiles."""
    return {place: words[0] for place, words in tiles.items()}
