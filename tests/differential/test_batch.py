"""Rows of the batch job, in a real store and served the real way, answer as the twin over raw events."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.ingest.apply import execute, plan_apply
from fastserve.ingest.materialize import materialize
from fastserve.store.url import open_store
from tests.differential import drawn
from tests.differential.definitions import COLUMNS, Definition, define, file_source, repo_of
from tests.differential.twin import DAY_NS, HOUR_NS, RawEvent, agrees, answer
from tests.support.examples import examples
from tests.support.served import Served, serving

ARROW = {
    "amount": pa.float64(),
    "units": pa.int64(),
    "kind": pa.string(),
    "flag": pa.bool_(),
    "seen": pa.timestamp("ns", "UTC"),
    "score": pa.float32(),
    "shop": pa.string(),
    "shelf": pa.int64(),
}
KEYS = ("a", "b")
LIMIT_NS = 60 * 10**9


def write_events(path: Path, events: Sequence[RawEvent]) -> None:
    """Write a file of events."""
    columns: dict[str, Any] = {
        "user_id": pa.array([event.key for event in events], pa.string()),
        "at": pa.array([event.time_ns for event in events], pa.timestamp("ns", "UTC")),
    }
    for name in COLUMNS:
        columns[name] = pa.array([event.values[name] for event in events], ARROW[name])
    pq.write_table(pa.table(columns), path)


async def check_vectors(
    served: Served, definition: Definition, events: Sequence[RawEvent], as_of_ns: int, now_ns: int
) -> None:
    """Hold the vectors of all keys at one moment against the twin over the events that rows may have."""
    name = definition.view.name
    rows = [{"user_id": key} for key in (*KEYS, "nobody")]
    vectors = await served.vectors(name, rows, now_ns)
    for row, vector in zip(rows, vectors, strict=True):
        own = [event for event in events if event.key == row["user_id"] and event.time_ns < as_of_ns]
        is_there = now_ns <= as_of_ns + definition.horizon_ns and now_ns >= as_of_ns - LIMIT_NS
        for feature, wanted in definition.asked.items():
            got = vector.values[f"{name}.{feature}"]
            status = vector.statuses[f"{name}.{feature}"]
            asked_ns = max(now_ns, as_of_ns)
            if not is_there:
                assert (got, status) == (None, "MISSING_DATA"), (row, feature, wanted)
            elif status == "MISSING_DATA":
                # No row: the key has no event in any window.
                assert got is None
                want = answer(own, definition.rules, wanted, as_of_ns)
                assert nothing(want), (row, feature, wanted, want)
            else:
                want = answer(own, definition.rules, wanted, asked_ns)
                assert agrees(want, got), (row, feature, wanted, own, as_of_ns, now_ns, want, got)


def nothing(want: Any) -> bool:
    """Tell whether an answer says that there were no events."""
    return want is None or (isinstance(want, list) and all(element is None for element in want))


@st.composite
def definitions(draw: st.DrawFn, folder: Path, longest: int = 60) -> Definition:
    rules = draw(drawn.rules())
    with_key = draw(st.integers(0, 2)) == 0
    one = drawn.wanted(rules, may_have_secondary=False, longest=longest)
    asked = draw(st.lists(one, min_size=1, max_size=8))
    if with_key:
        asked = drawn.by_secondary_key(asked, draw(drawn.SECONDARY))
    horizon_ns = max(draw(st.sampled_from([HOUR_NS, 7 * HOUR_NS, DAY_NS, 2 * DAY_NS])), rules.interval_ns)
    return define("view", file_source(str(folder / "*.parquet")), rules, asked, horizon_ns)


@settings(deadline=None, max_examples=examples(25))
@given(st.data())
def test_rows_answer_as_the_twin_over_the_raw_events(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        definition = data.draw(definitions(folder))
        until_ns = data.draw(drawn.request_times(definition.rules))
        as_of_ns = until_ns // definition.rules.interval_ns * definition.rules.interval_ns
        ahead = st.integers(-LIMIT_NS, definition.horizon_ns) | st.sampled_from(
            [-LIMIT_NS - 1, 0, 1, definition.horizon_ns, definition.horizon_ns + 1]
        )
        times = [as_of_ns + off for off in data.draw(st.lists(ahead, min_size=1, max_size=4))]
        edges = drawn.edges_ns(definition.rules, list(definition.asked.values()), [as_of_ns, *times])
        events = data.draw(drawn.events(edges, KEYS))
        write_events(folder / "events.parquet", events)
        asyncio.run(run(folder, definition, events, until_ns, times))


async def run(
    folder: Path, definition: Definition, events: Sequence[RawEvent], until_ns: int, times: Sequence[int]
) -> None:
    url = f"local:{folder / 'store'}?sync=off"
    repo = repo_of(folder, definition)
    store = await open_store(url)
    try:
        await execute(await plan_apply(repo, store), store)
        await materialize(repo, ["view"], store, until_ns=until_ns, max_bad_rows=0, progress=False)
    finally:
        await store.close()
    as_of_ns = until_ns // definition.rules.interval_ns * definition.rules.interval_ns
    async with serving(repo, url) as served:
        for now_ns in times:
            await check_vectors(served, definition, events, as_of_ns, now_ns)
