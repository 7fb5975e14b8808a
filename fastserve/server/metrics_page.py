"""`/metrics`: the numbers of the whole server, out of shared memory, by whichever worker is asked.

What is counted where is said by `server.metrics_table`; how it is written by `server.metrics_text`.

Invariants
1. It asks no other process: what it shows lies in shared memory or in /proc.
2. A gauge counts living workers and views of the plan only, a counter all that ever were.
3. Numbers are read at once, but written so many lines a turn of the loop: those of 50 services and 32 workers
   take 10 ms, for which no request is to wait.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, islice
from os import sysconf
from pathlib import Path

from fastserve.compiled import has_loops, is_compiled
from fastserve.server.exchange import Exchange
from fastserve.server.metrics_memory import MetricsMemory
from fastserve.server.metrics_table import METRICS, Kind, Metric, Of, ViewCell
from fastserve.server.metrics_text import CONTENT_TYPE, Sample, family, histogram
from fastserve.server.named_cells import Numbers
from fastserve.server.shared_memory import Cell, SharedMemory, State

LINES_A_TURN = 100
"""Half a millisecond."""

Totals = Mapping[str, list[int]]
"""Cells by name, over all rows."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All numbers at one moment: ``everyone``'s and the ``living`` workers', by owner and name."""

    everyone: Mapping[Of, Totals]
    living: Mapping[Of, Totals]


class MetricsPage:
    """Answers `/metrics`. ``clock_ns`` is the request clock, by which ``views``, the plan's, have an age.

    ``before`` is called first: this worker's own numbers are then as of now. ``schedule`` calls a function in
    the loop's next turn.
    """

    def __init__(
        self,
        memory: MetricsMemory,
        life: SharedMemory,
        workspace: str,
        views: Collection[str],
        clock_ns: Callable[[], int],
        before: Callable[[], None],
        schedule: Callable[[Callable[[], None]], object],
    ) -> None:
        self._memory = memory
        self._life = life
        self._workspace = workspace
        self._views = tuple(views)
        self._clock_ns = clock_ns
        self._before = before
        self._schedule = schedule
        self._found: Mapping[str, Callable[[], Iterator[Sample]]] = {
            "fastserve_view_age_seconds": self._ages,
            "fastserve_view_rows_total": lambda: self._of_views(ViewCell.ROWS),
            "fastserve_view_missing_rows_total": lambda: self._of_views(ViewCell.MISSING),
            "fastserve_connections": self._connections,
            "fastserve_workers": self._workers,
            "fastserve_worker_resident_memory_bytes": self._resident,
            "fastserve_start_time_seconds": self._start,
            "fastserve_build_info": self._build,
        }

    def __call__(self, exchange: Exchange) -> None:
        """Answer ``exchange`` in some turns of the loop."""
        self._go_on(exchange, self.lines(), [])

    def _go_on(self, exchange: Exchange, lines: Iterator[str], written: list[str]) -> None:
        before = len(written)
        written += islice(lines, LINES_A_TURN)
        if len(written) - before == LINES_A_TURN:
            self._schedule(lambda: self._go_on(exchange, lines, written))
        else:
            exchange.respond(200, "\n".join([*written, ""]).encode(), CONTENT_TYPE)

    def lines(self) -> Iterator[str]:
        """Give all metrics, with their numbers as they are now."""
        snapshot = self.snapshot()
        return chain.from_iterable(
            family(metric.name, metric.kind, metric.help, self._samples(metric, snapshot))
            for metric in METRICS
        )

    def snapshot(self) -> Snapshot:
        """Return all counted numbers as they are now."""
        self._before()
        alive = [row.state is not State.ABSENT for row in self._life.workers]
        workers, stores = self._memory.workers.numbers(), self._memory.stores.numbers()
        return Snapshot(
            {
                Of.SERVER: _sums(workers),
                Of.SERVICE: _sums(self._memory.services.numbers()),
                Of.STORE: _sums(stores),
                Of.ON_DEMAND: _sums(self._memory.on_demand.numbers()),
            },
            {
                of: _sums({name: each[alive] for name, each in numbers.items()})
                for of, numbers in ((Of.SERVER, workers), (Of.STORE, stores))
            },
        )

    @property
    def started_s(self) -> float:
        """When the server was started, since the epoch."""
        return self._memory.started_s

    def ages(self) -> Iterator[tuple[str, float]]:
        """Give the plan's views whose rows have an age, with it in seconds."""
        now_ns = self._clock_ns()
        numbers = self._memory.views.numbers()
        for view in self._views:
            cells = numbers[view]
            latest = cells[cells[:, ViewCell.LOOKED_NS].argmax()]
            if latest[ViewCell.EFFECTIVE_NS]:
                yield view, (now_ns - int(latest[ViewCell.EFFECTIVE_NS])) / 1e9

    def worker_states(self) -> list[dict[str, str | int]]:
        """Return what the workers that live are doing, and how many connections each has."""
        return [
            {"worker": number, "state": row.state.name.lower(), "connections": row[Cell.CONNECTIONS]}
            for number, row in enumerate(self._life.workers)
            if row.state is not State.ABSENT
        ]

    def _samples(self, metric: Metric, snapshot: Snapshot) -> Iterator[Sample]:
        if not metric.cells:
            yield from self._found[metric.name]()
            return
        for name, cells in (snapshot.living if metric.live else snapshot.everyone)[metric.of].items():
            labels = {metric.of.value: name} if metric.of.value else {}
            if metric.kind is Kind.HISTOGRAM:
                (_, first), (_, total) = metric.cells
                counts = cells[first : first + len(metric.bounds_s) + 1]
                yield from histogram(labels, counts, metric.bounds_s, cells[total] * metric.scale)
                continue
            for value, cell in metric.cells:
                own = {metric.label: value} if metric.label else {}
                yield Sample({**labels, **own}, cells[cell] * metric.scale)

    # --- what nobody counts -----------------------------------------------------------------------------

    def _ages(self) -> Iterator[Sample]:
        for view, age_s in self.ages():
            yield Sample({"view": view}, age_s)

    def _of_views(self, cell: ViewCell) -> Iterator[Sample]:
        for view, cells in self._memory.views.numbers().items():
            yield Sample({"view": view}, int(cells[:, cell].sum()))

    def _connections(self) -> Iterator[Sample]:
        yield Sample({}, sum(row[Cell.CONNECTIONS] for row in self._life.workers))

    def _workers(self) -> Iterator[Sample]:
        states = [row.state for row in self._life.workers]
        for state in (State.BOOTING, State.READY, State.DRAINING):
            yield Sample({"state": state.name.lower()}, states.count(state))

    def _resident(self) -> Iterator[Sample]:
        for number, row in enumerate(self._life.workers):
            resident_bytes = _resident_bytes(row[Cell.PID])
            if resident_bytes:
                yield Sample({"worker": str(number)}, resident_bytes)

    def _start(self) -> Iterator[Sample]:
        yield Sample({}, self._memory.started_s)

    def _build(self) -> Iterator[Sample]:
        labels = {
            "version": version_text(),
            "python": platform.python_version(),
            "compiled": "yes" if is_compiled() else "loops" if has_loops() else "no",
            "workspace": self._workspace,
        }
        yield Sample(labels, 1)


def _sums(numbers: Mapping[str, Numbers]) -> dict[str, list[int]]:
    return {name: each.sum(axis=0).tolist() for name, each in numbers.items()}


def _resident_bytes(pid: int) -> int:
    """Return how much memory a process holds; 0 where it has gone, or where the system doesn't tell."""
    if not pid:
        return 0
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * sysconf("SC_PAGE_SIZE")


@cache
def version_text() -> str:
    """Return the version of the installed package."""
    try:
        return version("fastserve")
    except PackageNotFoundError:
        return "unknown"
