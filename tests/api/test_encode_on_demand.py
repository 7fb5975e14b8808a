from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve import (
    Array,
    Attribute,
    Bool,
    Field,
    Float32,
    Float64,
    Int64,
    Map,
    RequestSource,
    String,
    Struct,
    Timestamp,
    on_demand_feature_view,
)
from fastserve.api.context import value_reader
from fastserve.api.encode_on_demand import VectorEncoder, converter
from fastserve.errors import InvariantError, RequestError
from fastserve.sdk.types import DataType
from fastserve.serving.columns import Computed, no_columns
from tests.support.plans import workspace_plan


def written(dtype: DataType, value: Any) -> Any:
    convert = converter(dtype)
    return orjson.loads(
        orjson.dumps(
            value if convert is None or value is None else convert(value), option=orjson.OPT_SERIALIZE_NUMPY
        )
    )


@pytest.mark.parametrize(
    "dtype, value, expected",
    [
        (Int64, 2**63 - 1, "9223372036854775807"),
        (Float64, 0.1, 0.1),
        (Float64, math.inf, "Infinity"),
        (Float64, -math.inf, "-Infinity"),
        (Float64, math.nan, "NaN"),
        (Float32, 0.10000000149011612, 0.1),
        (Float32, -math.inf, "-Infinity"),
        (String, "é\n", "é\n"),
        (Bool, True, True),
        (Timestamp, datetime(2026, 1, 2, 3, 4, 5, 600_000, UTC), "2026-01-02T03:04:05.600Z"),
        (Array(Int64), [1, None], ["1", None]),
        (Array(String), ["a", None], ["a", None]),
        (Struct([Field("b", Int64), Field("a", String)]), {"b": 1, "a": None}, ["1", None]),
        (Map(String, Array(Float64)), {"k": [math.inf], "n": None}, {"k": ["Infinity"], "n": None}),
    ],
    ids=str,
)
def test_a_value_is_written_as_the_api_writes_its_type(dtype: DataType, value: Any, expected: Any) -> None:
    assert written(dtype, value) == expected


TIMES = st.datetimes(datetime(1678, 1, 1), datetime(2261, 12, 31)).map(lambda time: time.replace(tzinfo=UTC))  # noqa: DTZ001 - the strategy's bounds have no zone
SCALARS: list[tuple[DataType, st.SearchStrategy[Any]]] = [
    (Int64, st.integers(-(2**63), 2**63 - 1)),
    (Float64, st.floats(allow_nan=False)),
    (Float32, st.floats(width=32, allow_nan=False)),
    (String, st.text(max_size=5)),
    (Bool, st.booleans()),
    (Timestamp, TIMES),
]


def nested(depth: int) -> st.SearchStrategy[tuple[DataType, st.SearchStrategy[Any]]]:
    """Types and what makes values of them."""
    if depth == 0:
        return st.sampled_from(SCALARS)

    def grown(inner: tuple[DataType, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
        dtype, values = inner
        nullable = st.one_of(st.none(), values)
        return st.sampled_from(
            [
                inner,
                (Array(dtype), st.lists(nullable, max_size=3)),
                (Map(String, dtype), st.dictionaries(st.text(max_size=3), nullable, max_size=3)),
            ]
        )

    return nested(depth - 1).flatmap(grown)


@given(st.data())
def test_what_is_written_is_read_back_as_request_context(data: st.DataObject) -> None:
    dtype, values = data.draw(nested(2))
    value = data.draw(values)
    assert value_reader(dtype, "f")(written(dtype, value)) == value


def plan_of_two_views() -> Any:
    @on_demand_feature_view(
        sources=[RequestSource(schema=[Field("n", Int64)])],
        features=[Attribute("b", Int64), Attribute("a", String), Attribute("c", Float64)],
    )
    def parts(request: dict[str, Any]) -> dict[str, Any]:
        return request

    return workspace_plan({"s": [parts, parts[["c", "b"]].with_name("again")]}).services["s"]


def test_references_stand_in_the_order_of_their_names_and_features_in_that_of_the_schema() -> None:
    columns = no_columns(1)
    columns.computed = Computed([[[1, "x", 0.5]]], {}, {}, 0.0)
    assert VectorEncoder(plan_of_two_views()).encode(columns, 0) == b'["1",0.5,"1","x",0.5]'


def test_what_came_late_is_null_and_what_failed_is_raised() -> None:
    columns = no_columns(2)
    error = RequestError(400, "no")
    columns.computed = Computed([[[], []]], {1: error}, {0: {0}}, 0.0)
    encoder = VectorEncoder(plan_of_two_views())
    assert encoder.encode(columns, 0) == b"[null,null,null,null,null]"
    with pytest.raises(RequestError) as raised:
        encoder.encode(columns, 1)
    assert raised.value is error


def test_columns_whose_views_were_not_computed_are_our_fault() -> None:
    with pytest.raises(InvariantError):
        VectorEncoder(plan_of_two_views()).encode(no_columns(1), 0)


def test_microseconds_are_kept() -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) - timedelta(microseconds=1)
    assert written(Timestamp, moment) == "1969-12-31T23:59:59.999999Z"
