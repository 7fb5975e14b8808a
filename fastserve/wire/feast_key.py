"""Feast's entity keys: the bytes that it makes of join keys, and the id under which DynamoDB holds the row.

A key is its join keys' names, sorted, each behind the code of a string; then the values in the same order,
each behind its type's code and its length; all numbers little-endian. Version 3 writes how many names there
are and how long each is, which versions 1 and 2 leave out; version 1 writes an int64 in four bytes. The id is
the hex of MurmurHash3 (128 bits, x64). What Feast does stands in its `key_encoding_utils.py`.

Invariants
1. The id of a key is the one that Feast 0.67 computes (tests hold them against ids that it made).
2. Values are of the types that the form names; whoever takes them from outside has checked that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

from fastserve.wire.murmur3 import murmur3_128

DUMMY_JOIN_KEY: Final = "__dummy_id"
"""The join key of views without entities: the empty string in every row."""

# What Feast can make keys of; others it refuses when it writes.
_CODES: Final = {"BYTES": 1, "STRING": 2, "INT32": 3, "INT64": 4, "UNIX_TIMESTAMP": 8}
_UINT32: Final = Struct("<I")
_HEADS: Final = Struct("<II")
_INT_FORMS: Final = {"INT32": Struct("<IIi"), "INT64": Struct("<IIq"), "UNIX_TIMESTAMP": Struct("<IIq")}
_INT64_OF_VERSION_1: Final = Struct("<IIi")

EntityId = Callable[[Sequence[Any]], str]
"""Makes the id of an entity key out of its values, in the order of the form's names."""


@dataclass(frozen=True, slots=True)
class FeastKeyForm:
    """What decides the ids of a view's rows: names and Feast types of its join keys, and the version."""

    names: tuple[str, ...]
    types: tuple[str, ...]
    version: int = 3


def entity_id_of(form: FeastKeyForm) -> EntityId:
    """Return the function that makes ids of keys of this form; integers must be in their type's range."""
    order = sorted(range(len(form.names)), key=form.names.__getitem__)
    head = _names(form, order)
    parts = [(place, _part(form.types[place], form.version)) for place in order]
    if len(parts) == 1:
        ((_, only),) = parts
        return lambda values: murmur3_128(head + only(values[0])).hex()
    return lambda values: murmur3_128(b"".join([head, *[part(values[place]) for place, part in parts]])).hex()


def _names(form: FeastKeyForm, order: Sequence[int]) -> bytes:
    with_lengths = form.version >= 3
    parts = [_UINT32.pack(len(order))] if with_lengths else []
    for place in order:
        name = form.names[place].encode()
        parts.append(_UINT32.pack(_CODES["STRING"]))
        if with_lengths:
            parts.append(_UINT32.pack(len(name)))
        parts.append(name)
    return b"".join(parts)


def _part(kind: str, version: int) -> Callable[[Any], bytes]:
    code = _CODES[kind]
    if kind == "STRING":
        return lambda value: _with_head(code, value.encode())
    if kind == "BYTES":
        return lambda value: _with_head(code, value)
    form = _INT64_OF_VERSION_1 if kind == "INT64" and version == 1 else _INT_FORMS[kind]
    pack, length = form.pack, form.size - _HEADS.size
    return lambda value: pack(code, length, value)


def _with_head(code: int, value: bytes) -> bytes:
    return _HEADS.pack(code, len(value)) + value


def int_limits(kind: str, version: int) -> tuple[int, int]:
    """Return the least integer that a key of this Feast type can hold, and the first that is too large."""
    bits = 32 if kind == "INT32" or (kind == "INT64" and version == 1) else 64
    return -(1 << (bits - 1)), 1 << (bits - 1)
