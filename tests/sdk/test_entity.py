from __future__ import annotations

import pytest

from fastserve import Bool, Entity, Field, Int64, String, Timestamp
from tests.sdk.authoring import fault_of


def test_join_keys_may_be_one_field_or_several() -> None:
    assert Entity("user", Field("user_id", String)).join_keys == (Field("user_id", String),)
    keys = (Field("a", Int64), Field("b", Bool), Field("c", Timestamp))
    assert Entity("x", keys).join_keys == keys
    assert Entity("x", list(keys)).join_keys == keys


def test_an_entity_keeps_what_readers_are_told() -> None:
    entity = Entity("user:v2", Field("k", String), "who buys", {"team": "risk"}, "risk@shop")
    assert (entity.description, entity.tags, entity.owner) == ("who buys", {"team": "risk"}, "risk@shop")
    assert (Entity("u", Field("k", String)).tags, Entity("u", Field("k", String)).owner) == ({}, None)


NAME = "a letter, then letters, digits and _ . : -, at most 120 characters"
KEY = 'Field such as Field("user_id", String)'


@pytest.mark.parametrize(
    "expression,message",
    [
        ('Entity("1st", Field("k", String))', f"Entity '1st': name (expected {NAME}, got '1st')"),
        ('Entity(None, Field("k", String))', f"Entity: name (expected {NAME}, got None)"),
        ('Entity("u", [])', f"Entity 'u': join_keys (expected at least one {KEY}, got [])"),
        ('Entity("u", "user_id")', f"Entity 'u': join_keys (expected a list of {KEY}, got 'user_id')"),
        ('Entity("u", ["user_id"])', f"Entity 'u': join_keys[0] (expected {KEY}, got 'user_id')"),
        ('Entity("u", 5)', f"Entity 'u': join_keys (expected a list of {KEY}, got 5)"),
        (
            'Entity("u", [Field("k", String), Field("k", Int64)])',
            "Entity 'u': join_keys: 'k' stands there twice (expected different names)",
        ),
        (
            'Entity("u", Field("k", Float32))',
            "Entity 'u': join key 'k' (expected String, Int64, Bool or Timestamp, got Float32)",
        ),
        (
            'Entity("u", Field("k", Array(String)))',
            "Entity 'u': join key 'k' (expected String, Int64, Bool or Timestamp, got Array(String))",
        ),
        (
            'Entity("u", Field("k", String), tags={"a": 1})',
            "Entity 'u': tags (expected a dict of str to str, got {'a': 1})",
        ),
        (
            'Entity("u", Field("k", String), tags="risk")',
            "Entity 'u': tags (expected a dict of str to str, got 'risk')",
        ),
        (
            'Entity("u", Field("k", String), owner="")',
            "Entity 'u': owner (expected a str that isn't empty, or None, got '')",
        ),
        (
            'Entity("u", Field("k", String), description=None)',
            "Entity 'u': description (expected a str, got None)",
        ),
    ],
)
def test_a_wrong_entity_says_what_was_expected_and_what_came(expression: str, message: str) -> None:
    assert fault_of(expression) == message
