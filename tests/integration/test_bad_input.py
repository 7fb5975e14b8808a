"""What is wrong with a request is told to that request, exactly, and the server goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
import pytest

from tests.support.bank_repo import ALL_JOIN_KEYS, JOIN_KEYS, ROWS, VECTOR, write_bank_repo
from tests.support.feature_server import (
    GET_FEATURES,
    GET_FEATURES_BATCH,
    METADATA,
    apply_and_put,
    ask,
    features,
    serving_features,
)
from tests.support.http_connection import Answer
from tests.support.server_process import Server

BODY_LIMIT_BYTES = 4096
NO_VALUE = "unexpected character, expected a JSON value"
MALFORMED = "Expected a JSON body in UTF-8, got malformed JSON"
INT64 = "expected int64 (an integer or a decimal string, -2^63 to 2^63 - 1)"
TIME = "timestamp; expected an ISO-8601 time such as 2026-01-02T00:25:06.5Z"


@pytest.fixture(scope="module")
def bank(store_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve the bank's repo over each kind of store."""
    repo = write_bank_repo(tmp_path_factory.mktemp("bank"))
    apply_and_put(repo, store_url, ROWS)
    flags = ["--workers", "1", "--body-limit-bytes", str(BODY_LIMIT_BYTES), "--max-batch-rows", "3"]
    with serving_features(repo, store_url, *flags) as server:
        yield server
        assert server.stop() == 0
        assert "Traceback" not in server.said
        assert server.said.count("starting another") == 0


def assert_goes_on(server: Server) -> None:
    connection = server.connect()
    assert features(ask(connection, "bank", JOIN_KEYS)) == VECTOR
    connection.close()


def assert_refused(answer: Answer, status: int, code: int, message: str) -> None:
    assert answer.headers["content-type"] == "application/json"
    assert orjson.loads(answer.body) == {"error": message, "message": message, "code": code}
    assert answer.status == status


class Bad(NamedTuple):
    """A body, what must be said of it with status 400, and a name for the test."""

    name: str
    body: Any
    message: str


def body(**params: Any) -> dict[str, Any]:
    return {"params": {"featureServiceName": "bank", "joinKeyMap": JOIN_KEYS, **params}}


def keys(**changed: Any) -> dict[str, Any]:
    """Return a body for the service with all types of keys; a key set to ... is left out."""
    changed_keys = {name: value for name, value in {**ALL_JOIN_KEYS, **changed}.items() if value is not ...}
    return body(featureServiceName="bank:all", joinKeyMap=changed_keys)


def keys_text(text: str) -> bytes:
    return b'{"params":{"featureServiceName":"bank","joinKeyMap":%b}}' % text.encode()


def deep(document: dict[str, Any], levels: int) -> bytes:
    return orjson.dumps(document).replace(b'"DEEP"', b"[" * levels + b"]" * levels)


BAD_BODIES = [
    Bad("empty", b"", "Expected a JSON body with `params`, got an empty body"),
    Bad("only white space", b" \r\n\t ", "Expected a JSON body with `params`, got an empty body"),
    Bad("not JSON", b"params=1", f"{MALFORMED}: {NO_VALUE} at line 1, column 1"),
    Bad("cut", b'{"params":\n{"a":1', f"{MALFORMED}: unexpected end of data at line 2, column 7"),
    Bad(
        "not UTF-8",
        b'{"params":{"featureServiceName":"b\xff"}}',
        f"{MALFORMED}: bytes that are no UTF-8 at line 1, column 35",
    ),
    Bad(
        "two documents",
        b'{"params":{}} {}',
        f"{MALFORMED}: unexpected content after document at line 1, column 15",
    ),
    Bad(
        "NaN",
        b'{"params":{"joinKeyMap":{"account_id":NaN}}}',
        f"{MALFORMED}: {NO_VALUE} at line 1, column 39",
    ),
    Bad(
        "a lone surrogate",
        b'{"params":{"featureServiceName":"\\ud800"}}',
        f"{MALFORMED}: no low surrogate in string at line 1, column 34",
    ),
    Bad("nested deeply", b"[" * 1500, f"{MALFORMED}: failed to allocate memory at line 1, column 866"),
    Bad(
        "a deep join key",
        deep(keys(user_id="DEEP"), 800),
        f"Join key `user_id`: expected string, got array {'[' * 63}…",
    ),
    Bad(
        "a deep option",
        deep(body(allowPartialResults="DEEP"), 800),
        f"Field `allowPartialResults`: expected true or false, got array {'[' * 63}…",
    ),
    Bad("an array", [1], "Expected a JSON object with the field `params`, got [1]"),
    Bad("no params", {"param": {}}, "Expected a JSON object with the field `params`, got {'param': {}}"),
    Bad("params is null", {"params": None}, "Field `params`: expected object, got null"),
    Bad("params is an array", {"params": [1]}, "Field `params`: expected object, got array [1]"),
    Bad("no service", {"params": {}}, "Missing required field: `featureServiceName`"),
    Bad(
        "service is a number",
        body(featureServiceName=7),
        "Field `featureServiceName`: expected string, got integer 7",
    ),
    Bad(
        "workspace is a list",
        body(workspaceName=["w"]),
        "Field `workspaceName`: expected string, got array ['w']",
    ),
    Bad("join keys are a list", body(joinKeyMap=[1]), "Field `joinKeyMap`: expected object, got array [1]"),
    Bad(
        "context is text",
        body(requestContextMap="x"),
        "Field `requestContextMap`: expected object, got string 'x'",
    ),
    Bad(
        "partial is a number",
        body(allowPartialResults=1),
        "Field `allowPartialResults`: expected true or false, got integer 1",
    ),
    Bad(
        "a metadata option is text",
        body(metadataOptions={"includeNames": "yes"}),
        "Field `metadataOptions.includeNames`: expected true or false, got string 'yes'",
    ),
    Bad(
        "a budget of 0",
        body(requestOptions={"latencyBudgetMs": 0}),
        "Field `requestOptions.latencyBudgetMs`: expected a number of milliseconds above 0, got integer 0",
    ),
    Bad("missing join key", keys(user_id=...), "Missing required join key: `user_id`"),
    Bad(
        "no join keys", {"params": {"featureServiceName": "bank"}}, "Missing required join key: `account_id`"
    ),
    Bad(
        "extra join key",
        body(joinKeyMap={**JOIN_KEYS, "merchant_id": 1}),
        "Unknown join key: expected `account_id`, `user_id`, got 'merchant_id'",
    ),
    Bad(
        "extra context",
        body(requestContextMap={"amount": 1}),
        "Unknown request context field: expected none, got 'amount'",
    ),
    Bad("number for string", keys(user_id=1), "Join key `user_id`: expected string, got integer 1"),
    Bad("bool for int64", keys(account_id=True), f"Join key `account_id`: {INT64}, got boolean True"),
    Bad("float for int64", keys(account_id=7.0), f"Join key `account_id`: {INT64}, got number 7.0"),
    Bad("text for int64", keys(account_id="seven"), f"Join key `account_id`: {INT64}, got string 'seven'"),
    Bad("empty text for int64", keys(account_id=""), f"Join key `account_id`: {INT64}, got string ''"),
    Bad("plus for int64", keys(account_id="+7"), f"Join key `account_id`: {INT64}, got string '+7'"),
    Bad("list for int64", keys(account_id=[7]), f"Join key `account_id`: {INT64}, got array [7]"),
    Bad(
        "object for int64",
        keys(account_id={"a": 1}),
        f"Join key `account_id`: {INT64}, got object {{'a': 1}}",
    ),
    Bad("2^63", keys(account_id=2**63), f"Join key `account_id`: {INT64}, got integer 9223372036854775808"),
    Bad(
        "2^64",
        keys_text('{"account_id":18446744073709551616,"user_id":"u1"}'),
        f"Join key `account_id`: {INT64}, got number 1.8446744073709552e+19",
    ),
    Bad(
        "-2^63 - 1 as text",
        keys(account_id=str(-(2**63) - 1)),
        f"Join key `account_id`: {INT64}, got string '-9223372036854775809'",
    ),
    Bad(
        "text for bool",
        keys(active="true"),
        "Join key `active`: expected bool (true or false), got string 'true'",
    ),
    Bad("number for bool", keys(active=1), "Join key `active`: expected bool (true or false), got integer 1"),
    Bad(
        "number for time",
        keys(since=1),
        "Join key `since`: expected timestamp (ISO-8601 text), got integer 1",
    ),
    Bad("no time", keys(since="soon"), f"Join key `since`: expected {TIME}, got string 'soon'"),
    Bad(
        "long text",
        keys(account_id="9" * 3000),
        f"Join key `account_id`: {INT64}, got string '{'9' * 62}…",
    ),
    Bad(
        "key over the store's limit",
        keys(user_id="é" * 1025),
        f"Join key `user_id`: expected at most 2048 bytes, got string '{'é' * 62}…",
    ),
]


@pytest.mark.parametrize("bad", BAD_BODIES, ids=[bad.name for bad in BAD_BODIES])
def test_a_bad_body_is_refused_with_400_and_what_was_expected(bank: Server, bad: Bad) -> None:
    connection = bank.connect()
    raw = bad.body if isinstance(bad.body, bytes) else orjson.dumps(bad.body)
    answer = connection.ask(GET_FEATURES, raw)
    print(answer.body)
    assert_refused(answer, 400, 3, bad.message)
    assert features(ask(connection, "bank", JOIN_KEYS)) == VECTOR  # on the same connection


def batch(*rows: Any, **params: Any) -> dict[str, Any]:
    return {"params": {"featureServiceName": "bank", "requestData": list(rows), **params}}


GOOD_ROW = {"joinKeyMap": JOIN_KEYS}
BAD_BATCHES = [
    Bad("no rows", batch(), "Field `request_data`: expected array of 1 to 3 objects, got array []"),
    Bad("rows absent", body(), "Field `request_data`: expected array of 1 to 3 objects, got null"),
    Bad("too many rows", batch(*[GOOD_ROW] * 4), "Field `request_data`: expected at most 3 rows, got 4"),
    Bad("a row is text", batch(GOOD_ROW, "x"), "Field `request_data[1]`: expected object, got string 'x'"),
    Bad(
        "join keys are a list",
        batch(GOOD_ROW, {"joinKeyMap": []}),
        "Field `request_data[1].join_key_map`: expected object, got array []",
    ),
    Bad("missing join key", batch(GOOD_ROW, {}), "Missing required join key: `account_id` (request_data[1])"),
    Bad(
        "extra join key",
        batch(GOOD_ROW, GOOD_ROW, {"join_key_map": {**JOIN_KEYS, "x": 1}}),
        "Unknown join key (request_data[2]): expected `account_id`, `user_id`, got 'x'",
    ),
    Bad(
        "wrong type",
        batch(GOOD_ROW, {"joinKeyMap": {**JOIN_KEYS, "user_id": 5}}),
        "Join key `user_id`: expected string, got integer 5 (request_data[1])",
    ),
    Bad(
        "extra context",
        batch({**GOOD_ROW, "requestContextMap": {"a": 1}}),
        "Unknown request context field (request_data[0]): expected none, got 'a'",
    ),
]


@pytest.mark.parametrize("bad", BAD_BATCHES, ids=[bad.name for bad in BAD_BATCHES])
def test_a_bad_batch_is_refused_with_400_and_the_row(bank: Server, bad: Bad) -> None:
    connection = bank.connect()
    assert_refused(connection.ask(GET_FEATURES_BATCH, orjson.dumps(bad.body)), 400, 3, bad.message)
    assert features(ask(connection, "bank", JOIN_KEYS)) == VECTOR


V2 = "/api/v2/workspaces/bank/feature-services/"
LISTED = ": /openapi.json lists them"
BODY = orjson.dumps(body())


class Refused(NamedTuple):
    """A request line and a body, and the answer to it."""

    request: str
    body: bytes
    status: int
    code: int
    message: str


REFUSED = [
    Refused(
        f"POST {GET_FEATURES}",
        orjson.dumps(body(featureServiceName="fraud:v2")),
        404,
        5,
        "Unknown feature service 'fraud:v2' in workspace 'bank'",
    ),
    Refused(
        f"POST {GET_FEATURES}",
        orjson.dumps(body(featureServiceName="s" * 500)),
        404,
        5,
        f"Unknown feature service '{'s' * 62}… in workspace 'bank'",
    ),
    Refused(
        f"POST {GET_FEATURES}",
        orjson.dumps(body(workspaceName="prod")),
        404,
        5,
        "Unknown workspace 'prod': this server serves 'bank'",
    ),
    Refused(
        f"POST {GET_FEATURES_BATCH}",
        orjson.dumps(batch(GOOD_ROW, workspaceName="prod")),
        404,
        5,
        "Unknown workspace 'prod': this server serves 'bank'",
    ),
    Refused(
        f"POST {METADATA}",
        orjson.dumps(body(featureServiceName="no")),
        404,
        5,
        "Unknown feature service 'no' in workspace 'bank'",
    ),
    Refused(f"POST {V2}no/get-features", BODY, 404, 5, "Unknown feature service 'no' in workspace 'bank'"),
    Refused(
        f"POST {V2.replace('bank', 'prod')}bank/get-features",
        BODY,
        404,
        5,
        "Unknown workspace 'prod': this server serves 'bank'",
    ),
    Refused(f"GET {V2}no/metadata", b"", 404, 5, "Unknown feature service 'no' in workspace 'bank'"),
    Refused(
        f"GET {V2}%ff/metadata", b"", 400, 3, "Expected UTF-8 behind the percent signs of the path, got '%ff'"
    ),
    Refused("GET /", b"", 404, 5, f"Unknown path '/' for 'GET'{LISTED}"),
    Refused(
        "POST /api/v1/feature-service/get-feature",
        BODY,
        404,
        5,
        f"Unknown path '/api/v1/feature-service/get-feature' for 'POST'{LISTED}",
    ),
    Refused(
        f"POST {V2}bank/materialize", BODY, 404, 5, f"Unknown path '{V2}bank/materialize' for 'POST'{LISTED}"
    ),
    Refused(f"GET {GET_FEATURES}", b"", 405, 12, f"Expected POST for '{GET_FEATURES}', got 'GET'"),
    Refused(
        f"GET {V2}bank/get-features", b"", 405, 12, f"Expected POST for '{V2}bank/get-features', got 'GET'"
    ),
    Refused(
        f"POST {V2}bank/metadata", b"", 405, 12, f"Expected GET or HEAD for '{V2}bank/metadata', got 'POST'"
    ),
    Refused("POST /healthz", b"", 405, 12, "Expected GET or HEAD for '/healthz', got 'POST'"),
    Refused(
        f"PUT {GET_FEATURES}", BODY, 405, 12, "method PUT is not allowed, expected one of GET, HEAD, POST"
    ),
    Refused(
        f"POST {GET_FEATURES}",
        b"x" * (BODY_LIMIT_BYTES + 1),
        413,
        3,
        "expected a body of at most 4096 bytes, got more",
    ),
    Refused(
        f"FETCH {GET_FEATURES}", BODY, 501, 12, "unknown method 'FETCH', expected one of GET, HEAD, POST"
    ),
]


@pytest.mark.parametrize("refused", REFUSED, ids=[f"{n} {r.request[:40]}" for n, r in enumerate(REFUSED)])
def test_what_cannot_be_served_is_refused_in_json(bank: Server, refused: Refused) -> None:
    connection = bank.connect()
    head = f"{refused.request} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(refused.body)}\r\n\r\n"
    connection.send(head.encode() + refused.body)
    answer = connection.read()
    print(answer.body)
    assert_refused(answer, refused.status, refused.code, refused.message)
    if answer.headers.get("connection") != "close":
        assert features(ask(connection, "bank", JOIN_KEYS)) == VECTOR
    assert_goes_on(bank)


def test_a_null_join_key_is_a_key_that_has_no_row_here(bank: Server) -> None:
    connection = bank.connect()
    asked = {"account_id": 7, "user_id": None}
    assert features(ask(connection, "bank", asked)) == [12.5, str(2**60 + 1), None, None, None]
