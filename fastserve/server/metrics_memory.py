"""All numbers of a server for its metrics, in memory that its processes share.

Made once, before the first fork, and handed to every generation of workers; it knows nothing of how numbers
are shown.

Invariants
1. As `NamedCells`': one writer per cell, nothing is ever cleared, `declare` comes before the fork.
"""

from __future__ import annotations

from collections.abc import Collection
from time import time

from fastserve.plan.stores import MAIN_LABEL
from fastserve.server.metrics_table import SERVICE_CELLS, STORE_CELLS, VIEW_CELLS, WORKER_CELLS
from fastserve.server.named_cells import NamedCells
from fastserve.server.on_demand_memory import OnDemandMemory

WORKER = ""


class MetricsMemory:
    """The cells of ``rows`` workers: of each, of its services, views and stores."""

    def __init__(self, rows: int) -> None:
        self.started_s = time()
        self.workers = NamedCells(WORKER_CELLS, rows)
        self.workers.add([WORKER])
        self.services = NamedCells(SERVICE_CELLS, rows)
        self.views = NamedCells(VIEW_CELLS, rows)
        self.stores = NamedCells(STORE_CELLS, rows)
        self.stores.add([MAIN_LABEL])
        self.on_demand = OnDemandMemory((), rows)

    def declare(
        self,
        services: Collection[str],
        views: Collection[str],
        on_demand: Collection[str],
        stores: Collection[str] = (),
    ) -> None:
        """Make room for what is new; what is known keeps its numbers, also where it isn't served any more.

        ``stores`` are the names of those beside the main one.
        """
        self.services.add(services)
        self.views.add(views)
        self.on_demand.add(on_demand)
        self.stores.add(stores)
