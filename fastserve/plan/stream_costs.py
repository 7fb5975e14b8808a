"""What a pushed event costs to write, from a view's definition alone: for `explain` and capacity planning.

Knows DynamoDB's law of prices and how blocks are laid out; it measures nothing.

A pushed event rewrites its entity key's block, so its cost is that of the block: one write unit for each
begun KB. A block grows with the tiles that its key has had events in, up to one for each aggregation interval
of the horizon. Requests for one key that are under way at once share a write; the id of each request stays
beside the block for ten minutes.

Sources: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html for the
units, `tiles.blocks` for the bytes.

Invariants
1. The bytes of a block without wide aggregates are exact; those of wide ones are what the caller supposes.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastserve.plan.sizes import write_units
from fastserve.plan.views import ViewPlan
from fastserve.tiles.blocks import HEADER_BYTES, block_schema
from fastserve.tiles.layout import FIXED_MULTIPLE_BYTES, WORD_BYTES

ID_BYTES = 12
"""Of one request, for ten minutes."""
ITEM_BYTES = 40
"""The attributes' names, the version and the time of expiry; numbers count by their digits."""
KEY_BYTES = 30
"""What a key is taken to have where nothing is known of it; the block's number is part of it."""
MAX_BLOCK_BYTES = 390 * 1024
"""`store.interface.MAX_ROW_BYTES`: a block that grows beyond takes no more events."""


@dataclass(frozen=True, slots=True)
class WriteCost:
    """What an event of one view costs: DynamoDB's write units, and the bytes of the item it rewrites."""

    tiles: int
    item_bytes: int
    units: int

    @property
    def fits(self) -> bool:
        """Whether a block of so many tiles can be stored at all."""
        return self.item_bytes <= MAX_BLOCK_BYTES


def write_cost(
    view: ViewPlan,
    tiles: int,
    *,
    wide_bytes: int = 0,
    requests: int = 1,
    key_bytes: int = KEY_BYTES,
    beside_bytes: int = 0,
) -> WriteCost | None:
    """Return what an event costs whose block has ``tiles`` tiles; None for a view that isn't pushed to.

    ``wide_bytes`` is the length of one tile's wide states together. ``requests`` is how many requests a key
    gets in ten minutes. For a view of attributes a row is written, which is charged with the ``beside_bytes``
    that its bundle's item has, and the other arguments say nothing.
    """
    if not view.is_streamed:
        return None
    if view.schema is None:
        size = view.layout.fixed_bytes + key_bytes + ITEM_BYTES + beside_bytes
        return WriteCost(0, size, write_units(size))
    size = block_bytes(view, tiles, wide_bytes) + key_bytes + ITEM_BYTES + requests * ID_BYTES
    return WriteCost(tiles, size, write_units(size))


def most_tiles(view: ViewPlan) -> int:
    """Return how many tiles a block of the view can have: one for each aggregation interval."""
    if view.schema is None or view.interval_ns is None or view.stream is None:
        return 0
    return view.stream.block_ns // view.interval_ns


def write_cost_text(view: ViewPlan) -> str | None:
    """Return the cost in words: of a key's first event, and of one whose block is full."""
    first = write_cost(view, 1)
    if first is None:
        return None
    if view.schema is None:
        return f"{_unit_text(first.units)} an event ({first.item_bytes:,} bytes, texts not counted)"
    full = write_cost(view, most_tiles(view))
    assert full is not None  # noqa: S101 - for the type checker: the view is streamed
    wide = ", wide states not counted" if view.schema.wide else ""
    text = (
        f"{_unit_text(first.units)} an event where a block has 1 tile, "
        f"{_unit_text(full.units)} where it has all {full.tiles:,} ({full.item_bytes:,} bytes{wide})"
    )
    return text if full.fits else f"{text}, which is more than an item can have: few keys may have so many"


def block_bytes(view: ViewPlan, tiles: int, wide_bytes: int = 0) -> int:
    """Return the bytes of a block with so many tiles."""
    if view.schema is None:
        return 0
    schema = block_schema(view.schema)
    ends = 4 * len(schema.wide)
    size = HEADER_BYTES + tiles * ((1 + schema.words) * WORD_BYTES + ends + wide_bytes)
    return -(-size // FIXED_MULTIPLE_BYTES) * FIXED_MULTIPLE_BYTES


def _unit_text(units: int) -> str:
    return "1 write unit" if units == 1 else f"{units:,} write units"
