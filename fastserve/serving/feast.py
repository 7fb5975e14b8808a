"""A request of Feast's API through the engine: rows of several views for many entity rows, as columns.

It goes the way of every request: its keys are read together with those of others, its lines are taken in
slices. But nothing is packed and merged: Feast's items hold one value a feature, which are decoded column by
column, those alone that were asked for.

Invariants
1. Lines stand in the order of the request's rows, in each line the rows of its parts in their order.
2. A row that is past its view's ttl is as good as none: null, `OUTSIDE_MAX_AGE`.
3. A row that can't be read is an error, never a null.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from fastserve.plan.feast import FeastSelection
from fastserve.serving.coalescer import KeyRead
from fastserve.serving.columns import Columns, ZeroCounts, no_columns
from fastserve.serving.feast_items import NO_TIME, Item, item_time, item_values, time_ns, time_text, values_in
from fastserve.serving.requests import ServiceRuntime
from fastserve.serving.vector_rows import Lines
from fastserve.tiles.rows import RowError

NOT_FOUND = "NOT_FOUND"
OUTSIDE_MAX_AGE = "OUTSIDE_MAX_AGE"
PRESENT = "PRESENT"
LINES_AT_ONCE = 32
"""After so many lines of one request others have their turn, as in `serving.engine`."""


class UnreadableRow(Exception):
    """A row that isn't what Feast writes; names its table."""

    def __init__(self, selection: FeastSelection, reason: str) -> None:
        super().__init__(reason)
        self.selection = selection
        self.reason = reason


class FeastRuntime(ServiceRuntime):
    """What the engine needs to know of a request for these parts: a key each, and nothing to evaluate.

    A line's key texts are those of its parts' reads, ready made.
    """

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[FeastSelection]) -> None:
        # Not the parent's: there is no plan for what a request puts together.
        self.parts = parts
        self.block_clock = None
        self.on_demand = None
        self.key_builders = [(part.view.group, itemgetter(number)) for number, part in enumerate(parts)]
        self.lines_at_once = LINES_AT_ONCE
        self.places_of_read = [(number,) for number in range(len(parts))]
        self.single_read = False

    def rows(self, reads: Sequence[KeyRead], line: int) -> list[Any]:
        """Return nothing: rows are taken from the reads themselves."""
        return []

    def columns(self, lines: Lines, now_ns: int, zero_counts: ZeroCounts | None) -> Columns:
        """Return columns of no feature."""
        return no_columns(len(lines))


class FeatureColumn(NamedTuple):
    """One feature over all lines: values, and the statuses that aren't PRESENT by line."""

    name: str
    values: list[Any]
    statuses: dict[int, str]


class PartColumns:
    """What has come of one part: its features' columns and, by line, its rows' times and statuses.

    ``row_statuses`` are those of whole rows; a column's own come on top.
    """

    __slots__ = ("_ttl_ns", "columns", "row_statuses", "selection", "times")

    def __init__(self, selection: FeastSelection) -> None:
        self.selection = selection
        self.columns = [FeatureColumn(name, [], {}) for name in selection.features]
        self.times: list[str] = []
        self.row_statuses: dict[int, str] = {}
        self._ttl_ns = selection.view.view.ttl_ns

    def take(self, items: Sequence[Item | None], now_ns: int) -> None:
        """Take the rows of the next lines.

        Raises:
            UnreadableRow: one isn't what Feast writes.
        """
        first = len(self.times)
        present: list[tuple[int, Any]] = []
        try:
            for line, item in enumerate(items, first):
                values = None if item is None else self._row(line, item, now_ns)
                if item is None:
                    self.times.append(NO_TIME)
                    self.row_statuses[line] = NOT_FOUND
                elif values is not None:
                    present.append((line, values))
            for column in self.columns:
                _fill(column, present, len(items))
        except RowError as error:
            raise UnreadableRow(self.selection, str(error)) from None

    def _row(self, line: int, item: Item, now_ns: int) -> Any:
        """Return a row's values, None where it is too old."""
        time = item_time(item)
        self.times.append(time_text(time))
        if self._ttl_ns is not None and time_ns(time) < now_ns - self._ttl_ns:
            self.row_statuses[line] = OUTSIDE_MAX_AGE
            return None
        return item_values(item)


def _fill(column: FeatureColumn, present: Sequence[tuple[int, Any]], lines: int) -> None:
    name, values, statuses = column
    found = [(line, row[name]) for line, row in present if name in row]
    decoded = values_in(name, [attribute for _, attribute in found])
    if len(found) == lines:
        values += decoded
        return
    values += [None] * lines
    for (line, _), value in zip(found, decoded, strict=True):
        values[line] = value
    if len(found) < len(present):
        statuses.update({line: NOT_FOUND for line, row in present if name not in row})


def take_lines(
    parts: Sequence[PartColumns], reads: Sequence[KeyRead], first: int, last: int, now_ns: int
) -> None:
    """Take the lines from ``first`` to ``last``, whose reads have all come, into the parts' columns.

    Raises:
        UnreadableRow: a row isn't what Feast writes.
    """
    count = len(parts)
    for number, part in enumerate(parts):
        part.take([read.rows[0] for read in reads[first * count + number : last * count : count]], now_ns)
