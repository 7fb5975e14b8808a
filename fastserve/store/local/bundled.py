"""Items of bundles in a local store: the rows of one entity key as one value, so that one look-up finds all.

What is done to them inside a transaction, and how they lie there. Behind a value's header (`layout`) comes
the *directory*, its length before it (4 bytes, little-endian), a JSON object:

    attribute: [where its row begins behind the directory, its length, 1 if only a later one may follow or 0]

and behind it the rows. One look-up for all of them has its price: a row is written with what is beside it.

Invariants
1. An item is read and written in one transaction: no other writer of any process comes between.
2. An item has a row at least; the last one takes it along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from fastserve.errors import StoreError
from fastserve.store.interface import MAX_ROW_BYTES, TINY_ROW_BYTES
from fastserve.store.limits import check_row, check_timed, encode_key
from fastserve.store.local import layout
from fastserve.store.local.catalogue import naming
from fastserve.store.local.environment import Transaction
from fastserve.store.local.layout import Table
from fastserve.tiles.rows import effective_ns_of

LENGTH_BYTES = 4
MAX_DIRECTORIES = 256
"""Kept parsed. Items of one bundle whose rows are all of fixed width have one directory."""


@dataclass(frozen=True, slots=True)
class BundledRow:
    """A row in an item; ``timed`` is whether only a later one may follow."""

    row: bytes
    timed: bool


def kept_rows(table: Table, rows: Sequence[tuple[str, bytes]], *, newest: bool) -> list[tuple[str, bytes]]:
    """Return the row of each key that stays: the newest, or else the last.

    Raises:
        StoreError: a key or a row is beyond the limits.
    """
    kept: dict[str, bytes] = {}
    with naming(table):
        for key, row in rows:
            check_row(row)
            encode_key(key)
            if newest:
                check_timed(row)
                there = kept.get(key)
                if there is not None and effective_ns_of(there) > effective_ns_of(row):
                    continue
            kept[key] = row
    return list(kept.items())


def put(
    table: Table,
    attribute: str,
    full: dict[str, None],
    newest: bool,
    transaction: Transaction,
    rows: Sequence[tuple[str, bytes]],
) -> None:
    """Write `kept_rows` into their items; add the keys that have no room to ``full``."""
    placed = []
    for key, row in rows:
        raw_key = encode_key(key)
        placed.append((layout.row_key(table.number, raw_key), raw_key, key, BundledRow(row, newest)))
    placed.sort(key=lambda one: one[0])  # in the order of the tree
    for place, raw_key, key, bundled in placed:
        item = decode_item(layout.decode_value(raw_key, transaction.get(place)))
        if newest and _is_later(item.get(attribute), bundled.row):
            continue
        item[attribute] = bundled
        if len(bundled.row) > TINY_ROW_BYTES and _size(item) > MAX_ROW_BYTES:
            full[key] = None
            continue
        transaction.put(place, layout.framed(raw_key, encode_item(item)))


def _size(item: dict[str, BundledRow]) -> int:
    """Return the bytes of rows and attributes' names, but for those of tiny rows."""
    return sum(
        len(name.encode()) + len(other.row) for name, other in item.items() if len(other.row) > TINY_ROW_BYTES
    )


def _is_later(there: BundledRow | None, row: bytes) -> bool:
    return there is not None and there.timed and effective_ns_of(there.row) > effective_ns_of(row)


def get(table: Table, attribute: str, transaction: Transaction, keys: Sequence[str]) -> list[bytes | None]:
    """Return the rows in an attribute of these keys' items."""
    with naming(table):
        raw_keys = [encode_key(key) for key in keys]
        found = [
            decode_item(
                layout.decode_value(raw_key, transaction.get(layout.row_key(table.number, raw_key)))
            ).get(attribute)
            for raw_key in raw_keys
        ]
    return [None if bundled is None else bundled.row for bundled in found]


def delete(table: Table, attribute: str, transaction: Transaction, keys: Sequence[str]) -> None:
    """Delete the rows in an attribute of these keys' items; absent ones are no error."""
    with naming(table):
        raw_keys = [encode_key(key) for key in keys]
    for raw_key in raw_keys:
        place = layout.row_key(table.number, raw_key)
        item = decode_item(layout.decode_value(raw_key, transaction.get(place)))
        if item.pop(attribute, None) is None:
            continue
        if item:
            transaction.put(place, layout.framed(raw_key, encode_item(item)))
        else:
            transaction.delete(place)


# --- items as bytes -----------------------------------------------------------------------------------------


def encode_item(item: dict[str, BundledRow]) -> bytes:
    """Return an item as it lies behind a value's header."""
    directory: dict[str, tuple[int, int, int]] = {}
    at = 0
    for attribute, bundled in sorted(item.items()):
        directory[attribute] = (at, len(bundled.row), int(bundled.timed))
        at += len(bundled.row)
    text = orjson.dumps(directory)
    rows = (item[attribute].row for attribute in directory)
    return b"".join((len(text).to_bytes(LENGTH_BYTES, "little"), text, *rows))


def decode_item(body: bytes | None) -> dict[str, BundledRow]:
    """Return the rows of an item by attribute, none where there is no item.

    Raises:
        StoreError: `encode_item` made no such thing.
    """
    if body is None:
        return {}
    directory, start = _directory(body)
    return {
        attribute: BundledRow(body[start + at : start + at + length], bool(timed))
        for attribute, (at, length, timed) in _parsed(directory).items()
    }


def _directory(body: bytes) -> tuple[bytes, int]:
    start = LENGTH_BYTES + int.from_bytes(body[:LENGTH_BYTES], "little")
    return body[LENGTH_BYTES:start], start


def _parsed(directory: bytes) -> dict[str, tuple[int, int, int]]:
    try:
        parsed = orjson.loads(directory)
        return {str(attribute): (at, length, timed) for attribute, (at, length, timed) in parsed.items()}
    except (AttributeError, TypeError, ValueError):
        raise StoreError("expected an item of a bundle, got something else") from None


class Directories:
    """Cuts items into rows, with the directories that it has seen parsed: most items' are alike."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[str, ...], bytes], list[slice | None]] = {}

    def rows(self, attributes: tuple[str, ...], body: bytes | None) -> list[bytes | None]:
        """Return the rows in these attributes, None where there is none.

        Raises:
            StoreError: it isn't an item.
        """
        if body is None:
            return [None] * len(attributes)
        directory, start = _directory(body)
        slices = self._known.get((attributes, directory))
        if slices is None:
            slices = _slices(attributes, directory, start)
            if len(self._known) >= MAX_DIRECTORIES:
                self._known.clear()
            self._known[attributes, directory] = slices
        return [None if where is None else body[where] for where in slices]


def _slices(attributes: Sequence[str], directory: bytes, start: int) -> list[slice | None]:
    places = _parsed(directory)
    return [
        None if place is None else slice(start + place[0], start + place[0] + place[1])
        for place in map(places.get, attributes)
    ]
