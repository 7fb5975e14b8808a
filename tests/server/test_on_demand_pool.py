from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from fastserve import (
    Array,
    Attribute,
    Field,
    Float64,
    Int64,
    RequestContext,
    RequestSource,
    String,
    on_demand_feature_view,
)
from fastserve.sdk.on_demand_columns import input_columns
from fastserve.sdk.types import DataType
from fastserve.server.on_demand_pool import OnDemandPool
from fastserve.server.on_demand_process import NICENESS, start_nursery
from fastserve.serving.on_demand import Done, Job, Outcome, Raised, Stopped

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SCHEMA = [Field("n", Int64), Field("tags", Array(String))]
ROW = {"n": 3, "tags": ["a"]}


def view(function: Callable[..., Any], outputs: dict[str, DataType], mode: Any = "python") -> Any:
    features = [Attribute(name, dtype) for name, dtype in outputs.items()]
    sources = [RequestSource(schema=SCHEMA)]
    return on_demand_feature_view(sources=sources, features=features, mode=mode, isolation="process")(
        function
    )


def tell(source: dict[str, Any], context: RequestContext) -> dict[str, Any]:
    return {"tags": [*source["tags"], context.request_timestamp.isoformat()], "pid": os.getpid()}


def columns(source: dict[str, Any]) -> dict[str, Any]:
    if (source["n"] == 13).any():
        raise ValueError("thirteen")
    return {"half": source["n"] / 2, "tags": source["tags"]}


def fail(source: dict[str, Any]) -> dict[str, Any]:
    raise KeyError(source["n"])


def wrong(source: dict[str, Any]) -> dict[str, Any]:
    return {"x": "three"}


def hang(_source: dict[str, Any]) -> dict[str, Any]:
    while True:
        pass


def die(_source: dict[str, Any]) -> dict[str, Any]:
    os._exit(7)


def leave(_source: dict[str, Any]) -> dict[str, Any]:
    raise SystemExit(3)


def pause(source: dict[str, Any]) -> dict[str, Any]:
    time.sleep(source["n"] / 1000)
    return {"x": source["n"]}


def large(source: dict[str, Any]) -> dict[str, Any]:
    return {"tags": source["tags"] * 2}


VIEWS = {
    each.name: each
    for each in (
        view(tell, {"tags": Array(String), "pid": Int64}),
        view(columns, {"half": Float64, "tags": Array(String)}, mode="numpy"),
        view(fail, {"x": Int64}),
        view(wrong, {"x": Int64}),
        view(hang, {"x": Int64}),
        view(die, {"x": Int64}),
        view(leave, {"x": Int64}),
        view(pause, {"x": Int64}),
        view(large, {"tags": Array(String)}),
    )
}


class World:
    """A pool in a running loop; outcomes come as results of futures."""

    def __init__(self, pool: OnDemandPool) -> None:
        self.pool = pool
        self.loop = asyncio.get_running_loop()

    def submit(
        self,
        name: str,
        row: dict[str, Any] | None = None,
        *,
        limit_s: float | None = None,
        left_s: float = 20.0,
        sources: Sequence[Any] = (),
        lines: int | None = None,
    ) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = self.loop.create_future()
        job = Job(name, lines, sources or [row or ROW], NOW, limit_s, self.loop.time() + left_s)
        self.pool.submit(job, future.set_result)
        assert not future.done()
        return future


def run(story: Callable[[World], Awaitable[None]], helpers: int = 2) -> None:
    nursery = start_nursery(VIEWS, [])

    async def whole() -> None:
        pool = OnDemandPool(nursery, asyncio.get_running_loop(), helpers)
        pool.start()
        try:
            async with asyncio.timeout(30):
                await story(World(pool))
        finally:
            await pool.close()
        with pytest.raises(ProcessLookupError):
            os.kill(nursery.pid, 0)

    asyncio.run(whole())


def test_calls_run_in_other_processes_and_their_values_come_back() -> None:
    async def story(world: World) -> None:
        done = await world.submit("tell")
        assert isinstance(done, Done)
        assert done.values[0] == ["a", NOW.isoformat()]
        assert done.values[1] != os.getpid()
        assert done.took_ns > 0

    run(story)


def test_helpers_leave_the_cpu_to_the_worker() -> None:
    async def story(world: World) -> None:
        done = await world.submit("tell")
        assert isinstance(done, Done)
        assert os.getpriority(os.PRIO_PROCESS, done.values[1]) == min(19, os.nice(0) + NICENESS)

    run(story)


def test_columns_go_there_and_lines_come_back() -> None:
    async def story(world: World) -> None:
        arrays = input_columns(SCHEMA, [{"n": 4, "tags": ["x", None]}, {"n": None, "tags": None}])
        done = await world.submit("columns", sources=[arrays], lines=2)
        assert isinstance(done, Done)
        assert done.values == [[2.0, ["x", None]], [None, None]]
        arrays = input_columns(SCHEMA, [{"n": 13, "tags": []}, {"n": 1, "tags": []}])
        raised = await world.submit("columns", sources=[arrays], lines=2)
        assert isinstance(raised, Raised)
        assert (raised.kind, raised.text) == ("ValueError", "thirteen")

    run(story)


@pytest.mark.parametrize(
    "name, kind, text",
    [
        ("fail", "KeyError", "3"),
        ("wrong", "TypeError", "feature `x`: expected int64 (an int), got str 'three'"),
        ("leave", "SystemExit", "3"),
    ],
)
def test_an_exception_comes_back_with_its_traceback(name: str, kind: str, text: str) -> None:
    async def story(world: World) -> None:
        raised = await world.submit(name)
        assert isinstance(raised, Raised)
        assert (raised.kind, raised.text) == (kind, text)
        assert "Traceback" in raised.traceback
        assert isinstance(await world.submit("tell"), Done)

    run(story, helpers=1)


def test_more_calls_than_helpers_wait_for_their_turn() -> None:
    async def story(world: World) -> None:
        outcomes = await asyncio.gather(*[world.submit("tell") for _ in range(50)])
        assert all(isinstance(outcome, Done) for outcome in outcomes)
        assert len({outcome.values[1] for outcome in outcomes if isinstance(outcome, Done)}) <= 2

    run(story)


def test_a_call_past_its_limit_is_ended_and_others_go_on_beside_it() -> None:
    async def story(world: World) -> None:
        hanging = world.submit("hang", limit_s=0.3)
        others = [await world.submit("tell") for _ in range(20)]
        assert all(isinstance(outcome, Done) for outcome in others)
        assert await hanging == Stopped(None, is_limit=True)
        # Both places are filled again: two calls that wait at the same time end in the time of one.
        outcomes = await asyncio.gather(*[world.submit("pause", {"n": 50, "tags": None}) for _ in range(2)])
        assert all(isinstance(outcome, Done) for outcome in outcomes)

    run(story)


def test_a_call_ends_with_its_request_s_time() -> None:
    async def story(world: World) -> None:
        running = world.submit("hang", limit_s=9.0, left_s=0.2)
        waiting = world.submit("tell", left_s=0.1)
        assert await waiting == Stopped(None, is_limit=False)
        assert not running.done()
        assert await running == Stopped(None, is_limit=False)
        assert isinstance(await world.submit("tell"), Done)

    run(story, helpers=1)


def test_a_call_whose_time_is_over_is_not_begun() -> None:
    async def story(world: World) -> None:
        before = await world.submit("tell")
        assert await world.submit("hang", left_s=-1.0) == Stopped(None, is_limit=False)
        after = await world.submit("tell")
        assert isinstance(before, Done)
        assert isinstance(after, Done)
        assert before.values[1] == after.values[1]

    run(story, helpers=1)


def test_a_result_that_took_longer_than_the_limit_does_not_count() -> None:
    async def story(world: World) -> None:
        slow = world.submit("pause", {"n": 60, "tags": None}, limit_s=0.03)
        assert await slow == Stopped(None, is_limit=True)

    run(story)


def test_a_result_that_has_come_counts_though_the_loop_was_busy_when_it_came() -> None:
    async def story(world: World) -> None:
        await world.submit("tell")
        done = world.submit("pause", {"n": 1, "tags": None}, limit_s=0.1)
        time.sleep(0.2)  # noqa: ASYNC251 - the loop is blocked, as by an inline view
        assert isinstance(await done, Done)

    run(story, helpers=1)


def test_a_helper_that_dies_fails_its_call_and_is_replaced() -> None:
    async def story(world: World) -> None:
        died = await world.submit("die")
        assert died == Stopped("its helper process ended during the call", is_limit=False)
        assert isinstance(await world.submit("tell"), Done)

    run(story, helpers=1)


def test_a_helper_that_is_killed_while_it_has_nothing_to_do_is_replaced() -> None:
    async def story(world: World) -> None:
        done = await world.submit("tell")
        assert isinstance(done, Done)
        os.kill(done.values[1], signal.SIGKILL)
        while True:
            after = await world.submit("tell")
            if isinstance(after, Done) and after.values[1] != done.values[1]:
                break

    run(story, helpers=1)


def test_values_larger_than_a_socket_s_buffer_go_there_and_back() -> None:
    async def story(world: World) -> None:
        tags = [f"{number:09}" for number in range(200_000)]
        done = await world.submit("large", {"n": 1, "tags": tags})
        assert isinstance(done, Done)
        assert done.values == [tags * 2]

    run(story, helpers=1)


def test_nothing_is_left_running_when_the_pool_closes() -> None:
    async def story(world: World) -> None:
        done = await world.submit("tell")
        assert isinstance(done, Done)
        pids.append(done.values[1])
        hanging.append(world.submit("hang"))

    hanging: list[asyncio.Future[Outcome]] = []
    pids: list[int] = []
    run(story, helpers=2)
    until_s = time.monotonic() + 10
    while pids and time.monotonic() < until_s:
        try:
            os.kill(pids[0], 0)
        except ProcessLookupError:
            pids.pop()
    assert not pids
