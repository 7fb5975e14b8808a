"""From the rows of a batch of requests to columns of feature values.

All requests of one service that became ready together are evaluated together: their rows are joined and
decoded once, checked by
one comparison of header words, and every kind of feature is read by one ``take`` over the matrix of vector
rows. Whatever is not the
common case (absent rows, flags, another schema, expired rows, mixed as_of) is noticed by a comparison and
then treated row by row.

Invariants
1. A value comes only from a row whose header names the layout it is read with; any other row is transcoded or
   its features are null with status
   UNKNOWN. Bytes that are no row never become values.
2. An absent, expired or unreadable row is evaluated as its view's null row: empty in every slot.
3. Rows of different requests never mix: each request owns one line of the matrix.
4. The result does not depend on which requests are evaluated together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastserve.errors import InvariantError
from fastserve.plan.service import Output, Place, ServicePlan
from fastserve.plan.views import ViewPlan
from fastserve.serving.transport import RowTransport
from fastserve.tiles.aggregates import AggregateFeature
from fastserve.tiles.layout import (
    FLAG_NULL_BITMAP,
    FORMAT,
    NULL_FLOAT64_BITS,
    NULL_INT64,
    Column,
    RowLayout,
    Storage,
    storage_of,
)
from fastserve.tiles.merge import CONSTANT_BITS, NEUTRAL_BITS, Epoch, MergePlan, Words
from fastserve.tiles.rows import RowBuilder, RowError, check_header, decode_row, encode_row, json_texts
from fastserve.tiles.windows import CLOCK_SKEW_NS

Array = npt.NDArray[Any]

EPOCH_AFTER_BATCHES = 4
"""So many batches in a row with one new as_of make it worth to prepare index arrays for it (0.1 to 5 ms);
until then `MergePlan.masked` serves."""

OldLayouts = Mapping[str, Mapping[int, RowLayout]]
"""Layouts that a view's rows may still have, by view name and schema id."""


@dataclass(slots=True)
class RowReport:
    """What was unusual about a batch's rows: for metrics and statuses."""

    unreadable: dict[tuple[int, int], str] = field(default_factory=dict)
    expired: int = 0
    transcoded: int = 0


@dataclass(slots=True)
class Columns:
    """Feature values of a batch, by storage kind, one line per request; within a kind in the order of the
    plan's outputs.

    ``floats`` (float64), ``ints`` (int64), ``times`` (int64 ns), ``singles`` (float32), ``bools`` (uint8, 2
    is null), ``texts`` (lists of JSON
    bytes). Nulls are the layout's in-band markers. ``effective_ns`` has shape (requests, places), the
    smallest int64 where there is no
    usable row. ``exact`` maps (line, output number) to values that look like a null marker and aren't.
    ``odd`` is true when a float
    may be a NaN or infinity that is not null.
    """

    floats: npt.NDArray[np.float64]
    ints: Words
    times: Words
    singles: npt.NDArray[np.float32]
    bools: npt.NDArray[np.uint8]
    texts: list[list[bytes]]
    effective_ns: Words
    odd: bool
    exact: dict[tuple[int, int], int]
    report: RowReport


def null_row(view: ViewPlan) -> bytes:
    """Return the row that stands for an absent one: nulls, neutral elements, and the smallest int64 as
    effective time.
    """
    builder = RowBuilder(view.layout, 1)
    builder.set_effective_ns(NULL_INT64)
    for component in view.schema.components if view.schema else ():
        bits = np.full((1, component.window.slots), NEUTRAL_BITS[component.op], np.int64)
        builder.set_words(component.word, bits)
    return builder.build()[0]


def output_storage(output: Output) -> Storage:
    """Return the kind of column in which an output's values come."""
    return storage_of(output.dtype)


class VectorEvaluator:
    """One service's plan made into index arrays for one kind of row transport.

    ``transcode_item`` turns an attributes-format item into a packed row of the view; ``old_layouts`` are
    schemas that rows may have besides the
    current one.
    """

    def __init__(
        self,
        plan: ServicePlan,
        transport: RowTransport,
        old_layouts: OldLayouts | None = None,
        transcode_item: Callable[[ViewPlan, Any], bytes] | None = None,
    ) -> None:
        self.plan = plan
        self._transport = transport
        self._old_layouts = old_layouts or {}
        self._transcode_item = transcode_item
        views = [place.view for place in plan.places]
        self._null_rows = [null_row(view) for view in views]
        self._wrapped_nulls = [transport.wrap(row) for row in self._null_rows]
        self._constants = transport.wrap(np.array(CONSTANT_BITS, "<i8").tobytes())
        self._fixed_lengths = [transport.fixed_length(view.layout) for view in views]
        self._line_length = sum(self._fixed_lengths) + len(self._constants)
        self._header_at = np.array([place.word for place in plan.places], np.intp)
        self._headers = np.array([view.layout.header_word for view in views], np.int64)
        self._slice_rows = any(view.layout.json_columns for view in views)
        self._has_items = any(not view.packed for view in views)
        self._ttl_places = np.array([p.number for p in plan.places if p.view.ttl_ns is not None], np.intp)
        self._ttls_ns = np.array([p.view.ttl_ns for p in plan.places if p.view.ttl_ns is not None], np.int64)
        self._merge = self._compile_merge()
        self._columns = _ColumnIndex(plan, self._merge)
        self._epoch: Epoch | None = None
        self._candidate: tuple[bytes, int] = (b"", 0)

    def _compile_merge(self) -> MergePlan | None:
        places: list[tuple[int, int, Any, list[AggregateFeature]]] = []
        for place in self.plan.places:
            sources = [o.source for o in self.plan.outputs if o.place == place.number]
            features = [source for source in sources if isinstance(source, AggregateFeature)]
            if features:
                places.append((place.number, place.word, place.view.schema, features))
        return MergePlan(places, self.plan.constants_word) if places else None

    # --- a batch
    # --------------------------------------------------------------------------------------------------------------------

    def evaluate(
        self, lines: Sequence[Sequence[Any]], now_ns: int, zero_counts: Sequence[bool] | None = None
    ) -> Columns:
        """Evaluate a batch. ``lines`` holds, per request, its rows in place order: in the transport's form,
        an item, or None.

        ``zero_counts`` says per request whether a null count is to be 0 (the API's
        ``coerceNullCountsToZero``).
        """
        report = RowReport()
        exact: dict[tuple[int, int], int] = {}
        matrix = None if self._has_items else self._joined(lines)
        plain = matrix is not None and bool((matrix.take(self._header_at, axis=1) == self._headers).all())
        if matrix is None or not plain:
            lines, matrix = self._repaired(lines, report, exact)
        effective = matrix.take(self._header_at + 1, axis=1)
        if self._ttl_places.size:
            matrix, effective = self._without_expired(matrix, effective, now_ns, report)
        texts = self._json(lines, matrix, effective) if self._slice_rows else []
        merged, effective, matrix = self._merged(matrix, effective, now_ns, report)
        odd = not plain or _has_odd(merged[0])
        columns = self._columns.read(matrix, merged, texts, zero_counts, report)
        return Columns(*columns, effective, odd, exact, report)

    def _joined(self, lines: Sequence[Sequence[Any]]) -> Words | None:
        """Join all rows of all requests into a matrix; None when they don't have the plain form."""
        parts: list[Any] = []
        for line in lines:
            if self._slice_rows:
                line = [
                    row if row is None else row[:length]
                    for row, length in zip(line, self._fixed_lengths, strict=True)
                ]
            if None in line:
                line = [
                    null if row is None else row for row, null in zip(line, self._wrapped_nulls, strict=True)
                ]
                if self._slice_rows:
                    line = [row[:length] for row, length in zip(line, self._fixed_lengths, strict=True)]
            parts += line
            parts.append(self._constants)
        try:
            joined = self._transport.join(parts)
        except (TypeError, ValueError):
            return None
        words = self.plan.words
        if len(joined) != len(lines) * words * 8:
            return None
        return np.frombuffer(joined, "<i8").reshape(len(lines), words)

    # --- rows out of the ordinary
    # -----------------------------------------------------------------------------------------------

    def _repaired(
        self, lines: Sequence[Sequence[Any]], report: RowReport, exact: dict[tuple[int, int], int]
    ) -> tuple[list[list[Any]], Words]:
        """Make every row readable: transcode, or put the null row in its place and report it."""
        whole: list[list[bytes]] = []
        for line_number, line in enumerate(lines):
            rows = [
                self._readable(line_number, place, row, report)
                for place, row in zip(self.plan.places, line, strict=True)
            ]
            for place, row in zip(self.plan.places, rows, strict=True):
                if row[1] & FLAG_NULL_BITMAP:
                    exact.update(self._exact_values(line_number, place, row))
            whole.append(rows)
        constants = np.array(CONSTANT_BITS, "<i8").tobytes()
        fixed = [
            b"".join(row[: p.view.layout.fixed_bytes] for p, row in zip(self.plan.places, rows, strict=True))
            + constants
            for rows in whole
        ]
        matrix = np.frombuffer(b"".join(fixed), "<i8").reshape(len(lines), self.plan.words)
        return [[self._transport.wrap(row) for row in rows] for rows in whole], matrix

    def _readable(self, line: int, place: Place, row: Any, report: RowReport) -> bytes:
        null = self._null_rows[place.number]
        if row is None:
            return null
        try:
            if not place.view.packed and self._transcode_item is not None:
                return self._transcode_item(place.view, row)
            raw = self._transport.unwrap(row)
            decoded = self._current(place.view, raw, report)
            if place.view.layout.json_columns:
                json_texts(place.view.layout, decoded)
            return decoded
        except (RowError, ValueError, TypeError) as error:
            report.unreadable[line, place.number] = str(error)
            return null

    def _current(self, view: ViewPlan, row: bytes, report: RowReport) -> bytes:
        """Return a row in the view's current layout, transcoded if it has an older one."""
        try:
            check_header(view.layout, row)
        except RowError as error:
            old = self._old_layouts.get(view.name, {}).get(error.schema_id or -1)
            if old is None:
                raise
            report.transcoded += 1
            return transcode(row, old, view)
        return row

    def _exact_values(self, line: int, place: Place, row: bytes) -> dict[tuple[int, int], int]:
        values = decode_row(place.view.layout, row)
        found: dict[tuple[int, int], int] = {}
        for number, output in enumerate(self.plan.outputs):
            if (
                output.place == place.number
                and isinstance(output.source, Column)
                and values[output.source.name] == NULL_INT64
            ):
                found[line, number] = NULL_INT64
        return found

    def _without_expired(
        self, matrix: Words, effective: Words, now_ns: int, report: RowReport
    ) -> tuple[Words, Words]:
        times = effective.take(self._ttl_places, axis=1)
        expired = (times < now_ns - self._ttls_ns) & (times != NULL_INT64)
        if not expired.any():
            return matrix, effective
        report.expired += int(expired.sum())
        return self._nulled(
            matrix,
            effective,
            [(line, int(self._ttl_places[column])) for line, column in np.argwhere(expired).tolist()],
        )

    def _nulled(self, matrix: Words, effective: Words, rows: list[tuple[int, int]]) -> tuple[Words, Words]:
        """Put null rows in place of the given (line, place) pairs."""
        matrix, effective = matrix.copy(), effective.copy()
        for line, number in rows:
            place = self.plan.places[number]
            layout = place.view.layout
            matrix[line, place.word : place.word + layout.fixed_words] = np.frombuffer(
                self._null_rows[number], "<i8", layout.fixed_words
            )
            effective[line, number] = NULL_INT64
        return matrix, effective

    # --- aggregates
    # -----------------------------------------------------------------------------------------------------------------

    def _merged(
        self, matrix: Words, effective: Words, now_ns: int, report: RowReport
    ) -> tuple[tuple[Array, Words], Words, Words]:
        merge = self._merge
        if merge is None:
            return (_NO_FLOATS, _NO_INTS), effective, matrix
        as_of = effective.take(merge.place_numbers, axis=1)
        epoch = self._epoch
        if epoch is not None and epoch.start_ns <= now_ns < epoch.end_ns and _all_are(as_of, epoch.as_of):
            return merge.fast(matrix, epoch), effective, matrix
        stale = (as_of != NULL_INT64) & (
            (as_of < now_ns - merge.horizons_ns) | (as_of > now_ns + CLOCK_SKEW_NS)
        )
        if stale.any():
            report.expired += int(stale.sum())
            rows = [(line, int(merge.place_numbers[column])) for line, column in np.argwhere(stale).tolist()]
            matrix, effective = self._nulled(matrix, effective, rows)
            as_of = effective.take(merge.place_numbers, axis=1)
        epoch = self._maybe_new_epoch(merge, as_of, now_ns)
        if epoch is not None:
            return merge.fast(matrix, epoch), effective, matrix
        known = np.where(as_of == NULL_INT64, now_ns, as_of)
        return merge.masked(matrix, known, now_ns), effective, matrix

    def _maybe_new_epoch(self, merge: MergePlan, as_of: Words, now_ns: int) -> Epoch | None:
        """Return an epoch when all rows share one as_of per view and have done so for a few batches."""
        newest = as_of.max(axis=0)
        if not _all_are(as_of, newest):
            return None
        if self._epoch is not None:
            newest = np.where(newest == NULL_INT64, self._epoch.as_of, newest)
        known = newest != NULL_INT64
        key = newest.tobytes()
        seen = self._candidate[1] + 1 if self._candidate[0] == key else 1
        self._candidate = (key, seen)
        in_time = ((now_ns <= newest + merge.horizons_ns) & (newest <= now_ns + CLOCK_SKEW_NS))[known].all()
        if seen < EPOCH_AFTER_BATCHES or not known.any() or not in_time:
            return None
        epoch = merge.epoch(np.where(known, newest, now_ns), now_ns)
        end_ns = min(epoch.end_ns, int((newest + merge.horizons_ns)[known].min()) + 1)
        self._epoch = Epoch(newest, epoch.start_ns, end_ns, epoch.groups, epoch.finalizer)
        return self._epoch

    # --- variable-width values
    # ------------------------------------------------------------------------------------------------------

    def _json(self, lines: Sequence[Sequence[Any]], matrix: Words, effective: Words) -> list[list[bytes]]:
        ends = matrix.view("<u4")
        result: list[list[bytes]] = []
        for number, line in enumerate(lines):
            by_place: dict[int, dict[str, bytes]] = {}
            texts = []
            for place, column in self._columns.json_sources:
                if place.number not in by_place:
                    row = None if effective[number, place.number] == NULL_INT64 else line[place.number]
                    by_place[place.number] = self._texts_of(place, row, ends[number])
                texts.append(by_place[place.number][column.name])
            result.append(texts)
        return result

    def _texts_of(self, place: Place, row: Any, ends: Array) -> dict[str, bytes]:
        layout = place.view.layout
        if row is None:
            return dict.fromkeys((column.name for column in layout.json_columns), b"null")
        rest = self._transport.unwrap(row[self._fixed_lengths[place.number] :])
        texts: dict[str, bytes] = {}
        low = -(-len(layout.columns) // 8) if ends[place.word * 2] >> 8 & FLAG_NULL_BITMAP else 0
        start = low
        for column in layout.json_columns:
            high = start + int(ends[place.word * 2 + column.offset // 4])
            texts[column.name] = rest[low:high] if low < high <= len(rest) else b"null"
            low = high
        return texts


_NO_FLOATS = np.empty((0, 0))
_NO_INTS = np.empty((0, 0), np.int64)


def _all_are(as_of: Words, expected: Words) -> bool:
    """Whether every row has the expected as_of of its place, or is a null row."""
    same = as_of == expected
    return bool(same.all()) or bool((same | (as_of == NULL_INT64)).all())


def _has_odd(floats: Array) -> bool:
    """Whether any float is a NaN or an infinity without being null."""
    finite = np.isfinite(floats)
    return not finite.all() and bool((~finite & (floats.view("<i8") != NULL_FLOAT64_BITS)).any())


def transcode(row: bytes, old: RowLayout, view: ViewPlan) -> bytes:
    """Return a row of an older schema in the view's current one; columns that it lacks are null, or neutral
    in a compacted row.

    Raises:
        RowError: the row doesn't fit the old layout either.
    """
    values = decode_row(old, row)
    effective_ns = int.from_bytes(row[8:16], "little", signed=True)
    if view.schema is None:
        kept = {
            c.name: values[c.name]
            for c in view.layout.columns
            if c.name in values and old.by_name[c.name].dtype == c.dtype
        }
        return encode_row(view.layout, kept, effective_ns)
    words = np.frombuffer(null_row(view), "<i8").copy()
    old_words = np.frombuffer(row[: old.fixed_bytes], "<i8")
    for column in view.layout.columns:
        if column.name in values:
            words[column.word] = old_words[old.by_name[column.name].word]
    words[1] = effective_ns
    raw = bytearray(words.tobytes())
    raw[1] = row[1] & ~FLAG_NULL_BITMAP
    if raw[0] != FORMAT:
        raise InvariantError(f"expected a row of format {FORMAT} after transcoding, got {raw[0]}")
    return bytes(raw)


@dataclass(frozen=True, slots=True)
class _Gather:
    """How one kind of column is read: elements of the matrix, then the order over those and the merged
    aggregates (None: as read).
    """

    look_ups: npt.NDArray[np.intp]
    order: npt.NDArray[np.intp] | None


class _ColumnIndex:
    """Where each output's value stands: in the matrix, or in the merged aggregates."""

    def __init__(self, plan: ServicePlan, merge: MergePlan | None) -> None:
        self._merge = merge
        aggregates = _aggregate_columns(plan, merge)
        kinds = [output_storage(output) for output in plan.outputs]
        self._index: dict[Storage, _Gather] = {
            storage: self._indices(plan, kinds, storage, aggregates)
            for storage in Storage
            if storage is not Storage.JSON
        }
        self.json_sources = [
            (plan.places[o.place], o.source)
            for o, kind in zip(plan.outputs, kinds, strict=True)
            if kind is Storage.JSON and isinstance(o.source, Column)
        ]
        self.places_of_counts = [
            (o.place, column[1])
            for o, column in zip(plan.outputs, aggregates, strict=True)
            if column is not None and not column[0]
        ]

    @staticmethod
    def _indices(
        plan: ServicePlan, kinds: list[Storage], storage: Storage, aggregates: list[tuple[bool, int] | None]
    ) -> _Gather:
        look_ups: list[int] = []
        order: list[tuple[bool, int]] = []
        for output, kind, aggregate in zip(plan.outputs, kinds, aggregates, strict=True):
            if kind is not storage:
                continue
            if aggregate is not None:
                order.append((True, aggregate[1]))
            elif isinstance(output.source, Column):
                byte = plan.places[output.place].word * 8 + output.source.offset
                order.append((False, len(look_ups)))
                look_ups.append(byte // storage.width_bytes)
        final = [place + len(look_ups) if merged else place for merged, place in order]
        needs_merged = any(merged for merged, _ in order)
        return _Gather(np.array(look_ups, np.intp), np.array(final, np.intp) if needs_merged else None)

    def read(
        self,
        matrix: Words,
        merged: tuple[Array, Words],
        texts: list[list[bytes]],
        zero_counts: Sequence[bool] | None,
        report: RowReport,
    ) -> tuple[Array, Array, Array, Array, Array, list[list[bytes]]]:
        """Return the columns in the order of `Columns`' fields."""
        floats, ints = merged
        if self._merge is not None and self._merge.counts:
            ints = self._with_null_counts(ints, zero_counts, report)
        return (
            self._column(Storage.F8, matrix, floats),
            self._column(Storage.I8, matrix, ints),
            self._column(Storage.TIME, matrix, ints),
            self._column(Storage.F4, matrix, floats),
            self._column(Storage.BOOL, matrix, ints),
            texts,
        )

    def _column(self, storage: Storage, matrix: Words, merged: Array) -> Array:
        gather = self._index[storage]
        if gather.order is None:
            return matrix.view(storage.numpy_type).take(gather.look_ups, axis=1)
        if storage is Storage.F4:
            merged = merged.astype("<f4")
        if not gather.look_ups.size:
            return merged.take(gather.order, axis=1)
        looked_up = matrix.view(storage.numpy_type).take(gather.look_ups, axis=1)
        return np.concatenate([looked_up, merged], axis=1).take(gather.order, axis=1)

    def _with_null_counts(self, ints: Words, zero_counts: Sequence[bool] | None, report: RowReport) -> Words:
        assert self._merge is not None
        counts = ints[:, : self._merge.counts]
        empty = counts == 0
        if zero_counts is not None:
            empty &= ~np.asarray(zero_counts, np.bool_)[:, None]
            for line, place in report.unreadable:
                for owner, column in self.places_of_counts:
                    if owner == place and column < self._merge.counts:
                        empty[line, column] = True
        ints = ints.copy()
        np.copyto(ints[:, : self._merge.counts], NULL_INT64, where=empty)
        return ints


def _aggregate_columns(plan: ServicePlan, merge: MergePlan | None) -> list[tuple[bool, int] | None]:
    """Return for each output its column in the merged floats (true) or integers (false), None for
    look-ups.
    """
    columns: list[tuple[bool, int] | None] = [None] * len(plan.outputs)
    if merge is None:
        return columns
    for position, place in enumerate(merge.place_numbers.tolist()):
        numbers = [
            n
            for n, o in enumerate(plan.outputs)
            if o.place == place and isinstance(o.source, AggregateFeature)
        ]
        for number, feature in zip(numbers, merge.feature_places[position], strict=True):
            columns[number] = (feature.is_float, feature.index)
    return columns
