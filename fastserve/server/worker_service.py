"""What a worker builds for itself after the fork: the store, the engine over it, the application.

Compiled plans are made before the fork and shared; whatever has a connection, a file or a timer is made here.

Invariants
1. A worker is ready only when its main store has answered once; named ones may come later.
2. What was opened is closed, also when the start fails half-way.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

from fastserve.config import Settings
from fastserve.errors import InvariantError
from fastserve.ingest.events import SourceFeed
from fastserve.ingest.registry import Registry
from fastserve.ingest.stream import Ingestor, IngestSettings
from fastserve.plan.service import WorkspacePlan
from fastserve.server.admin import AdminApplication
from fastserve.server.application import ApplicationLimits, FeatureApplication
from fastserve.server.complaints import Complaints
from fastserve.server.described import Described, show
from fastserve.server.exchange import Application
from fastserve.server.feast_handler import FeastHandler
from fastserve.server.feature_log import FeatureLog
from fastserve.server.ingest_handler import IngestHandler
from fastserve.server.key_file import WATCH_EVERY_S, KeyFile
from fastserve.server.loop_probe import LoopProbe
from fastserve.server.memory import keep_freed_memory
from fastserve.server.metrics_memory import MetricsMemory
from fastserve.server.metrics_page import version_text
from fastserve.server.on_demand_pool import OnDemandPool
from fastserve.server.on_demand_process import Nursery
from fastserve.server.trace_export import TraceExport, traces_url
from fastserve.server.tracing import TracingApplication, traced_reader
from fastserve.server.watermarks import WatermarkPoll
from fastserve.server.worker import WorkerContext
from fastserve.server.worker_metrics import WorkerMetrics
from fastserve.serving.admission import Admission
from fastserve.serving.engine import Engine
from fastserve.serving.items import item_row
from fastserve.serving.on_demand import Surroundings
from fastserve.serving.ready import Turns
from fastserve.serving.row_cache import RowCache
from fastserve.serving.stores import MakeReader, StoreTransports
from fastserve.serving.transport import BASE64_ROWS, RAW_ROWS, RowTransport
from fastserve.store.addresses import StoreAddresses, addresses
from fastserve.store.interface import OnlineStore
from fastserve.store.mixed import MixedStore, main_of
from fastserve.store.url import DynamoDBSettings, parse_store_url
from fastserve.tiles.blocks import BlockShape
from fastserve.tiles.layout import RowLayout

READ_LAG_S = 1.0
"""How far an eventually consistent read may lie behind: rarely a second."""


def row_transport(store_url: str) -> RowTransport:
    """Return the form in which a store's rows come."""
    return BASE64_ROWS if isinstance(parse_store_url(store_url), DynamoDBSettings) else RAW_ROWS


def row_transports(where: StoreAddresses) -> StoreTransports:
    """Return the forms in which rows come from a workspace's stores."""
    named = {name: row_transport(url) for name, url in where.named.items()}
    return StoreTransports(row_transport(where.main), named)


class WorkerService:
    """The feature server's life in one worker."""

    def __init__(
        self,
        settings: Settings,
        plan: WorkspacePlan,
        context: WorkerContext,
        metrics: MetricsMemory,
        described: Described,
        nursery: Nursery | None,
        feeds: Mapping[str, SourceFeed] = MappingProxyType({}),
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._feeds = feeds
        self._ingest: IngestHandler | None = None
        self._context = context
        self._numbers = metrics
        self._described = described
        self._metrics: WorkerMetrics | None = None
        self._nursery = nursery
        self._pool: OnDemandPool | None = None
        self._store: OnlineStore | None = None
        self._engine: Engine | None = None
        self._application: FeatureApplication | None = None
        self._probe: LoopProbe | None = None
        self._keys: KeyFile | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._watermarks: WatermarkPoll | None = None
        self._admin: AdminApplication | None = None
        self._cache: RowCache | None = None
        self._feature_log: FeatureLog | None = None
        self._traces: TraceExport | None = None
        self._traced: TracingApplication | None = None

    @property
    def application(self) -> Application:
        """What answers exchanges."""
        if self._application is None:
            raise InvariantError("the application was asked for before the service had started")
        return self._feature_log or self._traced or self._application

    @property
    def admin(self) -> Application | None:
        """What answers the admin listener."""
        return self._admin

    async def start(self) -> None:
        """Open the store, read what it knows of older rows, and connect the engine.

        Raises:
            FastserveError: the store can't be opened or doesn't answer.
        """
        try:
            await self._start()
        except BaseException:  # also when it is told to end meanwhile
            with suppress(Exception):  # what kept it from starting is what is to be told
                await self.stop()
            raise

    async def _start(self) -> None:
        keep_freed_memory()
        loop = asyncio.get_running_loop()
        where = addresses(self._settings.store, self._settings.stores, self._plan.homes)
        self._store = await where.open(
            may_lack=True,
            read_timeout_s=self._settings.store_timeout_ms / 1000,
            connections=self._settings.store_connections,
            hedge_floor_s=self._settings.hedge_floor_ms / 1000,
        )
        engine = await self._made_engine(loop, where, self._store)
        self._engine = engine
        limits = ApplicationLimits(self._settings.server_timeout_ms / 1000, self._settings.max_batch_rows)
        admission = self._admission(loop, engine)
        self._application = FeatureApplication(
            self._plan.workspace,
            engine,
            self._context.state,
            # The loop's own clock has milliseconds only.
            time.monotonic,
            loop.call_later,
            limits,
            await self._ingest_handler(self._store),
            self._watched_keys(loop),
            admission,
            self._feast_handler(loop, engine, admission, limits),
        )
        self._application.describe(self._described.openapi)
        if self._context.options.admin_port is not None:
            self._admin = AdminApplication(self._context.state)
        if self._settings.trace_endpoint is not None:
            self._trace(self._settings.trace_endpoint, self._application)
        if self._admin is not None or self._settings.slow_request_ms is not None or self._traces is not None:
            self._measure(loop, engine, self._application)
        if self._settings.feature_log is not None:
            folder, every = Path(self._settings.feature_log), self._settings.feature_log_every
            application = self._traced or self._application
            self._feature_log = FeatureLog(application, folder, every, random.random, loop)
            self._feature_log.start()
        if self._probe is not None:
            self._probe.start()

    async def _made_engine(
        self, loop: asyncio.AbstractEventLoop, where: StoreAddresses, store: OnlineStore
    ) -> Engine:
        """Return the engine, connected to the hot sides of its stores."""
        layouts = await _known_layouts(store, self._plan)
        shapes: dict[str, dict[int, BlockShape]] = {}
        engine = Engine(
            self._plan,
            row_transports(where),
            schedule=_scheduler(loop, self._settings.linger_us / 1e6),
            clock_ns=_clock(self._settings.clock_ns),
            turns=Turns(loop.call_soon, time.monotonic, time.thread_time),
            old_layouts=layouts,
            transcode_item=item_row,
            surroundings=self._surroundings(loop),
            old_shapes=shapes,
        )
        registry = Registry(store, self._plan.workspace)
        # Whoever joins a read just before it is answered may wait as long again for its other reads.
        settle_s = 2 * self._settings.server_timeout_ms / 1e3 + READ_LAG_S
        self._watermarks = WatermarkPoll(registry, self._plan, engine.watermarks, shapes, settle_s)
        await self._watermarks.start()
        kept_bytes = self._settings.row_cache_bytes
        self._cache = RowCache(kept_bytes) if kept_bytes else None
        main: MakeReader = main_of(store).reader
        named: dict[str, MakeReader] = {}
        if isinstance(store, MixedStore):
            named |= store.named_readers
        if self._settings.trace_endpoint is not None:
            main = traced_reader(main)
            named = {name: traced_reader(reader, name) for name, reader in named.items()}
        engine.attach(main, self._cache, named)
        return engine

    def _feast_handler(
        self, loop: asyncio.AbstractEventLoop, engine: Engine, admission: Admission, limits: ApplicationLimits
    ) -> FeastHandler | None:
        plan = self._plan.feast
        if plan is None:
            return None
        clock_ns = _clock(self._settings.clock_ns)
        bounds = (limits.server_timeout_s, limits.max_batch_rows)
        return FeastHandler(plan, engine, admission, clock_ns, time.monotonic, loop.call_later, *bounds)

    def _trace(self, endpoint: str, application: FeatureApplication) -> None:
        resource = {
            "service.version": version_text(),
            "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
            "fastserve.workspace": self._plan.workspace,
            "fastserve.worker": str(self._context.index),
        }
        self._traces = TraceExport(traces_url(endpoint), resource)
        self._traced = TracingApplication(
            application, self._settings.trace_sample, random.random, self._traces.take
        )
        self._traces.start()

    def _measure(
        self, loop: asyncio.AbstractEventLoop, engine: Engine, application: FeatureApplication
    ) -> None:
        clock_ns = _clock(self._settings.clock_ns)
        metrics = self._metrics = WorkerMetrics(self._numbers, self._context, self._plan, loop, clock_ns)
        metrics.cover(engine, application, self._settings.slow_request_ms, traced=self._traces is not None)
        if self._traces is not None:
            metrics.watch_traces(self._traces)
        if self._store is not None and self._admin is not None:
            metrics.watch_store(self._store)
        if self._cache is not None:
            metrics.watch_cache(self._cache)
        if self._ingest is not None:
            metrics.watch_ingest(self._ingest)
        if self._admin is not None:
            self._admin.add("/metrics", metrics.page)
            show(self._described, self._admin, metrics.page, application, self._context.serving_url)
        metrics.start()

    async def _ingest_handler(self, store: OnlineStore) -> IngestHandler:
        settings = IngestSettings(self._settings.ingest_max_future_s, self._settings.ingest_timeout_ms / 1000)
        clock_ns = _clock(self._settings.clock_ns)
        ingestor = Ingestor(self._plan.workspace, self._feeds, store, settings, clock_ns)
        if self._feeds:
            await ingestor.load_shapes()
        self._ingest = IngestHandler(ingestor)
        return self._ingest

    def _watched_keys(self, loop: asyncio.AbstractEventLoop) -> KeyFile | None:
        if self._settings.api_keys is not None:
            self._keys = KeyFile(self._settings.api_keys, time.time_ns)
            self._watch_keys(loop)
        return self._keys

    def _watch_keys(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._keys is not None:
            self._keys.watch()
            self._watch = loop.call_later(WATCH_EVERY_S, self._watch_keys, loop)

    def _surroundings(self, loop: asyncio.AbstractEventLoop) -> Surroundings:
        if self._nursery is not None:
            self._pool = OnDemandPool(self._nursery, loop)
            self._pool.start()
        times = self._numbers.on_demand.of_worker(self._context.index)
        return Surroundings(time.perf_counter_ns, Complaints(time.monotonic), self._pool, times)

    def _admission(self, loop: asyncio.AbstractEventLoop, engine: Engine) -> Admission:
        settings = self._settings
        admission = Admission(
            settings.max_in_flight,
            settings.overload_wait_ms / 1000,
            has_priorities=settings.api_keys is not None,
        )
        # Only the main store's line tells of overload: another's may be long because that one is gone.
        store = None if self._store is None else main_of(self._store)
        waiting, ready = engine.waiting, engine.ready
        self._probe = LoopProbe(loop, admission, store, waiting, ready, lambda: self._expire(loop))
        return admission

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._engine is not None:
            self._engine.expire(loop.time())

    async def stop(self) -> None:
        """Close the store, and end the helper processes."""
        if self._feature_log is not None:
            await self._feature_log.close()
        if self._traces is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._traces.close)
        if self._probe is not None:
            self._probe.stop()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._watermarks is not None:
            await self._watermarks.stop()
        if self._pool is not None:
            await self._pool.close()
        if self._ingest is not None:
            await self._ingest.close()
        if self._metrics is not None:
            self._metrics.stop()  # after all that is counted has ended
        if self._store is not None:
            await self._store.close()


async def _known_layouts(store: OnlineStore, plan: WorkspacePlan) -> Mapping[str, Mapping[int, RowLayout]]:
    """Return the layouts that older rows may have; none where the store doesn't know the workspace."""
    registry = Registry(store, plan.workspace)
    return await registry.layouts(list(plan.views)) if await registry.exists() else {}


def _clock(fixed_ns: int | None) -> Callable[[], int]:
    return time.time_ns if fixed_ns is None else lambda: fixed_ns


def _scheduler(loop: asyncio.AbstractEventLoop, linger_s: float) -> Callable[[Callable[[], None]], object]:
    """Return how a flush is put off: to the end of the loop's turn, or by the linger."""
    if linger_s:
        return lambda flush: loop.call_later(linger_s, flush)
    return loop.call_soon
