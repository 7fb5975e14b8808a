"""What `fastserve materialize` says of a view of which nothing was written."""

from __future__ import annotations

from dataclasses import replace

from fastserve.cli.materialize import remarks
from fastserve.ingest.materialize import MaterializeReport

NOTHING = MaterializeReport(
    view="v",
    until_ns=3_600 * 10**9,
    as_of_ns=3_600 * 10**9,
    rows_read=1_003,
    rows_bad=0,
    rows_outside=1_003,
    keys=0,
    bytes=0,
    seconds=0.1,
)
WHERE = "outside: of 1970-01-01T01:00:00Z or later (--until), or older than the view looks back"


def test_a_view_whose_rows_are_all_outside_is_told_so() -> None:
    assert remarks(NOTHING) == [f"v: nothing was written, for all 1,003 good rows are {WHERE}"]
    one = replace(NOTHING, rows_read=1, rows_outside=1)
    assert remarks(one) == [f"v: nothing was written, for the one good row is {WHERE}"]


def test_a_view_with_a_row_or_without_any_is_not() -> None:
    assert remarks(replace(NOTHING, rows_outside=1_002, keys=1)) == []
    assert remarks(replace(NOTHING, rows_read=0, rows_outside=0)) == []
