"""A view of aggregates that is pushed to: sums, counts, means and extremes over 1, 7, 28 and 356 days."""

from __future__ import annotations

from datetime import timedelta

from fastserve import (
    Aggregate,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float64,
    PushSource,
    String,
    Timestamp,
    TimeWindow,
)

_AMOUNT = Field("amount", Float64)

USER = Entity("user", join_keys=Field("user_id", String))
PAYMENTS = PushSource(
    "payments",
    [Field("user_id", String), Field("at", Timestamp), _AMOUNT],
    timestamp_field="at",
)
SPENDING = FeatureView(
    "spending",
    [USER],
    PAYMENTS,
    [
        Aggregate(_AMOUNT, function, TimeWindow(timedelta(days=days)))
        for function in ("sum", "count", "mean", "min", "max")
        for days in (1, 7, 28, 356)
    ],
    aggregation_interval=timedelta(minutes=5),
)
SERVICE = FeatureService("spending", [SPENDING])
