from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from perf.load.dynamo_error import DynamoError
from perf.load.faults import FaultPlan, Faults
from perf.load.operations import READ_MAX_BYTES, Store
from perf.load.tables import PreparedTable, row_index

ROWS = [base64.b64encode(bytes([number]) * 6).decode() for number in range(8)]


def perform(store: Store, operation: str, **request: Any) -> Any:
    return orjson.loads(store.perform(operation, orjson.dumps(request)))


def keys(*names: str) -> dict[str, Any]:
    return {"Keys": [{"k": {"S": name}} for name in names]}


def row(name: str, value: bytes = b"abc") -> dict[str, Any]:
    return {"k": {"S": name}, "v": {"B": base64.b64encode(value).decode()}}


@pytest.fixture
def store() -> Store:
    made = Store()
    create_table(made, "stored")
    made.tables["prepared"] = PreparedTable("prepared", ROWS)
    return made


def create_table(store: Store, name: str, kind: str = "S") -> None:
    perform(
        store,
        "CreateTable",
        TableName=name,
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": kind}],
    )


def refusal(store: Store, operation: str, **request: Any) -> str:
    with pytest.raises(DynamoError) as refused:
        perform(store, operation, **request)
    kind: str = refused.value.kind.partition("#")[2]
    return f"{kind}: {refused.value.message}"


def test_what_is_put_is_read_back_and_absent_keys_are_absent(store: Store) -> None:
    perform(store, "PutItem", TableName="stored", Item=row("a"))

    answer = perform(store, "BatchGetItem", RequestItems={"stored": keys("a", "b")})

    assert answer == {"Responses": {"stored": [row("a")]}, "UnprocessedKeys": {}}
    assert perform(store, "GetItem", TableName="stored", Key={"k": {"S": "a"}}) == {"Item": row("a")}
    assert perform(store, "GetItem", TableName="stored", Key={"k": {"S": "b"}}) == {}


def test_one_call_reads_several_tables(store: Store) -> None:
    perform(store, "PutItem", TableName="stored", Item=row("a"))

    answer = perform(
        store, "BatchGetItem", RequestItems={"prepared": keys("x", "y"), "stored": keys("nobody", "a")}
    )

    expected = [{"k": {"S": name}, "v": {"B": ROWS[row_index(name, 8)]}} for name in ("x", "y")]
    assert answer["Responses"] == {"prepared": expected, "stored": [row("a")]}


@pytest.mark.parametrize("name", ["plain", 'a"b', "a\\|b", "ü€\N{GRINNING FACE}", "\x01"])
def test_a_prepared_table_gives_any_key_back_as_it_was_asked(store: Store, name: str) -> None:
    answer = perform(store, "BatchGetItem", RequestItems={"prepared": keys(name, "other")})

    first = answer["Responses"]["prepared"][0]
    assert first == {"k": {"S": name}, "v": {"B": ROWS[row_index(name, 8)]}}


@pytest.mark.parametrize("name", ["stored", "prepared"])
def test_a_table_whose_keys_are_all_absent_answers_an_empty_list(store: Store, name: str) -> None:
    store.tables["prepared"] = PreparedTable("prepared", [None])

    answer = perform(store, "BatchGetItem", RequestItems={name: keys("a", "b")})

    assert answer["Responses"] == {name: []}
    assert store.absent_keys == 2


@pytest.mark.parametrize("name", ["stored", "prepared"])
def test_duplicate_keys_are_refused(store: Store, name: str) -> None:
    text = refusal(store, "BatchGetItem", RequestItems={name: keys("a", "b", "a")})

    assert text == "ValidationException: Provided list of item keys contains duplicates"


def test_equal_numbers_are_duplicates_however_they_are_spelt(store: Store) -> None:
    create_table(store, "numbers", "N")

    text = refusal(
        store, "BatchGetItem", RequestItems={"numbers": {"Keys": [{"k": {"N": "1"}}, {"k": {"N": "1.0"}}]}}
    )

    assert text == "ValidationException: Provided list of item keys contains duplicates"


def test_over_a_hundred_keys_are_refused_across_tables(store: Store) -> None:
    names = [f"key{number}" for number in range(51)]

    text = refusal(store, "BatchGetItem", RequestItems={"stored": keys(*names[1:]), "prepared": keys(*names)})

    assert text == "ValidationException: Too many items requested for the BatchGetItem call"


@pytest.mark.parametrize("name", ["stored", "prepared"])
@pytest.mark.parametrize("key", [{"k": {"N": "1"}}, {"id": {"S": "a"}}, {"k": {"S": "a"}, "s": {"S": "b"}}])
def test_a_key_of_another_schema_is_refused(store: Store, name: str, key: dict[str, Any]) -> None:
    text = refusal(store, "BatchGetItem", RequestItems={name: {"Keys": [key]}})

    assert text == "ValidationException: The provided key element does not match the schema"


@pytest.mark.parametrize("name", ["stored", "prepared"])
def test_an_empty_key_is_refused(store: Store, name: str) -> None:
    assert "cannot contain an empty string value" in refusal(
        store, "BatchGetItem", RequestItems={name: keys("")}
    )


@pytest.mark.parametrize("request_items", [{}, {"stored": {"Keys": []}}])
def test_a_read_of_nothing_is_refused(store: Store, request_items: dict[str, Any]) -> None:
    assert refusal(store, "BatchGetItem", RequestItems=request_items).startswith("ValidationException: 1 val")


def test_an_unknown_table_is_refused(store: Store) -> None:
    text = refusal(store, "BatchGetItem", RequestItems={"nothing": keys("a")})

    assert text == "ResourceNotFoundException: Requested resource not found"


def test_what_is_not_evaluated_is_refused_rather_than_ignored(store: Store) -> None:
    entry = {**keys("a"), "AttributesToGet": ["v"]}

    assert "does not evaluate" in refusal(store, "BatchGetItem", RequestItems={"stored": entry})
    assert "does not evaluate" in refusal(store, "Scan", TableName="stored", FilterExpression="v = k")


def test_a_projection_gives_the_attributes_it_names(store: Store) -> None:
    perform(store, "PutItem", TableName="stored", Item={**row("a"), "i": {"B": "QUJD"}, "ttl": {"N": "1"}})
    projection = {"ProjectionExpression": "#k, v", "ExpressionAttributeNames": {"#k": "k"}}

    answer = perform(
        store,
        "BatchGetItem",
        RequestItems={"stored": {**keys("a", "b"), **projection}, "prepared": keys("x")},
    )

    assert answer["Responses"]["stored"] == [row("a")]
    assert answer["Responses"]["prepared"][0]["k"] == {"S": "x"}
    got = perform(store, "GetItem", TableName="stored", Key={"k": {"S": "a"}}, ProjectionExpression="ttl, no")
    assert got == {"Item": {"ttl": {"N": "1"}}}


def test_what_is_over_16_megabytes_is_unprocessed(store: Store) -> None:
    item_bytes = 390 * 1024
    names = [f"key{number:02d}" for number in range(40)]
    for name in names:
        perform(store, "PutItem", TableName="stored", Item=row(name, bytes(item_bytes)))

    answer = perform(store, "BatchGetItem", RequestItems={"stored": keys(*names)})

    got = [item["k"]["S"] for item in answer["Responses"]["stored"]]
    left = [key["k"]["S"] for key in answer["UnprocessedKeys"]["stored"]["Keys"]]
    assert sorted(got + left) == names
    assert left
    assert len(orjson.dumps(answer["Responses"])) <= READ_MAX_BYTES + 1_024


def test_batches_put_and_delete(store: Store) -> None:
    writes = [{"PutRequest": {"Item": row(f"key{number}")}} for number in range(24)]
    perform(store, "PutItem", TableName="stored", Item=row("old"))

    answer = perform(
        store,
        "BatchWriteItem",
        RequestItems={"stored": [*writes, {"DeleteRequest": {"Key": {"k": {"S": "old"}}}}]},
    )

    assert answer == {"UnprocessedItems": {}}
    read = perform(store, "BatchGetItem", RequestItems={"stored": keys("key0", "key23", "old")})
    assert len(read["Responses"]["stored"]) == 2


def test_a_batch_of_26_writes_is_refused(store: Store) -> None:
    writes = [{"PutRequest": {"Item": row(f"key{number}")}} for number in range(26)]

    text = refusal(store, "BatchWriteItem", RequestItems={"stored": writes})

    assert text == "ValidationException: Too many items requested for the BatchWriteItem call"


def test_a_refused_batch_of_writes_changes_nothing(store: Store) -> None:
    writes = [{"PutRequest": {"Item": row("a")}}, {"PutRequest": {"Item": row("b", bytes(410 * 1024))}}]

    text = refusal(store, "BatchWriteItem", RequestItems={"stored": writes})

    assert text == "ValidationException: Item size has exceeded the maximum allowed size"
    assert perform(store, "GetItem", TableName="stored", Key={"k": {"S": "a"}}) == {}


def test_tables_are_described_listed_and_deleted(store: Store) -> None:
    assert perform(store, "ListTables", Limit=1) == {
        "TableNames": ["prepared"],
        "LastEvaluatedTableName": "prepared",
    }
    assert perform(store, "ListTables", ExclusiveStartTableName="prepared")["TableNames"] == ["stored"]
    described = perform(store, "DescribeTable", TableName="stored")["Table"]
    assert (described["TableStatus"], described["KeySchema"]) == (
        "ACTIVE",
        [{"AttributeName": "k", "KeyType": "HASH"}],
    )
    perform(store, "DeleteTable", TableName="stored")
    assert refusal(store, "DescribeTable", TableName="stored").startswith("ResourceNotFoundException")


def test_creating_a_table_twice_is_refused(store: Store) -> None:
    with pytest.raises(DynamoError, match="Table already exists: stored"):
        create_table(store, "stored")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"RequestItems":[]}', b'{"RequestItems":{"stored":{}}}']
)
def test_a_malformed_body_is_refused(store: Store, body: bytes) -> None:
    with pytest.raises(DynamoError) as refused:
        store.perform("BatchGetItem", body)
    assert refused.value.kind.endswith(("SerializationException", "ValidationException"))


def test_an_unknown_operation_is_refused(store: Store) -> None:
    assert refusal(store, "ExportTable") == "UnknownOperationException: Unknown operation: ExportTable"


def test_unprocessed_keys_and_items_make_up_what_was_asked(store: Store) -> None:
    store.faults = Faults(FaultPlan(unprocessed_share=0.3, shuffle=True))
    names = [f"key{number}" for number in range(100)]

    answer = perform(store, "BatchGetItem", RequestItems={"prepared": keys(*names)})

    got = [item["k"]["S"] for item in answer["Responses"]["prepared"]]
    left = [key["k"]["S"] for key in answer["UnprocessedKeys"]["prepared"]["Keys"]]
    assert sorted(got + left) == sorted(names)
    assert got != sorted(got, key=names.index)
    assert 15 < len(left) < 45
    for item in answer["Responses"]["prepared"]:
        assert item["v"]["B"] == ROWS[row_index(item["k"]["S"], 8)]


def put_if(store: Store, name: str, version: int, expected: int | None) -> str | dict[str, Any] | None:
    """Put a version in the place of another one; give what is there if that isn't the one expected."""
    condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(k)"}
    if expected is not None:
        condition = {
            "ConditionExpression": "#n = :n",
            "ExpressionAttributeNames": {"#n": "n"},
            "ExpressionAttributeValues": {":n": {"N": str(expected)}},
        }
    try:
        perform(
            store,
            "PutItem",
            TableName="stored",
            Item={**row(name), "n": {"N": str(version)}},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
            **condition,
        )
    except DynamoError as refused:
        body = orjson.loads(refused.error_body())
        return body.get("Item", "absent") if "ConditionalCheckFailed" in body["__type"] else "another refusal"
    return None


def test_a_conditional_put_changes_only_what_is_as_expected(store: Store) -> None:
    assert put_if(store, "a", 1, expected=3) == "absent"
    assert put_if(store, "a", 1, expected=None) is None
    assert put_if(store, "a", 1, expected=None) == {**row("a"), "n": {"N": "1"}}
    assert put_if(store, "a", 2, expected=1) is None
    assert put_if(store, "a", 3, expected=1) == {**row("a"), "n": {"N": "2"}}
    assert perform(store, "GetItem", TableName="stored", Key={"k": {"S": "a"}})["Item"]["n"] == {"N": "2"}


def test_an_update_makes_changes_and_returns_an_item(store: Store) -> None:
    update: dict[str, Any] = {
        "TableName": "stored",
        "Key": {"k": {"S": "a"}},
        "UpdateExpression": "SET v = :v, n = if_not_exists(n, :zero) + :one REMOVE i",
        "ExpressionAttributeValues": {":v": {"B": "QUJD"}, ":zero": {"N": "0"}, ":one": {"N": "1"}},
        "ReturnValues": "ALL_NEW",
    }

    assert perform(store, "UpdateItem", **update) == {"Attributes": {**row("a", b"ABC"), "n": {"N": "1"}}}
    assert perform(store, "UpdateItem", **update)["Attributes"]["n"] == {"N": "2"}
    assert store.write_units == 2


def test_a_conditional_delete_keeps_what_is_not_as_expected(store: Store) -> None:
    perform(store, "PutItem", TableName="stored", Item={**row("a"), "ttl": {"N": "10"}})
    delete: dict[str, Any] = {
        "TableName": "stored",
        "Key": {"k": {"S": "a"}},
        "ConditionExpression": "#t < :now",
        "ExpressionAttributeNames": {"#t": "ttl"},
    }

    text = refusal(store, "DeleteItem", **delete, ExpressionAttributeValues={":now": {"N": "10"}})

    assert text == "ConditionalCheckFailedException: The conditional request failed"
    perform(store, "DeleteItem", **delete, ExpressionAttributeValues={":now": {"N": "11"}})
    assert perform(store, "GetItem", TableName="stored", Key={"k": {"S": "a"}}) == {}


def scanned(store: Store, **request: Any) -> tuple[list[str], int]:
    names: list[str] = []
    pages = 0
    start: dict[str, Any] = {}
    while True:
        page = perform(store, "Scan", TableName="stored", **request, **start)
        names += [item["k"]["S"] for item in page["Items"]]
        pages += 1
        if "LastEvaluatedKey" not in page:
            return names, pages
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


def test_a_scan_gives_every_item_once_page_by_page_and_in_segments(store: Store) -> None:
    names = [f"key{number}" for number in range(100)]
    for name in names:
        perform(store, "PutItem", TableName="stored", Item=row(name))

    assert sorted(scanned(store)[0]) == sorted(names)
    paged, pages = scanned(store, Limit=7, ProjectionExpression="k")
    assert (sorted(paged), pages) == (sorted(names), 15)
    parts = [scanned(store, Limit=10, Segment=segment, TotalSegments=4)[0] for segment in range(4)]
    assert all(len(part) > 5 for part in parts)
    assert sorted(name for part in parts for name in part) == sorted(names)


def test_a_scan_page_ends_at_a_megabyte(store: Store) -> None:
    for number in range(5):
        perform(store, "PutItem", TableName="stored", Item=row(f"key{number}", bytes(390 * 1024)))

    names, pages = scanned(store)

    assert (len(names), pages) == (5, 2)


def test_a_scan_finds_what_stays_while_others_come_and_go(store: Store) -> None:
    for number in range(40):
        perform(store, "PutItem", TableName="stored", Item=row(f"key{number}"))
    page = perform(store, "Scan", TableName="stored", Limit=20)
    for item in page["Items"]:
        perform(store, "DeleteItem", TableName="stored", Key={"k": item["k"]})
    for number in range(40):
        perform(store, "PutItem", TableName="stored", Item=row(f"new{number}"))

    rest = perform(store, "Scan", TableName="stored", ExclusiveStartKey=page["LastEvaluatedKey"])

    first = {item["k"]["S"] for item in page["Items"]}
    later = {item["k"]["S"] for item in rest["Items"] if item["k"]["S"].startswith("key")}
    assert first | later == {f"key{number}" for number in range(40)}


def test_a_table_has_a_time_to_live_once_it_was_given_one(store: Store) -> None:
    wanted = {"AttributeName": "ttl", "Enabled": True}

    told = perform(store, "DescribeTimeToLive", TableName="stored")
    assert told == {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
    perform(store, "UpdateTimeToLive", TableName="stored", TimeToLiveSpecification=wanted)
    told = perform(store, "DescribeTimeToLive", TableName="stored")
    assert told == {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}}
    assert "already enabled" in refusal(
        store, "UpdateTimeToLive", TableName="stored", TimeToLiveSpecification=wanted
    )
