"""Writes rows of attributes, of which the newest stays.

Rows that come while a write of their table is under way share the next one.

Knows rows and the store, not records. Belongs to one event loop.

Invariants
1. Rows are written in the order in which they came, per table: of equal times the last one stays.
2. ``add`` returns after all its rows are in the store, or later ones are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from fastserve.errors import FastserveError, StoreError
from fastserve.ingest.events import NewRow
from fastserve.store.interface import OnlineStore

PAIRS_AT_ONCE = 2_000


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
        self._lanes: dict[str, list[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.written = 0

    def add(self, rows: Sequence[NewRow], deadline_s: float) -> list[asyncio.Future[None]]:
        """Return what is done when the rows are in the store, for each table; an error is a StoreError."""
        by_table: dict[str, list[tuple[str, bytes]]] = {}
        for row in rows:
            by_table.setdefault(row.table, []).append((row.key, row.row))
        return [self._add(table, pairs, deadline_s) for table, pairs in by_table.items()]

    def _add(self, table: str, pairs: list[tuple[str, bytes]], deadline_s: float) -> asyncio.Future[None]:
        one = _Waiting(pairs, deadline_s, self._loop.create_future())
        lane = self._lanes.get(table)
        if lane is not None:
            lane.append(one)
            return one.done
        self._lanes[table] = [one]
        task = self._loop.create_task(self._run(table))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return one.done

    async def close(self) -> None:
        """Wait for the writes in flight and those behind them."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, table: str) -> None:
        batch: list[_Waiting] = []
        try:
            while self._lanes[table]:
                batch = self._taken(table)
                try:
                    await self._write(table, batch)
                except FastserveError as error:
                    _settle(batch, error)
                else:
                    _settle(batch, None)
        finally:
            left = self._lanes.pop(table)
            _settle(batch + left, StoreError("the write ended half-way", retryable=True))

    def _taken(self, table: str) -> list[_Waiting]:
        waiting, size, count = self._lanes[table], 0, 0
        while count < len(waiting) and (not count or size + len(waiting[count].rows) <= PAIRS_AT_ONCE):
            size += len(waiting[count].rows)
            count += 1
        self._lanes[table] = waiting[count:]
        return waiting[:count]

    async def _write(self, table: str, batch: Sequence[_Waiting]) -> None:
        left_s = max(one.deadline_s for one in batch) - self._loop.time()
        if left_s <= 0:
            message = f"table {table}: rows weren't written in time"
            raise StoreError(message, retryable=True, timed_out=True)
        rows = [row for one in batch for row in one.rows]
        await self._store.put_newest(table, rows, timeout_s=left_s)
        self.written += len(rows)


def _settle(batch: Sequence[_Waiting], error: FastserveError | None) -> None:
    for one in batch:
        if one.done.done():
            continue
        if error is None:
            one.done.set_result(None)
        else:
            one.done.set_exception(error)
