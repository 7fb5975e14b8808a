"""How tables and rows lie in the environment: keys and values as bytes. Pure: no LMDB, no file.

One B-tree holds all. Every key begins with 4 bytes, a table's number, big-endian:

    0 ""                     the format of this folder and the next table's number, JSON
    0 NAME                   a table: its number and its key attributes, JSON
    n KEY                    a row whose key has at most `MAX_PLAIN_KEY_BYTES` bytes of UTF-8
    n 0xFF SHA256(KEY)       a row with a longer key: LMDB takes 511 bytes

A value begins with a header of 8 bytes: the time of expiry in seconds (7 bytes, big-endian, 0: never), then
a byte of flags: `VERSIONED` for a row with a version, `TIMED` for one that only a later one may follow. Where
the key is hashed its length (2 bytes) and the whole key follow. Then comes the row. The version of a row and
what belongs to it lie under a table number of their own, n + 2**31, so that readers of rows never see them.

Invariants
1. UTF-8 holds no 0xFF, so a hashed key is never a plain one.
2. A value under a hashed key gives its row only to the whole key it holds; to another one with the same hash
   it gives nothing. (Of two such keys only the one written last has a row. None are known.)
3. A table's number never changes and is never given to another table.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson

from fastserve.errors import StoreError, shown
from fastserve.store.interface import KeyAttribute, TableSpec
from fastserve.store.limits import check_row, key_attributes, usable_table_name

FORMAT = 1
LMDB_MAX_KEY_BYTES = 511
TABLE_NUMBER_BYTES = 4
MAX_TABLE_NUMBER = 2**31 - 1
MAX_PLAIN_KEY_BYTES = LMDB_MAX_KEY_BYTES - TABLE_NUMBER_BYTES
HASHED = b"\xff"

HEADER_BYTES = 8
NEVER = bytes(HEADER_BYTES)
VERSIONED = 1
TIMED = 2
VERSION_BYTES = 8
KEY_LENGTH_BYTES = 2

CATALOGUE = bytes(TABLE_NUMBER_BYTES)
FORMAT_KEY = CATALOGUE


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the catalogue; ``number`` is its 4 bytes."""

    number: bytes
    spec: TableSpec


def catalogue_key(name: str) -> bytes:
    """Return where the table called ``name`` is catalogued; for an unusable name nothing lies there."""
    return CATALOGUE + (name.encode() if usable_table_name(name) else b"\xff")


def encode_format(next_number: int) -> bytes:
    """Return the value of `FORMAT_KEY`."""
    return orjson.dumps({"fastserve": FORMAT, "next_table": next_number})


def decode_format(value: bytes | None) -> int:
    """Return the number of the next table; a folder without a format is new and begins with 1.

    Raises:
        StoreError: the folder was written by something else, or by a later fastserve.
    """
    if value is None:
        return 1
    stated = _json_object(value)
    if stated.get("fastserve") != FORMAT or not isinstance(stated.get("next_table"), int):
        raise StoreError(f"expected a folder of format {FORMAT}, got one that says {shown(value)}")
    return int(stated["next_table"])


def encode_table(number: int, spec: TableSpec) -> bytes:
    """Return a table's value in the catalogue."""
    keys = [[attribute.name, attribute.type] for attribute in key_attributes(spec)]
    return orjson.dumps({"number": number, "keys": keys})


def decode_table(name: str, value: bytes) -> Table:
    """Return a table from its value in the catalogue.

    Raises:
        StoreError: the value isn't one that `encode_table` made.
    """
    stated = _json_object(value)
    try:
        first, *second = [KeyAttribute(attribute, kind) for attribute, kind in stated["keys"]]
        number = int(stated["number"]).to_bytes(TABLE_NUMBER_BYTES, "big")
        return Table(number, TableSpec(name, first, *second))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise StoreError(f"table {name}: its catalogue entry is spoilt: {shown(value)}") from None


def _json_object(value: bytes) -> dict[str, Any]:
    try:
        stated = orjson.loads(value)
    except orjson.JSONDecodeError:
        return {}
    return stated if isinstance(stated, dict) else {}


def row_key(number: bytes, raw_key: bytes) -> bytes:
    """Return where the row of ``raw_key`` lies."""
    if len(raw_key) <= MAX_PLAIN_KEY_BYTES:
        return number + raw_key
    return number + HASHED + sha256(raw_key).digest()


def encode_value(raw_key: bytes, row: bytes, header: bytes = NEVER) -> bytes:
    """Return what is kept at `row_key`.

    Raises:
        StoreError: the row is longer than every store can keep.
    """
    check_row(row)
    return framed(raw_key, row, header)


def framed(raw_key: bytes, content: bytes, header: bytes = NEVER) -> bytes:
    """Return what is kept at `row_key`, whatever its length."""
    if len(raw_key) <= MAX_PLAIN_KEY_BYTES:
        return header + content
    return b"".join((header, len(raw_key).to_bytes(KEY_LENGTH_BYTES, "big"), raw_key, content))


def decode_value(raw_key: bytes, value: bytes | None) -> bytes | None:
    """Return the row, or None if there is none or if it belongs to another key with the same hash."""
    if value is None:
        return None
    if len(raw_key) <= MAX_PLAIN_KEY_BYTES:
        return value[HEADER_BYTES:]
    start = HEADER_BYTES + KEY_LENGTH_BYTES
    end = start + int.from_bytes(value[HEADER_BYTES:start], "big")
    return value[end:] if value[start:end] == raw_key else None


def header(expires_s: int, flags: int) -> bytes:
    """Return the header of a value."""
    return expires_s.to_bytes(HEADER_BYTES - 1, "big") + bytes([flags])


def flags_of(value: bytes) -> int:
    """Return the flags in a value's header."""
    return value[HEADER_BYTES - 1]


def expires_s_of(value: bytes) -> int:
    """Return the time of expiry in a value's header, 0 for never."""
    return int.from_bytes(value[: HEADER_BYTES - 1], "big")


def version_number(number: bytes) -> bytes:
    """Return the number under which the versions of a table's rows lie."""
    return bytes([number[0] | 0x80]) + number[1:]


def key_of(stored_key: bytes, value: bytes) -> bytes:
    """Return the whole key of the row that lies at `row_key` ``stored_key``."""
    raw_key = stored_key[TABLE_NUMBER_BYTES:]
    if raw_key[:1] != HASHED:
        return raw_key
    start = HEADER_BYTES + KEY_LENGTH_BYTES
    return value[start : start + int.from_bytes(value[HEADER_BYTES:start], "big")]
