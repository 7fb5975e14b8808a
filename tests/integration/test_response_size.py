"""A vector that needs more bytes from the store than the service level allows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.support.feature_server import Row, apply_and_put, ask, features, serving_features
from tests.support.http_connection import Answer
from tests.support.server_process import Server

VIEWS = 6
TEXT = "x" * 380_000  # six of them are more than 2 MiB, five are less; an item holds 400 KiB
LIMIT_BYTES = 2 * 1024 * 1024

DEFINITIONS = f"""
import fastserve as fs

user = fs.Entity("user", fs.Field("user_id", fs.String))
anything = fs.FileSource("anything", path="anything.csv", timestamp_field="at")
views = [
    fs.FeatureView(f"v{{n}}", entities=user, source=anything, features=[fs.Attribute("t", fs.String)])
    for n in range({VIEWS})
]
fs.FeatureService("six", features=views)
fs.FeatureService("five", features=views[:5])
"""


@pytest.fixture(scope="module")
def store(store_url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("large")
    (folder / "definitions.py").write_text(DEFINITIONS, encoding="utf-8")
    apply_and_put(folder, store_url, {f"v{number}": [Row(["u"], {"t": TEXT})] for number in range(VIEWS)})
    return folder, store_url


@pytest.fixture(scope="module")
def server(store: tuple[Path, str]) -> Iterator[Server]:
    with serving_features(*store, "--workers", "1") as running:
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.said


def assert_too_large(answer: Answer, limit_bytes: int) -> None:
    error = orjson.loads(answer.body)
    assert (answer.status, error["code"]) == (400, 3)
    assert error["message"].startswith(
        f"DYNAMODB_RESPONSE_SIZE_LIMIT_EXCEEDED: expected at most {limit_bytes} bytes from the store, got "
    )


def test_more_than_two_mebibytes_are_refused_unless_partial_results_are_welcome(server: Server) -> None:
    connection = server.connect()
    assert_too_large(ask(connection, "six", {"user_id": "u"}), LIMIT_BYTES)
    options = {"includeSloInfo": True}
    answer = ask(connection, "six", {"user_id": "u"}, allowPartialResults=True, metadataOptions=options)
    assert features(answer) == [TEXT] * 6
    slo = orjson.loads(answer.body)["metadata"]["sloInfo"]
    assert slo["sloEligible"] is False
    assert slo["sloIneligibilityReasons"] == ["DYNAMODB_RESPONSE_SIZE_LIMIT_EXCEEDED"]
    assert slo["storeResponseSizeBytes"] > LIMIT_BYTES


def test_less_than_that_is_answered(server: Server) -> None:
    connection = server.connect()
    answer = ask(connection, "five", {"user_id": "u"}, metadataOptions={"includeSloInfo": True})
    assert features(answer) == [TEXT] * 5
    assert orjson.loads(answer.body)["metadata"]["sloInfo"]["sloEligible"] is True
    assert features(ask(connection, "six", {"user_id": "nobody"})) == [None] * 6
