"""MessagePack against the JSON of the same columns, read by the format's own library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.api.encode_on_demand import VectorEncoder
from fastserve.api.pack import FEW_NULLS, FeaturesPacker, VectorPacker, packed_answer
from fastserve.api.unpack import answer_document
from fastserve.plan.service import ServicePlan
from fastserve.sdk.types import (
    Array,
    Bool,
    DataType,
    Field,
    Float32,
    Float64,
    Int64,
    Map,
    String,
    Struct,
    Timestamp,
)
from fastserve.serving.columns import Columns, Computed, no_columns
from fastserve.tiles.layout import NULL_INT64
from fastserve.wire.msgpack import array_head
from tests.api.test_encode import columns_of, plan_of, typed_lines
from tests.api.test_encode_on_demand import plan_of_two_views

PAIR = Struct([Field("x", Float32), Field("y", Timestamp)])


def packed(plan: ServicePlan, columns: Columns, line: int) -> list[Any]:
    """Pack a line and read it; turned back to JSON it must be what the encoder writes."""
    vector = VectorPacker(plan).pack(columns, line)
    answer = packed_answer([vector], b'{"n":1}', batch=False)
    text = VectorEncoder(plan).encode(columns, line)
    as_json = orjson.dumps(answer_document(answer), option=orjson.OPT_SERIALIZE_NUMPY)
    assert as_json == b'{"result":{"features":' + text + b'},"metadata":{"n":1}}'
    read = msgpack.unpackb(answer)
    assert read.keys() == {"result", "metadata"}
    features: list[Any] = read["result"]["features"]
    return features


def packed_values(dtypes: Sequence[DataType], values: Sequence[Any]) -> list[Any]:
    plan = plan_of(dtypes)
    return packed(plan, columns_of(plan, values), 0)


@settings(max_examples=150)
@given(typed_lines())
def test_packed_vectors_say_what_their_json_says(case: tuple[list[DataType], list[list[Any]]]) -> None:
    dtypes, lines = case
    plan = plan_of(dtypes)
    columns = columns_of(plan, *lines)
    for number, values in enumerate(lines):
        for dtype, value, got in zip(dtypes, values, packed(plan, columns, number), strict=True):
            if dtype in (Timestamp, String) or value is None:
                assert (got is None) is (value is None)
            else:
                assert type(got) is type(value)
                assert got == value


@settings(max_examples=100)
@given(typed_lines(), st.data())
def test_what_only_on_demand_views_take_is_not_packed(
    case: tuple[list[DataType], list[list[Any]]], data: st.DataObject
) -> None:
    dtypes, lines = case
    shown = sorted(data.draw(st.sets(st.integers(0, len(dtypes) - 1), min_size=1)))
    plan, whole = plan_of(dtypes, shown), plan_of(dtypes)
    columns, all_columns = columns_of(plan, *lines), columns_of(whole, *lines)
    for line in range(len(lines)):
        everything = packed(whole, all_columns, line)
        got = msgpack.unpackb(array_head(len(shown)) + FeaturesPacker(plan).pack(columns, line))
        assert got == [everything[number] for number in shown]


@pytest.mark.parametrize("nulls", [0, 1, 5, 99, 100])
def test_nulls_are_cut_out_however_many_there_are(nulls: int) -> None:
    values = [None if number < nulls else float(number) for number in range(100)]
    assert packed_values([Float64] * 100, values[::-1]) == values[::-1]
    assert 100 // FEW_NULLS in range(5, 99)


def test_int64_is_an_integer_to_the_last_digit_and_the_smallest_is_none_of_the_nulls() -> None:
    values: list[Any] = [0, -1, 2**53 + 1, 2**63 - 1, NULL_INT64, None]
    assert packed_values([Int64] * 6, values) == values
    dtypes = [Int64, Float64, Timestamp, Int64, Bool, Float32, String, Timestamp]
    values = [NULL_INT64, 1.5, 0, None, True, 0.5, b'"x"', NULL_INT64]
    expected = [
        NULL_INT64,
        1.5,
        "1970-01-01T00:00:00Z",
        None,
        True,
        0.5,
        "x",
        "1677-09-21T00:12:43.145224192Z",
    ]
    assert packed_values(dtypes, values) == expected


@pytest.mark.parametrize("dtype", [Float64, Float32])
def test_nan_and_infinities_are_floats_and_null_beside_them_is_nil(dtype: DataType) -> None:
    nan, *rest = packed_values([dtype] * 5, [math.nan, math.inf, -math.inf, None, 0.5])
    assert math.isnan(nan)
    assert rest == [math.inf, -math.inf, None, 0.5]


def test_stored_json_is_packed_by_its_type() -> None:
    dtypes = [Array(String), PAIR, Map(String, Array(Int64)), String, Array(Float64), Int64]
    time = "2026-01-02T03:04:05Z"
    texts = [
        b'["1",null]',
        orjson.dumps(["NaN", time]),
        b'{"a":["1",null],"b":null}',
        b'"\xc3\xa9\\n"',
        b'["-Infinity",1.0]',
    ]
    array, (x, y), counts, text, floats, number = packed_values(dtypes, [*texts, 7])
    assert array == ["1", None]
    assert math.isnan(x)
    assert y == time
    assert counts == {"a": [1, None], "b": None}
    assert text == "é\n"
    assert [type(value) for value in floats] == [float, float]
    assert floats == [-math.inf, 1.0]
    assert number == 7


def test_what_on_demand_views_gave_stands_before_what_was_read() -> None:
    plan = plan_of_two_views()
    columns = no_columns(2)
    columns.computed = Computed([[[2**60, "x", math.inf], []]], {}, {1: {0}}, 0.0)
    assert packed(plan, columns, 0) == [2**60, math.inf, 2**60, "x", math.inf]
    assert packed(plan, columns, 1) == [None] * 5


def test_a_batch_is_an_array_of_vectors_without_metadata_where_nobody_asked() -> None:
    plan = plan_of([Float32, Bool])
    columns = columns_of(plan, [0.1, False], [None, True])
    vectors = [VectorPacker(plan).pack(columns, line) for line in range(2)]
    assert msgpack.unpackb(packed_answer(vectors, b"", batch=True)) == {
        "result": [{"features": [float(np.float32(0.1)), False]}, {"features": [None, True]}]
    }
