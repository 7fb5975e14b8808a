"""The embedded store: `OnlineStore` over one LMDB environment in a folder.

It turns tables, keys and rows into work for transactions and knows neither LMDB's errors nor its files.
Reading is done in the event loop, slice by slice, for a key costs about two microseconds; writing in the
environment's own thread, for it waits for the disk and for the writers of other processes.

Invariants
1. No method keeps the event loop for longer than `READ_SLICE_KEYS` reads take, or a slice takes to cut.
2. A write method returns when its rows are on the disk (unless ``sync=off``). What a crash leaves of it is a
   number of whole slices, from the first on.
3. What is wrong with a row is found before its slice is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar
from zlib import crc32

from fastserve.errors import StoreError
from fastserve.store.interface import AttributeValue, Item, Settle, TableSpec, VersionedRow
from fastserve.store.items import decode_item, encode_item, key_text
from fastserve.store.limits import MAX_ITEM_KEY_BYTES, encode_key, key_attributes
from fastserve.store.local import bundled, catalogue, layout, versioned
from fastserve.store.local.catalogue import Catalogue, naming
from fastserve.store.local.environment import LocalEnvironment, Transaction, acquire, release
from fastserve.store.local.layout import Table
from fastserve.store.local.reader import LocalReader
from fastserve.store.local.versioned import GroupCommit
from fastserve.store.url import LocalSettings

READ_SLICE_KEYS = 500
"""A millisecond of rows that lie in memory (perf/micro/local_store.py)."""
WRITE_SLICE_ROWS = 10_000
BUNDLED_SLICE_ROWS = 500
"""Each is written with all that is beside it in its item."""
WRITE_SLICE_BYTES = 8 << 20
"""A slice is a commit, a commit a flush: 100,000 rows of 1 KB took 3.5 s in slices of 1 MB, 2.3 in 4 or 16,
2.8 in 64 MB.
"""

Argument = TypeVar("Argument")
Result = TypeVar("Result")


async def open_local(settings: LocalSettings) -> LocalStore:
    """Open the store in a folder, making the folder where there is none.

    Raises:
        StoreError: the folder can't be made, isn't a store's, or is damaged.
    """
    environment = acquire(settings.folder, settings.sync)
    try:
        environment.read(catalogue.check_format, None)
    except BaseException:
        release(environment)
        raise
    return LocalStore(environment)


class LocalStore:
    """An `OnlineStore` in a folder. Several may share one environment; `open_local` makes them."""

    def __init__(self, environment: LocalEnvironment) -> None:
        self._environment = environment
        self._catalogue = Catalogue()
        self._readers: list[LocalReader] = []
        self._replacements = GroupCommit(environment)
        self._open = True

    @property
    def table_prefix(self) -> str:
        """Nothing: a folder is a namespace."""
        return ""

    async def describe_tables(self, names: Sequence[str]) -> dict[str, TableSpec | None]:
        """See `OnlineStore`."""

        def described(transaction: Transaction, names: Sequence[str]) -> dict[str, TableSpec | None]:
            found = {name: self._catalogue.find(transaction, name) for name in names}
            return {name: None if table is None else table.spec for name, table in found.items()}

        return self._read(described, names)

    async def create_table(self, spec: TableSpec) -> None:
        """See `OnlineStore`."""
        await self._write_all(catalogue.create, [spec])

    async def put_rows(self, table: str, rows: Sequence[tuple[str, bytes]]) -> None:
        """See `OnlineStore`."""
        put = partial(_put, self._read(self._catalogue.require_packed, table))
        await self._write_all(put, _row_slices(rows))

    async def get_rows(self, table: str, keys: Sequence[str]) -> list[bytes | None]:
        """See `OnlineStore`."""
        get = partial(_get, self._read(self._catalogue.require_packed, table))
        return await self._read_all(get, keys)

    async def delete_rows(self, table: str, keys: Sequence[str]) -> None:
        """See `OnlineStore`."""
        delete = partial(_delete, self._read(self._catalogue.require_packed, table))
        await self._write_all(delete, _slices(keys, WRITE_SLICE_ROWS))

    async def get_versioned(self, table: str, keys: Sequence[str]) -> list[VersionedRow | None]:
        """See `OnlineStore`."""
        get = partial(versioned.get_all, self._read(self._catalogue.require_packed, table))
        return await self._read_all(get, keys)

    async def replace_row(
        self, table: str, key: str, row: VersionedRow, *, timeout_s: float | None = None
    ) -> VersionedRow | None:
        """See `OnlineStore`."""
        found = self._read(self._catalogue.require_packed, table)
        raw_key = versioned.checked(found, key, row)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._replacements.replace(found, raw_key, row)
        except TimeoutError:
            message = f"{self._environment}: table {table}: a row wasn't written within {timeout_s:g} s"
            raise StoreError(message, retryable=True, timed_out=True) from None

    async def put_newest(
        self, table: str, rows: Sequence[tuple[str, bytes]], *, timeout_s: float | None = None
    ) -> None:
        """See `OnlineStore`. A commit can't be given up: ``timeout_s`` says nothing here."""
        put = partial(versioned.put_newest, self._read(self._catalogue.require_packed, table))
        await self._write_all(put, _row_slices(rows))

    async def put_bundled(
        self,
        table: str,
        attribute: str,
        rows: Sequence[tuple[str, bytes]],
        *,
        newest: bool = False,
        timeout_s: float | None = None,
    ) -> list[str]:
        """See `OnlineStore`. A commit can't be given up: ``timeout_s`` says nothing here."""
        found = self._read(self._catalogue.require_packed, table)
        full: dict[str, None] = {}
        put = partial(bundled.put, found, attribute, full, newest)
        job = partial(bundled.kept_rows, found, rows, newest=newest)
        kept = await asyncio.get_running_loop().run_in_executor(self._environment.writer, job)
        await self._write_all(put, _slices(kept, BUNDLED_SLICE_ROWS))
        return list(full)

    async def get_bundled(self, table: str, attribute: str, keys: Sequence[str]) -> list[bytes | None]:
        """See `OnlineStore`."""
        get = partial(bundled.get, self._read(self._catalogue.require_packed, table), attribute)
        return await self._read_all(get, keys)

    async def delete_bundled(self, table: str, attribute: str, keys: Sequence[str]) -> None:
        """See `OnlineStore`."""
        delete = partial(bundled.delete, self._read(self._catalogue.require_packed, table), attribute)
        await self._write_all(delete, _slices(keys, BUNDLED_SLICE_ROWS))

    async def scan_rows(
        self, table: str, part: int = 0, parts: int = 1
    ) -> AsyncIterator[Sequence[tuple[str, bytes]]]:
        """See `OnlineStore`."""
        async for rows in self._scan(self._read(self._catalogue.require_packed, table)):
            keys = [layout.key_of(place, value) for place, value in rows]
            yield [
                (key.decode(), layout.decode_value(key, value) or b"")
                for key, (_, value) in zip(keys, rows, strict=True)
                if crc32(key) % parts == part
            ]

    async def enable_expiry(self, table: str) -> None:
        """See `OnlineStore`. Nothing goes by itself here: `sweep` does it."""
        self._read(self._catalogue.require_packed, table)

    async def sweep(self, table: str, now_s: int) -> int:
        """See `OnlineStore`."""
        found = self._read(self._catalogue.require_packed, table)
        loop = asyncio.get_running_loop()
        count = 0
        async for rows in self._scan(found):
            places = [place for place, value in rows if versioned.expired(value, now_s)]
            if places:
                job = partial(self._environment.write, partial(versioned.sweep, found), (now_s, places))
                count += await loop.run_in_executor(self._environment.writer, job)
        await self._in_writer(self._environment.finish)
        return count

    async def _scan(self, table: Table) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        """Give stored keys and values of a table; the loop turns between pages."""
        following: bytes | None = table.number
        while following is not None:
            page = self._read(partial(versioned.scan_page, table), following)
            yield page.rows
            following = page.following
            await asyncio.sleep(0)

    async def put_items(self, table: str, items: Sequence[Item]) -> None:
        """See `OnlineStore`."""
        put = partial(_put_items, self._read(self._catalogue.require, table))
        await self._write_all(put, _slices(items, READ_SLICE_KEYS))

    async def get_items(self, table: str, keys: Sequence[Item]) -> list[dict[str, AttributeValue] | None]:
        """See `OnlineStore`."""
        get = partial(_get_items, self._read(self._catalogue.require, table))
        return await self._read_all(get, keys)

    def reader(self, settle: Settle) -> LocalReader:
        """See `OnlineStore`."""
        self._check_open()
        reader = LocalReader(self._environment, self._catalogue, settle)
        self._readers.append(reader)
        return reader

    async def close(self) -> None:
        """See `OnlineStore`."""
        if not self._open:
            return
        self._open = False
        for reader in self._readers:
            reader.closed = True
        await self._replacements.drain()
        await self._in_writer(_nothing)  # so that `release` has nothing to wait for
        release(self._environment)

    def _read(self, work: Callable[[Transaction, Argument], Result], argument: Argument) -> Result:
        self._check_open()
        return self._environment.read(work, argument)

    async def _read_all(
        self, work: Callable[[Transaction, Sequence[Argument]], list[Result]], arguments: Sequence[Argument]
    ) -> list[Result]:
        results: list[Result] = []
        for number, part in enumerate(_slices(arguments, READ_SLICE_KEYS)):
            if number:
                await asyncio.sleep(0)
            results += self._read(work, part)
        return results

    async def _write_all(
        self, work: Callable[[Transaction, Argument], None], parts: Iterable[Argument]
    ) -> None:
        """Commit one part after the other, then flush. The awaits let the loop turn between slices."""
        for part in parts:
            self._check_open()
            await self._in_writer(partial(self._environment.write, work, part))
        self._check_open()
        await self._in_writer(self._environment.finish)

    async def _in_writer(self, job: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._environment.writer, job)

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError(f"{self._environment}: closed")


def _put(table: Table, transaction: Transaction, rows: Sequence[tuple[str, bytes]]) -> None:
    values: dict[bytes, bytes] = {}
    with naming(table):
        for key, row in rows:
            raw_key = encode_key(key)
            values[layout.row_key(table.number, raw_key)] = layout.encode_value(raw_key, row)
    _put_values(transaction, values)


def _put_items(table: Table, transaction: Transaction, items: Sequence[Item]) -> None:
    values: dict[bytes, bytes] = {}
    with naming(table):
        for item in items:
            raw_key = _item_key(table, item)
            values[layout.row_key(table.number, raw_key)] = layout.encode_value(raw_key, encode_item(item))
    _put_values(transaction, values)


def _put_values(transaction: Transaction, values: dict[bytes, bytes]) -> None:
    # In the order of the tree: neighbours share pages, so fewer pages are copied and flushed.
    for key in sorted(values):
        transaction.put(key, values[key])


def _get(table: Table, transaction: Transaction, keys: Sequence[str]) -> list[bytes | None]:
    with naming(table):
        raw_keys = [encode_key(key) for key in keys]
    return [_value(table, transaction, raw_key) for raw_key in raw_keys]


def _get_items(
    table: Table, transaction: Transaction, keys: Sequence[Item]
) -> list[dict[str, AttributeValue] | None]:
    with naming(table):
        values = [_value(table, transaction, _item_key(table, key)) for key in keys]
        return [None if value is None else decode_item(value) for value in values]


def _delete(table: Table, transaction: Transaction, keys: Sequence[str]) -> None:
    with naming(table):
        raw_keys = [encode_key(key) for key in keys]
    for raw_key in raw_keys:
        versioned.delete(table, transaction, raw_key)


def _value(table: Table, transaction: Transaction, raw_key: bytes) -> bytes | None:
    return layout.decode_value(raw_key, transaction.get(layout.row_key(table.number, raw_key)))


def _item_key(table: Table, item: Item) -> bytes:
    return encode_key(key_text(key_attributes(table.spec), item), MAX_ITEM_KEY_BYTES)


def _row_slices(rows: Sequence[tuple[str, bytes]]) -> Iterator[Sequence[tuple[str, bytes]]]:
    """Cut ``rows`` into slices of at most `WRITE_SLICE_ROWS` rows and about `WRITE_SLICE_BYTES`."""
    start = size = 0
    for end, (_, row) in enumerate(rows, 1):
        size += len(row)
        if size >= WRITE_SLICE_BYTES or end - start >= WRITE_SLICE_ROWS:
            yield rows[start:end]
            start, size = end, 0
    if start < len(rows):
        yield rows[start:]


def _slices(whole: Sequence[Argument], length: int) -> Iterator[Sequence[Argument]]:
    for start in range(0, len(whole), length):
        yield whole[start : start + length]


def _nothing() -> None:
    pass
