"""What views of one entity cost in one item, and what each in an item of its own: both, for every service.

Of views that are bundled it says what they would cost apart, of others what a bundle of them would cost.
Blocks of streams lie in tables of their own in either case, and are left out.

What DynamoDB charges, after "DynamoDB read and write operations" in the Developer Guide: a read the whole
item, in steps of 4 KB, whatever is asked for of it; an UpdateItem, which writes one row into an item, the
whole item, too, the larger of before and after, in steps of 1 KB. So a bundle saves on reads, where many
small items are rounded up, and pays on writes, where each row is charged with all that is beside it.

Invariants
1. Figures are for an entity key that has a row of every view.
2. A view is in one of the sets at most, however often a service reads it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from fastserve.plan.service import Place, ServicePlan
from fastserve.plan.sizes import item_bytes, key_bytes, read_units, row_bytes, write_units
from fastserve.plan.stream_costs import MAX_BLOCK_BYTES
from fastserve.plan.views import BUNDLED_MARK, ROW_ATTRIBUTE, ViewPlan

MAX_BUNDLE_BYTES = MAX_BLOCK_BYTES
"""`store.interface.MAX_ROW_BYTES`: what the rows of an item have room for in every store."""

PRICE_PER_MILLION_WRITE_UNITS_USD = 0.625
"""Of the same list as the read units'."""


@dataclass(frozen=True, slots=True)
class BundleCost:
    """Views of one entity, in one item and apart.

    ``bundle`` is None where they aren't bundled. ``views`` share the item, ``views_read`` of them the service
    reads, under ``keys`` different entity keys a vector. ``moved_bytes`` are those of an item that come over
    the wire. ``write_units`` are what one row takes, ``refresh_units`` all rows of an entity key, once each.
    ``pays_from`` is how many vectors of an entity key have to be asked for between two refreshes for the
    bundle to be the cheaper one; None if it never is. Units are 0 where it isn't ``priced``.
    """

    bundle: str | None
    table: str | None
    join_keys: tuple[str, ...]
    views: tuple[str, ...]
    views_read: int
    keys: int
    apart_keys: int
    item_bytes: int
    moved_bytes: int
    apart_bytes: int
    read_units: float
    apart_read_units: float
    write_units: int
    refresh_units: int
    apart_refresh_units: int
    pays_from: float | None
    priced: bool = True

    @property
    def fits(self) -> bool:
        """Whether such an item can be stored."""
        return self.item_bytes <= MAX_BUNDLE_BYTES

    def unpriced(self) -> BundleCost:
        """Return the same where nothing is charged for reads and writes."""
        none = replace(self, read_units=0.0, apart_read_units=0.0, pays_from=None, priced=False)
        return replace(none, write_units=0, refresh_units=0, apart_refresh_units=0)


def bundle_costs(
    plan: ServicePlan, price_per_million_read_units_usd: float, unpriced: Collection[str] = ()
) -> tuple[BundleCost, ...]:
    """Return the sets of views of a service that are bundled, or could be; stores ``unpriced`` charge none.

    An item is read consistently where any service reads a row of it that is pushed.
    """
    sets: dict[object, list[Place]] = {}
    for place in plan.places:
        view = place.view
        if view.attribute is not None:
            sets.setdefault(view.table, []).append(place)
        elif view.packed and view.store not in unpriced:
            keys = tuple((field.name, str(field.dtype)) for field in view.key_fields)
            sets.setdefault((keys, view.store, view.cache), []).append(place)
    members = {bundle.table: bundle.views for bundle in plan.bundles}
    found = []
    for places in sets.values():
        distinct = tuple({place.view.name: place.view for place in places}.values())
        views = members.get(places[0].view.table, distinct)
        if len(views) > 1:
            cost = _cost(plan, places, views, price_per_million_read_units_usd)
            found.append(cost.unpriced() if places[0].view.store in unpriced else cost)
    return tuple(found)


def _cost(
    plan: ServicePlan, places: Sequence[Place], views: Sequence[ViewPlan], read_price: float
) -> BundleCost:
    first = views[0]
    is_bundled = first.attribute is not None
    size = key_bytes(first) + sum(row_bytes(view, BUNDLED_MARK + view.name) for view in views)
    reads = {plan.reads[place.read].keys for place in places}
    group = plan.reads[places[0].read].group
    pushed = group.pushed if is_bundled else any(place.view.is_pushed for place in places)
    units = len(reads) * read_units(size, consistent=pushed)
    apart_sizes = {view.name: item_bytes_apart(view) for view in views}
    apart_units = sum(read_units(apart_sizes[p.view.name], consistent=p.view.is_pushed) for p in places)
    refresh = len(views) * write_units(size)
    apart_refresh = sum(write_units(apart) for apart in apart_sizes.values())
    moved = size
    if group.projected:
        read = [view for view in views if view.attribute in group.attributes]
        moved = key_bytes(first) + sum(map(row_bytes, read))
    return BundleCost(
        bundle=first.view.bundle if is_bundled else None,
        table=first.table if is_bundled else None,
        join_keys=tuple(field.name for field in first.key_fields),
        views=tuple(view.name for view in views),
        views_read=len({place.view.name for place in places}),
        keys=len(reads),
        apart_keys=len(places),
        item_bytes=size,
        moved_bytes=moved,
        apart_bytes=sum(apart_sizes[place.view.name] for place in places),
        read_units=units,
        apart_read_units=apart_units,
        write_units=write_units(size),
        refresh_units=refresh,
        apart_refresh_units=apart_refresh,
        pays_from=_pays_from(refresh - apart_refresh, (apart_units - units) / len(reads), read_price),
    )


def item_bytes_apart(view: ViewPlan) -> int:
    """Return the size of an item that holds a row of the view alone, whether or not it is bundled."""
    if view.attribute is None:
        return item_bytes(view)
    return key_bytes(view) + row_bytes(view, ROW_ATTRIBUTE)


def _pays_from(more_written: int, less_read: float, read_price: float) -> float | None:
    """Return how many vectors make good what a refresh costs more."""
    saved = less_read * read_price
    return None if saved <= 0 else max(0.0, more_written * PRICE_PER_MILLION_WRITE_UNITS_USD / saved)
