"""MessagePack: values to bytes and back, as far as answers need it.

It knows JSON's types, integers of 64 bits, floats that needn't be finite, and no others: no extension types,
no binary. Columns of numbers are packed in `fastserve.api.pack`, without a Python object each.

Invariants
1. Texts, arrays and maps take the shortest form, integers too; a float keeps its width.
2. What `pack` wrote `unpack` gives back: a float of 4 bytes as a `numpy.float32`, all else as it was.

Format: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from fastserve.errors import InvariantError

NIL = 0xC0
FALSE = 0xC2
TRUE = 0xC3
FLOAT32 = 0xCA
FLOAT64 = 0xCB
INT64 = 0xD3

_NIL, _FALSE, _TRUE = bytes([NIL]), bytes([FALSE]), bytes([TRUE])
_float32 = struct.Struct(">Bf").pack
_float64 = struct.Struct(">Bd").pack
_byte = struct.Struct(">BB").pack
_short = struct.Struct(">BH").pack
_long = struct.Struct(">BI").pack
# By form: the end of its integers (of signed ones the least), its first byte, and how they are written.
_UNSIGNED = ((2**8, 0xCC, ">BB"), (2**16, 0xCD, ">BH"), (2**32, 0xCE, ">BI"), (2**64, 0xCF, ">BQ"))
_SIGNED = ((-(2**7), 0xD0, ">Bb"), (-(2**15), 0xD1, ">Bh"), (-(2**31), 0xD2, ">Bi"), (-(2**63), INT64, ">Bq"))


def pack(value: Any) -> bytes:
    """Return None, a bool, int, float, str, `numpy.float32`, or lists and maps of them, as MessagePack.

    Raises:
        InvariantError: another type, or an integer that takes more than 64 bits.
    """
    parts: list[bytes] = []
    _put(value, parts.append)
    return b"".join(parts)


def array_head(length: int) -> bytes:
    """Return what stands before the elements of an array."""
    if length < 16:
        return bytes([0x90 | length])
    return _short(0xDC, length) if length < 2**16 else _long(0xDD, length)


def map_head(length: int) -> bytes:
    """Return what stands before the members of a map, each a key and a value."""
    if length < 16:
        return bytes([0x80 | length])
    return _short(0xDE, length) if length < 2**16 else _long(0xDF, length)


def _put(value: Any, put: Callable[[bytes], None]) -> None:
    if value is None:
        put(_NIL)
    elif value is True:
        put(_TRUE)
    elif value is False:
        put(_FALSE)
    elif isinstance(value, str):
        put(_text(value))
    elif isinstance(value, int):
        put(_integer(value))
    elif isinstance(value, float):
        put(_float64(FLOAT64, value))
    elif isinstance(value, np.float32):
        put(_float32(FLOAT32, value))
    else:
        _put_many(value, put)


def _put_many(value: Any, put: Callable[[bytes], None]) -> None:
    if isinstance(value, dict):
        put(map_head(len(value)))
        for key, member in value.items():
            put(_text(key))
            _put(member, put)
    elif isinstance(value, list | tuple):
        put(array_head(len(value)))
        for item in value:
            _put(item, put)
    else:
        raise InvariantError(f"expected a value that JSON has, to be packed, got {type(value).__name__}")


def _text(value: str) -> bytes:
    data = value.encode()
    length = len(data)
    if length < 32:
        return bytes([0xA0 | length]) + data
    if length < 2**8:
        return _byte(0xD9, length) + data
    return (_short(0xDA, length) if length < 2**16 else _long(0xDB, length)) + data


def _integer(value: int) -> bytes:
    if -32 <= value < 128:
        return bytes([value & 0xFF])
    for limit, first, form in _UNSIGNED if value > 0 else _SIGNED:
        if value < limit if value > 0 else value >= limit:
            return struct.pack(form, first, value)
    raise InvariantError("expected an integer of at most 64 bits, to be packed")


# --- and back ---------------------------------------------------------------------------------------------


def unpack(data: bytes) -> Any:
    """Return the one value that ``data`` is.

    Raises:
        InvariantError: it isn't one value of those that `pack` writes.
    """
    try:
        value, end = _take(data, 0)
    except (IndexError, struct.error, UnicodeDecodeError):
        raise InvariantError("expected MessagePack, got what ends within a value") from None
    if end != len(data):
        raise InvariantError(f"expected one value of MessagePack, got {len(data) - end} bytes behind it")
    return value


# How a number is read, by its first byte.
_NUMBERS = {
    FLOAT32: struct.Struct(">f"),
    FLOAT64: struct.Struct(">d"),
    **{first: struct.Struct(f">{form[2:]}") for _, first, form in (*_UNSIGNED, *_SIGNED)},
}
_CONSTANTS = {NIL: None, FALSE: False, TRUE: True}
# What has a length in bytes of its own, by its first byte; those before are in the first byte itself.
_TEXTS = {0xD9: struct.Struct(">B"), 0xDA: struct.Struct(">H"), 0xDB: struct.Struct(">I")}
_ARRAYS = {0xDC: struct.Struct(">H"), 0xDD: struct.Struct(">I")}
_MAPS = {0xDE: struct.Struct(">H"), 0xDF: struct.Struct(">I")}
_LENGTHS = {**_TEXTS, **_ARRAYS, **_MAPS}


def _take(data: bytes, at: int) -> tuple[Any, int]:
    """Return the value that begins at a byte, and where it ends."""
    first = data[at]
    at += 1
    if first < 0x80 or first >= 0xE0:
        return first if first < 0x80 else first - 256, at
    if first in _CONSTANTS:
        return _CONSTANTS[first], at
    number = _NUMBERS.get(first)
    if number is not None:
        (value,) = number.unpack_from(data, at)
        return np.float32(value) if first == FLOAT32 else value, at + number.size
    return _take_many(data, first, at)


def _take_many(data: bytes, first: int, at: int) -> tuple[Any, int]:
    length = first & (0x1F if first >= 0xA0 else 0x0F)
    if first >= 0xC0:
        form = _LENGTHS.get(first)
        if form is None:
            raise InvariantError(f"expected a type that JSON has, got MessagePack's {first:#x}")
        (length,) = form.unpack_from(data, at)
        at += form.size
    if first in _TEXTS or 0xA0 <= first < 0xC0:
        end = at + length
        if end > len(data):
            raise IndexError
        return data[at:end].decode(), end
    if first in _ARRAYS or 0x90 <= first < 0xA0:
        return _take_array(data, length, at)
    members, at = _take_array(data, 2 * length, at)
    return dict(zip(members[::2], members[1::2], strict=True)), at


def _take_array(data: bytes, length: int, at: int) -> tuple[list[Any], int]:
    items = []
    for _ in range(length):
        item, at = _take(data, at)
        items.append(item)
    return items, at
