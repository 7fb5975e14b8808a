"""Rows of attributes that are pushed: the newest timestamp wins, whatever came when and from where."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve import Attribute, FeatureService, FeatureView
from fastserve.ingest.apply import execute, plan_apply
from fastserve.ingest.materialize import materialize
from fastserve.sdk.repo import Repo
from fastserve.store.interface import OnlineStore
from fastserve.store.url import open_store
from tests.differential import drawn
from tests.differential.definitions import COLUMNS, USER, duration, push_source
from tests.differential.streams import SKEW_NS, record_of
from tests.differential.test_batch import write_events
from tests.differential.twin import DAY_NS, HOUR_NS, RawEvent, agrees
from tests.support.examples import examples
from tests.support.served import Served, dynamodb_url, serving

KEYS = ("a", "b", "a\t1")
T = drawn.T0_NS
TTL_NS = DAY_NS


def make_repo(folder: Path, *, has_files: bool, has_ttl: bool) -> Repo:
    """Return a view of all columns."""
    source = push_source("pushes", str(folder / "*.parquet") if has_files else None)
    view = FeatureView(
        "view",
        [USER],
        source,
        [Attribute(name, dtype) for name, dtype in COLUMNS.items()],
        ttl=duration(TTL_NS) if has_ttl else None,
    )
    sources: dict[str, Any] = {"pushes": source}
    if source.batch_source is not None:
        sources["history"] = source.batch_source
    services = {"view": FeatureService("view", [view])}
    return Repo(folder, "w", {"user": USER}, sources, {"view": view}, services, on_demand_views={})


@dataclass
class Newest:
    """The row of each key: that of the newest event, of equally new ones the one that was written last."""

    rows: dict[str, RawEvent] = field(default_factory=dict)

    def write(self, events: Sequence[RawEvent]) -> None:
        """Write events one after the other."""
        for event in events:
            row = self.rows.get(event.key)
            if row is None or event.time_ns >= row.time_ns:
                self.rows[event.key] = event


class World:
    """The view in a store with two workers over it."""

    def __init__(self, repo: Repo, url: str, data: st.DataObject, *, has_ttl: bool) -> None:
        self.repo, self.url, self.data, self.has_ttl = repo, url, data, has_ttl
        self.newest = Newest()
        self.now_ns = T
        self.requests = 0
        self.store: OnlineStore
        self.workers: list[Served] = []

    def any_worker(self) -> Served:
        """Return one of the workers."""
        return self.workers[self.data.draw(st.integers(0, 1), label="worker")]

    def events(self, *, unique: bool = False, latest_ns: int | None = None) -> list[RawEvent]:
        """Draw events, some as new as one another unless they are to be ``unique``."""
        last_ns = self.now_ns + SKEW_NS if latest_ns is None else latest_ns
        few = st.sampled_from([last_ns, last_ns - 1, T, T - 1, self.now_ns])
        times = st.integers(T - 2 * DAY_NS, last_ns) | few.map(lambda time_ns: min(time_ns, last_ns))
        one = st.builds(RawEvent, st.sampled_from(KEYS), times, drawn.columns())
        keep = (lambda event: (event.key, event.time_ns)) if unique else None
        return self.data.draw(st.lists(one, min_size=1, max_size=5, unique_by=keep), label="events")

    async def send(self, events: Sequence[RawEvent]) -> None:
        """Push events as one request."""
        self.requests += 1
        body = {
            "request_id": f"request-{self.requests}",
            "records": {"pushes": [{"record": record_of(event)} for event in events]},
        }
        status, document = await self.any_worker().post("/ingest", body, self.now_ns)
        assert status == 200, document

    async def push(self) -> None:
        """Push events, which come in the request's order."""
        events = self.events()
        await self.send(events)
        self.newest.write(events)

    async def push_at_once(self) -> None:
        """Push the halves of some events at the same time; none is as new as another."""
        events = self.events(unique=True)
        known = {(row.key, row.time_ns) for row in self.newest.rows.values()}
        events = [event for event in events if (event.key, event.time_ns) not in known]
        parts = [part for part in (events[::2], events[1::2]) if part]
        workers = [self.any_worker() for _ in parts]
        self.requests += 1
        bodies = [
            {
                "request_id": f"at-once-{self.requests}-{number}",
                "records": {"pushes": [{"record": record_of(event)} for event in part]},
            }
            for number, part in enumerate(parts)
        ]
        sent = zip(workers, bodies, strict=True)
        answers = await asyncio.gather(*(w.post("/ingest", body, self.now_ns) for w, body in sent))
        assert all(status == 200 for status, _ in answers), answers
        self.newest.write(events)

    async def land(self) -> None:
        """Let rows of files land; the files have one event for each key and time."""
        if self.repo.views["view"].batch_source is None:
            return
        files = self.events(unique=True, latest_ns=self.now_ns)
        write_events(self.repo.path / "events.parquet", files)
        until_ns = self.now_ns - self.data.draw(st.sampled_from([0, 1, HOUR_NS]), label="until")
        await materialize(self.repo, ["view"], self.store, until_ns=until_ns, max_bad_rows=0, progress=False)
        inside = sorted((e for e in files if e.time_ns < until_ns), key=lambda e: e.time_ns)
        self.newest.write(list({event.key: event for event in inside}.values()))

    async def advance(self) -> None:
        """Let time pass."""
        self.now_ns += self.data.draw(st.sampled_from([1, HOUR_NS, TTL_NS]), label="later by")

    async def read(self) -> None:
        """Read all keys."""
        vectors = await self.any_worker().vectors("view", [{"user_id": key} for key in KEYS], self.now_ns)
        for key, vector in zip(KEYS, vectors, strict=True):
            row = self.newest.rows.get(key)
            statuses = set(vector.statuses.values())
            if row is None or (self.has_ttl and row.time_ns + TTL_NS < self.now_ns):
                assert statuses == {"MISSING_DATA"}, (key, row, vector)
                assert set(vector.values.values()) == {None}
                continue
            assert statuses == {"PRESENT"}, (key, row, vector)
            for name in COLUMNS:
                got, want = vector.values[f"view.{name}"], row.values[name]
                assert agrees(want, got), (key, name, row, got)


async def live(world: World, steps: Sequence[str]) -> None:
    """Take steps, and read after each."""
    async with AsyncExitStack() as stack:
        world.store = await open_store(world.url)
        stack.push_async_callback(world.store.close)
        await execute(await plan_apply(world.repo, world.store), world.store)
        for _ in range(2):
            world.workers.append(await stack.enter_async_context(serving(world.repo, world.url)))
        for step in steps:
            await getattr(world, step)()
            await world.read()


def live_through(folder: Path, url: str, data: st.DataObject) -> None:
    """Draw a view and steps, and take them."""
    kinds = st.sampled_from(["push", "push", "push_at_once", "land", "advance"])
    has_files, has_ttl = data.draw(st.booleans(), label="files"), data.draw(st.booleans(), label="ttl")
    repo = make_repo(folder, has_files=has_files, has_ttl=has_ttl)
    steps = data.draw(st.lists(kinds, min_size=2, max_size=8), label="steps")
    asyncio.run(live(World(repo, url, data, has_ttl=has_ttl), steps))


@settings(deadline=None, max_examples=examples(30))
@given(st.data())
def test_the_newest_event_of_a_key_is_its_row(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        live_through(Path(name), f"local:{name}/store?sync=off", data)


@settings(deadline=None, max_examples=examples(4))
@given(st.data())
def test_the_newest_event_of_a_key_is_its_row_on_dynamodb(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name, dynamodb_url() as url:
        live_through(Path(name), url, data)
