"""Blocks out of the ordinary: older shapes, and keys that nothing can be said of."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import orjson
import pytest

from fastserve import Aggregate, FeatureView, Field, Float64, PushSource, String, Timestamp
from fastserve.api.encode import FeaturesEncoder
from fastserve.errors import InvariantError
from fastserve.plan.service import ServicePlan
from fastserve.serving.heads import StreamHeads, Watermarks
from fastserve.serving.transport import BASE64_ROWS, RAW_ROWS, RowTransport
from fastserve.serving.vectors import VectorEvaluator
from fastserve.tiles.blocks import encode, from_events
from fastserve.tiles.layout import NULL_INT64
from fastserve.tiles.windows import DAY_NS
from tests.support.plans import NOW_NS, USER, aggregate_view, workspace_plan

AMOUNT = Field("amount", Float64)
PUSHED = PushSource(
    "pushed", [Field("user_id", String), Field("at", Timestamp), AMOUNT], timestamp_field="at"
)
DAY = timedelta(days=1)


def plan_of(*functions: str) -> ServicePlan:
    features = [Aggregate(AMOUNT, function, DAY, name=function) for function in functions]
    view = FeatureView("v", [USER], PUSHED, features, aggregation_interval=timedelta(hours=1))
    return workspace_plan({"s": [view]}).services["s"]


def block_of(plan: ServicePlan, *amounts: float) -> bytes:
    schema = plan.streams[0].blocks
    times = [NOW_NS - 1 - number for number in range(len(amounts))]
    (block,) = from_events(schema, ["k"] * len(amounts), times, {"amount": list(amounts)}).values()
    return encode(schema, block)


@pytest.mark.parametrize("transport", [RAW_ROWS, BASE64_ROWS])
def test_a_block_of_an_older_shape_gives_what_it_has_beside_blocks_of_the_present_one(
    transport: RowTransport,
) -> None:
    before, now = plan_of("sum", "max"), plan_of("min", "sum")
    old = before.streams[0].blocks
    shapes = {"v": {old.schema_id: old.shape}}
    evaluator = VectorEvaluator(now, transport, watermarks=Watermarks({"v": NOW_NS}), old_shapes=shapes)
    lines: list[list[Any]] = [
        [None, None, transport.wrap(block_of(before, 1.5, 2.0))],
        [None, None, transport.wrap(block_of(now, 1.5, 3.0))],
        [None, None, None],
    ]
    columns = evaluator.evaluate(lines, NOW_NS)
    values = [orjson.loads(FeaturesEncoder(now).encode(columns, line)) for line in range(3)]
    assert values == [[None, 3.5], [1.5, 4.5], [None, None]]
    assert columns.report.transcoded == 1
    assert columns.effective_ns[:, 0].tolist() == [NOW_NS, NOW_NS, NULL_INT64]


def test_a_block_of_a_shape_that_nobody_recorded_is_unreadable() -> None:
    before, now = plan_of("sum", "max"), plan_of("min", "sum")
    evaluator = VectorEvaluator(now, RAW_ROWS, watermarks=Watermarks({"v": NOW_NS}))
    columns = evaluator.evaluate([[None, None, block_of(before, 1.5)]], NOW_NS)
    assert columns.effective_ns[0, 0] == NULL_INT64
    assert "expected a block of schema" in columns.report.unreadable[0, 0]


def test_keys_that_have_tiles_and_no_row_are_counted_as_expired_where_the_view_is_not_complete() -> None:
    plan = plan_of("sum")
    watermarks = Watermarks({"v": NOW_NS - 2 * DAY_NS - 1})
    evaluator = VectorEvaluator(plan, RAW_ROWS, watermarks=watermarks)
    lines: list[list[Any]] = [[None, None, block_of(plan, 1.5)], [None, None, None]]
    assert evaluator.evaluate(lines, NOW_NS).report.expired == 1
    watermarks.until_ns = {"v": NOW_NS - 2 * DAY_NS}
    assert evaluator.evaluate(lines, NOW_NS).report.expired == 0


def test_a_service_without_streams_has_no_heads() -> None:
    plan = workspace_plan({"s": [aggregate_view("files", [Aggregate(AMOUNT, "sum", DAY)])]}).services["s"]
    assert (plan.streams, plan.heads, plan.heads_word) == ((), None, plan.constants_word)
    with pytest.raises(InvariantError, match="reads no stream"):
        StreamHeads(plan, RAW_ROWS, Watermarks())
