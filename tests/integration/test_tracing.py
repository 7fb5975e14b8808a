"""Traces of a real server at a collector: whose they are, what they tell, and that they hold up nobody."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest

from tests.support.feature_server import (
    AWS,
    GET_FEATURES,
    GET_FEATURES_BATCH,
    Row,
    apply_and_put,
    ask,
    serving_features,
    starting_features,
)
from tests.support.prometheus_text import read_metrics, value
from tests.support.server_process import Connection, Server, eventually
from tests.support.trace_collector import Collector, Span, collecting

DEFINITIONS = """
import fastserve as fs

user = fs.Entity("user", fs.Field("user_id", fs.String))
events = fs.FileSource("events", path="events.csv", timestamp_field="at")
profile = fs.FeatureView("profile", entities=user, source=events, features=[fs.Attribute("age", fs.Int64)])

@fs.on_demand_feature_view(sources=[profile], features=[fs.Attribute("double", fs.Int64)])
def doubled(profile):
    return {"double": 2 * (profile["age"] or 0)}

fs.FeatureService("users", features=[profile, doubled])
"""
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECOND_NS = 10**9


class Repo(NamedTuple):
    folder: Path
    url: str


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    folder = tmp_path_factory.mktemp("repo")
    (folder / "features.py").write_text(DEFINITIONS)
    url = f"local:{folder / 'store'}?sync=off"
    apply_and_put(folder, url, {"profile": [Row(("a",), {"age": 21})]})
    return Repo(folder, url)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def server(repo: Repo, collector: Collector) -> Iterator[Server]:
    flags = ("--workers", "1", "--admin-port", "0", "--trace-sample", "0", "--trace-endpoint", collector.url)
    with serving_features(*repo, *flags) as running:
        yield running


def asked(connection: Connection, traceparent: str, body: object, path: str = GET_FEATURES) -> int:
    """Ask with a traceparent; return the status."""
    return connection.ask(path, orjson.dumps(body), f"traceparent: {traceparent}\r\n").status


def params(**keys: str) -> object:
    return {"params": {"featureServiceName": "users", "joinKeyMap": keys}}


def traced(collector: Collector, trace_id: str) -> Span:
    """Return the server's span of a trace, once it has come."""
    found: list[Span] = []

    def is_there() -> bool:
        found[:] = [span for span in collector.roots() if span.trace_id == trace_id]
        return bool(found)

    eventually(is_there)
    return found[0]


def test_a_sampled_caller_s_request_is_a_part_of_its_trace(server: Server, collector: Collector) -> None:
    before_ns = time.time_ns()
    assert asked(server.connect(), f"00-{TRACE}-{SPAN}-01", params(user_id="a")) == 200
    root = traced(collector, TRACE)
    assert (root.parent_id, root.name, root.is_error) == (SPAN, "POST get-features", False)
    assert root.attributes == {
        "http.request.method": "POST",
        "url.path": GET_FEATURES,
        "http.response.status_code": 200,
        "fastserve.service": "users",
        "fastserve.vectors": 1,
    }
    assert root.resource["service.name"] == "fastserve"
    assert root.resource["fastserve.workspace"] == "default"
    assert before_ns - SECOND_NS < root.start_ns < root.end_ns < time.time_ns()
    parts = collector.children(root)
    assert sorted(part.name for part in parts) == ["encode", "merge", "on-demand", "parse", "store call"]
    assert parts[0].name == "parse"
    assert {part.trace_id for part in parts} == {TRACE}
    for part in parts:
        assert root.start_ns <= part.start_ns <= part.end_ns <= root.end_ns, part
    (call,) = [part for part in parts if part.name == "store call"]
    assert call.attributes == {"fastserve.store": "main", "fastserve.keys": 1}
    assert collector.paths[0] == "/v1/traces"


def test_what_the_caller_decides_against_is_not_traced(server: Server, collector: Collector) -> None:
    connection = server.connect()
    unwanted, wanted = "1" * 32, "2" * 32
    before = len(collector.roots())
    assert asked(connection, f"00-{unwanted}-{SPAN}-00", params(user_id="a")) == 200
    assert asked(connection, "nonsense", params(user_id="a")) == 200
    assert ask(connection, "users", {"user_id": "a"}).status == 200
    assert asked(connection, f"00-{wanted}-{SPAN}-01", params(user_id="a")) == 200
    traced(collector, wanted)
    assert len(collector.roots()) == before + 1


def test_refusals_and_batches_are_traced_with_what_there_was_of_them(
    server: Server, collector: Collector
) -> None:
    connection = server.connect()
    rows = [{"joinKeyMap": {"user_id": f"u{number}"}} for number in range(100)]
    body = {"params": {"featureServiceName": "users", "requestData": rows}}
    assert asked(connection, f"00-{'3' * 32}-{SPAN}-01", params(shop="a")) == 400
    assert asked(connection, f"00-{'4' * 32}-{SPAN}-01", body, GET_FEATURES_BATCH) == 200
    assert asked(connection, f"00-{'5' * 32}-{SPAN}-01", {}, "/nowhere/secret") == 404
    refused = traced(collector, "3" * 32)
    assert refused.attributes["http.response.status_code"] == 400
    assert not refused.is_error  # the caller's fault is no error of the server's span
    assert collector.children(refused) == []
    batch = traced(collector, "4" * 32)
    assert (batch.name, batch.attributes["fastserve.vectors"]) == ("POST get-features-batch", 100)
    parts = collector.children(batch)
    merged = [part.attributes["fastserve.vectors"] for part in parts if part.name == "merge"]
    assert sum(merged) == 100
    assert traced(collector, "5" * 32).name == "POST"


def test_traces_are_counted(server: Server, collector: Collector) -> None:
    assert asked(server.connect(), f"00-{'6' * 32}-{SPAN}-01", params(user_id="a")) == 200
    traced(collector, "6" * 32)

    def sent() -> float:
        connection = server.connect_admin()
        answer = connection.get("/metrics")
        connection.close()
        found = read_metrics(answer.body.decode())
        assert value(found, "fastserve_traces_total", outcome="dropped") == 0
        return value(found, "fastserve_traces_total", outcome="sent")

    eventually(lambda: sent() == len(collector.roots()))


def test_a_share_is_traced_by_chance_and_what_is_left_is_sent_at_the_end(repo: Repo) -> None:
    with collecting() as collector:
        flags = ("--workers", "1", "--trace-sample", "0.5", "--trace-endpoint", f"{collector.url}/v1/traces")
        with serving_features(*repo, *flags) as server:
            connection = server.connect()
            for _ in range(60):
                assert ask(connection, "users", {"user_id": "a"}).status == 200
            assert connection.get("/healthz").status == 200
            connection.close()
            assert server.stop() == 0
        assert 10 <= len(collector.roots()) <= 50  # 30, with odds of 10^-7 to be outside
        assert len({span.trace_id for span in collector.roots()}) == len(collector.roots())
        assert {span.parent_id for span in collector.roots()} == {""}


def test_without_a_collector_everything_else_goes_on(repo: Repo) -> None:
    environ = {**AWS, "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2"}
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound and not listening: refused
        endpoint = f"http://127.0.0.1:{unheard.getsockname()[1]}"
        flags = ("--workers", "1", "--trace-sample", "1", "--trace-endpoint", endpoint)
        with serving_features(*repo, *flags, environ=environ) as server:
            connection = server.connect()
            for _ in range(100):
                assert ask(connection, "users", {"user_id": "a"}).status == 200
            server.wait_for("traces can't be sent")
            connection.close()
            assert server.stop() == 0


def test_an_endpoint_that_is_none_stops_the_start(repo: Repo) -> None:
    with starting_features(*repo, "--trace-endpoint", "collector:4317") as server:
        server.wait_for(r"trace_endpoint: expected http://HOST:PORT or https://HOST")
        assert server.process.wait() == 2
