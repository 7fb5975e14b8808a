"""Values that say what they are: v = f(table, key, feature, version), and tables that hold nothing else.

Whoever reads such a value can judge it alone: a row of another table, key or time gives other values, and so
does one that was put together from two. Versions are seconds since the epoch, so that they tell how old a row
is. Knows no sockets and no views; layouts come as the bytes that every row of a table begins with.

Invariants:
1. The same four numbers give the same value everywhere, below 2**53, so that float64 holds it exactly.
2. A row's values are all of one version, the second in which it was read.
3. Which keys a table lacks follows from table and key, too: a null is right or wrong by itself.
"""

from __future__ import annotations

import time
from base64 import b64encode
from struct import Struct
from typing import TYPE_CHECKING

import numpy as np
import orjson

from perf.load.dynamo_error import validation
from perf.load.tables import JsonObject, PreparedTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MASK = (1 << 53) - 1
# Odd, and of no small relation to each other: no small steps of the four numbers add up to nothing.
_TABLE, _KEY = 0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F
_FEATURE, _VERSION = 0x1656_67B1_9E37_79F9, 0xD6E8_FEB8_6659_FD93
_LACKING_ONE_IN = 53
_LACKING = 7
KEY_PREFIX = "user"
NUMBERS = 3
"""Features of a row beside its version."""

# Header, effective time, three values and the version; or a value, the version and where the text ends.
_NUMBERS_ROW = Struct("<8sqdddd")
_TEXT_ROW = Struct("<8sqqdI12x")


def value(table: int, key: int, feature: int, version: int) -> int:
    """Give the value of a feature."""
    return (table * _TABLE + key * _KEY + feature * _FEATURE + version * _VERSION) & MASK


def values(
    tables: NDArray[np.int64], keys: NDArray[np.int64], versions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Give all numbers of rows, shape (keys, tables, NUMBERS), for versions of shape (keys, tables)."""
    table = tables.astype(np.uint64) * np.uint64(_TABLE)
    key = keys.astype(np.uint64) * np.uint64(_KEY)
    feature = np.arange(NUMBERS, dtype=np.uint64) * np.uint64(_FEATURE & (2**64 - 1))
    version = versions.astype(np.uint64) * np.uint64(_VERSION)
    total = (key[:, None] + table[None, :] + version)[:, :, None] + feature
    found: NDArray[np.float64] = (total & np.uint64(MASK)).astype(np.float64)
    return found


def text(table: int, key: int, version: int) -> str:
    """Give the value of a text."""
    return f"{table}/{key}/{version}"


def is_lacking(table: int, key: int) -> bool:
    """Tell whether a table has no row of a key."""
    return (table + key) % _LACKING_ONE_IN == _LACKING


def lacking(tables: NDArray[np.int64], keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which rows there aren't, shape (keys, tables)."""
    found: NDArray[np.bool_] = (keys[:, None] + tables[None, :]) % _LACKING_ONE_IN == _LACKING
    return found


def numbers_row(header: bytes, table: int, key: int, version: int) -> bytes:
    """Pack a row of numbers."""
    three = [float(value(table, key, feature, version)) for feature in range(NUMBERS)]
    return _NUMBERS_ROW.pack(header, version * 10**9, *three, float(version))


def text_row(header: bytes, table: int, key: int, version: int) -> bytes:
    """Pack a row of a whole number and a text."""
    written = orjson.dumps(text(table, key, version))
    fixed = _TEXT_ROW.pack(
        header, version * 10**9, value(table, key, 0, version), float(version), len(written)
    )
    return fixed + written + bytes(-len(written) % 3)


class DescribedTable(PreparedTable):
    """A table with a row for each key but those that it lacks, made when it is read."""

    def __init__(self, name: str, number: int, header: bytes, *, has_text: bool) -> None:
        super().__init__(name, [])
        self._number = number
        self._header = header
        self._pack = text_row if has_text else numbers_row

    def answer(self, keys: Sequence[JsonObject], parts: list[bytes]) -> int:
        """Append the texts of all items present; give how many were absent. Raises DynamoError."""
        present = [item for item in self.read(keys) if item is not None]
        parts.append(b",".join(present))
        return len(keys) - len(present)

    def read(self, keys: Sequence[JsonObject]) -> list[bytes | None]:
        """Give the text of each key's item. Raises DynamoError."""
        try:
            names = [key["k"]["S"] for key in keys]
            numbers = [int(name.removeprefix(KEY_PREFIX)) for name in names]
        except (KeyError, TypeError, AttributeError, ValueError):
            raise validation("The provided key element does not match the schema") from None
        if len(set(names)) != len(names):
            raise validation("Provided list of item keys contains duplicates")
        self.keys_read += len(keys)
        version = int(time.time())
        return [self._item(name, number, version) for name, number in zip(names, numbers, strict=True)]

    def _item(self, name: str, key: int, version: int) -> bytes | None:
        if is_lacking(self._number, key):
            return None
        row = self._pack(self._header, self._number, key, version)
        return b'{"k":{"S":"%b"},"v":{"B":"%b"}}' % (name.encode(), b64encode(row))
