"""The rows of a batch side by side: joined, repaired where they aren't plain, nulled where they don't count.

All rows of all requests are joined in the form in which they came and decoded at once; one comparison of
header words then says whether every row has its view's layout and no flags. Only where that fails is each row
looked at by itself.

Invariants
1. Every line of a matrix consists of rows whose headers name the layouts that they are read with, in place
   order, and behind them neutral heads and the constants. Bytes that are no row never get into it.
2. What `joined` takes, `repaired` takes with the same result.
3. Matrices of a service with heads may be written to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastserve.plan.older_rows import features_lacking
from fastserve.plan.service import Place, ServicePlan
from fastserve.plan.views import ViewPlan
from fastserve.serving.columns import RowReport
from fastserve.serving.texts import check_texts
from fastserve.serving.transcode import OldLayouts, null_row, transcode
from fastserve.serving.transport import RowTransport
from fastserve.tiles.aggregates import AggregateFeature
from fastserve.tiles.layout import (
    FLAG_NULL_BITMAP,
    NO_ROW,
    NULL_INT64,
    WORD_BYTES,
    Column,
    RowLayout,
    Storage,
)
from fastserve.tiles.merge import CONSTANT_BITS, Words
from fastserve.tiles.rows import RowError, check_header, decode_row

Transcode = Callable[[ViewPlan, Any], bytes]
"""Turns an attributes-format item into a packed row of the view; raises `RowError`."""

Lines = Sequence[Sequence[Any]]
"""Per request its rows in place order: in the transport's form, an item, or None."""

CONSTANTS = np.array(CONSTANT_BITS, "<i8").tobytes()

_WORDS = frozenset({Storage.I8, Storage.TIME})


class VectorRows:
    """Makes matrices of one service's rows."""

    def __init__(
        self,
        plan: ServicePlan,
        transport: RowTransport,
        old_layouts: OldLayouts | None = None,
        transcode_item: Transcode | None = None,
    ) -> None:
        views = [place.view for place in plan.places]
        self._places = plan.places
        self._words = plan.words
        self._outputs = plan.inputs
        self._transport = transport
        self._old_layouts: OldLayouts = old_layouts or {}
        self._transcode_item = transcode_item
        self._null_rows = [null_row(view) for view in views]
        lengths = [transport.fixed_length(view.layout) for view in views]
        self._wrapped_nulls = [
            transport.wrap(row)[:length] for row, length in zip(self._null_rows, lengths, strict=True)
        ]
        self._lengths = lengths
        self._tail = CONSTANTS if plan.heads is None else plan.heads.neutral.tobytes() + CONSTANTS
        self._constants = transport.wrap(self._tail)
        self._join = transport.join if plan.heads is None else transport.join_writable
        self._header_at = np.array([place.word for place in plan.places], np.intp)
        self._effective_at = self._header_at + 1
        self._headers = np.array([view.layout.header_word for view in views], np.int64).tobytes()
        # Rows with variable-width values are cut to their fixed parts; all others must have that length.
        self._cuts = [(p.number, lengths[p.number]) for p in plan.places if p.view.layout.variable_columns]
        self._has_items = any(not view.packed for view in views)
        self._lacking: dict[tuple[int, int], list[int]] = {}

    def joined(self, lines: Lines, report: RowReport | None = None) -> Words | None:
        """Return the matrix of a batch of plain or absent rows; None when there is any other."""
        if self._has_items:
            return None
        parts: list[Any] = []
        missing = 0
        lengths = self._lengths
        try:
            for rows in lines:
                fixed = self._fixed(rows) if self._cuts else rows
                if None in fixed:
                    missing += fixed.count(None)
                    fixed = [
                        null if row is None else row
                        for row, null in zip(fixed, self._wrapped_nulls, strict=True)
                    ]
                # Row by row: one too short and its neighbour as much too long would pass as a whole.
                if list(map(len, fixed)) != lengths:
                    return None
                parts += fixed
                parts.append(self._constants)
            joined = self._join(parts)
        except (TypeError, ValueError):
            return None
        if len(joined) != len(lines) * self._words * WORD_BYTES:  # padding among the texts
            return None
        matrix = np.frombuffer(joined, "<i8").reshape(len(lines), self._words)
        # As bytes: comparing arrays and reducing the outcome takes 1.2 us more.
        headers = matrix.take(self._header_at, axis=1).tobytes()
        if headers != self._headers * len(lines):
            return None
        if missing and report is not None:
            report.missing = missing
        return matrix

    def _fixed(self, rows: Sequence[Any]) -> list[Any]:
        fixed = list(rows)
        for number, length in self._cuts:
            row = fixed[number]
            if row is not None:
                fixed[number] = row[:length]
        return fixed

    def effective_ns(self, matrix: Words) -> Words:
        """Return the effective time of every row, shape (requests, places)."""
        return matrix.take(self._effective_at, axis=1)

    # --- rows out of the ordinary -----------------------------------------------------------------------

    def repaired(
        self, lines: Lines, report: RowReport
    ) -> tuple[Words, list[list[bytes]], dict[tuple[int, int], int]]:
        """Make every row readable: transcode it, or put the null row in its place and report it.

        Returns the matrix, the rows, and by (line, output number) the values that look like null and aren't.
        """
        exact: dict[tuple[int, int], int] = {}
        whole: list[list[bytes]] = []
        for number, line in enumerate(lines):
            rows = [
                self._readable(number, place, row, report)
                for place, row in zip(self._places, line, strict=True)
            ]
            for place, row in zip(self._places, rows, strict=True):
                if row[1] & FLAG_NULL_BITMAP:
                    exact.update(self._exact_values(number, place, row))
            whole.append(rows)
        fixed: list[bytes] = []
        for rows in whole:
            fixed += [
                row[: place.view.layout.fixed_bytes] for place, row in zip(self._places, rows, strict=True)
            ]
            fixed.append(self._tail)
        matrix = np.frombuffer(bytearray().join(fixed), "<i8").reshape(len(lines), self._words)
        return matrix, whole, exact

    def _readable(self, line: int, place: Place, row: Any, report: RowReport) -> bytes:
        null = self._null_rows[place.number]
        if row is None:
            report.missing += 1
            return null
        try:
            if not place.view.packed and self._transcode_item is not None:
                return self._transcode_item(place.view, row)
            stored = self._transport.unwrap(row)
            if stored == NO_ROW:
                report.missing += 1
                report.unwritten.add((line, place.number))
                return null
            decoded, old = self._current(place.view, stored)
            check_texts(place.view.layout, decoded)  # also finds what is cut or too long
        except (RowError, ValueError, TypeError) as error:
            report.unreadable[line, place.number] = str(error)
            return null
        if old is not None:
            report.transcoded += 1
            lacking = self._lacking_of(place, old)
            if lacking:
                report.lacking[line, place.number] = lacking
        return decoded

    def _current(self, view: ViewPlan, row: bytes) -> tuple[bytes, RowLayout | None]:
        """Return a row in the view's current layout, and the older one that it had, if it had."""
        try:
            check_header(view.layout, row)
        except RowError as error:
            known = self._old_layouts.get(view.name, {})
            old = None if error.schema_id is None else known.get(error.schema_id)
            if old is None:
                raise
            return transcode(row, old, view), old
        return row, None

    def _lacking_of(self, place: Place, old: RowLayout) -> list[int]:
        """Return the outputs that have events in files of which rows of an older layout hold nothing.

        Of a view that has its stream alone, what is pushed counts from the start: nothing else ever will.
        """
        key = (place.number, old.schema_id)
        if key not in self._lacking:
            view = place.view
            has_files = view.schema is not None and view.view.batch_source is not None
            lacking = features_lacking(view, old) if has_files else []
            self._lacking[key] = [
                number
                for number, output in enumerate(self._outputs)
                if output.place == place.number
                and isinstance(output.source, AggregateFeature)
                and output.source.spec.name in lacking
            ]
        return self._lacking[key]

    def _exact_values(self, line: int, place: Place, row: bytes) -> dict[tuple[int, int], int]:
        values = decode_row(place.view.layout, row)
        return {
            (line, number): NULL_INT64
            for number, output in enumerate(self._outputs)
            if output.place == place.number
            and isinstance(output.source, Column)
            and output.source.storage in _WORDS  # a float may be as small, and says null in another way
            and values[output.source.name] == NULL_INT64
        }

    def nulled(self, matrix: Words, effective: Words, rows: Sequence[tuple[int, int]]) -> tuple[Words, Words]:
        """Put null rows in place of the given (line, place) pairs, in copies."""
        matrix, effective = matrix.copy(), effective.copy()
        for line, number in rows:
            place = self._places[number]
            words = place.view.layout.fixed_words
            matrix[line, place.word : place.word + words] = np.frombuffer(
                self._null_rows[number], "<i8", words
            )
            effective[line, number] = NULL_INT64
        return matrix, effective


def pairs(where: npt.NDArray[np.bool_], places: npt.NDArray[np.intp]) -> list[tuple[int, int]]:
    """Return the (line, place) pairs at which ``where``, of shape (requests, some places), is true."""
    return [(line, int(places[column])) for line, column in np.argwhere(where).tolist()]
