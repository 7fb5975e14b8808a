from __future__ import annotations

from typing import Any

import orjson
import pytest

from perf.load.dynamo_error import DynamoError
from perf.load.operations import Store

SCHEMA = [{"AttributeName": "p", "KeyType": "HASH"}, {"AttributeName": "s", "KeyType": "RANGE"}]
TYPES = [{"AttributeName": "p", "AttributeType": "S"}, {"AttributeName": "s", "AttributeType": "N"}]


@pytest.fixture
def store() -> Store:
    made = Store()
    call(made, "CreateTable", TableName="t", KeySchema=SCHEMA, AttributeDefinitions=TYPES)
    for partition, number in (("a", 10), ("a", 9), ("a", 100), ("b", 1)):
        call(made, "PutItem", TableName="t", Item={"p": {"S": partition}, "s": {"N": str(number)}})
    return made


def call(store: Store, operation: str, **request: Any) -> Any:
    return orjson.loads(store.perform(operation, orjson.dumps(request)))


def numbers(store: Store, condition: str, values: dict[str, Any], **more: Any) -> list[int]:
    found = call(
        store,
        "Query",
        TableName="t",
        KeyConditionExpression=condition,
        ExpressionAttributeValues={":p": {"S": "a"}, **values},
        **more,
    )
    return [int(item["s"]["N"]) for item in found["Items"]]


@pytest.mark.parametrize(
    "condition, values, expected",
    [
        ("p = :p", {}, [9, 10, 100]),
        ("p = :p AND s > :s", {":s": {"N": "9"}}, [10, 100]),
        ("p = :p and s BETWEEN :s AND :t", {":s": {"N": "9"}, ":t": {"N": "10"}}, [9, 10]),
        ("p = :p AND s = :s", {":s": {"N": "10.0"}}, [10]),
    ],
)
def test_items_of_a_partition_come_in_the_order_of_their_numbers(
    store: Store, condition: str, values: dict[str, Any], expected: list[int]
) -> None:
    assert numbers(store, condition, values) == expected


def test_an_order_is_turned_round_and_names_may_be_aliases(store: Store) -> None:
    names = {"#k": "p"}

    found = numbers(store, "#k = :p", {}, ScanIndexForward=False, ExpressionAttributeNames=names)

    assert found == [100, 10, 9]


def test_pages_follow_each_other_without_gap(store: Store) -> None:
    wanted = {"TableName": "t", "KeyConditionExpression": "p = :p", "Limit": 2}
    values = {":p": {"S": "a"}}

    first = call(store, "Query", **wanted, ExpressionAttributeValues=values)
    start = first["LastEvaluatedKey"]
    second = call(store, "Query", **wanted, ExpressionAttributeValues=values, ExclusiveStartKey=start)

    assert [item["s"]["N"] for item in first["Items"] + second["Items"]] == ["9", "10", "100"]
    assert "LastEvaluatedKey" not in second


@pytest.mark.parametrize("condition", ["s = :p", "p > :p", "p = :p AND q = :p", "p = :p OR s = :p", ""])
def test_a_condition_that_is_none_on_the_key_is_refused(store: Store, condition: str) -> None:
    with pytest.raises(DynamoError):
        numbers(store, condition, {})


def test_what_is_not_evaluated_is_refused(store: Store) -> None:
    with pytest.raises(DynamoError, match="does not evaluate FilterExpression"):
        numbers(store, "p = :p", {}, FilterExpression="s > :p")
