"""A prepared table of items of any attributes, for servers that have a layout of their own.

Knows no sockets and no requests.

Invariants:
1. As of a prepared table's rows, the key's CRC-32 picks the item; writes are refused.
2. An item is given whole, also where part of it is asked for: whoever asks for all of it gets what it asked
   for, and the stand-in evaluates nothing.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import orjson

from perf.load.dynamo_error import validation
from perf.load.tables import JsonObject, PreparedTable, describe

if TYPE_CHECKING:
    from collections.abc import Sequence


class PreparedItems(PreparedTable):
    """Items of any attributes under one string key."""

    def __init__(self, name: str, key: str, items: Sequence[str]) -> None:
        super().__init__(name, [])
        self._key = key
        self._head = b"{" + orjson.dumps(key) + b':{"S":'
        self._items = [b"}," + item.encode()[1:] for item in items]
        self.description = describe(
            name,
            [{"AttributeName": key, "KeyType": "HASH"}],
            [{"AttributeName": key, "AttributeType": "S"}],
        )

    def answer(self, keys: Sequence[JsonObject], parts: list[bytes]) -> int:
        """Append the texts of all items; none is absent. Raises DynamoError."""
        parts.append(b",".join(filter(None, self.read(keys))))
        return 0

    def read(self, keys: Sequence[JsonObject]) -> list[bytes | None]:
        """Give the text of each key's item. Raises DynamoError."""
        try:
            names = [key[self._key]["S"] for key in keys]
        except (KeyError, TypeError):
            raise validation("The provided key element does not match the schema") from None
        if len(set(names)) != len(names):
            raise validation("Provided list of item keys contains duplicates")
        self.keys_read += len(keys)
        return [self._item(name) for name in names]

    def _item(self, name: str) -> bytes:
        item = self._items[zlib.crc32(name.encode()) % len(self._items)]
        return self._head + orjson.dumps(name) + item
