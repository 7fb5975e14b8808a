from __future__ import annotations

import asyncio
import sys
from typing import Any

import orjson
import pytest

from fastserve.store.url import open_store
from perf.compare.feast import lookups, redis_lookups
from perf.data import POOL_ROWS, encode_rows, expected_features, service_plan
from perf.load import redis_server
from perf.load.key_laws import entity_key
from perf.load.tables import row_index
from perf.on_redis import figures, fill, main, ratios
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


def test_feasts_cpu_is_divided_by_ours_of_the_same_round() -> None:
    theirs, ours = {"rounds_cpu_us": [900.0, 400.0, 1_000.0]}, {"rounds_cpu_us": [30.0, 20.0, 25.0]}

    assert ratios(theirs, ours) == {"x_fastserve": 30.0, "rounds_x_fastserve": [30.0, 20.0, 40.0]}


def test_feast_is_refused_where_features_are_more_than_stored_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["on_redis", "--feast", "--service", "fs_5x100"])

    with pytest.raises(SystemExit):
        main()
    assert "--feast is measured with lookups_1x10, lookups_5x100, " in capsys.readouterr().err


def test_feast_is_given_the_numbers_that_the_service_answers_for_a_key() -> None:
    key = entity_key(3)
    rows = redis_lookups.rows_of("lookups_5x100", [entity_key(0), key])

    numbers = [number for pool in rows["views"].values() for number in pool[rows["keys"][key]]]
    assert numbers == expected_features("lookups_5x100", key)


def test_a_row_of_another_key_is_seen_in_feasts_answer() -> None:
    stream = redis_lookups.request_stream("lookups_1x10", entities=20, connections=4)
    names = [name.partition(":")[2] for name in orjson.loads(f"{stream.head}{stream.tail}")["features"]]
    verify = lookups.value_verifier(stream.verify_with)
    ours, other = entity_key(0), entity_key(1)
    values = expected_features("lookups_1x10", ours)
    answer = {"metadata": {"feature_names": names}, "results": [{"values": [value]} for value in values]}

    assert (stream.entities, stream.connections, stream.verify_every) == (20, 4, 10)
    assert verify(ours, orjson.dumps(answer)) is None
    assert f"{names[0]}: expected" in str(verify(other, orjson.dumps(answer)))
