"""Variable-width values: JSON texts cut out of rows and put in the answer's order.

Invariants
1. A row whose texts don't end where it ends gives none: it is cut, or something else was put behind it.
2. An absent row's texts are null.
3. Each text is one JSON value, or its row is told as unreadable: they are copied into the answer as they are.
   They are parsed for that alone, a line's texts in one call (0.6 us for a dozen names).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from fastserve.errors import shown
from fastserve.plan.service import ServicePlan
from fastserve.serving.columns import output_storage
from fastserve.serving.transport import RowTransport
from fastserve.tiles.layout import NULL_INT64, Column, RowLayout, Storage
from fastserve.tiles.merge import Words
from fastserve.tiles.rows import RowError, json_texts

NULL = b"null"
Texts = list[list[bytes]]


@dataclass(frozen=True, slots=True)
class _TextRow:
    """A place with variable-width columns: its number, layout, fixed length as it comes, and its ends."""

    place: int
    layout: RowLayout
    fixed_length: int
    ends: slice
    nulls: list[bytes]


class TextColumns:
    """Reads the variable-width values of one service's rows."""

    def __init__(self, plan: ServicePlan, transport: RowTransport) -> None:
        self._unwrap = transport.unwrap
        self._rows: list[_TextRow] = []
        ends_at: list[int] = []
        piece_of: dict[tuple[int, str], int] = {}
        for place in plan.places:
            layout = place.view.layout
            first = len(ends_at)
            for column in layout.json_columns:
                piece_of[place.number, column.name] = len(ends_at)
                ends_at.append((place.word * 8 + column.offset) // 4)
            if layout.json_columns:
                span = slice(first, len(ends_at))
                nulls = [NULL] * len(layout.json_columns)
                length = transport.fixed_length(layout)
                self._rows.append(_TextRow(place.number, layout, length, span, nulls))
        self._ends_at = np.array(ends_at, np.intp)
        # Outputs as (place, piece): a place's texts stand together, columns in the layout's order. Texts that
        # `serving.wide` puts there later are the last piece, null.
        self._order = [
            (
                output.place,
                piece_of[output.place, output.source.name] if isinstance(output.source, Column) else -1,
            )
            for output in plan.inputs
            if output_storage(output) is Storage.JSON
        ]
        self._pieces = [piece for _, piece in self._order]

    def __bool__(self) -> bool:
        """Whether any feature is answered as a text."""
        return bool(self._order) or bool(self._rows)

    def cut(self, lines: Sequence[Sequence[Any]], matrix: Words, effective: Words) -> Texts:
        """Return the texts of plain rows, line by line in the outputs' order.

        Raises:
            RowError: a row's texts don't fit it.
            ValueError: a row's text isn't base64.
        """
        unwrap = self._unwrap
        result: Texts = []
        all_ends = matrix.view("<u4").take(self._ends_at, axis=1).tolist()
        for line, ends, times in zip(lines, all_ends, effective.tolist(), strict=True):
            pieces: list[bytes] = []
            for row in self._rows:
                if times[row.place] == NULL_INT64:
                    pieces += row.nulls
                else:
                    _cut_into(pieces, unwrap(line[row.place][row.fixed_length :]), ends[row.ends])
            if len(orjson.loads(b"[" + b",".join(pieces) + b"]")) != len(pieces):
                raise RowError(f"expected {len(pieces)} JSON values, got another number")
            pieces.append(NULL)
            result.append([pieces[piece] for piece in self._pieces])
        return result

    def of_rows(self, lines: Sequence[Sequence[bytes]], effective: Words) -> Texts:
        """Return the texts of repaired rows, which may have flags."""
        result: Texts = []
        for line, times in zip(lines, effective.tolist(), strict=True):
            pieces: list[bytes] = []
            for row in self._rows:
                if times[row.place] == NULL_INT64:
                    pieces += row.nulls
                else:
                    pieces += json_texts(row.layout, line[row.place]).values()
            pieces.append(NULL)
            result.append([pieces[piece] for piece in self._pieces])
        return result

    def null(self, texts: Texts, rows: Sequence[tuple[int, int]]) -> None:
        """Put null in place of the texts of the given (line, place) pairs."""
        for line, place in rows:
            for number, (owner, _) in enumerate(self._order):
                if owner == place:
                    texts[line][number] = NULL


def check_texts(layout: RowLayout, row: bytes) -> None:
    """Check that a row ends with its texts, and that each is a JSON value.

    Raises:
        RowError: it doesn't, or some text isn't.
    """
    for name, text in json_texts(layout, row).items():
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError:
            raise RowError(f"column {name!r}: expected JSON, got {shown(text)}") from None


def _cut_into(pieces: list[bytes], rest: bytes, ends: list[int]) -> None:
    low = 0
    for high in ends:
        if low >= high:
            raise RowError(f"expected a text that ends after byte {low}, got {high}")
        pieces.append(rest[low:high])
        low = high
    if not low <= len(rest) < low + 3 or len(rest) % 3:
        raise RowError(f"expected {low} bytes of texts and padding to a multiple of 3, got {len(rest)}")
