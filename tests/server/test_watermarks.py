from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest

from fastserve import Aggregate, FeatureView, Field, Float64, PushSource, String, Timestamp
from fastserve.errors import StoreError
from fastserve.plan.service import WorkspacePlan
from fastserve.server import watermarks as module
from fastserve.server.watermarks import WatermarkPoll
from fastserve.serving.heads import Watermarks
from fastserve.tiles.blocks import BlockShape
from tests.support.plans import USER, aggregate_view, workspace_plan

AMOUNT = Field("amount", Float64)
PUSHED = PushSource(
    "pushed", [Field("user_id", String), Field("at", Timestamp), AMOUNT], timestamp_field="at"
)


def plan(*, streamed: bool = True) -> WorkspacePlan:
    day = Aggregate(AMOUNT, "sum", timedelta(days=1))
    hour = timedelta(hours=1)
    view = FeatureView("pushed_to", [USER], PUSHED, [day], aggregation_interval=hour)
    return workspace_plan({"s": [aggregate_view("files", [day]), *([view] if streamed else [])]})


class Records:
    """A registry whose answers are given one after the other; the last is given for ever."""

    def __init__(self, *answers: Any, applied: bool = True) -> None:
        self.answers = list(answers)
        self.asked: list[Sequence[str]] = []
        self.applied = applied
        self.known: dict[int, BlockShape] = {}
        self.idle = asyncio.Event()

    async def exists(self) -> bool:
        return self.applied

    async def shapes(self, views: Sequence[str]) -> dict[str, dict[int, BlockShape]]:
        return {view: dict(self.known) for view in views}

    async def watermarks(self, views: Sequence[str], digests: Mapping[str, str]) -> dict[str, int | None]:
        assert list(digests) == list(views)
        self.asked.append(views)
        if len(self.answers) == 1:
            self.idle.set()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return dict.fromkeys(views, answer)


def poll(records: Records, kept: Watermarks, *, streamed: bool = True) -> WatermarkPoll:
    return WatermarkPoll(records, plan(streamed=streamed), kept, {})  # type: ignore[arg-type]


def test_shapes_that_newer_servers_write_are_known_after_the_next_look() -> None:
    shape = BlockShape((("sum", 1),))
    shapes: dict[str, dict[int, BlockShape]] = {}

    async def run() -> None:
        records = Records(1)
        both = WatermarkPoll(records, plan(), Watermarks(), shapes)  # type: ignore[arg-type]
        await both.refresh()
        assert shapes == {"pushed_to": {}}
        records.known[shape.schema_id] = shape
        await both.refresh()

    asyncio.run(run())
    assert shapes == {"pushed_to": {shape.schema_id: shape}}


def test_streamed_views_have_their_watermarks_from_the_start_and_new_ones_later() -> None:
    async def run() -> None:
        records, kept = Records(5, 7), Watermarks()
        polling = poll(records, kept)
        with patch.object(module, "POLL_EVERY_S", 0.0):
            await polling.start()
            assert kept.until_ns == {"pushed_to": 5}
            await records.idle.wait()
            await asyncio.sleep(0)
            await polling.stop()
        assert kept.until_ns == {"pushed_to": 7}
        assert records.asked[0] == ["pushed_to"]

    asyncio.run(run())


@pytest.mark.parametrize("newer_ns, meanwhile", [(7, {"pushed_to": 5}), (3, {"pushed_to": 3}), (None, {})])
def test_a_newer_one_waits_until_requests_that_were_under_way_are_answered(
    newer_ns: int | None, meanwhile: dict[str, int]
) -> None:
    waits_s: list[float] = []
    seen: list[dict[str, int]] = []

    async def run() -> None:
        records, kept = Records(5, newer_ns), Watermarks()
        polling = WatermarkPoll(records, plan(), kept, {}, settle_s=3.0)  # type: ignore[arg-type]

        async def sleep(seconds: float) -> None:
            waits_s.append(seconds)
            seen.append(dict(kept.until_ns))
            if len(waits_s) > 3:
                await asyncio.Event().wait()

        with patch("fastserve.server.watermarks.asyncio.sleep", sleep):
            await polling.start()
            await records.idle.wait()
        await polling.stop()

    asyncio.run(run())
    assert waits_s == [0.0, module.POLL_EVERY_S, 3.0, module.POLL_EVERY_S]
    now = {} if newer_ns is None else {"pushed_to": newer_ns}
    assert seen == [{}, {"pushed_to": 5}, meanwhile, now]


def test_a_failure_leaves_them_as_they_were_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        records, kept = Records(5, StoreError("gone"), StoreError("gone")), Watermarks()
        polling = poll(records, kept)
        with patch.object(module, "POLL_EVERY_S", 0.0), caplog.at_level(logging.WARNING, "fastserve"):
            await polling.start()
            await records.idle.wait()
            await asyncio.sleep(0)
            await polling.stop()
        assert kept.until_ns == {"pushed_to": 5}
        assert "watermarks and shapes couldn't be read: gone" in caplog.text

    asyncio.run(run())


def test_a_record_that_nobody_foresaw_does_not_end_the_asking(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        records, kept = Records(5, TypeError("an odd record"), 7), Watermarks()
        polling = poll(records, kept)
        with patch.object(module, "POLL_EVERY_S", 0.0):
            await polling.start()
            await asyncio.wait_for(records.idle.wait(), 5)
            await asyncio.sleep(0)
            await polling.stop()
        assert kept.until_ns == {"pushed_to": 7}
        assert "couldn't be understood" in caplog.text

    asyncio.run(run())


def test_the_first_failure_is_the_start_s() -> None:
    async def run() -> None:
        with pytest.raises(StoreError, match="gone"):
            await poll(Records(StoreError("gone")), Watermarks()).start()

    asyncio.run(run())


def test_what_was_never_complete_or_applied_has_no_watermark() -> None:
    async def run() -> None:
        for records in (Records(None), Records(5, applied=False)):
            kept = Watermarks()
            await poll(records, kept).refresh()
            assert kept.until_ns == {}

    asyncio.run(run())


def test_without_streamed_views_nothing_is_asked() -> None:
    async def run() -> None:
        records = Records(5)
        polling = poll(records, Watermarks(), streamed=False)
        await polling.start()
        await polling.stop()
        assert records.asked == []

    asyncio.run(run())
