from __future__ import annotations

import os

from fastserve.server.on_demand_memory import OnDemandMemory
from fastserve.serving.on_demand_times import Stat, ViewStats


def test_what_workers_count_is_known_to_all_processes() -> None:
    memory = OnDemandMemory(["a", "b"], 2)
    memory.of_worker(0).recorder("b").add(2, 5, 300, 200)
    child = os.fork()
    if child == 0:
        recorder = memory.of_worker(1).recorder("b")
        recorder.add(1, 1, 400, 400)
        recorder.fail()
        os._exit(0)
    os.waitpid(child, 0)
    numbers = {view: cells.tolist() for view, cells in memory.numbers().items()}
    assert numbers == {"a": [[0] * len(Stat)] * 2, "b": [[2, 5, 300, 200, 0], [1, 1, 400, 400, 1]]}
    assert memory.of_worker(1).stats() == {"a": ViewStats(), "b": ViewStats(1, 1, 400, 400, 1)}


def test_a_workspace_without_on_demand_views_has_no_numbers() -> None:
    memory = OnDemandMemory([], 3)
    assert memory.numbers() == {}
    assert memory.of_worker(2).stats() == {}
