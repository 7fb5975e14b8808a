"""Packed rows: writing many at once, reading one exactly.

`RowBuilder` fills the rows of one batch column by column, a NumPy assignment each, and cuts them into bytes.
`decode_row` reads one row the plain way, value by value; the hot path's matrix reading (`merge`, `serving`)
is tested against it and falls back to it for rows with flags.

Invariants
1. ``decode_row(layout, row)`` of a built row gives back the values that were set, nulls and NaN included.
2. A row's length is a multiple of 3 bytes.
3. Bytes that are not a row of the layout raise `RowError`; they never give values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastserve.errors import FastserveError
from fastserve.tiles.layout import (
    FLAG_NONFINITE,
    FLAG_NULL_BITMAP,
    FORMAT,
    HEADER_BYTES,
    NULL_BOOL,
    NULL_FLOAT32_BITS,
    NULL_FLOAT64_BITS,
    NULL_INT64,
    Column,
    RowLayout,
    Storage,
)

Bools = npt.NDArray[np.bool_]

KNOWN_FLAGS = FLAG_NULL_BITMAP | FLAG_NONFINITE


class RowError(FastserveError):
    """Bytes that are not a packed row, or a row of another layout (then ``schema_id`` tells which)."""

    def __init__(self, message: str, schema_id: int | None = None) -> None:
        super().__init__(message)
        self.schema_id = schema_id


class RowBuilder:
    """The rows of one batch of ``count`` entity keys, filled column by column.

    Columns that are never set are null. ``nulls`` is a boolean array, true where the value is null.
    """

    def __init__(self, layout: RowLayout, count: int) -> None:
        self._layout = layout
        self._count = count
        self._words = np.zeros((count, layout.fixed_words), "<i8")
        self._words[:, 0] = layout.header_word
        self._flags = np.zeros(count, "u1")
        self._nulls: dict[str, Bools] = {}
        self._variable: dict[str, Sequence[bytes]] = {}
        everything = np.ones(count, np.bool_)
        for column in layout.columns:
            self._put_nulls(column, everything)

    def set_effective_ns(self, times_ns: npt.ArrayLike) -> None:
        """Set every row's effective time (one for all, or an array), nanoseconds since the epoch."""
        self._words[:, 1] = times_ns

    def set_numbers(self, name: str, values: npt.ArrayLike, nulls: Bools | None = None) -> None:
        """Set a fixed-width column; timestamps are int64 nanoseconds."""
        column = self._layout.by_name[name]
        array = np.asarray(values).astype(column.storage.numpy_type, casting="unsafe")
        place = self._view(column)
        place[:, column.offset // column.storage.width_bytes] = array
        if column.storage in (Storage.F8, Storage.F4):
            self._mark_nonfinite(column, array, nulls)
        missing = np.zeros(self._count, np.bool_) if nulls is None else nulls
        self._put_nulls(column, missing)
        if column.storage in (Storage.I8, Storage.TIME):
            self._flags[(array == NULL_INT64) & ~missing] |= FLAG_NULL_BITMAP

    def set_json(self, name: str, texts: Sequence[bytes]) -> None:
        """Set a variable-width column to JSON texts in the API's encoding; ``b"null"`` is null."""
        self._variable[name] = texts

    def set_bytes(self, name: str, values: Sequence[bytes]) -> None:
        """Set a column of bytes, such as a wide component's slot; ``b""`` is the empty slot."""
        self._variable[name] = values

    def set_words(self, word: int, values: npt.NDArray[np.float64] | npt.NDArray[np.int64]) -> None:
        """Set components of compacted rows: ``values``, shape (count, n), from word ``word`` on."""
        bits: npt.NDArray[np.int64] = values.view("<i8")
        if values.dtype == np.float64:
            odd = ~np.isfinite(values) & (bits != NULL_FLOAT64_BITS)
            self._flags[odd.any(axis=1)] |= FLAG_NONFINITE
        self._words[:, word : word + values.shape[1]] = bits

    def build(self) -> list[bytes]:
        """Return the rows as bytes, in order."""
        self._words.view("u1").reshape(self._count, -1)[:, 1] = self._flags
        fixed_bytes = self._layout.fixed_bytes
        if not self._layout.variable_columns and not self._flags.any():
            whole = self._words.tobytes()
            return [whole[start : start + fixed_bytes] for start in range(0, len(whole), fixed_bytes)]
        texts, ends = self._variable_parts()
        for column in self._layout.variable_columns:
            self._view(column)[:, column.offset // 4] = ends[column.name]
        whole = self._words.tobytes()
        bitmaps = self._bitmaps()
        rows = []
        for number, text in enumerate(texts):
            row = whole[number * fixed_bytes : (number + 1) * fixed_bytes] + bitmaps[number] + text
            rows.append(row + bytes(-len(row) % 3))
        return rows

    def _view(self, column: Column) -> npt.NDArray[Any]:
        return self._words.view(column.storage.numpy_type)

    def _mark_nonfinite(self, column: Column, array: npt.NDArray[Any], nulls: Bools | None) -> None:
        odd = ~np.isfinite(array)
        if nulls is not None:
            odd &= ~nulls
        if odd.any():
            self._flags[odd] |= FLAG_NONFINITE
            place = self._view(column)[:, column.offset // column.storage.width_bytes]
            place[np.isnan(array)] = np.nan  # one bit pattern, so that it can't be taken for null

    def _put_nulls(self, column: Column, nulls: Bools) -> None:
        self._nulls[column.name] = nulls
        if column.storage.is_variable or not nulls.any():
            return
        bits = {
            Storage.F8: ("<i8", NULL_FLOAT64_BITS),
            Storage.F4: ("<i4", NULL_FLOAT32_BITS),
            Storage.BOOL: ("u1", NULL_BOOL),
        }
        kind, value = bits.get(column.storage, ("<i8", NULL_INT64))
        self._words.view(kind)[nulls, column.offset // column.storage.width_bytes] = value

    def _variable_parts(self) -> tuple[list[bytes], dict[str, npt.NDArray[np.uint32]]]:
        """Return each row's variable-width values in one piece, and where each column's text ends in it."""
        position = np.zeros(self._count, "<u4")
        ends: dict[str, npt.NDArray[np.uint32]] = {}
        columns = []
        for column in self._layout.variable_columns:
            nothing = b"null" if column.storage is Storage.JSON else b""
            texts = self._variable.get(column.name) or [nothing] * self._count
            position = position + np.fromiter(map(len, texts), "<u4", self._count)
            ends[column.name] = position
            columns.append(texts)
        return (list(map(b"".join, zip(*columns, strict=True))) if columns else [b""] * self._count), ends

    def _bitmaps(self) -> list[bytes]:
        """Return each row's null bitmap (bit i: column i is null), empty where none is needed."""
        flagged = np.flatnonzero(self._flags & FLAG_NULL_BITMAP)
        bitmaps = [b""] * self._count
        for number in flagged.tolist():
            bits = [bool(self._nulls[column.name][number]) for column in self._layout.columns]
            bitmaps[number] = np.packbits(bits, bitorder="little").tobytes()
        return bitmaps


def encode_row(layout: RowLayout, values: dict[str, Any], effective_ns: int) -> bytes:
    """Pack one row from Python values.

    None is null, timestamps are int nanoseconds, JSON columns are bytes in the API's encoding, columns of
    bytes are as they are.
    """
    builder = RowBuilder(layout, 1)
    builder.set_effective_ns(effective_ns)
    for name, value in values.items():
        column = layout.by_name[name]
        if column.storage is Storage.JSON:
            builder.set_json(name, [b"null" if value is None else value])
        elif column.storage is Storage.BYTES:
            builder.set_bytes(name, [value or b""])
        elif value is not None:
            builder.set_numbers(name, [value])
    return builder.build()[0]


def check_header(layout: RowLayout, row: bytes) -> int:
    """Return a row's flags.

    Raises:
        RowError: not a packed row, of an unknown format, of another schema, or cut short.
    """
    if len(row) < HEADER_BYTES:
        raise RowError(f"expected a packed row of at least {HEADER_BYTES} bytes, got {len(row)} bytes")
    if row[0] != FORMAT or row[1] & ~KNOWN_FLAGS or row[2:4] != b"\0\0":
        raise RowError(f"expected a packed row of format {FORMAT}, got format {row[0]} with flags {row[1]}")
    schema_id = int.from_bytes(row[4:8], "little")
    if schema_id != layout.schema_id:
        raise RowError(
            f"expected a row of schema {layout.schema_id:08x}, got schema {schema_id:08x}", schema_id
        )
    if len(row) < layout.fixed_bytes:
        raise RowError(
            f"expected at least {layout.fixed_bytes} bytes for schema {schema_id:08x}, got {len(row)}"
        )
    return row[1]


def effective_ns_of(row: bytes) -> int:
    """Return the effective time in a row's header, nanoseconds since the epoch."""
    return int.from_bytes(row[8:16], "little", signed=True)


def decode_row(layout: RowLayout, row: bytes) -> dict[str, Any]:
    """Return the values of one row by column name.

    None is null, timestamps are int nanoseconds, JSON columns are JSON bytes, columns of bytes never null.

    Raises:
        RowError: as `check_header`, or the variable-width part does not fit its ends.
    """
    flags = check_header(layout, row)
    texts, bitmap = _variable_part(layout, row, flags)
    values: dict[str, Any] = {}
    for place, column in enumerate(layout.columns):
        if column.storage is Storage.JSON:
            values[column.name] = None if texts[column.name] == b"null" else texts[column.name]
        elif column.storage is Storage.BYTES:
            values[column.name] = texts[column.name]
        elif bitmap is not None:
            null = bool(bitmap[place // 8] >> (place % 8) & 1)
            values[column.name] = None if null else _stored(column, row)
        else:
            values[column.name] = None if _is_null_marker(column, row) else _stored(column, row)
    return values


def _variable_part(layout: RowLayout, row: bytes, flags: int) -> tuple[dict[str, bytes], bytes | None]:
    start = layout.fixed_bytes
    bitmap = None
    if flags & FLAG_NULL_BITMAP:
        length = -(-len(layout.columns) // 8)
        bitmap = row[start : start + length]
        start += length
    texts: dict[str, bytes] = {}
    low = 0
    for column in layout.variable_columns:
        high = int.from_bytes(row[column.offset : column.offset + 4], "little")
        texts[column.name] = row[start + low : start + high]
        empty = low == high and column.storage is Storage.JSON
        if high < low or len(row) < start + high or empty:
            raise RowError(
                f"column {column.name!r}: expected its text to end after byte {low} and within "
                f"{len(row) - start}, got {high}"
            )
        low = high
    if not start + low <= len(row) < start + low + 3 or len(row) % 3:
        raise RowError(f"expected {start + low} bytes and padding to a multiple of 3, got {len(row)} bytes")
    return texts, bitmap


def json_texts(layout: RowLayout, row: bytes) -> dict[str, bytes]:
    """Return the text of every JSON column of a row; raises `RowError` as `decode_row`."""
    values = _variable_part(layout, row, row[1])[0]
    return {column.name: values[column.name] for column in layout.json_columns}


def bytes_values(layout: RowLayout, row: bytes) -> dict[str, bytes]:
    """Return the value of every column of bytes of a row; raises `RowError` as `decode_row`."""
    values = _variable_part(layout, row, row[1])[0]
    return {column.name: values[column.name] for column in layout.bytes_columns}


def _stored(column: Column, row: bytes) -> Any:
    value = np.frombuffer(row, column.storage.numpy_type, 1, column.offset)[0].item()
    return bool(value) if column.storage is Storage.BOOL else value


def _is_null_marker(column: Column, row: bytes) -> bool:
    raw = row[column.offset : column.offset + column.storage.width_bytes]
    bits = int.from_bytes(raw, "little", signed=column.storage in (Storage.I8, Storage.TIME))
    marker = {Storage.F8: NULL_FLOAT64_BITS, Storage.F4: NULL_FLOAT32_BITS, Storage.BOOL: NULL_BOOL}
    return bits == marker.get(column.storage, NULL_INT64)
