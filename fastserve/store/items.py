"""Items of the attributes format as bytes: every value under its DynamoDB type, as JSON. Pure.

``{"user": "u1", "visits": 3}`` lies in the environment as ``{"user":{"S":"u1"},"visits":{"N":"3"}}``, which
is how DynamoDB would answer: one decoder above the stores reads both.

Invariants
1. What DynamoDB refuses is refused here: NaN, infinities, numbers of over 38 digits, nesting over 32 deep.
2. An item lies under the key text that `plan.keys.ordinary_key` makes of its key attributes: a reader finds
   it.
"""

from __future__ import annotations

import math
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from fastserve.errors import StoreError, shown
from fastserve.plan.keys import item_key
from fastserve.store.interface import AttributeValue, Item, KeyAttribute

MAX_DEPTH = 32
MAX_DIGITS = 38
LARGEST_NUMBER = 1e126
SMALLEST_NUMBER = 1e-130


def key_text(attributes: Sequence[KeyAttribute], item: Item) -> str:
    """Return the key text of an item, which holds all key attributes of its table.

    Raises:
        StoreError: a key attribute lacks, is empty or has another type than the table says.
    """
    texts = [_key_part(attribute, item.get(attribute.name)) for attribute in attributes]
    return item_key(tuple((attribute.name, attribute.type) for attribute in attributes), texts)


def _key_part(attribute: KeyAttribute, value: AttributeValue) -> str:
    if attribute.type == "S" and isinstance(value, str) and value:
        return _text(value, attribute.name)
    if attribute.type == "N" and isinstance(value, (int, float)) and not isinstance(value, bool):
        number = _number(value)
        return str(int(number)) if number == math.floor(number) else repr(number)
    expected = "text that isn't empty" if attribute.type == "S" else "a number"
    raise StoreError(f"key attribute {attribute.name}: expected {expected}, got {shown(value)}")


def encode_item(item: Item) -> bytes:
    """Return the item as bytes.

    Raises:
        StoreError: a value that an attribute can't hold.
    """
    if not all(isinstance(name, str) for name in item):
        raise StoreError("item: expected attribute names that are text")
    return orjson.dumps({name: _encoded(value, name, 0) for name, value in item.items()})


def decode_item(data: bytes) -> dict[str, AttributeValue]:
    """Return the item that `encode_item` made bytes of.

    Raises:
        StoreError: the bytes aren't an item's.
    """
    try:
        return {name: _decoded(typed) for name, typed in orjson.loads(data).items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise StoreError(f"item: expected attributes with their types, got {shown(data)}") from None


def _encoded(value: AttributeValue, name: str, depth: int) -> dict[str, Any]:
    if depth > MAX_DEPTH:
        raise StoreError(f"attribute {shown(name)}: expected at most {MAX_DEPTH} levels of nesting")
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, (int, float)):
        return {"N": repr(_number(value))}
    if isinstance(value, str):
        return {"S": _text(value, name)}
    if isinstance(value, bytes):
        return {"B": b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {"M": {_text(key, name): _encoded(inner, name, depth + 1) for key, inner in value.items()}}
    if isinstance(value, Sequence):
        return {"L": [_encoded(inner, name, depth + 1) for inner in value]}
    raise StoreError(
        f"attribute {shown(name)}: expected a value that a store has a type for, got {shown(value)}"
    )


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or re.search("[\ud800-\udfff]", value):
        raise StoreError(
            f"attribute {shown(name)}: expected text without lone surrogates, got {shown(value)}"
        )
    return value


def _number(value: float) -> float:
    """Return the number if DynamoDB can hold it; ints too."""
    if isinstance(value, int):
        usable = -(10**MAX_DIGITS) < value < 10**MAX_DIGITS
    else:
        usable = value == 0 or SMALLEST_NUMBER <= abs(value) < LARGEST_NUMBER
    if not usable:
        raise StoreError(
            f"number: expected at most {MAX_DIGITS} digits and 1e-130 to 1e126, got {shown(value)}"
        )
    return value


def _decoded(typed: Mapping[str, Any]) -> AttributeValue:
    ((kind, value),) = typed.items()
    decoded: AttributeValue = _DECODERS[kind](value)
    return decoded


_DECODERS: dict[str, Any] = {
    "NULL": lambda _: None,
    "BOOL": bool,
    "N": lambda text: int(text) if re.fullmatch(r"-?[0-9]+", text) else float(text),
    "S": str,
    "B": b64decode,
    "M": lambda inner: {name: _decoded(typed) for name, typed in inner.items()},
    "L": lambda inner: [_decoded(typed) for typed in inner],
}
