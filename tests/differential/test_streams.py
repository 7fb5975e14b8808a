"""Pushes, batch jobs, compactions, restarts and reads in any order: every read is the twin's answer."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.ingest import materialize as batch_job
from fastserve.ingest.apply import execute, plan_apply
from fastserve.ingest.refresh import RefreshSettings, compact_by_hand, new_runner
from fastserve.ingest.registry import Registry
from fastserve.plan.views import plan_view
from fastserve.store.interface import OnlineStore
from fastserve.store.url import open_store
from tests.differential import drawn
from tests.differential.definitions import Definition, define, push_source, repo_of
from tests.differential.streams import SKEW_NS, Expected, StreamModel, record_of, spans_of
from tests.differential.test_batch import nothing, write_events
from tests.differential.twin import DAY_NS, HOUR_NS, RawEvent, agrees, bounds_ns
from tests.support.served import Served, serving

KEYS = ("a", "a\t20454")
SETTLE_NS = 60 * 10**9


class World:
    """A view in a store with two workers over it, and the model of what it must answer."""

    def __init__(self, definition: Definition, folder: Path, now_ns: int, data: st.DataObject) -> None:
        self.definition = definition
        self.folder = folder
        self.now_ns = now_ns
        self.data = data
        self.has_files = definition.view.batch_source is not None
        self.repo = repo_of(folder, definition)
        self.url = f"local:{folder / 'store'}?sync=off"
        self.model = StreamModel(definition, None if self.has_files else now_ns)
        self.store: OnlineStore
        self.workers: list[tuple[AsyncExitStack, Served, int | None]] = []
        self.requests = 0
        self.reads = 0

    async def open(self) -> None:
        """Apply the repo and start both workers."""
        self.store = await open_store(self.url)
        await execute(await plan_apply(self.repo, self.store), self.store, clock_ns=lambda: self.now_ns)
        for _ in range(2):
            await self.start_worker()

    async def close(self) -> None:
        """Stop all."""
        for stack, _, _ in self.workers:
            await stack.aclose()
        await self.store.close()

    async def start_worker(self) -> None:
        """Start a worker, which learns now until when the view is complete."""
        stack = AsyncExitStack()
        served = await stack.enter_async_context(serving(self.repo, self.url))
        self.workers.append((stack, served, self.model.complete_until_ns))

    async def restart(self) -> None:
        """Replace the older worker."""
        stack, _, _ = self.workers.pop(0)
        await stack.aclose()
        await self.start_worker()

    def any_worker(self) -> tuple[Served, int | None]:
        """Return one of the workers, and until when it knows the view complete."""
        _, served, complete_until_ns = self.data.draw(st.sampled_from(self.workers), label="worker")
        return served, complete_until_ns

    # --- steps --------------------------------------------------------------------------------------------

    async def push(self) -> None:
        """Push some events, now and then more than once, from one worker or from both at a time."""
        events = self.data.draw(st.lists(self.new_events(), min_size=1, max_size=6), label="pushed")
        self.requests += 1
        body = {
            "workspace_name": "w",
            "request_id": f"request-{self.requests}",
            "records": {"pushes": [{"record": record_of(event)} for event in events]},
        }
        senders = [self.any_worker()[0] for _ in range(self.data.draw(st.sampled_from([1, 1, 1, 2, 3])))]
        answers = await asyncio.gather(*(sender.post("/ingest", body, self.now_ns) for sender in senders))
        for status, document in answers:
            assert status == 200, document
            (metrics,) = document["ingestMetrics"]["featureViewIngestMetrics"]
            assert metrics == {"featureViewName": "view", "onlineRecordIngestCount": str(len(events))}
        self.model.pushed += events

    async def push_bad(self) -> None:
        """Push events of which one can't be taken: nothing of them counts."""
        events = self.data.draw(st.lists(self.new_events(), min_size=1, max_size=3), label="refused")
        records = [{"record": record_of(event)} for event in events]
        bad = dict(records[0]["record"])
        reach_ns = self.model.reach_ns
        faults = ["late" if reach_ns is not None else "early", "early", "no time", "no key", "type"]
        fault = self.data.draw(st.sampled_from(faults), label="fault")
        if fault == "late":
            assert reach_ns is not None
            bad["at"] = record_of(RawEvent("a", self.now_ns - reach_ns - 1, {}))["at"]
        elif fault == "early":
            bad["at"] = record_of(RawEvent("a", self.now_ns + SKEW_NS + 1, {}))["at"]
        elif fault == "type":
            bad["units"] = "many"
        else:
            bad.pop("at" if fault == "no time" else "user_id")
        records.insert(self.data.draw(st.integers(0, len(records))), {"record": bad})
        served, _ = self.any_worker()
        status, document = await served.post("/ingest", {"records": {"pushes": records}}, self.now_ns)
        assert status == 400, document
        assert len(document["recordErrors"]) == 1, document

    def new_events(self) -> st.SearchStrategy[RawEvent]:
        """Events that can be pushed now, many at edges of windows, blocks and rows."""
        model = self.model
        last_ns = self.now_ns + SKEW_NS
        reach_ns = model.reach_ns
        first_ns = self.now_ns - (20 * DAY_NS if reach_ns is None else reach_ns)
        block_ns = model.now_block_ns(self.now_ns)
        edges = [first_ns, last_ns, self.now_ns, block_ns, block_ns - model.block_ns]
        edges += [row.as_of_ns for row in model.rows.values()]
        edges += drawn.edges_ns(self.definition.rules, list(self.definition.asked.values()), [self.now_ns])
        near = st.builds(lambda edge, off: edge + off, st.sampled_from(sorted(edges)), st.integers(-1, 1))
        recent = st.integers(max(first_ns, self.now_ns - model.block_ns), last_ns)
        times = st.one_of(recent, near, st.integers(first_ns, last_ns)).map(
            lambda time_ns: min(max(time_ns, first_ns), last_ns)
        )
        return st.builds(RawEvent, st.sampled_from(KEYS), times, drawn.columns())

    async def make_rows(self) -> None:
        """Run the batch job, or compact."""
        ago = st.sampled_from([0, 1, SETTLE_NS]) | st.integers(0, self.definition.horizon_ns)
        until_ns = self.now_ns - self.data.draw(ago, label="until ago")
        latest_ns = max((row.as_of_ns for row in self.model.rows.values()), default=0)
        if self.model.as_of_ns(until_ns) < max(latest_ns, self.model.complete_until_ns or 0):
            until_ns = self.now_ns
        if self.has_files:
            await self.materialize(until_ns)
        else:
            await self.compact(until_ns)

    async def materialize(self, until_ns: int) -> None:
        """Land rows of files that have what was pushed before, and more that wasn't or less."""
        older = st.lists(
            drawn.events(sorted({until_ns, until_ns - 1, until_ns - HOUR_NS}), KEYS, 3), max_size=1
        )
        more = [event for part in self.data.draw(older, label="only in files") for event in part]
        count = len(self.model.pushed)
        kept = self.data.draw(st.sampled_from([count, count, max(count - 1, 0)]), label="in files")
        files = [*self.model.pushed[:kept], *more]
        write_events(self.folder / "events.parquet", files)
        # Expired blocks are swept by the clock of this world.
        clock = SimpleNamespace(time=lambda: self.now_ns / 1e9, perf_counter=lambda: 0.0)
        with patch.object(batch_job, "time", clock):
            await batch_job.materialize(
                self.repo, ["view"], self.store, until_ns=until_ns, max_bad_rows=0, progress=False
            )
        self.model.make_rows(files, until_ns, forget=False)

    async def compact(self, until_ns: int) -> None:
        """Make rows of what was pushed."""
        plan = plan_view(self.definition.view, "w", "")
        registry = Registry(self.store, "w")
        await compact_by_hand(
            [plan],
            self.store,
            registry,
            until_ns=until_ns,
            settings=RefreshSettings(progress=False),
            runner=new_runner(lambda: self.now_ns),
        )
        self.model.make_rows(self.model.pushed, until_ns, forget=True)

    async def advance(self) -> None:
        """Let time pass: a little, to an edge, or over a horizon."""
        block_end_ns = self.model.now_block_ns(self.now_ns) + self.model.block_ns
        horizon_ns = self.definition.horizon_ns
        jumps = [1, self.model.interval_ns, HOUR_NS, block_end_ns - self.now_ns, horizon_ns]
        rows_end = [row.as_of_ns + horizon_ns - self.now_ns for row in self.model.rows.values()]
        jumps += [jump for jump in rows_end if jump > 0]
        exactly = st.builds(lambda jump, off: max(jump + off, 0), st.sampled_from(jumps), st.integers(-1, 1))
        self.now_ns += self.data.draw(exactly | st.integers(0, horizon_ns), label="later by")

    async def read(self) -> None:
        """Read all keys from one worker, and hold them against the model."""
        served, complete_until_ns = self.any_worker()
        keys = [*KEYS, "nobody"]
        vectors = await served.vectors("view", [{"user_id": key} for key in keys], self.now_ns)
        for key, vector in zip(keys, vectors, strict=True):
            expected = self.model.expected(key, self.now_ns, complete_until_ns)
            statuses = set(vector.statuses.values())
            got = {name.split(".")[1]: value for name, value in vector.values.items()}
            if expected.missing:
                assert statuses == {"MISSING_DATA"}, (key, statuses, got)
                assert set(got.values()) == {None}, (key, got)
                continue
            self.reads += 1
            assert len(statuses) == 1, statuses
            for name, want in self.model.answers(expected).items():
                told = got[name]
                if statuses == {"MISSING_DATA"}:
                    assert told is None, (key, name, told)
                right = nothing(want) if statuses == {"MISSING_DATA"} else agrees(want, told)
                if not right:
                    pytest.fail(self.difference(key, name, want, told, statuses, expected))

    def difference(
        self, key: str, name: str, want: Any, told: Any, statuses: set[str], expected: Expected
    ) -> str:
        """Return what a reader needs to find a wrong answer."""
        wanted = self.definition.asked[name]
        rules, row = self.definition.rules, self.model.rows.get(key)
        as_of_ns = None if row is None else row.as_of_ns
        lines = [
            f"{name} of key {key!r}: {told!r} ({', '.join(statuses)}), expected {want!r}",
            f"  {wanted}, {rules}, horizon {self.definition.horizon_ns}, blocks of {self.model.block_ns}",
            f"  now {self.now_ns}, row as of {as_of_ns}, complete until {self.model.complete_until_ns}",
        ]
        windows = [bounds_ns(rules, span, wanted.hop_ns, expected.time_ns) for span in spans_of(wanted)]
        lines += [f"  window {bounds}" for bounds in windows]
        for e in expected.events:
            lines += [f"  {e.time_ns} {e.values.get(wanted.column)!r} {e.values['shop']!r}"]
        return "\n".join(lines)


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
    return define("view", push_source("pushes", history), rules, asked, horizon_ns)


async def live(world: World, steps: Sequence[str]) -> None:
    """Take steps, and read after each."""
    try:
        await world.open()
        for step in steps:
            await getattr(world, step)()
            await world.read()
    finally:
        await world.close()


STEPS = ("push", "push", "push", "make_rows", "advance", "advance", "restart", "push_bad")


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_reads_are_the_twins_whatever_happens_in_whatever_order(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        definition = data.draw(definitions(Path(name)))
        now_ns = data.draw(drawn.request_times(definition.rules))
        steps = data.draw(st.lists(st.sampled_from(STEPS), min_size=3, max_size=12), label="steps")
        world = World(definition, Path(name), now_ns, data)
        asyncio.run(live(world, steps))
        note(f"{min(world.reads, 10)} reads that weren't missing")
