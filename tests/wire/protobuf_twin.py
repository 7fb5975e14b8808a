"""Protobuf written, the slow and obvious way: what the reader in `fastserve.wire` is held against."""

from __future__ import annotations


def varint_bytes(value: int) -> bytes:
    """Return an unsigned integer as a varint."""
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def field_bytes(number: int, value: int | bytes) -> bytes:
    """Return a field: a varint, or bytes behind their length."""
    if isinstance(value, int):
        return varint_bytes(number << 3) + varint_bytes(value % 2**64)
    return varint_bytes(number << 3 | 2) + varint_bytes(len(value)) + value


def fixed_bytes(number: int, value: bytes) -> bytes:
    """Return a field of four or eight bytes."""
    return varint_bytes(number << 3 | (1 if len(value) == 8 else 5)) + value
