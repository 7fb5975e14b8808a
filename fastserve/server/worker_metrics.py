"""One worker's part in the metrics: what it counts is connected here, and `/metrics` is what it shows.

It exists only where there is an admin listener or slow requests are logged; `server.metrics` has the counting
itself.

Invariants
1. Nothing is counted before `start`; `stop` carries over what was.
2. The registry is asked by one worker at a time as a rule, the first of those that are ready, and never on
   behalf of a request. That it can't be asked is no failure of the worker's: ages then grow.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic, time_ns

from fastserve.errors import StoreError
from fastserve.ingest.registry import Registry
from fastserve.plan.service import WorkspacePlan
from fastserve.server.application import FeatureApplication
from fastserve.server.feast_handler import counted_services
from fastserve.server.ingest_handler import IngestHandler
from fastserve.server.metrics import (
    LAG_EVERY_S,
    PUBLISH_EVERY_S,
    MeasuredEvaluator,
    Publisher,
    ViewRows,
    make_meter,
)
from fastserve.server.metrics_memory import WORKER, MetricsMemory
from fastserve.server.metrics_page import MetricsPage
from fastserve.server.metrics_table import ViewCell, WorkerCell
from fastserve.server.shared_memory import Cell, State
from fastserve.server.slow_log import (
    Quota,
    SlowMeter,
    TimedAnswer,
    TimedFeastAnswer,
    TimedWeighedAnswer,
)
from fastserve.server.store_metrics import StoreMetrics
from fastserve.server.trace_export import TraceExport
from fastserve.server.tracing import TracedAnswer, TracedWeighedAnswer
from fastserve.server.worker import WorkerContext
from fastserve.serving.engine import Engine
from fastserve.serving.row_cache import RowCache
from fastserve.store.interface import OnlineStore

LOGGER = logging.getLogger("fastserve")
LOOK_EVERY_S = 15.0
"""How often ages are looked up: one read of as many keys as there are views."""


class WorkerMetrics:
    """What a worker counts, from its boot to its end."""

    def __init__(
        self,
        memory: MetricsMemory,
        context: WorkerContext,
        plan: WorkspacePlan,
        loop: asyncio.AbstractEventLoop,
        clock_ns: Callable[[], int],
    ) -> None:
        self._life = context.state.memory
        self._index = context.index
        self._plan = plan
        self._loop = loop
        self._worker = memory.workers.row(context.index)[WORKER]
        self._services = memory.services.row(context.index)
        self._views = memory.views.row(context.index)
        self._publisher = Publisher(self._worker)
        self._view_rows = ViewRows(self._views)
        self._stores = StoreMetrics(memory.stores.row(context.index))
        self.page = MetricsPage(
            memory, self._life, plan.workspace, plan.views, clock_ns, self._carry_over, loop.call_soon
        )
        self._registry: Registry | None = None
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._look: asyncio.Task[None] | None = None

    def cover(
        self,
        engine: Engine,
        application: FeatureApplication,
        slow_request_ms: int | None = None,
        *,
        traced: bool = False,
    ) -> None:
        """Count the requests and evaluations of all services; tell of requests that take so long."""
        for name, runtime in engine.services.items():
            views = [place.view.name for place in runtime.plan.places]
            measured = MeasuredEvaluator(runtime.evaluator, self._services[name], len(views))
            runtime.evaluator = measured
            self._view_rows.add(measured, views)
        meters = {name: make_meter(self._services[name]) for name in counted_services(self._plan)}
        if slow_request_ms is not None:
            quota, slow_s = Quota(), slow_request_ms / 1000
            meters = {name: SlowMeter(name, slow_s, quota, meter) for name, meter in meters.items()}
        if traced:
            application.measure(meters, TracedAnswer, TracedWeighedAnswer, TimedFeastAnswer)
        elif slow_request_ms is not None:
            application.measure(meters, TimedAnswer, TimedWeighedAnswer, TimedFeastAnswer)
        else:
            application.measure(meters)
        counter, gauge = self._publisher.counter, self._publisher.gauge
        gauge(WorkerCell.IN_FLIGHT, lambda: engine.in_flight)
        self._stores.cover(engine)
        counter(WorkerCell.SHED, lambda: application.admission.refused)
        gauge(WorkerCell.SHEDDING, lambda: int(application.admission.is_shedding))
        row = self._life.workers[self._index]
        counter(WorkerCell.ACCEPTED, lambda: row[Cell.ACCEPTED])
        counter(WorkerCell.ANSWERS_CLIENT_ERROR, lambda: row[Cell.CLIENT_ERRORS])
        counter(WorkerCell.ANSWERS_SERVER_ERROR, lambda: row[Cell.SERVER_ERRORS])
        errors = (Cell.CLIENT_ERRORS, Cell.SERVER_ERRORS)
        counter(WorkerCell.ANSWERS_OK, lambda: row[Cell.ANSWERS] - sum(row[cell] for cell in errors))

    def watch_store(self, store: OnlineStore) -> None:
        """Count what the hot sides of stores go through, and look up the ages of views."""
        self._registry = Registry(store, self._plan.workspace)
        self._stores.watch(store)

    def watch_cache(self, cache: RowCache) -> None:
        """Count what the worker's cache of rows gives out."""
        self._publisher.counter(WorkerCell.CACHE_HITS, lambda: cache.hits)
        self._publisher.counter(WorkerCell.CACHE_MISSES, lambda: cache.misses)
        self._publisher.counter(WorkerCell.CACHE_STALE, lambda: cache.stale)
        self._publisher.gauge(WorkerCell.CACHE_BYTES, lambda: cache.bytes)

    def watch_traces(self, export: TraceExport) -> None:
        """Count traces."""
        self._publisher.counter(WorkerCell.TRACES_SENT, lambda: export.sent)
        self._publisher.counter(WorkerCell.TRACES_DROPPED, lambda: export.dropped)

    def watch_ingest(self, handler: IngestHandler) -> None:
        """Count pushed records."""
        counter = self._publisher.counter
        counter(WorkerCell.INGEST_REQUESTS, lambda: handler.requests)
        counter(WorkerCell.INGEST_RECORDS, lambda: handler.records)
        counter(WorkerCell.INGEST_REFUSED, lambda: handler.refused)
        counter(WorkerCell.INGEST_WRITES, lambda: handler.written.writes)
        counter(WorkerCell.INGEST_CONFLICTS, lambda: handler.written.conflicts)
        counter(WorkerCell.INGEST_REPEATS, lambda: handler.written.repeats)

    def start(self) -> None:
        """Begin to count."""
        self._worker[WorkerCell.STARTS] += 1
        self._publish()
        self._sample_lag(monotonic() + LAG_EVERY_S)
        self._look_up()

    def stop(self) -> None:
        """Carry over what has been counted, and end."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._look is not None:
            self._look.cancel()
        self._carry_over()

    def _carry_over(self) -> None:
        self._publisher.publish()
        self._view_rows.publish()
        self._stores.publish()

    def _publish(self) -> None:
        self._carry_over()
        self._timers["publish"] = self._loop.call_later(PUBLISH_EVERY_S, self._publish)

    def _sample_lag(self, due_s: float) -> None:
        def on_time() -> None:
            now_s = monotonic()
            self._publisher.note_lag(now_s - due_s)
            self._sample_lag(now_s + LAG_EVERY_S)

        self._timers["lag"] = self._loop.call_later(due_s - monotonic(), on_time)

    # --- the ages of views ------------------------------------------------------------------------------

    def _look_up(self) -> None:
        ready = [row.state is State.READY for row in self._life.workers[: self._index]]
        if not any(ready) and (self._look is None or self._look.done()):
            self._look = self._loop.create_task(self._looked_up())
        self._timers["look"] = self._loop.call_later(LOOK_EVERY_S, self._look_up)

    async def _looked_up(self) -> None:
        if self._registry is None:
            return
        try:
            if not await self._registry.exists():
                return
            records = await self._registry.materialized(list(self._plan.views))
        except StoreError as error:
            LOGGER.warning("the age of views can't be looked up: %s", error)
            return
        for view, record in records.items():
            cells = self._views[view]
            cells[ViewCell.EFFECTIVE_NS] = 0 if record is None else record.as_of_ns
            cells[ViewCell.LOOKED_NS] = time_ns()
