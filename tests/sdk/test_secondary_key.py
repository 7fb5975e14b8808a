"""Views whose features are arrays, one element for each value of a column."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fastserve import (
    Aggregate,
    Array,
    Attribute,
    DataType,
    DefinitionError,
    Entity,
    FeatureView,
    Field,
    FileSource,
    Float64,
    Int64,
    LifetimeWindow,
    String,
    TimeWindow,
    TimeWindowSeries,
    approx_count_distinct,
    last,
)
from fastserve.plan.views import plan_view
from fastserve.sdk.features import Feature

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
USER = Entity("user", Field("user_id", String))
CLICKS = FileSource("clicks", path="clicks.csv", timestamp_field="at")
AMOUNT, AD = Field("amount", Float64), Field("ad", String)


def view(*features: Feature, key: object = AD, interval: timedelta | None = HOUR) -> FeatureView:
    return FeatureView(
        "v",
        USER,
        CLICKS,
        list(features),  # type: ignore[arg-type]
        aggregation_interval=interval,
        aggregation_secondary_key=key,  # type: ignore[arg-type]
    )


def test_every_window_has_one_feature_with_the_keys() -> None:
    made = view(
        Aggregate(AMOUNT, "sum", 7 * DAY),
        Aggregate(AMOUNT, last(2), 7 * DAY),
        Aggregate(AMOUNT, "count", TimeWindow(DAY, -DAY)),
        Aggregate(AMOUNT, approx_count_distinct(), LifetimeWindow()),
    )
    assert {name: made.output_type(name) for name in made.feature_names} == {
        "amount_sum_7d_1h": Array(Float64),
        "amount_last_2_7d_1h": Array(Array(Float64)),
        "amount_count_1d_offset_1d_1h": Array(Int64),
        "amount_approx_count_distinct_lifetime_1h": Array(Int64),
        "ad_keys_7d": Array(String),
        "ad_keys_1d_offset_1d": Array(String),
        "ad_keys_lifetime": Array(String),
    }
    assert [column.name for column in made.input_columns] == ["user_id", "amount", "ad"]


def test_all_its_components_are_bytes_that_say_what_they_are_by() -> None:
    schema = plan_view(view(Aggregate(AMOUNT, "sum", DAY)), "w", "").schema
    assert schema is not None
    assert schema.components == ()
    assert [(wide.function, wide.column, wide.secondary_key) for wide in schema.wide] == [
        ("sum", "amount", ("ad", String)),
        ("secondary_keys", "ad", ("ad", String)),
    ]
    assert [feature.wide for feature in schema.features] == [0, 1]
    assert all(len(wide.columns) == wide.window.slots for wide in schema.wide)


@pytest.mark.parametrize("key", [None, Field("ad", Int64)])
def test_a_view_without_a_key_has_plain_values(key: Field | None) -> None:
    made = view(Aggregate(AMOUNT, "sum", DAY), key=key)
    expected: DataType = Float64 if key is None else Array(Float64)
    assert made.output_type("amount_sum_1d_1h") == expected


@pytest.mark.parametrize(
    "key, features, message",
    [
        (
            "ad",
            [Aggregate(AMOUNT, "sum", DAY)],
            r"\(expected a Field such as Field\(\"ad_id\", String\), got",
        ),
        (AMOUNT, [Aggregate(AMOUNT, "sum", DAY)], r"'amount' \(expected String or Int64, got Float64\)"),
        (USER.join_keys[0], [Aggregate(AMOUNT, "sum", DAY)], r"\(expected a column that is no join key, got"),
        (
            AD,
            [Aggregate(AMOUNT, "sum", TimeWindowSeries(-2 * DAY, DAY))],
            r"time_window of 'amount_sum_1d_series_2d_1h' \(expected no series in a view with ",
        ),
        (
            AD,
            [Aggregate(AMOUNT, "sum", DAY), Aggregate(AMOUNT, "count", DAY, tail_hop=2 * HOUR)],
            r"tail_hop of 'amount_count_1d_1h' \(expected that of all features over 1d, none, got 2h\)",
        ),
        (
            Field("amount", Int64),
            [Aggregate(AMOUNT, "sum", DAY)],
            r"column 'amount' \(expected Float64 as at .*, got Int64\)",
        ),
    ],
)
def test_a_key_that_can_t_be_is_refused(key: object, features: list[Feature], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        view(*features, key=key)


def test_attributes_have_no_secondary_key() -> None:
    with pytest.raises(DefinitionError, match=r"\(expected none, as attributes aren't aggregated, got"):
        view(Attribute("age", Int64), interval=None)


def test_the_keys_feature_isn_t_for_views_without_a_key() -> None:
    keys = view(Aggregate(AMOUNT, "sum", DAY)).features[-1]
    with pytest.raises(DefinitionError, match=r"expected a view with an aggregation_secondary_key"):
        view(keys, key=None)
