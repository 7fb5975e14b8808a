from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from fastserve.cli.get import settings_url, type_text
from fastserve.config import Settings
from fastserve.sdk.types import Array, Field, Float64, Int64, Map, String, Struct
from tests.cli.conftest import CannedServer, Run

METADATA_PATH = "/api/v1/feature-service/metadata"
ANSWER: dict[str, Any] = {
    "result": {"features": ["7", 12.5, None, ["a", None], "line\nbreak", "x" * 100]},
    "metadata": {
        "features": [
            {
                "name": "v.count",
                "dataType": {"type": "int64"},
                "status": "PRESENT",
                "effectiveTime": "2026-01-01T00:00:00Z",
            },
            {"name": "v.mean", "dataType": {"type": "float64"}, "status": "PRESENT"},
            {
                "name": "v.gone",
                "dataType": {"type": "float64"},
                "status": "MISSING_DATA",
                "effectiveTime": None,
            },
            {
                "name": "v.list",
                "dataType": {"type": "array", "elementType": {"type": "string"}},
                "status": "PRESENT",
            },
            {"name": "v.text", "dataType": {"type": "string"}, "status": "PRESENT"},
            {"name": "v.long", "dataType": {"type": "string"}, "status": "PRESENT"},
        ],
        "sloInfo": {"serverTimeSeconds": 0.00125, "storeResponseSizeBytes": 2048},
    },
}


def test_a_vector_is_a_table(run: Run, canned: CannedServer) -> None:
    canned.body = json.dumps(ANSWER).encode()
    ran = run("get", "svc", "a=1", "--url", canned.url)
    assert (ran.code, ran.err) == (0, "")
    table = [line.split() for line in ran.out.splitlines()]
    assert table[0] == ["feature", "value", "type", "status", "effective", "time"]
    assert table[1] == ["v.count", "7", "int64", "PRESENT", "2026-01-01T00:00:00Z"]
    assert table[2] == ["v.mean", "12.5", "float64", "PRESENT"]
    assert table[3] == ["v.gone", "null", "float64", "MISSING_DATA"]
    assert '["a", null]  array<string>' in ran.out
    assert r"line\nbreak" in ran.out
    assert f"{'x' * 79}…" in ran.out
    assert ran.out.endswith("6 features, 1.25 ms in the server, 2,048 bytes from the store\n")


def test_values_go_out_as_they_were_given(run: Run, canned: CannedServer) -> None:
    canned.body = json.dumps(ANSWER).encode()
    argv = [
        "get",
        "svc:v2",
        "user=ü",
        "n=9007199254740993",
        "--request-context",
        "amount=1.50",
        "--workspace",
        "w",
    ]
    run(*argv, "--url", canned.url + "/", "--api-key", "k1")
    assert canned.paths == [METADATA_PATH, "/api/v1/feature-service/get-features"]
    names = {"workspaceName": "w", "featureServiceName": "svc:v2"}
    assert json.loads(canned.bodies[0]) == {"params": names}
    params = json.loads(canned.bodies[1])["params"]
    assert params["joinKeyMap"] == {"user": "ü", "n": "9007199254740993"}
    assert params["requestContextMap"] == {"amount": "1.50"}
    assert (params["workspaceName"], params["featureServiceName"]) == ("w", "svc:v2")
    assert [headers["Authorization"] for headers in canned.headers] == ["Tecton-key k1"] * 2


def test_request_context_goes_out_in_the_types_that_the_server_names(run: Run, canned: CannedServer) -> None:
    types = {"amount": Float64, "note": String, "ids": Array(Int64)}
    fields = [{"name": name, "dataType": dtype.to_api()} for name, dtype in types.items()]
    canned.body = json.dumps(ANSWER).encode()
    canned.body_at[METADATA_PATH] = json.dumps({"inputRequestContextKeys": fields}).encode()
    given = {"amount": "120", "note": "120", "ids": "[1, null]", "unknown": "1"}
    flags = [word for name, text in given.items() for word in ("--request-context", f"{name}={text}")]
    assert run("get", "svc", *flags, "--url", canned.url).code == 0
    context = json.loads(canned.bodies[1])["params"]["requestContextMap"]
    assert context == {"amount": 120.0, "note": "120", "ids": [1, None], "unknown": "1"}
    ran = run("get", "svc", "--request-context", "ids=1;2", "--url", canned.url)
    assert ran.err == "fastserve: error: request context 'ids': expected an array in JSON, got '1;2'\n"


def test_metadata_without_types_is_told_as_such(run: Run, canned: CannedServer) -> None:
    canned.body = b'["no object"]'
    ran = run("get", "svc", "--request-context", "a=1", "--url", canned.url)
    assert ran.code == 1
    assert "expected the types that the service takes, got an answer that has none" in ran.err


def test_url_key_and_workspace_may_come_from_the_environment(run: Run, canned: CannedServer) -> None:
    canned.body = json.dumps(ANSWER).encode()
    assert (
        run("get", "svc", FASTSERVE_URL=canned.url, FASTSERVE_API_KEY="k2", FASTSERVE_WORKSPACE="w2").code
        == 0
    )
    assert canned.headers[0]["Authorization"] == "Tecton-key k2"
    assert json.loads(canned.bodies[0])["params"]["workspaceName"] == "w2"
    run("get", "svc", FASTSERVE_URL=canned.url)
    assert "workspaceName" not in json.loads(canned.bodies[1])["params"]  # the server's own


def test_without_a_url_the_server_of_the_settings_is_asked(
    run: Run, canned: CannedServer, tmp_path: Path
) -> None:
    canned.body = json.dumps(ANSWER).encode()
    port = canned.url.rpartition(":")[2]
    assert run("get", "svc", FASTSERVE_HOST="0.0.0.0", FASTSERVE_PORT=port).code == 0
    (tmp_path / "fastserve.toml").write_text(f"[server]\nport = {port}\n", encoding="utf-8")
    assert run("get", "svc").code == 0
    ran = run("get", "svc", FASTSERVE_PORT="0")
    assert (ran.code, "--url or FASTSERVE_URL where the port setting is 0" in ran.err) == (2, True)
    assert run("get", "svc", FASTSERVE_PORT="0", FASTSERVE_URL=canned.url).code == 0
    assert settings_url(Settings()) == "http://127.0.0.1:8080"


def test_json_is_the_answer_as_it_came(run: Run, canned: CannedServer) -> None:
    canned.body = json.dumps(ANSWER).encode()
    ran = run("get", "svc", "--json", "--url", canned.url)
    assert ran.out == json.dumps(ANSWER) + "\n"


def test_an_error_of_the_server_is_told_with_its_text(run: Run, canned: CannedServer) -> None:
    canned.status = 400
    canned.body = b'{"error":"x","message":"Missing required join key: `user_id`","code":3}'
    ran = run("get", "svc", "--url", canned.url)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "fastserve: error: the server answered 400: Missing required join key: `user_id`\n"


def test_an_answer_that_is_none_is_told_as_one(run: Run, canned: CannedServer) -> None:
    canned.status, canned.body = 502, b"<html>bad gateway</html>"
    assert run("get", "svc", "--url", canned.url).err == (
        "fastserve: error: the server answered 502: '<html>bad gateway</html>'\n"
    )
    canned.status, canned.body = 200, b'{"hello": 1}'
    ran = run("get", "svc", "--url", canned.url)
    assert ran.code == 1
    assert "expected a vector, got an answer that is none" in ran.err


def test_no_server_says_how_to_start_one(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        ran = run("get", "svc", "--url", url)
    assert ran.code == 1
    assert ran.err == (
        f"fastserve: error: no server at {url}; start one with `fastserve serve --repo DIR` or "
        "`fastserve demo`, or name another with --url\n"
    )


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x", "http://", "http://h:port", "http://[::1"])
def test_what_is_no_url_is_refused(run: Run, url: str) -> None:
    ran = run("get", "svc", "--url", url)
    assert ran.code == 1
    assert f"URL: expected http://HOST:PORT or https://HOST, got {url!r}" in ran.err


@pytest.mark.parametrize(
    "url, key",
    [("http://a..b", "k"), ("http://127.0.0.1:1", "s3cr\u20act"), ("http://127.0.0.1:1", "s3cret\n")],
)
def test_what_http_cannot_carry_is_told_without_the_key(run: Run, url: str, key: str) -> None:
    ran = run("get", "svc", "--url", url, "--api-key", key)
    assert ran.code == 1
    expected = f"expected a host and an API key that HTTP can carry, got others for {url}"
    assert ran.err == f"fastserve: error: {expected}\n"


def test_types_read_as_in_definitions() -> None:
    dtype = Struct([Field("a", Array(Int64)), Field("b", Map(String, Float64))])
    assert type_text(dtype.to_api()) == str(dtype)
