"""The blocks of a batch: joined, cut into tiles, and merged into the heads of its vector rows.

All blocks of all lines and views are joined in the form in which they came and decoded at once, as rows are;
header words say where each one's tiles lie. Only blocks with another header are looked at one by one.

Which tiles count, for a key of a view:

    row                              tiles that start at or after
    there                            its as_of
    absent, the view complete        any: the key had no event before the blocks that are read
    absent, the view not complete    none: events may lie in blocks that aren't read
    past its horizon, unreadable     none
    never written for lack of room   none: `NO_ROW` stands there

A view is *complete* at ``now`` when its watermark, the time until which all events were compacted or
materialized, lies at most a horizon back.

Invariants
1. Tiles that count are told by the row's own as_of, never by a remembered one: a row and blocks that were
   read in any order, before or after a batch job, give the same answer.
2. Bytes that are no block make the whole row of its view unreadable, in no case a smaller count.
3. No tile that starts at or after ``now`` counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from fastserve.errors import InvariantError
from fastserve.plan.service import ServicePlan
from fastserve.plan.streams import BLOCKS_READ
from fastserve.serving.columns import RowReport
from fastserve.serving.transport import RowTransport
from fastserve.serving.wide import NO_TILES, TileIRs
from fastserve.serving.wide_heads import END_BYTES, WideHeads, WideTiles
from fastserve.tiles.blocks import BLOCK_FORMAT, HEADER_BYTES, BlockShape, decode, encode
from fastserve.tiles.heads import Runs
from fastserve.tiles.layout import FIXED_MULTIPLE_BYTES, NULL_INT64, WORD_BYTES
from fastserve.tiles.merge import Words
from fastserve.tiles.rows import RowError

OldShapes = Mapping[str, Mapping[int, BlockShape]]
"""Shapes that a view's blocks may still have, by view name and schema id."""

NEVER = np.iinfo(np.int64).max
HEADER_WORDS = HEADER_BYTES // WORD_BYTES
WHOLE_WORDS = FIXED_MULTIPLE_BYTES // WORD_BYTES
COUNT_BITS = 32
COUNT_MASK = (1 << COUNT_BITS) - 1

Index = npt.NDArray[np.intp]
Pairs = Collection[tuple[int, int]]
"""(line, place number)."""


@dataclass(slots=True)
class Watermarks:
    """Until when, by view, all events are in rows (ns since the epoch); views that lack aren't complete."""

    until_ns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The blocks of a batch in one buffer, and of each its first word and how many tiles it has.

    They are numbered line by line, of each streamed place the previous block, then the current one; one that
    isn't there has no tiles.
    """

    raw: bytes
    placed: Words

    @property
    def words(self) -> Words:
        return np.frombuffer(self.raw, "<i8")

    @property
    def at(self) -> Index:
        return self.placed[:, 0]

    @property
    def counts(self) -> Index:
        return self.placed[:, 1]


@dataclass(frozen=True, slots=True)
class _LiveTiles:
    """The tiles that count; by run the number of its block, and the tiles before it."""

    runs: Runs
    blocks: Index
    passed: Index


class StreamHeads:
    """What one service needs to take in blocks."""

    def __init__(
        self,
        plan: ServicePlan,
        transport: RowTransport,
        watermarks: Watermarks,
        old_shapes: OldShapes | None = None,
    ) -> None:
        if plan.heads is None:
            raise InvariantError(f"service {plan.name} reads no stream")
        self._plan = plan
        self._heads = plan.heads
        self._loop = plan.heads.loop()
        self._transport = transport
        self._watermarks = watermarks
        # The caller's own, also while it is empty: shapes are added to it.
        self._old_shapes: OldShapes = {} if old_shapes is None else old_shapes
        self._views = [stream.place.view for stream in plan.streams]
        self._place_count = len(plan.places)
        self._places = np.array([stream.place.number for stream in plan.streams], np.intp)
        self._horizons_ns = np.array([stream.schema.horizon_ns for stream in plan.streams], np.int64)
        self._intervals_ns = np.array([stream.blocks.interval_ns for stream in plan.streams], np.int64)
        self._position_of = {stream.place.number: n for n, stream in enumerate(plan.streams)}
        self._pick = itemgetter(*[item for stream in plan.streams for item in stream.items])
        per_block = [stream for stream in plan.streams for _ in stream.items]
        self._widths = np.array([1 + stream.blocks.words for stream in per_block], np.intp)
        wide = np.array([len(stream.blocks.wide) for stream in per_block], np.intp)
        self._tile_bytes = self._widths * WORD_BYTES + wide * END_BYTES
        self._headers = np.array([_header_word(stream.blocks.schema_id) for stream in per_block], np.int64)
        self._items = np.stack([self._headers, self._tile_bytes], axis=1).tobytes()
        self._span = slice(plan.heads_word, plan.heads_word + plan.heads.words)
        self._empty_tiles = transport.wrap(plan.heads.empty_tiles.tobytes())
        self._wide = WideHeads(plan.streams)
        self._whole_units = int(FIXED_MULTIPLE_BYTES / transport.bytes_per_unit)

    # --- blocks -----------------------------------------------------------------------------------------

    def taken_apart(
        self, lines: Sequence[Sequence[Any]], report: RowReport
    ) -> tuple[list[Sequence[Any]], StreamBatch]:
        """Return the rows of lines, and their blocks read; unreadable ones are reported."""
        count, pick = self._place_count, self._pick
        blocks: list[Any] = []
        rows = []
        for line in lines:
            rows.append(line[:count])
            blocks += pick(line)
        return rows, StreamBatch(self, self._read(blocks, report))

    def _read(self, blocks: list[Any], report: RowReport) -> _Blocks | None:
        """Return the blocks in one buffer, None if there are none; report unreadable ones and omit them."""
        if blocks.count(None) == len(blocks):
            return None
        found = self._joined(blocks)
        if found is None:
            found = self._joined(self._repaired(blocks, report))
            if found is None:
                raise InvariantError("expected blocks that were written anew to be readable")
        return found

    def _joined(self, blocks: list[Any]) -> _Blocks | None:
        """Return blocks that all have their view's present shape; None when there is any other."""
        texts = [block for block in blocks if block is not None]
        texts.append(self._empty_tiles)
        try:
            raw = self._transport.join(texts)
        except (TypeError, ValueError):
            return None
        placed = np.empty((len(blocks), 2), np.int64)
        if self._loop.find(blocks, self._whole_units, self._items, raw, placed):
            return _Blocks(raw, placed)
        return self._placed(blocks, raw)

    def _placed(self, blocks: Sequence[Any], raw: bytes) -> _Blocks | None:
        """Return what `HeadLoop.find` does, and None where that says nothing: its twin."""
        there = np.array([number for number, block in enumerate(blocks) if block is not None], np.intp)
        sizes = np.array([len(block) for block in blocks if block is not None], np.intp)
        wholes, rest = np.divmod(sizes, self._whole_units)
        if rest.any() or not wholes.all():
            return None
        words = np.frombuffer(raw, "<i8")
        lengths = wholes * WHOLE_WORDS
        at = np.cumsum(lengths) - lengths
        items = there % len(self._headers)
        if (words.take(at) != self._headers.take(items)).any():
            return None
        sizes = words.take(at + 1)
        counts = sizes & COUNT_MASK
        bytes_used = counts * self._tile_bytes.take(items) + (sizes >> COUNT_BITS & COUNT_MASK)
        if ((bytes_used + (HEADER_BYTES + FIXED_MULTIPLE_BYTES - 1)) // FIXED_MULTIPLE_BYTES != wholes).any():
            return None
        placed = np.zeros((len(blocks), 2), np.int64)
        placed[there, 0], placed[there, 1] = at, counts
        return _Blocks(raw, placed)

    def _repaired(self, blocks: Sequence[Any], report: RowReport) -> list[Any]:
        """Return blocks in their views' present shape; report unreadable ones and leave them out."""
        per_line = len(self._headers)
        repaired: list[Any] = []
        for number, block in enumerate(blocks):
            line, item = divmod(number, per_line)
            stream = self._plan.streams[item // BLOCKS_READ]
            if block is None:
                repaired.append(None)
                continue
            try:
                row = self._transport.unwrap(block)
                shapes = self._old_shapes.get(stream.place.view.name, {})
                current = encode(stream.blocks, decode(stream.blocks, row, shapes))
            except (RowError, ValueError, TypeError) as error:
                report.unreadable[line, stream.place.number] = f"a block of its stream: {error}"
                repaired.append(None)
            else:
                report.transcoded += current != row
                repaired.append(self._transport.wrap(current))
        return repaired

    # --- heads ------------------------------------------------------------------------------------------

    def floors(self, effective: Words, now_ns: int, dead: Pairs) -> tuple[Words, bool]:
        """Return from which start on tiles count, shape (lines, positions), and whether a row is absent.

        ``effective`` is the smallest int64 where there is no row that answers; ``dead`` are those of them at
        which there is one that doesn't.
        """
        floors = effective.take(self._places, axis=1)
        absent = floors == NULL_INT64
        are_some_absent = bool(absent.any())
        if are_some_absent:
            until_ns = self._watermarks.until_ns
            until = np.array([until_ns.get(view.name, NULL_INT64) for view in self._views], np.int64)
            floors[absent & (until < now_ns - self._horizons_ns)] = NEVER
            floors[self._at(dead)] = NEVER
        return floors, are_some_absent

    def _at(self, dead: Pairs) -> tuple[list[int], list[int]]:
        """Return lines and positions of those pairs whose place has blocks."""
        found = [(line, self._position_of[place]) for line, place in dead if place in self._position_of]
        return [line for line, _ in found], [position for _, position in found]

    def passed_over(self, blocks: _Blocks, floors: Words, dead: Pairs) -> int:
        """Return for how many keys without a row tiles don't count, as their view isn't complete."""
        found = np.zeros(floors.shape, np.bool_)
        found.reshape(-1)[np.flatnonzero(blocks.counts) // BLOCKS_READ] = True
        found &= floors == NEVER
        found[self._at(dead)] = False
        return int(np.count_nonzero(found))

    def live_tiles(self, blocks: _Blocks, floors: Words, now_ns: int) -> _LiveTiles | None:
        """Return the tiles that count, None if there are none."""
        numbers = np.flatnonzero(blocks.counts)
        if not len(numbers):
            return None
        words = blocks.words
        counts = blocks.counts.take(numbers)
        widths = self._widths.take(numbers % len(self._widths))
        at = blocks.at.take(numbers) + HEADER_WORDS
        owners = numbers // BLOCKS_READ
        ends = np.cumsum(counts)
        firsts = ends - counts
        tiles_at = (at - firsts * widths).repeat(counts) + np.arange(ends[-1]) * widths.repeat(counts)
        starts = words.take(tiles_at)
        past = starts < floors.reshape(-1).take(owners).repeat(counts)
        dead = past | (starts >= now_ns)
        if not dead.any():
            return _LiveTiles(Runs(words, at, counts, owners, starts), numbers, np.zeros_like(numbers))
        # Within a block starts ascend, so that what is left is side by side. No segment is empty.
        passed: Index = np.add.reduceat(past, firsts, dtype=np.intp)
        left_out: Index = np.add.reduceat(dead, firsts, dtype=np.intp)
        counts = counts - left_out
        at = at + passed * widths
        starts = starts[~dead]
        if not len(starts):
            return None
        left = np.flatnonzero(counts)
        runs = Runs(words, at.take(left), counts.take(left), owners.take(left), starts)
        return _LiveTiles(runs, numbers.take(left), passed.take(left))

    def wide_irs(self, blocks: _Blocks, live: _LiveTiles, now_ns: int) -> TileIRs:
        """Return the wide IRs of the tiles that count; raises `BrokenRowsError` as `WideHeads.irs`."""
        runs = live.runs
        each = runs.counts
        firsts = np.cumsum(each) - each
        numbers = np.arange(len(runs.starts)) + (live.passed - firsts).repeat(each)
        block_at = blocks.at.take(live.blocks).repeat(each)
        ir_bytes = runs.words.take(block_at + 1) >> COUNT_BITS & COUNT_MASK
        counts = blocks.counts.take(live.blocks).repeat(each)
        owners = runs.owners.repeat(each)
        found = WideTiles(runs.words, owners, runs.starts, numbers, block_at, counts, ir_bytes)
        return self._wide.irs(found, now_ns)

    def merge_in_loop(
        self, blocks: _Blocks, floors: Words, matrix: Words, newest: Words, now_ns: int, *, is_told: bool
    ) -> bool | None:
        """Merge tiles that count as `HeadLoop.merge` says, and tell their newest ones' ends."""
        heads = self._plan.heads_word
        return self._loop.merge(
            blocks.raw, blocks.placed, floors, self._places, matrix, newest, heads, now_ns, is_told=is_told
        )

    def merge(self, runs: Runs, matrix: Words, newest: Words, now_ns: int) -> None:
        """Merge tiles into the heads of ``matrix``, and tell their newest ones' ends: the loop's twin."""
        self._heads.merge(runs, now_ns, matrix[:, self._span])
        owners, starts = runs.owners, runs.starts.take(np.cumsum(runs.counts) - 1)
        doubles = owners[1:] == owners[:-1]
        if doubles.any():  # the newer run of a key is the second one
            last = np.append(~doubles, [True])
            owners, starts = owners[last], starts[last]
        lines, positions = np.divmod(owners, len(self._places))
        newest[lines, self._places.take(positions)] = np.minimum(
            starts + self._intervals_ns.take(positions), now_ns
        )

    def scattered(self, floors: Words, effective: Words) -> Words:
        """Return effective times with floors, shape (lines, positions), in their columns."""
        result = effective.copy()
        result[:, self._places] = floors
        return result

    @property
    def reads_wide(self) -> bool:
        """Whether tiles are read for wide components."""
        return bool(self._wide)


class StreamBatch:
    """The blocks of one batch, on their way into its vector rows."""

    __slots__ = ("_blocks", "_effective", "_floors", "_is_refused", "_newest", "_now_ns", "_streams")

    def __init__(self, streams: StreamHeads, blocks: _Blocks | None) -> None:
        self._streams = streams
        self._blocks = blocks
        self._now_ns = 0
        self._is_refused = False
        self._newest: Words | None = None
        self._effective: Words | None = None
        self._floors: Words | None = None

    def filled(self, matrix: Words, effective: Words, now_ns: int) -> bool:
        """Merge the tiles that count into the heads of ``matrix``, if all rows answer that have any.

        What it can't do, `fill` does.
        """
        if self._blocks is None:
            return True
        self._now_ns = now_ns
        self._effective = effective
        self._newest = np.empty_like(effective)
        done = self._streams.merge_in_loop(
            self._blocks, effective, matrix, self._newest, now_ns, is_told=False
        )
        self._is_refused = done is False
        return done is True

    def fill(self, matrix: Words, effective: Words, dead: Pairs, now_ns: int, report: RowReport) -> None:
        """Merge the tiles that count into the heads of ``matrix``, as of the rows' effective times.

        ``dead`` are the (line, place) pairs of rows that can't answer; they have been nulled.
        """
        blocks, streams = self._blocks, self._streams
        if blocks is None:
            return
        floors, are_some_absent = streams.floors(effective, now_ns, dead)
        if are_some_absent:
            report.expired += streams.passed_over(blocks, floors, dead)
        self._now_ns = now_ns
        self._floors = floors
        self._newest = newest = np.empty_like(effective)
        told = streams.scattered(floors, effective)
        if not self._is_refused and streams.merge_in_loop(blocks, told, matrix, newest, now_ns, is_told=True):
            return
        newest.fill(NULL_INT64)
        live = streams.live_tiles(blocks, floors, now_ns)
        if live is not None:
            streams.merge(live.runs, matrix, newest, now_ns)

    def newest(self, effective: Words) -> Words:
        """Return effective times with those of the newest tiles: their ends, or now while they are open.

        A tile that counts begins at its row's as_of or later, so that its end is later than that.
        """
        if self._newest is None:
            return effective
        newer: Words = np.maximum(effective, self._newest)
        return newer

    def wide_irs(self) -> TileIRs:
        """Return the wide IRs that count beside those of rows.

        Raises:
            BrokenRowsError: some blocks' wide parts can't be read.
        """
        blocks, streams = self._blocks, self._streams
        if blocks is None or not streams.reads_wide:
            return NO_TILES
        if self._floors is None:
            if self._effective is None:
                return NO_TILES
            self._floors, _ = streams.floors(self._effective, self._now_ns, ())
        live = streams.live_tiles(blocks, self._floors, self._now_ns)
        return NO_TILES if live is None else streams.wide_irs(blocks, live, self._now_ns)


def _header_word(schema_id: int) -> int:
    """Return the first 8 bytes of a block's header as an int64."""
    raw = bytes((BLOCK_FORMAT, 0, 0, 0)) + schema_id.to_bytes(4, "little")
    return int.from_bytes(raw, "little", signed=True)
