"""Checked values are copied where they can be changed, and nothing is made for what can't."""

from __future__ import annotations

from typing import Any

import pytest

from fastserve import Array, Bool, DataType, Field, Float64, Int64, Map, String, Struct, Timestamp
from fastserve.sdk.values import copier, output_checker, value_checker

HOME = Struct([Field("street", String), Field("numbers", Array(Int64)), Field("tags", Map(String, Bool))])


@pytest.mark.parametrize("dtype", [Int64, Float64, String, Bool, Timestamp], ids=str)
def test_what_cannot_be_changed_needs_no_copy(dtype: DataType) -> None:
    assert copier(dtype) is None


@pytest.mark.parametrize(
    "dtype, value",
    [
        (Array(Int64), [1, None]),
        (Array(Array(String)), [["a"], None]),
        (Map(String, Float64), {"a": 1.0, "b": None}),
        (Map(String, Array(Int64)), {"a": [1], "b": None}),
        (HOME, {"street": "x", "numbers": [1], "tags": {"a": True}}),
        (HOME, {"street": None, "numbers": None, "tags": None}),
        (Array(HOME), [{"street": "x", "numbers": [1], "tags": {}}]),
    ],
    ids=["array", "arrays", "map", "map of arrays", "struct", "empty struct", "structs"],
)
def test_a_copy_is_equal_and_shares_nothing(dtype: DataType, value: Any) -> None:
    copy = copier(dtype)
    assert copy is not None
    copied = copy(value)
    assert copied == value
    assert copy(None) is None
    before = repr(value)
    spoil(copied)
    assert repr(value) == before


def spoil(value: Any) -> None:
    """Change everything in a value that can be changed."""
    for member in list(
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        spoil(member)
    if isinstance(value, (dict, list)):
        value.clear()


def test_nan_is_taken_where_it_may_come_from_a_request_or_a_row() -> None:
    nan = float("nan")
    taken = value_checker(Array(Float64), "x", nan=True)([nan])
    assert taken[0] != taken[0]
    with pytest.raises(ValueError, match="x, an element: expected float64 that is a number"):
        value_checker(Array(Float64), "x")([nan])


def test_a_subclass_is_taken_for_what_it_holds() -> None:
    class Name(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "other"

    class Number(int):
        pass

    checked = output_checker([Field("s", String), Field("i", Int64)])({"s": Name("ä"), "i": Number(3)})
    assert checked == ["ä", 3]
    assert [type(value) for value in checked] == [str, int]


def test_values_come_in_the_order_of_the_fields() -> None:
    check = output_checker([Field("b", Int64), Field("a", Int64)])
    assert check({"a": 1, "b": 2}) == [2, 1]
