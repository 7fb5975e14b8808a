"""Several stores as one: each table lies in the main store, or in the one that its view names.

It knows nothing of views, and of URLs only whom to give them to: which table lies where is an argument.

Invariants
1. A call about a table reaches that table's store and no other; what no view claims lies in the main store.
2. Stores fail alone: each has connections, retries, breaker and hedging of its own, and one that can't be
   opened fails the calls about its tables. A server opens it later, by itself.
3. Whoever opened closes all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

from fastserve.errors import FastserveError, StoreError
from fastserve.plan.stores import MAIN_STORE, TablePrefixes
from fastserve.serving.coalescer import KeyRead, Reader
from fastserve.store.interface import AttributeValue, Item, OnlineStore, Settle, TableSpec, VersionedRow

LOGGER = logging.getLogger("fastserve")
OPEN_AGAIN_S = 2.0
LATE_KEYS = 100
"""Keys of a batch for a store that wasn't there at the start: what every store takes."""


def prefixes_of(store: OnlineStore) -> TablePrefixes:
    """Return what tables' names begin with in an open store, or in each of several."""
    return store.prefixes if isinstance(store, MixedStore) else TablePrefixes(store.table_prefix)


def main_of(store: OnlineStore) -> OnlineStore:
    """Return the main one of several stores, or the only one."""
    return store.main if isinstance(store, MixedStore) else store


def one_of(store: OnlineStore, name: str) -> OnlineStore | None:
    """Return the store of that name among several, or the main one; None while it isn't open."""
    return store.named(name) if isinstance(store, MixedStore) and name != MAIN_STORE else main_of(store)


class _Named:
    """A named store, open or not yet."""

    def __init__(self, name: str, opening: Callable[[], Awaitable[OnlineStore]]) -> None:
        self.name = name
        self._opening = opening
        self.store: OnlineStore | None = None
        self.error = StoreError(f"store {name!r} isn't open", retryable=True)

    async def open(self) -> None:
        """Open it.

        Raises:
            StoreError: it can't be opened; the error is kept.
        """
        try:
            self.store = await self._opening()
        except StoreError as error:
            self.error = StoreError(f"store {self.name!r} can't be opened: {error.message}", retryable=True)
            raise self.error from error

    @property
    def opened(self) -> OnlineStore:
        """The open store.

        Raises:
            StoreError: it can't be opened.
        """
        if self.store is None:
            raise StoreError(self.error.message, retryable=True)
        return self.store

    def reader(self, settle: Settle) -> Reader:
        """Return the store's hot side, also where it isn't open yet."""
        return _LateReader(self, settle) if self.store is None else self.store.reader(settle)


class _LateReader:
    """The hot side of a store that couldn't be opened at the start: reads fail until it is."""

    def __init__(self, named: _Named, settle: Settle) -> None:
        self.max_keys: int = LATE_KEYS
        self._named = named
        self._settle = settle
        self._reader: Reader | None = None

    def fetch(self, reads: Sequence[KeyRead]) -> None:
        """Read, or fail all reads."""
        if self._reader is None and self._named.store is not None:
            self._reader = self._named.store.reader(self._settle)
        if self._reader is not None:
            self._reader.fetch(reads)
            return
        for read in reads:
            read.error = self._named.error
        self._settle(reads)


class _SplitReader:
    """The hot sides of several stores behind one; each read goes to the store of its group."""

    def __init__(self, readers: Mapping[str, Reader]) -> None:
        self.max_keys: int = min(reader.max_keys for reader in readers.values())
        self._readers = readers

    def fetch(self, reads: Sequence[KeyRead]) -> None:
        """Hand the reads over."""
        by_store: dict[str, list[KeyRead]] = {}
        for read in reads:
            by_store.setdefault(read.group.store, []).append(read)
        for name, part in by_store.items():
            self._readers[name].fetch(part)


class MixedStore:
    """An `OnlineStore` of several; `addresses.StoreAddresses.open` makes them.

    ``homes`` are the names of the stores of tables that don't lie in the main one, ``urls`` where these are.
    """

    def __init__(
        self,
        main: OnlineStore,
        prefixes: TablePrefixes,
        homes: Mapping[str, str],
        urls: Mapping[str, str],
        opened: Callable[[str], Awaitable[OnlineStore]],
    ) -> None:
        self.main = main
        self._homes = homes
        self._prefixes = prefixes
        self._named = {name: _Named(name, partial(opened, url)) for name, url in urls.items()}
        self._later: set[asyncio.Task[None]] = set()

    async def open_named(self, *, may_lack: bool) -> None:
        """Open the named stores at once, or begin to try again and again.

        Raises:
            DefinitionError: one can't be used. StoreError: one can't be opened, and may not lack.
        """
        found = await asyncio.gather(*[one.open() for one in self._named.values()], return_exceptions=True)
        for named, error in zip(self._named.values(), found, strict=True):
            if error is None:
                continue
            if not may_lack or not isinstance(error, StoreError):
                raise error
            LOGGER.warning("%s; what lies there can't be read until it is", error)
            task = asyncio.get_running_loop().create_task(self._open_again(named))
            self._later.add(task)
            task.add_done_callback(self._later.discard)

    async def _open_again(self, named: _Named) -> None:
        while named.store is None:
            await asyncio.sleep(OPEN_AGAIN_S)
            try:
                await named.open()
            except FastserveError as error:
                LOGGER.debug("%s", error)
        LOGGER.warning("store %r is open now", named.name)

    @property
    def prefixes(self) -> TablePrefixes:
        """What tables' names begin with in each store."""
        return self._prefixes

    @property
    def lacking(self) -> dict[str, StoreError]:
        """The stores that aren't open yet, and why."""
        return {name: named.error for name, named in self._named.items() if named.store is None}

    @property
    def named_readers(self) -> dict[str, Callable[[Settle], Reader]]:
        """What makes the hot side of each named store."""
        return {name: named.reader for name, named in self._named.items()}

    def named(self, name: str) -> OnlineStore | None:
        """Return the store of that name; None while it isn't open."""
        return self._named[name].store

    def _open_stores(self) -> Iterable[OnlineStore]:
        return (self.main, *(named.store for named in self._named.values() if named.store is not None))

    def _of(self, table: str) -> OnlineStore:
        home = self._homes.get(table)
        return self.main if home is None else self._named[home].opened

    # --- see `OnlineStore` ------------------------------------------------------------------------------

    @property
    def table_prefix(self) -> str:
        """The main store's."""
        return self._prefixes.main

    async def describe_tables(self, names: Sequence[str]) -> dict[str, TableSpec | None]:
        """See `OnlineStore`."""
        by_store: dict[str, list[str]] = {}
        for name in names:
            by_store.setdefault(self._homes.get(name, MAIN_STORE), []).append(name)
        stores = [(self._of(part[0]), part) for part in by_store.values()]
        found: dict[str, TableSpec | None] = dict.fromkeys(names)
        for specs in await asyncio.gather(*[store.describe_tables(part) for store, part in stores]):
            found.update(specs)
        return found

    async def create_table(self, spec: TableSpec) -> None:
        """See `OnlineStore`."""
        await self._of(spec.name).create_table(spec)

    async def put_rows(self, table: str, rows: Sequence[tuple[str, bytes]]) -> None:
        """See `OnlineStore`."""
        await self._of(table).put_rows(table, rows)

    async def get_rows(self, table: str, keys: Sequence[str]) -> list[bytes | None]:
        """See `OnlineStore`."""
        return await self._of(table).get_rows(table, keys)

    async def delete_rows(self, table: str, keys: Sequence[str]) -> None:
        """See `OnlineStore`."""
        await self._of(table).delete_rows(table, keys)

    async def get_versioned(self, table: str, keys: Sequence[str]) -> list[VersionedRow | None]:
        """See `OnlineStore`."""
        return await self._of(table).get_versioned(table, keys)

    async def replace_row(
        self, table: str, key: str, row: VersionedRow, *, timeout_s: float | None = None
    ) -> VersionedRow | None:
        """See `OnlineStore`."""
        return await self._of(table).replace_row(table, key, row, timeout_s=timeout_s)

    async def put_newest(
        self, table: str, rows: Sequence[tuple[str, bytes]], *, timeout_s: float | None = None
    ) -> None:
        """See `OnlineStore`."""
        await self._of(table).put_newest(table, rows, timeout_s=timeout_s)

    async def put_bundled(
        self,
        table: str,
        attribute: str,
        rows: Sequence[tuple[str, bytes]],
        *,
        newest: bool = False,
        timeout_s: float | None = None,
    ) -> list[str]:
        """See `OnlineStore`."""
        return await self._of(table).put_bundled(table, attribute, rows, newest=newest, timeout_s=timeout_s)

    async def get_bundled(self, table: str, attribute: str, keys: Sequence[str]) -> list[bytes | None]:
        """See `OnlineStore`."""
        return await self._of(table).get_bundled(table, attribute, keys)

    async def delete_bundled(self, table: str, attribute: str, keys: Sequence[str]) -> None:
        """See `OnlineStore`."""
        await self._of(table).delete_bundled(table, attribute, keys)

    def scan_rows(
        self, table: str, part: int = 0, parts: int = 1
    ) -> AsyncIterator[Sequence[tuple[str, bytes]]]:
        """See `OnlineStore`."""
        return self._of(table).scan_rows(table, part, parts)

    async def enable_expiry(self, table: str) -> None:
        """See `OnlineStore`."""
        await self._of(table).enable_expiry(table)

    async def sweep(self, table: str, now_s: int) -> int:
        """See `OnlineStore`."""
        return await self._of(table).sweep(table, now_s)

    async def put_items(self, table: str, items: Sequence[Item]) -> None:
        """See `OnlineStore`."""
        await self._of(table).put_items(table, items)

    async def get_items(self, table: str, keys: Sequence[Item]) -> list[dict[str, AttributeValue] | None]:
        """See `OnlineStore`."""
        return await self._of(table).get_items(table, keys)

    def reader(self, settle: Settle) -> Reader:
        """See `OnlineStore`; a server asks each store's own (`named_readers`), to fill calls of its own."""
        readers = {name: make(settle) for name, make in self.named_readers.items()}
        return _SplitReader({MAIN_STORE: self.main.reader(settle), **readers})

    async def close(self) -> None:
        """See `OnlineStore`."""
        tasks = list(self._later)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        closed = await asyncio.gather(
            *[store.close() for store in self._open_stores()], return_exceptions=True
        )
        for error in closed:
            if error is not None:
                raise error
