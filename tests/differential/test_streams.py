"""Pushes, batch jobs, compactions, restarts and reads in any order: every read is the twin's answer."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.differential import drawn
from tests.differential.definitions import Definition, define, push_source
from tests.differential.stream_world import World
from tests.differential.twin import DAY_NS, HOUR_NS
from tests.support.served import dynamodb_url

KEYS = ("a", "a\t20454")
SETTLE_NS = 60 * 10**9


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
        for step in steps:
            await getattr(world, step)()
            await world.read()
    finally:
        await world.close()


STEPS = (
    *("push", "push", "push", "make_rows", "advance", "advance"),
    *("restart", "push_bad", "rehearse", "at_once", "at_once", "redefine"),
)


def live_through(folder: Path, url: str, data: st.DataObject) -> None:
    """Draw a view and steps, and take them."""
    definition = data.draw(definitions(folder))
    now_ns = data.draw(drawn.request_times(definition.rules))
    steps = data.draw(st.lists(st.sampled_from(STEPS), min_size=3, max_size=12), label="steps")
    world = World(definition, folder, url, now_ns, data)
    asyncio.run(live(world, steps))
    note(f"{min(world.reads, 10)} reads that weren't missing")


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_reads_are_the_twins_whatever_happens_in_whatever_order(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        live_through(Path(name), f"local:{name}/store?sync=off", data)


@settings(deadline=None, max_examples=8)
@given(st.data())
def test_reads_are_the_twins_on_dynamodb(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name, dynamodb_url() as url:
        live_through(Path(name), url, data)
