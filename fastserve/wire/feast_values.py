"""Feast's values as its DynamoDB items hold them: a serialized ``feast.types.Value``, to what JSON takes.

The schema is `protos/feast/types/Value.proto` of Feast 0.67: one field out of a ``oneof``, which names the
type; null is an empty message, or `null_val`. What comes out is what Feast's own server would put into
its JSON: int64 and times (seconds since the epoch) as integers, bytes as base64, sets as lists.

Invariants
1. Every value that Feast can write is read; of those that Feast's server answers with null, `scalar_map_val`,
   null is answered here.
2. Bytes that are no such message raise `ProtobufError`. A field that isn't known, of a later Feast, is an
   error too: null would be a wrong value.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from struct import Struct
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from pybase64 import b64decode

from fastserve.wire.protobuf import (
    I32,
    I64,
    LEN,
    VARINT,
    ProtobufError,
    Value,
    fields,
    int32,
    int64,
    number,
    payload,
    text,
    unpacked,
    varint,
)

MAX_DEPTH = 100
"""Protobuf's own limit of messages in messages."""

NULL_TIME_S = -(2**63)
"""Stands for no time in a `ZonedTimestamp`."""

_STRING_TAG, _INT32_TAG, _INT64_TAG = 2 << 3 | LEN, 3 << 3 | VARINT, 4 << 3 | VARINT
_DOUBLE_TAG, _FLOAT_TAG = 5 << 3 | I64, 6 << 3 | I32
_DOUBLE_BYTES, _FLOAT_BYTES = 9, 5
_DOUBLE_CHARACTERS = 12  # nine bytes in base64, without padding: such texts can be decoded joined
_DOUBLE = Struct("<xd").unpack
_FLOAT = Struct("<xf").unpack
_DOUBLES = np.dtype([("tag", "u1"), ("value", "<f8")])
_INT_TAGS = (_INT64_TAG, _INT32_TAG)
MANY = 8
"""From so many doubles on it takes less time to decode them joined, by NumPy."""


def values_of_texts(texts: Sequence[str]) -> list[Any]:
    """Return the values that stand in binary attributes of items, as DynamoDB's JSON has them.

    Raises:
        ValueError: one isn't base64, or not a value.
    """
    if len(texts) >= MANY and set(map(len, texts)) == {_DOUBLE_CHARACTERS}:
        joined = "".join(texts)
        if "=" not in joined:  # padding: something shorter, which only stands at the end of what is decoded
            doubles = np.frombuffer(b64decode(joined, validate=True), _DOUBLES)
            if (doubles["tag"] == _DOUBLE_TAG).all():
                found: list[Any] = doubles["value"].tolist()
                return found
    return [value_of(b64decode(each, validate=True)) for each in texts]


def value_of(raw: bytes) -> Any:
    """Return the value of a serialized ``Value``.

    Raises:
        ProtobufError: it isn't one.
    """
    # One field that fills the message, of the types that most features have; all else has time.
    length = len(raw)
    tag = raw[0] if length > 1 else 0
    if tag == _DOUBLE_TAG and length == _DOUBLE_BYTES:
        return _DOUBLE(raw)[0]
    if tag in _INT_TAGS:
        found, at = varint(raw, 1)
        if at == length:
            return int64(found) if tag == _INT64_TAG else int32(found)
    elif tag == _STRING_TAG and raw[1] == length - 2 < 0x80:
        return text(raw[2:])
    elif tag == _FLOAT_TAG and length == _FLOAT_BYTES:
        return _FLOAT(raw)[0]
    return _value(raw, 0)


def _value(raw: bytes, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ProtobufError(f"expected at most {MAX_DEPTH} messages in each other, got more")
    found: tuple[int, int, Value] | None = None
    for field in fields(raw):
        # A field that comes twice is one whose parts follow each other; else the last of a oneof is the one.
        before = found
        if before is not None and before[0] == field[0] and isinstance(before[2], bytes) and field[1] == LEN:
            found = (field[0], LEN, before[2] + payload(field[2])) if field[0] in _MESSAGES else field
        else:
            found = field
    if found is None:
        return None
    which, kind, value = found
    try:
        expected, reader = _READERS[which]
    except KeyError:
        raise ProtobufError(f"expected a value of a type that is known here, got field {which}") from None
    if kind != expected:
        raise ProtobufError(f"expected wire type {expected} for field {which}, got {kind}")
    return reader(value, depth)


# --- scalars ---------------------------------------------------------------------------------------------


def _bytes(value: Value, _depth: int) -> str:
    return b64encode(payload(value)).decode()


def _text(value: Value, _depth: int) -> str:
    return text(value)


def _int32(value: Value, _depth: int) -> int:
    return int32(number(value))


def _int64(value: Value, _depth: int) -> int:
    return int64(number(value))


def _double(value: Value, _depth: int) -> float:
    return unpacked("<d", payload(value))


def _float(value: Value, _depth: int) -> float:
    return unpacked("<f", payload(value))


def _bool(value: Value, _depth: int) -> bool:
    return number(value) != 0


def _null(_value: Value, _depth: int) -> None:
    return None


# --- lists and sets: ``repeated T val = 1`` --------------------------------------------------------------


def _members(value: Value) -> Iterable[tuple[int, Value]]:
    """Yield wire type and value of each entry of the field ``val``."""
    for which, kind, entry in fields(payload(value)):
        if which == 1:
            yield kind, entry


def _texts(value: Value, _depth: int) -> list[str]:
    return [text(entry) for _, entry in _members(value)]


def _byte_texts(value: Value, depth: int) -> list[str]:
    return [_bytes(entry, depth) for _, entry in _members(value)]


def _numbers(one: Callable[[int], Any]) -> Callable[[Value, int], list[Any]]:
    """Return the reader of varints, packed into one field or each in its own."""

    def read(value: Value, _depth: int) -> list[Any]:
        found: list[Any] = []
        for _, entry in _members(value):
            if isinstance(entry, int):
                found.append(one(entry))
                continue
            at = 0
            while at < len(entry):
                each, at = varint(entry, at)
                found.append(one(each))
        return found

    return read


def _fixed(code: str, width_bytes: int) -> Callable[[Value, int], list[float]]:
    """Return the reader of fixed-width numbers, packed into one field or each in its own."""

    def read(value: Value, _depth: int) -> list[float]:
        found: list[float] = []
        for _, entry in _members(value):
            packed = payload(entry)
            if len(packed) % width_bytes:
                raise ProtobufError(f"expected numbers of {width_bytes} bytes, got {len(packed)} bytes")
            found += Struct(f"<{len(packed) // width_bytes}{code}").unpack(packed)
        return found

    return read


def _values(value: Value, depth: int) -> list[Any]:
    return [_value(payload(entry), depth + 1) for _, entry in _members(value)]


# --- maps ------------------------------------------------------------------------------------------------


def _map(value: Value, depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _, entry in _members(value):
        key, inner = "", b""
        for which, _, part in fields(payload(entry)):
            if which == 1:
                key = text(part)
            elif which == 2:
                inner = payload(part)
        found[key] = _value(inner, depth + 1)
    return found


def _maps(value: Value, depth: int) -> list[dict[str, Any]]:
    return [_map(entry, depth) for _, entry in _members(value)]


# --- times with a zone -----------------------------------------------------------------------------------


def _zoned_time(value: Value, _depth: int) -> str | None:
    time_s, zone = 0, ""
    for which, _, part in fields(payload(value)):
        if which == 1:
            time_s = int64(number(part))
        elif which == 2:
            zone = text(part)
    if time_s == NULL_TIME_S:
        return None
    try:
        return datetime.fromtimestamp(time_s, tz=_zone(zone)).isoformat()
    except (OverflowError, ValueError, OSError, ZoneInfoNotFoundError):
        raise ProtobufError("expected a time and a zone that exist, got others") from None


def _zone(name: str) -> tzinfo:
    if name in {"", "UTC"}:
        return UTC
    if name[0] not in "+-":
        return ZoneInfo(name)
    hours, _, minutes = name[1:].partition(":")
    offset = timedelta(hours=int(hours), minutes=int(minutes or 0))
    return timezone(-offset if name[0] == "-" else offset)


_READERS: Mapping[int, tuple[int, Callable[[Value, int], Any]]] = {
    1: (LEN, _bytes),
    2: (LEN, _text),
    3: (VARINT, _int32),
    4: (VARINT, _int64),
    5: (I64, _double),
    6: (I32, _float),
    7: (VARINT, _bool),
    8: (VARINT, _int64),  # a time, in seconds
    11: (LEN, _byte_texts),
    12: (LEN, _texts),
    13: (LEN, _numbers(int32)),
    14: (LEN, _numbers(int64)),
    15: (LEN, _fixed("d", 8)),
    16: (LEN, _fixed("f", 4)),
    17: (LEN, _numbers(bool)),
    18: (LEN, _numbers(int64)),
    19: (VARINT, _null),
    20: (LEN, _map),
    21: (LEN, _maps),
    22: (LEN, _byte_texts),
    23: (LEN, _texts),
    24: (LEN, _numbers(int32)),
    25: (LEN, _numbers(int64)),
    26: (LEN, _fixed("d", 8)),
    27: (LEN, _fixed("f", 4)),
    28: (LEN, _numbers(bool)),
    29: (LEN, _numbers(int64)),
    32: (LEN, _text),  # JSON, as text
    33: (LEN, _texts),
    34: (LEN, _map),
    35: (LEN, _maps),
    36: (LEN, _text),  # a UUID
    37: (LEN, _text),
    38: (LEN, _texts),
    39: (LEN, _texts),
    40: (LEN, _texts),
    41: (LEN, _texts),
    42: (LEN, _values),
    43: (LEN, _values),
    44: (LEN, _text),  # a decimal
    45: (LEN, _texts),
    46: (LEN, _texts),
    47: (LEN, _null),  # a map whose keys are no strings: Feast's server answers null
    48: (LEN, _zoned_time),
}
"""By the number of the field in the ``oneof``: its wire type, and what reads it."""

_TEXTS = frozenset({1, 2, 32, 36, 37, 44})
_MESSAGES = frozenset(which for which, (kind, _) in _READERS.items() if kind == LEN and which not in _TEXTS)
