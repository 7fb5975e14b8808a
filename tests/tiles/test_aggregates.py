"""Aggregates as components: what is stored once, and what a schema is made of."""

from __future__ import annotations

import pytest

from fastserve.sdk.types import DataType, Float32, Float64, Int64, String, Timestamp
from fastserve.tiles.aggregates import Op, components_of, make_schema
from fastserve.tiles.layout import HEADER_BYTES, WORD_BYTES
from fastserve.tiles.windows import DAY_NS, HOUR_NS, Window
from tests.differential.tiling import spec

DAY = Window(DAY_NS, HOUR_NS, HOUR_NS, 2 * DAY_NS)
WEEK = Window(7 * DAY_NS, HOUR_NS, HOUR_NS, 2 * DAY_NS)


@pytest.mark.parametrize(
    "function, dtype, expected",
    [
        ("count", String, (Op.COUNT, None)),
        ("sum", Int64, (Op.ADD_I, Op.COUNT)),
        ("sum", Float32, (Op.ADD_F, None)),
        ("mean", Int64, (Op.ADD_I, Op.COUNT)),
        ("mean", Float64, (Op.ADD_F, Op.COUNT)),
        ("min", Float64, (Op.MIN_F, None)),
        ("min", Timestamp, (Op.MIN_I, Op.COUNT)),
        ("max", Float32, (Op.MAX_F, None)),
        ("max", Int64, (Op.MAX_I, Op.COUNT)),
    ],
)
def test_a_function_is_made_of_one_or_two_components(
    function: str, dtype: DataType, expected: tuple[Op, Op | None]
) -> None:
    assert components_of(function, dtype) == expected


def test_features_share_equal_components() -> None:
    functions = ("mean", "sum", "count", "max")
    schema = make_schema([spec("amount", function, DAY) for function in functions], 2 * DAY_NS)
    assert [component.op for component in schema.components] == [Op.ADD_F, Op.COUNT, Op.MAX_F]
    assert [(feature.value, feature.count) for feature in schema.features] == [
        (0, 1),
        (0, None),
        (1, None),
        (2, None),
    ]


def test_other_windows_and_columns_are_other_components() -> None:
    specs = [spec("amount", "sum", DAY), spec("amount", "sum", WEEK), spec("units", "count", DAY)]
    schema = make_schema([*specs, spec("kind", "count", DAY)], 2 * DAY_NS)
    assert len(schema.components) == 4


def test_components_stand_side_by_side_a_word_for_each_slot() -> None:
    schema = make_schema([spec("amount", "mean", WEEK), spec("units", "max", DAY)], 2 * DAY_NS)
    word = HEADER_BYTES // WORD_BYTES
    for component in schema.components:
        assert component.word == word
        word += component.window.slots
    assert len(schema.layout.columns) == word - HEADER_BYTES // WORD_BYTES


def test_a_schema_depends_on_the_definition_alone() -> None:
    specs = [spec("amount", "sum", DAY), spec("units", "mean", WEEK)]
    assert make_schema(specs, 2 * DAY_NS).layout == make_schema(specs, 2 * DAY_NS).layout
    ids = {
        make_schema([spec("amount", f, w)], 2 * DAY_NS).layout.schema_id
        for f in ("sum", "min")
        for w in (DAY, WEEK)
    }
    assert len(ids) == 4
