from __future__ import annotations

import http.client
import itertools
import urllib.parse
from typing import Any

import orjson
import pytest

from perf.load import expressions
from perf.load.dynamo_error import DynamoError
from perf.load.expressions import Names
from perf.load.operations import Store
from tests.support.dynamodb_servers import dynoxide_endpoint

__all__ = ["dynoxide_endpoint"]

ITEM = {"k": {"S": "a"}, "n": {"N": "7"}, "t": {"S": "seven"}, "b": {"B": "AAE="}, "size": {"N": "1"}}
VALUES = {":six": {"N": "6"}, ":seven": {"N": "7.0"}, ":text": {"S": "seven"}, ":bytes": {"B": "AAI="}}
CONDITIONS = [
    ("attribute_exists(k)", True),
    ("attribute_exists(extra)", False),
    ("attribute_not_exists(extra)", True),
    ("attribute_not_exists(#n)", False),
    ("#n = :seven", True),
    ("n <> :seven", False),
    ("n < :six", False),
    ("n <= :seven", True),
    ("n > :six", True),
    (":six < n", True),
    ("n = :text", False),
    ("extra = :six", False),
    ("extra <> :six", True),
    ("b < :bytes", True),
    ("b = :bytes", False),
    ("attribute_not_exists(extra) OR n = :six", True),
    ("attribute_exists(extra) OR n = :six", False),
    ("n = :six OR n = :seven AND t = :text", True),
    ("(n = :seven OR n = :six) AND attribute_exists(extra)", False),
    ("NOT n = :six", True),
    ("NOT (n = :seven and t = :text)", False),
    ("n BETWEEN :six AND :seven AND t = :text", True),
    ("begins_with(t, :text)", True),
    ("size(t) < :six", True),
    ("size(b) > :six", False),
]
MALFORMED = [
    "",
    "n =",
    "n = :six OR",
    "(n = :six",
    "n = :six)",
    "n ~ :six",
    "a.b = :six",
    "a[0] = :six",
    "attribute_exists(:six)",
    "attribute_type(n, :six)",
    "n IN (:six)",
    "n = :six n = :six",
    "#extra = :six",
    "n = :extra",
]


def used(text: str) -> dict[str, Any]:
    """Give a request's names and values as far as an expression uses them."""
    values = {name: value for name, value in VALUES.items() if name in text}
    request: dict[str, Any] = {"ExpressionAttributeValues": values} if values else {}
    if "#n" in text:
        request["ExpressionAttributeNames"] = {"#n": "n"}
    return request


@pytest.mark.parametrize("text, expected", CONDITIONS)
def test_a_condition_holds_or_does_not(text: str, expected: bool) -> None:
    names = Names(used(text))

    test = expressions.condition(text, names)
    names.finish()

    assert test(ITEM) is expected


@pytest.mark.parametrize("text", MALFORMED)
def test_a_condition_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(DynamoError):
        expressions.condition(text, Names({"ExpressionAttributeValues": VALUES}))


def test_names_and_values_that_nothing_uses_are_refused() -> None:
    names = Names({"ExpressionAttributeNames": {"#a": "a", "#b": "b"}})
    expressions.condition("attribute_exists(#a)", names)

    with pytest.raises(DynamoError, match=r"unused in expressions: keys: \{#b\}"):
        names.finish()


@pytest.mark.parametrize(
    "text, changes",
    [
        ("SET v = :six", {"v": {"N": "6"}}),
        ("SET v = n, #n = :six", {"v": {"N": "7"}, "n": {"N": "6"}}),
        ("SET n = n + :six", {"n": {"N": "13"}}),
        ("SET n = n - :six", {"n": {"N": "1"}}),
        ("SET v = if_not_exists(v, :six)", {"v": {"N": "6"}}),
        ("SET v = if_not_exists(n, :six)", {"v": {"N": "7"}}),
        ("REMOVE n, extra", {"n": None}),
        ("ADD v :six", {"v": {"N": "6"}}),
        ("set t = :text remove b add n :six", {"t": {"S": "seven"}, "b": None, "n": {"N": "13"}}),
    ],
)
def test_an_update_changes_what_it_names(text: str, changes: dict[str, Any]) -> None:
    apply = expressions.update(text, Names(used(text)), {"k": {"S": "a"}})

    expected = {name: value for name, value in {**ITEM, **changes}.items() if value is not None}
    assert apply(ITEM) == expected


@pytest.mark.parametrize(
    "text",
    ["", "SET", "SET k = :six", "SET v = extra", "SET n = :six, n = :six", "SET t = t + :six", "DROP n"],
)
def test_an_update_that_cannot_be_made_is_refused(text: str) -> None:
    with pytest.raises(DynamoError):
        expressions.update(text, Names(used(text)), {"k": {"S": "a"}})(ITEM)


@pytest.mark.parametrize("text", ["", "v,", "v, v", "v w", "a.b"])
def test_a_projection_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(DynamoError):
        expressions.projection(text, Names({}))


_NUMBERS = itertools.count()


def ask_dynoxide(endpoint: str, operation: str, request: dict[str, Any]) -> tuple[str, Any]:
    url = urllib.parse.urlsplit(endpoint)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
    headers = {
        "X-Amz-Target": f"DynamoDB_20120810.{operation}",
        "Content-Type": "application/x-amz-json-1.0",
        "Authorization": "AWS4-HMAC-SHA256 Credential=AKIDTEST/20260101/us-east-1/dynamodb/aws4_request, "
        "SignedHeaders=host;x-amz-date, Signature=0",
        "X-Amz-Date": "20260101T000000Z",
    }
    connection.request("POST", "/", orjson.dumps(request), headers)
    answer = connection.getresponse()
    content = orjson.loads(answer.read())
    connection.close()
    if answer.status == http.HTTPStatus.OK:
        return "", content
    return content["__type"].partition("#")[2], content.get("Item")


def ask_stand_in(store: Store, operation: str, request: dict[str, Any]) -> tuple[str, Any]:
    try:
        return "", orjson.loads(store.perform(operation, orjson.dumps(request)))
    except DynamoError as refused:
        return refused.kind.partition("#")[2], refused.item


def test_dynoxide_and_the_stand_in_answer_conditional_writes_alike(dynoxide_endpoint: str) -> None:
    store = Store()
    table = f"expressions-{next(_NUMBERS)}"
    create = {
        "TableName": table,
        "KeySchema": [{"AttributeName": "k", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "k", "AttributeType": "S"}],
        "BillingMode": "PAY_PER_REQUEST",
    }
    key = {"Key": {"k": {"S": "a"}}}
    all_old = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    requests: list[tuple[str, dict[str, Any]]] = []
    for text, _ in CONDITIONS:
        condition = {"ConditionExpression": text, **used(text)}
        requests += [
            ("DeleteItem", key),
            ("PutItem", {"Item": ITEM, **condition, **all_old}),
            ("PutItem", {"Item": ITEM}),
            ("PutItem", {"Item": {**ITEM, "m": {"N": "1"}}, **condition, **all_old}),
            ("UpdateItem", {**key, "UpdateExpression": "REMOVE m", **condition, "ReturnValues": "ALL_NEW"}),
            ("DeleteItem", {**key, **condition, **all_old}),
            ("GetItem", key),
        ]
    for text in MALFORMED:
        if text not in {"n IN (:six)", "a.b = :six", "a[0] = :six", "attribute_type(n, :six)"}:
            requests.append(("DeleteItem", {**key, "ConditionExpression": text, **used(text)}))

    for operation, request in [("CreateTable", create), *requests]:
        whole = {"TableName": table, **request}
        expected = ask_dynoxide(dynoxide_endpoint, operation, whole)
        got = ask_stand_in(store, operation, whole)
        assert got == expected or operation == "CreateTable", (operation, request)
