"""How rows come from a store: as base64 text (DynamoDB's JSON) or as bytes (the embedded store, Redis).

The vector rows of a batch are joined in the form in which they came and decoded at once. Both forms have one
small set of functions, so that what is above them is written once.

Invariants
1. ``join`` of wrapped rows is the concatenation of the rows.
2. ``fixed`` of a wrapped row is the wrapped fixed part (a layout's fixed length is a multiple of 3 bytes, 4
   characters).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pybase64

from fastserve.tiles.layout import RowLayout


@dataclass(frozen=True, slots=True)
class RowTransport:
    """One form of rows.

    ``join`` raises TypeError for an absent row (None) among them, ValueError for text that isn't base64;
    ``join_writable`` does the same and gives bytes that may be written to, at no more cost.
    """

    join: Callable[[Sequence[Any]], bytes]
    join_writable: Callable[[Sequence[Any]], bytearray]
    wrap: Callable[[bytes], Any]
    unwrap: Callable[[Any], bytes]
    fixed_length: Callable[[RowLayout], int]
    bytes_per_unit: float


def _join_text(rows: Sequence[str]) -> bytes:
    # validate=True is the fast way too: without it libbase64 has to look out for characters to pass over.
    return pybase64.b64decode("".join(rows), validate=True)


def _join_text_writable(rows: Sequence[str]) -> bytearray:
    return pybase64.b64decode_as_bytearray("".join(rows), validate=True)


BASE64_ROWS = RowTransport(
    join=_join_text,
    join_writable=_join_text_writable,
    wrap=lambda row: pybase64.b64encode(row).decode("ascii"),
    unwrap=lambda text: pybase64.b64decode(text, validate=True),
    fixed_length=lambda layout: layout.fixed_text_length,
    bytes_per_unit=0.75,
)
RAW_ROWS = RowTransport(
    join=b"".join,
    join_writable=bytearray().join,
    wrap=lambda row: row,
    unwrap=bytes,
    fixed_length=lambda layout: layout.fixed_bytes,
    bytes_per_unit=1.0,
)
