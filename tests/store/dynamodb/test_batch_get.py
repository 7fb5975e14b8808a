"""What a BatchGetItem asks for, table by table."""

from __future__ import annotations

import orjson

from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.dynamodb.batch_get import BatchGetCodec
from fastserve.store.dynamodb.rest import Rest


def test_of_blocks_only_key_and_row_are_asked_for() -> None:
    mixed = ReadGroup(0, ("a", "a.stream", "b"))
    blocks = ReadGroup(1, ("b.stream",))
    items = ReadGroup(2, ("c.stream",), (("id", "S"),), own_items=False)
    reads = [
        KeyRead(mixed, "k1", 0.0),
        KeyRead(blocks, "k1\\t7", 0.0),
        KeyRead(items, '{"id":{"S":"x"}}', 0.0),
    ]
    for consistent in (False, True):
        asked = orjson.loads(BatchGetCodec(consistent=consistent).body(reads))["RequestItems"]
        projected = {table for table, entry in asked.items() if entry.get("ProjectionExpression") == "k,v"}
        assert projected == {"a.stream", "b.stream"}
        assert [entry.get("ConsistentRead", False) for entry in asked.values()] == [consistent] * 5
        assert asked["b.stream"]["Keys"] == [{"k": {"S": "k1\\t7"}}]


def test_tables_that_are_pushed_to_are_read_consistently_also_when_asked_again() -> None:
    pushed = KeyRead(ReadGroup(0, ("a", "a.stream"), pushed=True), "k1", 0.0)
    other = KeyRead(ReadGroup(1, ("b",)), "k1", 0.0)
    asked = orjson.loads(BatchGetCodec().body([pushed, other]))["RequestItems"]
    assert {table: entry.get("ConsistentRead", False) for table, entry in asked.items()} == {
        "a": True,
        "a.stream": True,
        "b": False,
    }
    pushed.rows, other.rows = [None, None], [None]
    key = {"Keys": [{"k": {"S": "k1"}}]}
    rest = Rest({"a.stream": key, "b": key}, [pushed, other], consistent=False)
    again = orjson.loads(rest.body)["RequestItems"]
    assert again == {"a.stream": {**key, "ConsistentRead": True}, "b": key}


def test_what_is_asked_for_again_stays_projected() -> None:
    read = KeyRead(ReadGroup(0, ("a", "a.stream")), "k1", 0.0)
    codec = BatchGetCodec()
    entry = orjson.loads(codec.body([read]))["RequestItems"]["a.stream"]
    codec.fill(orjson.dumps({"Responses": {"a": []}, "UnprocessedKeys": {"a.stream": entry}}), [read])
    rest = Rest({"a.stream": entry}, [read], consistent=True)
    again = orjson.loads(rest.body)["RequestItems"]
    assert again == {"a.stream": {**entry, "ConsistentRead": True}}
