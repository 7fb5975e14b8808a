from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.errors import StoreError
from fastserve.plan.keys import item_key
from fastserve.store.interface import AttributeValue, Item, KeyAttribute
from fastserve.store.items import decode_item, encode_item, key_text

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(10**38) + 1, 10**38 - 1) | st.floats(-1e125, 1e125).filter(
    lambda value: value == 0 or abs(value) >= 1e-130
)
scalars = st.none() | st.booleans() | numbers | text | st.binary(max_size=20)
values: st.SearchStrategy[AttributeValue] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(text, values, max_size=5))
def test_an_item_comes_back_as_written(item: Item) -> None:
    assert decode_item(encode_item(item)) == item


def test_an_item_lies_as_dynamodb_would_answer() -> None:
    item: Item = {"a": 1, "b": 1.5, "c": "x", "d": True, "e": None, "f": b"abc", "g": [1], "h": {"i": "j"}}
    assert orjson.loads(encode_item(item)) == {
        "a": {"N": "1"},
        "b": {"N": "1.5"},
        "c": {"S": "x"},
        "d": {"BOOL": True},
        "e": {"NULL": True},
        "f": {"B": "YWJj"},
        "g": {"L": [{"N": "1"}]},
        "h": {"M": {"i": {"S": "j"}}},
    }


def test_an_item_lies_where_a_plan_looks_for_it() -> None:
    attributes = [KeyAttribute("user"), KeyAttribute("day", "N")]
    item: Item = {"day": 3.0, "user": 'a|"b', "other": 1}
    assert key_text(attributes, item) == item_key((("user", "S"), ("day", "N")), ['a|"b', "3"])
    assert key_text(attributes, {"day": 3, "user": 'a|"b'}) == key_text(attributes, item)
    assert key_text(attributes[1:], {"day": -1.5}) == item_key((("day", "N"),), ["-1.5"])


@pytest.mark.parametrize(
    "value,message",
    [
        (None, "key attribute user: expected text that isn't empty, got None"),
        ("", "key attribute user: expected text that isn't empty, got ''"),
        (5, "key attribute user: expected text that isn't empty, got 5"),
        ("\ud800", "attribute 'user': expected text without lone surrogates, got '\\ud800'"),
    ],
)
def test_a_key_attribute_of_another_type_is_named(value: AttributeValue, message: str) -> None:
    with pytest.raises(StoreError) as caught:
        key_text([KeyAttribute("user")], {"user": value})
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [None, "5", True, float("nan"), float("inf"), 10**40])
def test_a_number_as_key_is_a_number_that_dynamodb_can_hold(value: AttributeValue) -> None:
    with pytest.raises(StoreError, match="expected"):
        key_text([KeyAttribute("day", "N")], {"day": value})


def nested(depth: int) -> AttributeValue:
    return [nested(depth - 1)] if depth else 1


@pytest.mark.parametrize(
    "value", [float("nan"), -float("inf"), 10**38, 1e126, 1e-131, "\udfff", {"a": ["\ud800"]}, nested(33)]
)
def test_a_value_that_dynamodb_refuses_is_refused(value: AttributeValue) -> None:
    with pytest.raises(StoreError):
        encode_item({"a": value})


def test_nesting_as_deep_as_dynamodb_takes_it_is_taken() -> None:
    assert decode_item(encode_item({"a": nested(32)})) == {"a": nested(32)}


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"1", b'{"a":1}', b'{"a":{"X":1}}', b'{"a":{"N":"one"}}', b"\xff"]
)
def test_bytes_that_are_no_item_are_refused(data: bytes) -> None:
    with pytest.raises(StoreError, match="item: expected attributes with their types"):
        decode_item(data)
