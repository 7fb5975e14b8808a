"""The flights' on-demand features as a server answers them, compared with DuckDB over the raw files."""

from __future__ import annotations

from itertools import product
from typing import Any

import orjson
import pytest

from fastserve.sdk.sources import FileSource
from tests.integration.conftest import FLIGHTS_CLOCK
from tests.integration.test_flights import Flights, flights
from tests.support.feature_server import GET_FEATURES_BATCH, serving_features
from tests.support.server_process import ROOT, Server

__all__ = ["flights"]

CARRIERS = ("UA", "B6", "DL", "HA", "OO", "ZZ")
DESTINATIONS = f"""
    SELECT DISTINCT dest FROM flights
    WHERE carrier = ? AND time_hour >= TIMESTAMPTZ '{FLIGHTS_CLOCK}' - INTERVAL 28 DAY
      AND time_hour < TIMESTAMPTZ '{FLIGHTS_CLOCK}'
"""


@pytest.fixture(scope="module")
def answers(flights: Flights) -> dict[str, Any]:
    """Ask for the overlap of each pair of carriers, and for the ages of some aircraft."""
    repo = ROOT / "examples" / "flights"
    pairs = [{"carrier_a": a, "carrier_b": b} for a, b in product(CARRIERS, CARRIERS)]
    tails = raw(
        flights, "SELECT DISTINCT tailnum FROM flights WHERE tailnum IS NOT NULL ORDER BY ALL LIMIT 900"
    )
    planes = [{"carrier": "UA", "origin": "EWR", "dest": "IAH", "tailnum": tail} for (tail,) in tails]
    with serving_features(repo, flights.url, "--workers", "1", "--clock", FLIGHTS_CLOCK) as server:
        found = {
            "overlap": ask_rows(server, "route_overlap", pairs),
            "plane_age": ask_rows(server, "flight_delay", planes),
        }
        assert server.stop() == 0
    return found


def raw(flights: Flights, sql: str, parameters: list[str] | None = None) -> list[tuple[Any, ...]]:
    flights.raw.execute("SET TimeZone = 'UTC'")
    return flights.raw.execute(sql, parameters or []).fetchall()


def ask_rows(
    server: Server, service: str, rows: list[dict[str, str]]
) -> dict[tuple[str, ...], dict[str, Any]]:
    params = {
        "featureServiceName": service,
        "requestData": [{"joinKeyMap": row} for row in rows],
        "metadataOptions": {"includeNames": True},
    }
    answer = server.connect().ask(GET_FEATURES_BATCH, orjson.dumps({"params": params}))
    assert answer.status == 200, answer.body[:300]
    document = orjson.loads(answer.body)
    names = [feature["name"] for feature in document["metadata"]["features"]]
    vectors = [dict(zip(names, row["features"], strict=True)) for row in document["result"]]
    return {tuple(row.values()): vector for row, vector in zip(rows, vectors, strict=True)}


def test_the_overlap_of_two_carriers_is_that_of_the_raw_flights(
    flights: Flights, answers: dict[str, Any]
) -> None:
    of = {carrier: {dest for (dest,) in raw(flights, DESTINATIONS, [carrier])} for carrier in CARRIERS}
    assert len(of["UA"]) > 30
    assert not of["ZZ"]
    for a, b in product(CARRIERS, CARRIERS):
        both, either = len(of[a] & of[b]), len(of[a] | of[b])
        jaccard = both / either if either else None
        assert answers["overlap"][a, b] == {"overlap.jaccard": jaccard, "overlap.shared": str(both)}, (a, b)


def test_an_aircraft_s_age_is_counted_from_its_year_of_manufacture(
    flights: Flights, answers: dict[str, Any]
) -> None:
    source = flights.repo.sources["planes"]
    assert isinstance(source, FileSource)
    (path,) = source.locations()
    sql = f"SELECT tailnum, TRY_CAST(year AS BIGINT) FROM read_csv('{path}', nullstr='NA')"
    years = dict(raw(flights, sql))
    known = 0
    for (*_, tail), vector in answers["plane_age"].items():
        year = years.get(tail)
        assert vector["plane_age.years"] == (None if year is None else str(2013 - year)), tail
        known += year is not None
    assert known > 500
