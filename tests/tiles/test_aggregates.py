"""Aggregates as components: what is stored once, and what a schema is made of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fastserve.sdk.types import Array, Bool, DataType, Float32, Float64, Int64, String, Timestamp
from fastserve.tiles.aggregates import AggregateSpec, Op, components_of, make_schema
from fastserve.tiles.layout import HEADER_BYTES, NULL_FLOAT64_BITS, WORD_BYTES
from fastserve.tiles.windows import DAY_NS, HOUR_NS, LIFETIME_NS, Window
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
        ("var_pop", Int64, (Op.MOMENTS, None)),
        ("stddev_samp", Float32, (Op.MOMENTS, None)),
        ("last", Float32, (Op.LAST_F, None)),
        ("last", Bool, (Op.LAST_I, None)),
        ("first", Float64, (Op.FIRST_F, None)),
        ("first", Timestamp, (Op.FIRST_I, None)),
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


PAST = Window(WEEK.window_ns, HOUR_NS, HOUR_NS, 2 * DAY_NS, -DAY_NS)
LIFETIME = Window(LIFETIME_NS, HOUR_NS, HOUR_NS, 2 * DAY_NS)


def ids_of(*specs: AggregateSpec) -> str:
    return f"{make_schema(specs, 2 * DAY_NS).layout.schema_id:08x}"


def test_what_a_definition_was_stored_as_it_is_stored_as_for_ever() -> None:
    plain = [spec(column, f, w) for column, f in PLAIN for w in (DAY, WEEK)]
    assert ids_of(*plain) == "fb08b5a6"
    assert ids_of(spec("amount", "var_pop", WEEK), spec("amount", "last", DAY)) == "30f13bc5"
    assert ids_of(spec("units", "first", PAST), spec("units", "sum", LIFETIME)) == "46a9a5a1"
    wide = replace(spec("kind", "last", DAY), params=(("n", 3),))
    assert ids_of(wide, replace(wide, secondary_key="by", key_type=Int64)) == "05b10749"


PLAIN = [(c, f) for c in ("amount", "units") for f in ("sum", "count", "mean", "min", "max")] + [
    ("kind", "count")
]


def test_the_words_of_a_slot_stand_part_by_part() -> None:
    schema = make_schema([spec("amount", "var_pop", DAY), spec("units", "last", PAST)], 2 * DAY_NS)
    moments, last = schema.components
    assert (moments.words, last.words) == (3 * DAY.slots, 2 * PAST.slots)
    assert last.word == moments.word + moments.words
    names = [column.name for column in schema.layout.columns]
    assert names[DAY.slots] == f"amount:moments.mean:{DAY.text}:0"
    assert names[-1] == f"units:ilast.value:{PAST.text}:head{PAST.heads - 1}"
    assert moments.neutral_bits == [0] * 24 + [NULL_FLOAT64_BITS] * 24 + [0] * 24


def test_deviations_and_variances_share_their_moments() -> None:
    functions = ("var_pop", "var_samp", "stddev_pop", "stddev_samp")
    schema = make_schema([spec("amount", function, DAY) for function in functions], 2 * DAY_NS)
    assert len(schema.components) == 1
    assert {feature.value for feature in schema.features} == {0}


def test_a_series_is_features_of_its_windows_which_are_shared() -> None:
    days = tuple(Window(DAY_NS, HOUR_NS, HOUR_NS, 2 * DAY_NS, -n * DAY_NS) for n in (2, 1, 0))
    series = replace(spec("units", "sum", days[0]), output_type=Array(Int64), series=days)
    schema = make_schema([series, spec("units", "sum", DAY)], 2 * DAY_NS)
    whole, single = schema.features
    assert (whole.value, whole.wide, single.elements) == (None, None, ())
    assert [element.spec.window for element in whole.elements] == list(days)
    assert (whole.elements[2].value, whole.elements[2].count) == (single.value, single.count)
    assert len(schema.components) == 2 * len(days)


def test_what_does_not_fit_into_words_is_bytes() -> None:
    kind = spec("kind", "last", DAY)
    wide = [
        kind,
        replace(kind, function="max"),
        replace(spec("amount", "last", DAY), params=(("n", 2),)),
        replace(spec("amount", "sum", DAY), secondary_key="kind", key_type=String),
        *(
            replace(
                spec("amount", "sum", DAY), function="approx_percentile", params=(("percentile", p), *rest)
            )
            for p in (0.5, 0.9)
            for rest in [(("precision", 100),)]
        ),
    ]
    schema = make_schema([spec("amount", "sum", DAY), *wide], 2 * DAY_NS)
    assert [feature.value for feature in schema.features] == [0, None, None, None, None, None, None]
    assert [feature.wide for feature in schema.features] == [None, 0, 1, 2, 3, 4, 4]
    assert schema.wide[4].params == (("precision", 100),)
    assert [len(part.columns) for part in schema.wide] == [DAY.slots] * 5
    assert list(schema.layout.bytes_columns) == [column for part in schema.wide for column in part.columns]
    assert schema.layout.json_columns == ()
