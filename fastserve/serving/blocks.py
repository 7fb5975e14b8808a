"""The blocks of a batch: joined, found in the buffer, and made anew where they aren't as they should be.

All blocks of all lines and views are joined in the form in which they came and decoded at once, as rows are;
header words say where each one's tiles lie. Only blocks with another header are looked at one by one.

Knows nothing of rows and of which tiles count: `serving.heads` does.

Invariants
1. Every block that is read has its view's present shape. Bytes that are no block make the whole row of its
   view unreadable, in no case a smaller count.
2. A loop that isn't compiled, or refuses, changes nothing but the cost (`tiles.head_merge`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastserve.errors import InvariantError
from fastserve.plan.service import StreamedPlace
from fastserve.plan.streams import BLOCKS_READ
from fastserve.serving.columns import RowReport
from fastserve.serving.transport import RowTransport
from fastserve.serving.wide_heads import END_BYTES
from fastserve.tiles.blocks import BLOCK_FORMAT, HEADER_BYTES, BlockShape, decode, encode
from fastserve.tiles.head_merge import HeadLoop
from fastserve.tiles.layout import FIXED_MULTIPLE_BYTES, WORD_BYTES
from fastserve.tiles.merge import Words
from fastserve.tiles.rows import RowError

OldShapes = Mapping[str, Mapping[int, BlockShape]]
"""Shapes that a view's blocks may still have, by view name and schema id."""

WHOLE_WORDS = FIXED_MULTIPLE_BYTES // WORD_BYTES
COUNT_BITS = 32
COUNT_MASK = (1 << COUNT_BITS) - 1

Index = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Blocks:
    """The blocks of a batch in one buffer, and of each its first word and how many tiles it has.

    They are numbered line by line, of each streamed place the previous block, then the current one; one that
    isn't there has no tiles.
    """

    raw: bytes
    placed: Words

    @property
    def words(self) -> Words:
        """The whole buffer."""
        return np.frombuffer(self.raw, "<i8")

    @property
    def at(self) -> Index:
        """By block its first word."""
        return self.placed[:, 0]

    @property
    def counts(self) -> Index:
        """By block the number of its tiles."""
        return self.placed[:, 1]


class BlockReader:
    """What one service needs to read blocks. At the end of their buffer stand ``empty_tiles``."""

    def __init__(
        self,
        streams: Sequence[StreamedPlace],
        transport: RowTransport,
        loop: HeadLoop,
        old_shapes: OldShapes,
        empty_tiles: Words,
    ) -> None:
        self._streams = streams
        self._transport = transport
        self._loop = loop
        self._old_shapes = old_shapes
        per_block = [stream for stream in streams for _ in stream.items]
        self._tile_bytes = np.array(
            [
                (1 + stream.blocks.words) * WORD_BYTES + len(stream.blocks.wide) * END_BYTES
                for stream in per_block
            ],
            np.int64,
        )
        self._headers = np.array([_header_word(stream.blocks.schema_id) for stream in per_block], np.int64)
        self._items = np.stack([self._headers, self._tile_bytes], axis=1).tobytes()
        self._empty_tiles = transport.wrap(empty_tiles.tobytes())
        self._whole_units = int(FIXED_MULTIPLE_BYTES / transport.bytes_per_unit)

    def read(self, blocks: list[Any], report: RowReport) -> Blocks | None:
        """Return the blocks in one buffer, None if there are none; report unreadable ones and omit them."""
        if blocks.count(None) == len(blocks):
            return None
        found = self._joined(blocks)
        if found is None:
            found = self._joined(self._repaired(blocks, report))
            if found is None:
                raise InvariantError("expected blocks that were written anew to be readable")
        return found

    def _joined(self, blocks: list[Any]) -> Blocks | None:
        """Return blocks that all have their view's present shape; None when there is any other."""
        texts = [block for block in blocks if block is not None]
        texts.append(self._empty_tiles)
        try:
            raw = self._transport.join(texts)
        except (TypeError, ValueError):
            return None
        placed = np.empty((len(blocks), 2), np.int64)
        if self._loop.find(blocks, self._whole_units, self._items, raw, placed):
            return Blocks(raw, placed)
        return self._placed(blocks, raw)

    def _placed(self, blocks: Sequence[Any], raw: bytes) -> Blocks | None:
        """Return blocks found by NumPy, None if any isn't as it should be: the twin of `HeadLoop.find`."""
        there = np.array([number for number, block in enumerate(blocks) if block is not None], np.intp)
        units = np.array([len(block) for block in blocks if block is not None], np.intp)
        wholes, rest = np.divmod(units, self._whole_units)
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
        return Blocks(raw, placed)

    def _repaired(self, blocks: Sequence[Any], report: RowReport) -> list[Any]:
        """Return blocks in their views' present shape; report unreadable ones and leave them out."""
        per_line = len(self._headers)
        repaired: list[Any] = []
        for number, block in enumerate(blocks):
            line, item = divmod(number, per_line)
            stream = self._streams[item // BLOCKS_READ]
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


def _header_word(schema_id: int) -> int:
    """Return the first 8 bytes of a block's header as an int64."""
    raw = bytes((BLOCK_FORMAT, 0, 0, 0)) + schema_id.to_bytes(4, "little")
    return int.from_bytes(raw, "little", signed=True)
