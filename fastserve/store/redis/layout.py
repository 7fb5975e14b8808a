r"""How tables and rows lie in Redis: keys and values as bytes. Pure: no Redis, no socket.

    TABLE:table        a table: its key attributes, JSON
    TABLE{KEY}         a row, as it stands; an item of the attributes format, as `store.items` has it
                       of a bundle a hash: a row in each field, named by its attribute; and, of rows of which
                       the newest stays, the effective time (8 bytes) in a field with ``:e`` behind the name
    TABLE{KEY}#        what belongs to the row, a *note*: absent for a row that was just put

A note is ``V``, version and time of expiry in seconds (8 bytes each, big-endian) and ids, for a row with a
version; or ``T`` and the effective time (8 bytes, as in the row), for one that only a later one may follow.
Rows stand without a byte of ours before them: what the hot side gets from Redis is what it hands on.

The braces are Redis Cluster's hash tag: of a key with braces only what stands between the first ``{`` and
the first ``}`` after it decides on the node. So the rows of one entity key lie together, whatever the table,
and a row with its note.
(https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags)

Invariants
1. Different (table, key) pairs lie under different keys: no table name holds a brace or a colon.
2. All keys with one entity key have one slot, also where that key itself holds braces.
3. Keys are made of names, not of numbers that a catalogue gives out: a catalogue that is lost and made
   again can't lead to another table's rows.
"""

from __future__ import annotations

from binascii import crc_hqx
from typing import Any

import orjson

from fastserve.errors import StoreError, shown
from fastserve.store.interface import KeyAttribute, TableSpec, VersionedRow
from fastserve.store.limits import key_attributes

SLOTS = 16_384
_ESCAPE = b"\0"
_ESCAPED = (b"}", b"\0")

VERSIONED = b"V"
TIMED = b"T"
NUMBER_BYTES = 8
IDS_START = 1 + 2 * NUMBER_BYTES
TIME_START, TIME_END = 8, 16


def table_key(table: str) -> bytes:
    """Return where a table is described."""
    return table.encode() + b":table"


def stored(raw_key: bytes) -> bytes:
    """Return what stands between the braces: the key, but never an empty tag."""
    return _ESCAPE + raw_key if raw_key[:1] in _ESCAPED else raw_key


def row_key(table: bytes, raw_key: bytes) -> bytes:
    """Return where the row of ``raw_key`` lies."""
    return b"%b{%b}" % (table, stored(raw_key))


def note_key(row_key: bytes) -> bytes:
    """Return where the note of the row at ``row_key`` lies."""
    return row_key + b"#"


def rows_pattern(table: bytes) -> bytes:
    """Return the pattern of the keys of a table's rows, without notes; no name holds a sign of patterns."""
    return table + b"{*}"


def raw_key_of(table: bytes, row_key: bytes) -> bytes:
    """Return the key whose row lies at ``row_key``."""
    raw_key = row_key[len(table) + 1 : -1]
    return raw_key[1:] if raw_key[:1] == _ESCAPE else raw_key


def slot_of(stored_key: bytes) -> int:
    """Return the slot of all keys whose braces hold ``stored_key``."""
    end = stored_key.find(b"}")
    # CRC-16/XMODEM, which the standard library has under a name of its own.
    return crc_hqx(stored_key if end < 0 else stored_key[:end], 0) % SLOTS


def encode_table(spec: TableSpec) -> bytes:
    """Return a table's description."""
    return orjson.dumps({"keys": [[attribute.name, attribute.type] for attribute in key_attributes(spec)]})


def decode_table(name: str, value: bytes) -> TableSpec:
    """Return a table from its description.

    Raises:
        StoreError: `encode_table` made no such thing.
    """
    try:
        stated: Any = orjson.loads(value)
        first, *second = [KeyAttribute(attribute, kind) for attribute, kind in stated["keys"]]
        return TableSpec(name, first, *second)
    except (KeyError, TypeError, ValueError):
        raise StoreError(f"table {name}: its description is spoilt: {shown(value)}") from None


def encode_note(row: VersionedRow) -> bytes:
    """Return the note of a row with a version."""
    return b"".join((VERSIONED, encode_number(row.version), encode_number(row.expires_s), row.ids))


def encode_number(number: int) -> bytes:
    """Return a number as notes have it."""
    return number.to_bytes(NUMBER_BYTES, "big")


def decode_row(row: bytes | None, note: bytes | None) -> VersionedRow | None:
    """Return a row with what its note says; None where there is no row."""
    if row is None:
        return None
    if note is None or note[:1] != VERSIONED:
        return VersionedRow(0, row)
    version, expires_s = note[1 : 1 + NUMBER_BYTES], note[1 + NUMBER_BYTES : IDS_START]
    return VersionedRow(
        int.from_bytes(version, "big"), row, note[IDS_START:], int.from_bytes(expires_s, "big")
    )
