"""Made rows into a store: packed rows or ordinary items, in calls of a bounded size.

What makes rows (`partition`) gives keys and bytes; how a view's rows are put is decided here alone, whether
one machine's job or Spark's executors do it.

Invariants
1. What is put at once is at most `PUT_ROWS` rows of together about `PUT_BYTES`.
2. Rows of pushed attributes never replace newer ones: the push came first and stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from fastserve.plan.views import ViewPlan
from fastserve.store.interface import OnlineStore

PUT_ROWS = 5_000
PUT_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a view's rows go, and in which format: plain data.

    ``newest`` is whether a row that is there and has a later time stays.
    """

    table: str
    packed: bool
    newest: bool = False


def destination(plan: ViewPlan) -> Destination:
    """Return where a view's rows go."""
    return Destination(plan.table, plan.packed, newest=plan.is_streamed and plan.schema is None)


async def put_made(
    store: OnlineStore, target: Destination, made: Iterable[tuple[list[str], list[bytes]]]
) -> None:
    """Put what a `RowMaker` made.

    Raises:
        StoreError: the store failed; putting the same rows once more is right.
    """
    for keys, rows in made:
        await (_put_packed(store, target, keys, rows) if target.packed else _put_items(store, target, rows))


async def _put_packed(store: OnlineStore, target: Destination, keys: list[str], rows: list[bytes]) -> None:
    at_once = max(1, min(PUT_ROWS, PUT_BYTES // (1 + max(map(len, rows)))))
    for low in range(0, len(keys), at_once):
        pairs = zip(keys[low : low + at_once], rows[low : low + at_once], strict=True)
        await (store.put_newest if target.newest else store.put_rows)(target.table, list(pairs))


async def _put_items(store: OnlineStore, target: Destination, rows: list[bytes]) -> None:
    for low in range(0, len(rows), PUT_ROWS):
        items = [orjson.loads(row) for row in rows[low : low + PUT_ROWS]]
        await store.put_items(target.table, items)
