"""The flights as a server answers for them, at several times, compared with DuckDB over the raw events."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from tests.integration.conftest import FLIGHTS_CLOCK_NS
from tests.integration.test_flights import AGGREGATE_VIEWS, Flights, expected, flights, same
from tests.support.feature_server import GET_FEATURES_BATCH, serving_features
from tests.support.server_process import ROOT, Server

__all__ = ["flights"]

HORIZON_NS = 2 * 86_400 * 10**9
ROWS = 250
KEYS = {
    "carrier_delays": ("carrier",),
    "origin_delays": ("origin",),
    "tailnum_delays": ("tailnum",),
    "route_delays": ("origin", "dest"),
}


def vectors(server: Server, rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Return the features by name of many rows, asked for at once."""
    params = {
        "featureServiceName": "flight_delay",
        "requestData": [{"joinKeyMap": row} for row in rows],
        "metadataOptions": {"includeNames": True, "includeDataTypes": True},
    }
    answer = server.connect().ask(GET_FEATURES_BATCH, orjson.dumps({"params": params}))
    assert answer.status == 200, answer.body[:300]
    document = orjson.loads(answer.body)
    about = document["metadata"]["features"]
    names = [feature["name"] for feature in about]
    readers = [int if feature["dataType"]["type"] == "int64" else float for feature in about]
    return [
        {
            name: read(value) if value is not None and name.split(".")[0] in KEYS else value
            for name, read, value in zip(names, readers, row["features"], strict=True)
        }
        for row in document["result"]
    ]


def some_rows(flights: Flights, chance: random.Random) -> list[dict[str, str]]:
    """Draw rows: of real flights, of keys that never met, and of keys that nobody knows."""
    fields = ("carrier", "origin", "dest", "tailnum")
    real = flights.raw.execute(
        f"SELECT {', '.join(fields)} FROM flights WHERE tailnum IS NOT NULL ORDER BY ALL"
    ).fetchall()
    rows = [dict(zip(fields, chance.choice(real), strict=True)) for _ in range(ROWS)]
    for row in rows[::3]:
        row["dest"] = chance.choice(real)[2]
    for row in rows[::10]:
        row[chance.choice(fields)] = "nowhere"
    return rows


@pytest.mark.parametrize("moment", range(4))
def test_a_server_answers_with_the_aggregates_of_the_raw_events(flights: Flights, moment: int) -> None:
    chance = random.Random(moment)
    after_us = (0, HORIZON_NS // 1000, chance.randrange(HORIZON_NS // 1000), 10**6)[moment]
    time_ns = FLIGHTS_CLOCK_NS + after_us * 1000
    clock = f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y-%m-%dT%H:%M:%S}.{after_us % 10**6:06}Z"
    rows = some_rows(flights, chance)
    repo = ROOT / "examples" / "flights"
    with serving_features(repo, flights.url, "--workers", "1", "--clock", clock) as server:
        got = vectors(server, rows)
        assert server.stop() == 0
    compared = 0
    for name in AGGREGATE_VIEWS:
        view = flights.plan(name)
        assert view.schema is not None
        specs = [feature.spec for feature in view.schema.features]
        keys = [tuple(row[field] for field in KEYS[name]) for row in rows]
        distinct = sorted(set(keys))
        want = expected(flights, view, specs, [(key, time_ns) for key in distinct])
        by_key = dict(zip(distinct, want, strict=True))
        for key, vector in zip(keys, got, strict=True):
            for spec, value in zip(specs, by_key[key], strict=True):
                served = vector[f"{name}.{spec.name}"]
                # The count of an empty window is null unless zero is asked for.
                right = None if spec.function == "count" and value == 0 else value
                assert same(served, right), (name, key, clock, spec.name, served, right)
                compared += 1
    assert compared == ROWS * 80
