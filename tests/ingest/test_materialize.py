"""The batch job from files to rows in the local store."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pytest

from fastserve.errors import DefinitionError, StoreError
from fastserve.ingest import checking, materialize, partition, shuffle
from fastserve.ingest.badrows import BadRowsError
from fastserve.ingest.registry import Registry
from fastserve.sdk.repo import Repo
from fastserve.store.interface import OnlineStore
from fastserve.tiles.rows import encode_row
from tests.differential.merging import Merging, null_row
from tests.differential.naive import Event, naive_answer
from tests.ingest.support import DAY_NS, HOUR_NS, UNTIL_NS, Workbench

ALL = '("sum", "count", "mean", "min", "max")'
AGGREGATES = f"""
    source = FileSource("events", "events.csv", timestamp_field="at")
    amount, units = Field("amount", Float64), Field("units", Int64)
    features = aggregates(amount, {ALL}, [days(1), days(7), days(28)])
    features += aggregates(units, {ALL}, [hours(3), days(7)])
    features += aggregates(Field("kind", String), ["count"], [days(7)])
    view = FeatureView("spend", user, source, features, aggregation_interval=hours(1))
"""


def time_text(time_ns: int) -> str:
    """Return a time with 9 digits of a second."""
    seconds, rest = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"


def random_events(count: int, users: int, seed: int = 0) -> list[Event]:
    chance = random.Random(seed)
    events = []
    for _ in range(count):
        values = {
            "amount": chance.choice([None, chance.randrange(-800, 800) / 8]),
            "units": chance.choice([None, chance.randrange(-(2**53), 2**53)]),
            "kind": chance.choice([None, "a", 'b"|\\,']),
        }
        ago_ns = chance.choice([chance.randrange(31 * DAY_NS), chance.randrange(40) * HOUR_NS])
        events.append(Event(f"u{chance.randrange(users)}", UNTIL_NS + HOUR_NS - ago_ns, values))
    return events


def inside(event: Event) -> bool:
    """Whether the event is in the longest window."""
    return UNTIL_NS - 28 * DAY_NS <= event.time_ns < UNTIL_NS


def events_csv(events: list[Event]) -> str:
    lines = ["user_id,at,amount,units,kind"]
    for event in events:
        kind = event.values["kind"]
        quoted = "" if kind is None else '"' + kind.replace('"', '""') + '"'
        raw = [event.values[name] for name in ("amount", "units")]
        numbers = ["" if value is None else repr(value) for value in raw]
        lines.append(",".join([event.key, time_text(event.time_ns), *numbers, quoted]))
    return "\n".join(lines) + "\n"


def check_against_naive(bench: Workbench, repo: Repo, events: list[Event]) -> None:
    plan = bench.plan(repo, "spend")
    schema = plan.schema
    assert schema is not None
    keys = sorted({event.key for event in events})
    rows = bench.rows(plan, [(key,) for key in keys])
    for time_ns in (UNTIL_NS, UNTIL_NS + 37 * HOUR_NS + 1, UNTIL_NS + 2 * DAY_NS):
        requests = [[null_row(schema, UNTIL_NS) if row is None else row] for row in rows]
        answers = Merging(schema).fast(requests, [UNTIL_NS], time_ns)
        for key, (got,) in zip(keys, answers, strict=True):
            for feature in schema.features:
                want = naive_answer(events, feature.spec, key, UNTIL_NS, time_ns)
                value = got[feature.spec.name]
                if feature.spec.function == "mean" and want is not None:  # int sums beyond 2**53 are rounded
                    assert math.isclose(value, want, rel_tol=1e-15), (key, feature.spec.name, time_ns)
                else:
                    assert value == want, (key, feature.spec.name, time_ns)


def test_aggregates_are_those_of_the_naive_twin(bench: Workbench) -> None:
    events = random_events(600, 9)
    bench.write("events.csv", events_csv(events))
    repo = bench.define(AGGREGATES)
    (report,) = bench.run(repo)
    assert (report.rows_read, report.rows_bad) == (600, 0)
    assert report.rows_outside == sum(not inside(event) for event in events)
    check_against_naive(bench, repo, events)


def test_entities_that_go_over_batches_are_merged(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "BATCH_EVENTS", 7)
    monkeypatch.setattr(partition, "CHUNK_WORDS", 1)
    monkeypatch.setattr(checking, "BATCH_ROWS", 11)
    events = random_events(500, 5)
    bench.write("events.csv", events_csv(events))
    repo = bench.define(AGGREGATES)
    bench.run(repo)
    check_against_naive(bench, repo, events)


def test_an_entity_with_more_events_than_memory_is_sorted_on_disk(bench: Workbench) -> None:
    path = bench.write("events.parquet", b"")
    count = 3_000_000
    at = f"make_timestamp_ns({UNTIL_NS} - 1 - (range * 7919) % {DAY_NS})"
    duckdb.sql(f"COPY (SELECT 1 AS one, {at} AS at, range::DOUBLE AS amount FROM range({count})) TO '{path}'")
    repo = bench.define(
        """
        source = FileSource("events", "events.parquet", timestamp_field="at")
        features = aggregates(Field("amount", Float64), ["sum", "count", "max"], [days(1)])
        view = FeatureView("hot", Entity("one", Field("one", Int64)), source, features,
                           aggregation_interval=hours(1))
        """
    )
    (report,) = bench.run(repo, memory_mb=64)
    assert (report.rows_read, report.keys) == (count, 1)
    plan = bench.plan(repo, "hot")
    assert plan.schema is not None
    ((values,),) = Merging(plan.schema).fast([[bench.rows(plan, [(1,)])[0] or b""]], [UNTIL_NS], UNTIL_NS)
    assert list(values.values()) == [count * (count - 1) / 2, count, count - 1]


def test_a_disk_without_room_is_an_error_that_says_so(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_job: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(materialize, "make_rows", full)
    bench.write("events.csv", events_csv(random_events(10, 2)))
    with pytest.raises(DefinitionError, match=r"'spend': expected room to work in .*No space left on device"):
        bench.run(bench.define(AGGREGATES))


@pytest.mark.parametrize("parallel", [1, 3])
def test_partitions_and_processes_change_nothing(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, parallel: int
) -> None:
    monkeypatch.setattr(shuffle, "SMALL_BYTES", 1)
    monkeypatch.setattr(shuffle, "BUFFER_BYTES", 1_000)
    monkeypatch.setattr(materialize, "ROWS_FOR_PROCESSES", 100)
    events = random_events(400, 30)
    bench.write("events.csv", events_csv(events))
    repo = bench.define(AGGREGATES)
    (report,) = bench.run(repo, parallel=parallel)
    assert report.keys == len({event.key for event in events if inside(event)})
    check_against_naive(bench, repo, events)


def test_a_key_without_an_event_in_any_window_gets_no_row(bench: Workbench) -> None:
    old = Event("old", UNTIL_NS - 40 * DAY_NS, {"amount": 1.0, "units": 1, "kind": None})
    late = Event("late", UNTIL_NS, {"amount": 1.0, "units": 1, "kind": None})
    bench.write("events.csv", events_csv([old, late]))
    (report,) = bench.run(repo := bench.define(AGGREGATES))
    assert (report.rows_outside, report.keys) == (2, 0)
    assert bench.rows(bench.plan(repo, "spend"), [("old",), ("late",)]) == [None, None]


def test_until_within_a_tile_leaves_the_open_tile_out(bench: Workbench) -> None:
    events = [Event("u", UNTIL_NS + n, {"amount": 1.0, "units": 1, "kind": None}) for n in (-1, 0, 1)]
    bench.write("events.csv", events_csv(events))
    repo = bench.define(AGGREGATES)
    (report,) = bench.run(repo, until_ns=UNTIL_NS + HOUR_NS - 1)
    assert (report.until_ns, report.as_of_ns, report.keys) == (UNTIL_NS + HOUR_NS - 1, UNTIL_NS, 1)
    found = bench.row(repo, "spend", "u")
    assert found is not None
    assert found[0] == UNTIL_NS
    check_against_naive(bench, repo, events)


def test_events_before_the_start_time_do_not_count(bench: Workbench) -> None:
    events = [Event("u", UNTIL_NS - n * DAY_NS, {"amount": 1.0, "units": 1, "kind": None}) for n in (1, 2, 3)]
    bench.write("events.csv", events_csv(events))
    repo = bench.define(AGGREGATES.replace("hours(1))", "hours(1), start_time=datetime(2025, 12, 30))"))
    (report,) = bench.run(repo)
    assert report.rows_outside == 1
    check_against_naive(bench, repo, events[:2])


def test_an_integer_sum_beyond_int64_is_null_and_reported(bench: Workbench) -> None:
    big = {"amount": None, "units": 2**63 - 1, "kind": None}
    events = [Event("u", UNTIL_NS - 1, big), Event("u", UNTIL_NS - 2, big), Event("w", UNTIL_NS - 1, big)]
    bench.write("events.csv", events_csv(events))
    (report,) = bench.run(bench.define(AGGREGATES))
    assert (report.spoilt_keys, report.spoilt_samples) == (1, ("u",))


# --- attributes ---------------------------------------------------------------------------------------------

PROFILE = """
    source = FileSource("profiles", "profiles.csv", timestamp_field="at")
    view = FeatureView("profile", user, source, [
        Attribute("name", String), Attribute("age", Int64), Attribute("score", Float64),
        Attribute("vip", Bool), Attribute("seen", Timestamp), Attribute("ratio", Float32)])
"""
PROFILES = """
    user_id,at,name,age,score,vip,seen,ratio
    u1,2025-12-01T00:00:00Z,older,1,0.5,true,2025-01-01,0.25
    u1,2025-12-31 23:59:59.999999999,"ë ""Z"" !",-9223372036854775808,NaN,0,2025-01-01 00:00:00.000000001,1.5
    u1,2026-01-01T00:00:00Z,too late,3,0.5,true,2025-01-01,0.25
    u2,2025-12-01T00:00:00Z,first,1,1,1,,
    u2,2025-12-01T01:00:00+01:00,last of the tie,NA,,,,
"""


def test_the_latest_row_before_until_wins_and_of_a_tie_the_last(bench: Workbench) -> None:
    bench.write("profiles.csv", PROFILES)
    repo = bench.define(PROFILE)
    (report,) = bench.run(repo)
    assert (report.rows_read, report.rows_outside, report.keys) == (5, 1, 2)
    time_ns, values = bench.row(repo, "profile", "u1") or (0, {})
    assert time_ns == UNTIL_NS - 1
    assert values.pop("score") != 0.5
    assert values == {
        "name": '"ë \\"Z\\" !"'.encode(),
        "age": -(2**63),
        "vip": False,
        "seen": 1_735_689_600 * 10**9 + 1,
        "ratio": 1.5,
    }
    time_ns, values = bench.row(repo, "profile", "u2") or (0, {})
    assert time_ns == 1_764_547_200 * 10**9
    assert values == {"name": b'"last of the tie"'} | dict.fromkeys(["age", "score", "vip", "seen", "ratio"])


def test_without_a_timestamp_the_last_row_wins_and_is_dated_until(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "BATCH_EVENTS", 2)
    bench.write("a.csv", "user_id,n\n" + "".join(f"u{n % 3},{n}\n" for n in range(20)))
    bench.write("b.csv", "user_id,n\nu1,100\n")
    repo = bench.define(
        """
        source = FileSource("numbers", ["a.csv", "b.csv"])
        view = FeatureView("numbers", user, source, [Attribute("n", Int64)])
        """
    )
    bench.run(repo)
    assert [bench.row(repo, "numbers", f"u{n}") for n in range(3)] == [
        (UNTIL_NS, {"n": 18}),
        (UNTIL_NS, {"n": 100}),
        (UNTIL_NS, {"n": 17}),
    ]


def test_nested_values_are_kept_as_the_api_writes_them(bench: Workbench) -> None:
    path = bench.write("nested.parquet", b"")
    duckdb.sql(
        """COPY (SELECT 'u1' AS user_id, [1, NULL, 9007199254740993] AS ids, {'a': 1.5, 'b': NULL} AS pair,
        MAP {'x': TIMESTAMP '2025-01-01 00:00:00.5'} AS times, [['a'], NULL, []] AS deep
        UNION ALL SELECT 'u2', NULL, NULL, NULL, NULL) TO '"""
        f"{path}' (FORMAT parquet)"
    )
    repo = bench.define(
        """
        source = FileSource("nested", "nested.parquet")
        view = FeatureView("nested", user, source, [
            Attribute("ids", Array(Int64)),
            Attribute("pair", Struct([Field("a", Float64), Field("b", String)])),
            Attribute("times", Map(String, Timestamp)), Attribute("deep", Array(Array(String)))])
        """
    )
    bench.run(repo)
    _, values = bench.row(repo, "nested", "u1") or (0, {})
    assert {name: orjson.loads(text) for name, text in values.items()} == {
        "ids": ["1", None, "9007199254740993"],
        "pair": [1.5, None],
        "times": {"x": "2025-01-01T00:00:00.500Z"},
        "deep": [["a"], None, []],
    }
    _, values = bench.row(repo, "nested", "u2") or (0, {})
    assert set(values.values()) == {None}


def test_the_attributes_format_gets_ordinary_items(bench: Workbench) -> None:
    bench.write("profiles.csv", PROFILES.replace("NaN", "0.25"))
    repo = bench.define(
        PROFILE.replace("])", "], row_format=AttributesFormat(timestamp_attribute='updated'))")
    )
    bench.run(repo)
    keys = [{"user_id": "u1"}, {"user_id": "u2"}]
    first, second = bench.with_store(lambda store: store.get_items("default.profile", keys))
    assert first == {
        "user_id": "u1",
        "name": 'ë "Z" !',
        "age": -(2**63),
        "score": 0.25,
        "vip": False,
        "seen": "2025-01-01T00:00:00.000000001Z",
        "ratio": 1.5,
        "updated": "2025-12-31T23:59:59.999999999Z",
    }
    assert second is not None
    assert (second["name"], second["age"]) == ("last of the tie", None)


def test_the_attributes_format_refuses_what_dynamodb_has_no_number_for(bench: Workbench) -> None:
    bench.write("profiles.csv", PROFILES)
    repo = bench.define(PROFILE.replace("])", "], row_format=AttributesFormat())"))
    with pytest.raises(BadRowsError, match="score: expected a finite float64, got 'NaN'"):
        bench.run(repo)


def test_keys_of_every_type_are_found_again(bench: Workbench) -> None:
    bench.write("k.csv", 'a,b,c,d,n\n"x|\\",-5,true,2025-01-01T00:00:00.000000001Z,7\n')
    repo = bench.define(
        """
        fields = [Field("a", String), Field("b", Int64), Field("c", Bool), Field("d", Timestamp)]
        keys = Entity("keys", fields)
        view = FeatureView("many", keys, FileSource("k", "k.csv"), [Attribute("n", Int64)])
        """
    )
    bench.run(repo)
    found = bench.row(repo, "many", "x|\\", -5, True, 1_735_689_600 * 10**9 + 1)
    assert found == (UNTIL_NS, {"n": 7})


# --- bad rows -----------------------------------------------------------------------------------------------

BAD = """
    user_id,at,amount,units,kind
    ,2025-12-31,1,1,a
    u1,yesterday,1,1,a
    u1,2025-12-31,one,1,a
    u1,2025-12-31,1,1.5,a
    u1,2025-12-31,1
    u1,2025-12-31,1,-9223372036854775808,a
    u1,2025-12-31,1e999,1,a
    u1,2025-12-31,1,1,a
"""


def test_every_bad_row_is_told_with_its_place_and_reason(bench: Workbench) -> None:
    bench.write("events.csv", BAD)
    repo = bench.define(AGGREGATES)
    with pytest.raises(BadRowsError) as caught:
        bench.run(repo, max_bad_rows=6)
    head, *lines, hint = str(caught.value).split("\n")
    assert hint == "to leave out up to N bad rows and write the others: --max-bad-rows N"
    assert head == (
        "view 'spend': expected at most 6 bad rows (as was asked for), got 7 in 8 rows; nothing was written"
    )
    assert [line.strip() for line in lines] == [
        "events.csv, row 1: user_id: expected a string, not null, got null",
        "events.csv, row 2: at: expected a timestamp in ISO-8601, got 'yesterday'",
        "events.csv, row 3: amount: expected a float64, got 'one'",
        "events.csv, row 4: units: expected an int64 above -2**63, got '1.5'",
        "events.csv, line 6: Expected Number of Columns: 5 Found: 3: expected 5 columns of UTF-8 text, got "
        + repr("u1,2025-12-31,1"),
        "events.csv, row 6: units: expected an int64 above -2**63, got '-9223372036854775808'",
        "events.csv, row 7: amount: expected a float64, got '1e999'",
    ]


def test_as_many_bad_rows_as_said_are_tolerated_and_reported(bench: Workbench) -> None:
    bench.write("events.csv", BAD)
    (report,) = bench.run(bench.define(AGGREGATES), max_bad_rows=7)
    assert (report.rows_read, report.rows_bad, report.keys, len(report.bad_samples)) == (8, 7, 1, 7)


def test_by_default_one_row_in_twenty_may_be_bad(bench: Workbench) -> None:
    rows = ["u1,2025-12-31,1,1,a\n"] * 38
    repo = bench.define(AGGREGATES)
    bench.write("events.csv", "user_id,at,amount,units,kind\n" + "".join(rows) + ",,,,\n" * 2)
    (report,) = bench.run(repo)
    assert (report.rows_read, report.rows_bad) == (40, 2)
    bench.write("events.csv", "user_id,at,amount,units,kind\n" + "".join(rows) + ",,,,\n" * 3)
    with pytest.raises(BadRowsError, match=r"at most 2 bad rows \(5% of all\), got 3 in 41 rows"):
        bench.run(repo)
    with pytest.raises(BadRowsError, match=r"at most 0 bad rows .*, got 3 in 41 rows"):
        bench.run(repo, max_bad_rows=0)


def test_nothing_is_written_when_too_many_rows_are_bad(bench: Workbench) -> None:
    bench.write("events.csv", BAD)
    repo = bench.define(AGGREGATES)
    with pytest.raises(BadRowsError):
        bench.run(repo, max_bad_rows=0)
    assert bench.row(repo, "spend", "u1") is None
    materialized = bench.with_store(lambda store: Registry(store, "default").materialized(["spend"]))
    assert materialized == {"spend": None}


def test_a_key_too_long_for_the_store_is_a_bad_row(bench: Workbench) -> None:
    rows = [f"{'x' * length},2025-12-31,1,1,a\n" for length in (2000, 2001)]
    rows.append(f"{'|' * 1001},2025-12-31,1,1,a\n")
    bench.write("events.csv", "user_id,at,amount,units,kind\n" + "".join(rows))
    (report,) = bench.run(bench.define(AGGREGATES), max_bad_rows=2)
    assert (report.keys, [bad.where for bad in report.bad_samples]) == (1, ["row 2", "row 3"])
    assert len(str(report.bad_samples[0])) < 200


# --- running it again ---------------------------------------------------------------------------------------


def all_rows(bench: Workbench, repo: Repo, users: int) -> list[bytes | None]:
    return bench.rows(bench.plan(repo, "spend"), [(f"u{n}",) for n in range(users)])


def test_a_second_run_writes_the_same_rows(bench: Workbench) -> None:
    bench.write("events.csv", events_csv(random_events(300, 20)))
    repo = bench.define(AGGREGATES)
    (first,) = bench.run(repo)
    rows = all_rows(bench, repo, 20)
    (second,) = bench.run(repo)
    assert all_rows(bench, repo, 20) == rows
    assert (second.keys, second.resumed) == (first.keys, 0)


def test_an_interrupted_job_goes_on_where_it_ended(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shuffle, "SMALL_BYTES", 1)
    bench.write("events.csv", events_csv(random_events(300, 60)))
    repo = bench.define(AGGREGATES)
    puts: list[str] = []

    def failing(after: int) -> Any:
        async def run(store: OnlineStore) -> Any:
            put_rows = store.put_rows

            async def put(table: str, rows: Any) -> None:
                if table == "default.spend":
                    if len(puts) == after:
                        raise StoreError("the store is gone", retryable=True)
                    puts.append(table)
                await put_rows(table, rows)

            monkeypatch.setattr(store, "put_rows", put)
            return await materialize.materialize(repo, ["spend"], store, until_ns=UNTIL_NS, progress=False)

        return run

    bench.apply(repo)
    with pytest.raises(StoreError, match="the store is gone"):
        bench.with_store(failing(3))
    materialized = bench.with_store(lambda store: Registry(store, "default").materialized(["spend"]))
    assert materialized == {"spend": None}
    (report,) = bench.with_store(failing(1_000))
    assert report.resumed > 0
    resumed = all_rows(bench, repo, 60)
    (again,) = bench.run(repo)
    assert (again.resumed, again.keys, again.bytes) == (0, report.keys, report.bytes)
    assert all_rows(bench, repo, 60) == resumed


def test_another_time_or_another_file_is_another_job(bench: Workbench) -> None:
    path = bench.write("events.csv", events_csv(random_events(10, 2)))
    repo = bench.define(AGGREGATES)
    plan = bench.plan(repo, "spend")
    source = plan.view.batch_source
    assert source is not None

    def name(until_ns: int) -> str:
        from fastserve.ingest.files import find_files
        from fastserve.ingest.jobs import fingerprint

        return fingerprint(plan, find_files(source, None, bench.folder), until_ns, 8)

    first = name(UNTIL_NS)
    assert name(UNTIL_NS) == first
    assert name(UNTIL_NS + 1) != first
    path.write_text(path.read_text() + "u1,2025-12-31,1,1,a\n")
    assert name(UNTIL_NS) != first


def test_temporary_files_go_with_the_job(bench: Workbench) -> None:
    bench.write("events.csv", events_csv(random_events(10, 2)))
    scratch = bench.folder / "scratch"
    scratch.mkdir()
    bench.run(bench.define(AGGREGATES), scratch=scratch)
    bench.write("events.csv", BAD)
    with pytest.raises(BadRowsError):
        bench.run(bench.define(AGGREGATES), scratch=scratch, max_bad_rows=0)
    assert list(scratch.iterdir()) == []


# --- what is refused ----------------------------------------------------------------------------------------


def test_a_table_that_was_never_applied_is_refused(bench: Workbench) -> None:
    bench.write("events.csv", events_csv([]))
    repo = bench.define(AGGREGATES)
    with pytest.raises(DefinitionError, match=r"table default\.fastserve: .*run `fastserve apply` first"):
        bench.with_store(lambda s: materialize.materialize(repo, ["spend"], s, until_ns=UNTIL_NS))


def test_an_unknown_view_is_refused(bench: Workbench) -> None:
    bench.write("events.csv", events_csv([]))
    with pytest.raises(DefinitionError, match="view: expected one of spend, got 'spent'"):
        bench.run(bench.define(AGGREGATES), ["spent"])


def test_a_source_without_files_is_refused(bench: Workbench) -> None:
    repo = bench.define(
        """
        pushed = PushSource("pushed", [Field("user_id", String), Field("n", Int64)])
        view = FeatureView("pushed_view", user, pushed, [Attribute("n", Int64)])
        """
    )
    with pytest.raises(
        DefinitionError, match="a source with files to materialize, got the PushSource 'pushed'"
    ):
        bench.run(repo)


def test_a_column_that_is_missing_or_of_a_wrong_type_is_refused(bench: Workbench) -> None:
    bench.write("events.csv", "user_id,at,amount\nu,2025-01-01,1\n")
    expected = r"column 'units': expected one of that name, events.csv has user_id, at, amount"
    with pytest.raises(DefinitionError, match=expected):
        bench.run(bench.define(AGGREGATES))
    path = bench.write("events.parquet", b"")
    duckdb.sql(
        f"COPY (SELECT 'u' AS user_id, now() AS \"at\", true AS amount, 1 AS units, 'a' AS kind) TO '{path}'"
    )
    with pytest.raises(DefinitionError, match=r"column 'amount': expected float64, the source has BOOLEAN"):
        bench.run(bench.define(AGGREGATES.replace("events.csv", "events.parquet")))


def test_inputs_stand_in_for_the_source_of_views_that_share_one(bench: Workbench) -> None:
    bench.write("events.csv", events_csv([]))
    other: Path = bench.write("other.csv", events_csv(random_events(50, 3)))
    repo = bench.define(AGGREGATES)
    (report,) = bench.run(repo, inputs=[str(other)])
    assert report.rows_read == 50
    profile = PROFILE.replace("source = ", "profiles = ").replace("user, source", "user, profiles")
    two = bench.define(AGGREGATES + profile)
    with pytest.raises(
        DefinitionError, match="expected views of one source, got views of 2: events, profiles"
    ):
        bench.run(two, inputs=[str(other)])


def test_the_same_view_in_parquet_and_csv_gives_the_same_rows(bench: Workbench) -> None:
    events = random_events(200, 5)
    text = bench.write("events.csv", events_csv(events))
    repo = bench.define(AGGREGATES)
    bench.run(repo)
    rows = all_rows(bench, repo, 5)
    path = bench.write("events.parquet", b"")
    duckdb.sql(
        'COPY (SELECT user_id, CAST("at" AS TIMESTAMP_NS) AS "at", amount, units, kind FROM '
        f"read_csv('{text}', types = {{'units': 'BIGINT', 'amount': 'DOUBLE', 'at': 'VARCHAR'}})) TO '{path}'"
    )
    bench.run(repo, inputs=[str(path)])
    assert all_rows(bench, repo, 5) == rows


def test_columns_that_differ_by_case_alone_are_refused(bench: Workbench) -> None:
    path = bench.write("cases.parquet", b"")
    duckdb.sql(f"COPY (SELECT 'u' AS user_id, 1 AS n) TO '{path}'")
    repo = bench.define(
        """
        source = FileSource("cases", "cases.parquet")
        view = FeatureView("cases", user, source, [Attribute("n", Int64), Attribute("N", Int64)])
        """
    )
    with pytest.raises(
        DefinitionError, match=r"columns 'n' and 'N' \(expected names that differ by more than case\)"
    ):
        bench.run(repo)


def test_a_batch_leaves_newer_pushes_as_they_are(bench: Workbench) -> None:
    repo = bench.define(
        """
        files = FileSource("events", "events.csv", timestamp_field="at")
        schema = [Field("user_id", String), Field("amount", Float64), Field("at", Timestamp)]
        both = PushSource("both", schema, batch_source=files, timestamp_field="at")
        newest = FeatureView("newest", user, both, [Attribute("amount", Float64)])
        """
    )
    bench.write(
        "events.csv",
        f"user_id,amount,at\nu1,1,{time_text(UNTIL_NS - HOUR_NS)}\nu2,2,{time_text(UNTIL_NS - HOUR_NS)}\n",
    )
    bench.run(repo)
    plan = bench.plan(repo, "newest")

    async def push(store: OnlineStore) -> None:
        rows = [
            (user, encode_row(plan.layout, {"amount": 9.0}, UNTIL_NS - HOUR_NS + later_ns))
            for user, later_ns in (("u1", 1), ("u2", -1))
        ]
        await store.put_newest(plan.table, rows)

    bench.with_store(push)
    for _ in range(2):
        assert bench.row(repo, "newest", "u1") == (UNTIL_NS - HOUR_NS + 1, {"amount": 9.0})
        assert bench.row(repo, "newest", "u2") == (UNTIL_NS - HOUR_NS, {"amount": 2.0})
        bench.run(repo)


def test_rows_of_a_streamed_view_are_as_of_a_whole_interval(bench: Workbench) -> None:
    repo = bench.define(
        """
        files = FileSource("events", "events.csv", timestamp_field="at")
        schema = [Field("user_id", String), Field("amount", Float64), Field("at", Timestamp)]
        both = PushSource("both", schema, batch_source=files, timestamp_field="at")
        counts = aggregates(Field("amount", Float64), ["count"], [days(1)])
        spend = FeatureView("spend", user, both, counts, aggregation_interval=hours(1))
        """
    )
    bench.write(
        "events.csv", f"user_id,amount,at\nu1,1,{time_text(UNTIL_NS)}\nu1,1,{time_text(UNTIL_NS - 1)}\n"
    )

    (report,) = bench.run(repo, until_ns=UNTIL_NS + HOUR_NS - 1)

    assert (report.as_of_ns, report.rows_outside) == (UNTIL_NS, 1)
    found = bench.row(repo, "spend", "u1")
    assert found is not None
    assert (found[0], sum(found[1].values())) == (UNTIL_NS, 1)
