from __future__ import annotations

import json
from datetime import timedelta

import pytest

from fastserve import (
    Aggregate,
    Attribute,
    AttributesFormat,
    DefinitionError,
    Entity,
    FeatureView,
    Field,
    FileSource,
    Float64,
    Int64,
    String,
    Timestamp,
)
from fastserve.plan.service import WorkspacePlan
from fastserve.plan.views import duration_ns, plan_view
from fastserve.tiles.windows import DAY_NS, HOUR_NS, MINUTE_NS

USER = Entity("user", join_keys=Field("user_id", String))
ACCOUNT = Entity(
    "account", join_keys=[Field("bank", String), Field("number", Int64), Field("day", Timestamp)]
)
EVENTS = FileSource("events", path="events.csv", timestamp_field="at")
AMOUNT = Field("amount", Float64)


def aggregates(*windows: timedelta, edge: str = "now", hop: timedelta | None = None) -> FeatureView:
    return FeatureView(
        "v",
        entities=USER,
        source=EVENTS,
        aggregation_interval=timedelta(minutes=10),
        leading_edge=edge,  # type: ignore[arg-type]
        features=[Aggregate(AMOUNT, "sum", window, tail_hop=hop) for window in windows],
    )


def attributes(
    entity: Entity = USER, row_format: AttributesFormat | None = None, table: str | None = None
) -> FeatureView:
    return FeatureView(
        "v",
        entities=entity,
        source=EVENTS,
        features=[Attribute("age", Int64)],
        row_format=row_format or "packed",
        table=table,
    )


def hops(view: FeatureView) -> list[int]:
    schema = plan_view(view, "w", "").schema
    assert schema is not None
    return [component.window.hop_ns for component in schema.components]


def test_a_duration_is_exact_in_nanoseconds() -> None:
    assert duration_ns(timedelta(days=100_000, microseconds=1)) == 100_000 * DAY_NS + 1000


def test_a_table_is_named_after_prefix_workspace_and_view_unless_the_view_names_it() -> None:
    assert plan_view(attributes(), "shop", "prod_").table == "prod_shop.v"
    assert plan_view(attributes(table="mine"), "shop", "prod_").table == "mine"


def test_packed_rows_have_one_key_attribute_whatever_the_join_keys() -> None:
    plan = plan_view(attributes(ACCOUNT), "w", "")
    assert plan.key_attributes == (("k", "S"),)
    assert plan.key_text(["a|b", 7, 1_000]) == r"a\|b|7|1000"


def test_an_ordinary_table_s_keys_have_the_view_s_names_or_the_join_keys_and_their_types() -> None:
    pair = Entity("pair", join_keys=[Field("user_id", String), Field("shop_id", Int64)])
    named = plan_view(attributes(pair, AttributesFormat("pk", "sk", "at")), "w", "")
    assert named.key_attributes == (("pk", "S"), ("sk", "N"))
    assert named.timestamp_attribute == "at"
    assert plan_view(attributes(pair, AttributesFormat()), "w", "").key_attributes == (
        ("user_id", "S"),
        ("shop_id", "N"),
    )
    assert json.loads(named.key_text(["u1", 7])) == {"pk": {"S": "u1"}, "sk": {"N": "7"}}


@pytest.mark.parametrize("value", ["a|b", r"a\b", r"\0", r"\e"])
def test_a_text_key_of_an_ordinary_table_is_the_text_itself(value: str) -> None:
    plan = plan_view(attributes(USER, AttributesFormat("pk")), "w", "")
    assert json.loads(plan.key_text([value])) == {"pk": {"S": value}}


def test_a_key_that_no_ordinary_table_has_is_still_one_that_a_store_takes() -> None:
    pair = Entity("pair", join_keys=[Field("user_id", String), Field("shop_id", Int64)])
    plan = plan_view(attributes(pair, AttributesFormat()), "w", "")
    assert json.loads(plan.key_text([None, None])) == {"user_id": {"S": r"\0"}, "shop_id": {"N": "-1E+100"}}
    assert json.loads(plan.key_text(["", 1]))["user_id"] == {"S": r"\e"}


def test_what_an_ordinary_table_can_t_hold_is_refused_at_its_line() -> None:
    with pytest.raises(DefinitionError, match=r"expected as many join keys as the table has key attributes"):
        plan_view(attributes(ACCOUNT, AttributesFormat()), "w", "")


def test_a_window_s_hop_follows_from_its_length_and_the_interval() -> None:
    minutes, hour, day = 10 * MINUTE_NS, HOUR_NS, DAY_NS
    windows = [
        timedelta(hours=1),
        timedelta(hours=12),
        timedelta(days=11),
        timedelta(days=12),
        timedelta(days=356),
    ]
    assert hops(aggregates(*windows)) == [minutes, hour, hour, day, day]


def test_an_aggregate_may_name_its_hop() -> None:
    assert hops(aggregates(timedelta(days=28), hop=timedelta(hours=2))) == [2 * HOUR_NS]


def test_windows_that_end_with_the_last_complete_tile_start_at_any_tile() -> None:
    assert hops(aggregates(timedelta(days=28), edge="last_complete_tile")) == [10 * MINUTE_NS]


def test_rows_of_aggregates_end_with_the_last_complete_tile() -> None:
    plan = plan_view(aggregates(timedelta(days=1)), "w", "")
    assert plan.as_of_ns(25 * MINUTE_NS + 1) == 20 * MINUTE_NS
    assert plan_view(attributes(), "w", "").as_of_ns(25 * MINUTE_NS + 1) == 25 * MINUTE_NS + 1


def test_two_hosts_make_the_same_plan_of_a_view() -> None:
    one, other = (plan_view(aggregates(timedelta(days=1)), "w", "") for _ in range(2))
    assert one.layout == other.layout
    assert one.layout.schema_id == other.layout.schema_id
    assert one.schema is not None
    assert one.schema == other.schema


def test_ttl_and_horizon_are_nanoseconds(shop_plan: WorkspacePlan) -> None:
    assert shop_plan.views["profile"].ttl_ns == 30 * DAY_NS
    assert shop_plan.views["spending"].ttl_ns is None
    schema = shop_plan.views["spending"].schema
    assert schema is not None
    assert schema.horizon_ns == 2 * DAY_NS
