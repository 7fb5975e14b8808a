"""Writes under a condition, scans and expiry: one PutItem a row, pages of Scan.

Knows tables and keys, not views. Beside the key ``k`` and the row ``v`` an item has ``n``, its version,
``i``, what the writer keeps beside the row, ``ttl``, its time of expiry, and ``e``, the effective time of a
row of which the newest stays.

Invariants
1. What a condition refused was not written, unless an earlier try of the same call wrote it and its answer
   was lost: then the item that is there tells.
2. A scan is strongly consistent.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pybase64

from fastserve.errors import StoreError, shown
from fastserve.store.dynamodb.call import Caller, decode
from fastserve.store.dynamodb.writer import PATIENCE_S, Writer, row_key, several, versioned_row
from fastserve.store.interface import MAX_ROW_BYTES, VersionedRow
from fastserve.tiles.rows import effective_ns_of
from fastserve.wire.ddb_errors import CONDITION_FAILED, Failure

PUT_TIMEOUT_S = 3.0
"""Of one try. An item is at most 400 KB."""
SCAN_TIMEOUT_S = 20.0
MIN_TIMED_BYTES = 16
"""A row with less has no effective time."""


class ConditionalWriter:
    """Puts rows under conditions, and scans tables."""

    def __init__(self, caller: Caller, writer: Writer) -> None:
        self._caller = caller
        self._writer = writer

    async def replace_row(
        self, table: str, key: str, row: VersionedRow, timeout_s: float | None
    ) -> VersionedRow | None:
        """See `OnlineStore.replace_row`."""
        size = len(row.row) + len(row.ids)
        if size > MAX_ROW_BYTES:
            raise StoreError(
                f"DynamoDB: table {table}: row: expected at most {MAX_ROW_BYTES} bytes with its ids, "
                f"got {size}"
            )
        attributes = b',"n":{"N":"%d"}' % row.version
        if row.ids:
            attributes += b',"i":{"B":"%b"}' % pybase64.b64encode(row.ids)
        if row.expires_s:
            attributes += b',"ttl":{"N":"%d"}' % row.expires_s
        condition, values = "attribute_not_exists(n)", {}
        if row.version > 1:
            condition, values = "n = :n", {":n": {"N": str(row.version - 1)}}
        refused = await self._put(table, key, row.row, attributes, condition, values, timeout_s)
        if refused is None:
            return row
        there = await self._there(table, key, refused)
        return row if there == row else there

    async def _there(self, table: str, key: str, refused: Failure) -> VersionedRow | None:
        if refused.item is None:  # deleted meanwhile, or a service that doesn't tell
            return (await self._writer.get_versioned(table, [key]))[0]
        try:
            return versioned_row(refused.item)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"DynamoDB: table {table}: expected an item with a row, got {shown(error)}"
            ) from error

    async def put_newest(
        self, table: str, rows: Sequence[tuple[str, bytes]], timeout_s: float | None
    ) -> None:
        """See `OnlineStore.put_newest`."""
        for _, row in rows:
            if not MIN_TIMED_BYTES <= len(row) <= MAX_ROW_BYTES:
                raise StoreError(
                    f"DynamoDB: table {table}: row: expected {MIN_TIMED_BYTES} to {MAX_ROW_BYTES} bytes, "
                    f"got {len(row)}"
                )
        for key, _ in rows:
            row_key(table, key)  # wrong keys are found before the first call
        await several(lambda one: self._put_newest(table, one, timeout_s), newest_rows(rows).items())

    async def _put_newest(self, table: str, one: tuple[str, bytes], timeout_s: float | None) -> None:
        key, row = one
        time_ns = str(effective_ns_of(row))
        await self._put(
            table,
            key,
            row,
            b',"e":{"N":"%b"}' % time_ns.encode(),
            "attribute_not_exists(e) OR e <= :e",
            {":e": {"N": time_ns}},
            timeout_s,
        )

    async def _put(
        self,
        table: str,
        key: str,
        row: bytes,
        attributes: bytes,
        condition: str,
        values: dict[str, Any],
        timeout_s: float | None,
    ) -> Failure | None:
        """Put one item; return the failure of its condition.

        Raises:
            StoreError: the store failed otherwise.
        """
        key_part = row_key(table, key)[:-1]
        item = b'%b,"v":{"B":"%b"}%b}' % (key_part, pybase64.b64encode(row), attributes)
        parts = [
            b'{"TableName":%b,"Item":%b' % (orjson.dumps(table), item),
            b',"ConditionExpression":%b' % orjson.dumps(condition),
            b',"ExpressionAttributeValues":%b' % orjson.dumps(values) if values else b"",
            b',"ReturnValuesOnConditionCheckFailure":"ALL_OLD"}',
        ]
        patience_s = PATIENCE_S if timeout_s is None else timeout_s
        result = await self._caller.outcome(
            "PutItem",
            b"".join(parts),
            timeout_s=PUT_TIMEOUT_S,
            deadline_s=self._caller.clock() + patience_s,
        )
        if not isinstance(result, Failure):
            return None
        if result.name == CONDITION_FAILED:
            return result
        raise result.error(f"DynamoDB: table {table}: PutItem")

    async def scan_rows(
        self, table: str, part: int, parts: int
    ) -> AsyncIterator[Sequence[tuple[str, bytes]]]:
        """See `OnlineStore.scan_rows`."""
        asked: dict[str, Any] = {
            "TableName": table,
            "ConsistentRead": True,
            "ProjectionExpression": "k,v",
            "Segment": part,
            "TotalSegments": parts,
        }
        while True:
            result = await self._caller.outcome(
                "Scan",
                orjson.dumps(asked),
                timeout_s=SCAN_TIMEOUT_S,
                deadline_s=self._caller.clock() + PATIENCE_S,
            )
            if isinstance(result, Failure):
                raise result.error(f"DynamoDB: table {table}: Scan")
            document: dict[str, Any] = decode(result)
            yield _rows(table, document)
            if "LastEvaluatedKey" not in document:
                return
            asked["ExclusiveStartKey"] = document["LastEvaluatedKey"]


def newest_rows(rows: Sequence[tuple[str, bytes]]) -> dict[str, bytes]:
    """Return the row of each key that stays: calls for one key must not overtake one another."""
    newest: dict[str, bytes] = {}
    for key, row in rows:
        there = newest.get(key)
        if there is None or effective_ns_of(there) <= effective_ns_of(row):
            newest[key] = row
    return newest


def _rows(table: str, document: dict[str, Any]) -> list[tuple[str, bytes]]:
    try:
        return [
            (item["k"]["S"], b64decode(item["v"]["B"], validate=True)) for item in document.get("Items", ())
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"DynamoDB: table {table}: expected items with the key and a row, got {shown(error)}"
        ) from error
