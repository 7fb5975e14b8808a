"""The batch job on Spark against the single-machine one: the same rows, byte for byte."""

from __future__ import annotations

import asyncio
import inspect
import random
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

from fastserve.errors import DefinitionError
from fastserve.ingest import spark as spark_job
from fastserve.ingest.badrows import BadRowsError
from fastserve.ingest.materialize import MaterializeReport
from fastserve.ingest.registry import Registry
from fastserve.ingest.spark import materialize_frame
from fastserve.sdk.repo import Repo
from fastserve.store.addresses import StoreAddresses
from tests.ingest.support import DAY_NS, HOUR_NS, UNTIL_NS, Workbench
from tests.ingest.test_materialize import AGGREGATES, BAD, PROFILE, PROFILES, events_csv, random_events
from tests.support.spark import ROOT, SPARK_WARNINGS, spark

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["spark"]

pytestmark = SPARK_WARNINGS

UNTIL = datetime(2026, 1, 1, tzinfo=UTC)
INT64_MAX = 2**63 - 1


class Both:
    """Materializes a view in both ways, each into a store of its own."""

    def __init__(self, bench: Workbench, session: SparkSession) -> None:
        self._bench = bench
        self._session = session
        self.url = f"local:{bench.folder / 'spark-store'}?sync=off"

    def csv(self, name: str) -> DataFrame:
        """Read a repo's CSV file, all text."""
        path = str(self._bench.folder / "repo" / name)
        return self._session.read.csv(path, header=True, escape='"', nullValue="")

    def parquet(self, name: str) -> DataFrame:
        """Read a repo's Parquet file."""
        return self._session.read.parquet(str(self._bench.folder / "repo" / name))

    def apply(self, repo: Repo) -> None:
        """Do as `fastserve apply` in the store for Spark."""
        bench = self._bench
        own, bench.url = bench.url, self.url
        try:
            bench.apply(repo)
        finally:
            bench.url = own

    def spark(self, repo: Repo, view: str, frame: DataFrame, **options: Any) -> MaterializeReport:
        """Materialize on Spark."""
        return materialize_frame(frame, repo, view, self.url, **{"until": UNTIL, **options})

    def rows(self, repo: Repo, view: str, keys: Sequence[Sequence[Any]]) -> list[bytes | None]:
        """Read rows that Spark wrote."""
        bench = self._bench
        own, bench.url = bench.url, self.url
        try:
            return bench.rows(bench.plan(repo, view), keys)
        finally:
            bench.url = own

    def check(
        self, repo: Repo, view: str, frame: DataFrame, keys: Sequence[Sequence[Any]], **options: Any
    ) -> MaterializeReport:
        """Check that both ways write the same rows and tell the same."""
        self.apply(repo)
        max_bad_rows = options.get("max_bad_rows")
        (expected,) = self._bench.run(repo, [view], max_bad_rows=max_bad_rows)
        got = self.spark(repo, view, frame, **options)
        assert self.rows(repo, view, keys) == self._bench.rows(self._bench.plan(repo, view), keys)
        assert _told(got) == _told(expected)
        return got


def _told(report: MaterializeReport) -> MaterializeReport:
    """Return a report without its time and without samples: which rows are the first is Spark's business."""
    return replace(report, seconds=0, bad_samples=(), spoilt_samples=())


@pytest.fixture
def both(bench: Workbench, spark: SparkSession) -> Both:
    return Both(bench, spark)


def users(count: int) -> list[tuple[str]]:
    return [(f"u{n}",) for n in range(count)]


# --- aggregates ---------------------------------------------------------------------------------------------


def test_aggregates_of_text_are_those_of_one_machine(bench: Workbench, both: Both) -> None:
    events = random_events(1_500, 40)
    bench.write("events.csv", events_csv(events))
    both.check(bench.define(AGGREGATES), "spend", both.csv("events.csv").repartition(3), users(41))


def typed_events(count: int) -> pa.Table:
    chance = random.Random(7)
    # To the microsecond, Spark's own; each time once, since the order of equal ones decides the last digit.
    times = chance.sample(
        range(UNTIL_NS // 1000 - 30 * DAY_NS // 1000, UNTIL_NS // 1000 + HOUR_NS // 1000), count
    )
    amounts = [None, float("nan"), float("inf"), float("-inf"), -0.0, 0.0, 1e300, 0.1, 5e-324]
    units = [None, INT64_MAX, -INT64_MAX, 0, 1, 2**53 + 1]
    return pa.table(
        {
            "USER_ID": [f"u{chance.randrange(30)}" for _ in range(count)],
            "at": pa.array(times, pa.timestamp("us", "UTC")),
            "amount": pa.array([chance.choice(amounts) for _ in range(count)], pa.float64()),
            "units": pa.array([chance.choice(units) for _ in range(count)], pa.int64()),
            "kind": [chance.choice([None, "", 'b"|\\,', "é", "x" * 300]) for _ in range(count)],
            "not asked for": [1] * count,
        }
    )


def test_extremes_nan_and_nulls_are_those_of_one_machine(bench: Workbench, both: Both) -> None:
    pq.write_table(typed_events(2_000), bench.write("events.parquet", b""))
    repo = bench.define(AGGREGATES.replace("events.csv", "events.parquet"))
    report = both.check(repo, "spend", both.parquet("events.parquet").repartition(5), users(31))
    assert report.spoilt_keys > 0
    assert report.rows_outside > 0


WIDE = """
    source = FileSource("events", "events.parquet", timestamp_field="at")
    amount, units, kind = Field("amount", Float64), Field("units", Int64), Field("kind", String)
    numbers = ["last", "first", last(3), first(2), "stddev_samp", "approx_count_distinct", "count"]
    numbers += [approx_percentile(percentile=0.5), "max", "mean"]
    texts = ["last", last_distinct(3), first_distinct(2), "min", "max", approx_count_distinct(precision=6)]
    windows = [days(1), days(28)]
    features = aggregates(amount, numbers, windows) + aggregates(kind, texts, windows)
    features += [Aggregate(units, "sum", LifetimeWindow())]
    features += [Aggregate(units, "max", TimeWindow(days(2), -days(1)))]
    view = FeatureView("spend", user, source, features, aggregation_interval=hours(1))
    keyed = FeatureView("keyed", user, source, aggregates(units, ["sum", "count", "last"], [days(7)]),
                        aggregation_interval=hours(1), aggregation_secondary_key=kind)
"""


@pytest.mark.parametrize("view", ["spend", "keyed"])
def test_wide_functions_are_those_of_one_machine(bench: Workbench, both: Both, view: str) -> None:
    table = typed_events(1_000)
    units = pa.compute.if_else(pa.compute.greater(pa.compute.abs(table["units"]), 2**60), 1, table["units"])
    table = table.set_column(table.schema.get_field_index("units"), "units", units)
    pq.write_table(table, bench.write("events.parquet", b""))
    both.check(bench.define(WIDE), view, both.parquet("events.parquet").repartition(3), users(31))


def test_batches_and_partitions_change_nothing(bench: Workbench, both: Both, spark: SparkSession) -> None:
    pq.write_table(typed_events(500), bench.write("events.parquet", b""))
    repo = bench.define(AGGREGATES.replace("events.csv", "events.parquet"))
    for partitions, batch in ((1, 3), (7, 1_000)):
        spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(batch))
        both.check(repo, "spend", both.parquet("events.parquet"), users(31), partitions=partitions)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "100")


def test_a_start_time_and_an_until_within_a_tile_cut_the_same_events(bench: Workbench, both: Both) -> None:
    bench.write("events.csv", events_csv(random_events(300, 5)))
    repo = bench.define(AGGREGATES.replace("hours(1))", "hours(1), start_time=datetime(2025, 12, 30))"))
    both.apply(repo)
    until_ns = UNTIL_NS - HOUR_NS // 2
    (expected,) = bench.run(repo, until_ns=until_ns)
    got = both.spark(repo, "spend", both.csv("events.csv"), until=UNTIL - timedelta(minutes=30))
    assert (got.until_ns, got.as_of_ns) == (until_ns, UNTIL_NS - HOUR_NS)
    assert _told(got) == _told(expected)
    assert both.rows(repo, "spend", users(6)) == bench.rows(bench.plan(repo, "spend"), users(6))


# --- attributes ---------------------------------------------------------------------------------------------


def test_the_latest_row_wins_to_the_nanosecond(bench: Workbench, both: Both) -> None:
    bench.write("profiles.csv", PROFILES.replace("u2,2025-12-01T00:00:00Z", "u2,2025-11-01T00:00:00Z"))
    frame = both.csv("profiles.csv").replace("NA", None, ["age"])
    both.check(bench.define(PROFILE), "profile", frame, users(3))


EVERY = """
    source = FileSource("every", "every.parquet", timestamp_field="at")
    keys = Entity("keys", [Field("a", String), Field("b", Int64), Field("c", Bool), Field("d", Timestamp)])
    view = FeatureView("every", keys, source, [
        Attribute("n", Int64), Attribute("f", Float32), Attribute("g", Float64), Attribute("s", String),
        Attribute("t", Timestamp), Attribute("day", Timestamp), Attribute("flag", Bool),
        Attribute("ids", Array(Int64)),
        Attribute("deep", Array(Array(String))), Attribute("times", Map(String, Timestamp)),
        Attribute("pair", Struct([Field("x", Float64), Field("at", Timestamp)])),
        Attribute("moments", Array(Timestamp))])
"""


def every_type() -> tuple[pa.Table, list[tuple[Any, ...]]]:
    """Return rows with values of every type, and their entity keys."""
    moment = datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    stamp = pa.timestamp("us", "UTC")
    rows: list[dict[str, Any]] = [
        {"n": INT64_MAX, "f": 0.1, "g": float("nan"), "s": 'é"\\', "t": moment, "day": moment.date()},
        {
            "n": -INT64_MAX - 1,
            "f": float("-inf"),
            "g": -0.0,
            "s": "",
            "flag": True,
            "ids": [1, None, 2**53 + 1],
        },
        {"deep": [["a", None], None, []], "times": [("x", moment), ("y", None)], "ids": []},
        {"pair": {"x": 1.5, "at": moment}, "moments": [moment, None], "flag": False, "times": []},
        {"pair": {"x": None, "at": None}},
        {},
    ]
    types = {
        "n": pa.int64(), "f": pa.float32(), "g": pa.float64(), "s": pa.string(), "t": stamp,
        "day": pa.date32(), "flag": pa.bool_(),
        "ids": pa.list_(pa.int64()), "deep": pa.list_(pa.list_(pa.string())),
        "times": pa.map_(pa.string(), stamp), "moments": pa.list_(stamp),
        "pair": pa.struct([("x", pa.float64()), ("at", stamp)]),
    }  # fmt: skip
    table = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in types.items()}
    keys = [("a|\\" * n, -n, n % 2 == 0, n * 10**15) for n in range(len(rows))]
    table |= {"a": pa.array([key[0] for key in keys]), "b": pa.array([key[1] for key in keys])}
    table |= {"c": pa.array([key[2] for key in keys])}
    table |= {"d": pa.array([key[3] // 1000 for key in keys], stamp)}
    table |= {"at": pa.array([datetime(2025, 7, 1, tzinfo=UTC)] * len(rows), stamp)}
    return pa.table(table), keys


@pytest.mark.parametrize("zone", ["America/St_Johns", "Asia/Kathmandu"])
def test_values_of_every_type_are_those_of_one_machine(
    bench: Workbench, both: Both, spark: SparkSession, zone: str
) -> None:
    table, keys = every_type()
    pq.write_table(table, bench.write("every.parquet", b""))
    repo = bench.define(EVERY)
    own = str(spark.conf.get("spark.sql.session.timeZone"))
    spark.conf.set("spark.sql.session.timeZone", zone)
    try:
        both.check(repo, "every", both.parquet("every.parquet"), keys)
    finally:
        spark.conf.set("spark.sql.session.timeZone", own)
    assert None not in both.rows(repo, "every", keys)


def test_a_time_without_a_zone_is_utc_whatever_the_session_thinks(bench: Workbench, both: Both) -> None:
    times = pa.array([datetime(2025, 12, 31, 23, 59)], pa.timestamp("us"))  # noqa: DTZ001 - that is the point
    pq.write_table(pa.table({"user_id": ["u0"], "at": times, "n": [1]}), bench.write("n.parquet", b""))
    repo = bench.define(
        """
        source = FileSource("numbers", "n.parquet", timestamp_field="at")
        view = FeatureView("numbers", user, source, [Attribute("n", Int64)])
        """
    )
    frame = both.parquet("n.parquet")
    assert frame.schema["at"].dataType.simpleString() == "timestamp_ntz"
    assert both.check(repo, "numbers", frame, users(1)).keys == 1


NUMBERS = """
    source = FileSource("numbers", "numbers.csv")
    view = FeatureView("numbers", user, source, [Attribute("n", Int64), Attribute("s", String)])
"""


def numbers_csv() -> str:
    rows = [f"u{n % 7},{n},{'s' * (n % 5)},{n}" for n in range(200)]
    return "\n".join(["user_id,n,s,number", *rows]) + "\n"


def test_order_by_says_which_of_equals_is_the_last(bench: Workbench, both: Both) -> None:
    from pyspark.sql import functions

    bench.write("numbers.csv", numbers_csv())
    repo = bench.define(NUMBERS)
    frame = both.csv("numbers.csv").withColumn("number", functions.col("number").cast("int")).repartition(5)
    both.check(repo, "numbers", frame, users(7), order_by="number")
    both.check(repo, "numbers", frame.orderBy(functions.rand(1)), users(7), order_by="NUMBER")
    moments = frame.withColumn("number", functions.timestamp_micros(functions.col("number")))
    both.check(repo, "numbers", moments, users(7), order_by="number")
    expected = "order_by: expected a column of integers or timestamps, got "
    with pytest.raises(DefinitionError, match=expected + "string"):
        both.spark(repo, "numbers", frame, order_by="s")
    with pytest.raises(DefinitionError, match=expected + "'nothing', which the DataFrame doesn't have"):
        both.spark(repo, "numbers", frame, order_by="nothing")


def test_without_it_the_values_decide_not_the_order(bench: Workbench, both: Both) -> None:
    from pyspark.sql import functions

    bench.write("numbers.csv", numbers_csv())
    repo = bench.define(NUMBERS)
    both.apply(repo)
    found = []
    for seed in range(3):
        both.spark(repo, "numbers", both.csv("numbers.csv").orderBy(functions.rand(seed)))
        found.append(both.rows(repo, "numbers", users(7)))
    assert None not in found[0]
    assert found[0] == found[1] == found[2]


def test_the_attributes_format_gets_the_same_items(bench: Workbench, both: Both) -> None:
    text = PROFILES.replace("NaN", "0.25").replace("u2,2025-12-01T00:00:00Z", "u2,2025-11-01T00:00:00Z")
    bench.write("profiles.csv", text)
    repo = bench.define(
        PROFILE.replace("])", "], row_format=AttributesFormat(timestamp_attribute='updated'))")
    )
    both.apply(repo)
    bench.run(repo)
    both.spark(repo, "profile", both.csv("profiles.csv").replace("NA", None, ["age"]))
    keys = [{"user_id": "u1"}, {"user_id": "u2"}]
    expected = bench.with_store(lambda store: store.get_items("default.profile", keys))
    bench.url = both.url
    assert bench.with_store(lambda store: store.get_items("default.profile", keys)) == expected


# --- bad rows -----------------------------------------------------------------------------------------------


def test_bad_rows_are_counted_and_told_and_nothing_is_written(bench: Workbench, both: Both) -> None:
    bench.write("events.csv", "\n".join(line for line in BAD.split("\n") if line.count(",") != 2))
    repo = bench.define(AGGREGATES)
    both.apply(repo)
    frame = both.csv("events.csv").coalesce(1)
    with pytest.raises(BadRowsError) as caught:
        both.spark(repo, "spend", frame, max_bad_rows=5)
    head, *lines, hint = str(caught.value).split("\n")
    assert head == (
        "view 'spend': expected at most 5 bad rows (as was asked for), got 6 in 7 rows; nothing was written"
    )
    assert [line.strip() for line in lines] == [
        "DataFrame, partition 0, row 1: user_id: expected a string, not null, got null",
        "DataFrame, partition 0, row 2: at: expected a timestamp in ISO-8601, got 'yesterday'",
        "DataFrame, partition 0, row 3: amount: expected a float64, got 'one'",
        "DataFrame, partition 0, row 4: units: expected an int64 above -2**63, got '1.5'",
        "DataFrame, partition 0, row 5: units: expected an int64 above -2**63, got '-9223372036854775808'",
        "DataFrame, partition 0, row 6: amount: expected a float64, got '1e999'",
    ]
    assert hint == "to leave out up to N bad rows and write the others: max_bad_rows=N"
    assert both.rows(repo, "spend", users(2)) == [None, None]
    report = both.check(repo, "spend", frame, users(2), max_bad_rows=6)
    assert (report.rows_bad, report.keys, len(report.bad_samples)) == (6, 1, 6)


def test_columns_that_lack_or_have_another_type_are_refused_before_anything_runs(
    bench: Workbench, both: Both
) -> None:
    bench.write("events.csv", events_csv([]))
    repo = bench.define(AGGREGATES)
    both.apply(repo)
    frame = both.csv("events.csv")
    expected = "column 'units': expected one of that name, the DataFrame has user_id, at, amount, kind"
    with pytest.raises(DefinitionError, match=expected):
        both.spark(repo, "spend", frame.drop("units"))
    with pytest.raises(DefinitionError, match="column 'units': expected int64, the source has BOOLEAN"):
        both.spark(repo, "spend", frame.selectExpr("user_id", "at", "amount", "true AS units", "kind"))
    with pytest.raises(DefinitionError, match="expected one column 'units', got 2 of that name"):
        both.spark(repo, "spend", frame.selectExpr("*", "1 AS UNITS"))
    with pytest.raises(DefinitionError, match="order_by: expected none for a view of aggregates"):
        both.spark(repo, "spend", frame, order_by="kind")


def test_what_executors_or_the_job_cannot_use_is_refused(
    bench: Workbench, both: Both, spark: SparkSession
) -> None:
    bench.write("events.csv", events_csv([]))
    repo = bench.define(AGGREGATES)
    with pytest.raises(
        DefinitionError, match=r"until: expected a time with a zone, got '2026-01-01T00:00:00'"
    ):
        both.spark(repo, "spend", both.csv("events.csv"), until=UNTIL.replace(tzinfo=None))
    with pytest.raises(DefinitionError, match=r"table default\.fastserve: .*run `fastserve apply` first"):
        both.spark(repo, "spend", both.csv("events.csv"))
    both.apply(repo)
    with pytest.raises(DefinitionError, match="partitions: expected at least 1, got 0"):
        both.spark(repo, "spend", both.csv("events.csv"), partitions=0)
    with pytest.raises(DefinitionError, match="expected one that ends, got a streaming one"):
        both.spark(repo, "spend", spark.readStream.format("rate").load())


def test_a_folder_is_no_store_for_a_cluster() -> None:
    class Session:
        class conf:  # noqa: N801 - as Spark calls it
            @staticmethod
            def get(name: str, default: str) -> str:
                return "yarn"

    url = "local:./store"
    with pytest.raises(
        DefinitionError, match=r"expected a store that all executors reach, .* master is 'yarn'"
    ):
        spark_job._reachable(StoreAddresses(url), Session())  # type: ignore[arg-type]
    reached = StoreAddresses("dynamodb://eu-central-1?prefix=prod.", {"hot": "redis://cache"}, {"v": "hot"})
    assert spark_job._reachable(reached, Session()) == reached  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="expected a store that all executors reach"):
        spark_job._reachable(StoreAddresses("redis://a", {"b": url}), Session())  # type: ignore[arg-type]


# --- running it again ---------------------------------------------------------------------------------------


def test_what_was_materialized_is_recorded_as_by_one_machine(bench: Workbench, both: Both) -> None:
    bench.write("events.csv", events_csv(random_events(50, 3)))
    both.check(bench.define(AGGREGATES), "spend", both.csv("events.csv"), users(3))
    expected = bench.with_store(lambda store: Registry(store, "default").materialized(["spend"]))
    bench.url = both.url
    assert bench.with_store(lambda store: Registry(store, "default").materialized(["spend"])) == expected


def test_a_failed_job_goes_on_where_it_ended(bench: Workbench, both: Both, spark: SparkSession) -> None:
    from pyspark.errors import PySparkException

    owners = {key: spark.sql(f"SELECT pmod(hash('{key}'), 4)").collect()[0][0] for (key,) in users(30)}
    last = next(key for key, owner in owners.items() if owner == 3)
    lines = [f"{key},1,x" for key in owners if key != last]
    bench.write("numbers.csv", "\n".join(["user_id,n,s", *lines, f"{last},1,x"]) + "\n")
    repo = bench.define(NUMBERS)
    both.apply(repo)
    good = both.csv("numbers.csv").coalesce(1)
    too_long = good.selectExpr("user_id", "n", f"if(user_id = '{last}', repeat('x', 400000), s) AS s")
    with pytest.raises(PySparkException, match=r"row: expected at most 399360 bytes"):
        both.spark(repo, "numbers", too_long, input_name="version 7")
    report = both.spark(repo, "numbers", good, input_name="version 7")
    assert 0 < report.resumed < 4
    assert report.keys == 30
    assert None not in both.rows(repo, "numbers", users(30))
    again = both.spark(repo, "numbers", good, input_name="version 7")
    assert (again.resumed, again.keys, again.bytes) == (0, 30, report.bytes)


def test_a_notebook_may_call_it_from_within_its_loop(bench: Workbench, both: Both) -> None:
    bench.write("numbers.csv", numbers_csv())
    repo = bench.define(NUMBERS)
    both.apply(repo)

    async def cell() -> MaterializeReport:
        return both.spark(repo, "numbers", both.csv("numbers.csv"))

    assert asyncio.run(cell()).keys == 7


def test_the_page_has_every_parameter() -> None:
    text = (ROOT / "docs" / "batch-at-scale.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \| (?:`([^`]+)`)? ?\|", text, re.MULTILINE)
    expected = [
        (parameter.name, "" if parameter.default is parameter.empty else str(parameter.default))
        for parameter in inspect.signature(materialize_frame).parameters.values()
    ]
    assert documented == expected


def test_importing_the_module_does_not_import_pyspark() -> None:
    code = "import sys, fastserve.ingest.spark; sys.exit('pyspark' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
