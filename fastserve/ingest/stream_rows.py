"""Writes rows of attributes, of which the newest stays.

Rows that come while a write of their table (in a bundle, of their attribute) is under way share the next one.

Knows rows and the store, not records. Belongs to one event loop.

Invariants
1. Rows are written in the order in which they came, per table and attribute: of equal times the last one
   stays.
2. ``add`` returns after all its rows are in the store, or later ones are.
3. A key for whose row its item has no room fails those who write that key, and nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from fastserve.errors import FastserveError, StoreError, shown
from fastserve.ingest.events import NewRow
from fastserve.store.interface import OnlineStore

PAIRS_AT_ONCE = 2_000

_Place: TypeAlias = "tuple[str, str | None]"
"""A table and, of a bundle's items, the attribute."""


@dataclass(slots=True)
class _Waiting:
    rows: list[tuple[str, bytes]]
    deadline_s: float
    done: asyncio.Future[None]


class RowWriter:
    """Writes rows of all tables of one store."""

    def __init__(self, store: OnlineStore) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[_Place, list[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.written = 0

    def add(self, rows: Sequence[NewRow], deadline_s: float) -> list[asyncio.Future[None]]:
        """Return what is done when the rows are in the store, for each table; an error is a StoreError."""
        by_lane: dict[_Place, list[tuple[str, bytes]]] = {}
        for row in rows:
            by_lane.setdefault((row.table, row.attribute), []).append((row.key, row.row))
        return [self._add(place, pairs, deadline_s) for place, pairs in by_lane.items()]

    def _add(self, place: _Place, pairs: list[tuple[str, bytes]], deadline_s: float) -> asyncio.Future[None]:
        one = _Waiting(pairs, deadline_s, self._loop.create_future())
        lane = self._lanes.get(place)
        if lane is not None:
            lane.append(one)
            return one.done
        self._lanes[place] = [one]
        task = self._loop.create_task(self._run(place))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return one.done

    async def close(self) -> None:
        """Wait for the writes in flight and those behind them."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, place: _Place) -> None:
        batch: list[_Waiting] = []
        try:
            while self._lanes[place]:
                batch = self._taken(place)
                try:
                    full = await self._write(place, batch)
                except FastserveError as error:
                    _settle(batch, error)
                else:
                    _settle_written(batch, place, full)
        finally:
            left = self._lanes.pop(place)
            _settle(batch + left, StoreError("the write ended half-way", retryable=True))

    def _taken(self, place: _Place) -> list[_Waiting]:
        waiting, size, count = self._lanes[place], 0, 0
        while count < len(waiting) and (not count or size + len(waiting[count].rows) <= PAIRS_AT_ONCE):
            size += len(waiting[count].rows)
            count += 1
        self._lanes[place] = waiting[count:]
        return waiting[:count]

    async def _write(self, place: _Place, batch: Sequence[_Waiting]) -> Collection[str]:
        """Write the rows of all; return the keys whose items have no room."""
        table, attribute = place
        left_s = max(one.deadline_s for one in batch) - self._loop.time()
        if left_s <= 0:
            message = f"table {table}: rows weren't written in time"
            raise StoreError(message, retryable=True, timed_out=True)
        rows = [row for one in batch for row in one.rows]
        full: set[str] = set()
        if attribute is None:
            await self._store.put_newest(table, rows, timeout_s=left_s)
        else:
            full.update(await self._store.put_bundled(table, attribute, rows, newest=True, timeout_s=left_s))
        self.written += sum(key not in full for key, _ in rows) if full else len(rows)
        return full


def _settle_written(batch: Sequence[_Waiting], place: _Place, full: Collection[str]) -> None:
    """Settle all; those that have a row for a key of ``full`` get an error."""
    if not full:
        _settle(batch, None)
        return
    for one in batch:
        key = next((key for key, _ in one.rows if key in full), None)
        message = f"table {place[0]}: the item of key {shown(key)} has no room for {place[1]}"
        _settle([one], None if key is None else StoreError(message))


def _settle(batch: Sequence[_Waiting], error: FastserveError | None) -> None:
    for one in batch:
        if one.done.done():
            continue
        if error is None:
            one.done.set_result(None)
        else:
            one.done.set_exception(error)
