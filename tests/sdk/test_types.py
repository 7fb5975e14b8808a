"""Types have value semantics, print for readers and the HTTP API, and say what an author meant."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve import (
    Array,
    Bool,
    DataType,
    DefinitionError,
    Field,
    Float32,
    Float64,
    Int64,
    Map,
    String,
    Struct,
    Timestamp,
)
from fastserve.sdk.types import SCALARS
from tests.sdk.authoring import fault_of

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


@st.composite
def fields(draw: st.DrawFn, inner: st.SearchStrategy[DataType]) -> list[Field]:
    chosen = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    return [Field(name, draw(inner)) for name in chosen]


def nested(inner: st.SearchStrategy[DataType]) -> st.SearchStrategy[DataType]:
    arrays, structs = inner.map(Array), fields(inner).map(Struct)
    return st.one_of(arrays, structs, inner.map(lambda dtype: Map(String, dtype)))


dtypes: st.SearchStrategy[DataType] = st.recursive(st.sampled_from(SCALARS), nested, max_leaves=6)


@given(dtypes, dtypes)
def test_types_are_equal_and_hash_alike_exactly_when_they_mean_the_same(
    one: DataType, other: DataType
) -> None:
    assert (
        (one == other)
        == (one.to_api() == other.to_api())
        == (repr(one) == repr(other))
        == (str(one) == str(other))
    )
    if one == other:
        assert hash(one) == hash(other)


@given(dtypes)
def test_a_repr_is_what_an_author_writes(dtype: DataType) -> None:
    import fastserve

    assert eval(repr(dtype), vars(fastserve)) == dtype


@given(dtypes)
def test_a_copied_or_unpickled_type_is_an_equal_one(dtype: DataType) -> None:
    assert pickle.loads(pickle.dumps(dtype)) == dtype
    assert copy.deepcopy(dtype) == dtype


def test_scalar_types_stay_single_objects_through_copies() -> None:
    for dtype in SCALARS:
        assert copy.deepcopy(dtype) is dtype
        assert pickle.loads(pickle.dumps(dtype)) is dtype


@pytest.mark.parametrize(
    "dtype,text,api",
    [
        (Int64, "int64", {"type": "int64"}),
        (Float64, "float64", {"type": "float64"}),
        (Float32, "float32", {"type": "float32"}),
        (String, "string", {"type": "string"}),
        (Bool, "boolean", {"type": "boolean"}),
        (Timestamp, "timestamp", {"type": "timestamp"}),
        (Array(Int64), "array<int64>", {"type": "array", "elementType": {"type": "int64"}}),
        (
            Struct([Field("a", Int64), Field("b", Array(String))]),
            "struct<a: int64, b: array<string>>",
            {
                "type": "struct",
                "fields": [
                    {"name": "a", "dataType": {"type": "int64"}},
                    {"name": "b", "dataType": {"type": "array", "elementType": {"type": "string"}}},
                ],
            },
        ),
        (
            Map(String, Float64),
            "map<string, float64>",
            {"type": "map", "keyType": {"type": "string"}, "valueType": {"type": "float64"}},
        ),
    ],
)
def test_a_type_prints_for_readers_and_for_the_api(
    dtype: DataType, text: str, api: dict[str, object]
) -> None:
    assert str(dtype) == text
    assert dtype.to_api() == api


def test_a_scalar_is_not_equal_to_its_name() -> None:
    assert Int64 != "int64"
    assert Array(Int64) != Array(Float64)
    assert Struct([Field("a", Int64)]) != Struct([Field("b", Int64)])


def test_types_and_fields_cannot_be_changed() -> None:
    for thing, attribute in ((Int64, "name"), (Array(Int64), "element"), (Field("a", Int64), "dtype")):
        with pytest.raises(AttributeError, match="can't be changed"):
            setattr(thing, attribute, String)
        with pytest.raises(AttributeError, match="can't be changed"):
            delattr(thing, attribute)


def test_fields_are_values() -> None:
    assert Field("a", Int64) == Field("a", Int64)
    assert len({Field("a", Int64), Field("a", Int64), Field("a", String), Field("b", Int64)}) == 3
    assert repr(Field("a", Array(Int64))) == "Field('a', Array(Int64))"


NAME = "letters, digits and _, no digit first, at most 120 characters"
EXPECTED = "a data type such as Int64, String or Array(Int64)"


@pytest.mark.parametrize(
    "expression,message",
    [
        (
            'Field("a", "int64")',
            f"Field 'a': dtype (expected {EXPECTED}; did you mean Int64?, got 'int64')",
        ),
        (
            'Field("a", "Boolean")',
            f"Field 'a': dtype (expected {EXPECTED}; did you mean Bool?, got 'Boolean')",
        ),
        ('Field("a", "money")', f"Field 'a': dtype (expected {EXPECTED}, got 'money')"),
        (
            'Field("a", int)',
            f"Field 'a': dtype (expected {EXPECTED}; did you mean Int64?, got the class int)",
        ),
        ('Field("a", dict)', f"Field 'a': dtype (expected {EXPECTED}, got the class dict)"),
        (
            'Field("a", Array)',
            f"Field 'a': dtype (expected {EXPECTED}; did you mean Array(Int64)?, got the class Array)",
        ),
        ('Field("a", None)', f"Field 'a': dtype (expected {EXPECTED}, got None)"),
        (
            "Array(str)",
            f"Array: element (expected {EXPECTED}; did you mean String?, got the class str)",
        ),
        ("Map(Int64, String)", "Map: key (expected String, for keys are JSON object keys, got Int64)"),
        ("Map(String, 5)", f"Map: value (expected {EXPECTED}, got 5)"),
        ("Struct([])", "Struct: fields (expected at least one Field, got [])"),
        ('Struct({"a": Int64})', "Struct: fields (expected a list of Field, got {'a': Int64})"),
        ('Struct([("a", Int64)])', "Struct: fields[0] (expected Field, got ('a', Int64))"),
        (
            'Struct([Field("a", Int64), Field("a", String)])',
            "Struct: fields: 'a' stands there twice (expected different names)",
        ),
        (
            'Field("no spaces", Int64)',
            f"Field 'no spaces': name (expected {NAME}, got 'no spaces')",
        ),
        (
            'Field("", Int64)',
            f"Field '': name (expected {NAME}, got '')",
        ),
        (
            'Field("ä", Int64)',
            f"Field 'ä': name (expected {NAME}, got 'ä')",
        ),
        (
            'Field("a\\n", Int64)',
            f"Field 'a\\n': name (expected {NAME}, got 'a\\n')",
        ),
        (
            "Field(5, Int64)",
            f"Field 5: name (expected {NAME}, got 5)",
        ),
    ],
)
def test_a_wrong_type_says_what_was_expected_and_what_came(expression: str, message: str) -> None:
    assert fault_of(expression) == message


def test_a_long_name_is_refused_without_being_echoed() -> None:
    with pytest.raises(DefinitionError) as caught:
        Field("x" * 1_000_000, Int64)
    assert len(caught.value.message) < 300
