"""A view as a service reads it: selection, name and key map chain in any order."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve import Attribute, Entity, FeatureView, FeatureViewReference, Field, FileSource, Int64, String
from tests.sdk.authoring import fault_of

PAIR = Entity("pair", [Field("a", String), Field("b", Int64)])
NUMBERS = [Attribute(name, Int64) for name in ("x", "y", "z")]
VIEW = FeatureView("view", PAIR, FileSource("f", "f.csv"), NUMBERS)


def parts(reference: FeatureViewReference) -> tuple[object, ...]:
    return (reference.view, reference.name, reference.features, dict(reference.join_key_map))


def test_a_reference_to_a_whole_view() -> None:
    assert parts(FeatureViewReference(VIEW)) == (VIEW, "view", ("x", "y", "z"), {"a": "a", "b": "b"})


def test_selection_name_and_key_map_chain_in_any_order() -> None:
    steps = {
        "select": lambda r: r[["z", "x"]],
        "name": lambda r: r.with_name("n"),
        "keys": lambda r: r.with_join_key_map({"a": "left"}),
    }
    for order in permutations(steps):
        reference = VIEW
        for step in order:
            reference = steps[step](reference)
        assert parts(reference) == (VIEW, "n", ("z", "x"), {"a": "left", "b": "b"})  # type: ignore[arg-type]


def test_each_step_gives_a_new_reference_and_leaves_the_old_one() -> None:
    first = VIEW.with_name("n")
    first[["x"]].with_name("m").with_join_key_map({"a": "c"})
    assert parts(first) == (VIEW, "n", ("x", "y", "z"), {"a": "a", "b": "b"})
    with pytest.raises(AttributeError, match="can't be changed"):
        first.name = "other"
    with pytest.raises(TypeError):
        first.join_key_map["a"] = "c"  # type: ignore[index]


def test_later_key_maps_leave_the_keys_they_do_not_name() -> None:
    reference = VIEW.with_join_key_map({"a": "left"}).with_join_key_map({"b": "right"})
    assert dict(reference.join_key_map) == {"a": "left", "b": "right"}
    assert reference.request_keys == (Field("left", String), Field("right", Int64))


def test_two_keys_may_change_places() -> None:
    assert dict(VIEW.with_join_key_map({"a": "b", "b": "a"}).join_key_map) == {"a": "b", "b": "a"}


def test_a_second_selection_narrows_the_first() -> None:
    assert VIEW[["x", "y"]][("y",)].features == ("y",)


@given(st.permutations(["x", "y", "z"]), st.integers(1, 3))
def test_a_selection_keeps_the_authors_order(order: list[str], count: int) -> None:
    assert VIEW[order[:count]].features == tuple(order[:count])


IDENTIFIER = "letters, digits and _, no digit first, at most 120 characters"
LIST = 'a list of feature names, as in view[["a", "b"]]'
MAP = 'a dict such as {"user_id": "user_a"}'


@pytest.mark.parametrize(
    "expression,message",
    [
        ('VIEW[["x", "w"]]', "selected feature (expected one of x, y, z, got 'w')"),
        ('VIEW[["x"]][["y"]]', "selected feature (expected one of x, got 'y')"),
        ('VIEW[["x", "x"]]', "selected feature (expected each feature once, got 'x')"),
        ("VIEW[[5]]", "selected feature (expected one of x, y, z, got 5)"),
        ("VIEW[[[]]]", "selected feature (expected one of x, y, z, got [])"),
        ('VIEW["x"]', f"selection (expected {LIST}, got 'x')"),
        ("VIEW[[]]", f"selection (expected {LIST}, got [])"),
        ('VIEW.with_name("a b")', f"with_name (expected {IDENTIFIER}, got 'a b')"),
        ("VIEW.with_name(None)", f"with_name (expected {IDENTIFIER}, got None)"),
        ("VIEW.with_join_key_map(None)", f"join key map (expected {MAP}, got None)"),
        ("VIEW[None]", f"selection (expected {LIST}, got None)"),
        ("VIEW.with_name(5)", f"with_name (expected {IDENTIFIER}, got 5)"),
        (
            'VIEW.with_join_key_map({"c": "d"})',
            "join key map (expected join keys of the view: a, b, got 'c')",
        ),
        (
            'VIEW.with_join_key_map({"a": "b"})',
            "join key map (expected a different request key for each join key, got {'a': 'b', 'b': 'b'})",
        ),
        ('VIEW.with_join_key_map({"a": "x y"})', f"join key map of 'a' (expected {IDENTIFIER}, got 'x y')"),
        ('VIEW.with_join_key_map({"a": None})', f"join key map of 'a' (expected {IDENTIFIER}, got None)"),
        ("VIEW.with_join_key_map({})", f"join key map (expected {MAP}, got {{}})"),
        ('VIEW.with_join_key_map("a")', f"join key map (expected {MAP}, got 'a')"),
    ],
)
def test_a_wrong_reference_says_what_was_expected_and_what_came(expression: str, message: str) -> None:
    assert fault_of(expression, VIEW=VIEW) == f"view 'view': {message}"
