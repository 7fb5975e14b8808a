"""Streamed views with a cache: rows and blocks of different moments, while the watermark goes on."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import orjson
import pytest

from fastserve import Aggregate, FeatureView, Field, Float64, PushSource, String, Timestamp
from fastserve.errors import StoreError
from fastserve.plan.keys import block_key
from fastserve.serving.row_cache import RowCache
from fastserve.tiles import blocks, compact
from fastserve.tiles.windows import HOUR_NS, MINUTE_NS
from tests.server.application_world import V1, Answer, ApplicationWorld
from tests.support.examples import examples
from tests.support.plans import EVENTS, NOW_NS, USER, workspace_plan

AMOUNT = Field("amount", Float64)
PUSHED = PushSource(
    "pushed",
    [Field("user_id", String), Field("at", Timestamp), AMOUNT],
    timestamp_field="at",
    batch_source=EVENTS,
)
TTL_H, STALE_H, HORIZON_H = 3, 8, 12
HISTORY = [NOW_NS - 30 * HOUR_NS] * 5
"""Events in files: no block has them, and a row only after the first job."""
STATUS = {"includeServingStatus": True}
DOWN = StoreError("nobody there", retryable=True)
PRESENT, CACHED = "PRESENT", "CACHED_PRESENT"
MISSING = (None, "MISSING_DATA")
UNKNOWN = (None, "UNKNOWN")


class CachedStreamWorld(ApplicationWorld):
    """A count over a stream and a history; pushes, jobs and looks at the watermark come when told to."""

    def __init__(self) -> None:
        counts = FeatureView(
            "counts",
            entities=[USER],
            source=PUSHED,
            features=[Aggregate(AMOUNT, "count", timedelta(days=30), name="n")],
            aggregation_interval=timedelta(hours=1),
            horizon=timedelta(hours=HORIZON_H),
            cache_ttl=timedelta(hours=TTL_H),
            stale_ttl=timedelta(hours=STALE_H),
            cache_streamed=True,
        )
        super().__init__(plan=workspace_plan({"s": [counts]}), cache=RowCache(1_000_000))
        (self.stream,) = self.plan.services["s"].streams
        # Early in a block, and never at the full hour: whatever is pushed after a job is after its as_of.
        self.clock_ns -= self.clock_ns % self.stream.blocks.block_ns - 31 * MINUTE_NS
        self.pushed: dict[str, list[int]] = {"old": [], "new": []}
        self.history = {"old": HISTORY, "new": []}
        self.until_ns: dict[str, int] = {}
        for key in self.pushed:
            self.store.rows["w.counts", key] = None

    def later(self, hours: float) -> None:
        self.now_s += hours * 3600
        self.clock_ns += int(hours * HOUR_NS)

    def blocks_of(self, key: str, times_ns: list[int]) -> dict[int, blocks.Block]:
        values = {"amount": [1.0] * len(times_ns)}
        made = blocks.from_events(self.stream.blocks, [key] * len(times_ns), times_ns, values)
        return {number: block for (_, number), block in made.items()}

    def push(self, key: str) -> None:
        """Push an event of just before now."""
        self.pushed[key].append(self.clock_ns - 1)
        for number, block in self.blocks_of(key, self.pushed[key]).items():
            row = blocks.encode(self.stream.blocks, block)
            self.store.rows["w.counts.stream", block_key(key, number)] = self.store.transport.wrap(row)

    def job(self) -> None:
        """Write a row of all that there is of each key before the hour, and then the watermark."""
        as_of_ns = self.clock_ns // HOUR_NS * HOUR_NS
        for key, pushed in self.pushed.items():
            times_ns = [time_ns for time_ns in [*self.history[key], *pushed] if time_ns < as_of_ns]
            if times_ns:
                self.store.rows["w.counts", key] = self.store.transport.wrap(
                    self.row(key, times_ns, as_of_ns)
                )
        self.until_ns = {"counts": as_of_ns}

    def row(self, key: str, times_ns: list[int], as_of_ns: int) -> bytes:
        schema = self.stream.blocks
        tiles = compact.gather(schema, [list(self.blocks_of(key, times_ns).values())])
        compacted = compact.compact(self.stream.schema, schema, tiles, as_of_ns)
        (row,) = compact.encode(self.stream.schema, compacted, as_of_ns, [0])
        return row

    def look(self) -> None:
        """Take in the watermark, as workers do now and again."""
        self.engine.watermarks.until_ns = self.until_ns

    def down(self, key: str) -> None:
        self.store.failing = dict.fromkeys([key, *[k for _, k in self.store.rows if k.startswith(key)]], DOWN)
        block = self.clock_ns // self.stream.blocks.block_ns
        self.store.failing.update(dict.fromkeys([block_key(key, block - back) for back in range(2)], DOWN))

    def count(self, key: str) -> tuple[int | None, str]:
        return told(self.features("s", {"user_id": key}, allowPartialResults=True, metadataOptions=STATUS))

    def keys_asked(self) -> list[str]:
        """Return the keys that the store was asked for since this was called before."""
        keys = [read.key for batch in self.store.batches for read in batch]
        self.store.batches.clear()
        return keys


def told(answer: Answer) -> tuple[int | None, str]:
    assert answer.status == 200, answer.json
    (value,), (about,) = answer.json["result"]["features"], answer.json["metadata"]["features"]
    return None if value is None else int(value), about["status"]


@pytest.fixture
def world() -> CachedStreamWorld:
    return CachedStreamWorld()


def test_a_row_that_was_absent_before_the_first_job_is_asked_for_again(world: CachedStreamWorld) -> None:
    world.push("old")
    assert world.count("old") == MISSING
    world.job()
    world.look()
    assert world.count("old") == (6, CACHED)  # its blocks are kept; the row isn't


def test_nor_is_it_kept_while_the_view_is_behind(world: CachedStreamWorld) -> None:
    world.until_ns = {"counts": world.clock_ns - HORIZON_H * HOUR_NS - 1}
    world.look()
    world.push("old")
    assert world.count("old") == MISSING
    world.job()
    world.look()
    assert world.count("old") == (6, CACHED)


def test_a_read_under_way_while_the_watermark_comes_is_not_kept(world: CachedStreamWorld) -> None:
    body = {"featureServiceName": "s", "joinKeyMap": {"user_id": "old"}}
    world.push("old")
    world.send("POST", V1 + "get-features", orjson.dumps({"params": body}))
    world.turn()
    world.job()
    world.look()
    row = world.store.rows.pop(("w.counts", "old"))
    world.store.rows["w.counts", "old"] = None
    world.store.answer()
    world.turn()
    world.store.rows["w.counts", "old"] = row
    assert world.count("old") == (6, CACHED)


def test_it_does_not_stand_for_one_that_cannot_be_read_either(world: CachedStreamWorld) -> None:
    world.push("old")
    world.count("old")
    world.job()
    world.look()
    world.down("old")
    assert world.count("old") == UNKNOWN


def test_of_a_complete_view_it_is_remembered_whatever_the_watermark_does(world: CachedStreamWorld) -> None:
    world.job()
    world.look()
    world.push("new")
    assert world.count("new") == (1, PRESENT)
    world.later(1)
    world.job()
    world.look()
    world.keys_asked()
    assert world.count("new") == (1, CACHED)
    assert world.keys_asked() == []
    world.later(TTL_H)
    world.down("new")
    assert world.count("new") == (1, CACHED)


def test_it_is_forgotten_when_by_the_watermark_of_then_the_view_is_not_complete(
    world: CachedStreamWorld,
) -> None:
    world.job()
    world.look()
    until_ns = world.until_ns["counts"]
    world.later(HORIZON_H - 1.5)
    world.push("new")
    assert world.count("new") == (1, PRESENT)
    world.later((until_ns + HORIZON_H * HOUR_NS - world.clock_ns) / HOUR_NS - 1 / 3600)
    world.job()
    world.look()
    world.keys_asked()
    assert world.count("new") == (1, CACHED)
    assert "new" not in world.keys_asked()
    world.later(2 / 3600)
    assert world.count("new") == (1, CACHED)
    assert "new" in world.keys_asked()


def test_what_was_pushed_a_ttl_ago_counts_once_whatever_was_read_when() -> None:
    statuses: list[tuple[Any, str]] = []
    for seed in range(examples(30)):
        statuses += a_life(random.Random(seed), f"seed {seed}")
    counted = [status for value, status in statuses if value is not None]
    assert min(counted.count(PRESENT), counted.count(CACHED)) > 50


def a_life(chance: random.Random, name: str) -> list[tuple[Any, str]]:
    """Let things happen to a world, hold each answer between what must be known and what may be."""
    world = CachedStreamWorld()
    answers = []
    for step in range(80):
        what = chance.choice(["push", "push", "job", "look", "later", "ask", "ask", "ask"])
        key = chance.choice(["old", "new"])
        if what == "push":
            world.push(key)
        elif what == "job" and chance.random() < 0.3:
            world.job()
        elif what == "look":
            world.look()
        elif what == "later":
            world.later(chance.choice([0.1, 0.5, 1, 2.5, 6]))
        elif what == "ask":
            is_down = chance.random() < 0.2
            if is_down:
                world.down(key)
            answers.append(world.count(key))
            world.store.failing.clear()
            count, _ = answers[-1]
            oldest_ns = world.clock_ns - (STALE_H if is_down else TTL_H) * HOUR_NS - MINUTE_NS
            known = [time_ns for time_ns in world.pushed[key] if time_ns < oldest_ns]
            there = len(world.history[key])
            if count is not None:
                assert there + len(known) <= count <= there + len(world.pushed[key]), (name, step)
    return answers
