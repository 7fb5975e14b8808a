"""Tables and rows that aren't what the definitions say: the error of those who ask for them alone.

The rows were damaged in a store; nothing that fastserve writes looks like them.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from fastserve.plan.views import ViewPlan
from fastserve.store.interface import KeyAttribute, OnlineStore, TableSpec
from perf.load import standin_client
from perf.load.standin_client import StandInAddress
from tests.support.bank_repo import (
    DEFINITIONS,
    DEFINITIONS_BEFORE,
    ROWS,
    TIME_NS,
    VECTOR,
    write_bank_repo,
)
from tests.support.feature_server import (
    GET_FEATURES,
    GET_FEATURES_BATCH,
    Row,
    apply_and_put,
    ask,
    features,
    packed,
    serving_features,
    with_store,
)
from tests.support.http_connection import Answer
from tests.support.server_process import Server

STRANGE_TABLES = """
absent = fs.FeatureView(
    "absent", entities=user, source=anything, features=[fs.Attribute("a", fs.Int64)]
)
rekeyed = fs.FeatureView(
    "rekeyed", entities=user, source=anything, features=[fs.Attribute("a", fs.Int64)], table="other_key"
)
fs.FeatureService("with_absent", features=[balance, absent])
fs.FeatureService("with_rekeyed", features=[balance, rekeyed])
"""
BALANCE = VECTOR[:2]
OLDER = ["77", "Lima", None]
SOMEBODY = {"age": 30, "city": "Bergen", "score": 1.5}

Damage = Callable[[bytes], bytes]
DAMAGED: Mapping[str, tuple[Damage, str]] = {
    "empty": (lambda row: b"", "expected a packed row of at least 16 bytes, got 0 bytes"),
    "3 bytes": (lambda row: row[:3], "expected a packed row of at least 16 bytes, got 3 bytes"),
    "header only": (lambda row: row[:18], "expected at least 48 bytes for schema {id}, got 18"),
    "cut in a text": (
        lambda row: row[:-3],
        "column 'city': expected its text to end after byte 0 and within 6, got 8",
    ),
    "longer": (lambda row: row + b"abc", "expected 56 bytes and padding to a multiple of 3, got 60 bytes"),
    "garbage": (
        lambda row: b"garbage!!" * 8,
        "expected a packed row of format 1, got format 103 with flags 97",
    ),
    "another format": (
        lambda row: b"\2" + row[1:],
        "expected a packed row of format 1, got format 2 with flags 0",
    ),
    "unknown flags": (
        lambda row: row[:1] + b"\x80" + row[2:],
        "expected a packed row of format 1, got format 1 with flags 128",
    ),
    "a text that is no JSON": (
        lambda row: row.replace(b'"Bergen"', b"Bergen!!"),
        "column 'city': expected JSON, got b'Bergen!!'",
    ),
    "unknown schema": (
        lambda row: row[:4] + b"\xde\xad\xbe\xef" + row[8:],
        "expected a row of schema {id}, got schema efbeadde",
    ),
}


class Bank(NamedTuple):
    """A server whose store holds all that is wrong."""

    server: Server
    schema_id: str


@pytest.fixture(scope="module")
def bank(store_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bank]:
    folder = tmp_path_factory.mktemp("bank")
    older = Row(["older"], {"city": "Lima", "age": 77, "height": 1.8}, TIME_NS)
    apply_and_put(write_bank_repo(folder / "before", DEFINITIONS_BEFORE), store_url, {"person": [older]})
    views = apply_and_put(write_bank_repo(folder / "now"), store_url, ROWS)

    async def damage(store: OnlineStore) -> None:
        rows = []
        for name, (damaged, _) in DAMAGED.items():
            key, row = packed(views["person"], Row([name], SOMEBODY, TIME_NS))
            rows.append((key, damaged(row)))
        await store.put_rows(views["person"].table, rows)
        await store.create_table(TableSpec("other_key", KeyAttribute("id", "S")))

    with_store(store_url, damage)
    repo = write_bank_repo(folder / "served", DEFINITIONS + STRANGE_TABLES)
    with serving_features(repo, store_url, "--workers", "1") as server:
        yield Bank(server, f"{views['person'].layout.schema_id:08x}")
        assert server.stop() == 0
        assert "Traceback" not in server.said


def status(answer: Answer) -> tuple[int, int, str]:
    error = orjson.loads(answer.body)
    assert error["error"] == error["message"]
    return answer.status, error["code"], error["message"]


def assert_goes_on(server: Server) -> None:
    connection = server.connect()
    assert features(ask(connection, "bank", {"account_id": 7, "user_id": "u1"})) == VECTOR
    connection.close()


def unreadable(bank: Bank, name: str) -> str:
    reason = DAMAGED[name][1].format(id=bank.schema_id)
    return f"A row of view `person` in table bank.person can't be read: {reason}"


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_row_is_an_error_that_says_what_is_wrong_with_it(bank: Bank, name: str) -> None:
    connection = bank.server.connect()
    answer = ask(connection, "bank", {"account_id": 7, "user_id": name})
    assert status(answer) == (503, 14, unreadable(bank, name))
    assert features(ask(connection, "bank", {"account_id": 7, "user_id": "u1"})) == VECTOR


@pytest.mark.parametrize("name", DAMAGED)
def test_with_partial_results_allowed_a_damaged_row_is_null_and_unknown(bank: Bank, name: str) -> None:
    connection = bank.server.connect()
    options = {"includeServingStatus": True, "includeEffectiveTimes": True}
    asked = {"account_id": 7, "user_id": name}
    answer = ask(connection, "bank", asked, allowPartialResults=True, metadataOptions=options)
    assert features(answer) == [*BALANCE, None, None, None]
    about = orjson.loads(answer.body)["metadata"]["features"]
    assert [feature["status"] for feature in about] == ["PRESENT"] * 2 + ["UNKNOWN"] * 3
    assert [feature.get("effectiveTime") for feature in about] == ["2026-01-01T00:00:00Z"] * 2 + [None] * 3


def test_requests_beside_one_for_a_damaged_row_get_their_vectors(bank: Bank) -> None:
    """They come in one segment, so they are read and evaluated together."""
    users = ["u1", "garbage", "u1", "nobody", "cut in a text", "u1", "older"]
    bodies = [vector_body({"account_id": 7, "user_id": user}) for user in users]
    connection = bank.server.connect()
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    connection.send(b"".join(head % (GET_FEATURES.encode(), len(body)) + body for body in bodies))
    answers = [connection.read() for _ in users]
    assert [answer.status for answer in answers] == [200, 503, 200, 200, 503, 200, 200]
    assert [features(answers[place]) for place in (0, 2, 5)] == [VECTOR] * 3
    assert features(answers[3]) == [*BALANCE, None, None, None]
    assert status(answers[1])[2] == unreadable(bank, "garbage")
    assert status(answers[4])[2] == unreadable(bank, "cut in a text")
    assert features(answers[6]) == [*BALANCE, *OLDER]


def vector_body(join_keys: Mapping[str, Any], **params: Any) -> bytes:
    return orjson.dumps({"params": {"featureServiceName": "bank", "joinKeyMap": join_keys, **params}})


def batch_body(users: list[str], **params: Any) -> bytes:
    rows = [{"joinKeyMap": {"account_id": 7, "user_id": user}} for user in users]
    return orjson.dumps({"params": {"featureServiceName": "bank", "requestData": rows, **params}})


def test_one_damaged_row_of_a_batch_is_unknown_in_its_own_line_alone(bank: Bank) -> None:
    connection = bank.server.connect()
    users = ["u1", "garbage", "u1", "nobody"]
    refused = connection.ask(GET_FEATURES_BATCH, batch_body(users))
    assert status(refused) == (503, 14, unreadable(bank, "garbage"))
    options = {"includeServingStatus": True}
    answer = connection.ask(
        GET_FEATURES_BATCH, batch_body(users, allowPartialResults=True, metadataOptions=options)
    )
    assert answer.status == 200
    document = orjson.loads(answer.body)
    nothing = [*BALANCE, None, None, None]
    assert [row["features"] for row in document["result"]] == [VECTOR, nothing, VECTOR, nothing]
    person = document["metadata"]["features"][2]
    assert person["status"] == ["PRESENT", "UNKNOWN", "PRESENT", "MISSING_DATA"]


def test_a_row_of_an_older_schema_gives_what_it_has(bank: Bank) -> None:
    """Columns are matched by name: `height` is gone, `score` wasn't there yet."""
    connection = bank.server.connect()
    options = {"includeServingStatus": True}
    answer = ask(connection, "bank", {"account_id": 7, "user_id": "older"}, metadataOptions=options)
    assert features(answer) == [*BALANCE, *OLDER]
    about = orjson.loads(answer.body)["metadata"]["features"]
    assert [feature["status"] for feature in about] == ["PRESENT"] * 5


TABLE_TROUBLE = {
    "with_absent": {
        "local": "table 'bank.absent': there is no such table",
        "dynamodb": "DynamoDB: reading bank.absent: ResourceNotFoundException: Requested resource not found",
    },
    "with_rekeyed": {
        "local": "table other_key: expected key attributes 'k' (S), got 'id' (S)",
        "dynamodb": "DynamoDB: reading other_key: ValidationException: "
        "The provided key element does not match the schema",
    },
}


@pytest.mark.parametrize("service", TABLE_TROUBLE)
def test_a_table_that_is_missing_or_has_another_key_is_an_error_for_its_views(
    bank: Bank, store_url: str, service: str
) -> None:
    kind = store_url.partition(":")[0]
    asked = {"account_id": 7, "user_id": "u1"}
    connection = bank.server.connect()
    for _ in range(3):
        code, grpc, message = status(ask(connection, service, asked))
        assert (code, grpc) == (503, 14)
        assert message.startswith("The online store failed: ")
        assert message.endswith(TABLE_TROUBLE[service][kind])
        assert features(ask(connection, "bank", asked)) == VECTOR
    options = {"includeServingStatus": True}
    answer = ask(connection, service, asked, allowPartialResults=True, metadataOptions=options)
    assert sorted(features(answer), key=str) == sorted([*BALANCE, None], key=str)
    statuses = [feature["status"] for feature in orjson.loads(answer.body)["metadata"]["features"]]
    assert sorted(statuses) == ["PRESENT", "PRESENT", "UNKNOWN"]


NO_BASE64 = "Non-base64 digit found"
TEXTS = {
    "!!!!": NO_BASE64,
    "QUJ": NO_BASE64,
    "QUJD QUJD": NO_BASE64,
    "äöüß": NO_BASE64,
    "QQ==": "expected a packed row of at least 16 bytes, got 1 bytes",
    "": "expected a packed row of at least 16 bytes, got 0 bytes",
}


class Prepared(NamedTuple):
    """A server, its stand-in, and the definitions that rows are packed by."""

    server: Server
    stand_in: StandInAddress
    views: Mapping[str, ViewPlan]


@pytest.fixture
def prepared(tmp_path: Path) -> Iterator[Prepared]:
    """Serve the bank out of tables whose rows are texts that a test chooses."""
    repo = write_bank_repo(tmp_path)
    with standin_client.running() as stand_in:
        views = apply_and_put(repo, stand_in.store_url(), ROWS)
        with serving_features(repo, stand_in.store_url(), "--workers", "1") as server:
            yield Prepared(server, stand_in, views)
            assert server.stop() == 0
            assert "Traceback" not in server.said


@pytest.mark.parametrize("view", ["balance", "person"])
def test_text_that_is_no_base64_is_a_damaged_row(prepared: Prepared, view: str) -> None:
    server, stand_in, views = prepared
    connection = server.connect()
    asked = {"account_id": 7, "user_id": "u1"}
    for text, reason in TEXTS.items():
        stand_in.prepare(f"bank.{view}", [text])
        message = f"A row of view `{view}` in table bank.{view} can't be read: {reason}"
        assert status(ask(connection, "bank", asked)) == (503, 14, message)
        partial = features(ask(connection, "bank", asked, allowPartialResults=True))
        assert partial == ([None, None, *VECTOR[2:]] if view == "balance" else [*BALANCE, None, None, None])
    good = packed(views[view], ROWS[view][0])[1]
    stand_in.prepare(f"bank.{view}", [b64encode(good).decode()])
    assert features(ask(connection, "bank", asked)) == VECTOR


def test_an_item_without_a_packed_row_is_a_damaged_row(prepared: Prepared) -> None:
    server, stand_in, _ = prepared

    async def put(store: OnlineStore) -> None:
        await store.put_items("bank.person", [{"k": "other", "city": "Oslo"}, {"k": "text", "v": "QUJD"}])

    with_store(stand_in.store_url(), put)
    connection = server.connect()
    for user in ("other", "text"):
        code, _, message = status(ask(connection, "bank", {"account_id": 7, "user_id": user}))
        assert (code, message) == (
            503,
            (
                "A row of view `person` in table bank.person can't be read: "
                "expected a packed row of at least 16 bytes, got 0 bytes"
            ),
        )
    assert_goes_on(server)
