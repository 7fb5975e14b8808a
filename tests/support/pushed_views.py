"""Views of one push source: an aggregate of a week and the latest attribute; with a service, a repo."""

from __future__ import annotations

PUSHED_VIEWS = """
from datetime import timedelta
from fastserve import *

user = Entity("user", Field("user_id", String))
pushes = PushSource(
    "pushes",
    [Field("user_id", String), Field("at", Timestamp), Field("cents", Int64), Field("shop", String)],
    timestamp_field="at",
)
spend = FeatureView(
    "spend", user, pushes,
    [Aggregate(Field("cents", Int64), "sum", TimeWindow(timedelta(days=7)), name="cents"),
     Aggregate(Field("cents", Int64), "count", TimeWindow(timedelta(days=7)), name="count")],
    aggregation_interval=timedelta(minutes=5),
)
latest = FeatureView("latest", user, pushes, [Attribute("shop", String)])
"""
