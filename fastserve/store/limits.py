"""What every store checks alike: names of tables, their key attributes, keys and rows. Pure.

Invariants
1. What passes here can be kept in every store: DynamoDB's limits are the narrowest.
"""

from __future__ import annotations

import re

from fastserve.errors import StoreError, shown
from fastserve.plan.reads import KeyAttributes
from fastserve.store.interface import (
    MAX_KEY_BYTES,
    MAX_ROW_BYTES,
    MAX_TABLE_NAME_LENGTH,
    MIN_TABLE_NAME_LENGTH,
    KeyAttribute,
    TableSpec,
    VersionedRow,
)

MAX_ITEM_KEY_BYTES = 16_384
"""For items' keys, which are JSON: two texts, escaped, and their attributes' names."""

MIN_TIMED_BYTES = 16
"""A row with less has no effective time."""


def usable_table_name(name: str) -> bool:
    """Say whether every store can have a table of this name."""
    in_range = MIN_TABLE_NAME_LENGTH <= len(name) <= MAX_TABLE_NAME_LENGTH
    return in_range and re.fullmatch(r"[A-Za-z0-9_.-]+", name) is not None


def check_spec(spec: TableSpec) -> None:
    """Check what DynamoDB would refuse.

    Raises:
        StoreError: the name or the key attributes can't be used.
    """
    if not usable_table_name(spec.name):
        raise StoreError(
            f"table name: expected {MIN_TABLE_NAME_LENGTH} to {MAX_TABLE_NAME_LENGTH} characters out of "
            f"A-Z a-z 0-9 _ - . , got {shown(spec.name)}"
        )
    names = [attribute.name for attribute in key_attributes(spec)]
    if len(set(names)) != len(names) or not all(1 <= len(name.encode()) <= 255 for name in names):
        raise StoreError(
            f"table {spec.name}: expected different names of 1 to 255 bytes for its key attributes, "
            f"got {shown(', '.join(names))}"
        )


def key_attributes(spec: TableSpec) -> tuple[KeyAttribute, ...]:
    """Return the partition key and, where there is one, the sort key."""
    return (spec.partition_key,) if spec.sort_key is None else (spec.partition_key, spec.sort_key)


def encode_key(key: str, max_bytes: int = MAX_KEY_BYTES) -> bytes:
    """Return the key's bytes, checked.

    Raises:
        StoreError: empty, too long, or not text that UTF-8 can carry.
    """
    try:
        raw = key.encode()
    except UnicodeEncodeError:
        raise StoreError(f"key: expected text without lone surrogates, got {shown(key)}") from None
    if not 1 <= len(raw) <= max_bytes:
        raise StoreError(f"key: expected 1 to {max_bytes} bytes, got {len(raw)}")
    return raw


def check_row(row: bytes) -> None:
    """Check a row's length.

    Raises:
        StoreError: it is longer than every store can keep.
    """
    if len(row) > MAX_ROW_BYTES:
        raise StoreError(f"row: expected at most {MAX_ROW_BYTES} bytes, got {len(row)}")


def check_versioned(row: VersionedRow) -> None:
    """Check the length of a row with what its writer keeps beside it.

    Raises:
        StoreError: both together are longer than every store can keep.
    """
    size = len(row.row) + len(row.ids)
    if size > MAX_ROW_BYTES:
        raise StoreError(f"row: expected at most {MAX_ROW_BYTES} bytes with its ids, got {size}")


def check_timed(row: bytes) -> None:
    """Check that a row has an effective time.

    Raises:
        StoreError: it is too short to have one.
    """
    if len(row) < MIN_TIMED_BYTES:
        raise StoreError(f"row: expected one with an effective time, got {len(row)} bytes")


def key_of(spec: TableSpec) -> KeyAttributes:
    """Return the names and types of a table's key attributes."""
    return tuple((attribute.name, attribute.type) for attribute in key_attributes(spec))


def check_key(spec: TableSpec, expected: KeyAttributes) -> None:
    """Check that a table has these key attributes.

    Raises:
        StoreError: it has others.
    """
    got = key_of(spec)
    if got != expected:
        raise StoreError(
            f"table {spec.name}: expected key attributes {_listed(expected)}, got {_listed(got)}"
        )


def _listed(attributes: KeyAttributes) -> str:
    return ", ".join(f"{shown(name)} ({kind})" for name, kind in attributes)
