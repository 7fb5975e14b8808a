"""For how long it may be remembered that a row is absent."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fastserve import Aggregate, FeatureView, Field, Float64, PushSource, String, Timestamp
from fastserve.plan.reads import ReadGroup
from fastserve.serving.absent_rows import AbsentRows
from fastserve.serving.heads import Watermarks
from fastserve.serving.row_cache import FOREVER_NS
from fastserve.tiles.windows import DAY_NS, HOUR_NS
from tests.support.plans import NOW_NS, USER, workspace_plan

AMOUNT = Field("amount", Float64)
PUSHED = PushSource(
    "pushed", [Field("user_id", String), Field("at", Timestamp), AMOUNT], timestamp_field="at"
)
KEPT = timedelta(seconds=10)


def streamed(name: str, horizon: timedelta, bundle: str | None) -> FeatureView:
    return FeatureView(
        name,
        entities=[USER],
        source=PUSHED,
        features=[Aggregate(AMOUNT, "count", timedelta(days=1))],
        aggregation_interval=timedelta(hours=1),
        horizon=horizon,
        cache_ttl=KEPT,
        cache_streamed=True,
        bundle=bundle,
    )


@pytest.mark.parametrize("bundle", [None, "one"], ids=["apart", "bundled"])
def test_absent_rows_are_trusted_as_long_as_the_watermark_of_then_makes_their_views_complete(
    bundle: str | None,
) -> None:
    long = streamed("long", timedelta(days=2), bundle)
    short = streamed("short", timedelta(days=1), bundle)
    plan = workspace_plan({"s": [long, short]})
    watermarks = Watermarks({"long": NOW_NS - DAY_NS})
    absent = AbsentRows(plan, watermarks, lambda: NOW_NS, lambda: 7)
    (rows,) = [group for group in plan.groups if not group.block_ns]
    before = absent.asked()
    watermarks.until_ns = {"long": NOW_NS - HOUR_NS, "short": NOW_NS - HOUR_NS}
    after = absent.asked()
    assert (before.timer_ns, before.request_ns) == (7, NOW_NS)

    assert absent.trusted_ns(rows, ["row", "row"], before) == FOREVER_NS
    assert absent.trusted_ns(rows, [None, "row"], before) == DAY_NS
    assert absent.trusted_ns(rows, [None, None], before) < 0
    assert absent.trusted_ns(rows, [None, "row"], after) == 2 * DAY_NS - HOUR_NS
    assert absent.trusted_ns(rows, [None, None], after) == DAY_NS - HOUR_NS


def test_absent_blocks_are_trusted_whatever_is_complete() -> None:
    plan = workspace_plan({"s": [streamed("v", timedelta(days=2), None)]})
    absent = AbsentRows(plan, Watermarks(), lambda: NOW_NS, lambda: 0)

    def trusted_ns(group: ReadGroup) -> int:
        return absent.trusted_ns(group, [None] * len(group.row_places), absent.asked())

    assert {bool(group.block_ns): trusted_ns(group) for group in plan.groups} == {False: -1, True: FOREVER_NS}
