"""Writes deltas of blocks: read, merge, replace under the version, again where somebody else was faster.

Each block that is being written has a *lane*: one write in flight, and behind it the deltas that came
meanwhile, which share the next write. So a hot key costs a write for each round trip and not for each event.
The block that was written last is kept, which saves the read; a stale one costs a refused write.

Knows blocks and the store, neither records nor HTTP. Belongs to one event loop.

Invariants
1. A delta's ``add`` returns only after a version that holds it is in the store, once, whoever wrote it.
2. A block that has a request's id has that request's delta: it isn't merged again.
3. An error is told to all deltas of its write, and what is known of the block is forgotten. Whether it was
   written isn't known then; the same request sent again counts once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from fastserve.errors import FastserveError, StoreError
from fastserve.ingest.events import BlockDelta
from fastserve.ingest.stream_ids import decode_ids, encode_ids, with_ids
from fastserve.plan.keys import block_key
from fastserve.store.interface import MAX_ROW_BYTES, OnlineStore, VersionedRow
from fastserve.tiles.blocks import Block, BlockSchema, BlockShape, decode, encode, merge
from fastserve.tiles.rows import RowError

KEPT_BLOCKS = 50_000
KEPT_BYTES = 64 << 20
"""Of blocks as bytes; decoded they take about twice as much, and 1 KB of Python objects each."""
WRITES_AT_ONCE = 32
"""Blocks of one store that are merged and written at once: some 5 ms of work where all of them can go on in
one turn of the loop, and as many as a store has connections by default.
"""
FREE_CONFLICTS = 1
"""A first conflict brings the newer block with it and is tried again at once."""
PAUSE_WRITES = 2.0
LONGEST_PAUSE_S = 0.1
"""Later tries wait for up to so many times what a write takes, and never longer. Growing pauses would starve
the loser: it holds the newest block, and whoever has just won comes back with it at once."""
CONTENDED_S = 1.0
"""For so long after a conflict whoever wins a block pauses, too, before it writes that block again."""

Place = tuple[str, str]


class TooLargeError(StoreError):
    """A block would outgrow an item of the store."""


Shapes = dict[int, BlockShape]


@dataclass(slots=True)
class WriteCounts:
    """What became of writes; ``units`` are DynamoDB's write units, refused writes included."""

    writes: int = 0
    conflicts: int = 0
    reads: int = 0
    deltas: int = 0
    repeats: int = 0
    units: int = 0


@dataclass(slots=True)
class _Waiting:
    """A delta, the request that it belongs to and by when (loop time) it is to be written."""

    delta: BlockDelta
    request_id: bytes
    deadline_s: float
    done: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class _Known:
    """A block as it lies in the store, decoded."""

    row: VersionedRow
    block: Block
    ids: dict[bytes, int]


@dataclass(slots=True)
class _Lane:
    """Deltas of one block that wait for the write in flight, which takes one of its store's ``turns``."""

    turns: asyncio.Semaphore
    waiting: list[_Waiting] = field(default_factory=list)
    contended_until_s: float = 0.0


class BlockWriter:
    """Writes the blocks of all views of one store.

    ``shapes`` gives the shapes that a view's older blocks may have, as the registry knows them now.
    """

    def __init__(
        self,
        store: OnlineStore,
        shapes: Callable[[str], ShapesSource],
        wall_s: Callable[[], float],
        uniform: Callable[[], float],
    ) -> None:
        self._store = store
        self._shapes = shapes
        self._wall_s = wall_s
        self._uniform = uniform
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[Place, _Lane] = {}
        self._known: OrderedDict[Place, _Known] = OrderedDict()
        self._known_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        # By the stores' names: one that hangs takes no turns of another.
        self._turns: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(WRITES_AT_ONCE)
        )
        self._wanted: dict[str, dict[str, asyncio.Future[VersionedRow | None]]] = {}
        self._write_s = 0.0  # what a write takes, a moving mean
        self.counts = WriteCounts()

    def add(self, delta: BlockDelta, request_id: bytes, deadline_s: float) -> asyncio.Future[None]:
        """Return what is done when the delta is in the store; its error is a `StoreError`."""
        place = delta.feed.stream_table, block_key(delta.entity_key, delta.number)
        one = _Waiting(delta, request_id, deadline_s, self._loop.create_future())
        lane = self._lanes.get(place)
        if lane is not None:
            lane.waiting.append(one)
            return one.done
        self._lanes[place] = lane = _Lane(self._turns[delta.feed.plan.store], [one])
        task = self._loop.create_task(self._run(place, lane))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return one.done

    async def close(self) -> None:
        """Wait for the writes in flight and those behind them."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # --- lanes ----------------------------------------------------------------------------------------------

    async def _run(self, place: Place, lane: _Lane) -> None:
        while lane.waiting:
            batch: list[_Waiting] = []
            try:
                if lane.contended_until_s > self._loop.time():
                    await self._pause()
                async with lane.turns:
                    batch, lane.waiting = lane.waiting, []
                    await self._write(place, lane, batch)
            except FastserveError as error:
                self._forget(place)
                _fail(batch, error)
            except BaseException:
                self._forget(place)
                _fail(batch + lane.waiting, StoreError("the write ended half-way", retryable=True))
                del self._lanes[place]
                raise
        del self._lanes[place]

    async def _write(self, place: Place, lane: _Lane, batch: list[_Waiting]) -> None:
        table, key = place
        feed = batch[0].delta.feed
        known = self._known.get(place) or await self._found(place, await self._read(table, key), batch)
        deadline_s = max(one.deadline_s for one in batch)
        conflicts = 0
        while True:
            fresh = _fresh(batch, known)
            self.counts.repeats += len(batch) - len(fresh)
            if not fresh:
                break
            try:
                following = self._merged(feed.blocks, known, fresh, batch)
            except TooLargeError:
                if len(batch) == 1:
                    raise
                await self._write_apart(place, lane, batch)
                return
            began_s = self._loop.time()
            left_s = deadline_s - began_s
            if left_s <= 0:
                why = f": {conflicts} other writers came first" if conflicts else ""
                message = f"table {table}: a block wasn't written in time{why}"
                raise StoreError(message, retryable=True, timed_out=True)
            there = await self._store.replace_row(table, key, following.row, timeout_s=left_s)
            self._write_s += (self._loop.time() - began_s - self._write_s) / 8
            self.counts.units += units_of(key, following.row)
            if there is following.row:
                self.counts.writes += 1
                self._keep(place, following)
                break
            conflicts += 1
            self.counts.conflicts += 1
            known = await self._found(place, there, batch)
            lane.contended_until_s = self._loop.time() + CONTENDED_S
            if conflicts > FREE_CONFLICTS:
                await self._pause()
        for one in batch:
            if not one.done.done():
                one.done.set_result(None)

    async def _write_apart(self, place: Place, lane: _Lane, batch: list[_Waiting]) -> None:
        """Write deltas one by one, so that one too large for the block fails alone."""
        for one in batch:
            try:
                await self._write(place, lane, [one])
            except FastserveError as error:
                self._forget(place)
                _fail([one], error)

    def _merged(
        self, schema: BlockSchema | None, known: _Known | None, fresh: list[_Waiting], batch: list[_Waiting]
    ) -> _Known:
        assert schema is not None  # noqa: S101 - for the type checker: only views with blocks have deltas
        parts = [one.delta.block for one in fresh]
        block = parts[0] if known is None else merge(schema, known.block, parts[0])
        for part in parts[1:]:
            block = merge(schema, block, part)
        now_s = int(self._wall_s())
        ids = with_ids({} if known is None else known.ids, [one.request_id for one in fresh], now_s)
        value, id_bytes = encode(schema, block), encode_ids(ids)
        delta = batch[0].delta
        if len(value) + len(id_bytes) > MAX_ROW_BYTES:
            raise TooLargeError(
                f"table {delta.feed.stream_table}: a block of {delta.feed.name!r} would have {len(value)} "
                f"bytes, more than {MAX_ROW_BYTES} with its ids: a longer aggregation_interval or a shorter "
                "horizon makes it smaller"
            )
        version = 1 if known is None else known.row.version + 1
        expires_s = delta.feed.expires_s(delta.number, now_s)
        self.counts.deltas += len(fresh)
        return _Known(VersionedRow(version, value, id_bytes, expires_s), block, ids)

    async def _pause(self) -> None:
        """Let others come first: full jitter, as long as writes take."""
        await asyncio.sleep(min(LONGEST_PAUSE_S, PAUSE_WRITES * self._write_s) * self._uniform())

    # --- what lies there ------------------------------------------------------------------------------------

    async def _read(self, table: str, key: str) -> VersionedRow | None:
        """Read one block; those that are asked for in one turn of the loop are read together."""
        wanted = self._wanted.get(table)
        if wanted is None:
            wanted = self._wanted[table] = {}
            task = self._loop.create_task(self._read_wanted(table))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        future: asyncio.Future[VersionedRow | None] = self._loop.create_future()
        wanted[key] = future
        return await future

    async def _read_wanted(self, table: str) -> None:
        wanted = self._wanted.pop(table)
        self.counts.reads += len(wanted)
        try:
            rows = await self._store.get_versioned(table, list(wanted))
        except FastserveError as error:
            for future in wanted.values():
                if not future.done():
                    future.set_exception(error)
            return
        for future, row in zip(wanted.values(), rows, strict=True):
            if not future.done():
                future.set_result(row)

    async def _found(
        self, place: Place, row: VersionedRow | None, batch: Sequence[_Waiting]
    ) -> _Known | None:
        """Return what the store has, decoded; a block of an older definition in the present shape.

        Raises:
            StoreError: it can't be read.
        """
        if row is None:
            return None
        feed = batch[0].delta.feed
        assert feed.blocks is not None  # noqa: S101 - as in `_merged`
        source = self._shapes(feed.name)
        try:
            try:
                block = decode(feed.blocks, row.row, source.known)
            except RowError as error:
                if error.schema_id is None:
                    raise
                block = decode(feed.blocks, row.row, await source.fresh())
        except RowError as error:
            raise StoreError(f"table {place[0]}: block {place[1][:64]!r}: {error}") from error
        return _Known(row, block, decode_ids(row.ids))

    def _keep(self, place: Place, known: _Known) -> None:
        self._forget(place)
        self._known[place] = known
        self._known_bytes += len(known.row.row)
        while self._known_bytes > KEPT_BYTES or len(self._known) > KEPT_BLOCKS:
            _, oldest = self._known.popitem(last=False)
            self._known_bytes -= len(oldest.row.row)

    def _forget(self, place: Place) -> None:
        known = self._known.pop(place, None)
        if known is not None:
            self._known_bytes -= len(known.row.row)


@dataclass(slots=True)
class ShapesSource:
    """The shapes that a view's blocks may have: those known, and how to ask for more."""

    known: Shapes
    ask: Callable[[], Awaitable[Shapes]]

    async def fresh(self) -> Shapes:
        """Ask the registry; a newer worker may have recorded one."""
        self.known = await self.ask()
        return self.known


def _fresh(batch: Sequence[_Waiting], known: _Known | None) -> list[_Waiting]:
    """Return the deltas that the block doesn't hold yet, one for each request."""
    ids = {} if known is None else known.ids
    return list({one.request_id: one for one in reversed(batch) if one.request_id not in ids}.values())[::-1]


def units_of(key: str, row: VersionedRow) -> int:
    """Return DynamoDB's write units for a row: one for each begun KB of names and values."""
    size = len("kvnittl") + len(key.encode()) + len(row.row) + len(row.ids) + 12
    return -(-size // 1024)


def _fail(batch: Sequence[_Waiting], error: FastserveError) -> None:
    for one in batch:
        if not one.done.done():
            one.done.set_exception(error)
