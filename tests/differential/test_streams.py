"""Pushes, batch jobs, compactions, restarts and reads in any order: every read is the twin's answer."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.ingest.apply import execute, plan_apply
from fastserve.store.url import open_store
from tests.differential import drawn
from tests.differential.definitions import COLUMNS, Definition, define, push_source, repo_of
from tests.differential.stream_world import World
from tests.differential.streams import record_of
from tests.differential.twin import DAY_NS, HOUR_NS, Lifetime, RawEvent, Rules, Span, Wanted
from tests.support.examples import examples
from tests.support.served import dynamodb_url, serving


@st.composite
def definitions(draw: st.DrawFn, folder: Path) -> Definition:
    rules = draw(drawn.rules())
    one = drawn.wanted(rules, may_have_secondary=False, longest=40)
    asked = draw(st.lists(one, min_size=1, max_size=7))
    if draw(st.integers(0, 2)) == 0:
        asked = drawn.by_secondary_key(asked, draw(drawn.SECONDARY))
    horizon_ns = max(
        draw(st.sampled_from([HOUR_NS, 5 * HOUR_NS + 1000, DAY_NS, 2 * DAY_NS])), rules.interval_ns
    )
    history = str(folder / "*.parquet") if draw(st.booleans()) else None
    start_ns = draw(st.none() | st.integers(-48, 24).map(lambda hours: drawn.T0_NS + hours * HOUR_NS))
    return define("view", push_source("pushes", history), rules, asked, horizon_ns, start_ns)


async def live(world: World, steps: Sequence[str]) -> None:
    """Take steps, and read after each."""
    try:
        await world.open()
        if world.has_files and steps[0] != "push":
            await world.make_rows()  # without any rows nothing of a view with files is told
            await world.restart()
            await world.restart()
        for step in steps:
            await getattr(world, step)()
            await world.read()
    finally:
        await world.close()


STEPS = (
    *("push", "push_again", "advance", "make_rows", "at_once", "advance", "push_again"),
    *("restart", "push_bad", "rehearse", "redefine"),
)


def live_through(folder: Path, url: str, data: st.DataObject) -> None:
    """Draw a view and steps, and take them."""
    definition = data.draw(definitions(folder))
    now_ns = data.draw(drawn.request_times(definition.rules))
    steps = data.draw(st.lists(st.sampled_from(STEPS), min_size=3, max_size=12), label="steps")
    world = World(definition, folder, url, now_ns, data)
    asyncio.run(live(world, steps))
    note(f"{min(world.reads, 10)} reads that weren't missing")


@settings(deadline=None, max_examples=examples(20))
@given(st.data())
def test_reads_are_the_twins_whatever_happens_in_whatever_order(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        live_through(Path(name), f"local:{name}/store?sync=off", data)


@settings(deadline=None, max_examples=examples(4))
@given(st.data())
def test_reads_are_the_twins_on_dynamodb(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name, dynamodb_url() as url:
        live_through(Path(name), url, data)


@pytest.mark.parametrize("store", ["local", "dynamodb"])
def test_a_request_that_comes_again_after_others_counts_once(store: str, tmp_path: Path) -> None:
    rules, now_ns = Rules(HOUR_NS), drawn.T0_NS + HOUR_NS
    asked = [Wanted("count", "units", Lifetime()), Wanted("sum", "units", Span(DAY_NS))]
    definition = define("view", push_source("pushes", None), rules, asked, DAY_NS)
    with dynamodb_url() if store == "dynamodb" else nullcontext(f"local:{tmp_path}/store?sync=off") as url:
        asyncio.run(push_again_and_again(definition, tmp_path, url, now_ns))


async def push_again_and_again(definition: Definition, folder: Path, url: str, now_ns: int) -> None:
    """Push three requests in every order of workers and times."""
    repo, store = repo_of(folder, definition), await open_store(url)
    await execute(await plan_apply(repo, store), store, clock_ns=lambda: now_ns)
    done: set[int] = set()
    async with serving(repo, url) as first, serving(repo, url) as second:
        for turn, number in enumerate([1, 2, 1, 1, 2, 3, 1, 2, 3, 3, 2, 1]):
            event = RawEvent("a", now_ns - number, {**dict.fromkeys(COLUMNS), "units": number})
            body = {"request_id": str(number), "records": {"pushes": [{"record": record_of(event)}]}}
            status, _ = await (first, second)[turn % 2].post("/ingest", body, now_ns)
            assert status == 200
            done.add(number)
            for worker in (first, second):
                (vector,) = await worker.vectors("view", [{"user_id": "a"}], now_ns)
                assert vector.values == {"view.f0": len(done), "view.f1": sum(done)}
    await store.close()
