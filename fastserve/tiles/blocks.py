"""Stream blocks: what the stream adds to an entity key within one block of time, as one packed value.

A view's *block* b of an entity key holds all pushed events with ``floor(time / block_ns) == b``, cut into
tiles of the aggregation interval. A tile holds one IR of every distinct (operation, column) of the view,
without windows: one tile serves them all.

    offset  bytes            what
    0       1                format, `BLOCK_FORMAT`, which no packed row has
    1       3                reserved, 0
    4       4                schema id of the block's shape
    8       4                n, the number of tiles
    12      4                length in bytes of all wide IRs together
    16      n * (1 + k) * 8  tiles, ascending: start in ns (int64), then the k words of the components
    …       n * m * 4        with m wide components: the end of each IR (u4), tile by tile, from the first
                             wide byte on
    …       …                the wide IRs, then zeros up to a multiple of 24 (`tiles.layout` says why)

Knows no store and no clock.

Invariants
1. ``from_events`` of some events, merged with ``from_events`` of others, is ``from_events`` of them all, in
   whatever order (floats: up to rounding).
2. A tile that is in a block has had an event, though every component may be empty (inputs were null).
3. A shape is a function of the view's aggregates; a component that an older block lacks is empty there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from fastserve.errors import InvariantError
from fastserve.sdk.types import Bool, DataType, Float32, Float64, Int64, Timestamp
from fastserve.tiles.aggregates import CompactedSchema, Component, Op, WideComponent, wide_name
from fastserve.tiles.layout import FIXED_MULTIPLE_BYTES, WORD_BYTES, make_layout
from fastserve.tiles.rows import RowError
from fastserve.tiles.wide import WideFunction, wide_function
from fastserve.tiles.windows import LIFETIME_NS, NEVER_NS, Window
from fastserve.tiles.write import EventColumn, Events, merge_words, neutral_words, tile_events

Words = npt.NDArray[np.int64]

BLOCK_FORMAT = 0x42
HEADER_BYTES = 16
EVER = Window(LIFETIME_NS, 1, 1, 0)
"""One slot for all of time: what is tiled under it is already cut to one tile."""
ROW_HEADER_WORDS = 2


@dataclass(frozen=True, slots=True)
class BlockShape:
    """What a block's tiles hold, by name: narrow components with their widths in words, and wide ones."""

    components: tuple[tuple[str, int], ...]
    wide: tuple[str, ...] = ()

    @property
    def words(self) -> int:
        """How many words of a tile follow its start."""
        return sum(words for _, words in self.components)

    @property
    def schema_id(self) -> int:
        """The first 4 bytes of the SHA-256 of the shape's canonical text."""
        text = json.dumps([BLOCK_FORMAT, self.describe()], sort_keys=True, separators=(",", ":"))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")

    def describe(self) -> dict[str, Any]:
        """Return the shape for JSON; `described_shape` makes it again."""
        return {"components": [list(component) for component in self.components], "wide": list(self.wide)}


def described_shape(described: Mapping[str, Any]) -> BlockShape:
    """Return the shape of which this is the description; raises KeyError, TypeError or ValueError if none."""
    components = tuple((str(name), int(words)) for name, words in described["components"])
    return BlockShape(components, tuple(map(str, described["wide"])))


@dataclass(frozen=True, slots=True)
class WidePart:
    """One wide component of the tiles: its function and the columns that it is fed from."""

    function: WideFunction
    column: str
    secondary_key: str | None


@dataclass(frozen=True, slots=True)
class BlockSchema:
    """How a view's blocks are cut, and where its components lie in their tiles.

    ``tile_schema`` is that of a row with a single slot, which is what a tile is: `tiles.write` fills and
    merges it. ``component_words[i]`` is the first word, of those after a tile's start, of the view's i-th
    component; ``wide_places[j]`` is the place of the view's j-th wide component among a tile's IRs.
    ``input_types`` are those of all columns that events are read from.
    """

    interval_ns: int
    block_ns: int
    shape: BlockShape
    schema_id: int
    tile_schema: CompactedSchema
    component_words: tuple[int, ...]
    wide: tuple[WidePart, ...]
    wide_places: tuple[int, ...]
    input_types: Mapping[str, DataType] = field(hash=False)

    @property
    def words(self) -> int:
        """How many words of a tile follow its start."""
        return self.shape.words

    def block_of(self, time_ns: int) -> int:
        """Return the number of the block that holds events of this time."""
        return time_ns // self.block_ns

    def end_ns(self, block: int) -> int:
        """Return the end of a block, exclusive."""
        return (block + 1) * self.block_ns


@dataclass(frozen=True, slots=True)
class Block:
    """A block's tiles, ascending: starts int64[n], words int64[n, k], wide[n][m] IRs (b"" where empty)."""

    starts: Words
    words: Words
    wide: list[list[bytes]]

    @property
    def tiles(self) -> int:
        """How many tiles there are."""
        return len(self.starts)


def block_schema(schema: CompactedSchema) -> BlockSchema:
    """Return how the blocks of a view with these aggregates are cut."""
    intervals_ns = {window.interval_ns for window in schema.windows}
    interval_ns = min(intervals_ns)
    parts = list(dict.fromkeys((component.op, component.column) for component in schema.components))
    wide = list(dict.fromkeys(replace(part, window=EVER, columns=()) for part in schema.wide))
    shape = BlockShape(
        tuple((f"{column}:{op.value}", op.parts) for op, column in parts),
        tuple(f"{part.column}:{wide_name(part)}" for part in wide),
    )
    tile_schema = _tile_schema(parts)
    firsts = {
        (component.op, component.column): component.word - ROW_HEADER_WORDS
        for component in tile_schema.components
    }
    return BlockSchema(
        interval_ns=interval_ns,
        block_ns=-(-schema.horizon_ns // interval_ns) * interval_ns,
        shape=shape,
        schema_id=shape.schema_id,
        tile_schema=tile_schema,
        component_words=tuple(firsts[component.op, component.column] for component in schema.components),
        wide=tuple(map(_wide_part, wide)),
        wide_places=tuple(wide.index(replace(part, window=EVER, columns=())) for part in schema.wide),
        input_types=_input_types(schema),
    )


def _wide_part(wide: WideComponent) -> WidePart:
    key_name, key_type = wide.secondary_key or (None, None)
    # Percentiles of a column share their state, which doesn't depend on which one is asked for.
    params = {"percentile": 0.5, **dict(wide.params)}
    return WidePart(wide_function(wide.function, params, wide.input_type, key_type), wide.column, key_name)


def _input_types(schema: CompactedSchema) -> dict[str, DataType]:
    types = {feature.spec.column: feature.spec.input_type for feature in schema.features}
    for wide in schema.wide:
        types[wide.column] = wide.input_type
        if wide.secondary_key is not None:
            types[wide.secondary_key[0]] = wide.secondary_key[1]
    return types


def _tile_schema(parts: Sequence[tuple[Op, str]]) -> CompactedSchema:
    layout = make_layout(
        [
            (f"{column}:{op.value}:{part}", Float64 if op.is_float else Int64)
            for op, column in parts
            for part in range(op.parts)
        ]
    )
    components = []
    word = ROW_HEADER_WORDS
    for op, column in parts:
        components.append(Component(op, column, EVER, word))
        word += op.parts
    return CompactedSchema(layout, tuple(components), (), 0)


# --- bytes --------------------------------------------------------------------------------------------------


def encode(schema: BlockSchema, block: Block) -> bytes:
    """Return a block's bytes; their number is a multiple of 24."""
    tiles = np.empty((block.tiles, 1 + schema.words), "<i8")
    tiles[:, 0] = block.starts
    tiles[:, 1:] = block.words
    wide = b"".join(ir for irs in block.wide for ir in irs)
    ends = np.cumsum([len(ir) for irs in block.wide for ir in irs], dtype="<u4") if schema.wide else b""
    head = b"".join(
        (
            bytes((BLOCK_FORMAT, 0, 0, 0)),
            schema.schema_id.to_bytes(4, "little"),
            block.tiles.to_bytes(4, "little"),
            len(wide).to_bytes(4, "little"),
        )
    )
    whole = b"".join((head, tiles.tobytes(), bytes(ends), wide))
    return whole + bytes(-len(whole) % FIXED_MULTIPLE_BYTES)


def schema_id_of(value: bytes) -> int:
    """Return the schema id in a block's header.

    Raises:
        RowError: the bytes aren't a block.
    """
    if len(value) < HEADER_BYTES or value[0] != BLOCK_FORMAT or value[1:4] != b"\0\0\0":
        raise RowError(f"expected a block of format {BLOCK_FORMAT}, got {value[:4].hex()} and so on")
    return int.from_bytes(value[4:8], "little")


def decode(schema: BlockSchema, value: bytes, older: Mapping[int, BlockShape] | None = None) -> Block:
    """Return the block that these bytes are; one of an ``older`` shape gets the view's present one.

    Components that an older block lacks are empty.

    Raises:
        RowError: the bytes aren't a block, or one of an unknown shape (then ``schema_id`` tells which).
    """
    schema_id = schema_id_of(value)
    if schema_id == schema.schema_id:
        return _decoded(schema.shape, value)
    shape = (older or {}).get(schema_id)
    if shape is None:
        raise RowError(
            f"expected a block of schema {schema.schema_id:08x}, got schema {schema_id:08x}", schema_id
        )
    return _transcoded(schema, shape, _decoded(shape, value))


def _decoded(shape: BlockShape, value: bytes) -> Block:
    count = int.from_bytes(value[8:12], "little")
    wide_bytes = int.from_bytes(value[12:16], "little")
    width = 1 + shape.words
    ends_at = HEADER_BYTES + count * width * WORD_BYTES
    irs_at = ends_at + count * len(shape.wide) * 4
    if len(value) != -(-(irs_at + wide_bytes) // FIXED_MULTIPLE_BYTES) * FIXED_MULTIPLE_BYTES:
        raise RowError(f"expected {irs_at + wide_bytes} bytes for {count} tiles and zeros, got {len(value)}")
    tiles = np.frombuffer(value, "<i8", count * width, HEADER_BYTES).reshape(count, width)
    wide: list[list[bytes]] = [[] for _ in range(count)]
    if shape.wide:
        ends = np.frombuffer(value, "<u4", count * len(shape.wide), ends_at).tolist()
        if any(low > high for low, high in zip([0, *ends], [*ends, wide_bytes], strict=True)):
            raise RowError("expected the ends of the wide parts in ascending order")
        cuts = [irs_at + end for end in [0, *ends]]
        irs = [value[low:high] for low, high in pairwise(cuts)]
        wide = [irs[first : first + len(shape.wide)] for first in range(0, len(irs), len(shape.wide))]
    return Block(tiles[:, 0], tiles[:, 1:], wide)


def _transcoded(schema: BlockSchema, shape: BlockShape, block: Block) -> Block:
    words = _neutral(schema, block.tiles)
    old_places: dict[str, tuple[int, int]] = {}
    first = 0
    for name, width in shape.components:
        old_places[name] = (first, width)
        first += width
    first = 0
    for name, width in schema.shape.components:
        old, old_width = old_places.get(name, (0, 0))
        if old_width == width:
            words[:, first : first + width] = block.words[:, old : old + width]
        first += width
    places = [shape.wide.index(name) if name in shape.wide else None for name in schema.shape.wide]
    wide = [[b"" if place is None else irs[place] for place in places] for irs in block.wide]
    return Block(block.starts, words, wide)


# --- events and merging -------------------------------------------------------------------------------------


def merge(schema: BlockSchema, left: Block, right: Block) -> Block:
    """Return the block of the events of both."""
    starts = np.concatenate((left.starts, right.starts))
    words = np.concatenate((left.words, right.words))
    order = np.argsort(starts, kind="stable")
    ordered = starts[order]
    doubles = np.flatnonzero(ordered[1:] == ordered[:-1])
    # Of a tile in both, the left one comes first: it is merged, and the right one left out.
    firsts, seconds = order[doubles], order[doubles + 1]
    if len(doubles):
        words[firsts] = _merged(schema, words[firsts], words[seconds])
        order = np.delete(order, doubles + 1)
    wide: list[list[bytes]] = [[] for _ in range(len(order))]
    if schema.wide:
        both = left.wide + right.wide
        for first, second in zip(firsts.tolist(), seconds.tolist(), strict=True):
            both[first] = _merged_wide(schema, both[first], both[second])
        wide = [both[place] for place in order.tolist()]
    return Block(starts[order], words[order], wide)


def _merged(schema: BlockSchema, left: Words, right: Words) -> Words:
    """Merge words of the same tiles of two blocks."""
    place = slice(ROW_HEADER_WORDS, ROW_HEADER_WORDS + schema.words)
    rows = np.zeros((2, len(left), schema.tile_schema.layout.fixed_words), np.int64)
    rows[0, :, place] = left
    rows[1, :, place] = right
    return merge_words(schema.tile_schema, rows[0], rows[1])[:, place]


def _merged_wide(schema: BlockSchema, left: list[bytes], right: list[bytes]) -> list[bytes]:
    return [
        part.function.merge([old, new]) if old and new else old or new
        for part, old, new in zip(schema.wide, left, right, strict=True)
    ]


def _neutral(schema: BlockSchema, count: int) -> Words:
    return neutral_words(schema.tile_schema, count)[:, ROW_HEADER_WORDS : ROW_HEADER_WORDS + schema.words]


def from_events(
    schema: BlockSchema,
    keys: Sequence[str],
    times_ns: Sequence[int],
    columns: Mapping[str, Sequence[Any]],
) -> dict[tuple[str, int], Block]:
    """Return the blocks, by entity key and number, that hold exactly these events.

    ``keys`` are entity keys as text. ``columns`` are the values of each input column, None for null: numbers,
    bool, str, timestamps as nanoseconds.
    """
    if not keys:
        return {}
    codes: dict[str, int] = {}
    entities = np.array([codes.setdefault(key, len(codes)) for key in keys], np.int64)
    times = np.array(times_ns, np.int64)
    order = np.lexsort((times, entities))
    entities, times = entities[order], times[order]
    starts = times // schema.interval_ns * schema.interval_ns
    changes = (np.diff(starts) != 0) | (np.diff(entities) != 0)
    cuts = np.concatenate(([0], np.flatnonzero(changes) + 1, [len(times)]))
    firsts = cuts[:-1]
    events = Events(cuts, times, _event_columns(schema, columns, order))
    words = tile_events(schema.tile_schema, events, NEVER_NS)
    words = words[:, ROW_HEADER_WORDS : ROW_HEADER_WORDS + schema.words]
    wide = _wide_tiles(schema, columns, order, times, cuts)
    names = list(codes)
    starts, owners = starts[firsts], entities[firsts]
    numbers = starts // schema.block_ns
    changes = (np.diff(numbers) != 0) | (np.diff(owners) != 0)
    ends = [0, *(np.flatnonzero(changes) + 1).tolist(), len(starts)]
    return {
        (names[int(owners[low])], int(numbers[low])): Block(starts[low:high], words[low:high], wide[low:high])
        for low, high in pairwise(ends)
    }


def _event_columns(
    schema: BlockSchema, columns: Mapping[str, Sequence[Any]], order: npt.NDArray[np.intp]
) -> dict[str, EventColumn]:
    made: dict[str, EventColumn] = {}
    for component in schema.tile_schema.components:
        name = component.column
        if name not in made:
            made[name] = _event_column(schema.input_types[name], columns[name], order)
    return made


def _event_column(dtype: DataType, values: Sequence[Any], order: npt.NDArray[np.intp]) -> EventColumn:
    valid = np.array([value is not None for value in values], np.bool_)[order]
    everywhere = None if valid.all() else valid
    if dtype in (Float64, Float32):
        numbers = np.array([np.nan if value is None else value for value in values], np.float64)
        return EventColumn(numbers[order], everywhere)
    if dtype in (Int64, Timestamp, Bool):
        integers = np.array([0 if value is None else value for value in values], np.int64)
        return EventColumn(integers[order], everywhere)
    return EventColumn(None, everywhere)


def _wide_tiles(
    schema: BlockSchema,
    columns: Mapping[str, Sequence[Any]],
    order: npt.NDArray[np.intp],
    times: Words,
    cuts: npt.NDArray[np.intp],
) -> list[list[bytes]]:
    tiles: list[list[bytes]] = [[] for _ in range(len(cuts) - 1)]
    if not schema.wide:
        return tiles
    places, moments, bounds = order.tolist(), times.tolist(), cuts.tolist()
    for part in schema.wide:
        values = columns[part.column]
        if part.secondary_key is not None:
            keys = columns[part.secondary_key]
            values = [None if key is None else (key, value) for key, value in zip(keys, values, strict=True)]
        ordered = [values[place] for place in places]
        for tile, (low, high) in zip(tiles, pairwise(bounds), strict=True):
            there = [number for number in range(low, high) if ordered[number] is not None]
            tile.append(part.function.tile([moments[n] for n in there], [ordered[n] for n in there]))
    return tiles


def check_block(schema: BlockSchema, block: Block) -> None:
    """Check what must hold of a block that is about to be written.

    Raises:
        InvariantError: its tiles aren't ascending, or don't lie on the interval.
    """
    if (np.diff(block.starts) <= 0).any() or (block.starts % schema.interval_ns).any():
        raise InvariantError("a block's tiles must be ascending multiples of the interval")
