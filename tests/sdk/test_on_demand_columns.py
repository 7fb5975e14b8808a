"""Columns of a whole batch: every request's values stand in its line, and nulls stay where they were."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve import Array, Bool, Field, Float32, Float64, Int64, String, Timestamp
from fastserve.sdk.on_demand_columns import NullableArray, checked_columns, frame, input_columns

FIELDS = [
    Field("i", Int64),
    Field("x", Float64),
    Field("f", Float32),
    Field("b", Bool),
    Field("s", String),
    Field("t", Timestamp),
    Field("l", Array(Int64)),
]
int64s = st.integers(-(2**63), 2**63 - 1)
rows = st.fixed_dictionaries(
    {
        "i": st.none() | int64s,
        "x": st.none() | st.floats(allow_nan=False),
        "f": st.none() | st.floats(width=32, allow_nan=False),
        "b": st.none() | st.booleans(),
        "s": st.none() | st.text(max_size=3),
        "t": st.none() | st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
        "l": st.none() | st.lists(st.none() | int64s, min_size=2, max_size=2),
    }
)


@given(batch=st.lists(rows, min_size=1, max_size=6), framed=st.booleans())
@settings(max_examples=100, deadline=None)
def test_each_line_comes_back_as_it_went_in(batch: list[dict[str, Any]], framed: bool) -> None:
    columns = input_columns(FIELDS, batch)
    result = frame(FIELDS, columns) if framed else columns
    values = checked_columns(FIELDS, result, len(batch))
    names = [field.name for field in FIELDS]
    assert [dict(zip(names, line, strict=True)) for line in zip(*values, strict=True)] == batch


def test_lines_that_pandas_has_sorted_come_back_to_their_requests() -> None:
    field = Field("x", Float64)
    given = frame([field], input_columns([field], [{"x": value} for value in (3.0, None, 1.0, 2.0)]))
    expected = [[3.0, None, 1.0, 2.0]]
    for result in (
        given.sort_values("x"),
        {"x": given["x"].sort_values(ascending=False)},
        pd.concat([given[given["x"] > 1], given[~(given["x"] > 1)]]),
    ):
        assert checked_columns([field], result, 4) == expected
    for index in (list("dabc"), [3, 0, 1, 7], [0, 0, 1, 2], [0.5, 1, 2, 3]):  # of other lines than those
        assert checked_columns([field], given.set_axis(index), 4) == expected


def test_columns_have_one_type_whether_there_are_nulls_or_not() -> None:
    full: dict[str, Any] = {
        "i": 1,
        "x": 1.0,
        "f": 1.0,
        "b": True,
        "s": "a",
        "t": datetime(2024, 1, 1, tzinfo=UTC),
        "l": [1],
    }
    empty: dict[str, Any] = dict.fromkeys(full)
    for batch in ([full], [full, empty], [empty]):
        columns = input_columns(FIELDS, batch)
        assert {name: str(column.dtype) for name, column in columns.items()} == {
            "i": "int64", "x": "float64", "f": "float32", "b": "bool", "s": "object",
            "t": "datetime64[ns]", "l": "object",
        }  # fmt: skip
        assert isinstance(columns["i"], NullableArray)
        assert isinstance(columns["b"], NullableArray)
        assert [len(column) for column in columns.values()] == [len(batch)] * len(FIELDS)


def test_lists_of_equal_lengths_stay_lists() -> None:
    (column,) = input_columns([Field("l", Array(Int64))], [{"l": [1, 2]}, {"l": [3, 4]}]).values()
    assert column.tolist() == [[1, 2], [3, 4]]
    assert column.shape == (2,)


@pytest.fixture
def numbers() -> Any:
    rows: list[dict[str, Any]] = [{"i": 5}, {"i": None}, {"i": 0}]
    return input_columns([Field("i", Int64)], rows)["i"]


def test_numpys_own_functions_keep_the_mask(numbers: Any) -> None:
    for result in (
        np.where(numbers > 1, numbers, 7),
        np.where(numbers > 1, 1, numbers),
        np.clip(numbers, 1, 3),
        np.choose(numbers > 1, [numbers, numbers]),
        numbers + np.array([1, 2, 3]),
        np.array([1, 2, 3]) - numbers,
        np.maximum(np.array([1, 2, 3]), numbers),
        np.concatenate([numbers[:1], numbers[1:]]),
        np.vstack([numbers, numbers])[0],
        np.stack([numbers, numbers]).sum(axis=0) - numbers,
    ):
        assert isinstance(result, NullableArray)
        assert np.ma.getmaskarray(result).tolist() == [False, True, False]


def test_shapes_are_taken_from_a_masked_column_without_its_mask(numbers: Any) -> None:
    assert np.zeros_like(numbers).tolist() == [0, 0, 0]
    assert np.full_like(numbers, 3, dtype=float).tolist() == [3.0, 3.0, 3.0]


def test_functions_that_know_no_mask_serve_where_nothing_is_null(numbers: Any) -> None:
    assert np.sort(numbers[::2]).tolist() == [0, 5]
    assert np.select([numbers.filled(0) > 1], [numbers.filled(0)], -1).tolist() == [5, -1, -1]
    with pytest.raises(
        TypeError, match=r"numpy\.sort doesn't regard nulls: fill them before, as in x\.filled"
    ):
        np.sort(numbers)
    with pytest.raises(TypeError, match=r"numpy\.interp doesn't regard nulls"):
        np.interp(numbers, [0, 1], [0, 1])


def test_an_empty_batch_has_empty_columns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        columns = input_columns(FIELDS, [])
        assert checked_columns(FIELDS, columns, 0) == [[] for _ in FIELDS]
        assert checked_columns(FIELDS, frame(FIELDS, columns), 0) == [[] for _ in FIELDS]


@pytest.mark.parametrize("moment", [np.array([2**62, 2], "M8[D]"), np.array([584_604, 2], "M8[Y]")])
def test_a_time_that_would_wrap_in_microseconds_is_refused(moment: Any) -> None:
    with pytest.raises(ValueError, match="1678 to 2261"):
        checked_columns([Field("o", Timestamp)], {"o": moment}, 2)


def test_what_lies_under_a_mask_is_no_value_that_is_too_large() -> None:
    masked = np.ma.masked_greater(np.array([1e300, 1.0]), 1e38)
    assert checked_columns([Field("o", Float32)], {"o": masked}, 2) == [[None, 1.0]]
