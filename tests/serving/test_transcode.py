from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import orjson
import pytest

from fastserve.api.encode import FeaturesEncoder
from fastserve.plan.service import ServicePlan
from fastserve.sdk.features import Aggregate
from fastserve.sdk.types import Field, Float64, Int64
from fastserve.serving.transcode import null_row, transcode
from fastserve.serving.transport import RAW_ROWS
from fastserve.serving.vectors import VectorEvaluator
from fastserve.tiles.layout import NULL_INT64, make_layout
from fastserve.tiles.rows import RowError, decode_row, effective_ns_of, encode_row
from tests.support.plans import (
    AS_OF_NS,
    ATTRIBUTES,
    NOW_NS,
    aggregate_row,
    aggregate_view,
    attribute_row,
    attribute_view,
    workspace_plan,
)

DAY = timedelta(days=1)


def plan_of(view: Any) -> ServicePlan:
    return workspace_plan({"s": [view]}).services["s"]


def amounts(*functions: str, horizon: timedelta = 2 * DAY, window: timedelta = DAY) -> ServicePlan:
    features = [Aggregate(Field("amount", Float64), function, window) for function in functions]
    return plan_of(aggregate_view("v", features, horizon=horizon))


def ones(plan: ServicePlan) -> bytes:
    """Return a row that holds a 1 in each slot."""
    schema = plan.places[0].view.schema
    assert schema is not None
    slots: dict[int, Sequence[int]] = {n: [1] * c.window.slots for n, c in enumerate(schema.components)}
    return aggregate_row(plan.places[0].view, slots)


def answered(plan: ServicePlan, row: bytes, then: ServicePlan) -> tuple[list[Any], list[str]]:
    """Return what ``plan`` answers from a row that ``then``'s view wrote, and what it reports."""
    layout = then.places[0].view.layout
    evaluator = VectorEvaluator(plan, RAW_ROWS, {"v": {layout.schema_id: layout}})
    columns = evaluator.evaluate([[row]], NOW_NS)
    values = orjson.loads(FeaturesEncoder(plan).encode(columns, 0))
    return values, list(columns.report.unreadable.values())


def test_a_null_row_has_no_time_and_only_nulls() -> None:
    view = plan_of(attribute_view("v")).places[0].view
    row = null_row(view)
    assert effective_ns_of(row) == NULL_INT64
    assert set(decode_row(view.layout, row).values()) == {None}


def test_attributes_are_taken_over_by_name_and_type() -> None:
    old = make_layout(
        [("a_int", Float64), ("b_float", Float64), ("gone", Int64), ("d_text", ATTRIBUTES["d_text"])]
    )
    view = plan_of(attribute_view("v", ["b_float", "a_int", "d_text", "e_bool"])).places[0].view
    row = encode_row(old, {"a_int": 1.0, "b_float": float("nan"), "gone": NULL_INT64, "d_text": b'"x"'}, 77)
    now = transcode(row, old, view)
    values = decode_row(view.layout, now)
    assert repr(values) == "{'b_float': nan, 'a_int': None, 'd_text': b'\"x\"', 'e_bool': None}"
    assert effective_ns_of(now) == 77


def test_the_smallest_int64_stays_a_value() -> None:
    old = make_layout([("a_int", Int64), ("b_float", Float64)])
    view = plan_of(attribute_view("v", ["a_int"])).places[0].view
    now = transcode(encode_row(old, {"a_int": NULL_INT64}, 1), old, view)
    assert decode_row(view.layout, now) == {"a_int": NULL_INT64}


def test_a_broken_row_of_an_old_layout_is_an_error() -> None:
    old = make_layout([("d_text", ATTRIBUTES["d_text"])])
    view = plan_of(attribute_view("v", ["d_text", "a_int"])).places[0].view
    row = encode_row(old, {"d_text": b'"long enough to be cut"'}, 1)
    with pytest.raises(RowError):
        transcode(row[:-3], old, view)


def test_an_aggregate_more_is_null_in_old_rows_and_the_others_are_as_they_were() -> None:
    then, now = amounts("sum"), amounts("sum", "count", "max")
    assert answered(now, ones(then), then) == ([None, None, 17.0], [])
    assert answered(then, ones(now), now) == ([17.0], [])


def test_the_order_of_aggregates_does_not_matter() -> None:
    then, now = amounts("count", "sum"), amounts("sum", "count")
    assert then.places[0].view.layout.schema_id != now.places[0].view.layout.schema_id
    assert answered(now, ones(then), then) == (["17", 17.0], [])


@pytest.mark.parametrize("hours", [6, 12, 23])
def test_a_row_of_another_horizon_is_never_read_as_one_of_this(hours: int) -> None:
    then, now = amounts("sum", horizon=timedelta(hours=hours)), amounts("sum")
    for plan, row, other in ((now, ones(then), then), (then, ones(now), now)):
        values, reports = answered(plan, row, other)
        assert values == [None]
        assert reports[0].endswith("got a row of another horizon or aggregation interval")


def test_as_many_slots_with_and_without_a_core_are_two_schemas() -> None:
    with_core = amounts("sum", horizon=timedelta(hours=23)).places[0].view
    without = amounts("sum", horizon=timedelta(hours=24)).places[0].view
    assert len(with_core.layout.columns) == len(without.layout.columns) == 24
    assert with_core.layout.schema_id != without.layout.schema_id


def test_a_horizon_that_changes_no_slot_changes_no_schema() -> None:
    one, other = (amounts("sum", horizon=timedelta(days=days)).places[0].view for days in (2, 3))
    assert one.layout.schema_id == other.layout.schema_id


def test_a_row_keeps_its_flags() -> None:
    then, now = amounts("sum"), amounts("sum", "count")
    schema = then.places[0].view.schema
    assert schema is not None
    row = aggregate_row(then.places[0].view, {0: [float("inf")] * schema.components[0].window.slots})
    assert answered(now, row, then) == ([None, "Infinity"], [])


def test_an_attribute_row_is_what_it_was_under_its_own_layout() -> None:
    view = plan_of(attribute_view("v")).places[0].view
    row = attribute_row(view, {"a_int": 5, "g_array": b"[]"}, AS_OF_NS)
    assert transcode(row, view.layout, view) == row
