from __future__ import annotations

import json

import pytest

from fastserve.cli.request_context import typed_values
from fastserve.errors import DefinitionError


@pytest.mark.parametrize(
    "kind, text, value",
    [
        ("int64", "9007199254740993", "9007199254740993"),
        ("float64", "120", 120.0),
        ("float32", "-1.5e2", -150.0),
        ("float64", "NaN", "NaN"),
        ("float64", "-Infinity", "-Infinity"),
        ("float64", "1e999", "1e999"),
        ("float64", "much", "much"),
        ("boolean", "true", True),
        ("boolean", "false", False),
        ("boolean", "yes", "yes"),
        ("string", "null", "null"),
        ("string", "1", "1"),
        ("timestamp", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("array", "[1, NaN, null]", [1, "NaN", None]),
        ("struct", '{"a": 1.5}', {"a": 1.5}),
        ("map", '{"ü": "x"}', {"ü": "x"}),
        ("a_later_type", "x", "x"),
    ],
)
def test_text_becomes_what_the_api_takes_for_its_type(kind: str, text: str, value: object) -> None:
    typed = typed_values({"f": text}, {"f": kind})
    assert typed == {"f": value}
    assert type(typed["f"]) is type(value)
    json.dumps(typed, allow_nan=False)


@pytest.mark.parametrize("kind", ["int64", "float64", "boolean", "timestamp", "array", "struct", "map"])
def test_null_is_null_for_all_but_strings(kind: str) -> None:
    assert typed_values({"f": "null"}, {"f": kind}) == {"f": None}


def test_a_field_that_the_server_does_not_know_stays_text() -> None:
    assert typed_values({"f": "null"}, {}) == {"f": "null"}


@pytest.mark.parametrize("text", ["1,2", "[", "[1e999]", r'["\ud800"]', "[" * 100_000])
def test_what_is_no_json_is_refused_for_nested_types(text: str) -> None:
    with pytest.raises(DefinitionError, match="request context 'f': expected an array in JSON, got "):
        typed_values({"f": text}, {"f": "array"})
