from __future__ import annotations

import asyncio
from typing import Any

from fastserve.store.url import open_store
from perf.data import POOL_ROWS, encode_rows, service_plan
from perf.load import redis_server
from perf.load.key_laws import entity_key
from perf.load.tables import row_index
from perf.on_redis import figures, fill
from tests.support.redis_servers import require_redis


def report(cost_us: float, p99: float) -> dict[str, Any]:
    stream = {"latency_ms": {"p50": 1.0, "p99": p99}, "errors": 1, "verified": 2, "wrong": 0}
    costs = {"server": {"cpu_us_per_request": cost_us}, "store": {"cpu_us_per_request": 3.0}}
    return {"streams": [stream], "processes": costs, "fs_qps": 100.0}


def test_the_figures_are_medians_of_the_rounds_and_sums_of_what_must_not_be() -> None:
    found = figures([report(30, 9), report(10, 7), report(20, 8)])
    assert (found["cpu_us_per_request"], found["p99_ms"], found["errors"], found["verified"]) == (20, 8, 3, 6)
    assert found["rounds_cpu_us"] == [30, 10, 20]


def test_redis_holds_the_rows_that_the_stand_in_would_answer() -> None:
    require_redis()
    (view,) = {place.view.table: place.view for place in service_plan("fs_1x10").places}.values()
    keys = [entity_key(number) for number in range(20)]

    async def rows(url: str) -> list[bytes | None]:
        await fill(url, "fs_1x10", len(keys))
        store = await open_store(url)
        try:
            return await store.get_rows(view.table, keys)
        finally:
            await store.close()

    with redis_server.running() as redis:
        found = asyncio.run(rows(redis.store_url()))
    pool = encode_rows(view)
    assert found == [pool[row_index(key, POOL_ROWS)] for key in keys]
