"""Rows of a relation, checked column by column: good ones in batches, bad ones counted with their reasons.

Invariants
1. Every row that the relation has is either in a batch or counted as bad, and every line of a CSV file that
   can't be cut into columns is counted as bad too.
2. Batches come in the relation's order; ``ROW`` numbers their rows from 1 in what was read.
3. Memory is bounded by a few batches, whatever the relation's size.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from fastserve.errors import ECHO_LIMIT, DefinitionError, FastserveError
from fastserve.ingest.badrows import SAMPLES, BadRow, BadRows
from fastserve.ingest.columns import CheckedColumn, quoted
from fastserve.ingest.files import Relation, first_line
from fastserve.ingest.progress import Progress

ROW = "fs_row"
FAULT = "fs_fault"
GOT = "fs_got"
BATCH_ROWS = 100_000


class StoppedError(FastserveError):
    """The job was told to stop while it was reading."""


class Reading:
    """What all relations of one view are read with; counts rows and bad rows over all of them."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        bad: BadRows,
        progress: Progress,
        stop: threading.Event | None = None,
    ) -> None:
        self.connection = connection
        self.bad = bad
        self.rows = 0
        self._progress = progress
        self._stop = stop or threading.Event()

    def batches(
        self, relation: Relation, columns: Sequence[tuple[str, CheckedColumn]], extra: Sequence[str] = ()
    ) -> Iterator[Any]:
        """Yield the good rows as Arrow batches: the columns under the names given, ``extra``, then ``ROW``.

        ``extra`` are SQL expressions with their names, over the columns.

        Raises:
            DefinitionError: the relation can't be read.
            StoppedError: the job was told to stop.
        """
        samples: list[tuple[int, BadRow]] = []
        first = 0
        try:
            for batch in self._stream(_checked_sql(relation, columns, extra)):
                good = self._good(batch, first, relation, columns, samples)
                first += len(batch)
                self._progress.advance(len(batch))
                if self.bad.over:
                    break
                if len(good):
                    yield good
        except (duckdb.Error, pa.ArrowException) as error:
            message = f"{relation.shown}: expected rows that can be read, got: {first_line(error)}"
            raise DefinitionError(message) from None
        self.rows += first
        self._close(relation, samples)

    def _stream(self, sql: str) -> Iterator[Any]:
        for batch in self.connection.sql(sql).to_arrow_reader(BATCH_ROWS):
            if self._stop.is_set():
                raise StoppedError("the job was told to stop")
            yield batch

    def _good(
        self,
        batch: Any,
        first: int,
        relation: Relation,
        columns: Sequence[tuple[str, CheckedColumn]],
        samples: list[tuple[int, BadRow]],
    ) -> Any:
        """Return the good rows of a batch; count and note the others."""
        fault = batch.column(FAULT)
        numbers = np.arange(first + 1, first + 1 + len(batch), dtype=np.int64)
        kept = batch.drop_columns([FAULT, GOT])
        if fault.null_count == len(batch):
            return kept.append_column(ROW, pa.array(numbers))
        bad = np.flatnonzero(fault.is_valid().to_numpy(zero_copy_only=False))
        self.bad.count += len(bad)
        for place in bad[: SAMPLES - len(samples)].tolist():
            column = columns[fault[place].as_py()][1]
            got = batch.column(GOT)[place].as_py()
            row = first + place + 1
            expected = column.instead_of_null if got is None else column.expected
            samples.append((row, BadRow(relation.shown, f"row {row}", column.name, expected, got)))
        good = np.flatnonzero(fault.is_null().to_numpy(zero_copy_only=False))
        return kept.append_column(ROW, pa.array(numbers)).take(pa.array(good))

    def _close(self, relation: Relation, samples: list[tuple[int, BadRow]]) -> None:
        """Count the lines that DuckDB rejected, and give the samples their true row numbers."""
        lines = self._rejected(relation)
        self.bad.count += len(lines)
        self.rows += len(lines)
        rejected_rows = [line - 1 for line, _ in lines]  # the header is line 1
        moved = [(_moved(row, rejected_rows), bad) for row, bad in samples]
        both = [
            (row, BadRow(bad.place, f"row {row}", bad.column, bad.expected, bad.got)) for row, bad in moved
        ]
        both += [(line - 1, bad) for line, bad in lines[:SAMPLES]]
        self.bad.add(0, [bad for _, bad in sorted(both, key=lambda entry: entry[0])])

    def _rejected(self, relation: Relation) -> list[tuple[int, BadRow]]:
        if relation.rejects is None:
            return []
        columns = "line, min(error_message), min(csv_line)"
        sql = f"SELECT {columns} FROM {relation.rejects} GROUP BY line ORDER BY line"
        try:
            found = self.connection.execute(sql).fetchall()
        except duckdb.CatalogException:  # the table is made when the first line is rejected
            return []
        expected = f"{len(relation.types)} columns of UTF-8 text"
        return [
            (line, BadRow(relation.shown, f"line {line}", first_line(ValueError(message)), expected, text))
            for line, message, text in found
        ]


def _moved(row: int, rejected_rows: Sequence[int]) -> int:
    """Return the place in the file of the ``row``-th row that wasn't rejected."""
    for rejected in rejected_rows:
        if rejected > row:
            break
        row += 1
    return row


def _checked_sql(
    relation: Relation, columns: Sequence[tuple[str, CheckedColumn]], extra: Sequence[str]
) -> str:
    inner = [f"{column.value} AS {quoted(alias)}" for alias, column in columns]
    inner += [f"{column.raw} AS fs_raw_{place}" for place, (_, column) in enumerate(columns)]
    faults = " ".join(f"WHEN {column.fault} THEN {place}" for place, (_, column) in enumerate(columns))
    inner.append(f"CASE {faults} END AS {FAULT}")
    raws = " ".join(
        f"WHEN {place} THEN left(CAST(fs_raw_{place} AS VARCHAR), {ECHO_LIMIT + 1})"
        for place in range(len(columns))
    )
    kept = [quoted(alias) for alias, _ in columns] + list(extra)
    kept += [FAULT, f"CASE {FAULT} {raws} END AS {GOT}"]
    return f"SELECT {', '.join(kept)} FROM (SELECT {', '.join(inner)} FROM ({relation.sql}))"
