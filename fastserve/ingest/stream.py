"""Stream ingest: pushed records into the online store, answered after they are written.

`Ingestor` takes decoded requests, has their records checked (`ingest.events`) and what they come to written
(`stream_blocks`, `stream_rows`). `stream_writer` is the same with a store of its own.

Invariants
1. Nothing of a request with a bad record is written.
2. A request is answered after all of it is written; what fails half-way counts once when it is sent again
   with the same id (or without one, with the same records) within ten minutes.
3. Reads go on: what a large request has to be done is done in pieces of a few milliseconds.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastserve.api.ingest import IngestRequest, Record, RecordError
from fastserve.errors import RequestError, StoreError, shown
from fastserve.ingest.events import BlockDelta, NewRow, SourceFeed, Times, ViewFeed
from fastserve.ingest.registry import Registry
from fastserve.ingest.stream_blocks import BlockWriter, Shapes, ShapesSource, WriteCounts
from fastserve.ingest.stream_rows import RowWriter
from fastserve.plan.views import ViewPlan
from fastserve.sdk.sources import PushSource
from fastserve.store.interface import OnlineStore
from fastserve.tiles.windows import SECOND_NS

SLICE_RECORDS = 250
"""A millisecond or two of checking."""
TILED_AT_ONCE = 1_000
ROWS_AT_ONCE = 100
STARTED_AT_ONCE = 200
MERGED_AT_ONCE = 20
"""Some two milliseconds each."""
MAX_FUTURE_S = 60
TIMEOUT_S = 10.0


class BadRecordsError(RequestError):
    """A request with bad records, all of them listed; nothing of it was written."""

    def __init__(self, errors: Sequence[RecordError]) -> None:
        first = errors[0]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(400, f"records.{first.source}[{first.number}]: {first.message}{more}")
        self.errors = tuple(errors)


def source_feeds(views: Iterable[ViewPlan]) -> dict[str, SourceFeed]:
    """Return the feeds of all push sources that views read, by the source's name.

    Raises:
        DefinitionError: a view's transformation can't be applied to records.
    """
    by_source: dict[str, tuple[PushSource, list[ViewFeed]]] = {}
    for plan in views:
        source = plan.view.source
        if isinstance(source, PushSource):
            by_source.setdefault(source.name, (source, []))[1].append(_view_feed(plan, source))
    return {name: SourceFeed(source, feeds) for name, (source, feeds) in by_source.items()}


def named_feed(feeds: Mapping[str, SourceFeed], name: str) -> SourceFeed:
    """Return the feed of a push source.

    Raises:
        RequestError: there is none, or one of its views can't be pushed to.
    """
    feed = feeds.get(name)
    if feed is None:
        listed = ", ".join(map(repr, feeds)) or "none, for no view reads a PushSource"
        raise RequestError(400, f"Unknown push source {shown(name)}: expected {listed}")
    if feed.refusal is not None:
        raise RequestError(400, feed.refusal)
    return feed


def _view_feed(plan: ViewPlan, source: PushSource) -> ViewFeed:
    if plan.view.transformation is None:
        return ViewFeed(plan)
    from fastserve.ingest.stream_transform import make_transform  # it imports DuckDB

    return ViewFeed(plan, make_transform(plan, source))


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """``max_future_s``: how far ahead of the clock an event may be; ``timeout_s``: of a whole request."""

    max_future_s: int = MAX_FUTURE_S
    timeout_s: float = TIMEOUT_S


class Ingestor:
    """Takes requests for one workspace in one store. Belongs to one event loop.

    ``clock_ns`` is the time by which events are judged.
    """

    def __init__(
        self,
        workspace: str,
        feeds: Mapping[str, SourceFeed],
        store: OnlineStore,
        settings: IngestSettings | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.workspace = workspace
        self.settings = settings or IngestSettings()
        self._feeds = dict(feeds)
        self._clock_ns = clock_ns
        self._loop = asyncio.get_running_loop()
        self._registry = Registry(store, workspace)
        self._shapes: dict[str, ShapesSource] = {}
        self._blocks = BlockWriter(store, self._shapes_of, lambda: clock_ns() / SECOND_NS, random.random)
        self._rows = RowWriter(store)

    @property
    def counts(self) -> WriteCounts:
        """What became of the writes of blocks so far."""
        return self._blocks.counts

    async def close(self) -> None:
        """Wait for what is being written."""
        await self._blocks.close()
        await self._rows.close()

    async def ingest(self, request: IngestRequest) -> dict[str, int]:
        """Write a request's records; return how many went to each view.

        Raises:
            BadRecordsError: records can't be taken. RequestError: an unknown source or workspace.
            StoreError: the store failed; any part may have been written, and the same request may be sent
            again.
        """
        deadline_s = self._loop.time() + self.settings.timeout_s
        if request.workspace not in (None, "", self.workspace):
            known = shown(self.workspace)
            raise RequestError(400, f"Unknown workspace {shown(request.workspace)}: this one is {known}")
        feeds = [(named_feed(self._feeds, name), records) for name, records in request.records.items()]
        counts: dict[str, int] = {}
        deltas, rows = await self._prepared(feeds, counts)
        if not request.dry_run:
            await self._written(deltas, rows, request.id, deadline_s)
        return counts

    async def _prepared(
        self, feeds: Sequence[tuple[SourceFeed, Sequence[Record]]], counts: dict[str, int]
    ) -> tuple[list[BlockDelta], list[NewRow]]:
        """Check all records, then make what is to be written; the loop turns between slices.

        Raises:
            BadRecordsError: some can't be taken.
        """
        now_ns = self._clock_ns()
        times = Times(now_ns, self.settings.max_future_s * SECOND_NS)
        errors: list[RecordError] = []
        events: list[tuple[ViewFeed, list[dict[str, Any]]]] = []
        for feed, records in feeds:
            of_views: dict[str, list[dict[str, Any]]] = {view.name: [] for view in feed.views}
            for first in range(0, len(records), SLICE_RECORDS):
                if first:
                    await asyncio.sleep(0)
                numbers, values = feed.read(records[first : first + SLICE_RECORDS], first, errors)
                for view in feed.views:
                    make = feed.events
                    if view.transform is None:
                        made = make(view, numbers, values, times, errors)
                    else:
                        made = await asyncio.to_thread(make, view, numbers, values, times, errors)
                    of_views[view.name] += made
            events += [(view, of_views[view.name]) for view in feed.views]
        if errors:
            raise BadRecordsError(errors)
        counts |= {view.name: len(made) for view, made in events}
        return await self._made(events, now_ns)

    async def _made(
        self, events: Sequence[tuple[ViewFeed, Sequence[Mapping[str, Any]]]], now_ns: int
    ) -> tuple[list[BlockDelta], list[NewRow]]:
        """Return what good events come to: one delta a block, for a second with one id would be left out."""
        deltas: dict[tuple[str, str, int], BlockDelta] = {}
        rows: list[NewRow] = []
        merged = 0
        for view, made in events:
            at_once = ROWS_AT_ONCE if view.blocks is None else TILED_AT_ONCE
            for first in range(0, len(made), at_once):
                if first:
                    await asyncio.sleep(0)
                part = made[first : first + at_once]
                if view.blocks is None:
                    rows += view.rows(part, now_ns)
                    continue
                for delta in view.deltas(part):
                    place = (view.stream_table, delta.entity_key, delta.number)
                    there = deltas.get(place)
                    if there is not None:
                        delta = there.joined(delta)  # noqa: PLW2901 - the same delta, with more in it
                        merged += 1
                        if merged % MERGED_AT_ONCE == 0:
                            await asyncio.sleep(0)
                    deltas[place] = delta
        return list(deltas.values()), rows

    async def _written(
        self, deltas: Sequence[BlockDelta], rows: Sequence[NewRow], request_id: bytes, deadline_s: float
    ) -> None:
        futures = []
        for number, delta in enumerate(deltas, 1):
            futures.append(self._blocks.add(delta, request_id, deadline_s))
            if number % STARTED_AT_ONCE == 0:
                await asyncio.sleep(0)
        futures += self._rows.add(rows, deadline_s)
        if not futures:
            return
        left_s = deadline_s - self._loop.time()
        _, late = await asyncio.wait(futures, timeout=max(0.0, left_s))
        errors = [error for future in futures if future.done() and (error := future.exception()) is not None]
        for future in late:
            future.add_done_callback(_look_at)
        if errors:
            raise errors[0]
        if late:
            message = f"{len(late)} of {len(futures)} blocks and tables weren't written in time"
            raise StoreError(message, retryable=True, timed_out=True)

    # --- what older blocks hold -----------------------------------------------------------------------------

    async def load_shapes(self) -> None:
        """Learn which shapes older blocks may have; else it is learnt from the first such block."""
        if not await self._registry.exists():
            return
        views = [view.name for feed in self._feeds.values() for view in feed.views if view.blocks is not None]
        for view, shapes in (await self._registry.shapes(views)).items():
            self._shapes_of(view).known = shapes

    def _shapes_of(self, view: str) -> ShapesSource:
        source = self._shapes.get(view)
        if source is None:

            async def ask() -> Shapes:
                return (await self._registry.shapes([view]))[view]

            source = self._shapes[view] = ShapesSource({}, ask)
        return source


def _look_at(future: asyncio.Future[None]) -> None:
    """Take notice of an error that came after its request had been answered."""
    if not future.cancelled():
        future.exception()
