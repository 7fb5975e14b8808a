"""The numbers behind the charts: whose they are, and that looking at them counts nothing."""

from __future__ import annotations

from typing import Any

from fastserve.server.feast_handler import FEATURE_LISTS
from fastserve.server.metrics_memory import WORKER
from fastserve.server.metrics_table import LATENCY_BOUNDS_S, ServiceCell, StoreCell, ViewCell, WorkerCell
from tests.server.console.world import NOW_NS, ConsoleWorld
from tests.support.api_plan import api_plan
from tests.support.feast_golden import feast_plan

LIVE = "/console/live.json"


def numbers(console: ConsoleWorld) -> Any:
    return console.get(LIVE).json


def test_they_are_of_all_workers_and_of_what_is_served() -> None:
    console = ConsoleWorld(api_plan())
    console.memory.declare(["gone"], ["lost"], [], ["hot"])
    for row, number in enumerate((1, 10)):
        cells = console.memory.services.row(row)["a.b-c"]
        cells[ServiceCell.OK] = cells[ServiceCell.LATENCY + 2] = number
        console.memory.stores.row(row)["main"][StoreCell.KEYS] = number
        console.memory.stores.row(row)["hot"][StoreCell.KEYS] = 100 * number
        console.memory.workers.row(row)[WORKER][WorkerCell.IN_FLIGHT] = number
    found = numbers(console)
    assert list(found["services"]) == list(api_plan().services)
    service = found["services"]["a.b-c"]
    assert service["answers"] == [11, 0, 0]
    assert service["latency"] == [0, 0, 11, *[0] * (len(LATENCY_BOUNDS_S) - 2)]
    assert found["server"]["store_keys"] == 1111  # of all stores
    assert found["server"]["in_flight"] == 1  # of the one worker that lives
    assert found["workers"] == [{"worker": 0, "state": "ready", "connections": 0}]
    assert found["latency_bounds_s"] == list(LATENCY_BOUNDS_S)
    assert found["serving_url"] == "http://127.0.0.1:8080"


def test_on_demand_views_tell_of_their_vectors_and_times() -> None:
    console = ConsoleWorld(api_plan())
    for row in range(2):
        recorder = console.memory.on_demand.of_worker(row).recorder("echo")
        recorder.add(calls=1, lines=3, sum_ns=5_000, max_ns=5_000)
        recorder.fail()
    assert numbers(console)["on_demand"] == {"echo": {"vectors": 6, "took_ns": 10_000, "failures": 2}}


def test_ages_are_those_of_the_plan_s_views() -> None:
    console = ConsoleWorld(api_plan())
    console.memory.declare([], ["lost"], [])
    assert numbers(console)["views"] == {}
    for view in ("spending", "lost"):
        cells = console.memory.views.row(1)[view]
        cells[ViewCell.LOOKED_NS], cells[ViewCell.EFFECTIVE_NS] = 1, NOW_NS - 5 * 10**9
    assert numbers(console)["views"] == {"spending": 5.0}


def test_requests_for_lists_of_features_are_among_all_requests() -> None:
    console = ConsoleWorld(feast_plan())
    console.memory.services.row(0)[FEATURE_LISTS][ServiceCell.OK] = 3
    assert numbers(console)["services"][FEATURE_LISTS]["answers"] == [3, 0, 0]
    page = console.get("/").body.decode()
    assert f'<option value="{FEATURE_LISTS}">' in page
    assert FEATURE_LISTS not in numbers(ConsoleWorld(api_plan()))["services"]


def test_looking_counts_nothing_and_time_goes_on() -> None:
    console = ConsoleWorld(api_plan())
    first, second = numbers(console), numbers(console)
    assert second["now_s"] >= first["now_s"]
    assert {**first, "now_s": 0} == {**second, "now_s": 0}
