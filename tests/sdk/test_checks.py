"""Faults are raised at once outside a load and collected inside; definitions can't be changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastserve import DefinitionError, Entity, Field, Float64, String
from fastserve.errors import Location
from fastserve.sdk.checks import Checks, author_location, collecting


def test_a_fault_carries_the_line_of_the_authors_call() -> None:
    line = author_location().line + 2
    with pytest.raises(DefinitionError) as caught:
        Entity("user", [Field("k", Float64)])
    assert caught.value.location == Location(__file__, line)
    assert str(caught.value) == f"{Path(__file__)}:{line}: {caught.value.message}"


def test_a_call_over_several_lines_has_the_line_on_which_it_begins() -> None:
    line = author_location().line + 2
    with pytest.raises(DefinitionError) as caught:
        Entity(
            "user",
            [],
        )
    assert caught.value.location == Location(__file__, line)


def test_while_collecting_a_fault_is_kept_and_the_definition_is_made_but_invalid() -> None:
    with collecting() as collector:
        bad = Entity("user", Field("k", Float64), description=5)  # type: ignore[arg-type]
        good = Entity("item", Field("k", String))
    assert [error.message for error in collector.errors] == [
        "Entity 'user': description (expected a str, got 5)",
        "Entity 'user': join key 'k' (expected String, Int64, Bool or Timestamp, got Float64)",
    ]
    assert collector.definitions == [bad, good]
    assert not bad.valid
    assert good.valid
    assert bad.name == "user"


def test_after_the_block_faults_are_raised_again() -> None:
    with pytest.raises(RuntimeError), collecting():
        raise RuntimeError
    with pytest.raises(DefinitionError):
        Entity("user", [])


def test_loads_inside_loads_are_told_apart() -> None:
    with collecting() as outer:
        with collecting() as inner:
            Entity("inner", Field("k", String))
        Entity("outer", Field("k", String))
    assert [definition.name for definition in inner.definitions] == ["inner"]
    assert [definition.name for definition in outer.definitions] == ["outer"]


def test_a_definition_cannot_be_changed() -> None:
    entity = Entity("user", Field("k", String), tags={"team": "risk"})
    with pytest.raises(
        AttributeError, match=r"Entity\('user'\) can't be changed once it's made: name was assigned"
    ):
        entity.name = "other"
    with pytest.raises(AttributeError, match="can't be changed"):
        del entity.name
    with pytest.raises(TypeError):
        entity.tags["team"] = "growth"  # type: ignore[index]


def test_what_the_author_passed_can_be_changed_without_effect() -> None:
    keys, tags = [Field("k", String)], {"team": "risk"}
    entity = Entity("user", keys, tags=tags)
    keys.clear()
    tags.clear()
    assert entity.join_keys == (Field("k", String),)
    assert entity.tags == {"team": "risk"}


def test_definitions_are_equal_only_to_themselves() -> None:
    one, other = Entity("user", Field("k", String)), Entity("user", Field("k", String))
    assert one != other
    assert len({one, other}) == 2


def test_a_message_echoes_at_most_64_characters_of_what_came() -> None:
    checks = Checks("Thing", "n" * 500)
    with pytest.raises(DefinitionError) as caught:
        checks.wrong("part", "x", ["y" * 500])
    assert len(caught.value.message) < 64 * 2 + 40
