"""Who waits for whom where blocks of several stores are written."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from fastserve import Aggregate, FeatureView, Field, Float64, PushSource, String, Timestamp
from fastserve.ingest.events import BlockDelta, ViewFeed
from fastserve.ingest.stream_blocks import WRITES_AT_ONCE, BlockWriter, ShapesSource
from fastserve.plan.stores import TablePrefixes
from fastserve.plan.views import plan_view
from fastserve.store.interface import VersionedRow
from tests.support.plans import USER

AMOUNT = Field("amount", Float64)
PUSHED = PushSource(
    "pushed", [Field("user_id", String), Field("at", Timestamp), AMOUNT], timestamp_field="at"
)


class Hanging:
    """A store that takes no row of a view that is away until it is let go."""

    def __init__(self) -> None:
        self.back = asyncio.Event()

    async def get_versioned(self, table: str, keys: Sequence[str]) -> list[VersionedRow | None]:
        return [None] * len(keys)

    async def replace_row(
        self, table: str, key: str, row: VersionedRow, *, timeout_s: float | None = None
    ) -> VersionedRow | None:
        if table == "w.away.stream":
            await self.back.wait()
        return row


def deltas(view: str, store: str | None, users: int) -> list[BlockDelta]:
    day = Aggregate(AMOUNT, "sum", timedelta(days=1))
    interval = timedelta(hours=1)
    defined = FeatureView(view, [USER], PUSHED, [day], aggregation_interval=interval, store=store)
    feed = ViewFeed(plan_view(defined, "w", TablePrefixes("", {"hot": ""})))
    return feed.deltas([{"user_id": f"u{number}", "at": 0, "amount": 1.0} for number in range(users)])


def shapes(view: str) -> ShapesSource:
    raise AssertionError(view)  # nothing is there


def test_a_store_that_hangs_takes_no_turns_of_another() -> None:
    async def story() -> None:
        store = Hanging()
        writer = BlockWriter(store, shapes, lambda: 0.0, lambda: 0.0)  # type: ignore[arg-type]
        deadline_s = asyncio.get_running_loop().time() + 60
        stuck = [
            writer.add(delta, b"%d" % number, deadline_s)
            for number, delta in enumerate(deltas("away", "hot", WRITES_AT_ONCE + 1))
        ]
        (delta,) = deltas("here", None, 1)
        await asyncio.wait_for(writer.add(delta, b"here", deadline_s), 5)
        assert not any(future.done() for future in stuck)
        store.back.set()
        await asyncio.gather(*stuck)
        await writer.close()

    asyncio.run(story())
