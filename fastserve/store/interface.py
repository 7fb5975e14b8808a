"""The one small interface that every online store implements, and what a table looks like to it.

A store keeps rows under (table, key). It knows neither views nor types: a packed row is bytes and a key is
text that `plan.keys` made. The hot path has a door of its own, `OnlineStore.reader`; all else here is the
control path (apply, materialize, ingest), where an await costs nothing that matters.

Invariants, held for all stores by tests/store/test_contract.py
1. A row read is exactly a row that was written under that table and key, or absent. A store never guesses.
2. What a write method has returned for is seen by every later `get_rows` and `get_items` of any process; a
   reader of DynamoDB may be told to be content with eventually consistent reads.
3. A write method has written all of it, or raises; after a StoreError any part may have been written, and
   writing the same rows once more is right.
4. Table names are physical, prefix included. Whoever calls builds them; that is what `table_prefix` is for.
5. The limits below hold in all stores: what works on the embedded store works in production.
6. What the store is to blame for is a StoreError; its message names the store and the table.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from fastserve.plan import keys
from fastserve.serving.coalescer import KeyRead, Reader
from fastserve.tiles.layout import NO_ROW

MAX_KEY_BYTES = keys.MAX_KEY_BYTES
"""In bytes of UTF-8. The shortest key is one byte."""

MAX_ROW_BYTES = 390 * 1024
"""A DynamoDB item has at most 400 KB (409,600 bytes), names and key included; this leaves room for both."""

MAX_ITEM_BYTES = 400 * 1024
"""A bundle's item that would grow beyond is refused, by DynamoDB itself or in its place. What fits everywhere
are rows and their attributes' names of `MAX_ROW_BYTES` together, and beside them rows of `TINY_ROW_BYTES`."""

TINY_ROW_BYTES = len(NO_ROW)
"""No row of a view is as short. The 10 KB that rows leave of an item are for its key, for times, and for
these: they are kept out of an item only where DynamoDB has let in more than fits everywhere."""

TIME_MARK = ":e"
"""Behind an attribute's name: where a bundle's item says the time of a row of which the newest stays."""

MIN_TABLE_NAME_LENGTH = 3
MAX_TABLE_NAME_LENGTH = 255
"""DynamoDB's table names: 3 to 255 characters out of A-Z a-z 0-9 _ - and the dot."""

AttributeValue: TypeAlias = (
    "bool | int | float | str | bytes | Sequence[AttributeValue] | Mapping[str, AttributeValue] | None"
)
"""What one attribute of an item (attributes format) may hold.

Numbers compare by value: a store may give back 1 for 1.0. What DynamoDB can't hold (NaN, the infinities, more
than 38 digits) every store refuses.
"""

Item: TypeAlias = Mapping[str, AttributeValue]
KeyType: TypeAlias = Literal["S", "N"]

Settle: TypeAlias = Callable[[Sequence[KeyRead]], None]
"""Told of reads that are done, filled or failed, each at least once; called from inside `fetch` or later."""


@dataclass(frozen=True, slots=True)
class KeyAttribute:
    """A key attribute of a table: its name and its type, S for text and N for numbers."""

    name: str
    type: KeyType = "S"


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table by its physical name and its key attributes; the default is what packed rows need.

    Packed rows live in tables whose one key attribute is ``k`` of type S. Other keys are for the attributes
    format.
    """

    name: str
    partition_key: KeyAttribute = field(default=KeyAttribute("k"))
    sort_key: KeyAttribute | None = None


@dataclass(frozen=True, slots=True)
class VersionedRow:
    """A packed row that is changed by reading, merging and replacing it.

    ``version`` counts its writes from 1 (0: a row that `put_rows` wrote). ``ids`` are what the writer keeps
    beside the row; readers on the hot path aren't sent them. From ``expires_s`` (seconds since the epoch, 0:
    never) on the store may delete the row.
    """

    version: int
    row: bytes
    ids: bytes = b""
    expires_s: int = 0


class OnlineStore(Protocol):
    """An open store. It belongs to the process and the event loop that opened it: open after the fork."""

    @property
    def table_prefix(self) -> str:
        """What physical table names begin with, unless a view names its table itself; may be empty."""

    async def describe_tables(self, names: Sequence[str]) -> dict[str, TableSpec | None]:
        """Return for each asked name the table that the store has under it, or None.

        Raises:
            StoreError: the store can't be asked.
        """

    async def create_table(self, spec: TableSpec) -> None:
        """Create a table and return once it can be used; one that exists with an equal spec is left alone.

        Raises:
            StoreError: it exists with other key attributes, its name can't be used, or creating failed.
        """

    async def put_rows(self, table: str, rows: Sequence[tuple[str, bytes]]) -> None:
        """Write packed rows by key, each over what was there. Of several for one key the last one stays.

        Raises:
            StoreError: no such table, a key or row beyond the limits, or the store failed (invariant 3).
        """

    async def get_rows(self, table: str, keys: Sequence[str]) -> list[bytes | None]:
        """Return the packed row of each key in the order asked, None where absent. Keys may repeat.

        Raises:
            StoreError: no such table, a key beyond the limits, or the store failed for any of the keys.
        """

    async def delete_rows(self, table: str, keys: Sequence[str]) -> None:
        """Delete the rows of these keys; absent ones and repeated keys are no error.

        Raises:
            StoreError: no such table, a key beyond the limits, or the store failed (invariant 3).
        """

    async def get_versioned(self, table: str, keys: Sequence[str]) -> list[VersionedRow | None]:
        """Return rows with their versions in the order asked, None where absent.

        Raises:
            StoreError: as `get_rows`.
        """

    async def replace_row(
        self, table: str, key: str, row: VersionedRow, *, timeout_s: float | None = None
    ) -> VersionedRow | None:
        """Write a row if the one that is there has the version before it; 1 comes after none.

        Returns ``row`` itself when it is written, and when it is there already, word for word: then a try
        whose answer was lost has written it. Else nothing is written, and what is there now is returned, None
        for nothing. Row and ids have at most `MAX_ROW_BYTES` together. ``timeout_s`` bounds the tries; None
        leaves it to the store.

        Raises:
            StoreError: no such table, a key or row beyond the limits, or the store failed: then it isn't
            known whether the row was written.
        """

    async def put_newest(
        self, table: str, rows: Sequence[tuple[str, bytes]], *, timeout_s: float | None = None
    ) -> None:
        """Write packed rows by key, but none over one that this method wrote and whose time is later.

        A row's time is its effective time, the int64 at its byte 8. Of rows of equal time the one written
        last stays. A row that `put_rows` wrote gives way to any.

        Raises:
            StoreError: as `put_rows`; a row that is too short to have a time.
        """

    async def put_bundled(
        self,
        table: str,
        attribute: str,
        rows: Sequence[tuple[str, bytes]],
        *,
        newest: bool = False,
        timeout_s: float | None = None,
    ) -> list[str]:
        """Write packed rows by key, each into an attribute of its item; return the keys that have no room.

        An item is made where there is none, and all else in it stays, whoever writes it at the same time. Of
        several rows for one key the last one stays. Where the item would have more than `MAX_ITEM_BYTES`, or
        more than every store can keep, the row that is there stays, and its key is returned. Of what every
        store can keep, rows of at most `TINY_ROW_BYTES` take nothing; they too are refused where an item
        would be too large for DynamoDB.

        With ``newest`` no row is written over one that was written so and whose time is later, as by
        `put_newest`; without it the row gives way to any.

        Raises:
            StoreError: as `put_newest`.
        """

    async def get_bundled(self, table: str, attribute: str, keys: Sequence[str]) -> list[bytes | None]:
        """Return the packed row in that attribute of each key's item, None where there is none.

        Raises:
            StoreError: as `get_rows`.
        """

    async def delete_bundled(self, table: str, attribute: str, keys: Sequence[str]) -> None:
        """Delete the rows in that attribute of these keys' items; all else in the items stays.

        Raises:
            StoreError: as `delete_rows`.
        """

    def scan_rows(
        self, table: str, part: int = 0, parts: int = 1
    ) -> AsyncIterator[Sequence[tuple[str, bytes]]]:
        """Give all rows with their keys, some at a time, in no order; of ``parts`` disjoint ones only one.

        What was written before the scan began and isn't deleted meanwhile is among them; what is written
        meanwhile may be. A store that rearranges itself meanwhile may give a row twice. Of a bundle's table
        nothing is promised.

        Raises:
            StoreError: no such table, or the store failed.
        """

    async def enable_expiry(self, table: str) -> None:
        """Have the store delete the table's expired rows, where it does so by itself. Twice is once.

        Raises:
            StoreError: no such table, or the store failed.
        """

    async def sweep(self, table: str, now_s: int) -> int:
        """Delete rows that expired by ``now_s``, where the store doesn't by itself; return how many.

        Raises:
            StoreError: no such table, or the store failed.
        """

    async def put_items(self, table: str, items: Sequence[Item]) -> None:
        """Write items of the attributes format, key attributes included, each over what was there.

        Raises:
            StoreError: as `put_rows`; a key attribute lacks or has another type; a value has no type here.
        """

    async def get_items(self, table: str, keys: Sequence[Item]) -> list[dict[str, AttributeValue] | None]:
        """Return the item of each key (the table's key attributes) in the order asked, None where absent.

        Raises:
            StoreError: as `get_rows`; a key attribute lacks or has another type.
        """

    def reader(self, settle: Settle) -> Reader:
        """Return the hot side. Its ``fetch`` doesn't raise: an error is a field of the read that it befell.

        A read of a table that doesn't exist gets a StoreError that names the table; only such reads get it.
        """

    async def close(self) -> None:
        """Finish what is being written and let go of all resources. Closing twice is once."""
