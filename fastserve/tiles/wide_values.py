"""Values of one type inside wide intermediate representations: ordered, packed, and as the API's JSON.

Wide IRs don't hold values as such but their *keys*: integers, or the UTF-8 bytes of strings, which compare as
the values do. So lists are sorted, cut and compared by C code, and a value is made again only for the answer.

    type              key                                                  packed
    Int64, Timestamp  the integer                                          8 bytes
    Float64, Float32  the bits, the negative ones' turned round            8, 4 bytes
    Bool              0 or 1                                               1 byte
    String            its UTF-8 bytes, which order as code points do       2 bytes of length, and the bytes

NaN is one key, above infinity; -0.0 is below 0.0, and the same as 0.0 only where distinct values are told.

Invariants
1. ``codec.unpack(codec.pack(keys), 0, len(keys)) == (keys, length)``.
2. Keys are in the order of the values, and equal where the values are.
3. Packed keys that are cut short raise one of `IR_ERRORS`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import orjson

from fastserve.sdk.types import Bool, DataType, Float32, Float64, Int64, String, Timestamp
from fastserve.tiles.times import format_time

Key = Any
"""An int or bytes; all keys of one codec are of one of them."""

MAX_STRING_BYTES = 1024
"""A longer string is no value of a wide aggregate: a row that holds a few hundred of the longest still fits
into the store's 390 KB."""

IR_ERRORS = (ValueError, struct.error, IndexError, OverflowError, RuntimeError)
"""What reading an IR raises that is cut short or damaged; `datasketches` raises some of them."""

NULL = b"null"
_NONFINITE = {"nan": b'"NaN"', "inf": b'"Infinity"', "-inf": b'"-Infinity"'}


class Codec(Protocol):
    """How values of one type are ordered, packed and answered."""

    def keys(self, values: Sequence[Any]) -> list[Key]:
        """Return the keys of values that aren't null.

        Raises:
            ValueError: a string is longer than `MAX_STRING_BYTES`.
        """

    def distinct_keys(self, values: Sequence[Any]) -> list[Key]:
        """As `keys`, the same key for values that are equal."""

    def pack(self, keys: Sequence[Key]) -> bytes:
        """Return keys as bytes."""

    def unpack(self, raw: bytes, at: int, count: int) -> tuple[list[Key], int]:
        """Return ``count`` keys that were packed at byte ``at``, and where they end."""

    def token(self, key: Key) -> bytes:
        """Return a value's JSON."""

    def array(self, keys: Sequence[Key]) -> bytes:
        """Return the JSON array of values."""


def codec_of(dtype: DataType) -> Codec:
    """Return the codec of a scalar type."""
    return _CODECS[dtype]


def number_token(value: float) -> bytes:
    """Return the JSON of a float64."""
    return orjson.dumps(value) if math.isfinite(value) else _NONFINITE[repr(value)]


def _single_array(values: list[float]) -> bytes:
    return orjson.dumps(np.array(values, np.float32), option=orjson.OPT_SERIALIZE_NUMPY)


def _single_token(value: float) -> bytes:
    if not math.isfinite(value):
        return _NONFINITE[repr(value)]
    return orjson.dumps(np.float32(value), option=orjson.OPT_SERIALIZE_NUMPY)  # with a float32's digits


class _Fixed:
    """Keys of one width that are the values themselves."""

    def __init__(self, form: str, token: Callable[[Any], bytes]) -> None:
        self._form = form
        self._width = struct.calcsize(form)
        self.token = token

    def keys(self, values: Sequence[Any]) -> list[Key]:
        return list(values)

    def distinct_keys(self, values: Sequence[Any]) -> list[Key]:
        return self.keys(values)

    def pack(self, keys: Sequence[Key]) -> bytes:
        return struct.pack(f"<{len(keys)}{self._form}", *keys)

    def unpack(self, raw: bytes, at: int, count: int) -> tuple[list[Key], int]:
        keys = struct.unpack_from(f"<{count}{self._form}", raw, at)
        return list(keys), at + count * self._width

    def array(self, keys: Sequence[Key]) -> bytes:
        return b"[" + b",".join(map(self.token, keys)) + b"]"


class _Floats(_Fixed):
    """Floats as their bits; the negative ones' magnitude is turned round, so that they order as integers."""

    def __init__(
        self,
        form: str,
        bits_form: str,
        nan_bits: int,
        number: Callable[[float], bytes],
        numbers: Callable[[list[float]], bytes],
    ) -> None:
        super().__init__(bits_form, self._token)
        self._numbers = numbers
        self._float_form = form
        self._mask = 2 ** (8 * struct.calcsize(form) - 1) - 1
        self._nan_bits = nan_bits
        self._number = number

    def keys(self, values: Sequence[Any]) -> list[Key]:
        count = len(values)
        bits = struct.unpack(f"<{count}{self._form}", struct.pack(f"<{count}{self._float_form}", *values))
        mask, nan = self._mask, self._nan_bits
        return [
            nan if value != value else word if word >= 0 else word ^ mask  # noqa: PLR0124 - NaN isn't itself
            for value, word in zip(values, bits, strict=True)
        ]

    def distinct_keys(self, values: Sequence[Any]) -> list[Key]:
        return self.keys([value + 0.0 for value in values])  # -0.0 + 0.0 is 0.0

    def array(self, keys: Sequence[Key]) -> bytes:
        values = self._values(keys)
        if all(map(math.isfinite, values)):
            return self._numbers(values)
        return b"[" + b",".join(map(self._number, values)) + b"]"

    def _token(self, key: int) -> bytes:
        return self._number(self._values([key])[0])

    def _values(self, keys: Sequence[Key]) -> list[float]:
        count, mask = len(keys), self._mask
        words = [key if key >= 0 else key ^ mask for key in keys]
        bits = struct.pack(f"<{count}{self._form}", *words)
        return list(struct.unpack(f"<{count}{self._float_form}", bits))


class _Bools(_Fixed):
    def keys(self, values: Sequence[Any]) -> list[Key]:
        return list(map(int, values))


class _Strings:
    def keys(self, values: Sequence[Any]) -> list[Key]:
        keys = [value.encode() for value in values]
        longest = max(map(len, keys), default=0)
        if longest > MAX_STRING_BYTES:
            raise ValueError(f"expected a string of at most {MAX_STRING_BYTES} bytes, got {longest} bytes")
        return keys

    def distinct_keys(self, values: Sequence[Any]) -> list[Key]:
        return self.keys(values)

    def pack(self, keys: Sequence[Key]) -> bytes:
        return struct.pack(f"<{len(keys)}H", *map(len, keys)) + b"".join(keys)

    def unpack(self, raw: bytes, at: int, count: int) -> tuple[list[Key], int]:
        lengths = struct.unpack_from(f"<{count}H", raw, at)
        keys = []
        low = at + 2 * count
        for length in lengths:
            high = low + length
            keys.append(raw[low:high])
            low = high
        if low > len(raw):
            raise ValueError(f"expected strings up to byte {low}, got {len(raw)} bytes")
        return keys, low

    def token(self, key: Key) -> bytes:
        return orjson.dumps(key.decode())

    def array(self, keys: Sequence[Key]) -> bytes:
        return orjson.dumps([key.decode() for key in keys])


def _int_token(key: int) -> bytes:
    return b'"%d"' % key


def _time_token(key: int) -> bytes:
    return b'"' + format_time(key).encode() + b'"'


def _bool_token(key: int) -> bytes:
    return b"true" if key else b"false"


_CODECS: dict[DataType, Codec] = {
    Int64: _Fixed("q", _int_token),
    Timestamp: _Fixed("q", _time_token),
    Float64: _Floats("d", "q", 0x7FF8_0000_0000_0000, number_token, orjson.dumps),
    Float32: _Floats("f", "i", 0x7FC0_0000, _single_token, _single_array),
    Bool: _Bools("b", _bool_token),
    String: _Strings(),
}
