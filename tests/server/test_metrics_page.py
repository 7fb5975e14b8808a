"""The page of metrics: whose numbers it shows, and how long it keeps the loop."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from fastserve.server.exchange import Exchange
from fastserve.server.metrics_memory import WORKER, MetricsMemory
from fastserve.server.metrics_page import LINES_A_TURN, MetricsPage
from fastserve.server.metrics_table import ServiceCell, StoreCell, ViewCell, WorkerCell
from fastserve.server.shared_memory import Cell, SharedMemory, State
from fastserve.server.store_metrics import StoreMetrics
from fastserve.wire.http1 import RequestHead
from tests.server.application_world import Connection
from tests.support.prometheus_text import Family, read_metrics, value

HEAD = RequestHead("GET", "/metrics", "", 0, False, True, False, False, None, None, None, None)
NOW_NS = 10**18


@dataclass
class World:
    """Memory of three workers, and a page whose loop is turned by hand."""

    services: int = 1
    memory: MetricsMemory = field(default_factory=lambda: MetricsMemory(3))
    life: SharedMemory = field(default_factory=lambda: SharedMemory(3))
    scheduled: list[Callable[[], None]] = field(default_factory=list)
    turns: int = 0

    def __post_init__(self) -> None:
        self.memory.declare([f"s{number}" for number in range(self.services)], ["v"], [])

    def asked(self) -> dict[str, Family]:
        schedule = self.scheduled.append
        page = MetricsPage(self.memory, self.life, "w", ["v"], lambda: NOW_NS, lambda: None, schedule)
        connection = Connection()
        page(Exchange(connection, HEAD, b"", 0.0))
        while self.scheduled:
            self.turns += 1
            assert not connection.answers
            self.scheduled.pop()()
        (answer,) = connection.answers
        return read_metrics(answer.body.decode())


def test_counters_are_of_all_workers_and_gauges_of_the_living() -> None:
    world = World()
    for row, number in enumerate((1, 10, 100)):
        world.memory.services.row(row)["s0"][ServiceCell.OK] = number
        cells = world.memory.workers.row(row)[WORKER]
        cells[WorkerCell.IN_FLIGHT] = cells[WorkerCell.SHED] = number
    world.life.workers[0][Cell.STATE] = State.READY
    world.life.workers[2][Cell.STATE] = State.DRAINING
    found = world.asked()
    assert value(found, "fastserve_requests_total", service="s0", status="2xx") == 111
    assert value(found, "fastserve_requests_shed_total") == 111
    assert value(found, "fastserve_requests_in_flight") == 101
    states = {dict(labels)["state"]: n for (_, labels), n in found["fastserve_workers"].samples.items()}
    assert states == {"booting": 0, "ready": 1, "draining": 1}


def test_stores_are_told_apart_and_what_was_of_a_dead_worker_is_over() -> None:
    world = World()
    world.memory.declare([], [], [], ["hot"])
    world.life.workers[1][Cell.STATE] = State.READY
    for row in (0, 1):
        for number, cells in enumerate(world.memory.stores.row(row).values()):
            cells[StoreCell.KEYS] = cells[StoreCell.CIRCUITS_OPEN] = number + 1
    found = world.asked()
    assert value(found, "fastserve_store_keys_total", store="main") == 2
    assert value(found, "fastserve_store_keys_total", store="hot") == 4
    assert value(found, "fastserve_store_circuits_open", store="hot") == 2
    StoreMetrics(world.memory.stores.row(1))  # another worker in its place
    found = world.asked()
    assert value(found, "fastserve_store_keys_total", store="hot") == 4
    assert value(found, "fastserve_store_circuits_open") == 0


def test_a_view_s_age_is_that_of_the_latest_look() -> None:
    world = World()
    assert "fastserve_view_age_seconds" not in world.asked()
    for row, (looked_ns, effective_ns) in enumerate([(5, 10), (7, NOW_NS - 3 * 10**9), (6, NOW_NS)]):
        cells = world.memory.views.row(row)["v"]
        cells[ViewCell.LOOKED_NS], cells[ViewCell.EFFECTIVE_NS] = looked_ns, effective_ns
    assert value(world.asked(), "fastserve_view_age_seconds", view="v") == 3


def test_a_view_that_is_not_served_any_more_has_no_age_and_keeps_what_was_counted() -> None:
    world = World()
    world.memory.declare([], ["gone"], [])
    cells = world.memory.views.row(0)["gone"]
    cells[ViewCell.LOOKED_NS], cells[ViewCell.EFFECTIVE_NS], cells[ViewCell.ROWS] = 1, 2, 3
    found = world.asked()
    assert "fastserve_view_age_seconds" not in found
    assert value(found, "fastserve_view_rows_total", view="gone") == 3


def test_memory_is_that_of_processes_that_live() -> None:
    world = World()
    world.life.workers[1][Cell.PID] = os.getpid()
    world.life.workers[2][Cell.PID] = 2**22 + 1  # beyond what Linux gives out
    (((_, labels), resident),) = world.asked()["fastserve_worker_resident_memory_bytes"].samples.items()
    assert labels == (("worker", "1"),)
    assert resident > 2**20


def test_many_lines_are_written_in_many_turns() -> None:
    world = World(services=20)
    found = world.asked()
    lines = sum(len(family.samples) + 2 for family in found.values())
    assert world.turns == lines // LINES_A_TURN > 5
