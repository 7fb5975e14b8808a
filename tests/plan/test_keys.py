from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.plan.keys import block_key, encode_key, item_key, key_json, split_block_key
from fastserve.plan.reads import KeyAttributes, ReadGroup
from fastserve.sdk.types import Bool, DataType, Int64, String, Timestamp

VALUES: dict[DataType, st.SearchStrategy[object]] = {
    String: st.text("a|\\0e tü", max_size=4),
    Int64: st.integers(-(2**63), 2**63 - 1),
    Bool: st.booleans(),
    Timestamp: st.integers(-(2**63), 2**63 - 1),
}
TYPES = st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=3)


def test_keys_stay_readable() -> None:
    assert encode_key([String], ["u1"]) == "u1"
    assert encode_key([String, Int64], ["u1", -7]) == "u1|-7"
    assert encode_key([Bool, Bool], [True, False]) == "true|false"
    assert encode_key([Timestamp], [1_388_404_800_000_000_000]) == "1388404800000000000"


def test_what_could_be_taken_for_something_else_is_escaped() -> None:
    assert encode_key([String], ["a|b\\c"]) == r"a\|b\\c"
    assert encode_key([String], [""]) == r"\e"
    assert encode_key([String, Int64, Bool, Timestamp], [None] * 4) == r"\0|\0|\0|\0"
    assert encode_key([String], [r"\0"]) == r"\\0"
    assert encode_key([String], [r"\e"]) == r"\\e"


@given(
    TYPES.flatmap(
        lambda types: st.tuples(
            st.just(types),
            *[st.lists(st.tuples(*[st.none() | VALUES[dtype] for dtype in types]), min_size=2, max_size=2)],
        )
    )
)
def test_two_entity_keys_have_one_text_only_if_they_are_equal(
    drawn: tuple[list[DataType], list[tuple[object, ...]]],
) -> None:
    types, (one, other) = drawn
    assert (encode_key(types, one) == encode_key(types, other)) == (one == other)


@given(st.lists(st.none() | VALUES[String], min_size=1, max_size=3))
def test_no_text_is_empty_or_holds_a_backslash_before_anything_that_is_ours(values: list[str | None]) -> None:
    text = encode_key([String] * len(values), values)
    assert re.fullmatch(r"([^\\]|\\[\\|0e])+", text)


def test_the_key_of_a_packed_row_is_one_attribute() -> None:
    assert key_json(ReadGroup(0, ("t",)), 'a"|ü') == '{"k":{"S":"a\\"|ü"}}'.encode()


def test_the_key_of_an_ordinary_item_names_its_attributes() -> None:
    attributes: KeyAttributes = (("id", "N"), ("day", "S"))
    text = item_key(attributes, ["7", "monday"])
    group = ReadGroup(0, ("t",), attributes, own_items=False)
    assert json.loads(key_json(group, text)) == {"id": {"N": "7"}, "day": {"S": "monday"}}


@given(st.lists(st.none() | VALUES[String], min_size=1, max_size=3), st.integers(-(2**40), 2**40))
def test_the_key_of_a_block_is_no_entity_key_and_splits_into_both_parts(
    values: list[str | None], block: int
) -> None:
    text = encode_key([String] * len(values), values)
    key = block_key(text, block)
    assert split_block_key(key) == (text, block)
    assert not re.fullmatch(r"([^\\]|\\[\\|0e])+", key)


@pytest.mark.parametrize("key", ["u1", "u1\\tx", "\\t", ""])
def test_what_is_no_block_key_is_not_split(key: str) -> None:
    with pytest.raises(ValueError, match=r"expected a block's key|invalid literal"):
        split_block_key(key)
