"""Items that Feast wrote, taken apart: their times as Feast's server writes them, values in types of ours."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve import Array, Bool, DataType, Float64, Int64, String, Timestamp
from fastserve.serving.feast_items import converted, feast_values, time_ns, time_text
from fastserve.serving.items import item_row
from fastserve.tiles.rows import RowError, decode_row, effective_ns_of
from fastserve.tiles.times import format_time
from tests.support.feast_golden import CLOCK_NS, feast_plan, golden

MOMENTS = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


def item(view: str, place: int = 0) -> Any:
    return golden("items.json")[f"rides.{view}"][place]


@given(MOMENTS)
def test_a_time_is_written_as_feasts_server_does(moment: datetime) -> None:
    text = str(moment)  # as Feast's store writes it

    assert time_text(text) == format_time(time_ns(text))


def test_a_time_in_another_zone_is_written_in_utc() -> None:
    assert time_text("2026-07-01 14:00:00.000500+02:00") == "2026-07-01T12:00:00.000500Z"
    with pytest.raises(RowError, match="attribute 'event_ts': expected an ISO-8601 time"):
        time_text("soon")


def test_every_type_of_feasts_has_a_value_in_ours() -> None:
    view = feast_plan().views["every_type"]
    rows = [feast_values(view, each) for each in golden("items.json")["rides.every_type"]]
    ((values, moment),) = [row for row in rows if row[0]["text"] is not None]

    assert moment == CLOCK_NS
    assert values["raw"] == "AP97fQ=="
    assert values["text"] == "Zürich \U0001f695"
    assert (values["small"], values["big"]) == (-(2**31), 2**63 - 1)
    assert (values["flag"], values["moment"]) == (False, 1_782_907_200 * 10**9)
    assert values["map"] == '{"a":1,"b":"x"}'
    assert values["table"] == "[[1,-2],[]]"
    assert values["moments"] == [0, -(10**9)]
    assert values["bag"] == ["one"]


def test_an_item_is_a_row_like_any_other() -> None:
    view = feast_plan().views["driver_stats"]
    for each in golden("items.json")["rides.driver_stats"]:
        row = item_row(view, each)
        values, moment = feast_values(view, each)
        assert effective_ns_of(row) == moment
        assert decode_row(view.layout, row)["trips"] == values["trips"]


@pytest.mark.parametrize(
    "dtype,value",
    [
        (Int64, True),
        (Int64, 1.0),
        (Float64, "NaN"),
        (Float64, True),
        (Bool, 1),
        (Timestamp, 2**62),
        (Timestamp, 1.5),
        (Timestamp, "soon"),
        (Array(Int64), 1),
        (Array(Int64), ["1"]),
    ],
)
def test_a_value_of_another_type_is_refused(dtype: DataType, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        converted(dtype, value)


def test_values_that_fit_are_taken() -> None:
    assert converted(Float64, 1) == 1.0
    assert converted(Timestamp, "2026-07-01T05:00:00-07:00") == CLOCK_NS
    assert converted(Timestamp, -(2**63)) is None  # no time
    assert converted(String, [1, None]) == "[1,null]"
    assert converted(Array(String), ["a", None]) == ["a", None]


def test_a_row_with_another_type_names_the_feature_as_feast_does() -> None:
    view = feast_plan().views["ride_pairs"]
    wrong = {**item("ride-pairs"), "values": {"M": {"last fare": {"B": "EgF4"}}}}

    with pytest.raises(RowError, match="feature 'last fare': expected float64, got 'x'"):
        feast_values(view, wrong)
