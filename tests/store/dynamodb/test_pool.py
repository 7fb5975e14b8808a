"""The pool lends few connections, keeps to its limits, and gives every call one outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from fastserve.store.dynamodb.connection import Connection
from fastserve.store.dynamodb.endpoint import Endpoint
from fastserve.store.dynamodb.pool import IDLE_MAX_S, IDLE_MIN_S, Pool, PoolSettings
from fastserve.wire.client_http import Answer
from fastserve.wire.ddb_errors import Failure
from tests.store.dynamodb.conftest import Run
from tests.support.scripted_store import Fault, ScriptedStore, serving

BODY = b'{"RequestItems":{"one":{"Keys":[{"k":{"S":"a"}}]}}}'
PAYLOAD = (
    b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: DynamoDB_20120810.BatchGetItem\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


@dataclass
class AwaitedCall:
    """A call whose outcome can be awaited."""

    payload: bytes = PAYLOAD
    timeout_s: float = 10.0
    deadline_s: float = 0.0
    resent: bool = False
    outcomes: list[bytes | Failure] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def on_answer(self) -> Callable[[Answer | Failure], None]:
        return self.take

    def take(self, outcome: Answer | Failure) -> None:
        assert not self.outcomes, "a call has one outcome"
        self.outcomes.append(outcome if isinstance(outcome, Failure) else bytes(outcome.body))
        self.done.set()


def new_pool(endpoint: str, settings: PoolSettings | None = None) -> Pool:
    draws: Iterator[float] = iter([0.0, 1.0] * 1000)
    return Pool(
        asyncio.get_running_loop(),
        Endpoint.of_url(endpoint),
        settings or PoolSettings(),
        None,
        lambda: next(draws),
    )


def requested(pool: Pool, within_s: float = 10.0) -> AwaitedCall:
    call = AwaitedCall(deadline_s=asyncio.get_running_loop().time() + within_s)
    pool.request(call)
    return call


async def answered(*calls: AwaitedCall) -> None:
    for call in calls:
        await call.done.wait()
        assert call.outcomes == [b'{"Responses":{"one":[]},"UnprocessedKeys":{}}']


async def failed(call: AwaitedCall) -> Failure:
    await call.done.wait()
    outcome = call.outcomes[0]
    assert isinstance(outcome, Failure)
    return outcome


def told(run: Run, story: Callable[[ScriptedStore], object], script: list[Fault] | None = None) -> None:
    async def whole() -> None:
        async with serving(script or []) as store:
            store.tables["one"] = {}
            outcome = story(store)
            assert asyncio.iscoroutine(outcome)
            await outcome

    run(whole())


def test_calls_one_after_the_other_share_one_connection(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint)
        for _ in range(20):
            await answered(requested(pool))
        assert store.connections == pool.opened == 1
        await pool.close()

    told(run, story)


def test_at_most_so_many_connections_serve_any_number_of_calls(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint, PoolSettings(max_connections=3))
        await answered(*[requested(pool) for _ in range(100)])
        assert store.connections == 3
        await pool.close()

    told(run, story)


def test_the_connection_used_last_is_used_next(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint)
        await answered(*[requested(pool) for _ in range(4)])
        hot = pool._idle[-1]
        before = hot.answers
        for _ in range(10):
            await answered(requested(pool))
        assert hot.answers == before + 10
        await pool.close()

    told(run, story)


def test_a_call_over_the_limit_of_waiting_ones_fails_at_once_as_throttled(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint, PoolSettings(max_connections=1, max_waiting=2))
        calls = [requested(pool) for _ in range(3)]
        assert (await failed(calls[2])).error("x").throttled
        await answered(*calls[:2])
        await pool.close()

    told(run, story)


def test_a_pool_tells_how_many_calls_have_stood_in_line_and_how_many_stand_there(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint, PoolSettings(max_connections=1))
        calls = [requested(pool) for _ in range(3)]
        assert pool.line == (3, 3)
        await answered(*calls)
        await answered(requested(pool))  # the connection is free: no line
        assert pool.line == (3, 0)
        await pool.close()

    told(run, story)


def test_idle_connections_that_died_cost_a_call_nothing(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint)
        await answered(*[requested(pool) for _ in range(4)])
        store.drop_connections()
        await answered(*[requested(pool) for _ in range(4)])
        await pool.close()

    told(run, story)


def test_a_call_is_sent_again_only_once(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint)
        await answered(requested(pool))
        store.fault_of_all = Fault.RESET
        call = requested(pool)
        assert (await failed(call)).name == "connection lost"
        assert call.resent
        assert len(store.requests) == 3
        await pool.close()

    told(run, story)


def test_a_call_whose_answer_had_begun_is_not_sent_again(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint)
        await answered(requested(pool))
        store.script.append(Fault.RESET_MID_ANSWER)
        call = requested(pool)
        assert (await failed(call)).name == "connection lost"
        assert not call.resent
        await pool.close()

    told(run, story)


@pytest.mark.parametrize("fault", [Fault.CLOSE_AFTER, Fault.CLOSE_SILENTLY, Fault.UNASKED])
def test_a_connection_in_doubt_is_not_used_again(run: Run, fault: Fault) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint)
        await answered(requested(pool))
        await answered(requested(pool))
        assert store.connections == 2
        await pool.close()

    told(run, story, [fault])


def test_a_call_that_is_not_answered_in_time_fails_and_takes_its_connection_along(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint, PoolSettings(max_connections=1))
        late, waiting = requested(pool, 0.03), requested(pool, 0.03)
        waiting.deadline_s = late.deadline_s  # or a connection that is free in between is its own
        assert (await failed(late)).name == "timeout"
        assert (await failed(waiting)).name == "timeout"
        store.release()
        await answered(requested(pool))
        assert store.connections == 2
        await pool.close()

    told(run, story, [Fault.STALL])


def test_waiting_for_a_connection_is_not_the_services_time(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint, PoolSettings(max_connections=1))
        slow, waiting = requested(pool), requested(pool)
        slow.timeout_s = waiting.timeout_s = 0.03
        assert (await failed(slow)).name == "timeout"
        await answered(waiting)
        await pool.close()

    told(run, story, [Fault.STALL])


def test_a_loop_that_was_held_up_reads_answers_before_it_calls_them_late(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint)
        call = requested(pool)
        await store.until_asked(1)
        pool._ticked_s -= 10.0
        pool._open.copy().pop()._due_s = 0.0
        assert pool._tick_timer is not None
        pool._tick_timer.cancel()
        pool._tick()
        assert not call.outcomes
        pool._tick()
        assert (await failed(call)).name == "timeout"
        await pool.close()

    told(run, story, [Fault.STALL])


def test_a_call_whose_time_is_over_is_not_sent_when_its_turn_comes(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint, PoolSettings(max_connections=1))
        first, late, last = requested(pool), requested(pool), requested(pool)
        await store.until_asked(1)
        late.deadline_s = 0.0
        store.release()
        await answered(first, last)
        assert (await failed(late)).name == "timeout"
        assert len(store.requests) == 2
        assert store.connections == 1
        await pool.close()

    told(run, story, [Fault.STALL])


def test_the_timers_stop_when_there_is_nothing_to_watch(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint)
        await answered(requested(pool))
        pool._tick()
        running = [pool._tick_timer]
        await answered(requested(pool))
        running.append(pool._tick_timer)
        assert [timer is not None for timer in running] == [False, True]
        await pool.close()

    told(run, story)


def test_connections_idle_for_long_are_closed_by_us_and_others_are_kept(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint)
        await answered(*[requested(pool) for _ in range(4)])
        long_idle, *others = pool._idle
        assert all(IDLE_MIN_S <= one.idle_limit_s <= IDLE_MAX_S for one in pool._idle)
        long_idle.idle_since_s -= long_idle.idle_limit_s
        for one in others:
            one.idle_since_s -= IDLE_MIN_S - 1
        pool._retire()
        assert pool._idle == others
        await answered(requested(pool))
        await pool.close()

    told(run, story)


def test_a_connection_past_its_age_is_closed_after_its_answer(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint, PoolSettings(max_age_s=0.0))
        for _ in range(3):
            await answered(requested(pool))
        # Too old from the start: kept for the call that it was opened for, and no longer.
        assert store.connections == 3
        await pool.close()

    told(run, story)


def test_calls_fail_when_no_connection_can_be_opened(run: Run) -> None:
    async def story() -> None:
        async with serving() as store:
            endpoint = store.endpoint
        pool = new_pool(endpoint)
        for _ in range(2):
            failure = await failed(requested(pool))
            assert failure.name == f"can't connect to {endpoint[7:]}"
            assert failure.retryable
        await pool.close()

    run(story())


def test_a_server_that_hangs_up_on_every_connection_fails_calls_and_does_not_spin(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        store.accepting = False
        pool = new_pool(store.endpoint)
        assert (await failed(requested(pool))).retryable
        assert store.connections <= 2
        await pool.close()

    told(run, story)


def test_a_name_that_does_not_resolve_is_an_error(run: Run) -> None:
    async def story() -> None:
        pool = new_pool("http://does-not-exist.invalid:80")
        failure = await failed(requested(pool))
        assert failure.name == "can't connect to does-not-exist.invalid:80"
        await pool.close()

    run(story())


def test_closing_fails_what_is_under_way_and_what_waits(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        pool = new_pool(store.endpoint, PoolSettings(max_connections=1))
        calls = [requested(pool), requested(pool)]
        await store.until_asked(1)
        await pool.close()
        assert [(await failed(call)).name for call in calls] == ["closed", "closed"]
        assert (await failed(requested(pool))).name == "closed"

    told(run, story, [Fault.STALL])


def test_a_large_answer_grows_the_buffer_and_gives_it_back(run: Run) -> None:
    async def story(store: ScriptedStore) -> None:
        store.tables["one"] = {"a": "A" * 3_000_000}
        pool = new_pool(store.endpoint)
        call = requested(pool)
        await call.done.wait()
        (outcome,) = call.outcomes
        assert isinstance(outcome, bytes)
        assert outcome.count(b"A") == 3_000_000
        connection: Connection = pool._idle[0]
        assert len(connection._buffer) == 64 * 1024
        store.tables["one"] = {}
        await answered(requested(pool))
        assert store.connections == 1
        await pool.close()

    told(run, story)
