"""Arrow values as rows and items keep them, wherever in a larger array they stand."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from fastserve.ingest.values import item_values, json_texts, python_values
from fastserve.sdk.types import Array, DataType, Field, Float64, Int64, Map, String, Struct, Timestamp

INFINITE = float("inf")
TIMES = pa.timestamp("ns", "UTC")
CASES: list[tuple[DataType, pa.DataType, list[Any], list[Any], list[Any]]] = [
    (String, pa.string(), ["a", None, 'ä"'], ["a", None, 'ä"'], ["a", None, 'ä"']),
    (Array(Int64), pa.list_(pa.int64()),
     [[1, None], None, []], [["1", None], None, []], [[1, None], None, []]),
    (Array(Float64), pa.list_(pa.float64()),
     [[INFINITE], [0.5], None], [["Infinity"], [0.5], None], [[INFINITE], [0.5], None]),
    (Array(Timestamp), pa.list_(TIMES),
     [[1], None, [None]], [["1970-01-01T00:00:00.000000001Z"], None, [None]],
     [["1970-01-01T00:00:00.000000001Z"], None, [None]]),
    (Struct([Field("a", Int64), Field("b", Array(String))]),
     pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]),
     [{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}],
     [["1", ["x"]], None, [None, None]],
     [{"a": 1, "b": ["x"]}, None, {"a": None, "b": None}]),
    (Map(String, Int64), pa.map_(pa.string(), pa.int64()), [[("k", 1), ("l", None)], None, []],
     [{"k": "1", "l": None}, None, {}], [{"k": 1, "l": None}, None, {}]),
]  # fmt: skip


@pytest.mark.parametrize("dtype, arrow, values, api, items", CASES, ids=[str(case[0]) for case in CASES])
def test_values_keep_their_place_in_slices_and_chunks(
    dtype: DataType, arrow: Any, values: list[Any], api: list[Any], items: list[Any]
) -> None:
    whole = pa.array([values[-1], *values, values[0]], arrow)
    sliced = whole.slice(1, len(values))
    chunked = pa.chunked_array([whole.slice(1, 1), whole.slice(2, len(values) - 1)])
    for column in (sliced, chunked):
        assert [json.loads(text) for text in json_texts(dtype, column)] == api
        assert item_values(dtype, column) == items


def test_timestamps_are_nanoseconds() -> None:
    assert python_values(Timestamp, pa.array([1, None], TIMES)) == [1, None]
    assert python_values(Timestamp, pa.array([1, None], pa.int64())) == [1, None]
    assert item_values(Timestamp, pa.array([10**9, None], pa.int64())) == ["1970-01-01T00:00:01Z", None]
