"""Keys for which no row can be written: what is pushed to them isn't taken for all there is."""

from __future__ import annotations

import asyncio
import gzip
from base64 import b64decode
from itertools import count
from typing import Any

import orjson
import pyarrow as pa
import pytest

from fastserve.errors import StoreError
from fastserve.ingest.compact import CompactReport
from fastserve.ingest.export import export
from fastserve.ingest.materialize import MaterializeReport, materialize
from fastserve.ingest.partition import rows_job
from fastserve.ingest.putting import destination, get_put
from fastserve.ingest.refresh import RefreshSettings, compact_by_hand, new_runner
from fastserve.ingest.registry import Registry
from fastserve.ingest.shuffle import TIME, key_column
from fastserve.ingest.spark_tasks import PARTITION, WriteJob, read_result, write_batches
from fastserve.ingest.stream_writer import StreamWriter
from fastserve.plan.service import plan_workspace
from fastserve.plan.views import ViewPlan, plan_view
from fastserve.sdk.repo import Repo, load_repo
from fastserve.store.addresses import StoreAddresses
from fastserve.store.interface import MAX_ITEM_BYTES, MAX_ROW_BYTES, OnlineStore
from fastserve.store.mixed import prefixes_of
from fastserve.tiles.layout import NO_ROW
from fastserve.tiles.times import format_time
from tests.ingest.support import DAY_NS, HOUR_NS, Workbench
from tests.store.test_conditions import STORES
from tests.support.dynamodb_servers import (  # noqa: F401 - pytest finds fixtures by their names here
    aws_environment,
    dynoxide_endpoint,
    moto_endpoint,
)
from tests.support.served import Vector, serving
from tests.support.standin import stand_in  # noqa: F401 - likewise

NOW_NS = 4_102_444_800 * 10**9  # 2100-01-01: Redis looks at its own clock, and what has expired is gone
FILES_UNTIL_NS = NOW_NS - DAY_NS
LATER_NS = NOW_NS + 60 * 10**9
FIELDS = """
    fields = [Field("user_id", String), Field("at", Timestamp), Field("note", String)]
"""
WITH_FILES = (
    FIELDS
    + """
    files = FileSource("files", "events.csv", timestamp_field="at")
    pushes = PushSource("pushes", fields, batch_source=files, timestamp_field="at")
    notes = Field("note", String)
    seen = [
        Aggregate(notes, "count", TimeWindow(days(28)), name="n"),
        Aggregate(notes, last(500), TimeWindow(days(28)), name="last"),
    ]
    spend = FeatureView("spend", user, pushes, seen, aggregation_interval=hours(1))
    FeatureService("s", features=[spend])
"""
)
PUSHED_ALONE = (
    FIELDS
    + """
    pushes = PushSource("pushes", fields, timestamp_field="at")
    notes = [Aggregate(Field("note", String), "count", TimeWindow(days(28)), name="n")]
    spend = FeatureView("spend", user, pushes, notes, aggregation_interval=hours(1), bundle="items")
    FeatureService("s", features=[spend])
"""
)
IN_A_BUNDLE = WITH_FILES.replace("hours(1))", 'hours(1), bundle="items")')
LARGE = 500
"""Notes of 1,000 bytes: no store holds the row of the last so many."""
DATABASES = count(3)
"""Of one server of Redis: these tests' tables have no prefix."""
PRESENT, MISSING = "PRESENT", "MISSING_DATA"
LOCAL = pytest.mark.parametrize("bench", ["local"], indirect=True)


@pytest.fixture(params=["local", "stand-in", "redis"])
def bench(bench: Workbench, request: pytest.FixtureRequest) -> Workbench:
    if request.param == "redis":
        bench.url = f"redis://{request.getfixturevalue('redis_server')}/{next(DATABASES)}"
    elif request.param != "local":
        bench.url = STORES[request.param](request)
    return bench


def write_events(bench: Workbench, large: int = LARGE) -> None:
    lines = ["user_id,at,note"]
    for user, notes in (("large", large), ("small", 2)):
        times = [format_time(FILES_UNTIL_NS - HOUR_NS * (1 + n % 60)) for n in range(notes)]
        lines += [f"{user},{time},{n:01000}" for n, time in enumerate(times)]
    bench.write("events.csv", "\n".join(lines) + "\n")


def define(bench: Workbench, definitions: str) -> None:
    """Define and apply."""
    bench.apply(bench.define(definitions))


def push(bench: Workbench, *ages_ns: int, users: tuple[str, ...] = ("large", "small")) -> None:
    """Push an event of each age to each user."""
    rows = [
        {"user_id": user, "at": format_time(NOW_NS - age_ns), "note": "x"}
        for user in users
        for age_ns in ages_ns
    ]

    async def run() -> None:
        async with StreamWriter(bench.folder / "repo", bench.url, clock_ns=lambda: NOW_NS) as writer:
            await writer.write("pushes", rows)

    asyncio.run(run())


def materialized(bench: Workbench, until_ns: int = FILES_UNTIL_NS) -> MaterializeReport:
    repo = load_repo(bench.folder / "repo")

    async def run(store: OnlineStore) -> list[MaterializeReport]:
        return await materialize(repo, ["spend"], store, until_ns=until_ns, progress=False)

    return bench.with_store(run)[0]


def plan_in(bench: Workbench, store: OnlineStore) -> ViewPlan:
    repo = load_repo(bench.folder / "repo")
    return plan_workspace(repo, prefixes_of(store)).views["spend"]


def compacted(bench: Workbench, until_ns: int = NOW_NS) -> CompactReport:
    async def run(store: OnlineStore) -> list[CompactReport]:
        return await compact_by_hand(
            [plan_in(bench, store)],
            store,
            Registry(store, "default"),
            until_ns=until_ns,
            settings=RefreshSettings(progress=False),
            runner=new_runner(lambda: max(until_ns, NOW_NS) + 60 * 10**9),
        )

    return bench.with_store(run)[0]


def counts(bench: Workbench, *users: str, now_ns: int = LATER_NS) -> list[tuple[Any, str]]:
    """Return the counts and their statuses that a server answers with."""
    vectors = asyncio.run(asked(bench, load_repo(bench.folder / "repo"), users, now_ns))
    return [(vector.values["spend.n"], vector.statuses["spend.n"]) for vector in vectors]


async def asked(bench: Workbench, repo: Repo, users: tuple[str, ...], now_ns: int) -> list[Vector]:
    async with serving(repo, bench.url) as served:
        return await served.vectors("s", [{"user_id": user} for user in users], now_ns)


def stored(bench: Workbench, *users: str) -> list[bytes | None]:
    """Return what lies in the store."""

    async def read(store: OnlineStore) -> list[bytes | None]:
        return await get_put(store, destination(plan_in(bench, store)), users)

    return bench.with_store(read)


def fill(bench: Workbench, key: str, room: int | None) -> None:
    """Put rows of other views into a key's item that leave so many bytes; None: small ones."""

    async def put(store: OnlineStore) -> None:
        table = plan_in(bench, store).table
        most = MAX_ITEM_BYTES - len("k" + key) if bench.url.startswith("dynamodb") else MAX_ROW_BYTES
        sizes = [100, 100] if room is None else [200_000, most - room - 200_000]
        for name, size in zip(("v:a", "v:b"), sizes, strict=True):
            assert await store.put_bundled(table, name, [(key, bytes(size - len(name)))]) == []

    bench.with_store(put)


def test_a_key_whose_row_is_too_large_is_missing_until_a_row_of_it_is_written(bench: Workbench) -> None:
    write_events(bench)
    define(bench, WITH_FILES)
    push(bench, HOUR_NS, 2 * HOUR_NS, 3 * HOUR_NS)
    report = materialized(bench)
    assert (report.keys, report.too_large_keys, report.too_large_samples) == (1, 1, ("large",))
    assert counts(bench, "large", "small", "none") == [(None, MISSING), (5, PRESENT), (None, MISSING)]
    write_events(bench, large=10)
    assert materialized(bench, FILES_UNTIL_NS + HOUR_NS).too_large_keys == 0
    assert counts(bench, "large", "small") == [(13, PRESENT), (5, PRESENT)]


def test_a_key_without_room_in_its_item_is_missing_until_there_is(bench: Workbench) -> None:
    define(bench, PUSHED_ALONE)
    fill(bench, "large", room=40)
    push(bench, 8 * DAY_NS, 7 * DAY_NS, DAY_NS // 2)
    report = compacted(bench)
    assert (report.keys, report.too_large) == (1, ("large",))
    assert counts(bench, "large", "small") == [(None, MISSING), (3, PRESENT)]
    fill(bench, "large", room=None)
    assert compacted(bench).too_large == ()
    assert counts(bench, "large", "small") == [(3, PRESENT), (3, PRESENT)]


@LOCAL
def test_a_key_that_had_a_row_keeps_it_where_the_next_is_too_large(bench: Workbench) -> None:
    write_events(bench, large=10)
    define(bench, WITH_FILES)
    push(bench, HOUR_NS)
    materialized(bench)
    write_events(bench)
    push(bench, 2 * HOUR_NS)
    assert materialized(bench, FILES_UNTIL_NS + HOUR_NS).too_large_keys == 1
    assert counts(bench, "large") == [(12, PRESENT)]


@LOCAL
def test_a_job_over_files_tells_keys_without_room_in_their_items(bench: Workbench) -> None:
    write_events(bench, large=10)
    define(bench, IN_A_BUNDLE)
    push(bench, HOUR_NS)
    fill(bench, "large", room=40)
    report = materialized(bench)
    assert (report.keys, report.too_large_samples) == (1, ("large",))
    assert counts(bench, "large", "small") == [(None, MISSING), (3, PRESENT)]
    assert stored(bench, "large", "small", "none")[::2] == [NO_ROW, None]
    define(bench, IN_A_BUNDLE.replace(', bundle="items"', ""))  # moves it to a table of its own
    assert counts(bench, "large", "small") == [(None, MISSING), (None, MISSING)]
    assert materialized(bench).keys == 2
    assert counts(bench, "large", "small") == [(11, PRESENT), (3, PRESENT)]


@LOCAL
def test_what_said_that_a_row_had_no_room_goes_with_the_last_event(bench: Workbench) -> None:
    define(bench, PUSHED_ALONE)
    fill(bench, "large", room=40)
    push(bench, 20 * DAY_NS)
    compacted(bench)
    assert stored(bench, "large") == [NO_ROW]
    report = compacted(bench, NOW_NS + 10 * DAY_NS)
    assert (report.removed, report.keys, report.too_large) == (2, 0, ())
    assert stored(bench, "large", "small") == [None, None]


@pytest.mark.parametrize("bench", ["stand-in"], indirect=True)
def test_a_view_is_not_recorded_while_an_item_has_room_for_nothing(bench: Workbench) -> None:
    write_events(bench, large=10)
    define(bench, IN_A_BUNDLE)
    push(bench, HOUR_NS)
    fill(bench, "large", room=10)
    refusal = "the item of key 'large' has no room for a row of view 'spend', nor to say that it has none"
    for _ in range(2):  # what is written is written, and the partition isn't done
        with pytest.raises(StoreError, match=refusal):
            materialized(bench)
    assert counts(bench, "large", "small") == [(None, MISSING), (3, PRESENT)]
    fill(bench, "large", room=None)
    assert materialized(bench).resumed == 0
    assert counts(bench, "large", "small") == [(11, PRESENT), (3, PRESENT)]


@LOCAL
def test_an_export_has_an_item_for_a_key_whose_row_is_too_large(bench: Workbench) -> None:
    write_events(bench)
    define(bench, WITH_FILES)
    folder = bench.folder / "out"
    (exported,) = asyncio.run(
        export(load_repo(bench.folder / "repo"), ["spend"], folder, until_ns=FILES_UNTIL_NS, progress=False)
    )
    assert (exported.report.keys, exported.report.too_large_samples) == (1, ("large",))
    items = [
        orjson.loads(line)["Item"]
        for file in exported.files
        for line in gzip.decompress((exported.folder / file.path).read_bytes()).splitlines()
    ]
    rows = {item["k"]["S"]: b64decode(item["v"]["B"]) for item in items}
    assert rows["large"] == NO_ROW
    assert rows.keys() == {"large", "small"}


@LOCAL
def test_a_task_of_a_cluster_tells_such_keys_as_one_machine_does(bench: Workbench) -> None:
    write_events(bench)
    define(bench, WITH_FILES)
    report = materialized(bench)
    expected = stored(bench, "large", "small")
    repo = load_repo(bench.folder / "repo")
    bench.url = f"local:{bench.folder / 'other'}?sync=off"
    bench.apply(repo)
    plan = plan_view(repo.views["spend"], "default", "")
    job = WriteJob(
        rows_job(plan, report.as_of_ns), destination(plan), StoreAddresses(bench.url), "default", None, 0, 1
    )
    times = [FILES_UNTIL_NS - HOUR_NS * (1 + n % 60) for n in range(LARGE)]
    events = sorted([("large", time, f"{n:01000}") for n, time in enumerate(times)])
    events += sorted([("small", time, f"{n:01000}") for n, time in enumerate(times[:2])])
    keys, moments, notes = (pa.array(column) for column in zip(*events, strict=True))
    columns = {key_column(0): keys, TIME: moments, "note": notes, PARTITION: pa.array([0] * len(events))}
    (told,) = write_batches(job, iter([pa.RecordBatch.from_pydict(columns)]))
    result = read_result(told.column(0)[0].as_py())
    assert (result.keys, result.too_large, result.untold) == (1, ("large",), ())
    assert result.bytes == report.bytes
    assert stored(bench, "large", "small") == expected
