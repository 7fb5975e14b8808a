"""What a stream adds to a vector and to its upkeep: the blocks of a view put into numbers.

How long blocks get, no plan knows: figures are given for one tile, and for blocks that have a tile for every
aggregation interval. Reads of keys without a block cost as much as those of small ones; all are consistent.

Invariants
1. Every streamed place of a service is told once; one of attributes costs no key more, and a write an event.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from fastserve.plan.explain_windows import duration_text
from fastserve.plan.service import Place, ServicePlan
from fastserve.plan.sizes import key_bytes, read_units, row_bytes
from fastserve.plan.stream_costs import most_tiles, write_cost
from fastserve.plan.streams import BLOCKS_READ


@dataclass(frozen=True, slots=True)
class StreamCost:
    """What one streamed row of a vector costs beside the row itself.

    ``keys`` and ``read_units`` are those of its blocks, if each has one tile; ``full_…`` is for blocks of
    ``full_tiles``. ``write_units`` are for each pushed event. A view of attributes has no blocks. Units are 0
    where it isn't ``priced``.
    """

    view: str
    table: str
    block: str
    keys: int
    item_bytes: int
    read_units: float
    write_units: int
    full_tiles: int
    full_item_bytes: int
    full_read_units: float
    full_write_units: int
    fits: bool
    priced: bool = True

    def unpriced(self) -> StreamCost:
        """Return the same where nothing is charged for reads and writes."""
        return replace(
            self, read_units=0.0, write_units=0, full_read_units=0.0, full_write_units=0, priced=False
        )


def stream_costs(plan: ServicePlan, unpriced: Collection[str] = ()) -> tuple[StreamCost, ...]:
    """Return the costs of all places of a service that are pushed to; stores ``unpriced`` charge nothing."""
    costs = [_stream_cost(place, _beside_bytes(plan, place)) for place in plan.places]
    return tuple(
        cost.unpriced() if place.view.store in unpriced else cost
        for place, cost in zip(plan.places, costs, strict=True)
        if cost is not None
    )


def _beside_bytes(plan: ServicePlan, place: Place) -> int:
    """Return how much there is beside a row in its bundle's item."""
    sizes = [bundle.item_bytes for bundle in plan.bundles if bundle.table == place.view.table]
    return sizes[0] - key_bytes(place.view) - row_bytes(place.view) if sizes else 0


def _stream_cost(place: Place, beside_bytes: int) -> StreamCost | None:
    view = place.view
    first = write_cost(view, 1, beside_bytes=beside_bytes)
    full = write_cost(view, max(1, most_tiles(view)), beside_bytes=beside_bytes)
    if first is None or full is None:
        return None
    keys = 0 if view.stream is None else BLOCKS_READ
    return StreamCost(
        view=view.name,
        table=view.table if view.stream is None else view.stream.table,
        block="" if view.stream is None else duration_text(view.stream.block_ns),
        keys=keys,
        item_bytes=first.item_bytes,
        read_units=keys * read_units(first.item_bytes, consistent=True),
        write_units=first.units,
        full_tiles=full.tiles,
        full_item_bytes=full.item_bytes,
        full_read_units=keys * read_units(full.item_bytes, consistent=True),
        full_write_units=full.units,
        fits=full.fits,
    )
