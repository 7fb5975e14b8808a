"""On-demand views in a real server: values, refusals, metadata, and code that blocks, hangs or dies."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.feature_server import (
    GET_FEATURES,
    GET_FEATURES_BATCH,
    METADATA,
    Row,
    apply_and_put,
    ask,
    features,
    serving_features,
)
from tests.support.http_connection import Answer
from tests.support.server_process import Connection, Server, eventually, is_alive, kill

DEFINITIONS = """
import os
import time
from datetime import timedelta

import fastserve as fs

user = fs.Entity("user", fs.Field("user_id", fs.String))
profile = fs.FeatureView(
    "profile",
    entities=user,
    source=fs.FileSource("anything", path="anything.csv", timestamp_field="at"),
    features=[fs.Attribute("spent", fs.Float64), fs.Attribute("places", fs.Array(fs.String))],
)
friend = profile[["places"]].with_name("friend").with_join_key_map({"user_id": "friend_id"})
request = fs.RequestSource(schema=[fs.Field("amount", fs.Float64)])


@fs.on_demand_feature_view(
    sources=[profile, request],
    features=[fs.Attribute("ratio", fs.Float64, description="Of what was spent", tags={"of": "ratio"})],
)
def share(profile, request):
    return {"ratio": request["amount"] / profile["spent"]}


@fs.on_demand_feature_view(
    sources=[profile, friend], features=[fs.Attribute("jaccard", fs.Float64)], mode="numpy"
)
def alike(profile, friend):
    sets = [(set(a or ()), set(b or ())) for a, b in zip(profile["places"], friend["places"])]
    return {"jaccard": [len(a & b) / len(a | b) if a | b else None for a, b in sets]}


@fs.on_demand_feature_view(sources=[request], features=[fs.Attribute("pid", fs.Int64)])
def here(request):
    while request["amount"] == 666:
        pass
    return {"pid": os.getpid()}


@fs.on_demand_feature_view(
    sources=[request],
    features=[fs.Attribute("pid", fs.Int64)],
    isolation="process",
    time_limit=timedelta(milliseconds=300),
)
def elsewhere(request):
    if request["amount"] == 666:
        time.sleep(60)
    if request["amount"] == 7:
        os._exit(7)
    if request["amount"] == 13:
        raise ValueError("thirteen")
    return {"pid": os.getpid()}


@fs.on_demand_feature_view(sources=[request], features=[fs.Attribute("x", fs.Float64)], isolation="process")
def patient(request):
    time.sleep(request["amount"])
    return {"x": request["amount"]}


@fs.on_demand_feature_view(sources=[request], features=[fs.Attribute("x", fs.Float64)])
def slow(request):
    time.sleep(request["amount"])
    return {"x": request["amount"]}


shares = fs.FeatureService("shares", features=[profile[["spent"]], share, alike])
heres = fs.FeatureService("heres", features=[here])
elsewheres = fs.FeatureService("elsewheres", features=[elsewhere])
patients = fs.FeatureService("patients", features=[patient, profile[["spent"]]])
slows = fs.FeatureService("slows", features=[slow])
"""
FLOAT64 = 'float64 (a number, "NaN", "Infinity" or "-Infinity")'
KEYS = {"user_id": "u1", "friend_id": "u2"}
ROWS = {
    "profile": [
        Row(["u1"], {"spent": 4.0, "places": ["a", "b", "c"]}),
        Row(["u2"], {"spent": 0.0, "places": ["b", "c", "d"]}),
    ]
}


def written(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fastserve.toml").write_text('workspace = "w"\n', encoding="utf-8")
    (folder / "definitions.py").write_text(DEFINITIONS, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("on_demand") / "repo")


@pytest.fixture(scope="module")
def server(store_url: str, repo: Path) -> Iterator[Server]:
    apply_and_put(repo, store_url, ROWS)
    with serving_features(repo, store_url, "--workers", "1") as server:
        yield server
        assert server.stop() == 0


@pytest.fixture
def connection(server: Server) -> Iterator[Connection]:
    connection = server.connect()
    yield connection
    connection.close()


def get(connection: Connection, service: str, amount: Any = 2, **params: Any) -> Answer:
    """Ask a service that takes an amount."""
    return ask(connection, service, params.pop("keys", {}), requestContextMap={"amount": amount}, **params)


def refused(answer: Answer, status: int) -> str:
    assert answer.status == status, answer.body
    text: str = orjson.loads(answer.body)["message"]
    return text


def test_computed_features_stand_in_front_of_those_that_are_read(connection: Connection) -> None:
    assert features(get(connection, "shares", keys=KEYS)) == [0.5, 0.5, 4.0]
    without = {"user_id": "u1", "friend_id": "nobody"}
    assert features(get(connection, "shares", 3, keys=without)) == [0.0, 0.75, 4.0]


def test_an_exception_is_told_to_its_own_caller_and_the_traceback_to_the_log(
    server: Server, connection: Connection
) -> None:
    text = refused(get(connection, "shares", keys={"user_id": "u2", "friend_id": "u1"}), 400)
    assert text == "ZeroDivisionError: float division by zero (when evaluating UDF share)"
    text = refused(get(connection, "shares", keys={"user_id": "nobody", "friend_id": "u1"}), 400)
    assert text.startswith("TypeError: ")
    server.wait_for(r"on-demand view share failed\nTraceback")
    assert features(get(connection, "shares", keys=KEYS)) == [0.5, 0.5, 4.0]


def test_a_batch_is_computed_row_by_row_and_a_refusal_names_the_row(connection: Connection) -> None:
    def batch(*rows: tuple[str, float], **more: Any) -> Answer:
        data = [
            {"join_key_map": {"user_id": user, "friend_id": "u2"}, "request_context_map": {"amount": amount}}
            for user, amount in rows
        ]
        params = {"featureServiceName": "shares", "request_data": data, **more}
        return connection.ask(GET_FEATURES_BATCH, orjson.dumps({"params": params}))

    answer = batch(
        ("u1", 1.0), ("u1", 2.0), metadataOptions={"includeServingStatus": True, "includeNames": True}
    )
    assert answer.status == 200
    body = orjson.loads(answer.body)
    assert [row["features"] for row in body["result"]] == [[0.5, 0.25, 4.0], [0.5, 0.5, 4.0]]
    assert body["metadata"]["features"][1] == {"name": "share.ratio", "status": ["PRESENT", "PRESENT"]}
    text = refused(batch(("u1", 1.0), ("u2", 2.0)), 400)
    assert text == "ZeroDivisionError: float division by zero (when evaluating UDF share) (request_data[1])"


def test_metadata_tells_of_computed_features_without_a_time_and_as_present(connection: Connection) -> None:
    names = [
        "Names",
        "DataTypes",
        "EffectiveTimes",
        "ServingStatus",
        "FeatureDescriptions",
        "FeatureTags",
        "SloInfo",
    ]
    everything = {f"include{name}": True for name in names}
    answer = get(connection, "shares", keys=KEYS, metadataOptions=everything)
    metadata = orjson.loads(answer.body)["metadata"]
    assert metadata["features"][0] == {
        "name": "alike.jaccard",
        "dataType": {"type": "float64"},
        "status": "PRESENT",
        "description": "",
        "tags": {},
    }
    assert metadata["features"][1]["tags"] == {"of": "ratio"}
    assert "effectiveTime" in metadata["features"][2]
    slo = metadata["sloInfo"]
    assert 0 < slo["sloServerTimeSeconds"] < slo["serverTimeSeconds"]


def test_the_wait_for_on_demand_code_is_no_server_time(connection: Connection) -> None:
    answer = get(connection, "slows", 0.2, metadataOptions={"includeSloInfo": True})
    slo = orjson.loads(answer.body)["metadata"]["sloInfo"]
    assert slo["serverTimeSeconds"] >= 0.2
    assert slo["sloServerTimeSeconds"] < 0.1
    assert slo["storeMaxLatency"] == 0
    answer = get(
        connection, "patients", 0.2, keys={"user_id": "u1"}, metadataOptions={"includeSloInfo": True}
    )
    slo = orjson.loads(answer.body)["metadata"]["sloInfo"]
    assert slo["serverTimeSeconds"] >= 0.2
    assert slo["sloServerTimeSeconds"] < 0.1
    assert slo["storeMaxLatency"] < 0.1


def test_the_metadata_endpoint_tells_what_a_request_must_bring(connection: Connection) -> None:
    answer = connection.ask(METADATA, b'{"params":{"featureServiceName":"shares"}}')
    body = orjson.loads(answer.body)
    assert sorted(key["name"] for key in body["inputJoinKeys"]) == ["friend_id", "user_id"]
    assert body["inputRequestContextKeys"] == [
        {"name": "amount", "dataType": {"type": "float64"}, "type": "float64"}
    ]
    names = [feature["name"] for feature in body["featureValues"]]
    assert names == ["alike.jaccard", "share.ratio", "profile.spent"]
    body = orjson.loads(connection.ask(METADATA, b'{"params":{"featureServiceName":"heres"}}').body)
    assert "inputJoinKeys" not in body


@pytest.mark.parametrize(
    "context, text",
    [
        ({}, "Missing required request context field: `amount`"),
        ({"amount": 1, "more": 2}, "Unknown request context field: expected `amount`, got 'more'"),
        (
            {"amount": "much"},
            f"Request context field `amount`: expected {FLOAT64}, got string 'much'",
        ),
    ],
)
def test_request_context_is_checked(connection: Connection, context: dict[str, Any], text: str) -> None:
    assert refused(ask(connection, "heres", {}, requestContextMap=context), 400) == text


def test_join_keys_are_refused_by_a_service_that_reads_nothing(connection: Connection) -> None:
    message = "Unknown join key: expected none, got 'user_id'"
    assert refused(get(connection, "heres", keys={"user_id": "u1"}), 400) == message


# --- processes


def pid(answer: Answer) -> int:
    return int(features(answer)[0])


def test_an_isolated_view_runs_in_another_process(server: Server, connection: Connection) -> None:
    worker = pid(get(connection, "heres"))
    assert worker in server.workers()
    assert pid(get(connection, "elsewheres")) != worker
    assert (
        refused(get(connection, "elsewheres", 13), 400)
        == "ValueError: thirteen (when evaluating UDF elsewhere)"
    )
    server.wait_for(r"on-demand view elsewhere failed\nTraceback[^$]*ValueError: thirteen")


def test_isolated_code_past_its_limit_is_ended_and_disturbs_nobody(
    server: Server, connection: Connection
) -> None:
    other = server.connect()
    worker = pid(get(other, "heres"))
    body = orjson.dumps(
        {"params": {"featureServiceName": "elsewheres", "requestContextMap": {"amount": 666}}}
    )
    head = f"POST {GET_FEATURES} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    connection.send(head + body)
    waits_ms = []
    until_s = time.monotonic() + 0.2
    while time.monotonic() < until_s:
        start_s = time.monotonic()
        assert pid(get(other, "heres")) == worker
        assert pid(get(other, "elsewheres")) != worker
        waits_ms.append((time.monotonic() - start_s) * 1000)
    assert statistics.median(waits_ms) < 50
    expected = "On-demand view `elsewhere` took longer than its limit of 300 ms: it was stopped"
    assert refused(connection.read(), 504) == expected
    assert pid(get(connection, "elsewheres")) != worker
    assert pid(get(connection, "heres")) == worker


def test_isolated_code_that_ends_its_process_fails_its_own_request(connection: Connection) -> None:
    text = refused(get(connection, "elsewheres", 7), 503)
    assert text == "On-demand view `elsewhere`: its helper process ended during the call"
    assert pid(get(connection, "elsewheres")) > 0


def test_what_is_not_computed_within_the_latency_budget_is_null(connection: Connection) -> None:
    answer = get(
        connection,
        "patients",
        60,
        keys={"user_id": "u1"},
        requestOptions={"latencyBudgetMs": 300},
        metadataOptions={"includeServingStatus": True},
    )
    assert features(answer) == [None, 4.0]
    metadata = orjson.loads(answer.body)["metadata"]["features"]
    assert [feature["status"] for feature in metadata] == ["TIME_OUT", "PRESENT"]


def test_isolated_code_without_a_limit_has_the_server_s_timeout(connection: Connection) -> None:
    text = refused(get(connection, "patients", 60, keys={"user_id": "u1"}), 504)
    assert text == "On-demand view `patient` was not computed within the request's time"


def test_helpers_end_with_their_server(repo: Path, tmp_path: Path) -> None:
    url = f"local:{tmp_path / 'store'}?sync=off"
    apply_and_put(repo, url, ROWS)
    with serving_features(repo, url, "--workers", "1") as server:
        connection = server.connect()
        helper = pid(get(connection, "elsewheres"))
        connection.close()
        assert is_alive(helper)
        assert server.stop() == 0
        eventually(lambda: not is_alive(helper))
        assert "Traceback" not in server.said


def test_helpers_end_with_a_worker_that_is_killed_and_the_next_one_has_its_own(
    repo: Path, tmp_path: Path
) -> None:
    url = f"local:{tmp_path / 'store'}?sync=off"
    apply_and_put(repo, url, ROWS)
    with serving_features(repo, url, "--workers", "1") as server:
        connection = server.connect()
        helper = pid(get(connection, "elsewheres"))
        (worker,) = server.workers()
        kill(worker)
        eventually(lambda: not is_alive(helper))
        server.wait_for("starting another")
        eventually(lambda: server.workers() not in ([], [worker]))
        assert pid(get(server.connect(), "elsewheres")) != helper


def test_a_worker_whose_loop_is_blocked_is_replaced_and_the_other_one_serves_on(
    repo: Path, tmp_path: Path
) -> None:
    url = f"local:{tmp_path / 'store'}?sync=off"
    apply_and_put(repo, url, ROWS)
    with serving_features(repo, url, "--workers", "2") as server:
        blocked, other = connections_of_two_workers(server)
        worker, beside = pid(get(blocked, "heres")), pid(get(other, "heres"))
        before_ms = waits_ms(other, 300)
        body = orjson.dumps({"params": {"featureServiceName": "heres", "requestContextMap": {"amount": 666}}})
        head = f"POST {GET_FEATURES} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        blocked.send(head + body)
        during_ms: list[float] = []
        while is_alive(worker):
            during_ms += waits_ms(other, 50)
        assert pid(get(other, "heres")) == beside
        server.wait_for(rf"worker \d \(pid {worker}\) was silent for [\d.]+ s: killing it")
        server.wait_for(r"definitions.py\", line \d+ in here")  # where it was stuck
        eventually(lambda: len(server.workers()) == 2 and worker not in server.workers())
        # The machine may be busy otherwise; a stuck neighbour would show as seconds.
        assert percentile(during_ms) < max(100.0, 10 * percentile(before_ms))


def connections_of_two_workers(server: Server) -> tuple[Connection, Connection]:
    by_worker: dict[int, Connection] = {}
    while len(by_worker) < 2:
        connection = server.connect()
        by_worker.setdefault(pid(get(connection, "heres")), connection)
    first, second = by_worker.values()
    return first, second


def waits_ms(connection: Connection, count: int) -> list[float]:
    waits = []
    for _ in range(count):
        start_s = time.monotonic()
        features(get(connection, "heres"))
        waits.append((time.monotonic() - start_s) * 1000)
    return waits


def percentile(waits: list[float]) -> float:
    """Return the 99th percentile."""
    return sorted(waits)[int(len(waits) * 0.99)]
