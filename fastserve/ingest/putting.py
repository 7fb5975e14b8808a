"""Made rows into a store: packed rows or ordinary items, in calls of a bounded size.

What makes rows (`partition`) gives keys and bytes; how a view's rows are put is decided here alone, whether
one machine's job or Spark's executors do it.

Invariants
1. What is put at once is at most `PUT_ROWS` rows of together about `PUT_BYTES`.
2. Rows of pushed attributes never replace newer ones: the push came first and stays.
3. Of a bundle's items a view's rows change their attribute alone. A row for which an item has no room is
   told, and the key keeps the row that it has.
4. Of a view of aggregates every key that should have a row has something afterwards: it, the row that it
   had, or `NO_ROW`; a reader takes a key that has nothing for one without events. Else it is told
   (`NotPut.untold`), and whoever wrote mustn't record that all is written (`check_told`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from fastserve.errors import StoreError, shown
from fastserve.plan.views import ViewPlan
from fastserve.store.interface import OnlineStore
from fastserve.tiles.layout import NO_ROW

PUT_ROWS = 5_000
PUT_BYTES = 8 << 20
LOOKED_AT_ONCE = 20
"""Rows of keys that get none: each may have as much as a store takes."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a view's rows go, and in which format: plain data.

    ``newest`` is whether a row that is there and has a later time stays, ``attribute`` that of a bundle's
    items, None where a row is an item of its own. ``tells`` is whether a key for whose row there is no room
    gets `NO_ROW`, if it has nothing.
    """

    table: str
    packed: bool
    newest: bool = False
    attribute: str | None = None
    tells: bool = False


@dataclass(slots=True)
class NotPut:
    """Rows for which their bundle's items had no room: the keys, and how long the rows are together.

    ``untold`` are keys with neither a row nor `NO_ROW`.
    """

    keys: list[str] = field(default_factory=list)
    row_bytes: int = 0
    untold: list[str] = field(default_factory=list)

    def add(self, keys: Iterable[str], rows: Mapping[str, bytes]) -> None:
        """Add those of ``rows`` that lie under these keys."""
        for key in keys:
            self.keys.append(key)
            self.row_bytes += len(rows[key])


def destination(plan: ViewPlan) -> Destination:
    """Return where a view's rows go."""
    newest = plan.is_streamed and plan.schema is None
    return Destination(plan.table, plan.packed, newest, plan.attribute, tells=plan.schema is not None)


async def put_made(
    store: OnlineStore, target: Destination, made: Iterable[tuple[list[str], list[bytes]]]
) -> NotPut:
    """Put what a `RowMaker` made; return what there was no room for.

    `NO_ROW` is put where nothing is: another row that is there stays.

    Raises:
        StoreError: the store failed; putting the same rows once more is right.
    """
    not_put = NotPut()
    for keys, rows in made:
        if target.packed:
            await _put_packed(store, target, keys, rows, not_put)
        else:
            await _put_items(store, target, rows)
    return not_put


async def _put_packed(
    store: OnlineStore, target: Destination, keys: list[str], rows: list[bytes], not_put: NotPut
) -> None:
    if target.tells:
        left_out = [key for key, row in zip(keys, rows, strict=True) if row == NO_ROW]
        if left_out:
            rest = [pair for pair in zip(keys, rows, strict=True) if pair[1] != NO_ROW]
            keys, rows = [key for key, _ in rest], [row for _, row in rest]
            await _put_no_rows(store, target, left_out, not_put)
    if not keys:
        return
    at_once = max(1, min(PUT_ROWS, PUT_BYTES // (1 + max(map(len, rows)))))
    for low in range(0, len(keys), at_once):
        pairs = list(zip(keys[low : low + at_once], rows[low : low + at_once], strict=True))
        if target.attribute is not None:
            full = await store.put_bundled(target.table, target.attribute, pairs, newest=target.newest)
            not_put.add(full, dict(pairs))
            if target.tells:
                await _put_no_rows(store, target, full, not_put)
        else:
            await (store.put_newest if target.newest else store.put_rows)(target.table, pairs)


async def _put_no_rows(store: OnlineStore, target: Destination, keys: Sequence[str], not_put: NotPut) -> None:
    """Put `NO_ROW` for those of the keys that have nothing.

    A row that another job puts between the look and the put is lost, and its key missing until the next one
    is put: jobs that hold their view's lease don't meet, and an answer that lacks isn't wrong.
    """
    for low in range(0, len(keys), LOOKED_AT_ONCE):
        some = keys[low : low + LOOKED_AT_ONCE]
        found = await get_put(store, target, some)
        absent = [(key, NO_ROW) for key, row in zip(some, found, strict=True) if row is None]
        if absent and target.attribute is not None:
            not_put.untold += await store.put_bundled(target.table, target.attribute, absent)
        elif absent:
            await store.put_rows(target.table, absent)


def check_told(plan: ViewPlan, untold: Sequence[str]) -> None:
    """Check that no key is left of which a reader would think that it has no events.

    Raises:
        StoreError: there is one. What else was made is put, and nothing may be recorded.
    """
    if untold:
        raise StoreError(
            f"table {plan.table}: the item of key {shown(untold[0])} has no room for a row of view "
            f"{plan.name!r}, nor to say that it has none: all others are written, but the view isn't "
            "recorded as made, since such a key would look like one without events; let the bundle "
            f"{plan.view.bundle!r} have fewer views or smaller rows"
        )


async def _put_items(store: OnlineStore, target: Destination, rows: list[bytes]) -> None:
    for low in range(0, len(rows), PUT_ROWS):
        items = [orjson.loads(row) for row in rows[low : low + PUT_ROWS]]
        await store.put_items(target.table, items)


async def get_put(store: OnlineStore, target: Destination, keys: Sequence[str]) -> list[bytes | None]:
    """Return the packed rows that lie there, None where there is none.

    Raises:
        StoreError: the store failed.
    """
    if target.attribute is not None:
        return await store.get_bundled(target.table, target.attribute, keys)
    return await store.get_rows(target.table, keys)


async def delete_put(store: OnlineStore, target: Destination, keys: Sequence[str]) -> None:
    """Delete packed rows; of a bundle's items the rest stays.

    Raises:
        StoreError: the store failed.
    """
    if target.attribute is not None:
        await store.delete_bundled(target.table, target.attribute, keys)
    else:
        await store.delete_rows(target.table, keys)
