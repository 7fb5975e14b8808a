"""Rows with versions, times and expiry in a local store: what is done to them inside a transaction.

`GroupCommit` puts replacements that are asked for at the same time into one transaction, for a commit waits
for the disk. Knows tables and keys, not views.

Invariants
1. A condition is looked at in the transaction that writes: no other writer of any process comes between.
2. A row that `put_rows` wrote has version 0, whatever version the row before it had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from fastserve.errors import FastserveError
from fastserve.store.interface import VersionedRow
from fastserve.store.limits import check_timed, check_versioned, encode_key
from fastserve.store.local import layout
from fastserve.store.local.catalogue import naming
from fastserve.store.local.environment import LocalEnvironment, Transaction
from fastserve.store.local.layout import Table
from fastserve.tiles.rows import effective_ns_of

SCAN_ROWS = 500
GROUP_ROWS = 2_000


@dataclass(slots=True)
class Replacement:
    """A row that waits for its commit."""

    table: Table
    raw_key: bytes
    row: VersionedRow
    done: asyncio.Future[VersionedRow | None]


def checked(table: Table, key: str, row: VersionedRow) -> bytes:
    """Return the key's bytes.

    Raises:
        StoreError: key, row or ids are beyond what every store can keep.
    """
    with naming(table):
        raw_key = encode_key(key)
        check_versioned(row)
        return raw_key


def get(table: Table, transaction: Transaction, raw_key: bytes) -> VersionedRow | None:
    """Return the row under a key with its version."""
    value = transaction.get(layout.row_key(table.number, raw_key))
    row = layout.decode_value(raw_key, value)
    if value is None or row is None:
        return None
    version, ids = 0, b""
    if layout.flags_of(value) & layout.VERSIONED:
        kept = transaction.get(layout.row_key(layout.version_number(table.number), raw_key)) or b""
        version = int.from_bytes(kept[: layout.VERSION_BYTES], "little")
        ids = kept[layout.VERSION_BYTES :]
    return VersionedRow(version, row, ids, layout.expires_s_of(value))


def get_all(table: Table, transaction: Transaction, keys: Sequence[str]) -> list[VersionedRow | None]:
    """Return the rows under these keys."""
    with naming(table):
        raw_keys = [encode_key(key) for key in keys]
    return [get(table, transaction, raw_key) for raw_key in raw_keys]


def replace_all(transaction: Transaction, waiting: Sequence[Replacement]) -> list[VersionedRow | None]:
    """Write each row whose version follows the one that is there; return what each `replace_row` does."""
    return [_replace(transaction, one.table, one.raw_key, one.row) for one in waiting]


def _replace(
    transaction: Transaction, table: Table, raw_key: bytes, row: VersionedRow
) -> VersionedRow | None:
    there = get(table, transaction, raw_key)
    if (0 if there is None else there.version) != row.version - 1:
        return row if there == row else there
    head = layout.header(row.expires_s, layout.VERSIONED)
    transaction.put(layout.row_key(table.number, raw_key), layout.encode_value(raw_key, row.row, head))
    transaction.put(
        layout.row_key(layout.version_number(table.number), raw_key),
        row.version.to_bytes(layout.VERSION_BYTES, "little") + row.ids,
    )
    return row


def put_newest(table: Table, transaction: Transaction, rows: Sequence[tuple[str, bytes]]) -> None:
    """Write each row unless a later one is there."""
    with naming(table):
        for key, row in rows:
            check_timed(row)
            raw_key = encode_key(key)
            place = layout.row_key(table.number, raw_key)
            value = transaction.get(place)
            there = layout.decode_value(raw_key, value)
            timed = value is not None and layout.flags_of(value) & layout.TIMED
            if there is None or not timed or effective_ns_of(there) <= effective_ns_of(row):
                transaction.put(place, layout.encode_value(raw_key, row, layout.header(0, layout.TIMED)))


def delete(table: Table, transaction: Transaction, raw_key: bytes) -> None:
    """Delete the row of a key with all that belongs to it; absent is fine."""
    place = layout.row_key(table.number, raw_key)
    value = transaction.get(place)
    if value is None or layout.decode_value(raw_key, value) is None:
        return  # absent, or another key's row under the same hash
    transaction.delete(place)
    if layout.flags_of(value) & layout.VERSIONED:
        transaction.delete(layout.row_key(layout.version_number(table.number), raw_key))


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a scan, and where the next page begins; None at the end."""

    rows: list[tuple[bytes, bytes]]
    following: bytes | None


def scan_page(table: Table, transaction: Transaction, start: bytes) -> Page:
    """Return up to `SCAN_ROWS` stored keys with their values, from ``start`` (`row_key`) on."""
    rows: list[tuple[bytes, bytes]] = []
    with transaction.cursor() as cursor:
        found = cursor.set_range(start)
        while found and cursor.key().startswith(table.number):
            if len(rows) == SCAN_ROWS:
                return Page(rows, cursor.key())
            rows.append(cursor.item())
            found = cursor.next()
    return Page(rows, None)


def sweep(table: Table, transaction: Transaction, swept: tuple[int, Sequence[bytes]]) -> int:
    """Delete those of the stored keys whose rows have expired by now; return how many."""
    now_s, places = swept
    count = 0
    for place in places:
        value = transaction.get(place)
        if value is not None and expired(value, now_s):
            delete(table, transaction, layout.key_of(place, value))
            count += 1
    return count


def expired(value: bytes, now_s: int) -> bool:
    """Whether a stored value's time has come."""
    return 0 < layout.expires_s_of(value) <= now_s


class GroupCommit:
    """Replacements of one store: what is asked for while a commit is under way shares the next one."""

    def __init__(self, environment: LocalEnvironment) -> None:
        self._environment = environment
        self._waiting: list[Replacement] = []
        self._running: asyncio.Task[None] | None = None

    async def replace(self, table: Table, raw_key: bytes, row: VersionedRow) -> VersionedRow | None:
        """Return what `OnlineStore.replace_row` returns, once it is on the disk."""
        loop = asyncio.get_running_loop()
        one = Replacement(table, raw_key, row, loop.create_future())
        self._waiting.append(one)
        if self._running is None:
            self._running = loop.create_task(self._run())
        return await one.done

    async def drain(self) -> None:
        """Wait for all that was asked for."""
        if self._running is not None:
            await self._running

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        group: list[Replacement] = []
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:GROUP_ROWS], self._waiting[GROUP_ROWS:]
                try:
                    results = await loop.run_in_executor(self._environment.writer, self._commit, group)
                except FastserveError as error:
                    for one in _awaited(group):
                        one.done.set_exception(error)
                else:
                    for one, result in zip(group, results, strict=True):
                        if not one.done.done():
                            one.done.set_result(result)
        finally:
            self._running = None
            for one in _awaited(group):  # only after an error that isn't ours, or a cancelled loop
                one.done.cancel()

    def _commit(self, group: Sequence[Replacement]) -> list[VersionedRow | None]:
        results = self._environment.write(replace_all, group)
        self._environment.finish()
        return results


def _awaited(group: Sequence[Replacement]) -> list[Replacement]:
    """Return those that somebody still waits for."""
    return [one for one in group if not one.done.done()]
