"""The blocks of a batch: joined, cut into tiles, and merged into the heads of its vector rows.

All blocks of all lines and views are joined in the form in which they came and decoded at once, as rows are;
header words say where each one's tiles lie. Only blocks with another header are looked at one by one.

Which tiles count, for a key of a view:

    row                              tiles that start at or after
    there                            its as_of
    absent, the view complete        any: the key had no event before the blocks that are read
    absent, the view not complete    none: events may lie in blocks that aren't read
    past its horizon, unreadable     none

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
from fastserve.tiles.heads import Tiles, first_of_each
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
    """The blocks of a batch in one buffer: where each begins, how many tiles it has, 0 where it is absent.

    Both have shape (lines, 2 * positions): of each streamed place the previous block, then the current one.
    """

    words: Words
    at: Index
    counts: Index


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
        self._nothing = transport.wrap(b"")
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
        absent = blocks.count(None)
        if absent == len(blocks):
            return None
        found = self._joined(blocks, absent)
        if found is None:
            repaired = self._repaired(blocks, report)
            found = self._joined(repaired, repaired.count(None))
            if found is None:
                raise InvariantError("expected blocks that were written anew to be readable")
        return found

    def _joined(self, blocks: Sequence[Any], absent: int) -> _Blocks | None:
        """Return blocks that all have their view's present shape; None when there is any other."""
        nothing = self._nothing
        texts = [nothing if block is None else block for block in blocks] if absent else [*blocks]
        try:
            sizes = np.fromiter(map(len, texts), np.intp, len(texts))
            texts.append(self._empty_tiles)
            words = np.frombuffer(self._transport.join(texts), "<i8")
        except (TypeError, ValueError):
            return None
        wholes, rest = np.divmod(sizes.reshape(-1, len(self._headers)), self._whole_units)
        if np.count_nonzero(wholes) + absent != len(blocks) or rest.any():
            return None
        lengths = wholes * WHOLE_WORDS
        at = (np.cumsum(lengths) - lengths.ravel()).reshape(lengths.shape)
        there = wholes > 0
        if ((words.take(at) != self._headers) & there).any():
            return None
        sizes = words.take(at + 1)
        counts = (sizes & COUNT_MASK) * there
        bytes_used = counts * self._tile_bytes + ((sizes >> COUNT_BITS & COUNT_MASK) + HEADER_BYTES)
        if ((-(-bytes_used // FIXED_MULTIPLE_BYTES) != wholes) & there).any():
            return None
        return _Blocks(words, at, counts)

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
        found = (blocks.counts.reshape(*floors.shape, BLOCKS_READ).sum(axis=2) > 0) & (floors == NEVER)
        found[self._at(dead)] = False
        return int(np.count_nonzero(found))

    def live_tiles(self, blocks: _Blocks, floors: Words, now_ns: int) -> tuple[Tiles, Index] | None:
        """Return the tiles that count, and of each the number of its block; None if there are none."""
        counts = blocks.counts.ravel()
        ends = np.cumsum(counts).reshape(blocks.counts.shape)
        # The word of each block's first tile, less as many widths as there are tiles before it.
        first = blocks.at + HEADER_WORDS - (ends - blocks.counts) * self._widths
        which = np.repeat(np.arange(len(counts)), counts)
        if not len(which):
            return None
        at = np.arange(len(which)) * self._widths.take(which % len(self._widths)) + first.ravel().take(which)
        owners = which // BLOCKS_READ
        starts = blocks.words.take(at)
        live = starts >= floors.ravel().take(owners)
        live &= starts < now_ns
        if not live.all():
            chosen = np.flatnonzero(live)
            if not len(chosen):
                return None
            at, owners, starts = at.take(chosen), owners.take(chosen), starts.take(chosen)
            which = which.take(chosen)
        return Tiles(blocks.words, at, starts, owners), which

    def wide_irs(self, blocks: _Blocks, tiles: Tiles, which: Index, now_ns: int) -> TileIRs:
        """Return the wide IRs of the tiles that count; raises `BrokenRowsError` as `WideHeads.irs`."""
        if not self._wide:
            return NO_TILES
        block_at = blocks.at.ravel().take(which)
        numbers = (tiles.at - block_at - HEADER_WORDS) // self._widths.take(which % len(self._widths))
        ir_bytes = blocks.words.take(block_at + 1) >> COUNT_BITS & COUNT_MASK
        counts = blocks.counts.ravel().take(which)
        found = WideTiles(tiles.words, tiles.owners, tiles.starts, numbers, block_at, counts, ir_bytes)
        return self._wide.irs(found, now_ns)

    def merge(self, tiles: Tiles, matrix: Words, now_ns: int) -> None:
        """Merge tiles into the heads of ``matrix``."""
        self._heads.merge(tiles, now_ns, matrix[:, self._span])

    def newest(self, tiles: Tiles, effective: Words, now_ns: int) -> Words:
        """Return effective times with those of the newest tiles: their ends, or now while they are open."""
        last = np.append(first_of_each(tiles.owners)[1:], len(tiles.owners)) - 1
        lines, positions = np.divmod(tiles.owners.take(last), len(self._places))
        newest = np.minimum(tiles.starts.take(last) + self._intervals_ns.take(positions), now_ns)
        places = self._places.take(positions)
        result = effective.copy()
        result[lines, places] = np.maximum(effective[lines, places], newest)
        return result


class StreamBatch:
    """The blocks of one batch, on their way into its vector rows."""

    __slots__ = ("_blocks", "_found", "_now_ns", "_streams")

    def __init__(self, streams: StreamHeads, blocks: _Blocks | None) -> None:
        self._streams = streams
        self._blocks = blocks
        self._now_ns = 0
        self._found: tuple[Tiles, Index] | None = None

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
            streams.merge(self._found[0], matrix, now_ns)

    def newest(self, effective: Words) -> Words:
        """Return effective times of rows and of the tiles that count."""
        if self._found is None:
            return effective
        return self._streams.newest(self._found[0], effective, self._now_ns)

    def wide_irs(self) -> TileIRs:
        """Return the wide IRs that count beside those of rows.

        Raises:
            BrokenRowsError: some blocks' wide parts can't be read.
        """
        if self._found is None or self._blocks is None:
            return NO_TILES
        return self._streams.wide_irs(self._blocks, *self._found, self._now_ns)


def _header_word(schema_id: int) -> int:
    """Return the first 8 bytes of a block's header as an int64."""
    raw = bytes((BLOCK_FORMAT, 0, 0, 0)) + schema_id.to_bytes(4, "little")
    return int.from_bytes(raw, "little", signed=True)
