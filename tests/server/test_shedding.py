"""Which requests the application refuses when too many are in flight, and what it never refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from fastserve.api.api_keys import BATCH, INGEST, LIVE, READ, format_keys, new_key
from fastserve.server.application import INGEST as INGEST_PATH
from fastserve.server.exchange import Exchange
from fastserve.server.key_file import KeyFile
from fastserve.serving.admission import Admission
from tests.server.application_world import V1, V2, ApplicationWorld, Connection

LIMIT = 4


def world(keys: KeyFile | None = None) -> ApplicationWorld:
    admission = Admission(LIMIT, has_priorities=keys is not None)
    return ApplicationWorld(keys=keys, admission=admission)


def body(rows: int | None = None) -> bytes:
    params: dict[str, Any] = {"featureServiceName": "plain"}
    if rows is None:
        params["joinKeyMap"] = {"user_id": "u1"}
    else:
        params["requestData"] = [{"joinKeyMap": {"user_id": f"u{row}"}} for row in range(rows)]
    return orjson.dumps({"params": params})


def ask(world: ApplicationWorld, secret: str | None = None, rows: int | None = None) -> Connection:
    path = V1 + ("get-features" if rows is None else "get-features-batch")
    return world.send("POST", path, body(rows), None if secret is None else f"Bearer {secret}".encode())


def status(connection: Connection) -> int | None:
    return connection.answers[0].status if connection.answers else None


def answer_all(world: ApplicationWorld) -> None:
    world.turn()
    world.store.answer()
    world.turn()


def test_a_request_over_the_limit_is_refused_at_once_and_told_when_to_come_back() -> None:
    turned = world()
    asked = [ask(turned) for _ in range(LIMIT)]
    (answer,) = ask(turned).answers
    assert answer.status == 429
    assert answer.headers == {b"Retry-After": b"1"}
    assert answer.json["code"] == 8
    assert answer.content_type == b"application/json"
    answer_all(turned)
    assert [status(connection) for connection in asked] == [200] * LIMIT


def test_what_is_refused_is_not_read_and_asks_the_store_for_nothing() -> None:
    turned = world()
    for _ in range(LIMIT):
        ask(turned)
    assert status(turned.send("POST", V1 + "get-features", b"no JSON")) == 429
    keys = turned.engine.coalescer.in_flight()
    ask(turned)
    assert turned.engine.coalescer.in_flight() == keys


@pytest.mark.parametrize("path", ["/healthz", "/readyz", V2 + "plain/metadata"])
def test_probes_and_metadata_are_never_shed(path: str) -> None:
    turned = world()
    for _ in range(LIMIT):
        ask(turned)
    assert status(turned.send("GET", path)) == 200


@pytest.mark.parametrize("action", ["get-features", "get-features-batch"])
def test_paths_of_both_versions_are_shed(action: str) -> None:
    turned = world()
    for _ in range(LIMIT):
        ask(turned)
    assert status(turned.send("POST", V1 + action, b"")) == 429
    assert status(turned.send("POST", V2 + f"plain/{action}", b"")) == 429


def test_pushes_are_shed_too() -> None:
    pushed: list[Exchange] = []
    turned = ApplicationWorld(admission=Admission(LIMIT), ingest=pushed.append)
    turned.send("POST", INGEST_PATH)
    assert len(pushed) == 1
    for _ in range(LIMIT):
        ask(turned)
    assert status(turned.send("POST", INGEST_PATH)) == 429
    assert len(pushed) == 1


def test_a_batch_weighs_its_rows_until_it_is_answered() -> None:
    turned = world()
    batch = ask(turned, rows=LIMIT)
    assert status(ask(turned)) == 429
    answer_all(turned)
    assert status(batch) == 200
    assert turned.application.admission.limit == LIMIT
    assert status(ask(turned)) is None


def test_a_batch_larger_than_the_limit_is_answered_when_nothing_else_is_in_flight() -> None:
    turned = world()
    batch = ask(turned, rows=50)
    answer_all(turned)
    assert status(batch) == 200
    assert turned.application.admission.limit == LIMIT


def test_a_batch_that_times_out_weighs_nothing_any_more() -> None:
    turned = world()
    batch = ask(turned, rows=3)
    turned.turn()
    turned.wait(5)
    assert status(batch) == 504
    assert turned.application.admission.limit == LIMIT


def test_a_batch_that_is_refused_for_a_row_weighs_nothing() -> None:
    turned = world()
    data = orjson.dumps({"params": {"featureServiceName": "plain", "requestData": [{"joinKeyMap": {}}] * 2}})
    assert status(turned.send("POST", V1 + "get-features-batch", data)) == 400
    assert turned.application.admission.limit == LIMIT


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    path = tmp_path / "keys.json"
    made = [
        new_key(f"fs_{priority}", priority, ["w"], [READ, INGEST], 0, None, priority)
        for priority in (LIVE, BATCH)
    ]
    path.write_bytes(format_keys(made))
    return KeyFile(str(path), lambda: 1)


def test_batch_keys_are_shed_before_live_ones(keys: KeyFile) -> None:
    turned = world(keys)
    first = [status(ask(turned, "fs_batch")) for _ in range(3)]
    assert first == [None, None, 429]
    assert [status(ask(turned, "fs_live")) for _ in range(3)] == [None, None, 429]
    assert status(ask(turned, "fs_batch")) == 429


def test_whoever_shows_no_key_learns_nothing_of_the_load(keys: KeyFile) -> None:
    turned = world(keys)
    for _ in range(LIMIT):
        ask(turned, "fs_live")
    assert status(ask(turned, "fs_unknown")) == 401
