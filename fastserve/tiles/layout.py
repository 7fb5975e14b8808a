"""Where each value stands in a packed row.

A packed row is one binary value: a header of 16 bytes, fixed-width columns, and behind them a variable-width
part. The fixed part of every row of a view has the same length, a multiple of 24 bytes, so that the base64
texts of any rows can be joined and decoded at once (3 bytes are 4 characters, no padding) and what comes out
is a matrix of 8-byte words (`perf/micro/rows.py`: 50 rows take 4.5 us together and 39 us one by one).

    offset  bytes  what
    0       1      format, `FORMAT`
    1       1      flags: `FLAG_NULL_BITMAP`, `FLAG_NONFINITE`
    2       2      reserved, 0
    4       4      schema id: the first 4 bytes of the SHA-256 of the layout's canonical text
    8       8      effective time, int64 nanoseconds since the epoch (a compacted row's as_of)
    16      …      8-byte columns, then 4-byte, then 1-byte, then zeros up to the fixed length
    fixed   …      null bitmap (only with its flag), then the variable-width values, then zeros

Nulls are in band: a reserved NaN in floats, the smallest int64 in integers and timestamps, 2 in booleans,
``null`` in variable-width text. A stored value that collides with its marker sets FLAG_NULL_BITMAP, and the
bitmap then decides; a stored NaN or infinity sets FLAG_NONFINITE. Rows with flags take the exact, slower way.
A variable-width value is kept as the JSON text that the API answers with: it is copied to the answer, never
parsed. In rows of aggregates it is the bytes of a wide component's slot (`aggregates.WideComponent`), which
may be empty and are no text.

`NO_ROW` stands where a key should have a row of aggregates, and the store has no room for it: something is to
be told, and isn't known. Where nothing stands, there has been nothing.

Invariants
1. A layout is a pure function of its columns in their order; equal columns give equal schema ids on every
   host.
2. Nothing about a layout that was ever written changes: a new format gets a new number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from fastserve.sdk.types import (
    Array,
    Bool,
    Bytes,
    DataType,
    Float32,
    Float64,
    Int64,
    Map,
    String,
    Struct,
    Timestamp,
)

FORMAT = 1
FLAG_NULL_BITMAP = 1
FLAG_NONFINITE = 2

HEADER_BYTES = 16
NO_ROW_FORMAT = 0x4E
NO_ROW = bytes((NO_ROW_FORMAT,)) + bytes(17)
"""A header of a format that neither rows nor blocks have, and zeros: shorter than any view's fixed part."""
WORD_BYTES = 8
FIXED_MULTIPLE_BYTES = 24
"""The least common multiple of base64's 3 and the word's 8."""

NULL_FLOAT64_BITS = 0x7FF8_6E75_6C6C_0000
"""A quiet NaN whose payload spells ``null``; a stored NaN is written as 0x7FF8_0000_0000_0000."""
NULL_FLOAT32_BITS = 0x7FC0_6E6C
NULL_INT64 = -(2**63)
NULL_BOOL = 2


class Storage(Enum):
    """How a column is stored: NumPy type and width in bytes of its place in the fixed part."""

    F8 = ("float64", "<f8", 8)
    I8 = ("int64", "<i8", 8)
    TIME = ("timestamp", "<i8", 8)
    F4 = ("float32", "<f4", 4)
    JSON = ("json", "<u4", 4)
    BYTES = ("bytes", "<u4", 4)
    BOOL = ("bool", "u1", 1)

    def __init__(self, label: str, numpy_type: str, width_bytes: int) -> None:
        self.label = label  # without it TIME would be an alias of I8
        self.numpy_type = numpy_type
        self.width_bytes = width_bytes

    @property
    def is_variable(self) -> bool:
        """Whether the value stands in the variable-width part."""
        return self in (Storage.JSON, Storage.BYTES)


def storage_of(dtype: DataType) -> Storage:
    """Return how values of ``dtype`` are stored.

    Variable-width columns keep the end of their value, counted in bytes from the start of those values.
    """
    if dtype == Float64:
        return Storage.F8
    if dtype == Int64:
        return Storage.I8
    if dtype == Timestamp:
        return Storage.TIME
    if dtype == Float32:
        return Storage.F4
    if dtype == Bool:
        return Storage.BOOL
    if dtype == Bytes:
        return Storage.BYTES
    if dtype == String or isinstance(dtype, (Array, Struct, Map)):
        return Storage.JSON
    raise AssertionError(dtype)


@dataclass(frozen=True, slots=True)
class Column:
    """One named column of a row and the byte at which its value starts in the fixed part."""

    name: str
    dtype: DataType
    storage: Storage
    offset: int

    @property
    def word(self) -> int:
        """The index of an 8-byte column's word in the row."""
        return self.offset // WORD_BYTES


@dataclass(frozen=True, slots=True)
class RowLayout:
    """The places of all columns of a view's rows.

    ``json_columns`` and ``bytes_columns`` are the variable-width ones, ``variable_columns`` both in the order
    in which their values stand in a row.
    """

    columns: tuple[Column, ...]
    fixed_bytes: int
    schema_id: int
    by_name: dict[str, Column] = field(compare=False, repr=False)
    json_columns: tuple[Column, ...] = ()
    bytes_columns: tuple[Column, ...] = ()
    variable_columns: tuple[Column, ...] = ()

    @property
    def header_word(self) -> int:
        """The first 8 bytes of a row without flags, as a little-endian int64."""
        raw = bytes([FORMAT, 0, 0, 0]) + self.schema_id.to_bytes(4, "little")
        return int.from_bytes(raw, "little", signed=True)

    @property
    def fixed_words(self) -> int:
        """Length of the fixed part in 8-byte words."""
        return self.fixed_bytes // WORD_BYTES

    @property
    def fixed_text_length(self) -> int:
        """Length of the fixed part's base64 text in characters."""
        return self.fixed_bytes // 3 * 4

    def describe(self) -> list[tuple[str, object]]:
        """Return the columns as (name, data type) pairs for JSON, of which the layout can be made again."""
        return [(column.name, column.dtype.to_api()) for column in self.columns]


def make_layout(columns: Sequence[tuple[str, DataType]]) -> RowLayout:
    """Lay out ``columns``, given in the order that the schema names them."""
    placed: list[Column] = []
    offset = HEADER_BYTES
    for width in (8, 4, 1):
        for name, dtype in columns:
            storage = storage_of(dtype)
            if storage.width_bytes == width:
                placed.append(Column(name, dtype, storage, offset))
                offset += width
    fixed = -(-offset // FIXED_MULTIPLE_BYTES) * FIXED_MULTIPLE_BYTES
    text = json.dumps(
        [FORMAT, [(name, dtype.to_api()) for name, dtype in columns]], sort_keys=True, separators=(",", ":")
    )
    schema_id = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little")
    order = {name: place for place, (name, _) in enumerate(columns)}
    placed.sort(key=lambda column: order[column.name])
    return RowLayout(
        tuple(placed),
        fixed,
        schema_id,
        {column.name: column for column in placed},
        tuple(column for column in placed if column.storage is Storage.JSON),
        tuple(column for column in placed if column.storage is Storage.BYTES),
        tuple(column for column in placed if column.storage.is_variable),
    )


def null_value(storage: Storage) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
    """Return a one-element array with the in-band null of ``storage``."""
    if storage is Storage.F8:
        return np.array([NULL_FLOAT64_BITS], "<i8").view("<f8")
    if storage is Storage.F4:
        return np.array([NULL_FLOAT32_BITS], "<i4").view("<f4")
    if storage is Storage.BOOL:
        return np.array([NULL_BOOL], "u1")
    if storage.is_variable:
        return np.array([0], "<u4")
    return np.array([NULL_INT64], "<i8")
