"""Reads protobuf's wire format: varints, fixed widths, fields by number. It knows no message.

A schema compiler and its runtime are for programs that write many messages. Here two are read, whose schemas
stand in the modules that read them; reading is a hundred lines and brings no dependency into a worker.

Invariants
1. Bytes that aren't a whole message raise `ProtobufError`; nothing is read beyond the end.
2. Fields that a reader doesn't know are passed over, as protobuf asks (messages grow).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, I64, LEN, I32 = 0, 1, 2, 5
"""Wire types. The others are those of groups, which proto3 doesn't have."""

MAX_VARINT_BYTES = 10
_SIGN_64 = 1 << 63
_MODULUS_64 = 1 << 64
_SIGN_32 = 1 << 31
_MODULUS_32 = 1 << 32

Value = int | bytes
"""A varint as it stands, unsigned; anything else as its bytes."""


class ProtobufError(ValueError):
    """Bytes that are no protobuf message, or not the one expected."""


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the unsigned varint at ``at`` and where the next byte stands.

    Raises:
        ProtobufError: it is cut off, or longer than ten bytes.
    """
    number = shift = 0
    for position in range(at, min(at + MAX_VARINT_BYTES, len(data))):
        byte = data[position]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & (_MODULUS_64 - 1), position + 1
        shift += 7
    raise ProtobufError(f"expected a varint at byte {at} of {len(data)}, got none that ends")


def int64(number: int) -> int:
    """Return the signed 64-bit integer that an unsigned varint stands for."""
    return number - _MODULUS_64 if number >= _SIGN_64 else number


def int32(number: int) -> int:
    """Return the signed 32-bit integer that an unsigned varint stands for: its low 32 bits."""
    low = number & (_MODULUS_32 - 1)
    return low - _MODULUS_32 if low >= _SIGN_32 else low


def fields(data: bytes) -> Iterator[tuple[int, int, Value]]:
    """Yield number, wire type and value of each field of a message, in the order in which they stand.

    Raises:
        ProtobufError: it isn't a whole message.
    """
    at, end = 0, len(data)
    while at < end:
        tag, at = varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number == 0:
            raise ProtobufError(f"expected a field's number before byte {at}, got 0")
        if kind == VARINT:
            value, at = varint(data, at)
            yield number, kind, value
            continue
        if kind == LEN:
            length, at = varint(data, at)
        elif kind in {I64, I32}:
            length = 8 if kind == I64 else 4
        else:
            raise ProtobufError(f"expected a wire type of proto3 before byte {at}, got {kind}")
        if length > end - at:
            raise ProtobufError(f"expected {length} bytes at byte {at}, got {end - at}")
        yield number, kind, data[at : at + length]
        at += length


def text(value: Value) -> str:
    """Return a string field's text.

    Raises:
        ProtobufError: it isn't one, or not UTF-8.
    """
    try:
        return payload(value).decode()
    except UnicodeDecodeError:
        raise ProtobufError("expected a string in UTF-8, got other bytes") from None


def payload(value: Value) -> bytes:
    """Return the bytes of a field that has a length.

    Raises:
        ProtobufError: it has none.
    """
    if isinstance(value, bytes):
        return value
    raise ProtobufError("expected a string, bytes or a message, got a number")


def number(value: Value) -> int:
    """Return a varint field's number, unsigned.

    Raises:
        ProtobufError: it is another kind of field.
    """
    if isinstance(value, int):
        return value
    raise ProtobufError("expected a number, got bytes")


def unpacked(form: str, value: bytes) -> float:
    """Return one fixed-width number.

    Raises:
        ProtobufError: the bytes are too few.
    """
    try:
        found: float = struct.unpack_from(form, value)[0]
    except struct.error:
        raise ProtobufError(f"expected a number of a fixed width, got {len(value)} bytes") from None
    return found
