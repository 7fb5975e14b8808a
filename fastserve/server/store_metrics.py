"""What a worker counts of each of its stores: the reads that it asks for, and what becomes of them.

It knows no store by its kind, and nothing of how numbers are shown.

Invariants
1. Each store has cells of its own: one that is away is seen, however little is read from it.
2. A store that opens late is counted from then on; one that counts nothing shows zeros.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter

from fastserve.plan.stores import MAIN_LABEL
from fastserve.server.loop_probe import HasLine
from fastserve.server.metrics import Publisher
from fastserve.server.metrics_table import StoreCell
from fastserve.serving.engine import Engine
from fastserve.serving.on_demand_times import Cells
from fastserve.store.counts import Counting, StoreCounts
from fastserve.store.interface import OnlineStore
from fastserve.store.mixed import one_of

GAUGES = (StoreCell.KEYS_IN_FLIGHT, StoreCell.CIRCUITS_OPEN, StoreCell.CALLS_WAITING)
_COUNTED = {
    StoreCell.UNPROCESSED: "unprocessed",
    StoreCell.RETRIES: "retries",
    StoreCell.THROTTLES: "throttles",
    StoreCell.TIMEOUTS: "timeouts",
    StoreCell.FAILURES: "failures",
    StoreCell.HEDGES: "hedges",
    StoreCell.HEDGES_WON: "hedges_won",
    StoreCell.CIRCUIT_OPENED: "circuit_opened",
}


class StoreMetrics:
    """One worker's numbers of its stores; ``cells`` are those of its row, by label."""

    def __init__(self, cells: Mapping[str, Cells]) -> None:
        self._cells = cells
        self._publishers: dict[str, Publisher] = {}
        for each in cells.values():  # of a predecessor that was killed, or had stores that are no more
            for gauge in GAUGES:
                each[gauge] = 0

    def cover(self, engine: Engine) -> None:
        """Count the reads that are asked of each store."""
        for name, coalescer in engine.coalescers.items():
            publisher = self._publishers[name] = Publisher(self._cells[name or MAIN_LABEL])
            publisher.counter(StoreCell.CALLS, _attribute(coalescer, "calls"))
            publisher.counter(StoreCell.KEYS, _attribute(coalescer, "keys"))
            publisher.counter(StoreCell.JOINED, _attribute(coalescer, "joined"))
            publisher.gauge(StoreCell.KEYS_IN_FLIGHT, coalescer.in_flight)

    def watch(self, store: OnlineStore) -> None:
        """Count what becomes of them in a store, or in each of several."""
        for name, publisher in self._publishers.items():
            self._watch_one(publisher, _finder(store, name))

    def _watch_one(self, publisher: Publisher, find: Callable[[], object]) -> None:
        def counted(name: str) -> Callable[[], int]:
            read: Callable[[object], int] = attrgetter(name)

            def count() -> int:
                store = find()
                return read(store.counts if isinstance(store, Counting) else StoreCounts())

            return count

        def waiting() -> int:
            store = find()
            return store.line[1] if isinstance(store, HasLine) else 0

        for cell, name in _COUNTED.items():
            publisher.counter(cell, counted(name))
        publisher.gauge(StoreCell.CIRCUITS_OPEN, counted("circuits_open"))
        publisher.gauge(StoreCell.CALLS_WAITING, waiting)

    def publish(self) -> None:
        """Carry all numbers over."""
        for publisher in self._publishers.values():
            publisher.publish()


def _attribute(owner: object, name: str) -> Callable[[], int]:
    return lambda: getattr(owner, name)


def _finder(store: OnlineStore, name: str) -> Callable[[], object]:
    return lambda: one_of(store, name)
