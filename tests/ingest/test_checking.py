"""Reading in batches: order, numbers, stopping early and on demand."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fastserve.errors import DefinitionError
from fastserve.ingest import checking
from fastserve.ingest.badrows import BadRows
from fastserve.ingest.checking import ROW, Reading, StoppedError
from fastserve.ingest.columns import check_column
from fastserve.ingest.files import Relation, connect
from fastserve.ingest.progress import Silent
from fastserve.sdk.types import Field, Int64

COLUMNS = [("n", check_column(Field("x", Int64), "VARCHAR", required=True))]


def relation(sql: str) -> Relation:
    return Relation(sql, {"x": "VARCHAR"}, "numbers")


def numbered(count: int, bad: str = "false") -> Relation:
    return relation(f"SELECT CASE WHEN {bad} THEN 'bad' ELSE range::VARCHAR END AS x FROM range({count})")


def test_good_rows_keep_their_order_and_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "BATCH_ROWS", 5_000)
    with connect(tmp_path, 256, 2) as connection:
        reading = Reading(connection, BadRows("v", None), Silent())
        batches = list(reading.batches(numbered(20_000, "range % 7 = 3"), COLUMNS, ["n % 2 AS odd"]))
    assert len(batches) > 1
    rows = [(row["n"], row["odd"], row[ROW]) for batch in batches for row in batch.to_pylist()]
    assert rows == [(n, n % 2, n + 1) for n in range(20_000) if n % 7 != 3]
    assert (reading.rows, reading.bad.count) == (20_000, len(range(3, 20_000, 7)))
    assert [bad.where for bad in reading.bad.samples] == [f"row {n + 1}" for n in range(3, 73, 7)]


def test_several_relations_are_counted_together(tmp_path: Path) -> None:
    with connect(tmp_path, 256, 1) as connection:
        reading = Reading(connection, BadRows("v", None), Silent())
        for _ in range(3):
            list(reading.batches(numbered(10, "range = 4"), COLUMNS))
    assert (reading.rows, reading.bad.count, len(reading.bad.samples)) == (30, 3, 3)


def test_reading_ends_where_too_many_rows_are_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "BATCH_ROWS", 2_048)
    with connect(tmp_path, 256, 1) as connection:
        reading = Reading(connection, BadRows("v", 0), Silent())
        assert list(reading.batches(numbered(1_000_000, "range = 1"), COLUMNS)) == []
    assert reading.bad.over
    assert reading.rows < 1_000_000


def test_a_job_that_is_told_to_stop_stops(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with connect(tmp_path, 256, 1) as connection:
        reading = Reading(connection, BadRows("v", 0), Silent(), stop)
        with pytest.raises(StoppedError):
            list(reading.batches(numbered(10), COLUMNS))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with connect(tmp_path, 256, 1) as connection:
        reading = Reading(connection, BadRows("v", 0), Silent())
        with pytest.raises(DefinitionError, match=r"^numbers: expected rows that can be read, got: "):
            list(reading.batches(relation("SELECT error('no') AS x"), COLUMNS))


def test_times_without_a_zone_are_utc_in_every_cursor(tmp_path: Path) -> None:
    with connect(tmp_path, 256, 1) as connection:
        for cursor in (connection, connection.cursor()):
            assert cursor.execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]
