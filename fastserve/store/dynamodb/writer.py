"""The control path of rows and items: puts, deletes and gets in calls of 25 or 100, several in flight.

Knows tables and keys, not views. Goes over the same wire client as the reader.

1. A method returns when the service has taken or given every row; what was left unprocessed was asked again.
2. Of several rows for one key the last stays: a call never holds a key twice, which the service refuses.
3. Gets are strongly consistent: they see what any earlier put has returned for.
4. What is wrong with a key or a row is found before the first call goes out.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import orjson
import pybase64

from fastserve.errors import StoreError, shown
from fastserve.store.dynamodb.call import Caller, decode
from fastserve.store.dynamodb.rest import key_identity
from fastserve.store.interface import (
    MAX_KEY_BYTES,
    MAX_ROW_BYTES,
    AttributeValue,
    Item,
    TableSpec,
    VersionedRow,
)
from fastserve.store.items import decode_item, encode_item, key_text
from fastserve.wire.ddb_errors import Failure, Kind
from fastserve.wire.retry import THROTTLED, delays

PUTS_PER_CALL = 25
GETS_PER_CALL = 100
CALLS_IN_FLIGHT = 8
# A call of 25 rows of 390 KB is 13 MB on the wire.
TRY_TIMEOUT_S = 20.0
# How long the service may go without taking anything: autoscaling of a table takes about a minute.
PATIENCE_S = 120.0

Argument = TypeVar("Argument")


class Writer:
    """Writes and reads back by table and key."""

    def __init__(self, caller: Caller, *, patience_s: float = PATIENCE_S) -> None:
        self._caller = caller
        self._patience_s = patience_s

    async def put_rows(self, table: str, rows: Sequence[tuple[str, bytes]]) -> None:
        """Write packed rows; see `OnlineStore.put_rows`."""
        puts = {key: b'{"PutRequest":{"Item":%b}}' % packed_item(table, key, row) for key, row in rows}
        await self._write(table, list(puts.values()))

    async def delete_rows(self, table: str, keys: Sequence[str]) -> None:
        """Delete rows; see `OnlineStore.delete_rows`."""
        await self._write(
            table, [b'{"DeleteRequest":{"Key":%b}}' % row_key(table, key) for key in dict.fromkeys(keys)]
        )

    async def get_rows(self, table: str, keys: Sequence[str]) -> list[bytes | None]:
        """Read packed rows; see `OnlineStore.get_rows`."""
        rows: dict[str, bytes] = {}

        def take(item: dict[str, Any]) -> None:
            rows[item["k"]["S"]] = b64decode(item["v"]["B"], validate=True)

        await self._read(table, [row_key(table, key) for key in dict.fromkeys(keys)], take)
        return [rows.get(key) for key in keys]

    async def get_bundled(self, table: str, attribute: str, keys: Sequence[str]) -> list[bytes | None]:
        """Read packed rows out of an attribute; see `OnlineStore.get_bundled`."""
        rows: dict[str, bytes] = {}

        def take(item: dict[str, Any]) -> None:
            if attribute in item:
                rows[item["k"]["S"]] = b64decode(item[attribute]["B"], validate=True)

        await self._read(table, [row_key(table, key) for key in dict.fromkeys(keys)], take)
        return [rows.get(key) for key in keys]

    async def get_versioned(self, table: str, keys: Sequence[str]) -> list[VersionedRow | None]:
        """Read packed rows with their versions; see `OnlineStore.get_versioned`."""
        rows: dict[str, VersionedRow] = {}

        def take(item: dict[str, Any]) -> None:
            rows[item["k"]["S"]] = versioned_row(item)

        await self._read(table, [row_key(table, key) for key in dict.fromkeys(keys)], take)
        return [rows.get(key) for key in keys]

    async def put_items(self, spec: TableSpec, items: Sequence[Item]) -> None:
        """Write items of a table; see `OnlineStore.put_items`."""
        puts = {}
        for item in items:
            encoded = _about(spec.name, encode_item, item)
            key = key_identity(orjson.loads(_key_of(spec, item)))
            puts[key] = b'{"PutRequest":{"Item":%b}}' % encoded
        await self._write(spec.name, list(puts.values()))

    async def get_items(
        self, spec: TableSpec, keys: Sequence[Item]
    ) -> list[dict[str, AttributeValue] | None]:
        """Read items of a table; see `OnlineStore.get_items`."""
        texts = [_key_of(spec, key) for key in keys]
        identities = [key_identity(orjson.loads(text)) for text in texts]
        names = [attribute.name for attribute in (spec.partition_key, spec.sort_key) if attribute is not None]
        found: dict[Any, dict[str, AttributeValue]] = {}

        def take(item: dict[str, Any]) -> None:
            identity = key_identity({name: item[name] for name in names})
            found[identity] = decode_item(orjson.dumps(item))

        await self._read(spec.name, list(dict(zip(identities, texts, strict=True)).values()), take)
        return [found.get(identity) for identity in identities]

    # Calls.

    async def _write(self, table: str, requests: list[bytes]) -> None:
        async def one(part: Sequence[bytes]) -> None:
            entries = b"{%b:[%b]}" % (orjson.dumps(table), b",".join(part))
            await self._until_processed(table, "BatchWriteItem", entries, "UnprocessedItems", _nothing)

        await several(one, _slices(requests, PUTS_PER_CALL))

    async def _read(self, table: str, keys: list[bytes], take: Callable[[dict[str, Any]], None]) -> None:
        def take_all(document: dict[str, Any]) -> None:
            try:
                for item in document["Responses"].get(table, ()):
                    take(item)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise StoreError(
                    f"DynamoDB: table {table}: expected items with the key and a row, got {shown(error)}"
                ) from error

        async def one(part: Sequence[bytes]) -> None:
            entries = b'{%b:{"Keys":[%b],"ConsistentRead":true}}' % (orjson.dumps(table), b",".join(part))
            await self._until_processed(table, "BatchGetItem", entries, "UnprocessedKeys", take_all)

        await several(one, _slices(keys, GETS_PER_CALL))

    async def _until_processed(
        self,
        table: str,
        operation: str,
        entries: bytes,
        unprocessed_name: str,
        take: Callable[[dict[str, Any]], None],
    ) -> None:
        """Repeat a call with what it left unprocessed; give up when nothing moves for `PATIENCE_S`."""
        caller = self._caller
        size = None
        waits: Iterator[float] = iter(())
        while True:
            document: dict[str, Any] = decode(
                await self._call(table, operation, b'{"RequestItems":%b}' % entries)
            )
            take(document)
            unprocessed = document.get(unprocessed_name) or {}
            if not unprocessed:
                return
            entries = orjson.dumps(_asked_consistently(unprocessed))
            left = len(entries)
            if size is None or left < size:
                waits = delays(THROTTLED, caller.clock() + self._patience_s, caller.clock, caller.uniform)
            size = left
            delay_s = next(waits, None)
            if delay_s is None:
                raise Failure(Kind.THROTTLED, unprocessed_name, "the service takes no more").error(
                    f"DynamoDB: table {table}: {operation}"
                )
            await asyncio.sleep(delay_s)

    async def _call(self, table: str, operation: str, body: bytes) -> bytes:
        deadline_s = self._caller.clock() + self._patience_s
        try:
            return await self._caller.call(operation, body, timeout_s=TRY_TIMEOUT_S, deadline_s=deadline_s)
        except StoreError as error:
            raise StoreError(
                f"DynamoDB: table {table}: {error.message}",
                retryable=error.retryable,
                throttled=error.throttled,
            ) from error


def row_key(table: str, key: str) -> bytes:
    """Return a packed row's key in DynamoDB's JSON; raises StoreError for one that can't be."""
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        raise StoreError(f"DynamoDB: table {table}: key: expected text without lone surrogates") from None
    if not 1 <= length <= MAX_KEY_BYTES:
        raise StoreError(f"DynamoDB: table {table}: key: expected 1 to {MAX_KEY_BYTES} bytes, got {length}")
    return b'{"k":{"S":%b}}' % orjson.dumps(key)


def versioned_row(item: Mapping[str, Any]) -> VersionedRow:
    """Return the packed row that an item is, with its version; raises as reading a wrong item does."""
    return VersionedRow(
        int(item["n"]["N"]) if "n" in item else 0,
        b64decode(item["v"]["B"], validate=True),
        b64decode(item["i"]["B"], validate=True) if "i" in item else b"",
        int(item["ttl"]["N"]) if "ttl" in item else 0,
    )


def packed_item(table: str, key: str, row: bytes) -> bytes:
    """Return the item of a packed row in DynamoDB's JSON.

    Raises:
        StoreError: the key or the row is beyond the limits.
    """
    if len(row) > MAX_ROW_BYTES:
        raise StoreError(
            f"DynamoDB: table {table}: row: expected at most {MAX_ROW_BYTES} bytes, got {len(row)}"
        )
    return b'%b,"v":{"B":"%b"}}' % (row_key(table, key)[:-1], pybase64.b64encode(row))


def ordinary_item(spec: TableSpec, item: Item) -> bytes:
    """Return an item of the attributes format in DynamoDB's JSON.

    Raises:
        StoreError: the key isn't the table's, or a value is none that an attribute can hold.
    """
    encoded = _about(spec.name, encode_item, item)
    _key_of(spec, item)
    return encoded


def _key_of(spec: TableSpec, item: Item) -> bytes:
    attributes = [attribute for attribute in (spec.partition_key, spec.sort_key) if attribute is not None]
    return _about(spec.name, lambda one: key_text(attributes, one), item).encode()


Encoded = TypeVar("Encoded")


def _about(table: str, encode: Callable[[Item], Encoded], item: Item) -> Encoded:
    try:
        return encode(item)
    except StoreError as error:
        raise StoreError(f"DynamoDB: table {table}: {error.message}") from error


def _asked_consistently(unprocessed: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to ask again: gets stay consistent, whether or not the service repeats that they were."""
    return {
        table: {"Keys": entry["Keys"], "ConsistentRead": True} if isinstance(entry, dict) else entry
        for table, entry in unprocessed.items()
    }


def _slices(whole: Sequence[Argument], length: int) -> Iterator[Sequence[Argument]]:
    return (whole[start : start + length] for start in range(0, len(whole), length))


async def several(
    work: Callable[[Argument], Awaitable[None]], parts: Iterable[Argument], at_once: int = CALLS_IN_FLIGHT
) -> None:
    """Do ``work`` on all parts, ``at_once`` at a time; the first error ends the others."""
    remaining = iter(parts)

    async def one_after_the_other() -> None:
        for part in remaining:
            await work(part)

    lanes = [asyncio.create_task(one_after_the_other()) for _ in range(at_once)]
    try:
        await asyncio.gather(*lanes)
    finally:
        for lane in lanes:
            lane.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)


def _nothing(document: dict[str, Any]) -> None:
    """Take nothing out of an answer."""
