"""The tiles of a batch's blocks that count, merged into the heads of its vector rows.

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
2. No tile that starts at or after ``now`` counts.
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
from fastserve.serving.blocks import COUNT_BITS, COUNT_MASK, BlockReader, Blocks, OldShapes
from fastserve.serving.columns import RowReport
from fastserve.serving.transport import RowTransport
from fastserve.serving.wide import NO_TILES, TileIRs
from fastserve.serving.wide_heads import WideHeads, WideTiles
from fastserve.tiles.blocks import HEADER_BYTES
from fastserve.tiles.heads import Runs
from fastserve.tiles.layout import NULL_INT64, WORD_BYTES
from fastserve.tiles.merge import Words

NEVER = np.iinfo(np.int64).max
HEADER_WORDS = HEADER_BYTES // WORD_BYTES

Index = npt.NDArray[np.intp]
Pairs = Collection[tuple[int, int]]
"""(line, place number)."""


@dataclass(slots=True)
class Watermarks:
    """Until when, by view, all events are in rows (ns since the epoch); views that lack aren't complete."""

    until_ns: Mapping[str, int] = field(default_factory=dict)


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
        # The caller's own shapes, also while there are none: they are added to it.
        shapes: OldShapes = {} if old_shapes is None else old_shapes
        self._blocks = BlockReader(plan.streams, transport, self._loop, shapes, plan.heads.empty_tiles)
        self._watermarks = watermarks
        self._views = [stream.place.view for stream in plan.streams]
        self._place_count = len(plan.places)
        self._places = np.array([stream.place.number for stream in plan.streams], np.intp)
        self._horizons_ns = np.array([stream.schema.horizon_ns for stream in plan.streams], np.int64)
        self._intervals_ns = np.array([stream.blocks.interval_ns for stream in plan.streams], np.int64)
        self._position_of = {stream.place.number: n for n, stream in enumerate(plan.streams)}
        self._pick = itemgetter(*[item for stream in plan.streams for item in stream.items])
        per_block = [stream for stream in plan.streams for _ in stream.items]
        self._widths = np.array([1 + stream.blocks.words for stream in per_block], np.intp)
        self._span = slice(plan.heads_word, plan.heads_word + plan.heads.words)
        self._wide = WideHeads(plan.streams)

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
        return rows, StreamBatch(self, self._blocks.read(blocks, report))

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

    def passed_over(self, blocks: Blocks, floors: Words, dead: Pairs) -> int:
        """Return for how many keys without a row tiles don't count, as their view isn't complete."""
        found = np.zeros(floors.shape, np.bool_)
        found.reshape(-1)[np.flatnonzero(blocks.counts) // BLOCKS_READ] = True
        found &= floors == NEVER
        found[self._at(dead)] = False
        return int(np.count_nonzero(found))

    def live_tiles(self, blocks: Blocks, floors: Words, now_ns: int) -> _LiveTiles | None:
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

    def wide_irs(self, blocks: Blocks, live: _LiveTiles, now_ns: int) -> TileIRs:
        """Return the wide IRs of the tiles that count.

        Raises:
            BrokenRowsError: some blocks' wide parts can't be read.
        """
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
        self, blocks: Blocks, floors: Words, matrix: Words, newest: Words, now_ns: int, *, is_told: bool
    ) -> bool | None:
        """Merge tiles that count, and tell their newest ones' ends: True, or what `HeadLoop.merge` says."""
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

    def __init__(self, streams: StreamHeads, blocks: Blocks | None) -> None:
        self._streams = streams
        self._blocks = blocks
        self._now_ns = 0
        self._is_refused = False
        self._newest: Words | None = None
        self._effective: Words | None = None
        self._floors: Words | None = None

    def fill_in_loop(self, matrix: Words, effective: Words, now_ns: int) -> bool:
        """Merge the tiles that count into the heads of ``matrix``, if all rows answer that have any.

        Returns False where `fill` has to do it: without the loop, for a row that doesn't answer, for tiles
        that the loop doesn't take.
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
