"""Tiles of a stream to compacted rows: what `write` makes of events, made of tiles that were kept in blocks.

A view without files has nothing but its blocks. Its rows are the merge of their tiles, slot by slot: a tile
lies in one slot of a window or outside of it, for slots begin and end at multiples of the aggregation
interval. Knows no store, no blocks' keys and no clock.

Invariants
1. Rows of the tiles of some events are rows of the events themselves, for one ``as_of`` (floats: up to
   rounding), however the tiles are shared out between blocks, and in whatever order they come.
2. A tile that starts at ``as_of`` or later has no part in any row: it is the reader's to add.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fastserve.tiles.aggregates import CompactedSchema
from fastserve.tiles.blocks import Block, BlockSchema
from fastserve.tiles.operations import Over, over_segments, reduce_parts
from fastserve.tiles.wide import function_of
from fastserve.tiles.windows import Window
from fastserve.tiles.write import encode_words, neutral_words

Words = npt.NDArray[np.int64]
Index = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tiles of ``entities`` entities, in any order: whose they are, and otherwise as in a `blocks.Block`."""

    entities: int
    owners: Index
    starts: Words
    words: Words
    wide: Sequence[Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Compacted:
    """Rows in the making: words of shape (entities, words of the layout), IRs by column of bytes and entity.

    ``live`` is true for entities that have a tile in any slot; the others have had nothing for as long as
    the windows are, and need no row.
    """

    words: Words
    wide: list[list[bytes]]
    live: Bools


@dataclass(frozen=True, slots=True)
class _Runs:
    """Tiles of one window that count, in runs of one entity and slot each."""

    tiles: Index
    starts: Index
    entities: Index
    slots: Index

    @property
    def over(self) -> Over:
        return over_segments(self.starts, len(self.tiles))


def gather(blocks: BlockSchema, by_entity: Sequence[Sequence[Block]]) -> Tiles:
    """Return the tiles of all entities' blocks."""
    whole = [block for entity in by_entity for block in entity]
    counts = [sum(block.tiles for block in entity) for entity in by_entity]
    return Tiles(
        len(by_entity),
        np.repeat(np.arange(len(by_entity)), counts),
        np.concatenate([np.empty(0, np.int64), *[block.starts for block in whole]]),
        np.concatenate([np.empty((0, blocks.words), np.int64), *[block.words for block in whole]]),
        [irs for block in whole for irs in block.wide] if blocks.wide else [],
    )


def compact(schema: CompactedSchema, blocks: BlockSchema, tiles: Tiles, as_of_ns: int) -> Compacted:
    """Return each entity's row of all its tiles before ``as_of_ns``."""
    words = neutral_words(schema, tiles.entities)
    live = np.zeros(tiles.entities, np.bool_)
    found: dict[Window, _Runs] = {}
    for window in schema.windows:
        runs = found[window] = _find_runs(window, tiles, as_of_ns)
        live[runs.entities] = True
    for number, component in enumerate(schema.components):
        runs = found[component.window]
        if not len(runs.starts):
            continue
        first = blocks.component_words[number]
        parts = [tiles.words[runs.tiles, first + part] for part in range(component.op.parts)]
        for part, merged in enumerate(reduce_parts(component.op, parts, runs.over)):
            words[runs.entities, component.word + part * component.window.slots + runs.slots] = merged
    return Compacted(words, _wide(schema, blocks, tiles, found), live)


def _find_runs(window: Window, tiles: Tiles, as_of_ns: int) -> _Runs:
    bounds = window.slot_bounds_ns(as_of_ns)
    order = sorted((low, slot) for slot, (low, high) in enumerate(bounds) if low < high)
    if not order:
        nothing = np.empty(0, np.intp)
        return _Runs(nothing, nothing, nothing, nothing)
    slots = np.array([slot for _, slot in order], np.intp)
    lows = np.array([low for low, _ in order], np.int64)
    highs = np.array([bounds[slot][1] for slot in slots], np.int64)
    places = np.searchsorted(lows, tiles.starts, side="right") - 1
    # A place of -1 is before all slots; indexing with it is harmless, for the first condition rules it out.
    picked = np.flatnonzero((places >= 0) & (tiles.starts < highs[places]))
    runs = tiles.owners[picked] * np.intp(len(slots)) + places[picked]
    sorting = np.argsort(runs, kind="stable")
    picked, runs = picked[sorting], runs[sorting]
    starts = np.flatnonzero(np.diff(runs, prepend=-1))
    return _Runs(picked, starts, runs[starts] // len(slots), slots[runs[starts] % len(slots)])


def _wide(
    schema: CompactedSchema, blocks: BlockSchema, tiles: Tiles, found: dict[Window, _Runs]
) -> list[list[bytes]]:
    columns: list[list[bytes]] = [[b""] * tiles.entities for part in schema.wide for _ in part.columns]
    first = 0
    for component, place in zip(schema.wide, blocks.wide_places, strict=True):
        function, runs = function_of(component), found[component.window]
        cuts = pairwise([*runs.starts.tolist(), len(runs.tiles)])
        numbers = runs.tiles.tolist()
        for (low, high), entity, slot in zip(cuts, runs.entities.tolist(), runs.slots.tolist(), strict=True):
            irs = [ir for number in numbers[low:high] if (ir := tiles.wide[number][place])]
            if irs:
                columns[first + slot][entity] = irs[0] if len(irs) == 1 else function.merge(irs)
        first += len(component.columns)
    return columns


def encode(
    schema: CompactedSchema, compacted: Compacted, as_of_ns: int, chosen: Sequence[int]
) -> list[bytes]:
    """Return the rows of the chosen entities, in that order."""
    if not chosen:
        return []
    wide = [[irs[entity] for entity in chosen] for irs in compacted.wide]
    return encode_words(schema, compacted.words[np.array(chosen, np.intp)], as_of_ns, wide)
