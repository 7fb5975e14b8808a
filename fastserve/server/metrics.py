"""How a worker counts: what each request and evaluation adds at once, and what is carried over now and then.

It knows nothing of how numbers are shown, nor of HTTP beyond a status.

Invariants
1. Whatever is counted here is counted into this worker's own row; what it held before is built upon.
2. Where nobody asked for metrics none of this is called: exchanges have no meter, evaluators no cover.

Measured (perf/micro/request.py --metrics), CPU per request of the smallest service: 0.6 to 1.0 us more with
16 clients, whose requests share evaluations, 1.4 us more with one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from fastserve.server.exchange import Exchange, Meter
from fastserve.server.metrics_table import (
    LAG_BOUNDS_S,
    LATENCY_BOUNDS_S,
    ServiceCell,
    StoreCell,
    ViewCell,
    WorkerCell,
)
from fastserve.serving.columns import Columns, RowReport, ZeroCounts
from fastserve.serving.on_demand_times import Cells
from fastserve.serving.requests import Evaluator
from fastserve.serving.vector_rows import Lines

PUBLISH_EVERY_S = 0.5
LAG_EVERY_S = 0.05


def make_meter(cells: Cells) -> Meter:
    """Return what counts each answer of one service, told when its time has come to be sent."""
    # As plain integers: indexing by a member of an enumeration takes twice as long.
    ok, client_errors, server_errors = (
        0 + ServiceCell.OK,
        0 + ServiceCell.CLIENT_ERRORS,
        0 + ServiceCell.SERVER_ERRORS,
    )
    latency, latency_ns = 0 + ServiceCell.LATENCY, 0 + ServiceCell.LATENCY_NS

    def meter(exchange: Exchange, status: int) -> None:
        took_s = monotonic() - exchange.received_s
        cells[latency + bisect_left(LATENCY_BOUNDS_S, took_s)] += 1
        cells[latency_ns] += int(took_s * 1e9)
        if status < 400:
            cells[ok] += 1
        elif status < 500:
            cells[client_errors] += 1
        else:
            cells[server_errors] += 1

    return meter


class MeasuredEvaluator:
    """An evaluator that counts what it does."""

    __slots__ = ("_cells", "_evaluator", "_places", "missing", "vectors")

    def __init__(self, evaluator: Evaluator, cells: Cells, places: int) -> None:
        self._evaluator = evaluator
        self._cells = cells
        self._places = places
        self.vectors = 0
        self.missing = [0] * places

    def evaluate(self, lines: Lines, now_ns: int, zero_counts: ZeroCounts | None = None) -> Columns:
        """Evaluate, and count."""
        start_s = monotonic()
        columns = self._evaluator.evaluate(lines, now_ns, zero_counts)
        took_s = monotonic() - start_s
        columns.evaluated_from_s = start_s
        columns.evaluated_s = took_s
        cells = self._cells
        cells[_EVALUATED_NS] += int(took_s * 1e9)
        cells[_EVALUATIONS] += 1
        self.vectors += len(lines)
        cells[_VECTORS] += len(lines)
        cells[_ROWS] += len(lines) * self._places
        report = columns.report
        if report.missing:
            self._count_missing(lines, report)
        if report.missing or report.expired or report.unreadable or report.transcoded:
            cells[ServiceCell.MISSING] += report.missing
            cells[ServiceCell.EXPIRED] += report.expired
            cells[ServiceCell.UNREADABLE] += len(report.unreadable)
            cells[ServiceCell.TRANSCODED] += report.transcoded
        return columns

    def _count_missing(self, lines: Lines, report: RowReport) -> None:
        places, missing = self._places, self.missing
        for _, place in report.unwritten:
            missing[place] += 1
        for line in lines:
            position = -1
            try:
                while (position := line.index(None, position + 1, places)) >= 0:
                    missing[position] += 1
            except ValueError:
                continue  # no further one in this line


_EVALUATED_NS = int(ServiceCell.EVALUATED_NS)
_EVALUATIONS = int(ServiceCell.EVALUATIONS)
_VECTORS = int(ServiceCell.VECTORS)
_ROWS = int(ServiceCell.ROWS)


class ViewRows:
    """Carries the rows of views over into their cells, as services' evaluators have counted them by place."""

    def __init__(self, views: Mapping[str, Cells]) -> None:
        self._views = views
        self._counted: list[tuple[MeasuredEvaluator, list[Cells], list[int]]] = []

    def add(self, evaluator: MeasuredEvaluator, views: Sequence[str]) -> None:
        """Count what this evaluator does from now on; ``views`` are those of its places."""
        self._counted.append((evaluator, [self._views[view] for view in views], [0] * (len(views) + 1)))

    def publish(self) -> None:
        """Carry over what has come since the last time."""
        for evaluator, cells_of, before in self._counted:
            vectors = evaluator.vectors - before[-1]
            if not vectors:
                continue
            before[-1] = evaluator.vectors
            for place, (cells, missing) in enumerate(zip(cells_of, evaluator.missing, strict=True)):
                cells[ViewCell.ROWS] += vectors
                cells[ViewCell.MISSING] += missing - before[place]
                before[place] = missing


class Publisher:
    """Carries numbers that a worker counts for itself over into its cells.

    `publish` is called every `PUBLISH_EVERY_S`, before this worker's numbers are shown, and at its end.
    """

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        self._counters: list[tuple[int, int, Callable[[], int]]] = []
        self._gauges: list[tuple[int, Callable[[], int]]] = []

    def counter(self, cell: WorkerCell | StoreCell, read: Callable[[], int]) -> None:
        """Add what ``read`` returns, which begins at 0 and never falls, to what the cell holds already."""
        self._counters.append((int(cell), self._cells[cell], read))

    def gauge(self, cell: WorkerCell | StoreCell, read: Callable[[], int]) -> None:
        """Let the cell hold what ``read`` returns."""
        self._gauges.append((int(cell), read))

    def publish(self) -> None:
        """Carry all numbers over."""
        cells = self._cells
        for cell, base, read in self._counters:
            cells[cell] = base + read()
        for cell, read in self._gauges:
            cells[cell] = read()

    def note_lag(self, late_s: float) -> None:
        """Count by how much a timer of the loop was late."""
        late_s = max(0.0, late_s)
        cells = self._cells
        cells[WorkerCell.LAG + bisect_left(LAG_BOUNDS_S, late_s)] += 1
        cells[WorkerCell.LAG_NS] += int(late_s * 1e9)
