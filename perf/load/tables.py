"""The tables of the stand-in DynamoDB: those that keep what is put, and those with prepared answers.

Knows no sockets, no requests and no faults.

Invariants:
1. A key is canonical: two spellings of one number are one key, so duplicates are found where the service
   finds them.
2. What a table gives back is the JSON text of an item, ready to be joined into an answer.
3. A prepared table answers any string key with a row of its pool; the key's CRC-32 picks the row, so the
   harness can tell what must come back. It refuses writes.
"""

from __future__ import annotations

import bisect
import zlib
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import orjson

from perf.load.dynamo_error import DynamoError, validation

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

JsonObject: TypeAlias = dict[str, Any]

ITEM_MAX_BYTES = 400 * 1024
_KEY_MISMATCH = "The provided key element does not match the schema"
_DUPLICATES = "Provided list of item keys contains duplicates"
_EMPTY_KEY = (
    "One or more parameter values are not valid. "
    "The AttributeValue for a key attribute cannot contain an empty string value. Key: {}"
)
# Escaping and hashing a key once pays when fifty tables are read by the same one.
_KEY_CACHE_MAX = 1_000_000


class Table(Protocol):
    """What an operation may ask of a table."""

    description: JsonObject
    keys_read: int
    time_to_live: str | None

    def answer(self, keys: Sequence[JsonObject], parts: list[bytes]) -> int:
        """Append the texts of all items present, with commas between; give how many were absent.

        Raises DynamoError as `read` does.
        """

    def read(self, keys: Sequence[JsonObject]) -> list[bytes | None]:
        """Give the text of each key's item, None where there is none.

        Raises DynamoError for a key of another schema and for duplicates.
        """

    def put(self, item: JsonObject) -> None:
        """Keep an item under its key. Raises DynamoError."""

    def delete(self, key: JsonObject) -> None:
        """Forget a key's item. Raises DynamoError."""

    def identify(self, attributes: JsonObject) -> Hashable:
        """Give the canonical key among the attributes of an item. Raises DynamoError."""

    def scan(self, after: JsonObject | None, segment: int, segments: int) -> Iterator[bytes]:
        """Give the texts of a segment's items after a key, in an order that writes leave as it is.

        Raises DynamoError for a key of another schema.
        """


def row_index(key: str, pool_size: int) -> int:
    """Tell which row of a prepared pool answers a key."""
    return zlib.crc32(key.encode()) % pool_size


class StoredTable:
    """A table that keeps what is put into it."""

    def __init__(self, name: str, key_schema: Sequence[JsonObject], attributes: Sequence[JsonObject]) -> None:
        types = {str(entry["AttributeName"]): str(entry["AttributeType"]) for entry in attributes}
        names = [str(part["AttributeName"]) for part in key_schema]
        self._key = tuple((name, types[name]) for name in names)
        self._items: dict[Hashable, bytes] = {}
        self._places: list[tuple[int, Hashable]] | None = []
        self.keys_read = 0
        self.time_to_live: str | None = None
        self.description = describe(name, key_schema, attributes)

    def identify(self, attributes: JsonObject) -> Hashable:
        """Give the canonical key among the attributes of an item. Raises DynamoError."""
        return tuple(_canonical(name, kind, attributes) for name, kind in self._key)

    def answer(self, keys: Sequence[JsonObject], parts: list[bytes]) -> int:
        """Append the texts of all items present; give how many were absent. Raises DynamoError."""
        return _append(self.read(keys), parts)

    def read(self, keys: Sequence[JsonObject]) -> list[bytes | None]:
        """Give the text of each key's item, None where there is none. Raises DynamoError."""
        width = len(self._key)
        if any(len(key) != width for key in keys):
            raise validation(_KEY_MISMATCH)
        identities = [self.identify(key) for key in keys]
        if len(set(identities)) != len(identities):
            raise validation(_DUPLICATES)
        self.keys_read += len(keys)
        return [self._items.get(identity) for identity in identities]

    def texts(self) -> list[bytes]:
        """Give the texts of all items."""
        return list(self._items.values())

    def put(self, item: JsonObject) -> None:
        """Keep an item under its key. Raises DynamoError."""
        check_size(item)
        identity = self.identify(item)
        if identity not in self._items:
            self._places = None
        self._items[identity] = orjson.dumps(item)

    def delete(self, key: JsonObject) -> None:
        """Forget a key's item. Raises DynamoError."""
        if self._items.pop(self.identify(key), None) is not None:
            self._places = None

    def scan(self, after: JsonObject | None, segment: int, segments: int) -> Iterator[bytes]:
        """Give the texts of a segment's items after a key, in the order of the keys' hashes.

        Raises DynamoError.
        """
        if self._places is None:
            self._places = sorted((_place(identity), identity) for identity in self._items)
        places = self._places
        start = 0
        if after is not None:
            identity = self.identify(after)
            start = bisect.bisect_right(places, (_place(identity), identity))
        for at in range(start, len(places)):
            place, identity = places[at]
            if place % segments == segment:
                yield self._items[identity]


class PreparedTable:
    """A table whose items were all made beforehand: a pool of rows, one picked by the key."""

    def __init__(self, name: str, rows: Sequence[str | None]) -> None:
        self.keys_read = 0
        self.time_to_live: str | None = None
        # What follows the key in each row's item.
        self.tails = [None if row is None else b'},"v":{"B":"' + row.encode() + b'"}}' for row in rows]
        self.description = describe(
            name,
            [{"AttributeName": "k", "KeyType": "HASH"}],
            [{"AttributeName": "k", "AttributeType": "S"}],
        )

    # Shared by all prepared tables: key -> (start of its item, CRC-32).
    _keys: dict[str, tuple[bytes, int]] = {}  # noqa: RUF012

    def identify(self, attributes: JsonObject) -> Hashable:
        """Give the canonical key among the attributes of an item. Raises DynamoError."""
        return _canonical("k", "S", attributes)

    def answer(self, keys: Sequence[JsonObject], parts: list[bytes]) -> int:
        """Append the texts of all items present; give how many were absent. Raises DynamoError."""
        tails, known = self.tails, self._keys
        before, absent = len(parts), 0
        seen = set()
        for key in keys:
            try:
                text = key["k"]["S"]
                head, crc = known.get(text) or self._learn(text)
            except (KeyError, TypeError, AttributeError):
                raise validation(_KEY_MISMATCH) from None
            if len(key) != 1:
                raise validation(_KEY_MISMATCH)
            seen.add(text)
            tail = tails[crc % len(tails)]
            if tail is None:
                absent += 1
            else:
                parts += (head, tail)
        if len(parts) > before:
            # Each head begins with a comma, after the item before; the first one has none before it.
            parts[before] = parts[before][1:]
        if len(seen) != len(keys):
            raise validation(_DUPLICATES)
        self.keys_read += len(keys)
        return absent

    def read(self, keys: Sequence[JsonObject]) -> list[bytes | None]:
        """Give the text of each key's item, None where there is none. Raises DynamoError."""
        items: list[bytes | None] = []
        self.answer(keys, [])
        for key in keys:
            head, crc = self._learn(key["k"]["S"])
            tail = self.tails[crc % len(self.tails)]
            items.append(None if tail is None else head[1:] + tail)
        return items

    def _learn(self, text: str) -> tuple[bytes, int]:
        if not text:
            raise validation(_EMPTY_KEY.format("k"))
        if len(self._keys) >= _KEY_CACHE_MAX:
            self._keys.clear()
        entry = b',{"k":{"S":' + orjson.dumps(text), zlib.crc32(text.encode())
        self._keys[text] = entry
        return entry

    def put(self, item: JsonObject) -> None:
        """Refuse: prepared rows are the harness's."""
        raise validation("a prepared table takes no writes")

    def delete(self, key: JsonObject) -> None:
        """Refuse: prepared rows are the harness's."""
        raise validation("a prepared table takes no writes")

    def scan(self, after: JsonObject | None, segment: int, segments: int) -> Iterator[bytes]:
        """Refuse: a prepared table has an item for any key."""
        raise validation("a prepared table can't be scanned")


def _place(identity: Hashable) -> int:
    return zlib.crc32(repr(identity).encode())


def _append(items: Sequence[bytes | None], parts: list[bytes]) -> int:
    present = [item for item in items if item is not None]
    parts.append(b",".join(present))
    return len(items) - len(present)


def describe(name: str, key_schema: Sequence[JsonObject], attributes: Sequence[JsonObject]) -> JsonObject:
    """Give a table's description as DescribeTable answers it."""
    return {
        "TableName": name,
        "TableStatus": "ACTIVE",
        "KeySchema": list(key_schema),
        "AttributeDefinitions": list(attributes),
        "ItemCount": 0,
        "TableSizeBytes": 0,
        "CreationDateTime": 1_700_000_000,
        "TableArn": f"arn:aws:dynamodb:local:000000000000:table/{name}",
        "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
        "ProvisionedThroughput": {"ReadCapacityUnits": 0, "WriteCapacityUnits": 0},
    }


def check_size(item: JsonObject) -> None:
    """Refuse an item over the service's limit. Raises DynamoError."""
    if item_size_bytes(item) > ITEM_MAX_BYTES:
        raise validation("Item size has exceeded the maximum allowed size")


def item_size_bytes(value: JsonObject) -> int:
    """Size an item roughly as the service does: names, and values with binary before base64."""
    return sum(len(name.encode()) + _value_bytes(entry) for name, entry in value.items())


def _value_bytes(entry: JsonObject) -> int:
    kind, value = next(iter(entry.items()))
    if kind == "B":
        return len(value) * 3 // 4
    if kind == "S":
        return len(value.encode())
    return len(orjson.dumps(value))


def _canonical(name: str, kind: str, attributes: JsonObject) -> str | Decimal:
    entry = attributes.get(name)
    if not isinstance(entry, dict) or list(entry) != [kind] or not isinstance(entry[kind], str):
        raise validation(_KEY_MISMATCH)
    value: str = entry[kind]
    if not value:
        raise validation(_EMPTY_KEY.format(name))
    return _number(value) if kind == "N" else value


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise _not_a_number(text) from None


def _not_a_number(text: str) -> DynamoError:
    return validation(f"The parameter cannot be converted to a numeric value: {text[:64]}")
