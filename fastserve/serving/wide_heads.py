"""Wide components of stream tiles: the IRs that count beside a row's own, cut out of its blocks.

Behind a block's tiles stand the ends of their wide IRs, tile by tile, and then the IRs (`tiles.blocks`). They
are merged with a row's own IRs by `serving.wide`, one by one; here they are only found.

Invariants
1. An IR counts for a component if its tile counts and starts within the component's window.
2. A block whose ends don't ascend within it gives none: its row is told as broken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fastserve.plan.service import StreamedPlace
from fastserve.serving.wide import BrokenRowsError, TileIRs
from fastserve.tiles.blocks import HEADER_BYTES
from fastserve.tiles.layout import WORD_BYTES
from fastserve.tiles.merge import Words

Index = npt.NDArray[np.intp]
END_BYTES = 4


@dataclass(frozen=True, slots=True)
class WideTiles:
    """Tiles that count: whose each is, its start, its number in its block.

    Of the block: its first word, how many tiles it has, how many bytes of IRs.
    """

    words: Words
    owners: Index
    starts: Words
    numbers: Index
    block_at: Index
    block_tiles: Index
    block_ir_bytes: Index


class WideHeads:
    """Finds the IRs of one service's streamed places."""

    def __init__(self, streams: Sequence[StreamedPlace]) -> None:
        self._streams = streams
        self._components = [_wide_components(stream) for stream in streams]

    def __bool__(self) -> bool:
        """Whether any streamed place is read for a wide component."""
        return any(self._components)

    def irs(self, tiles: WideTiles, now_ns: int) -> TileIRs:
        """Return the IRs that count by line and place, and for each of those by component.

        Raises:
            BrokenRowsError: some blocks hold ends that don't fit them.
        """
        found: dict[tuple[int, int], dict[int, list[bytes]]] = {}
        broken: dict[tuple[int, int], str] = {}
        lines, positions = np.divmod(tiles.owners, len(self._streams))
        windows = [_windows(s, c, now_ns) for s, c in zip(self._streams, self._components, strict=True)]
        pieces = _Pieces(tiles)
        for tile, (line, position) in enumerate(zip(lines.tolist(), positions.tolist(), strict=True)):
            if not windows[position]:
                continue
            stream = self._streams[position]
            key = (line, stream.place.number)
            irs = pieces.of_tile(tile, stream.blocks.words, len(stream.blocks.wide))
            if irs is None:
                broken[key] = "a block of its stream: expected wide parts within it, got others"
                continue
            start = int(tiles.starts[tile])
            by_component = found.setdefault(key, {})
            for component, place, start_ns, end_ns in windows[position]:
                if start_ns <= start < end_ns and irs[place]:
                    by_component.setdefault(component, []).append(irs[place])
        if broken:
            raise BrokenRowsError(broken)
        return found


class _Pieces:
    """The wide IRs of tiles, cut out of their blocks."""

    def __init__(self, tiles: WideTiles) -> None:
        self._raw = tiles.words.tobytes()
        self._ends = tiles.words.view("<u4")
        self._numbers = tiles.numbers.tolist()
        self._at = tiles.block_at.tolist()
        self._counts = tiles.block_tiles.tolist()
        self._bytes = tiles.block_ir_bytes.tolist()

    def of_tile(self, tile: int, words: int, each: int) -> list[bytes] | None:
        """Return the IRs of one tile, which has so many words and IRs; None if its ends don't fit."""
        number, count = self._numbers[tile], self._counts[tile]
        first = (self._at[tile] * WORD_BYTES + HEADER_BYTES + count * (1 + words) * WORD_BYTES) // END_BYTES
        own = first + number * each
        cuts = [int(self._ends[own - 1]) if number else 0, *self._ends[own : own + each].tolist()]
        if cuts != sorted(cuts) or cuts[-1] > self._bytes[tile]:
            return None
        base = (first + count * each) * END_BYTES
        return [self._raw[base + low : base + high] for low, high in pairwise(cuts)]


def _wide_components(stream: StreamedPlace) -> list[int]:
    elements = [element for feature in stream.features for element in (feature.elements or (feature,))]
    return sorted({element.wide for element in elements if element.wide is not None})


def _windows(
    stream: StreamedPlace, components: Sequence[int], now_ns: int
) -> list[tuple[int, int, int, int]]:
    """Return components with their places among a tile's IRs, and where their windows start and end."""
    windows = [stream.schema.wide[component].window for component in components]
    return [
        (component, stream.blocks.wide_places[component], window.start_ns(now_ns), window.end_ns(now_ns))
        for component, window in zip(components, windows, strict=True)
    ]
