"""Rows in bundles' items: an UpdateItem a row, that of its attribute alone, many in flight.

Knows tables, keys and attributes, not views. Beside the key ``k`` an item has the rows' attributes and, of
those of which the newest stays, their times under the same name with `TIME_MARK` behind it.

What it costs, after "DynamoDB read and write operations" in the Developer Guide: an UpdateItem is charged by
the larger of the item before and after it, also where only one attribute changes. BatchWriteItem knows no
updates.

Invariants
1. No call names another attribute than the row's and its time's: the service keeps the others as they are,
   whoever else writes to the item at the same time.
2. A call that was sent twice leaves what it leaves sent once.
3. What is wrong with a key or a row is found before the first call goes out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pybase64

from fastserve.errors import StoreError
from fastserve.store.dynamodb.call import Caller
from fastserve.store.dynamodb.conditional import MIN_TIMED_BYTES, PUT_TIMEOUT_S, newest_rows
from fastserve.store.dynamodb.writer import PATIENCE_S, row_key, several
from fastserve.store.interface import MAX_ROW_BYTES, TIME_MARK
from fastserve.tiles.rows import effective_ns_of
from fastserve.wire.ddb_errors import CONDITION_FAILED, Failure

UPDATES_IN_FLIGHT = 32
"""As many as a pool has connections by default: a row is a call, and a call takes some 4 ms."""
TOO_LARGE_TEXT = "exceeded the maximum allowed size"
"""Of an item, in a ValidationException: "Item size to update has exceeded the maximum allowed size"."""


class BundleWriter:
    """Writes and deletes rows in attributes of items."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def put(
        self,
        table: str,
        attribute: str,
        rows: Sequence[tuple[str, bytes]],
        *,
        newest: bool,
        timeout_s: float | None,
    ) -> list[str]:
        """See `OnlineStore.put_bundled`."""
        for key, row in rows:
            row_key(table, key)
            _check_row(table, row, MIN_TIMED_BYTES if newest else 0)
        full: list[str] = []
        patience_s = PATIENCE_S if timeout_s is None else timeout_s

        async def one(pair: tuple[str, bytes]) -> None:
            key, row = pair
            update = _timed_update(attribute, row) if newest else _update(attribute, row)
            refused = await self._call(table, key, update, patience_s)
            if refused is not None and refused.name != CONDITION_FAILED:
                full.append(key)

        kept = newest_rows(rows) if newest else dict(rows)
        await several(one, kept.items(), UPDATES_IN_FLIGHT)
        return full

    async def delete(self, table: str, attribute: str, keys: Sequence[str]) -> None:
        """See `OnlineStore.delete_bundled`."""
        update = {
            "UpdateExpression": "REMOVE #v, #e",
            "ConditionExpression": "attribute_exists(#v)",  # where there is no item, none is to be made
            "ExpressionAttributeNames": _names(attribute),
        }
        for key in keys:
            row_key(table, key)

        async def one(key: str) -> None:
            await self._call(table, key, update, PATIENCE_S)

        await several(one, dict.fromkeys(keys), UPDATES_IN_FLIGHT)

    async def _call(
        self, table: str, key: str, update: Mapping[str, Any], patience_s: float
    ) -> Failure | None:
        """Update one item; return what its condition or its size refused.

        Raises:
            StoreError: the store failed otherwise.
        """
        head = b'{"TableName":%b,"Key":%b,' % (orjson.dumps(table), row_key(table, key))
        result = await self._caller.outcome(
            "UpdateItem",
            head + orjson.dumps(update)[1:],
            timeout_s=PUT_TIMEOUT_S,
            deadline_s=self._caller.clock() + patience_s,
        )
        if not isinstance(result, Failure):
            return None
        if result.name == CONDITION_FAILED or TOO_LARGE_TEXT in result.text:
            return result
        raise result.error(f"DynamoDB: table {table}: UpdateItem")


def _check_row(table: str, row: bytes, least: int) -> None:
    if not least <= len(row) <= MAX_ROW_BYTES:
        raise StoreError(
            f"DynamoDB: table {table}: row: expected {least} to {MAX_ROW_BYTES} bytes, got {len(row)}"
        )


def _names(attribute: str) -> dict[str, str]:
    return {"#v": attribute, "#e": attribute + TIME_MARK}


def _update(attribute: str, row: bytes) -> dict[str, Any]:
    return {
        "UpdateExpression": "SET #v = :v REMOVE #e",
        "ExpressionAttributeNames": _names(attribute),
        "ExpressionAttributeValues": {":v": {"B": pybase64.b64encode(row).decode("ascii")}},
    }


def _timed_update(attribute: str, row: bytes) -> dict[str, Any]:
    time = {"N": str(effective_ns_of(row))}
    return {
        "UpdateExpression": "SET #v = :v, #e = :e",
        "ConditionExpression": "attribute_not_exists(#e) OR #e <= :e",
        "ExpressionAttributeNames": _names(attribute),
        "ExpressionAttributeValues": {":v": {"B": pybase64.b64encode(row).decode("ascii")}, ":e": time},
    }
