"""The numbers behind the console's charts, as JSON: counters as they are now, of the whole server.

It counts nothing itself and keeps nothing: the browser takes differences. So it costs what one scrape of
`/metrics` does, when somebody looks, and nothing otherwise.

Invariants
1. Services and views are those of the plan, whatever earlier definitions have left in shared memory.
2. Numbers only grow while ``started_s`` stays the same, but for ``workers``, ``views`` and the gauges.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import orjson

from fastserve.server.exchange import Exchange, Headers
from fastserve.server.metrics_memory import WORKER
from fastserve.server.metrics_page import MetricsPage
from fastserve.server.metrics_table import (
    LAG_BOUNDS_S,
    LATENCY_BOUNDS_S,
    SERVICE_CELLS,
    WORKER_CELLS,
    Of,
    ServiceCell,
    StoreCell,
    WorkerCell,
)
from fastserve.serving.on_demand_times import Stat
from fastserve.wire.http1_answer import JSON

_SERVER = {"shed": WorkerCell.SHED, "ingest_records": WorkerCell.INGEST_RECORDS}
_STORES = {
    "store_calls": StoreCell.CALLS,
    "store_keys": StoreCell.KEYS,
    "store_joined": StoreCell.JOINED,
    "store_retries": StoreCell.RETRIES,
    "store_throttles": StoreCell.THROTTLES,
    "store_failed_reads": StoreCell.FAILURES,
}
"""Of all stores together."""


class LiveNumbers:
    """Answers `/console/live.json`; ``now_s`` is a clock that never goes back."""

    def __init__(
        self,
        metrics: MetricsPage,
        services: Collection[str],
        computed: Collection[str],
        serving_url: str,
        now_s: Callable[[], float],
        headers: Headers,
    ) -> None:
        self._metrics = metrics
        self._services = tuple(services)
        self._computed = tuple(computed)
        self._serving_url = serving_url
        self._now_s = now_s
        self._headers = tuple(headers)

    def __call__(self, exchange: Exchange) -> None:
        """Answer ``exchange``."""
        exchange.respond(200, orjson.dumps(self.numbers()), JSON, self._headers)

    def numbers(self) -> dict[str, Any]:
        """Return all numbers as they are now."""
        snapshot = self._metrics.snapshot()
        of_services = snapshot.everyone[Of.SERVICE]
        of_computed = snapshot.everyone[Of.ON_DEMAND]
        everyone = snapshot.everyone[Of.SERVER][WORKER]
        living = snapshot.living[Of.SERVER][WORKER]
        stores = snapshot.everyone[Of.STORE].values()
        return {
            "now_s": self._now_s(),
            "started_s": self._metrics.started_s,
            "serving_url": self._serving_url,
            "latency_bounds_s": LATENCY_BOUNDS_S,
            "lag_bounds_s": LAG_BOUNDS_S,
            "services": {name: _service(of_services[name]) for name in self._services},
            "on_demand": {name: _computed(of_computed[name]) for name in self._computed},
            "server": {
                **{name: everyone[cell] for name, cell in _SERVER.items()},
                **{name: sum(cells[cell] for cells in stores) for name, cell in _STORES.items()},
                "lag": everyone[WorkerCell.LAG : WORKER_CELLS],
                "in_flight": living[WorkerCell.IN_FLIGHT],
            },
            "views": dict(self._metrics.ages()),
            "workers": self._metrics.worker_states(),
        }


def _computed(cells: list[int]) -> Mapping[str, int]:
    return {
        "vectors": cells[Stat.LINES],
        "took_ns": cells[Stat.SUM_NS],
        "failures": cells[Stat.FAILURES],
    }


def _service(cells: list[int]) -> Mapping[str, Any]:
    return {
        "answers": cells[ServiceCell.OK : ServiceCell.SERVER_ERRORS + 1],
        "vectors": cells[ServiceCell.VECTORS],
        "rows": cells[ServiceCell.ROWS],
        "missing": cells[ServiceCell.MISSING],
        "latency": cells[ServiceCell.LATENCY : SERVICE_CELLS],
    }
