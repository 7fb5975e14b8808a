"""A streamed view in a real store with two workers over it, and the steps that may be taken with it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import strategies as st

from fastserve.ingest import materialize as batch_job
from fastserve.ingest.apply import execute, plan_apply
from fastserve.ingest.refresh import RefreshSettings, compact_by_hand, new_runner
from fastserve.ingest.registry import Registry
from fastserve.plan.views import plan_view
from fastserve.store.interface import OnlineStore
from fastserve.store.url import open_store
from tests.differential import drawn
from tests.differential.definitions import Definition, define, repo_of
from tests.differential.streams import SKEW_NS, Expected, StreamModel, record_of, spans_of
from tests.differential.test_batch import nothing, write_events
from tests.differential.twin import DAY_NS, HOUR_NS, RawEvent, agrees, bounds_ns
from tests.support.served import Served, Vector, serving

KEYS = ("a", "a\t20454")
SETTLE_NS = 60 * 10**9
KEPT_NS = 600 * 10**9
"""For so long a block knows the requests that it was written by."""


class World:
    """A view in a store with two workers over it, and the model of what it must answer."""

    def __init__(
        self, definition: Definition, folder: Path, url: str, now_ns: int, data: st.DataObject
    ) -> None:
        self.definition = definition
        self.pool = dict(definition.asked)
        self.lasting = set(definition.asked)
        self.folder = folder
        self.now_ns = now_ns
        self.data = data
        self.has_files = definition.view.batch_source is not None
        self.repo = repo_of(folder, definition)
        self.url = url
        self.model = StreamModel(definition, None if self.has_files else now_ns)
        self.landed_schema: int | None = None
        self.store: OnlineStore
        self.workers: list[tuple[AsyncExitStack, Served, int | None]] = []
        self.requests = 0
        self.sent: list[tuple[int, Any]] = []
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
        """Start a worker, which learns now until when the view is complete.

        Rows of files that landed before the view was defined anew don't say so: they may lack a window.
        """
        stack = AsyncExitStack()
        served = await stack.enter_async_context(serving(self.repo, self.url))
        is_told = not self.has_files or self.landed_schema == self.schema()
        self.workers.append((stack, served, self.model.complete_until_ns if is_told else None))

    def schema(self) -> int:
        """Return what tells rows of the present definition from those of others."""
        return plan_view(self.definition.view, "w", "").layout.schema_id

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
        senders = [self.any_worker()[0] for _ in range(self.data.draw(st.sampled_from([1, 1, 1, 2, 3])))]
        await self.send(events, senders)
        self.model.pushed += events

    async def rehearse(self) -> None:
        """Push events that are only looked at."""
        events = self.data.draw(st.lists(self.new_events(), min_size=1, max_size=3), label="rehearsed")
        body = {"dry_run": True, "records": {"pushes": [{"record": record_of(each)} for each in events]}}
        status, document = await self.any_worker()[0].post("/ingest", body, self.now_ns)
        assert status == 200, document

    async def push_again(self) -> None:
        """Push two requests, and one of all that were answered lately again: nothing of it counts."""
        await self.push()
        await self.push()
        recent = [body for sent_ns, body in self.sent if sent_ns > self.now_ns - KEPT_NS]
        body = self.data.draw(st.sampled_from(recent), label="again")
        status, document = await self.any_worker()[0].post("/ingest", body, self.now_ns)
        assert status in {200, 400}, document  # its events may be too old by now

    async def send(self, events: Sequence[RawEvent], senders: Sequence[Served]) -> None:
        """Send one request, to several workers at a time if several are named."""
        self.requests += 1
        body = {
            "workspace_name": "w",
            "request_id": f"request-{self.requests}",
            "records": {"pushes": [{"record": record_of(event)} for event in events]},
        }
        self.sent.append((self.now_ns, body))
        answers = await asyncio.gather(*(sender.post("/ingest", body, self.now_ns) for sender in senders))
        for status, document in answers:
            assert status == 200, document
            (metrics,) = document["ingestMetrics"]["featureViewIngestMetrics"]
            assert metrics == {"featureViewName": "view", "onlineRecordIngestCount": str(len(events))}

    async def push_bad(self) -> None:
        """Push events of which one can't be taken: nothing of them counts."""
        events = self.data.draw(st.lists(self.new_events(), min_size=1, max_size=3), label="refused")
        records = [{"record": record_of(event)} for event in events]
        bad = dict(records[0]["record"])
        reach_ns = self.model.reach_ns
        faults = ["late" if reach_ns is not None else "early", "early", "no time", "no key", "type"]
        fault = self.data.draw(st.sampled_from(faults), label="fault")
        if fault == "late":
            earliest_ns = self.model.earliest_ns(self.now_ns)
            assert earliest_ns is not None
            bad["at"] = record_of(RawEvent("a", earliest_ns - 1, {}))["at"]
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
        await self.run_job(*self.next_job())

    async def at_once(self) -> None:
        """Push, run the job and read, all at the same time: each read is that of some order."""
        until_ns, files = self.next_job()
        events = self.data.draw(self.events_at_once(until_ns), label="pushed at once")
        sender, (reader, complete_until_ns) = self.any_worker()[0], self.any_worker()
        states = [self.model.copied() for _ in range(4)]
        seen = self.model.pushed if files is None else files
        for state in states[2:]:
            state.make_rows(seen, until_ns, forget=files is None)
        for state in states[1::2]:
            state.pushed += events
        pushed = self.send(events, [sender]) if events else asyncio.sleep(0)
        done = asyncio.gather(pushed, self.run_job(until_ns, files))
        while not done.done():
            await self.check(reader, complete_until_ns, states)
        await done
        self.model = states[3]
        await self.check(reader, complete_until_ns, [self.model])

    def events_at_once(self, until_ns: int) -> st.SearchStrategy[list[RawEvent]]:
        """Events of one block that a job until then hasn't to see; none if there can't be any."""
        block_ns = self.model.now_block_ns(self.now_ns)
        first_ns = max(self.model.as_of_ns(until_ns), block_ns)
        last_ns = min(self.now_ns + SKEW_NS, block_ns + self.model.block_ns - 1)
        if first_ns > last_ns:
            return st.just([])
        times = st.integers(first_ns, last_ns)
        one = st.builds(RawEvent, st.sampled_from(KEYS), times, drawn.columns())
        return st.lists(one, min_size=1, max_size=3)

    def next_job(self) -> tuple[int, list[RawEvent] | None]:
        """Draw until when the next job makes rows, and of which events where it has files."""
        ago = st.sampled_from([0, 1, SETTLE_NS]) | st.integers(0, self.definition.horizon_ns)
        until_ns = self.now_ns - self.data.draw(ago, label="until ago")
        latest_ns = max((row.as_of_ns for row in self.model.rows.values()), default=0)
        if self.model.as_of_ns(until_ns) < max(latest_ns, self.model.complete_until_ns or 0):
            until_ns = self.now_ns
        return until_ns, self.next_files(until_ns) if self.has_files else None

    async def run_job(self, until_ns: int, files: list[RawEvent] | None) -> None:
        """Run the job, and tell the model."""
        if files is None:
            seen = list(self.model.pushed)
            await self.compact(until_ns)
        else:
            seen = files
            await self.materialize(until_ns, files)
        self.model.make_rows(seen, until_ns, forget=files is None)

    def next_files(self, until_ns: int) -> list[RawEvent]:
        """Draw what files have: what was pushed before, and more that wasn't or less."""
        older = st.lists(
            drawn.events(sorted({until_ns, until_ns - 1, until_ns - HOUR_NS}), KEYS, 3), max_size=1
        )
        more = [event for part in self.data.draw(older, label="only in files") for event in part]
        count = len(self.model.pushed)
        kept = self.data.draw(st.sampled_from([count, count, max(count - 1, 0)]), label="in files")
        return [*self.model.pushed[:kept], *more]

    async def materialize(self, until_ns: int, files: Sequence[RawEvent]) -> None:
        """Land rows of files."""
        write_events(self.folder / "events.parquet", files)
        # Expired blocks are swept by the clock of this world.
        clock = SimpleNamespace(time=lambda: self.now_ns / 1e9, perf_counter=lambda: 0.0)
        with patch.object(batch_job, "time", clock):
            await batch_job.materialize(
                self.repo, ["view"], self.store, until_ns=until_ns, max_bad_rows=0, progress=False
            )
        self.landed_schema = self.schema()

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

    async def redefine(self) -> None:
        """Leave aggregates out, bring them back and change their order; both workers are replaced."""
        some = st.lists(st.sampled_from(sorted(self.pool)), min_size=1, unique=True)
        names = self.data.draw(some, label="kept")
        asked = {name: self.pool[name] for name in names if self.pool[name].function != "secondary_keys"}
        if not asked:
            return
        source, old = self.definition.view.source, self.definition
        self.definition = define("view", source, old.rules, asked, old.horizon_ns, old.start_ns)
        self.lasting &= set(self.definition.asked)
        self.model.definition = self.definition
        self.repo = repo_of(self.folder, self.definition)
        await execute(await plan_apply(self.repo, self.store), self.store, clock_ns=lambda: self.now_ns)
        for _ in range(2):
            await self.restart()

    async def advance(self) -> None:
        """Let time pass: a little, to an edge, or over a horizon."""
        block_end_ns = self.model.now_block_ns(self.now_ns) + self.model.block_ns
        horizon_ns = self.definition.horizon_ns
        jumps = [1, self.model.interval_ns, HOUR_NS, block_end_ns - self.now_ns, horizon_ns]
        rows_end = [row.as_of_ns + horizon_ns - self.now_ns for row in self.model.rows.values()]
        jumps += [jump for jump in rows_end if jump > 0]
        if turns := [turn - self.now_ns for turn in self.model.turns_ns() if turn > self.now_ns]:
            jumps += self.data.draw(st.lists(st.sampled_from(turns), max_size=6), label="turns")
        exactly = st.builds(lambda jump, off: max(jump + off, 0), st.sampled_from(jumps), st.integers(-1, 1))
        self.now_ns += self.data.draw(exactly | st.integers(0, horizon_ns), label="later by")

    async def read(self) -> None:
        """Read all keys from one worker, whose clock may be behind, and hold them against the model."""
        served, complete_until_ns = self.any_worker()
        behind_ns = self.data.draw(st.sampled_from([0, 0, 0, 1, SKEW_NS, SKEW_NS + 1]), label="behind by")
        await self.check(served, complete_until_ns, [self.model], behind_ns)

    async def check(
        self,
        served: Served,
        complete_until_ns: int | None,
        states: Sequence[StreamModel],
        behind_ns: int = 0,
    ) -> None:
        """Read all keys, each of which must be as one of these states has it."""
        keys = [*KEYS, "nobody"]
        time_ns = self.now_ns - behind_ns
        vectors = await served.vectors("view", [{"user_id": key} for key in keys], time_ns)
        for key, vector in zip(keys, vectors, strict=True):
            wrong = [self.wrong(state, key, vector, time_ns, complete_until_ns) for state in states]
            if all(wrong):
                pytest.fail("\n".join(each for each in wrong if each))

    def wrong(
        self, model: StreamModel, key: str, vector: Vector, time_ns: int, complete_until_ns: int | None
    ) -> str | None:
        """Return what is wrong about a vector of some moment, None where all is right."""
        expected = model.expected(key, time_ns, complete_until_ns)
        statuses = set(vector.statuses.values())
        got = {name.split(".")[1]: value for name, value in vector.values.items()}
        if len(statuses) != 1:
            return f"statuses of key {key!r}: {statuses}"
        is_missing = statuses == {"MISSING_DATA"}
        if (expected.missing or is_missing) and not (is_missing and set(got.values()) == {None}):
            return f"key {key!r}: {got} ({statuses}), expected missing data"
        if expected.missing:
            return None
        self.reads += 1
        for name, want in model.answers(expected).items():
            right = nothing(want) if is_missing else agrees(want, got[name])
            if name in self.lasting and not right:
                return self.difference(key, name, want, got[name], statuses, expected)
        return None

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
            f"  at {expected.time_ns}, row as of {as_of_ns}, complete until {self.model.complete_until_ns}",
        ]
        windows = [bounds_ns(rules, span, wanted.hop_ns, expected.time_ns) for span in spans_of(wanted)]
        lines += [f"  window {bounds}" for bounds in windows]
        for e in expected.events:
            lines += [f"  {e.time_ns} {e.values.get(wanted.column)!r} {e.values['shop']!r}"]
        return "\n".join(lines)
