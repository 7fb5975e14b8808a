from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from fastserve import Aggregate, Attribute, Entity, FeatureView, Field, Float64, PushSource, String, Timestamp
from fastserve.plan.streams import stream_plan
from fastserve.plan.views import plan_view
from fastserve.tiles.windows import DAY_NS, HOUR_NS, MINUTE_NS

USER = Entity("user", join_keys=Field("user_id", String))
PUSHED = PushSource(
    "pushed",
    [Field("user_id", String), Field("at", Timestamp), Field("amount", Float64)],
    timestamp_field="at",
)


@given(
    interval_ns=st.integers(1, 90).map(lambda minutes: minutes * MINUTE_NS),
    horizon_ns=st.integers(1, 3 * DAY_NS),
    as_of_ns=st.integers(-(10**18), 2 * 10**18),
    later=st.floats(0, 1),
)
def test_what_came_after_a_row_lies_in_the_two_blocks_that_are_read(
    interval_ns: int, horizon_ns: int, as_of_ns: int, later: float
) -> None:
    plan = stream_plan("t", horizon_ns, interval_ns)
    time_ns = as_of_ns + int(horizon_ns * later)
    assert plan.block_of(as_of_ns) >= plan.block_of(time_ns) - 1
    assert plan.start_ns(plan.block_of(time_ns)) <= time_ns < plan.start_ns(plan.block_of(time_ns) + 1)
    assert plan.block_ns % interval_ns == 0


def test_aggregates_of_a_push_source_have_blocks_beside_their_rows() -> None:
    view = FeatureView(
        "sums",
        entities=[USER],
        source=PUSHED,
        features=[Aggregate(Field("amount", Float64), "sum", timedelta(hours=20))],
        aggregation_interval=timedelta(hours=5),
        horizon=timedelta(days=2),
    )
    plan = plan_view(view, "prod", "pre.")
    assert plan.stream is not None
    assert plan.stream.table == "pre.prod.sums.stream"
    assert plan.stream.block_ns == 50 * HOUR_NS
    assert plan.is_streamed


def test_attributes_of_a_push_source_have_rows_alone() -> None:
    view = FeatureView("last", entities=[USER], source=PUSHED, features=[Attribute("amount", Float64)])
    plan = plan_view(view, "prod", "")
    assert plan.stream is None
    assert plan.is_streamed
