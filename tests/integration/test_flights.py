"""The flights of 2013 from their files into a local store, compared with DuckDB over the raw events.

1,000 random (key, time) pairs of every aggregate view. How a row is read and merged is given as a function
(`Answer`), so that the same comparison holds the serving code.
"""

from __future__ import annotations

import asyncio
import math
import random
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pytest

from fastserve.ingest.materialize import MaterializeReport
from fastserve.ingest.registry import Registry
from fastserve.plan.views import ViewPlan, plan_view
from fastserve.sdk.repo import Repo
from fastserve.store.url import open_store
from fastserve.tiles.aggregates import AggregateSpec
from fastserve.tiles.rows import check_header, decode_row, effective_ns_of
from fastserve.tiles.windows import DAY_NS
from tests.differential.merging import Merging, null_row
from tests.integration.conftest import FLIGHTS_CLOCK_NS as CLOCK_NS
from tests.integration.conftest import FlightsStore

PAIRS = 1_000
AGGREGATE_VIEWS = ("carrier_delays", "origin_delays", "tailnum_delays", "route_delays")
ATTRIBUTE_VIEWS = {"airline": 16, "airport": 1458, "plane": 3322}

Answer = Callable[[ViewPlan, Sequence[tuple[str, ...]], int], list[dict[str, Any]]]
"""The features by name of entity keys of a view at a time."""


class Flights(NamedTuple):
    repo: Repo
    url: str
    reports: dict[str, MaterializeReport]
    raw: duckdb.DuckDBPyConnection

    def plan(self, name: str) -> ViewPlan:
        return plan_view(self.repo.views[name], self.repo.workspace, "")


@pytest.fixture(scope="module")
def flights(flights_store: FlightsStore) -> Iterator[Flights]:
    folder, repo, url, reports = flights_store
    raw = raw_events(repo, folder)
    yield Flights(repo, url, reports, raw)
    raw.close()


def raw_events(repo: Repo, folder: Path) -> duckdb.DuckDBPyConnection:
    """Return DuckDB with the raw flights, read by its own means."""
    source = repo.views["carrier_delays"].batch_source
    assert source is not None
    with zipfile.ZipFile(source.locations()[0]) as archive:
        archive.extract("flights.csv", folder)
    raw = duckdb.connect()
    raw.execute(
        "CREATE TABLE flights AS SELECT *, epoch_ns(time_hour) AS t "
        f"FROM read_csv('{folder / 'flights.csv'}', nullstr = ['NA'], types = {{'dep_delay': 'DOUBLE'}})"
    )
    return raw


def merged_rows(flights: Flights) -> Answer:
    """Answer by reading rows from the store and merging them as the tiles do."""

    def answer(view: ViewPlan, keys: Sequence[tuple[str, ...]], time_ns: int) -> list[dict[str, Any]]:
        async def rows() -> list[bytes | None]:
            store = await open_store(flights.url)
            try:
                return await store.get_rows(view.table, [view.key_text(key) for key in keys])
            finally:
                await store.close()

        schema = view.schema
        assert schema is not None
        found = asyncio.run(rows())
        for row in found:
            if row is not None:
                check_header(view.layout, row)
                assert effective_ns_of(row) == CLOCK_NS
        requests = [[null_row(schema, CLOCK_NS) if row is None else row] for row in found]
        return [views[0] for views in Merging(schema).fast(requests, [CLOCK_NS], time_ns)]

    return answer


def expected(
    flights: Flights,
    view: ViewPlan,
    specs: Sequence[AggregateSpec],
    pairs: Sequence[tuple[tuple[str, ...], int]],
) -> list[tuple[Any, ...]]:
    """Return what DuckDB makes of the raw events, pair by pair, a value for each aggregate."""
    names = [field.name for field in view.key_fields]
    flights.raw.execute("CREATE OR REPLACE TABLE pairs (n INTEGER, t BIGINT, keys VARCHAR[])")
    flights.raw.executemany(
        "INSERT INTO pairs VALUES (?, ?, ?)", [[n, t, list(k)] for n, (k, t) in enumerate(pairs)]
    )
    matches = " AND ".join(f"f.{name} = p.keys[{place + 1}]" for place, name in enumerate(names))
    functions = []
    for spec in specs:
        start = f"((p.t - {spec.window.window_ns}) // {spec.window.hop_ns} * {spec.window.hop_ns})"
        function = "avg" if spec.function == "mean" else spec.function
        functions.append(f"{function}(f.{spec.column}) FILTER (WHERE f.t >= {start} AND f.t < {CLOCK_NS})")
    sql = (
        f"SELECT {', '.join(functions)} FROM pairs p LEFT JOIN flights f ON {matches} "
        f"AND f.t >= p.t - {360 * DAY_NS} GROUP BY p.n ORDER BY p.n"
    )
    return flights.raw.execute(sql).fetchall()


def compare(flights: Flights, name: str, answer: Answer, chance: random.Random) -> int:
    """Compare `PAIRS` random pairs of a view; return how many values that was."""
    view = flights.plan(name)
    assert view.schema is not None
    specs = [feature.spec for feature in view.schema.features]
    names = ", ".join(field.name for field in view.key_fields)
    known = flights.raw.execute(
        f"SELECT DISTINCT {names} FROM flights WHERE tailnum IS NOT NULL ORDER BY ALL"
    ).fetchall()
    unknown = [tuple("nowhere" for _ in view.key_fields)]
    times = [CLOCK_NS, CLOCK_NS + 2 * DAY_NS, *(CLOCK_NS + chance.randrange(2 * DAY_NS) for _ in range(18))]
    compared = 0
    for time_ns in times:
        keys = chance.choices(known + unknown, k=PAIRS // len(times))
        distinct = sorted(set(keys))
        want = expected(flights, view, specs, [(key, time_ns) for key in distinct])
        by_key = dict(zip(distinct, want, strict=True))
        for key, got in zip(keys, answer(view, keys, time_ns), strict=True):
            for spec, value in zip(specs, by_key[key], strict=True):
                assert same(got[spec.name], value), (name, key, time_ns, spec.name, got[spec.name], value)
                compared += 1
    return compared


def same(got: Any, want: Any) -> bool:
    if isinstance(want, float) and isinstance(got, float):
        return math.isclose(got, want, rel_tol=1e-12, abs_tol=1e-12)
    return bool(got == want)


@pytest.mark.parametrize("name", AGGREGATE_VIEWS)
def test_aggregates_of_random_pairs_are_those_of_the_raw_events(flights: Flights, name: str) -> None:
    compared = compare(flights, name, merged_rows(flights), random.Random(name))
    assert compared == PAIRS * 20


def test_every_flight_is_read_and_only_tail_numbers_are_missing(flights: Flights) -> None:
    for name in AGGREGATE_VIEWS:
        report = flights.reports[name]
        assert report.rows_read == 336_776
        assert report.rows_bad == (2_512 if name == "tailnum_delays" else 0)
    first = flights.reports["tailnum_delays"].bad_samples[0]
    row = flights.raw.execute(
        "SELECT min(n) FROM (SELECT row_number() OVER () n, tailnum FROM flights) WHERE tailnum IS NULL"
    )
    assert (first.where, first.column, first.got) == (f"row {row.fetchall()[0][0]}", "tailnum", None)


def test_attribute_rows_hold_what_the_files_say(flights: Flights) -> None:
    async def read() -> list[bytes | None]:
        store = await open_store(flights.url)
        try:
            return [
                (await store.get_rows("flights.plane", ["N10156"]))[0],
                *(await store.get_rows("flights.airport", ["JFK"])),
            ]
        finally:
            await store.close()

    plane, airport = asyncio.run(read())
    assert plane is not None
    assert airport is not None
    values = decode_row(flights.plan("plane").layout, plane)
    assert (values["year"], values["manufacturer"], values["seats"], values["speed"]) == (
        2004,
        b'"EMBRAER"',
        55,
        None,
    )
    values = decode_row(flights.plan("airport").layout, airport)
    assert (values["name"], values["lat"], values["alt"]) == (b'"John F Kennedy Intl"', 40.639751, 13)
    assert {name: flights.reports[name].keys for name in ATTRIBUTE_VIEWS} == ATTRIBUTE_VIEWS


def test_the_service_has_its_join_keys_and_over_a_hundred_features(flights: Flights) -> None:
    service = flights.repo.services["flight_delay"]
    keys = {key.name for reference in service.references for key in reference.request_keys}
    assert keys == {"carrier", "origin", "dest", "tailnum"}
    assert sum(len(reference.features) for reference in service.references) >= 100
    assert "dep_delay_mean_7d_1h" in flights.repo.views["carrier_delays"].feature_names


def test_what_was_materialized_and_its_layouts_are_on_record(flights: Flights) -> None:
    async def read() -> Any:
        store = await open_store(flights.url)
        try:
            registry = Registry(store, "flights")
            return await registry.materialized(["route_delays"]), await registry.layouts(
                list(flights.repo.views)
            )
        finally:
            await store.close()

    materialized, layouts = asyncio.run(read())
    record = materialized["route_delays"]
    assert (record.until_ns, record.as_of_ns, record.keys) == (
        CLOCK_NS,
        CLOCK_NS,
        flights.reports["route_delays"].keys,
    )
    for name in flights.repo.views:
        layout = flights.plan(name).layout
        assert layouts[name] == {layout.schema_id: layout}
