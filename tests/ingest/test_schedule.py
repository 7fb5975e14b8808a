from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fastserve.ingest.changes import has_rows_to_make
from fastserve.ingest.definition import rows_digest
from fastserve.ingest.registry import Materialized
from fastserve.ingest.schedule import SETTLE_NS, Due, Gap, due, newest_boundary_ns
from fastserve.plan.views import ViewPlan
from tests.ingest.support import DAY_NS, HOUR_NS, UNTIL_NS, Workbench

DEFINITIONS = """
    source = FileSource("events", "events.csv", timestamp_field="at")
    schema = [Field("user_id", String), Field("amount", Float64), Field("at", Timestamp)]
    pushed = PushSource("pushed", schema, timestamp_field="at")
    amount = Field("amount", Float64)
    sums = aggregates(amount, ["sum"], [days(7)])
    spend = FeatureView("spend", user, source, sums, aggregation_interval=hours(1), batch_schedule=hours(6))
    late = FeatureView("late", user, source, sums, aggregation_interval=hours(1), batch_schedule=days(1),
                       start_time=datetime(2026, 1, 1))
    free = FeatureView("free", user, source, sums, aggregation_interval=hours(1))
    stream = FeatureView("stream", user, pushed, sums, aggregation_interval=hours(1), batch_schedule=hours(1))
    newest = FeatureView("newest", user, pushed, [Attribute("amount", Float64)])
"""
MINUTE_NS = HOUR_NS // 60


@pytest.fixture
def plans(bench: Workbench) -> dict[str, ViewPlan]:
    repo = bench.define(DEFINITIONS)
    return {name: bench.plan(repo, name) for name in repo.views}


def done_until(plan: ViewPlan, until_ns: int, **changes: Any) -> Materialized:
    record = Materialized(plan.name, until_ns, until_ns, 1, 0, 0, 0, 0, definition=rows_digest(plan))
    return replace(record, **changes)


@pytest.mark.parametrize(
    "view, after_ns, expected_ns",
    [
        ("spend", 0, 0),
        ("spend", -1, -6 * HOUR_NS),
        ("spend", 6 * HOUR_NS - 1, 0),
        ("spend", 6 * HOUR_NS, 6 * HOUR_NS),
        ("late", DAY_NS - 1, None),
        ("late", DAY_NS, DAY_NS),
        ("free", 0, None),
        ("stream", SETTLE_NS - 1, -HOUR_NS),
        ("stream", SETTLE_NS, 0),
    ],
)
def test_the_newest_boundary_is_a_multiple_of_the_schedule_since_the_epoch(
    plans: dict[str, ViewPlan], view: str, after_ns: int, expected_ns: int | None
) -> None:
    boundary = newest_boundary_ns(plans[view], UNTIL_NS + after_ns)

    assert boundary == (None if expected_ns is None else UNTIL_NS + expected_ns)


def test_a_boundary_waits_for_files_that_are_late(plans: dict[str, ViewPlan]) -> None:
    now_ns = UNTIL_NS + 29 * MINUTE_NS

    assert newest_boundary_ns(plans["spend"], now_ns, 30 * MINUTE_NS) == UNTIL_NS - 6 * HOUR_NS
    assert newest_boundary_ns(plans["spend"], now_ns + MINUTE_NS, 30 * MINUTE_NS) == UNTIL_NS
    assert newest_boundary_ns(plans["stream"], now_ns, 30 * MINUTE_NS) == UNTIL_NS - HOUR_NS


def test_a_view_is_due_until_it_is_done_up_to_the_newest_boundary(plans: dict[str, ViewPlan]) -> None:
    plan = plans["spend"]
    now_ns = UNTIL_NS + HOUR_NS

    assert due(plan, None, now_ns) == Due(UNTIL_NS, "never done")
    assert due(plan, done_until(plan, UNTIL_NS - 6 * HOUR_NS), now_ns) == Due(UNTIL_NS, "schedule")
    assert due(plan, done_until(plan, UNTIL_NS - 1), now_ns) == Due(UNTIL_NS, "schedule")
    assert due(plan, done_until(plan, UNTIL_NS), now_ns) is None
    assert due(plan, done_until(plan, now_ns), now_ns) is None


def test_missed_boundaries_are_a_gap(plans: dict[str, ViewPlan]) -> None:
    plan = plans["spend"]
    first_ns = UNTIL_NS - 18 * HOUR_NS

    wanted = due(plan, done_until(plan, first_ns - 6 * HOUR_NS), UNTIL_NS)

    assert wanted == Due(UNTIL_NS, "schedule", Gap(first_ns, UNTIL_NS - 6 * HOUR_NS, 3))
    # Done by hand in between two boundaries: the one before it wasn't missed.
    wanted = due(plan, done_until(plan, first_ns + 1), UNTIL_NS)
    assert wanted == Due(UNTIL_NS, "schedule", Gap(UNTIL_NS - 12 * HOUR_NS, UNTIL_NS - 6 * HOUR_NS, 2))


def test_a_changed_definition_makes_a_view_due_as_of_the_same_time(plans: dict[str, ViewPlan]) -> None:
    plan = plans["spend"]
    done = done_until(plan, UNTIL_NS + 5)

    assert due(plan, replace(done, definition="other"), UNTIL_NS + HOUR_NS) == Due(
        UNTIL_NS + 5, "changed definition"
    )
    assert due(plan, replace(done, definition=""), UNTIL_NS + HOUR_NS) is None  # written by an older release


def test_pushed_attributes_without_files_have_no_rows_to_make(plans: dict[str, ViewPlan]) -> None:
    assert [name for name, plan in plans.items() if not has_rows_to_make(plan)] == ["newest"]
