from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastserve.errors import StoreError
from fastserve.ingest.lease import (
    LEASE_NS,
    SKEW_NS,
    Lease,
    LeaseLostError,
    RefreshState,
    acquire,
    keeping,
    refresh_key,
    refresh_states,
)
from fastserve.ingest.registry import Registry
from fastserve.ingest.schedule import Gap
from fastserve.store.interface import OnlineStore
from tests.ingest.runners import Clock, with_registry
from tests.ingest.support import HOUR_NS, UNTIL_NS, Workbench


async def taken(registry: Registry, clock: Clock, name: str, gap: Gap | None = None) -> Lease:
    lease = await acquire(registry, clock.runner(name), "spend", UNTIL_NS, gap)
    assert isinstance(lease, Lease)
    return lease


async def state_of(registry: Registry) -> RefreshState:
    return (await refresh_states(registry, ["spend"]))["spend"]


def test_a_lease_is_had_by_one_and_given_back(bench: Workbench) -> None:
    clock = Clock(UNTIL_NS)

    async def work(store: OnlineStore, registry: Registry) -> None:
        first = await taken(registry, clock, "a")
        other = await acquire(registry, clock.runner("b"), "spend", UNTIL_NS)
        assert isinstance(other, RefreshState)
        assert (other.owner, other.lease_until_ns, other.attempts) == ("a", UNTIL_NS + LEASE_NS, 1)
        clock.now_ns += 5
        await first.finish()
        state = await state_of(registry)
        assert state == RefreshState(until_ns=UNTIL_NS, began_ns=UNTIL_NS, done_ns=UNTIL_NS + 5)
        await taken(registry, clock, "b")

    with_registry(bench, work)


def test_of_many_that_reach_at_once_one_gets_it(bench: Workbench) -> None:
    clock = Clock(UNTIL_NS)

    async def work(store: OnlineStore, registry: Registry) -> None:
        tries = [acquire(registry, clock.runner(f"r{n}"), "spend", UNTIL_NS) for n in range(8)]
        results = await asyncio.gather(*tries)
        leases = [result for result in results if isinstance(result, Lease)]
        assert len(leases) == 1
        owner = (await state_of(registry)).owner
        assert {result.owner for result in results if isinstance(result, RefreshState)} == {owner}

    with_registry(bench, work)


def test_a_lapsed_lease_is_taken_over_and_its_owner_finds_out(bench: Workbench) -> None:
    clock = Clock(UNTIL_NS)

    async def work(store: OnlineStore, registry: Registry) -> None:
        first = await taken(registry, clock, "a")
        clock.now_ns += LEASE_NS + SKEW_NS - 1
        assert isinstance(await acquire(registry, clock.runner("b"), "spend", UNTIL_NS), RefreshState)
        clock.now_ns += 1
        second = await taken(registry, clock, "b")
        assert second.state.attempts == 2
        for step in (first.renew, first.hold, first.confirm, first.finish):
            with pytest.raises(LeaseLostError, match="the lease of a is lost: b has it now"):
                await step()
        await second.finish()
        with pytest.raises(LeaseLostError, match="nobody has it now"):
            await first.confirm()

    with_registry(bench, work)


def test_a_renewed_lease_is_not_taken_over(bench: Workbench) -> None:
    clock = Clock(UNTIL_NS)

    async def work(store: OnlineStore, registry: Registry) -> None:
        first = await taken(registry, clock, "a")
        for _ in range(3):
            clock.now_ns += LEASE_NS - 1
            await first.hold()
            assert isinstance(await acquire(registry, clock.runner("b"), "spend", UNTIL_NS), RefreshState)

    with_registry(bench, work)


def test_a_lease_with_half_its_time_left_is_held_without_asking(bench: Workbench) -> None:
    clock = Clock(UNTIL_NS)

    async def work(store: OnlineStore, registry: Registry) -> None:
        first = await taken(registry, clock, "a")
        version = (await registry.versions([refresh_key("spend")]))[0][0]
        clock.now_ns += LEASE_NS // 2
        await first.hold()
        assert (await registry.versions([refresh_key("spend")]))[0][0] == version
        clock.now_ns += 1
        await first.hold()
        assert (await registry.versions([refresh_key("spend")]))[0][0] == version + 1

    with_registry(bench, work)


def test_failed_attempts_are_counted_until_one_succeeds(bench: Workbench) -> None:
    clock = Clock(UNTIL_NS)

    async def work(store: OnlineStore, registry: Registry) -> None:
        for attempts in (1, 2):
            lease = await taken(registry, clock, "a")
            await lease.finish(f"no file {attempts}" + "x" * 5_000)
            state = await state_of(registry)
            assert (state.attempts, state.last_error[:9], state.owner) == (
                attempts,
                f"no file {attempts}",
                "",
            )
            assert len(state.last_error) == 2_000
        clock.now_ns += HOUR_NS
        await taken(registry, clock, "a")  # and is killed
        clock.now_ns += HOUR_NS
        lease = await taken(registry, clock, "b")
        assert lease.state.attempts == 4
        await lease.finish()
        state = await state_of(registry)
        assert (state.attempts, state.last_error, state.done_ns) == (0, "", clock.now_ns)

    with_registry(bench, work)


def test_gaps_are_kept_once_each(bench: Workbench) -> None:
    clock = Clock(UNTIL_NS)
    gaps = [Gap(UNTIL_NS, UNTIL_NS, 1), Gap(UNTIL_NS, UNTIL_NS + HOUR_NS, 2), None, Gap(UNTIL_NS + 9, 9, 1)]

    async def work(store: OnlineStore, registry: Registry) -> None:
        for gap in gaps:
            await (await taken(registry, clock, "a", gap)).finish()
        assert (await state_of(registry)).gaps == (gaps[1], gaps[3])
        for number in range(40):
            await (await taken(registry, clock, "a", Gap(number, number, 1))).finish()
        assert [gap.first_ns for gap in (await state_of(registry)).gaps] == list(range(20, 40))

    with_registry(bench, work)


class Lossy:
    """A store whose next replacements are lost: before they are written, or their answers after."""

    def __init__(self, store: OnlineStore) -> None:
        self._store = store
        self.lose: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def replace_row(self, *arguments: Any, **options: Any) -> Any:
        lost = self.lose.pop(0) if self.lose else ""
        if lost != "request":
            written = await self._store.replace_row(*arguments, **options)
            if not lost:
                return written
        raise StoreError("the store is away", retryable=True)


@pytest.mark.parametrize("lost", [["request"], ["answer"], ["answer", "request"], ["request", "answer"]])
def test_a_lease_outlives_lost_renewals(bench: Workbench, lost: list[str]) -> None:
    clock = Clock(UNTIL_NS)

    async def work(store: OnlineStore, registry: Registry) -> None:
        lossy = Lossy(store)
        first = await taken(Registry(lossy, "default"), clock, "a")
        lossy.lose = list(lost)
        for _ in lost:
            clock.now_ns += 10
            await first.confirm()  # what has time left may go on
        clock.now_ns += 10
        await first.renew()
        state = await state_of(registry)
        assert (state.owner, state.lease_until_ns) == ("a", clock.now_ns + LEASE_NS)
        lossy.lose = ["answer"]
        with pytest.raises(StoreError, match="away"):
            await first.finish()
        assert (await state_of(registry)).owner == ""

    with_registry(bench, work)


def test_a_lease_that_cannot_be_renewed_in_time_is_lost(bench: Workbench) -> None:
    clock = Clock(UNTIL_NS)

    async def work(store: OnlineStore, registry: Registry) -> None:
        lossy = Lossy(store)
        first = await taken(Registry(lossy, "default"), clock, "a")
        lossy.lose = ["request"] * 2
        clock.now_ns += LEASE_NS - 1
        await first.confirm()
        clock.now_ns += 1
        with pytest.raises(LeaseLostError, match="couldn't be renewed: the store is away"):
            await first.confirm()

    with_registry(bench, work)


def test_a_job_keeps_its_lease_while_it_runs(bench: Workbench) -> None:
    clock = Clock(UNTIL_NS)

    async def work(store: OnlineStore, registry: Registry) -> None:
        runner = clock.runner("a")
        lease = await taken(registry, clock, "a")
        going_on = asyncio.Event()

        async def job() -> str:
            await going_on.wait()
            return "done"

        running = asyncio.create_task(keeping(lease, runner, job()))
        for _ in range(3):
            clock.now_ns += LEASE_NS - 1
            await clock.wake()
            await clock.until_paused()
            assert (await state_of(registry)).lease_until_ns == clock.now_ns + LEASE_NS
        going_on.set()
        assert await running == "done"

    with_registry(bench, work)


def test_a_job_whose_lease_is_lost_is_stopped(bench: Workbench) -> None:
    clock = Clock(UNTIL_NS)

    async def work(store: OnlineStore, registry: Registry) -> None:
        runner = clock.runner("a")
        lease = await taken(registry, clock, "a")
        stopped = False

        async def job() -> None:
            nonlocal stopped
            try:
                await asyncio.Event().wait()
            finally:
                stopped = True

        running = asyncio.create_task(keeping(lease, runner, job()))
        await clock.until_paused()
        clock.now_ns += LEASE_NS + SKEW_NS
        await taken(registry, clock, "b")
        await clock.wake()
        with pytest.raises(LeaseLostError, match="b has it now"):
            await running
        assert stopped

    with_registry(bench, work)


def test_what_a_job_raises_comes_out(bench: Workbench) -> None:
    clock = Clock(UNTIL_NS)

    async def work(store: OnlineStore, registry: Registry) -> None:
        lease = await taken(registry, clock, "a")

        async def job() -> None:
            raise StoreError("the table is gone")

        with pytest.raises(StoreError, match="the table is gone"):
            await keeping(lease, clock.runner("a"), job())

    with_registry(bench, work)
