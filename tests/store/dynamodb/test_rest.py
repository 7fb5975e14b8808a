"""What is left of a batch: exactly the keys left out, and the rows that had come stay."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from fastserve.errors import StoreError
from fastserve.plan.keys import item_key
from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.dynamodb.rest import Rest, key_identity

PAIR = ReadGroup(0, ("a", "b"))
COMPOSITE = (("user", "S"), ("n", "N"))
ITEMS = ReadGroup(1, ("items",), COMPOSITE, own_items=False)


def text_key(key: str) -> dict[str, Any]:
    return {"k": {"S": key}}


def test_only_reads_with_a_key_left_out_remain_and_keep_their_rows() -> None:
    reads = [KeyRead(PAIR, key, 0.0) for key in ("x", "y", "z")]
    for read in reads:
        read.rows = ["a" + read.key, None]
    rest = Rest({"b": {"Keys": [text_key("z"), text_key("x")]}}, reads, consistent=False)
    assert set(map(id, rest.reads)) == {id(reads[0]), id(reads[2])}
    assert rest.keys == 2
    assert orjson.loads(rest.body) == {"RequestItems": {"b": {"Keys": [text_key("z"), text_key("x")]}}}
    for read in rest.reads:
        read.rows = [None, "b" + read.key]
    rest.merge()
    assert [read.rows for read in rest.reads] == [["az", "bz"], ["ax", "bx"]]


def test_a_consistent_call_stays_consistent() -> None:
    rest = Rest({"a": {"Keys": [text_key("x")]}}, [KeyRead(PAIR, "x", 0.0)], consistent=True)
    assert orjson.loads(rest.body)["RequestItems"]["a"]["ConsistentRead"] is True


def test_composite_keys_are_matched_whatever_their_order_and_their_numbers_form() -> None:
    read = KeyRead(ITEMS, item_key(COMPOSITE, ("u", "10")), 0.0)
    rest = Rest({"items": {"Keys": [{"n": {"N": "1E+1"}, "user": {"S": "u"}}]}}, [read], consistent=False)
    assert rest.reads == [read]


@pytest.mark.parametrize(
    "unprocessed",
    [
        {"a": {"Keys": [text_key("nobody's")]}},
        {"c": {"Keys": [text_key("x")]}},
        {"a": {"Keys": [{"k": {"B": "eA=="}}]}},
        {"a": {"Keys": ["x"]}},
        {"a": {"Keys": [{"k": {"S": "x", "N": "1"}}]}},
        {"a": {}},
        {"a": None},
        {"a": {"Keys": 7}},
    ],
    ids=str,
)
def test_what_nobody_asked_for_makes_the_answer_invalid(unprocessed: dict[str, Any]) -> None:
    with pytest.raises(StoreError) as caught:
        Rest(unprocessed, [KeyRead(PAIR, "x", 0.0)], consistent=False)
    assert caught.value.retryable


def test_keys_are_equal_by_value() -> None:
    assert key_identity({"n": {"N": "1.0"}}) == key_identity({"n": {"N": "1"}})
    assert key_identity({"n": {"N": "1"}}) != key_identity({"n": {"S": "1"}})
    assert key_identity({"a": {"S": "1"}, "b": {"S": "2"}}) != key_identity(
        {"a": {"S": "2"}, "b": {"S": "1"}}
    )
