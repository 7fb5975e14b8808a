"""From the rows of a batch of requests to columns of feature values.

All requests of one service that became ready together are evaluated together: their rows are joined and
decoded once, checked by one comparison of header words, and every kind of feature is read by one ``take``
over the matrix of vector rows. Whatever is not the common case (absent rows, flags, another schema, expired
rows, mixed as_of) is noticed by a comparison and then treated row by row.

Invariants
1. A value comes only from a row whose header names the layout it is read with; any other row is transcoded or
   its features are null with status UNKNOWN. Bytes that are no row never become values.
2. An absent, expired or unreadable row is evaluated as its view's null row: empty in every slot.
3. Rows of different requests never mix: each request owns one line of the matrix.
4. The result does not depend on which requests are evaluated together, to the last digit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fastserve.plan.service import ServicePlan
from fastserve.serving.aggregates import AggregateMerger, compile_merge
from fastserve.serving.blocks import OldShapes
from fastserve.serving.columns import ColumnIndex, Columns, Merged, RowReport, ZeroCounts
from fastserve.serving.heads import StreamBatch, StreamHeads, Watermarks
from fastserve.serving.texts import TextColumns, Texts
from fastserve.serving.transcode import OldLayouts
from fastserve.serving.transport import RowTransport
from fastserve.serving.vector_rows import Lines, Transcode, VectorRows, pairs
from fastserve.serving.wide import NO_TILES, BrokenRowsError, Pieces, WideAnswers
from fastserve.tiles.layout import NULL_INT64
from fastserve.tiles.merge import Words
from fastserve.tiles.merge_loop import has_odd
from fastserve.tiles.rows import RowError

NO_AGGREGATES: Merged = (np.empty((0, 0)), np.empty((0, 0), np.int64))


class VectorEvaluator:
    """One service's plan made into index arrays for one kind of row transport.

    ``transcode_item`` turns an attributes-format item into a packed row of the view; ``old_layouts`` are
    schemas that rows may have besides the current one, ``old_shapes`` those of blocks. ``watermarks`` are
    read at each evaluation.
    """

    def __init__(
        self,
        plan: ServicePlan,
        transport: RowTransport,
        old_layouts: OldLayouts | None = None,
        transcode_item: Transcode | None = None,
        watermarks: Watermarks | None = None,
        old_shapes: OldShapes | None = None,
    ) -> None:
        merge = compile_merge(plan)
        self.plan = plan
        self._rows = VectorRows(plan, transport, old_layouts, transcode_item)
        self._texts = TextColumns(plan, transport)
        self._merger = None if merge is None else AggregateMerger(merge, self._rows, len(plan.places))
        self._wide = WideAnswers(plan, transport, merge)
        self._columns = ColumnIndex(plan, merge)
        self._streams = None
        if plan.heads is not None:
            self._streams = StreamHeads(plan, transport, watermarks or Watermarks(), old_shapes)
        ttls_ns = {p.number: p.view.ttl_ns for p in plan.places if p.view.ttl_ns is not None}
        self._ttl_places = np.array(list(ttls_ns), np.intp)
        self._ttls_ns = np.array(list(ttls_ns.values()), np.int64)

    def evaluate(self, lines: Lines, now_ns: int, zero_counts: ZeroCounts | None = None) -> Columns:
        """Evaluate a batch. ``lines`` holds, per request, its rows in place order, and then its blocks.

        A row is in the transport's form, an item, or None. ``zero_counts`` says per request whether a null
        count is to be 0 (the API's ``coerceNullCountsToZero``), and where not even so.
        """
        try:
            return self._evaluate(lines, now_ns, zero_counts, RowReport())
        except BrokenRowsError as error:
            return self._evaluate_without(error.rows, lines, now_ns, zero_counts)

    def _evaluate_without(
        self,
        broken: Mapping[tuple[int, int], str],
        lines: Lines,
        now_ns: int,
        zero_counts: ZeroCounts | None,
    ) -> Columns:
        """Evaluate a batch as if these rows had been read as broken, which is rare, and found late.

        Blocks are found to be broken before the states of rows are, so that there may be more to find.
        """
        rest = [
            [None if (number, place) in broken else row for place, row in enumerate(line)]
            for number, line in enumerate(lines)
        ]
        try:
            return self._evaluate(rest, now_ns, zero_counts, RowReport(dict(broken)))
        except BrokenRowsError as error:
            if error.rows.keys() <= broken.keys():
                raise
            return self._evaluate_without({**broken, **error.rows}, rest, now_ns, zero_counts)

    def _evaluate(
        self, lines: Lines, now_ns: int, zero_counts: ZeroCounts | None, report: RowReport
    ) -> Columns:
        batch = None
        if self._streams is not None:
            lines, batch = self._streams.taken_apart(lines, report)
        matrix = self._rows.joined(lines, report)
        if matrix is not None:
            effective = self._rows.effective_ns(matrix)
            try:
                texts = self._texts.cut(lines, matrix, effective) if self._texts else []
                wide = self._wide.cut(lines, matrix, effective) if self._wide else []
            except (RowError, ValueError):
                report.missing = 0  # the variable-width part of some row is broken: look at each
            else:
                return self._evaluated(matrix, effective, texts, wide, {}, now_ns, zero_counts, report, batch)
        matrix, whole, exact = self._rows.repaired(lines, report)
        effective = self._rows.effective_ns(matrix)
        texts = self._texts.of_rows(whole, effective) if self._texts else []
        wide = self._wide.of_rows(whole, effective) if self._wide else []
        columns = self._evaluated(matrix, effective, texts, wide, exact, now_ns, zero_counts, report, batch)
        columns.odd = True
        return columns

    def _evaluated(
        self,
        matrix: Words,
        effective: Words,
        texts: Texts,
        wide: Pieces,
        exact: dict[tuple[int, int], int],
        now_ns: int,
        zero_counts: ZeroCounts | None,
        report: RowReport,
        batch: StreamBatch | None,
    ) -> Columns:
        if self._ttl_places.size:
            expired = self._expired(effective, now_ns)
            if expired:
                report.expired += len(expired)
                matrix, effective = self._rows.nulled(matrix, effective, expired)
                self._texts.null(texts, expired)
                exact = self._less_nulled(exact, effective)
        merged = NO_AGGREGATES
        if self._merger is not None:
            if batch is not None:
                matrix, effective = self._with_heads(batch, matrix, effective, now_ns, report)
            merged, matrix, effective = self._merger.merged(matrix, effective, now_ns, report)
            as_of, tiles = effective, NO_TILES
            if batch is not None:
                effective, tiles = batch.newest(effective), batch.wide_irs()
            if wide:
                self._wide.fill(texts, wide, as_of, effective, merged, now_ns, tiles)
                self._columns.put_null_texts(texts, report)
        odd = has_odd(merged[0])
        values = self._columns.read(matrix, merged, zero_counts, report)
        return Columns(*values, texts, effective, odd, exact, report)

    def _with_heads(
        self, batch: StreamBatch, matrix: Words, effective: Words, now_ns: int, report: RowReport
    ) -> tuple[Words, Words]:
        """Return matrix and effective times with heads, and less the rows that can't answer."""
        if self._merger is None:
            return matrix, effective
        if not report.unreadable and batch.fill_in_loop(matrix, effective, now_ns):
            return matrix, effective
        stale = self._merger.stale(effective, now_ns)
        report.expired += len(stale)
        dead = [*report.unreadable, *report.unwritten, *stale]
        if dead:
            matrix, effective = self._rows.nulled(matrix, effective, dead)
        batch.fill(matrix, effective, dead, now_ns, report)
        return matrix, effective

    def _expired(self, effective: Words, now_ns: int) -> list[tuple[int, int]]:
        times = effective.take(self._ttl_places, axis=1)
        expired = (times < now_ns - self._ttls_ns) & (times != NULL_INT64)
        return pairs(expired, self._ttl_places) if expired.any() else []

    def _less_nulled(self, exact: dict[tuple[int, int], int], effective: Words) -> dict[tuple[int, int], int]:
        outputs = self.plan.inputs
        return {
            (line, number): value
            for (line, number), value in exact.items()
            if effective[line, outputs[number].place] != NULL_INT64
        }
