"""`/metrics` of a server with two workers: it counts what its clients did, whatever befalls workers."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import NamedTuple

import orjson
import pytest

from fastserve.ingest.registry import Materialized, Registry
from fastserve.server.metrics_table import METRICS
from fastserve.store.interface import OnlineStore
from tests.support.feature_server import (
    GET_FEATURES,
    GET_FEATURES_BATCH,
    Row,
    apply_and_put,
    ask,
    serving_features,
    starting_features,
    with_store,
)
from tests.support.prometheus_text import Family, Labels, read_metrics, value
from tests.support.server_process import Connection, Server, eventually, kill

Numbers = dict[tuple[str, Labels], float]

CLOCK = "2026-01-03T00:00:00Z"
CLOCK_NS = int(datetime(2026, 1, 3, tzinfo=UTC).timestamp()) * 10**9
DAY_NS = 86_400 * 10**9
DEFINITIONS = """
from datetime import timedelta

import fastserve as fs

user = fs.Entity("user", fs.Field("user_id", fs.String))
events = fs.FileSource("events", path="events.csv", timestamp_field="at")
pushes = fs.PushSource(
    "pushes",
    schema=[fs.Field("user_id", fs.String), fs.Field("amount", fs.Int64), fs.Field("at", fs.Timestamp)],
    timestamp_field="at",
)
profile = fs.FeatureView(
    "profile", entities=user, source=events, features=[fs.Attribute("age", fs.Int64)], ttl=timedelta(days=1)
)
habits = fs.FeatureView("habits", entities=user, source=events, features=[fs.Attribute("share", fs.Float64)])
spending = fs.FeatureView(
    "spending",
    entities=user,
    source=pushes,
    aggregation_interval=timedelta(hours=1),
    features=[fs.Aggregate(fs.Field("amount", fs.Int64), "sum", timedelta(days=7))],
)

@fs.on_demand_feature_view(sources=[profile], features=[fs.Attribute("double", fs.Int64)])
def doubled(profile):
    return {"double": 2 * (profile["age"] or 0)}

fs.FeatureService("users", features=[profile, habits])
fs.FeatureService("doubles", features=[doubled])
fs.FeatureService("spenders", features=[spending])
"""


class Repo(NamedTuple):
    folder: Path
    url: str


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    folder = tmp_path_factory.mktemp("repo")
    (folder / "features.py").write_text(DEFINITIONS)
    (folder / "events.csv").write_text("user_id,age,share,at\n")
    url = f"local:{folder / 'store'}?sync=off"
    rows = {
        "profile": [Row(("a",), {"age": 1}, CLOCK_NS), Row(("old",), {"age": 2}, CLOCK_NS - 2 * DAY_NS)],
        "habits": [Row(("a",), {"share": 0.5}, CLOCK_NS)],
    }
    apply_and_put(folder, url, rows)
    with_store(url, record_age)
    return Repo(folder, url)


@pytest.fixture(scope="module")
def server(repo: Repo) -> Iterator[Server]:
    flags = ("--workers", "2", "--clock", CLOCK, "--admin-port", "0")
    with serving_features(*repo, *flags) as running:
        yield running


async def record_age(store: OnlineStore) -> None:
    record = Materialized("profile", CLOCK_NS, CLOCK_NS - 3600 * 10**9, 1, 2, 0, 2, 100)
    await Registry(store, "default").record_materialized(record)


def scrape(server: Server) -> dict[str, Family]:
    connection = server.connect_admin()
    answer = connection.get("/metrics")
    connection.close()
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return read_metrics(answer.body.decode())


def counters(families: dict[str, Family]) -> Numbers:
    return {
        sample: number
        for family in families.values()
        if family.kind != "gauge"
        for sample, number in family.samples.items()
    }


def load(server: Server) -> None:
    """Ask on several connections, so that both workers are: 44 requests for users, 10 for doubles."""
    connections = [server.connect() for _ in range(10)]
    for connection in connections:
        for user in ("a", "old", "nobody"):
            assert ask(connection, "users", {"user_id": user}).status == 200
        assert ask(connection, "users", {"shop_id": 1}).status == 400
        assert ask(connection, "doubles", {"user_id": "a"}).status == 200
    for connection in connections[:4]:
        params = {"featureServiceName": "users", "requestData": [{"joinKeyMap": {"user_id": "a"}}] * 3}
        assert connection.ask(GET_FEATURES_BATCH, orjson.dumps({"params": params})).status == 200
    assert connections[0].ask(GET_FEATURES, b"{").status == 400
    assert connections[0].ask("/ingest", pushed(1)).status == 200
    assert connections[0].ask("/ingest", pushed("x")).status == 400
    for connection in connections:
        connection.close()


def pushed(amount: object) -> bytes:
    record = {"record": {"user_id": "a", "amount": amount, "at": "2026-01-02T23:00:00Z"}}
    return orjson.dumps({"workspace_name": "", "records": {"pushes": [record]}})


def test_a_scrape_counts_what_clients_counted(server: Server) -> None:
    load(server)
    found = scrape(server)
    assert value(found, "fastserve_requests_total", service="users", status="2xx") == 34
    assert value(found, "fastserve_requests_total", service="users", status="4xx") == 10
    assert value(found, "fastserve_requests_total", service="users", status="5xx") == 0
    assert value(found, "fastserve_requests_total", service="doubles") == 10
    assert value(found, "fastserve_request_duration_seconds_count", service="users") == 44
    assert value(found, "fastserve_request_duration_seconds_sum", service="users") > 0
    assert value(found, "fastserve_vectors_total", service="users") == 30 + 12
    assert value(found, "fastserve_rows_total", service="users") == 2 * (30 + 12)
    # Of the old user the habits are missing, of nobody both rows.
    assert value(found, "fastserve_unusual_rows_total", service="users", condition="missing") == 10 + 20
    assert value(found, "fastserve_unusual_rows_total", service="users", condition="expired") == 10
    assert value(found, "fastserve_on_demand_vectors_total", view="doubled") == 10

    def is_published() -> bool:
        return value(scrape(server), "fastserve_http_answers_total") == 57

    eventually(is_published)  # each worker carries these over twice a second
    found = scrape(server)
    # Both services read profiles, of which nobody has none; users alone have habits.
    rows = {"profile": (42 + 10, 10), "habits": (42, 20), "spending": (0, 0)}
    eventually(lambda: {view: rows_of(server, view) for view in rows} == rows)
    assert value(found, "fastserve_http_answers_total", status="4xx") == 10 + 1 + 1
    for gauge in ("fastserve_workers_shedding", "fastserve_store_circuits_open"):
        assert value(found, gauge) == 0
    assert value(found, "fastserve_connections_total") == 10
    assert (
        value(found, "fastserve_store_keys_total", store="main")
        == value(found, "fastserve_store_keys_total")
        > 0
    )
    assert value(found, "fastserve_ingest_requests_total") == 2
    assert value(found, "fastserve_ingest_records_total") == 1
    assert value(found, "fastserve_ingest_refused_records_total") == 1
    assert value(found, "fastserve_ingest_writes_total") == 1
    assert value(found, "fastserve_worker_starts_total") == 2
    assert value(found, "fastserve_workers", state="ready") == 2
    assert value(found, "fastserve_worker_resident_memory_bytes") > 2**24
    assert value(found, "fastserve_loop_lag_seconds_count") > 0
    assert value(found, "fastserve_build_info") == 1


def rows_of(server: Server, view: str) -> tuple[float, float]:
    """Return how many rows of a view vectors were made of, and how many of them were missing."""
    found = scrape(server)
    names = ("fastserve_view_rows_total", "fastserve_view_missing_rows_total")
    rows, missing = (value(found, name, view=view) for name in names)
    return rows, missing


def test_a_scrape_under_load_counts_every_request_once(server: Server) -> None:
    def asked() -> float:
        return value(scrape(server), "fastserve_requests_total", service="users", status="2xx")

    before = asked()
    counts: list[int] = []
    clients = [Thread(target=burst, args=(server.connect(), counts)) for _ in range(8)]
    for client in clients:
        client.start()
    seen = [asked() for _ in range(20)]
    for client in clients:
        client.join()
    assert seen == sorted(seen)
    assert asked() - before == sum(counts) == 8 * 10 * 16


def burst(connection: Connection, counts: list[int]) -> None:
    """Ask many times, 16 requests under way at once, and count the answers."""
    body = orjson.dumps({"params": {"featureServiceName": "users", "joinKeyMap": {"user_id": "a"}}})
    head = f"POST {GET_FEATURES} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for _ in range(10):
        connection.send((head + body) * 16)
        counts.append(sum(connection.read().status == 200 for _ in range(16)))


def test_every_metric_of_the_table_is_there_and_no_other(server: Server) -> None:
    eventually(lambda: "fastserve_view_age_seconds" in scrape(server))  # looked up behind the start's back
    found = scrape(server)
    assert set(found) == {metric.name for metric in METRICS}
    for metric in METRICS:
        assert (found[metric.name].kind, found[metric.name].help) == (metric.kind, metric.help)
        labels = {name for _, labels in found[metric.name].samples for name, _ in labels} - {"le"}
        assert labels == set(metric.all_labels)


def test_views_have_the_age_of_what_was_materialized(server: Server) -> None:
    ages = scrape(server)["fastserve_view_age_seconds"].samples
    assert ages == {("fastserve_view_age_seconds", (("view", "profile"),)): 3600}


def test_counters_go_on_where_they_were_when_workers_are_replaced(server: Server) -> None:
    load(server)
    before = counters(scrape(server))
    kill(server.workers()[0])
    server.wait_for("died")
    eventually(lambda: value(scrape(server), "fastserve_worker_starts_total") == 3)
    assert_none_fell(before, counters(scrape(server)))
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("reloaded: 2 workers of generation 1")
    eventually(lambda: len(server.workers()) == 2)
    load(server)
    after = scrape(server)
    assert_none_fell(before, counters(after))
    asked = value(after, "fastserve_requests_total", service="users")
    assert asked == before_asked(before) + 44
    assert value(after, "fastserve_on_demand_vectors_total") == 30


def assert_none_fell(before: Numbers, after: Numbers) -> None:
    assert {sample: number for sample, number in before.items() if after[sample] < number} == {}


def before_asked(before: Numbers) -> float:
    return sum(
        number
        for (name, labels), number in before.items()
        if name == "fastserve_requests_total" and ("service", "users") in labels
    )


def test_logs_of_all_kinds_say_what_was_asked_and_how_long_it_took(repo: Repo, tmp_path: Path) -> None:
    flags = ["--workers", "1", "--log-format", "json", "--slow-request-ms", "1"]
    flags += ["--feature-log", str(tmp_path), "--feature-log-every", "1"]
    with starting_features(*repo, *flags) as server:
        found = server.wait_for(r"listening on http://([^:]+):(\d+) with 1 worker")
        server.host, server.port = found[1], int(found[2])
        connection = server.connect()
        params = {"featureServiceName": "users", "requestData": [{"joinKeyMap": {"user_id": "a"}}] * 1000}
        assert connection.ask(GET_FEATURES_BATCH, orjson.dumps({"params": params})).status == 200
        server.wait_for("slow request")
        vector = ask(connection, "users", {"user_id": "a"})
        assert server.stop() == 0
    kept = [orjson.loads(line) for file in tmp_path.iterdir() for line in file.read_bytes().splitlines()]
    assert len(kept) == 2
    assert kept[-1]["request"]["params"]["joinKeyMap"] == {"user_id": "a"}
    assert kept[-1]["answer"] == orjson.loads(vector.body)
    lines = [orjson.loads(line) for line in server.said.splitlines()]
    assert {line["logger"] for line in lines} == {"fastserve.server.life", "fastserve.slow"}
    slow = next(line for line in lines if line["logger"] == "fastserve.slow")
    assert (slow["level"], slow["service"], slow["vectors"]) == ("warning", "users", 1000)
    parts = ("reads_ms", "evaluate_ms", "on_demand_ms", "encode_ms")
    assert 0 < sum(slow[part] for part in parts) <= slow["took_ms"] + 0.01
