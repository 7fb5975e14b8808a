"""A store that is gone: reads fail at once, few calls are made, and service comes back by itself."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from heapq import heappop, heappush
from itertools import count
from typing import Any, cast

import pytest

from fastserve.errors import StoreError
from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.dynamodb.breaker import OPEN, Breaker
from fastserve.store.dynamodb.call import Caller
from fastserve.store.dynamodb.connection import Call
from fastserve.store.dynamodb.reader import DynamoDBReader
from fastserve.wire.circuit import FAILURES, PROBES, Circuit
from fastserve.wire.ddb_errors import Failure, Kind
from tests.store.dynamodb.conftest import Run
from tests.support.scripted_store import Fault, ScriptedStore, serving
from tests.support.wire_client import FixedSource, WireClient, wire_client

ONE = ReadGroup(0, ("one",))
ROW = b64encode(b"row").decode()


@asynccontextmanager
async def guarded(*, timeout_s: float = 5.0) -> AsyncIterator[tuple[ScriptedStore, WireClient, Breaker]]:
    """Run a store, and a client whose breaker goes by the client's clock."""
    async with serving() as store, wire_client(store.endpoint, timeout_s=timeout_s) as client:
        store.tables["one"] = {"key": ROW}
        breaker = Breaker(client.pool, Circuit(lambda: 0.5), client.loop.time, client.caller.carry_by)
        client.caller.breaker = breaker
        yield store, client, breaker


async def opened(client: WireClient, breaker: Breaker) -> None:
    """Read until the breaker opens."""
    while not breaker.is_open:
        await client.fetched(client.reads(ONE, "key", within_s=0.05))


def message_of(read: KeyRead) -> str:
    assert isinstance(read.error, StoreError)
    return read.error.message


@pytest.mark.parametrize("fault", [Fault.ERROR_500, Fault.RESET, Fault.HTML_503])
def test_an_open_breaker_answers_at_once_and_closes_when_the_store_is_back(run: Run, fault: Fault) -> None:
    async def story() -> None:
        async with guarded() as (store, client, breaker):
            await client.fetched(client.reads(ONE, "key"))
            store.fault_of_all = fault
            await opened(client, breaker)
            asked = len(store.requests)
            reads = client.reads(ONE, *["key"] * 20)
            for read in reads:
                client.fetch([read])  # settled by the time fetch returns
            await client.until_settled(reads)
            told = f"DynamoDB: reading one: circuit open: {OPEN.text}"
            assert {message_of(read) for read in reads} == {told}
            assert all(read.error is not None and read.error.retryable for read in reads)
            assert len(store.requests) == asked
            store.fault_of_all = None
            while breaker.is_open:
                await client.fetched(client.reads(ONE, "key"))
                await asyncio.sleep(0.01)
            assert len(store.requests) == asked + PROBES
            (read,) = client.reads(ONE, "key")
            await client.fetched([read])
            assert (read.error, read.rows) == (None, [ROW])
            assert breaker.opened == 1

    run(story())


def test_a_store_that_answers_nothing_opens_it(run: Run) -> None:
    async def story() -> None:
        async with guarded(timeout_s=0.06) as (store, client, breaker):
            store.fault_of_all = Fault.STALL
            reads = client.reads(ONE, *["key"] * FAILURES, within_s=2.0)
            for read in reads:
                client.fetch([read])
            await client.until_settled(reads)
            assert breaker.is_open
            assert {message_of(read).split(": ")[2] for read in reads} <= {"circuit open", "timeout"}

    run(story())


def test_a_store_that_is_not_there_opens_it(run: Run) -> None:
    async def story() -> None:
        async with guarded() as (store, client, breaker):
            store.accepting = False
            await opened(client, breaker)

    run(story())


def test_callers_in_a_hurry_do_not_open_it(run: Run) -> None:
    async def story() -> None:
        async with guarded() as (store, client, breaker):
            await client.fetched(client.reads(ONE, "key"))
            store.fault_of_all = Fault.STALL
            for _ in range(3 * FAILURES):
                await client.fetched(client.reads(ONE, "key", within_s=0.002))
            assert not breaker.is_open
            store.release()

    run(story())


def test_a_store_that_throttles_or_refuses_does_not_open_it(run: Run) -> None:
    async def story() -> None:
        async with guarded() as (store, client, breaker):
            store.fault_of_all = Fault.THROTTLED
            reads = client.reads(ONE, *["key"] * 40, within_s=0.4)
            for read in reads:
                client.fetch([read])
            await client.until_settled(reads)
            assert not breaker.is_open
            assert all(read.error is not None and read.error.throttled for read in reads)

    run(story())


def test_the_control_path_waits_for_the_store_to_come_back(run: Run) -> None:
    async def story() -> None:
        async with guarded() as (store, client, breaker):
            store.fault_of_all = Fault.ERROR_500
            await opened(client, breaker)
            client.loop.call_later(0.1, setattr, store, "fault_of_all", None)
            deadline_s = client.loop.time() + 10
            await client.caller.call(
                "BatchWriteItem", b'{"RequestItems":{"one":[]}}', timeout_s=1, deadline_s=deadline_s
            )

    run(story())


# --- how many calls a dead store sees, without a socket ---------------------------------------------------


class DeadStore:
    """A transport on which every call fails after 2 ms, and the loop and clock of all that."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.calls = 0
        self.answered = 0
        self._order = count()
        self._due: list[tuple[float, int, Callable[..., Any], tuple[Any, ...]]] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, function: Callable[..., Any], *arguments: Any) -> None:
        heappush(self._due, (self.now_s + delay_s, next(self._order), function, arguments))

    def request(self, call: Call) -> None:
        self.calls += 1
        self.call_later(0.002, call.on_answer, Failure(Kind.TRANSIENT, "connection lost", "reset"))

    def run(self) -> None:
        while self._due:
            self.now_s, _, function, arguments = heappop(self._due)
            function(*arguments)


def dead_store_reads(*, breaker: bool) -> tuple[DeadStore, int]:
    """Make 5,000 reads of a dead store, one each millisecond; return it and how many were settled."""
    store = DeadStore()
    caller = Caller(store, FixedSource(), "h", "r", lambda: 0.0, store.time, lambda: 0.5)
    if breaker:
        caller.breaker = Breaker(store, Circuit(lambda: 0.5), store.time, caller.carry_by)
    settled: list[KeyRead] = []

    def settle(reads: Sequence[KeyRead]) -> None:
        settled.extend(reads)

    loop = cast("asyncio.AbstractEventLoop", store)
    reader = DynamoDBReader(caller, settle, loop, timeout_s=0.5)
    for number in range(5000):
        at_s = number / 1000
        store.call_later(at_s, reader.fetch, [KeyRead(ONE, f"key-{number}", at_s + 0.5)])
    store.run()
    assert all(read.error is not None for read in settled)
    return store, len(settled)


def test_a_dead_store_sees_at_most_a_tenth_more_than_the_calls() -> None:
    store, settled = dead_store_reads(breaker=False)
    assert settled == 5000
    assert 5000 < store.calls <= 1.1 * 5000
    assert store.calls <= 5000 + 100


def test_with_the_breaker_a_dead_store_sees_hardly_any_calls() -> None:
    store, settled = dead_store_reads(breaker=True)
    assert settled == 5000
    assert store.calls < 400
