"""What is made before a worker has a loop: memory and pages of all workers, the nursery of each.

What stores need of libraries is imported here, too, so that workers share it. Whatever has a connection, a
file or a timer is made by `server.worker_service`.

Invariants
1. `make_boot` is called before the fork: it opens nothing and starts no thread.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fastserve.config import Settings
from fastserve.ingest.definition import rows_digest
from fastserve.ingest.events import SourceFeed
from fastserve.ingest.stream import source_feeds
from fastserve.plan.service import WorkspacePlan
from fastserve.sdk.on_demand import OnDemandFeatureView
from fastserve.server.described import Described, describe
from fastserve.server.feast_handler import counted_services
from fastserve.server.metrics_memory import MetricsMemory
from fastserve.server.on_demand_process import Nursery, start_nursery
from fastserve.server.trace_export import trace_exporter
from fastserve.server.worker import WorkerContext
from fastserve.server.worker_service import WorkerService
from fastserve.store.addresses import addresses
from fastserve.store.url import DynamoDBSettings, RedisSettings, parse_store_url

LIBRARIES: Mapping[type, str] = {DynamoDBSettings: "aiobotocore.session", RedisSettings: "redis.asyncio"}
"""What stores need, once before the fork: aiobotocore is 25 MB of modules and a third of a second."""


def make_boot(settings: Settings, plan: WorkspacePlan, metrics: MetricsMemory) -> FeatureBoot:
    """Return what each worker calls to get its service; made before the fork.

    ``metrics`` is the server's one, handed over again by every reload.
    """
    where = addresses(settings.store, settings.stores, plan.homes)
    for url in (where.main, *where.named.values()):
        library = LIBRARIES.get(type(parse_store_url(url)))
        if library is not None:
            importlib.import_module(library)
    if settings.trace_endpoint is not None:
        importlib.import_module(trace_exporter(settings.trace_endpoint))
    for view in plan.views.values():
        if view.is_streamed:
            rows_digest(view)  # while its file is what it was made of: workers ask for it whenever they begin
    metrics.declare(counted_services(plan), plan.views, on_demand_views(plan), where.named)
    return FeatureBoot(settings, plan, metrics, describe(settings, plan), source_feeds(plan.views.values()))


def on_demand_views(plan: WorkspacePlan) -> dict[str, OnDemandFeatureView[..., Any]]:
    """Return the on-demand views that any service runs, by name."""
    return {view.name: view.view for service in plan.services.values() for view in service.on_demand}


class FeatureBoot:
    """Makes the feature server's service in each worker."""

    def __init__(
        self,
        settings: Settings,
        plan: WorkspacePlan,
        metrics: MetricsMemory,
        described: Described,
        feeds: Mapping[str, SourceFeed] = MappingProxyType({}),
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._metrics = metrics
        self._described = described
        self._feeds = feeds
        self._nursery: Nursery | None = None

    def before_loop(self, foreign_fds: Sequence[int]) -> None:
        """Fork the parent of the helper processes, if there are views for them."""
        views = on_demand_views(self._plan)
        isolated = {name: view for name, view in views.items() if view.isolation == "process"}
        if isolated:
            self._nursery = start_nursery(isolated, foreign_fds)

    def __call__(self, context: WorkerContext) -> WorkerService:
        """Return the service of one worker."""
        return WorkerService(
            self._settings, self._plan, context, self._metrics, self._described, self._nursery, self._feeds
        )
