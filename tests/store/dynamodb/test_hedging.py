"""Second copies over real sockets: one outcome per call, whichever of the two brings it."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.dynamodb.hedging import Hedger
from fastserve.store.dynamodb.pool import PoolSettings
from fastserve.wire.hedging import HedgeLaw
from tests.store.dynamodb.conftest import Run
from tests.support.scripted_store import Fault, ScriptedStore, serving
from tests.support.wire_client import WireClient, wire_client

ONE = ReadGroup(0, ("one",))
KEYS = [f"key-{number}" for number in range(30)]
AFTER_S = 0.02


class EagerLaw(HedgeLaw):
    """Lets a copy go out for every slow call."""

    __slots__ = ("_seen", "slow")

    def __init__(self) -> None:
        super().__init__(AFTER_S)
        self.slow = 0
        self._seen = asyncio.Event()

    async def until_slow(self, count: int) -> None:
        """Wait until so many calls have been found slow."""
        while self.slow < count:
            self._seen.clear()
            await self._seen.wait()

    def observe(self, answered: int, now_s: float) -> None:
        pass

    def note_slow(self) -> None:
        self.slow += 1
        self._seen.set()

    def take(self, *, again: bool = False) -> bool:
        del again
        self.copies += 1
        return True


@asynccontextmanager
async def hedging(
    *script: Fault, settings: PoolSettings | None = None
) -> AsyncIterator[tuple[ScriptedStore, WireClient, EagerLaw]]:
    """Run a store and a client that has had one call answered, so that it has a connection."""
    async with serving([Fault.NONE, *script]) as store:
        store.tables["one"] = {key: row_text(key) for key in KEYS}
        async with wire_client(store.endpoint, settings=settings) as client:
            law = EagerLaw()
            client.pool.watcher = Hedger(client.pool, law, client.loop)
            await client.fetched(client.reads(ONE, "key-0"))
            law.slow = law.copies = 0
            store.requests.clear()
            yield store, client, law


def row_text(key: str) -> str:
    return b64encode(f"row of {key}".encode()).decode()


async def fetched_apart(client: WireClient, *keys: str) -> None:
    reads = client.reads(ONE, *keys)
    for read in reads:
        client.fetch([read])
    await client.until_settled(reads)


def assert_own_rows(*reads: KeyRead) -> None:
    for read in reads:
        assert read.error is None, read.error
        assert read.rows == [row_text(read.key)]


def test_a_read_that_hangs_is_answered_by_its_copy_and_its_late_answer_harms_nobody(run: Run) -> None:
    async def story() -> None:
        async with hedging(Fault.STALL) as (store, client, law):
            first = client.reads(ONE, "key-1", "key-2")
            await client.fetched(first)
            assert_own_rows(*first)
            assert len(store.requests) == 2
            assert store.requests[0] == store.requests[1]
            assert (law.copies, law.won) == (1, 1)
            store.release()
            for key in KEYS:  # over the connection whose late answer is coming in, and the other
                reads = client.reads(ONE, key)
                await client.fetched(reads)
                assert_own_rows(*reads)
            assert store.connections == 2

    run(story())


def test_many_reads_of_which_some_hang_get_their_own_rows(run: Run) -> None:
    async def story() -> None:
        pattern = [Fault.STALL if number % 7 == 3 else Fault.NONE for number in range(100)]
        async with hedging(*pattern) as (store, client, law):
            asyncio.get_running_loop().call_later(0.3, store.release)
            for start in range(0, 200, 4):
                reads = [client.reads(ONE, KEYS[(start + lane) % 30])[0] for lane in range(4)]
                for read in reads:
                    client.fetch([read])
                await client.until_settled(reads)
                assert_own_rows(*reads)
            assert law.copies >= 2

    run(story())


@pytest.mark.parametrize("fault", [Fault.ERROR_500, Fault.THROTTLED, Fault.RESET, Fault.HTML_503])
def test_a_copy_that_fails_leaves_the_word_to_the_first(run: Run, fault: Fault) -> None:
    async def story() -> None:
        async with hedging(Fault.STALL, fault) as (store, client, law):
            reads = client.reads(ONE, "key-1")
            client.fetch(reads)
            await store.until_asked(2)
            await asyncio.sleep(0.01)
            assert client.settled[1:] == []
            store.release()
            await client.until_settled(reads)
            assert_own_rows(*reads)
            assert (len(store.requests), law.won) == (2, 0)

    run(story())


def test_a_first_that_fails_leaves_the_word_to_the_copy(run: Run) -> None:
    async def story() -> None:
        async with hedging(Fault.STALL, Fault.STALL) as (store, client, law):
            reads = client.reads(ONE, "key-1")
            client.fetch(reads)
            await store.until_asked(2)
            first = next(each for each in client.pool.connections if each.answers)
            assert first._transport is not None
            first._transport.abort()
            store.release()
            await client.until_settled(reads)
            assert_own_rows(*reads)
            assert law.copies == 1

    run(story())


def test_when_both_fail_the_read_is_tried_again_once(run: Run) -> None:
    async def story() -> None:
        async with hedging(Fault.STALL, Fault.ERROR_500) as (store, client, _):
            reads = client.reads(ONE, "key-1", within_s=5.0)
            client.reader.timeout_s = 0.1
            client.fetch(reads)
            await client.until_settled(reads)
            assert_own_rows(*reads)
            assert len(store.requests) == 3

    run(story())


def test_no_copy_goes_out_when_all_connections_are_busy(run: Run) -> None:
    async def story() -> None:
        async with hedging(Fault.STALL, settings=PoolSettings(max_connections=1)) as (store, client, law):
            reads = client.reads(ONE, "key-1")
            client.fetch(reads)
            await law.until_slow(1)
            assert (law.slow, law.copies) == (1, 0)
            store.release()
            await client.until_settled(reads)
            assert len(store.requests) == 1

    run(story())


def test_no_copy_goes_out_when_half_of_the_calls_are_slow(run: Run) -> None:
    async def story() -> None:
        async with hedging(*[Fault.NONE] * 6) as (store, client, law):
            await fetched_apart(client, *KEYS[:6])  # opens a connection for each
            law.slow = law.copies = 0
            store.fault_of_all = Fault.STALL
            reads = client.reads(ONE, *KEYS[:6])
            for read in reads:
                client.fetch([read])
            await law.until_slow(6)
            assert law.copies == 0
            store.release()
            await client.until_settled(reads)

    run(story())


def test_a_write_is_never_sent_twice(run: Run) -> None:
    async def story() -> None:
        async with hedging(Fault.STALL) as (store, client, law):
            body = b'{"RequestItems":{"one":[]}}'
            deadline_s = client.loop.time() + 5
            write = asyncio.ensure_future(
                client.caller.call("BatchWriteItem", body, timeout_s=5, deadline_s=deadline_s)
            )
            await law.until_slow(1)
            store.release()
            await write
            assert (law.slow, law.copies, len(store.requests)) == (1, 0, 1)

    run(story())


def test_answers_that_lie_unread_while_the_loop_is_held_up_are_not_slow(run: Run) -> None:
    async def story() -> None:
        async with hedging() as (store, client, law):
            reads = client.reads(ONE, "key-1")
            client.fetch(reads)
            await store.until_asked(1)
            await asyncio.sleep(0)  # the answer is on its way
            time.sleep(3 * AFTER_S)  # noqa: ASYNC251 - holds the loop up
            await client.until_settled(reads)
            assert (law.slow, law.copies) == (0, 0)

    run(story())


def test_a_call_and_its_copy_fail_once_when_the_pool_closes(run: Run) -> None:
    async def story() -> None:
        async with hedging(Fault.STALL, Fault.STALL) as (store, client, law):
            reads = client.reads(ONE, "key-1")
            client.fetch(reads)
            await store.until_asked(2)
            await client.pool.close()
            await client.until_settled(reads)
            assert law.copies == 1
            assert reads[0].error is not None
            assert "the store was closed" in str(reads[0].error)

    run(story())


def test_the_timer_stops_when_nothing_is_under_way(run: Run) -> None:
    async def story() -> None:
        async with hedging() as (_, client, _):
            hedger = client.pool.watcher
            assert isinstance(hedger, Hedger)
            client.pool._tick()
            hedger._look()
            running = [hedger._timer]
            await client.fetched(client.reads(ONE, "key-1"))
            running.append(hedger._timer)
            assert [timer is not None for timer in running] == [False, True]

    run(story())
