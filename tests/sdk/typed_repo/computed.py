"""The on-demand views of an example feature repo: every parameter of the decorator, as its type allows it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fastserve import (
    Attribute,
    Bool,
    Calculation,
    Field,
    Float64,
    Int64,
    OnDemandFeatureView,
    RequestContext,
    RequestSource,
    on_demand_feature_view,
)

from .views import profile, user_amounts

Row = dict[str, Any]

request = RequestSource(schema=[Field("amount", Float64)])
ages = profile[["age"]]


@on_demand_feature_view(
    sources=[request, user_amounts[["amount_mean_7d_1h"]]],
    features=[
        Attribute("ratio", Float64, description="The amount, in usual amounts."),
        Calculation("is_large", "amount > 1000", description="Above a thousand."),
    ],
    description="How unusual the amount is.",
    tags={"team": "risk"},
    owner="risk",
)
def amount_ratio(request: Row, amounts: Row) -> Row:
    """Return the amount in usual amounts."""
    mean = amounts["amount_mean_7d_1h"]
    return {"ratio": request["amount"] / mean if mean else None}


@on_demand_feature_view(
    sources=[request], features=[Attribute("ratio", Float64)], mode="numpy", time_limit=timedelta(seconds=1)
)
def columns_ratio(request: dict[str, Any]) -> dict[str, Any]:
    """Return the amounts in thousands, for all requests of a batch at once."""
    return {"ratio": request["amount"] / 1000}


@on_demand_feature_view(
    name="shares",
    sources=[
        ages.with_name("a").with_join_key_map({"user_id": "user_a"}),
        ages.with_name("b").with_join_key_map({"user_id": "user_b"}),
        amount_ratio[["ratio"]],
    ],
    features=[Attribute("same_age", Bool), Attribute("difference", Int64)],
    isolation="process",
)
def shares(a: Row, b: Row, ratio: Row) -> Row:
    """Return what two users have in common."""
    if a["age"] is None or b["age"] is None:
        return {"same_age": None, "difference": None}
    return {"same_age": a["age"] == b["age"], "difference": abs(a["age"] - b["age"])}


@on_demand_feature_view(sources=request, features=[Attribute("seconds", Int64)])
def since_midnight(request: Row, context: RequestContext) -> Row:
    """Return the seconds since midnight, UTC."""
    time = context.request_timestamp
    return {"seconds": time.hour * 3600 + time.minute * 60 + time.second}


difference = OnDemandFeatureView(
    "difference",
    sources=[request, user_amounts[["amount_max_28d_1h"]], amount_ratio],
    features=[Calculation("below_max", "COALESCE(amount_max_28d_1h, 0) - amount", Float64)],
)
