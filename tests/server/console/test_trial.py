"""Trying a query: answered as on the clients' port, and by whom it may be tried."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from fastserve.api.api_keys import READ, format_keys, new_key
from fastserve.config import Settings
from fastserve.server.console.trial import is_loopback, policy_of
from fastserve.server.key_file import KeyFile
from tests.server.application_world import KEYS, VALUES, application_plan
from tests.server.console.world import ConsoleWorld
from tests.server.test_slow_log import Told

PARAMS = {"workspaceName": "w", "featureServiceName": "plain", "joinKeyMap": {"user_id": "u1"}}


@pytest.fixture
def console() -> ConsoleWorld:
    return ConsoleWorld(application_plan())


def test_it_is_answered_by_the_application_that_answers_clients(console: ConsoleWorld) -> None:
    answer = console.ask({**PARAMS, "featureServiceName": "fraud:v2", "joinKeyMap": KEYS})
    assert answer.status == 200
    assert answer.json == {"result": {"features": VALUES}}
    assert answer.headers[b"Cache-Control"] == b"no-store"
    with_names = console.ask({**PARAMS, "metadataOptions": {"includeNames": True}})
    assert [each["name"] for each in with_names.json["metadata"]["features"]] == [
        "numbers.a_int",
        "numbers.b_float",
    ]


def test_it_is_counted_as_a_client_s_request(console: ConsoleWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.server.console.world.Connection", Told)
    counted: list[int] = []
    console.world.application.measure({"plain": lambda _, status: counted.append(status)})
    console.ask(PARAMS)
    console.ask({**PARAMS, "joinKeyMap": {}})
    assert counted == [200, 400]


def test_what_is_wrong_is_told_as_there(console: ConsoleWorld) -> None:
    assert console.ask({**PARAMS, "joinKeyMap": {}}).json["message"] == "Missing required join key: `user_id`"
    assert console.ask({**PARAMS, "featureServiceName": "no"}).status == 404


@pytest.mark.parametrize(
    "kind", [None, b"text/plain", b"application/x-www-form-urlencoded", b"multipart/form-data"]
)
def test_a_form_of_another_page_can_not_ask(console: ConsoleWorld, kind: bytes | None) -> None:
    answer = console.ask(PARAMS, content_type=kind)
    assert answer.status == 400
    assert answer.json["message"].startswith("Expected Content-Type application/json")
    assert console.ask(PARAMS, content_type=b"Application/JSON; charset=utf-8").status == 200


def test_it_is_nothing_to_get(console: ConsoleWorld) -> None:
    assert console.get("/console/try").status == 405


def test_with_keys_only_who_shows_one_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(format_keys([new_key("fs_right", "web", ["w"], [READ], 0, None)]))
    settings = Settings(admin_port=0, admin_host="0.0.0.0", api_keys=str(path))
    console = ConsoleWorld(application_plan(), settings, keys=KeyFile(str(path), lambda: 1))
    assert console.ask(PARAMS).status == 401
    assert console.ask(PARAMS, authorization=b"Tecton-key fs_wrong").status == 401
    assert console.ask(PARAMS, authorization=b"Tecton-key fs_right").status == 200
    page = console.get("/console/services/plain").body.decode()
    assert 'type="password"' in page
    assert "$FASTSERVE_API_KEY" in page


@pytest.mark.parametrize(
    "settings, reason",
    [
        (Settings(), ""),
        (Settings(admin_host="::1"), ""),
        (Settings(admin_host="localhost"), ""),
        (Settings(admin_host="0.0.0.0"), "others than this machine's users may reach"),
        (Settings(admin_host="10.0.0.5"), "others than this machine's users may reach"),
        (Settings(admin_host="0.0.0.0", api_keys="keys.json"), ""),
        (Settings(tls_cert="c", tls_key="k", tls_client_ca="ca"), "clients show the server a certificate"),
        (Settings(tls_cert="c", tls_key="k", tls_client_ca="ca", api_keys="keys.json"), ""),
    ],
)
def test_nobody_may_ask_here_who_could_not_ask_the_clients_port(settings: Settings, reason: str) -> None:
    policy = policy_of(settings)
    assert reason in policy.reason
    assert policy.is_open is not bool(reason)


def test_where_nobody_may_ask_the_page_says_why_and_the_path_refuses() -> None:
    console = ConsoleWorld(application_plan(), Settings(admin_port=0, admin_host="0.0.0.0"))
    answer = console.ask(PARAMS)
    assert answer.status == 403
    page = console.get("/console/services/plain").body.decode()
    assert "<form" not in page
    assert "curl -s" in page
    assert answer.json["message"].split("'")[0] in page


@pytest.mark.parametrize(
    "host, expected",
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
    ],
)
def test_loopback_addresses_are_told_from_others(host: str, *, expected: bool) -> None:
    assert is_loopback(host) is expected
    assert not is_loopback("example.org")


def test_a_batch_is_not_to_be_had_here(console: ConsoleWorld) -> None:
    body = orjson.dumps({"params": {"featureServiceName": "plain", "requestData": [{"joinKeyMap": {}}]}})
    (answer,) = console.send("POST", "/console/try", body, content_type=b"application/json").answers
    assert answer.json["message"] == "Missing required join key: `user_id`"
