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
    """The blocks of a batch in one buffer: which ones are there, where each begins, how many tiles it has.

    They are numbered line by line, of each streamed place the previous block, then the current one.
    """

    words: Words
    numbers: Index
    at: Index
    counts: Index


@dataclass(frozen=True, slots=True)
class _LiveTiles:
    """The tiles that count; by run the number of its block's place in `_Blocks`, and the tiles before it."""

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

    def _read(self, blocks: Sequence[Any], report: RowReport) -> _Blocks | None:
        """Return the blocks in one buffer, None if there are none; report unreadable ones and omit them."""
        if blocks.count(None) == len(blocks):
            return None
        found = self._joined(blocks)
        if found is None:
            found = self._joined(self._repaired(blocks, report))
            if found is None:
                raise InvariantError("expected blocks that were written anew to be readable")
        return found

    def _joined(self, blocks: Sequence[Any]) -> _Blocks | None:
        """Return blocks that all have their view's present shape; None when there is any other."""
        numbers = [number for number, block in enumerate(blocks) if block is not None]
        texts = [blocks[number] for number in numbers]
        try:
            sizes = np.fromiter(map(len, texts), np.intp, len(texts))
            texts.append(self._empty_tiles)
            words = np.frombuffer(self._transport.join(texts), "<i8")
        except (TypeError, ValueError):
            return None
        wholes, rest = np.divmod(sizes, self._whole_units)
        if rest.any() or not wholes.all():
            return None
        lengths = wholes * WHOLE_WORDS
        at = np.cumsum(lengths) - lengths
        there = np.array(numbers, np.intp)
        items = there % len(self._headers)
        if (words.take(at) != self._headers.take(items)).any():
            return None
        sizes = words.take(at + 1)
        counts = sizes & COUNT_MASK
        bytes_used = counts * self._tile_bytes.take(items) + (sizes >> COUNT_BITS & COUNT_MASK)
        if ((bytes_used + (HEADER_BYTES + FIXED_MULTIPLE_BYTES - 1)) // FIXED_MULTIPLE_BYTES != wholes).any():
            return None
        return _Blocks(words, there, at, counts)

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
        found.reshape(-1)[blocks.numbers[blocks.counts > 0] // BLOCKS_READ] = True
        found &= floors == NEVER
        found[self._at(dead)] = False
        return int(np.count_nonzero(found))

    def live_tiles(self, blocks: _Blocks, floors: Words, now_ns: int) -> _LiveTiles | None:
        """Return the tiles that count, None if there are none."""
        places = np.flatnonzero(blocks.counts)
        if not len(places):
            return None
        counts = blocks.counts.take(places)
        numbers = blocks.numbers.take(places)
        widths = self._widths.take(numbers % len(self._widths))
        at = blocks.at.take(places) + HEADER_WORDS
        owners = numbers // BLOCKS_READ
        ends = np.cumsum(counts)
        firsts = ends - counts
        tiles_at = (at - firsts * widths).repeat(counts) + np.arange(ends[-1]) * widths.repeat(counts)
        starts = blocks.words.take(tiles_at)
        past = starts < floors.reshape(-1).take(owners).repeat(counts)
        dead = past | (starts >= now_ns)
        if not dead.any():
            return _LiveTiles(Runs(blocks.words, at, counts, owners, starts), places, np.zeros_like(places))
        # Within a block starts ascend, so that what is left is side by side. No segment is empty.
        passed: Index = np.add.reduceat(past, firsts, dtype=np.intp)
        left_out: Index = np.add.reduceat(dead, firsts, dtype=np.intp)
        counts = counts - left_out
        at = at + passed * widths
        starts = starts[~dead]
        if not len(starts):
            return None
        left = np.flatnonzero(counts)
        runs = Runs(blocks.words, at.take(left), counts.take(left), owners.take(left), starts)
        return _LiveTiles(runs, places.take(left), passed.take(left))

    def wide_irs(self, blocks: _Blocks, live: _LiveTiles, now_ns: int) -> TileIRs:
        """Return the wide IRs of the tiles that count; raises `BrokenRowsError` as `WideHeads.irs`."""
        if not self._wide:
            return NO_TILES
        runs = live.runs
        each = runs.counts
        firsts = np.cumsum(each) - each
        numbers = np.arange(len(runs.starts)) + (live.passed - firsts).repeat(each)
        block_at = blocks.at.take(live.blocks).repeat(each)
        ir_bytes = blocks.words.take(block_at + 1) >> COUNT_BITS & COUNT_MASK
        counts = blocks.counts.take(live.blocks).repeat(each)
        owners = runs.owners.repeat(each)
        found = WideTiles(runs.words, owners, runs.starts, numbers, block_at, counts, ir_bytes)
        return self._wide.irs(found, now_ns)

    def merge(self, runs: Runs, matrix: Words, now_ns: int) -> None:
        """Merge tiles into the heads of ``matrix``."""
        self._heads.merge(runs, now_ns, matrix[:, self._span])

    def newest(self, runs: Runs, effective: Words, now_ns: int) -> Words:
        """Return effective times with those of the newest tiles: their ends, or now while they are open.

        A tile that counts begins at its row's as_of or later, so that its end is later than that.
        """
        owners, starts = runs.owners, runs.starts.take(np.cumsum(runs.counts) - 1)
        doubles = owners[1:] == owners[:-1]
        if doubles.any():  # the newer run of a key is the second one
            last = np.append(~doubles, [True])
            owners, starts = owners[last], starts[last]
        lines, positions = np.divmod(owners, len(self._places))
        result = effective.copy()
        result[lines, self._places.take(positions)] = np.minimum(
            starts + self._intervals_ns.take(positions), now_ns
        )
        return result


class StreamBatch:
    """The blocks of one batch, on their way into its vector rows."""

    __slots__ = ("_blocks", "_found", "_now_ns", "_streams")

    def __init__(self, streams: StreamHeads, blocks: _Blocks | None) -> None:
        self._streams = streams
        self._blocks = blocks
        self._now_ns = 0
        self._found: _LiveTiles | None = None

    def fill(self, matrix: Words, effective: Words, dead: Pairs, now_ns: int, report: RowReport) -> None:
        """Merge the tiles that count into the heads of ``matrix``, as of the rows' effective times."""
        if self._blocks is None:
            return
        streams = self._streams
        floors, are_some_absent = streams.floors(effective, now_ns, dead)
        if are_some_absent:
            report.expired += streams.passed_over(self._blocks, floors, dead)
        self._now_ns = now_ns
        self._found = streams.live_tiles(self._blocks, floors, now_ns)
        if self._found is not None:
            streams.merge(self._found.runs, matrix, now_ns)

    def newest(self, effective: Words) -> Words:
        """Return effective times of rows and of the tiles that count."""
        if self._found is None:
            return effective
        return self._streams.newest(self._found.runs, effective, self._now_ns)

    def wide_irs(self) -> TileIRs:
        """Return the wide IRs that count beside those of rows.

        Raises:
            BrokenRowsError: some blocks' wide parts can't be read.
        """
        if self._found is None or self._blocks is None:
            return NO_TILES
        return self._streams.wide_irs(self._blocks, self._found, self._now_ns)


def _header_word(schema_id: int) -> int:
    """Return the first 8 bytes of a block's header as an int64."""
    raw = bytes((BLOCK_FORMAT, 0, 0, 0)) + schema_id.to_bytes(4, "little")
    return int.from_bytes(raw, "little", signed=True)
