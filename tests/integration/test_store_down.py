"""A real server while its DynamoDB fails: what it still answers, how fast it refuses, that it recovers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from perf.load.standin_client import StandInAddress, running
from tests.support.feature_server import Row, apply_and_put, ask, features, serving_features
from tests.support.http_connection import Answer
from tests.support.server_process import Connection, eventually

TIME_NS = 1_700_000_000 * 10**9
STATUS = {"metadataOptions": {"includeServingStatus": True}}
DOWN = {"faults": {"server_error_share": 1.0}}
UP: dict[str, Any] = {"faults": {}}
REPO = """
from datetime import timedelta
from fastserve import Attribute, Entity, FeatureService, FeatureView, Field, FileSource, Int64, String

user = Entity("user", join_keys=Field("user_id", String))
source = FileSource("events", path="events.csv", timestamp_field="at")


def view(name, **cache):
    return FeatureView(name, entities=[user], source=source, features=[Attribute("value", Int64)], **cache)


kept = view("kept", cache_ttl=timedelta(milliseconds=1), stale_ttl=timedelta(hours=1))
plain = view("plain")
kept_service = FeatureService("kept", features=[kept])
plain_service = FeatureService("plain", features=[plain])
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StandInAddress, Connection]]:
    """Give the stand-in and a connection to a server over it, which has answered once."""
    tmp_path = tmp_path_factory.mktemp("repo")
    (tmp_path / "features.py").write_text(REPO, encoding="utf-8")
    (tmp_path / "fastserve.toml").write_text('workspace = "w"\n', encoding="utf-8")
    with running() as stand_in:
        rows = [Row(["u1"], {"value": 7}, TIME_NS)]
        apply_and_put(tmp_path, stand_in.store_url(), {"kept": rows, "plain": rows})
        with serving_features(tmp_path, stand_in.store_url(), "--workers", "1") as server:
            connection = server.connect()
            for service in ("kept", "plain"):
                assert told(got(connection, service)) == (["7"], ["PRESENT"])
            yield stand_in, connection
            connection.close()


def got(connection: Connection, service: str, user: str = "u1") -> Answer:
    return ask(connection, service, {"user_id": user}, **STATUS)


def told(answer: Answer) -> tuple[list[Any], list[str]]:
    assert answer.status == 200, answer.body
    metadata = orjson.loads(answer.body)["metadata"]
    return features(answer), [feature["status"] for feature in metadata["features"]]


def until_refused_at_once(connection: Connection) -> None:
    """Ask until the breaker is open."""

    def is_open() -> bool:
        answer = got(connection, "plain")
        assert answer.status == 503, answer.body
        return b"circuit open" in answer.body

    eventually(is_open)


def test_a_store_that_hangs_costs_no_more_than_the_callers_patience(
    world: tuple[StandInAddress, Connection],
) -> None:
    stand_in, connection = world
    stand_in.control(faults={"stall_share": 1.0, "stall_ms": 60_000.0})
    start_s = time.monotonic()
    budget = ask(connection, "plain", {"user_id": "u1"}, requestOptions={"latencyBudgetMs": 50}, **STATUS)
    assert told(budget) == ([None], ["TIME_OUT"])
    kept = ask(connection, "kept", {"user_id": "u1"}, requestOptions={"latencyBudgetMs": 50}, **STATUS)
    assert told(kept) == (["7"], ["CACHED_PRESENT"])
    assert time.monotonic() - start_s < 2.0  # the server's own patience with each
    stand_in.control(**UP)


def test_what_was_read_before_is_served_and_all_else_refused_at_once(
    world: tuple[StandInAddress, Connection],
) -> None:
    stand_in, connection = world
    stand_in.control(**DOWN)
    assert told(got(connection, "kept")) == (["7"], ["CACHED_PRESENT"])
    until_refused_at_once(connection)
    stand_in.control(reset=True)
    start_s = time.monotonic()
    for _ in range(200):
        assert told(got(connection, "kept")) == (["7"], ["CACHED_PRESENT"])
        assert got(connection, "kept", "u2").status == 503
        assert got(connection, "plain").status == 503
    # A budget is for what comes late; what fails is told, unless nulls are welcome.
    refused = ask(connection, "plain", {"user_id": "u1"}, requestOptions={"latencyBudgetMs": 50}, **STATUS)
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    partial = ask(connection, "plain", {"user_id": "u1"}, allowPartialResults=True, **STATUS)
    assert told(partial) == ([None], ["UNKNOWN"])
    assert time.monotonic() - start_s < 5  # 600 answers; a try of a dead store takes as long as the deadline
    assert stand_in.counters()["calls"].get("BatchGetItem", 0) < 30
    stand_in.control(**UP)

    def is_back() -> bool:
        answer = got(connection, "plain")
        assert answer.status == 200 or b"circuit open" in answer.body
        return answer.status == 200

    eventually(is_back)
    assert told(got(connection, "plain")) == (["7"], ["PRESENT"])
    assert told(got(connection, "kept")) == (["7"], ["PRESENT"])
