"""Compaction: the blocks of a view without files, through their tiles, into compacted rows.

The job scans the view's stream table, groups blocks by entity key (`blockfiles`), merges their tiles into
rows (`tiles.compact`) and puts these. Each run makes every row anew out of all blocks there are, which takes
in events that came late, and needs nothing of an earlier run: an interrupted one is simply run again.

Events go on being pushed meanwhile, and no answer changes by a row that lands. A row as of A holds the tiles
before A, its reader adds those from A on; so what is pushed during the job belongs to the reader, and what
lies before A was there before the scan began, `schedule.SETTLE_NS` having passed since A. An event that comes
later still is *late*: it counts from the next compaction on.

Entities whose tiles have all left their windows lose their row: a reader that finds none takes the entity's
blocks for all there is, which is then true. Left alone, the row would pass its horizon, and the next event's
entity would be missing data until the next compaction.

Invariants
1. A view's rows never go back, nor ahead of the clock: it is compacted as of a moment that isn't before its
   last one, and is past.
2. What was compacted is recorded after the last row was put, under the lease's renewal.
3. Memory is bounded by a few groups of blocks, whatever the size of the table.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastserve.errors import DefinitionError, InvariantError, StoreError, shown
from fastserve.ingest.blockfiles import BlockFiles
from fastserve.ingest.definition import rows_digest
from fastserve.ingest.lease import Guard
from fastserve.ingest.places import check_place, confirm_place
from fastserve.ingest.progress import Progress
from fastserve.ingest.putting import NotPut, check_told, delete_put, destination, put_made
from fastserve.ingest.registry import Materialized, Registry
from fastserve.ingest.scratch import scratch_folder
from fastserve.plan.keys import split_block_key
from fastserve.plan.streams import StreamPlan
from fastserve.plan.views import ViewPlan
from fastserve.store.interface import MAX_ROW_BYTES, OnlineStore
from fastserve.tiles.aggregates import CompactedSchema
from fastserve.tiles.blocks import Block, BlockSchema, BlockShape, block_schema, decode
from fastserve.tiles.compact import compact, encode, gather
from fastserve.tiles.layout import NO_ROW
from fastserve.tiles.rows import RowError
from fastserve.tiles.times import format_time
from fastserve.tiles.write import spoilt_rows

ENTITIES_AT_ONCE = 2_000
CHUNK_WORDS = 4 << 20
"""At most so many numbers of rows in the making are held at once (32 MB)."""
SAMPLES = 10


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What became of one view.

    ``removed`` entities had nothing in their windows, so they have no row now. ``spoilt`` ones have an
    integer sum beyond int64, which is null. ``too_large`` rows are more than a store takes, or than their
    item has room for; those keys keep the row that they had, and without one they are missing. ``swept``
    blocks had expired and were deleted (a store may do that by itself).
    """

    view: str
    until_ns: int
    as_of_ns: int
    blocks: int
    tiles: int
    keys: int
    bytes: int
    removed: int
    swept: int
    seconds: float
    spoilt: tuple[str, ...] = ()
    too_large: tuple[str, ...] = ()


def plan_to_compact(plans: Mapping[str, ViewPlan], name: str) -> ViewPlan:
    """Return the plan of a view that is compacted.

    Raises:
        DefinitionError: there is no such view, or its rows come from elsewhere.
    """
    plan = plans.get(name)
    if plan is None:
        known = ", ".join(list(plans)[:20]) or "none, for the repo has none"
        raise DefinitionError(f"view: expected one of {known}, got {shown(name)}")
    why = None
    if plan.stream is None:
        why = "aggregates of pushed events" if plan.is_streamed else "a PushSource"
    elif plan.view.batch_source is not None:
        why = "a PushSource without files (`fastserve materialize` makes its rows)"
    if why is not None:
        raise DefinitionError(
            f"FeatureView {name!r}: expected {why} to compact, got none", plan.view.location
        )
    return plan


async def compact_view(
    plan: ViewPlan,
    store: OnlineStore,
    registry: Registry,
    *,
    until_ns: int,
    now_ns: int,
    guard: Guard,
    shows: Progress,
    scratch: str | Path | None = None,
    parallel: int = 1,
) -> CompactReport:
    """Make a view's rows out of its blocks, as of the last complete tile before ``until_ns``.

    Raises:
        DefinitionError: the view was compacted as of a later moment or applied to lie elsewhere, ``until_ns``
        is to come, or there is no room to work in.
        StoreError: the store failed, the lease is lost (`LeaseLostError`), the view was moved meanwhile, or
        an item of its bundle had room for nothing; running it again is right.
    """
    since_ns = await check_place(registry, plan)
    done = (await registry.materialized([plan.name]))[plan.name]
    as_of_ns = plan.as_of_ns(until_ns)
    if as_of_ns > now_ns:  # what is pushed until then would be taken for what was before
        raise DefinitionError(
            f"FeatureView {plan.name!r}: expected a time that is past to compact until, got "
            f"{format_time(as_of_ns)} at {format_time(now_ns)}"
        )
    if done is not None and as_of_ns < done.as_of_ns:
        raise DefinitionError(
            f"FeatureView {plan.name!r}: expected a time from that of its last compaction on "
            f"({format_time(done.as_of_ns)}), got {format_time(as_of_ns)}"
        )
    try:
        with scratch_folder(scratch) as folder:
            job = _Job(plan, store, registry, as_of_ns, since_ns, guard, shows)
            return await job.run(folder / "blocks", until_ns, now_ns, max(1, parallel))
    except OSError as error:
        message = f"expected room to work in (disk under {scratch or tempfile.gettempdir()})"
        raise DefinitionError(f"FeatureView {plan.name!r}: {message}, got: {error}") from error


@dataclass(slots=True)
class _Counts:
    """How far a job has come."""

    blocks: int = 0
    tiles: int = 0
    keys: int = 0
    bytes: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class _Chunk:
    """What some entities came to. The rows of ``too_large`` ones are `NO_ROW`."""

    keys: list[str]
    rows: list[bytes]
    dead: list[str]
    spoilt: list[str]
    too_large: list[str]
    tiles: int


class _Job:
    """One view's way from blocks to rows."""

    def __init__(
        self,
        plan: ViewPlan,
        store: OnlineStore,
        registry: Registry,
        as_of_ns: int,
        since_ns: int,
        guard: Guard,
        shows: Progress,
    ) -> None:
        if plan.schema is None or plan.stream is None:
            raise InvariantError(f"view {plan.name} has no blocks to compact")
        self._plan = plan
        self._schema: CompactedSchema = plan.schema
        self._stream: StreamPlan = plan.stream
        self._blocks: BlockSchema = block_schema(plan.schema)
        self._store = store
        self._registry = registry
        self._as_of_ns = as_of_ns
        self._since_ns = since_ns
        self._guard = guard
        self._shows = shows
        self._counts = _Counts()
        self._spoilt: list[str] = []
        self._too_large: list[str] = []
        self._untold: list[str] = []

    async def run(self, folder: Path, until_ns: int, now_ns: int, parallel: int) -> CompactReport:
        """Do it all; return what it came to."""
        began = time.perf_counter()
        await self._registry.record_schema(self._plan)
        files = await self._scanned(folder, parallel)
        # After the scan: whatever shape a block has was recorded before the block was written.
        older = (await self._registry.shapes([self._plan.name]))[self._plan.name]
        self._shows.step(f"{self._plan.name}: compacting", "blocks", self._counts.blocks)
        for group in files.groups():
            await self._compacted(group, older)
        await self._record(until_ns)
        swept = await self._store.sweep(self._stream.table, now_ns // 10**9)
        counts = self._counts
        return CompactReport(
            view=self._plan.name,
            until_ns=until_ns,
            as_of_ns=self._as_of_ns,
            blocks=counts.blocks,
            tiles=counts.tiles,
            keys=counts.keys,
            bytes=counts.bytes,
            removed=counts.removed,
            swept=swept,
            seconds=time.perf_counter() - began,
            spoilt=tuple(self._spoilt[:SAMPLES]),
            too_large=tuple(self._too_large[:SAMPLES]),
        )

    async def _scanned(self, folder: Path, parallel: int) -> BlockFiles:
        files = BlockFiles(folder)
        self._shows.step(f"{self._plan.name}: scanning", "blocks")

        async def one(part: int) -> None:
            async for rows in self._store.scan_rows(self._stream.table, part, parallel):
                files.add((*split_block_key(key), row) for key, row in rows)
                self._counts.blocks += len(rows)
                self._shows.advance(len(rows))

        try:
            async with asyncio.TaskGroup() as group:
                for part in range(parallel):
                    group.create_task(one(part))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return files

    async def _compacted(self, group: dict[str, dict[int, bytes]], older: Mapping[int, BlockShape]) -> None:
        for entities in self._chunks(group):
            chunk = await asyncio.to_thread(self._rows, entities, older)
            await self._guard.hold()
            target = destination(self._plan)
            not_put = NotPut()
            if chunk.keys:
                not_put = await put_made(self._store, target, [(chunk.keys, chunk.rows)])
            await delete_put(self._store, target, chunk.dead)
            counts = self._counts
            counts.tiles += chunk.tiles
            counts.keys += len(chunk.keys) - len(chunk.too_large) - len(not_put.keys)
            counts.bytes += sum(map(len, chunk.rows)) - len(chunk.too_large) * len(NO_ROW) - not_put.row_bytes
            counts.removed += len(chunk.dead)
            self._untold += not_put.untold
            self._spoilt += chunk.spoilt[: SAMPLES - len(self._spoilt)]
            self._too_large += [*chunk.too_large, *not_put.keys][: SAMPLES - len(self._too_large)]
            self._shows.advance(sum(len(blocks) for blocks in entities.values()))

    def _chunks(self, group: dict[str, dict[int, bytes]]) -> Iterator[dict[str, dict[int, bytes]]]:
        at_once = max(1, min(ENTITIES_AT_ONCE, CHUNK_WORDS // self._plan.layout.fixed_words))
        keys = list(group)
        for low in range(0, len(keys), at_once):
            yield {key: group[key] for key in keys[low : low + at_once]}

    def _rows(self, entities: dict[str, dict[int, bytes]], older: Mapping[int, BlockShape]) -> _Chunk:
        """Merge the tiles of some entities; runs in a thread."""
        keys = list(entities)
        tiles = gather(self._blocks, [self._decoded(key, entities[key], older) for key in keys])
        compacted = compact(self._schema, self._blocks, tiles, self._as_of_ns)
        spoilt = [keys[place] for place in spoilt_rows(self._schema, compacted.words).tolist()]
        live = [place for place, is_live in enumerate(compacted.live.tolist()) if is_live]
        rows = encode(self._schema, compacted, self._as_of_ns, live)
        made = [(keys[place], row) for place, row in zip(live, rows, strict=True)]
        return _Chunk(
            keys=[key for key, _ in made],
            rows=[row if len(row) <= MAX_ROW_BYTES else NO_ROW for _, row in made],
            dead=[key for key, is_live in zip(keys, compacted.live.tolist(), strict=True) if not is_live],
            spoilt=spoilt,
            too_large=[key for key, row in made if len(row) > MAX_ROW_BYTES],
            tiles=len(tiles.starts),
        )

    def _decoded(self, key: str, blocks: dict[int, bytes], older: Mapping[int, BlockShape]) -> list[Block]:
        try:
            return [decode(self._blocks, blocks[number], older) for number in sorted(blocks)]
        except RowError as error:
            raise StoreError(f"table {self._stream.table}: blocks of {shown(key)}: {error}") from error

    async def _record(self, until_ns: int) -> None:
        check_told(self._plan, self._untold)
        await self._guard.confirm()
        await confirm_place(self._registry, self._plan, self._since_ns)
        counts = self._counts
        record = Materialized(
            view=self._plan.name,
            until_ns=until_ns,
            as_of_ns=self._as_of_ns,
            schema_id=self._plan.layout.schema_id,
            rows_read=counts.tiles,
            rows_bad=0,
            keys=counts.keys,
            bytes=counts.bytes,
            definition=rows_digest(self._plan),
        )
        await self._registry.record_materialized(record)
