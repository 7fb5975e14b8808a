"""What a pushed event costs to write."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fastserve import (
    Aggregate,
    Attribute,
    Entity,
    FeatureView,
    Field,
    FileSource,
    Float64,
    PushSource,
    String,
    Timestamp,
)
from fastserve.plan.stream_costs import block_bytes, most_tiles, write_cost, write_cost_text
from fastserve.plan.views import ViewPlan, plan_view
from fastserve.tiles.blocks import block_schema, encode, from_events
from fastserve.tiles.windows import DAY_NS, MINUTE_NS

USER = Entity("user", join_keys=Field("user_id", String))
PUSHED = PushSource(
    "pushed",
    [Field("user_id", String), Field("at", Timestamp), Field("amount", Float64)],
    timestamp_field="at",
)
AMOUNT = Field("amount", Float64)


def view(*functions: str, minutes: int = 5) -> ViewPlan:
    features = [Aggregate(AMOUNT, f, timedelta(days=d)) for f in functions for d in (1, 7)]
    made = FeatureView("v", USER, PUSHED, features, aggregation_interval=timedelta(minutes=minutes))
    return plan_view(made, "w", "")


@pytest.mark.parametrize("tiles", [1, 2, 3, 100])
def test_the_bytes_are_those_of_a_block(tiles: int) -> None:
    plan = view("sum", "mean", "max")
    assert plan.schema is not None
    schema = block_schema(plan.schema)
    times = [20_000 * DAY_NS + number * 5 * MINUTE_NS for number in range(tiles)]
    (block,) = from_events(schema, ["u"] * tiles, times, {"amount": [1.0] * tiles}).values()
    assert block_bytes(plan, tiles) == len(encode(schema, block))


def test_windows_add_nothing_and_tiles_do() -> None:
    plan = view("sum", "max")
    assert most_tiles(plan) == 576
    first, full = write_cost(plan, 1), write_cost(plan, 576)
    assert first is not None
    assert full is not None
    assert (first.units, full.units) == (1, 14)
    busy = write_cost(plan, 1, requests=1024)
    assert busy is not None
    assert busy.units == 13
    assert write_cost_text(plan) == (
        "1 write unit an event where a block has 1 tile, 14 write units where it has all 576 (13,930 bytes)"
    )


def test_a_block_that_outgrows_an_item_is_told() -> None:
    plan = view("sum", "mean", "max", "min", "last", "first", "var_pop", minutes=1)
    full = write_cost(plan, most_tiles(plan))
    assert full is not None
    assert full.fits
    assert "more than an item" not in (write_cost_text(plan) or "")
    many = write_cost(plan, most_tiles(plan), wide_bytes=100)
    assert many is not None
    assert not many.fits


def test_attributes_cost_their_row_and_files_nothing() -> None:
    attributes = plan_view(FeatureView("a", USER, PUSHED, [Attribute("amount", Float64)]), "w", "")
    assert write_cost_text(attributes) == "1 write unit an event (94 bytes, texts not counted)"
    source = FileSource("files", "a.csv", timestamp_field="at")
    assert (
        write_cost_text(plan_view(FeatureView("f", USER, source, [Attribute("amount", Float64)]), "w", ""))
        is None
    )
