"""The hot side of a local store: all reads of a batch in one transaction, in the event loop.

A key costs about two microseconds, less than its hand-over to a thread, so `fetch` is done when it returns.
LMDB's `getmulti` and buffers instead of bytes gain nothing (perf/micro/local_store.py).

Invariants
1. `fetch` settles all its reads at once, each with rows for all its tables or with an error.
2. Rows are copied out of the map before the transaction ends.
3. A packed row is bytes; an item is a dict of attributes with their DynamoDB types, as BatchGetItem has it.
4. What ails one read (its table, its key) fails no other; what ails the environment fails them all.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from fastserve.errors import FastserveError, StoreError, shown
from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.interface import Settle
from fastserve.store.local import bundled
from fastserve.store.local.catalogue import Catalogue
from fastserve.store.local.environment import LocalEnvironment, Transaction
from fastserve.store.local.layout import (
    HEADER_BYTES,
    MAX_PLAIN_KEY_BYTES,
    decode_value,
    row_key,
)

MAX_KEYS = 500
"""A millisecond. LMDB has no limit; the more requests share a batch, the more are merged at once."""


class LocalReader:
    """A `serving.coalescer.Reader` over a local environment."""

    __slots__ = ("_catalogue", "_directories", "_environment", "_groups", "_settle", "closed", "max_keys")

    def __init__(self, environment: LocalEnvironment, catalogue: Catalogue, settle: Settle) -> None:
        self.max_keys: int = MAX_KEYS
        self.closed = False
        self._environment = environment
        self._catalogue = catalogue
        self._settle = settle
        self._groups: dict[int, tuple[ReadGroup, tuple[bytes, ...]]] = {}
        self._directories = bundled.Directories()

    def fetch(self, reads: Sequence[KeyRead]) -> None:
        """Read all keys of ``reads`` and settle each before returning."""
        try:
            if self.closed:
                raise StoreError(f"{self._environment}: closed")
            self._environment.read(self._fill, reads)
        except FastserveError as error:
            failure = error if isinstance(error, StoreError) else StoreError(str(error))
            for read in reads:
                read.error = failure
        self._settle(reads)

    def _fill(self, transaction: Transaction, reads: Sequence[KeyRead]) -> None:
        get = transaction.get
        numbers: tuple[bytes, ...] = ()
        group: ReadGroup | None = None
        for read in reads:
            try:
                if read.group is not group:  # neighbours often share their group
                    numbers = self._numbers(transaction, read.group)
                    group = read.group
                raw_key = read.key.encode()
            except StoreError as error:
                read.error = self._named(error)
                continue
            except UnicodeEncodeError:
                problem = f"key: expected text without lone surrogates, got {shown(read.key)}"
                read.error = self._named(problem)
                continue
            if group.attributes:
                self._cut(read, decode_value(raw_key, get(row_key(numbers[0], raw_key))))
            elif len(raw_key) <= MAX_PLAIN_KEY_BYTES:
                read.rows = [
                    None if (value := get(number + raw_key)) is None else value[HEADER_BYTES:]
                    for number in numbers
                ]
            else:
                read.rows = [decode_value(raw_key, get(row_key(number, raw_key))) for number in numbers]
            if not group.own_items:
                self._decode_items(read)

    def _numbers(self, transaction: Transaction, group: ReadGroup) -> tuple[bytes, ...]:
        """Return the numbers of the group's tables, from memory if they were found before."""
        known = self._groups.get(group.index)
        if known is None or known[0] is not group:  # plans are compiled anew while readers live
            known = self._groups[group.index] = (group, self._catalogue.group_numbers(transaction, group))
        return known[1]

    def _cut(self, read: KeyRead, body: bytes | None) -> None:
        """Cut a bundle's item into its rows."""
        try:
            read.rows = self._directories.rows(read.group.attributes, body)
        except StoreError as error:
            read.error = self._named(f"table {read.group.tables[0]}: {error}")

    def _decode_items(self, read: KeyRead) -> None:
        """Turn stored items into what DynamoDB's answer would hold for them."""
        try:
            read.rows = [None if data is None else orjson.loads(data) for data in read.rows]
        except orjson.JSONDecodeError:
            tables = ", ".join(read.group.tables)
            read.error = self._named(f"table {shown(tables)}: expected an item, got something else")

    def _named(self, error: object) -> StoreError:
        return StoreError(f"{self._environment}: {error}")
