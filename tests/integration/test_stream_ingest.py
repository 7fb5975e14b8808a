"""Pushes to a running server: the API's shapes, and what the next read sees, whichever worker takes it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from fastserve.tiles.times import format_time
from tests.support.dynamodb_servers import (  # noqa: F401 - pytest finds fixtures by their names here
    aws_environment,
)
from tests.support.feature_server import apply_and_put, ask, features, serving_features
from tests.support.pushed_views import PUSHED_VIEWS
from tests.support.server_process import Connection, Server
from tests.support.standin import StandInAddress, stand_in  # noqa: F401 - likewise

REPO = f"""{PUSHED_VIEWS}
service = FeatureService("spending", [spend, latest])
"""


@pytest.fixture(params=["local", "stand-in"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return f"local:{tmp_path}/store"
    request.getfixturevalue("aws_environment")
    address: StandInAddress = request.getfixturevalue("stand_in")
    return address.store_url()


@pytest.fixture
def server(url: str, tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "defs.py").write_text(REPO)
    apply_and_put(folder, url, {})
    with serving_features(folder, url, "--workers", "2") as running:
        yield running


def record(user: str = "u1", **values: Any) -> dict[str, Any]:
    return {"record": {"user_id": user, "at": format_time(time.time_ns()), "cents": 5, "shop": "s1"} | values}


def push(connection: Connection, *records: dict[str, Any], **more: Any) -> tuple[int, dict[str, Any]]:
    """Push records; return status and answer."""
    answer = connection.ask("/ingest", orjson.dumps({"records": {"pushes": records}} | more))
    return answer.status, orjson.loads(answer.body)


def test_what_was_answered_is_read_by_the_next_request_on_any_worker(server: Server) -> None:
    connections = [server.connect() for _ in range(4)]
    for number in range(40):
        status, answer = push(
            connections[number % 4], record(cents=number), record("u2"), request_id=str(number)
        )
        assert (status, answer) == (
            200,
            {
                "workspaceName": "default",
                "ingestMetrics": {
                    "featureViewIngestMetrics": [
                        {"featureViewName": "spend", "onlineRecordIngestCount": "2"},
                        {"featureViewName": "latest", "onlineRecordIngestCount": "2"},
                    ]
                },
            },
        )
        for connection in connections:
            got = features(ask(connection, "spending", {"user_id": "u1"}))
            assert got == ["s1", str(sum(range(number + 1))), str(number + 1)]


def test_a_request_sent_again_to_any_worker_counts_once(server: Server) -> None:
    connections = [server.connect() for _ in range(4)]
    again = record()
    for connection in connections:
        assert push(connection, again)[0] == 200
    assert features(ask(connections[0], "spending", {"user_id": "u1"})) == ["s1", "5", "1"]


def test_bad_requests_are_answered_in_the_apis_shapes_and_write_nothing(server: Server) -> None:
    connection = server.connect()
    status, answer = push(connection, record(), record(cents="x"), record(user_id=None))
    assert status == 400
    assert answer["workspaceName"] == "default"
    assert [(e["featureViewName"], e["errorType"]) for e in answer["recordErrors"]] == [
        ("spend, latest", "RecordValidationError"),
        ("spend", "RecordValidationError"),
        ("latest", "RecordValidationError"),
    ]
    assert answer["recordErrors"][0]["pushSourceName"] == "pushes"
    assert "records.pushes[1]: Column `cents`: expected int64" in answer["recordErrors"][0]["errorMessage"]
    for body in (
        b"{",
        b"{}",
        orjson.dumps({"records": {"other": [record()]}}),
        orjson.dumps({"workspace_name": "x", "records": {"pushes": [record()]}}),
    ):
        refused = connection.ask("/ingest", body)
        assert refused.status == 400
        assert orjson.loads(refused.body)["requestError"]["errorType"] == "RequestValidationError"
    status, answer = push(connection, record(), dry_run=True)
    assert status == 200
    assert features(ask(connection, "spending", {"user_id": "u1"})) == [None, None, None]
