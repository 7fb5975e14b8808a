r"""Entity keys as text: what stands in a table's key attribute.

The join-key values of an entity key are joined by ``|``. A string's own ``\`` and ``|`` are escaped by a
``\``; null is ``\0`` and the empty string ``\e`` (DynamoDB takes no empty key). Integers and timestamps
(nanoseconds since the epoch) are decimal, booleans ``true`` and ``false``. The text stays readable in a
console: the key of user u1 is ``u1``.

Invariants
1. Two different entity keys of one view never have the same text (types are fixed per position).
2. No text holds a ``\`` followed by anything but ``\``, ``|``, ``0`` or ``e``: a ``\t`` separates the text of
   an entity key from the number of one of its blocks (`plan.streams`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from fastserve.errors import shown
from fastserve.plan.reads import KeyAttributes, ReadGroup
from fastserve.sdk.types import Bool, DataType, String

SEPARATOR = "|"
NULL_TEXT = "\\0"
NO_INTEGER = "-1E+100"
"""A number that DynamoDB takes and no join key is."""
EMPTY_TEXT = "\\e"
BLOCK_MARK = "\\t"

_ESCAPE = re.compile(r"\\(.)", re.DOTALL)

MAX_KEY_BYTES = 2048
"""DynamoDB's limit for a partition key."""


def string_text(value: str | None) -> str:
    """Return the key text of one string value."""
    if value is None:
        return NULL_TEXT
    if "\\" in value or "|" in value:
        return value.replace("\\", "\\\\").replace("|", "\\|")
    return value or EMPTY_TEXT


def integer_text(value: int | None) -> str:
    """Return the key text of one int64 or timestamp (ns) value."""
    return NULL_TEXT if value is None else str(value)


def bool_text(value: bool | None) -> str:
    """Return the key text of one boolean value."""
    return NULL_TEXT if value is None else "true" if value else "false"


def text_of(dtype: DataType) -> Callable[[Any], str]:
    """Return the function that turns a value of ``dtype`` (or None) into its key text."""
    if dtype == String:
        return string_text
    return bool_text if dtype == Bool else integer_text


def encode_key(dtypes: Sequence[DataType], values: Sequence[Any]) -> str:
    """Return the key text of one entity key; ``values`` are in the order of the view's join keys."""
    return SEPARATOR.join(text_of(dtype)(value) for dtype, value in zip(dtypes, values, strict=True))


def block_key(entity_key: str, block: int) -> str:
    """Return the key text of block ``block`` of the entity key whose text `encode_key` made."""
    return f"{entity_key}{BLOCK_MARK}{block}"


def split_block_key(key: str) -> tuple[str, int]:
    """Return the entity key's text and the block's number of a key that `block_key` made.

    Raises:
        ValueError: it isn't one.
    """
    entity_key, mark, block = key.rpartition(BLOCK_MARK)
    if not mark:
        raise ValueError(f"expected a block's key, got {shown(key)}")
    return entity_key, int(block)


def item_key(attributes: KeyAttributes, texts: Sequence[str]) -> str:
    """Return the text under which a read of an attributes-format table is known: its DynamoDB key as JSON."""
    return orjson.dumps(
        {name: {kind: text} for (name, kind), text in zip(attributes, texts, strict=True)}
    ).decode()


def ordinary_key(attributes: KeyAttributes, texts: Sequence[str]) -> str:
    """Return the `item_key` of an entity key whose values' texts `text_of` made.

    Ordinary tables were not written by us: a text in them stands as it is, without our escapes. A key that
    can't be in such a table, one with null or the empty string, becomes one that isn't: DynamoDB would refuse
    the whole call for it, other requests' keys included.
    """
    return item_key(
        attributes,
        [
            _ordinary_text(kind, text) if "\\" in text else text
            for (_, kind), text in zip(attributes, texts, strict=True)
        ],
    )


def _ordinary_text(kind: str, text: str) -> str:
    if text in {NULL_TEXT, EMPTY_TEXT}:
        return text if kind == "S" else NO_INTEGER
    return _ESCAPE.sub(r"\1", text)


def key_json(group: ReadGroup, key: str) -> bytes:
    """Return the DynamoDB JSON of a key of ``group``, from the text that `encode_key` or `item_key` made."""
    if group.own_items:
        return b'{"k":{"S":' + orjson.dumps(key) + b"}}"
    return key.encode()
