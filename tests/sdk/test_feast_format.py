"""`FeastFormat` and `ExternalSource`: what an author may say of tables that somebody else writes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fastserve import (
    Attribute,
    AttributesFormat,
    Bool,
    DefinitionError,
    Entity,
    ExternalSource,
    FeastFormat,
    FeatureView,
    Field,
    FileSource,
    Int64,
    String,
)

USER = Entity("user", Field("user_id", Int64))
FEAST = ExternalSource("feast")


def view(**changed: Any) -> FeatureView:
    parameters: dict[str, Any] = {
        "name": "v",
        "entities": USER,
        "source": FEAST,
        "features": [Attribute("a", Int64)],
        "table": "p.v",
        "row_format": FeastFormat(),
    }
    return FeatureView(**parameters | changed)


def test_a_view_of_feasts_rows_has_no_files_and_nothing_pushed() -> None:
    made = view(ttl=timedelta(days=1))

    assert made.is_external
    assert made.batch_source is None
    assert not made.is_streamed


def test_ordinary_items_may_be_somebody_elses_too() -> None:
    assert view(row_format=AttributesFormat("pk")).is_external


def test_formats_that_say_the_same_are_equal() -> None:
    assert FeastFormat("x", 2, {"k": "INT32"}) == FeastFormat("x", 2, {"k": "INT32"})
    assert hash(FeastFormat("x", 2)) == hash(FeastFormat("x", 2))
    assert FeastFormat() != FeastFormat(names={"a": "b"})
    assert FeastFormat() != AttributesFormat()


@pytest.mark.parametrize(
    "parameters,message",
    [
        ({"key_version": 4}, "key_version (expected 1, 2 or 3, got 4)"),
        ({"key_version": True}, "key_version (expected 1, 2 or 3, got True)"),
        ({"key_types": {"k": "FLOAT"}}, "key_types['k'] (expected"),
        ({"key_types": [1]}, "key_types (expected a dict of str to str, got [1])"),
        ({"names": {"a": ""}}, "names (expected a dict of str to str, got {'a': ''})"),
        ({"view": ""}, "view (expected a str that isn't empty, or None, got '')"),
    ],
)
def test_a_wrong_format_says_what_was_expected(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        FeastFormat(**parameters)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    "changed,message",
    [
        (
            {"source": FileSource("f", "f.parquet")},
            "source (expected an ExternalSource, as Feast writes the rows, got FileSource('f'))",
        ),
        ({"table": None}, "table (expected the name of Feast's table: <project>.<view>, got None)"),
        (
            {"row_format": "packed"},
            "row_format (expected an AttributesFormat or a FeastFormat, as packed rows are written by",
        ),
        (
            {"transformation": "SELECT * FROM {source}"},
            "transformation (expected none, as rows are there already",
        ),
        (
            {"batch_schedule": timedelta(days=1)},
            "batch_schedule (expected none, as somebody else writes the rows",
        ),
        (
            {"row_format": FeastFormat(key_types={"other": "INT32"})},
            "key_types['other'] (expected a join key: user_id, got 'other')",
        ),
        (
            {"row_format": FeastFormat(key_types={"user_id": "BYTES"})},
            "key_types['user_id'] (expected INT64 or INT32, got 'BYTES')",
        ),
        (
            {"entities": Entity("flag", Field("is_it", Bool))},
            "join key 'is_it' (expected String, Int64 or Timestamp, got Bool)",
        ),
        ({"row_format": FeastFormat(names={"b": "x"})}, "names (expected names of features, got 'b')"),
    ],
)
def test_a_view_that_does_not_fit_says_what_was_expected(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        view(**changed)

    assert message in str(caught.value)


def test_types_and_names_are_feasts_where_they_differ() -> None:
    layout = FeastFormat(key_types={"a": "INT32"}, names={"b": "b b"})

    assert [layout.key_type(name, Int64) for name in ("a", "c")] == ["INT32", "INT64"]
    assert layout.key_type("c", String) == "STRING"
    assert [layout.name(name) for name in ("b", "c")] == ["b b", "c"]
