"""`/openapi.json`: what it says is what the server does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from fastserve.api import openapi_feast
from fastserve.api.api_keys import READ, format_keys, new_key
from fastserve.api.openapi import About, openapi_document, openapi_json
from fastserve.api.openapi_types import Document
from fastserve.config import Settings
from fastserve.server import feast_handler
from fastserve.server.application import OPENAPI
from fastserve.server.described import describe, reachable
from fastserve.server.key_file import KeyFile
from tests.server.application_world import Answer, ApplicationWorld
from tests.support.api_plan import TIME, api_plan, faults

ABOUT = About(version="1.2.3", needs_key=False, max_batch_rows=1000, example_time=TIME)
PLAN = api_plan()
DOCUMENT = openapi_document(PLAN, ABOUT)
OPERATIONS = [
    (path, method, operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]


@pytest.fixture
def described() -> ApplicationWorld:
    world = ApplicationWorld(plan=PLAN, ingest=lambda exchange: exchange.respond(200, b"{}"))
    world.application.describe(openapi_json(PLAN, ABOUT))
    return world


def schema_of(operation: Document, status: int) -> dict[str, Any]:
    response = operation["responses"].get(str(status), operation["responses"]["default"])
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    found: dict[str, Any] = response["content"]["application/json"]["schema"]
    return found


def test_it_is_answered_as_it_was_made(described: ApplicationWorld) -> None:
    answer = described.ask("GET", OPENAPI)
    assert (answer.status, answer.content_type) == (200, b"application/json")
    assert answer.json == DOCUMENT
    assert described.ask("POST", OPENAPI).status == 405


def test_every_path_of_the_document_is_answered_and_every_example_taken(described: ApplicationWorld) -> None:
    asked = 0
    for path, method, operation in OPERATIONS:
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        examples = body.get("examples", {"": {"value": None}})
        for name, example in examples.items():
            if path == "/ingest":
                assert faults(DOCUMENT, body["schema"], example["value"]) == []
                continue
            content = b"" if example["value"] is None else orjson.dumps(example["value"])
            if content:
                assert faults(DOCUMENT, body["schema"], example["value"]) == [], (path, name)
            answer: Answer = described.ask(method.upper(), path, content)
            assert answer.status == 200, (path, name, answer.body)
            assert faults(DOCUMENT, schema_of(operation, 200), answer.json) == [], (path, name)
            asked += 1
    assert asked == 2 * 12 + 3


def test_every_path_that_is_answered_is_in_the_document(described: ApplicationWorld) -> None:
    known = {*described.application._posts, *described.application._gets}
    assert known == {path for path in DOCUMENT["paths"] if not path.startswith("/api/v2/")}


def test_an_answer_with_all_there_is_about_it_is_as_described(described: ApplicationWorld) -> None:
    options = [
        name for name in DOCUMENT["components"]["schemas"]["MetadataOptions"]["properties"] if "_" not in name
    ]
    for action, extra in (
        ("get-features", {"joinKeyMap": {"user_id": "u1"}}),
        ("get-features-batch", {"requestData": [{"join_key_map": {"user_id": "u1"}}] * 2}),
    ):
        path = f"/api/v2/workspaces/w/feature-services/a.b-c/{action}"
        params = {**extra, "metadataOptions": dict.fromkeys(options, True)}
        answer = described.ask("POST", path, orjson.dumps({"params": params}))
        assert answer.status == 200, answer.body
        operation = DOCUMENT["paths"][path]["post"]
        assert faults(DOCUMENT, schema_of(operation, 200), answer.json) == []


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"joinKeyMap": {"user_id": 7}},
        {"joinKeyMap": {"user_id": "u1", "more": 1}},
        {"joinKeyMap": {"user_id": "u1"}, "allowPartialResults": "yes"},
        {"joinKeyMap": {"user_id": "u1"}, "requestOptions": {"latencyBudgetMs": 0}},
        {"joinKeyMap": {"user_id": "u1"}, "metadata_options": {"include_names": 1}},
    ],
)
def test_what_a_schema_refuses_is_refused_as_described(
    described: ApplicationWorld, params: dict[str, Any]
) -> None:
    path = "/api/v2/workspaces/w/feature-services/a.b-c/get-features"
    operation = DOCUMENT["paths"][path]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert faults(DOCUMENT, schema, {"params": params})
    answer = described.ask("POST", path, orjson.dumps({"params": params}))
    assert answer.status == 400
    assert faults(DOCUMENT, schema_of(operation, 400), answer.json) == []


def test_it_asks_for_a_key_where_what_it_tells_of_does(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(format_keys([new_key("fs_right", "web", ["w"], [READ], 0, None)]))
    world = ApplicationWorld(plan=PLAN, keys=KeyFile(str(path), lambda: 1))
    world.application.describe(b"{}")
    assert world.ask("GET", OPENAPI).status == 401
    assert world.ask("GET", "/healthz").status == 200
    (answer,) = world.send("GET", OPENAPI, authorization=b"Bearer fs_right").answers
    assert answer.status == 200


def test_feast_s_paths_are_those_that_its_handler_answers() -> None:
    assert (openapi_feast.PATH, openapi_feast.HEALTH) == (feast_handler.PATH, feast_handler.HEALTH)


def test_settings_decide_what_is_made() -> None:
    without = describe(Settings(), PLAN)
    assert without.console is None
    assert not without.about.needs_key
    with_admin = describe(Settings(admin_port=0, api_keys="keys.json", max_batch_rows=7), PLAN)
    assert with_admin.console is not None
    assert (with_admin.about.needs_key, with_admin.about.max_batch_rows) == (True, 7)


@pytest.mark.parametrize(
    "url, expected",
    [
        ("http://0.0.0.0:80", "http://127.0.0.1:80"),
        ("https://[::]:443", "https://[::1]:443"),
        ("http://10.0.0.1:8080", "http://10.0.0.1:8080"),
    ],
)
def test_a_listener_of_all_addresses_is_reached_on_one(url: str, expected: str) -> None:
    assert reachable(url) == expected
