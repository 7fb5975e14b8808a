"""Compaction beside ingest: an entity's counts are exact before, during and after."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest

from fastserve.errors import DefinitionError, StoreError
from fastserve.ingest import blockfiles, compact
from fastserve.ingest.apply import execute, plan_apply
from fastserve.ingest.compact import CompactReport, compact_view
from fastserve.ingest.lease import LEASE_NS, SKEW_NS, Lease, Unguarded, acquire
from fastserve.ingest.progress import Silent
from fastserve.ingest.refresh import RefreshSettings, compact_by_hand, refresh
from fastserve.ingest.registry import Registry
from fastserve.ingest.schedule import SETTLE_NS
from fastserve.plan.keys import block_key
from fastserve.plan.views import ViewPlan, plan_view
from fastserve.sdk.repo import Repo
from fastserve.store.interface import OnlineStore
from fastserve.tiles.rows import effective_ns_of
from tests.ingest.pushing import Answer, Pushed, ask, expected, push
from tests.ingest.runners import Clock
from tests.ingest.support import DAY_NS, HOUR_NS, UNTIL_NS, Workbench

T = TypeVar("T")
MINUTE_NS = HOUR_NS // 60
INTERVAL_NS = 5 * MINUTE_NS
DEFINITIONS = """
    schema = [Field("user_id", String), Field("amount", Float64), Field("at", Timestamp)]
    pushed = PushSource("pushed", schema, timestamp_field="at")
    features = aggregates(Field("amount", Float64), ["count", "sum"], [hours(1), days(1), days(7)])
    spend = FeatureView("spend", user, pushed, features, aggregation_interval=timedelta(minutes=5),
                        batch_schedule=hours(1), horizon=hours(6))
"""
FILES = """
    files = FeatureView("files", user, FileSource("events", "events.csv", timestamp_field="at"), features,
                        aggregation_interval=hours(1))
    newest = FeatureView("newest", user, pushed, [Attribute("amount", Float64)])
"""


class World:
    """A repo that was applied an hour before `UNTIL_NS`, its store, and what was pushed to it."""

    def __init__(self, repo: Repo, store: OnlineStore) -> None:
        self.repo = repo
        self.store = store
        self.registry = Registry(store, repo.workspace)
        self.plan = plan_view(repo.views["spend"], repo.workspace, store.table_prefix)
        self.clock = Clock(UNTIL_NS)
        self.events: list[Pushed] = []

    async def push(self, *events: Pushed, expires_s: int = 0) -> None:
        self.events += events
        await push(self.store, self.plan, events, expires_s)

    async def compact(self, until_ns: int, store: OnlineStore | None = None, **options: Any) -> CompactReport:
        self.clock.now_ns = max(self.clock.now_ns, until_ns)
        return await compact_view(
            self.plan,
            store or self.store,
            self.registry,
            until_ns=until_ns,
            now_ns=self.clock.now_ns,
            guard=options.pop("guard", Unguarded()),
            shows=Silent(),
            **options,
        )

    async def ask(self, key: str, now_ns: int, torn: random.Random | None = None) -> Answer:
        return await ask(self.store, self.plan, key, now_ns, torn=torn)

    def expected(self, key: str, now_ns: int) -> Answer:
        return expected(self.plan, self.events, key, now_ns)

    async def row(self, key: str) -> bytes | None:
        return (await self.store.get_rows(self.plan.table, [key]))[0]


@pytest.fixture
def play(bench: Workbench) -> Callable[[Callable[[World], Coroutine[Any, Any, T]]], T]:
    repo = bench.define(DEFINITIONS)

    def run(story: Callable[[World], Coroutine[Any, Any, T]]) -> T:
        async def work(store: OnlineStore) -> T:
            await execute(await plan_apply(repo, store), store, clock_ns=lambda: UNTIL_NS - HOUR_NS)
            return await story(World(repo, store))

        return bench.with_store(work)

    return run


Play = Callable[[Callable[[World], Coroutine[Any, Any, Any]]], Any]


def test_rows_hold_what_was_pushed_before_and_blocks_what_comes_after(play: Play) -> None:
    async def story(world: World) -> None:
        now_ns = UNTIL_NS + 7 * MINUTE_NS
        await world.push(
            Pushed("u1", UNTIL_NS - 30 * MINUTE_NS, 1.0),
            Pushed("u1", UNTIL_NS + MINUTE_NS, 2.0),
            Pushed("u1", UNTIL_NS + 6 * MINUTE_NS, 4.0),
            Pushed("u2", UNTIL_NS + 6 * MINUTE_NS, 8.0),
        )
        assert await world.ask("u1", now_ns) == world.expected("u1", now_ns)

        report = await world.compact(now_ns)

        assert (report.keys, report.blocks, report.tiles, report.removed) == (1, 3, 4, 1)
        assert report.as_of_ns == UNTIL_NS + INTERVAL_NS
        row = await world.row("u1")
        assert row is not None
        assert effective_ns_of(row) == UNTIL_NS + INTERVAL_NS
        assert await world.row("u2") is None
        for key in ("u1", "u2", "u3"):
            assert await world.ask(key, now_ns) == world.expected(key, now_ns)
        assert (await world.registry.watermarks(["spend"])) == {"spend": UNTIL_NS + INTERVAL_NS}

    play(story)


def test_compacting_again_takes_in_what_came_late(play: Play) -> None:
    async def story(world: World) -> None:
        old = Pushed("u1", UNTIL_NS - 3 * DAY_NS, 1.0)
        await world.push(old)
        await world.compact(UNTIL_NS)
        assert await world.ask("u1", UNTIL_NS) == world.expected("u1", UNTIL_NS)
        late = Pushed("u1", UNTIL_NS - 3 * DAY_NS, 2.0)
        await world.push(late)
        assert (await world.ask("u1", UNTIL_NS)) == expected(world.plan, [old], "u1", UNTIL_NS)

        for _ in range(2):
            await world.compact(UNTIL_NS)

            assert await world.ask("u1", UNTIL_NS) == world.expected("u1", UNTIL_NS)

    play(story)


def test_rows_go_neither_back_nor_ahead_of_the_clock(play: Play) -> None:
    async def story(world: World) -> None:
        await world.push(Pushed("u1", UNTIL_NS - DAY_NS, 1.0))
        await world.compact(UNTIL_NS)
        with pytest.raises(DefinitionError, match=r"last compaction on \(2[0-9-]+T[0-9:]+Z\), got 2"):
            await world.compact(UNTIL_NS - 1)
        with pytest.raises(DefinitionError, match=r"past to compact until, got 2[0-9-]+T[0-9:]+Z at 2"):
            await compact_view(
                world.plan,
                world.store,
                world.registry,
                until_ns=UNTIL_NS + INTERVAL_NS,
                now_ns=UNTIL_NS + INTERVAL_NS - 1,
                guard=Unguarded(),
                shows=Silent(),
            )
        row = await world.row("u1")
        assert row is not None
        assert effective_ns_of(row) == UNTIL_NS

    play(story)


def test_an_entity_that_was_silent_for_long_loses_its_row_and_begins_anew(play: Play) -> None:
    async def story(world: World) -> None:
        await world.push(Pushed("u1", UNTIL_NS - 7 * DAY_NS + HOUR_NS, 1.0))
        await world.compact(UNTIL_NS)
        assert await world.row("u1") is not None
        later_ns = UNTIL_NS + 3 * HOUR_NS
        assert await world.ask("u1", later_ns) == world.expected("u1", later_ns)

        report = await world.compact(later_ns)

        assert (report.keys, report.removed, await world.row("u1")) == (0, 1, None)
        much_later_ns = later_ns + 5 * HOUR_NS  # past the horizon of the row that was
        await world.push(Pushed("u1", much_later_ns - MINUTE_NS, 2.0))
        assert await world.ask("u1", much_later_ns) == world.expected("u1", much_later_ns)

    play(story)


def test_past_the_horizon_of_the_last_compaction_data_is_missing(play: Play) -> None:
    async def story(world: World) -> None:
        await world.push(Pushed("u1", UNTIL_NS - HOUR_NS, 1.0), Pushed("u2", UNTIL_NS, 1.0))
        await world.compact(UNTIL_NS)
        for key in ("u1", "u2"):
            at_ns = UNTIL_NS + 6 * HOUR_NS
            assert await world.ask(key, at_ns) == world.expected(key, at_ns)
            assert await world.ask(key, at_ns + 1) == Answer(None)

    play(story)


class Meddling:
    """A store that calls back before every page of a scan, put and delete of the job."""

    def __init__(self, store: OnlineStore, before: Callable[[str], Awaitable[None]]) -> None:
        self._store = store
        self._before = before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def scan_rows(self, table: str, part: int = 0, parts: int = 1) -> Any:
        async for page in self._store.scan_rows(table, part, parts):
            for entry in page:
                await self._before("scan")
                yield [entry]

    async def put_rows(self, table: str, rows: Sequence[tuple[str, bytes]]) -> None:
        for row in rows:  # one by one: others read in between
            await self._before("put")
            await self._store.put_rows(table, [row])

    async def delete_rows(self, table: str, keys: Sequence[str]) -> None:
        await self._before("delete")
        await self._store.delete_rows(table, keys)


@pytest.mark.parametrize("seed", range(8))
def test_answers_are_exact_at_every_step_of_compactions_under_ingest(
    play: Play, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Pushes and reads happen between any two steps of the jobs; reads are torn, too.

    Events come up to `SETTLE_NS` after their time, as the job allows for.
    """
    monkeypatch.setattr(compact, "ENTITIES_AT_ONCE", 2)
    monkeypatch.setattr(blockfiles, "GROUP_BYTES", 2_000)
    chance = random.Random(seed)
    keys = [f"u{number}" for number in range(6)]

    async def story(world: World) -> None:
        reads = 0
        turn = asyncio.Lock()  # parts of a scan come at once; pushes and the reads after them one by one

        async def meddle(step: str) -> None:
            async with turn:
                await push_and_read(step)

        async def push_and_read(step: str) -> None:
            nonlocal reads
            world.clock.now_ns += chance.randrange(90) * 10**9
            for _ in range(chance.randrange(3)):
                time_ns = world.clock.now_ns - chance.randrange(SETTLE_NS)
                await world.push(Pushed(chance.choice(keys), time_ns, chance.randrange(100) / 4))
            key = chance.choice(keys)
            got = await world.ask(key, world.clock.now_ns, torn=chance)
            assert got == world.expected(key, world.clock.now_ns), (step, key)
            reads += 1

        for _ in range(40):
            ago_ns = chance.randrange(HOUR_NS)
            await world.push(Pushed(chance.choice(keys), UNTIL_NS - ago_ns, chance.randrange(100) / 4))
        for _ in range(6):
            world.clock.now_ns += chance.randrange(2 * HOUR_NS)
            store = Meddling(world.store, meddle)
            await world.compact(world.clock.now_ns - SETTLE_NS, store, parallel=chance.choice([1, 2]))
            for key in keys:
                now_ns = world.clock.now_ns
                assert await world.ask(key, now_ns) == world.expected(key, now_ns)
        assert reads > 60

    play(story)


class KilledError(BaseException):
    """What nobody catches, as nobody catches a kill."""


@pytest.mark.parametrize("steps", range(0, 24, 3))
def test_a_compaction_that_is_killed_changes_no_answer_and_is_run_again(
    play: Play, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setattr(compact, "ENTITIES_AT_ONCE", 2)
    chance = random.Random(steps)
    keys = [f"u{number}" for number in range(8)]

    async def story(world: World) -> None:
        for number in range(60):
            await world.push(Pushed(chance.choice(keys), UNTIL_NS - chance.randrange(HOUR_NS), float(number)))
        await world.compact(UNTIL_NS - HOUR_NS // 2)
        seen = 0

        async def kill(step: str) -> None:
            nonlocal seen
            if seen == steps:
                raise KilledError
            seen += 1

        now_ns = UNTIL_NS + 10 * MINUTE_NS
        with pytest.raises(KilledError):
            await world.compact(now_ns, Meddling(world.store, kill))
        await world.push(Pushed("u1", now_ns, 1.0))
        for key in keys:
            assert await world.ask(key, now_ns) == world.expected(key, now_ns)
        await world.compact(now_ns)
        for key in keys:
            assert await world.ask(key, now_ns) == world.expected(key, now_ns)
            row = await world.row(key)
            assert row is None or effective_ns_of(row) == now_ns

    play(story)


def test_a_job_that_lost_its_lease_neither_puts_nor_records(play: Play) -> None:
    async def story(world: World) -> None:
        await world.push(Pushed("u1", UNTIL_NS - HOUR_NS, 1.0))
        lease = await acquire(world.registry, world.clock.runner("a"), "spend", UNTIL_NS)
        assert isinstance(lease, Lease)
        world.clock.now_ns += LEASE_NS + SKEW_NS
        assert isinstance(await acquire(world.registry, world.clock.runner("b"), "spend", UNTIL_NS), Lease)
        with pytest.raises(StoreError, match="b has it now"):
            await world.compact(UNTIL_NS, guard=lease)
        assert await world.row("u1") is None
        assert (await world.registry.materialized(["spend"])) == {"spend": None}

    play(story)


def test_expired_blocks_are_swept(play: Play) -> None:
    async def story(world: World) -> None:
        now_s = UNTIL_NS // 10**9
        assert world.plan.stream is not None
        await world.push(Pushed("u1", UNTIL_NS - 9 * DAY_NS, 1.0), expires_s=now_s)
        await world.push(Pushed("u1", UNTIL_NS - HOUR_NS, 2.0), expires_s=now_s + 1)

        report = await world.compact(UNTIL_NS)

        assert (report.swept, report.blocks) == (1, 2)
        blocks = [
            block_key("u1", world.plan.stream.block_of(UNTIL_NS - ago_ns)) for ago_ns in (9 * DAY_NS, HOUR_NS)
        ]
        found = await world.store.get_rows(world.plan.stream.table, blocks)
        assert [row is None for row in found] == [True, False]

    play(story)


def test_blocks_of_an_older_shape_are_compacted_with_what_they_lack_empty(bench: Workbench) -> None:
    repo = bench.define(DEFINITIONS)
    bench.apply(repo)
    grown = bench.define(DEFINITIONS.replace('["count", "sum"]', '["count", "sum", "max"]'))
    event = Pushed("u1", UNTIL_NS - HOUR_NS, 5.0)
    bench.with_store(lambda store: World(repo, store).push(event))
    bench.apply(grown)

    async def story(store: OnlineStore) -> dict[str, Any]:
        world = World(grown, store)
        await world.push(Pushed("u1", UNTIL_NS - 2 * MINUTE_NS, 3.0))
        await world.compact(UNTIL_NS)
        got = await world.ask("u1", UNTIL_NS)
        assert got == expected(world.plan, [event, *world.events], "u1", UNTIL_NS)
        return {}

    bench.with_store(story)
    found = bench.row(grown, "spend", "u1")
    assert found is not None
    largest = [value for name, value in found[1].items() if ":max:" in name]
    assert max(value for value in largest if value is not None) == 3.0


def test_blocks_that_cannot_be_read_stop_the_job(play: Play) -> None:
    async def story(world: World) -> None:
        assert world.plan.stream is not None
        await world.store.put_rows(world.plan.stream.table, [(block_key("u1", 5), b"abc")])
        with pytest.raises(
            StoreError, match=r"table default\.spend\.stream: blocks of 'u1': expected a block"
        ):
            await world.compact(UNTIL_NS)

    play(story)


def test_due_views_with_nothing_but_a_stream_are_compacted(play: Play) -> None:
    async def story(world: World) -> None:
        await world.push(Pushed("u1", UNTIL_NS - 2 * HOUR_NS, 1.0))
        settings = RefreshSettings(progress=False)

        async def run() -> str:
            (result,) = await refresh(
                world.repo, [], world.store, settings=settings, runner=world.clock.eager("a")
            )
            return result.outcome

        world.clock.now_ns = UNTIL_NS + SETTLE_NS - 1
        assert [await run(), await run()] == ["done", "up to date"]
        row = await world.row("u1")
        assert row is not None
        assert effective_ns_of(row) == UNTIL_NS - HOUR_NS
        world.clock.now_ns += 1
        assert [await run(), await run()] == ["done", "up to date"]
        row = await world.row("u1")
        assert row is not None
        assert effective_ns_of(row) == UNTIL_NS

    play(story)


def test_two_that_compact_by_hand_at_once_are_told_of_each_other(play: Play) -> None:
    async def story(world: World) -> None:
        await world.push(Pushed("u1", UNTIL_NS - HOUR_NS, 1.0))
        settings = RefreshSettings(progress=False)
        results = await asyncio.gather(
            *[
                compact_by_hand(
                    [world.plan],
                    world.store,
                    world.registry,
                    until_ns=UNTIL_NS,
                    settings=settings,
                    runner=world.clock.eager(name),
                )
                for name in "ab"
            ],
            return_exceptions=True,
        )
        errors = [result for result in results if isinstance(result, StoreError)]
        assert len(errors) == 1
        assert "expected nobody at work on it" in str(errors[0])

    play(story)


@pytest.mark.parametrize(
    "view, message",
    [
        ("files", "FeatureView 'files': expected a PushSource to compact, got none"),
        ("newest", "FeatureView 'newest': expected aggregates of pushed events to compact, got none"),
        ("other", "view: expected one of spend, files, newest, got 'other'"),
    ],
)
def test_what_is_not_compacted_is_refused(bench: Workbench, view: str, message: str) -> None:
    repo = bench.define(DEFINITIONS + FILES)
    plans: dict[str, ViewPlan] = {name: bench.plan(repo, name) for name in repo.views}
    with pytest.raises(DefinitionError) as refused:
        compact.plan_to_compact(plans, view)
    assert message in str(refused.value)


def test_a_row_that_no_store_takes_is_left_out_and_told(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "MAX_ROW_BYTES", 100)

    async def story(world: World) -> None:
        await world.push(Pushed("u1", UNTIL_NS - HOUR_NS, 1.0))
        report = await world.compact(UNTIL_NS)
        assert (report.keys, report.too_large) == (0, ("u1",))

    play(story)
