"""The services of an example feature repo; `assert_type` holds the public names to the types they promise."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, assert_type

from fastserve import (
    Attribute,
    DataType,
    Entity,
    FeatureService,
    FeatureView,
    FeatureViewReference,
    Field,
    OnDemandFeatureView,
    OnDemandReference,
)

from .computed import Row, amount_ratio, columns_ratio, difference, shares, since_midnight
from .entities import user
from .views import pairs, profile, user_amounts

friend = profile[["age"]].with_name("friend").with_join_key_map({"user_id": "friend_id"})
fraud = FeatureService("fraud:v2", features=[user_amounts, profile, friend, pairs.with_name("visits")])

scoring = FeatureService(
    "scoring", features=[profile, amount_ratio, shares[["same_age"]].with_name("alike"), difference]
)
columns = FeatureService("columns", features=columns_ratio)

assert_type(user, Entity)
assert_type(user.join_keys, tuple[Field, ...])
assert_type(profile, FeatureView)
assert_type(profile.attributes, tuple[Attribute, ...])
assert_type(profile.output_type("age"), DataType)
assert_type(profile[["age"]], FeatureViewReference)
assert_type(friend, FeatureViewReference)
assert_type(friend.join_key_map, Mapping[str, str])
assert_type(fraud.references, tuple[FeatureViewReference, ...])

# The decorator keeps parameters and result: calling a view is calling its function.
assert_type(amount_ratio({"amount": 2.0}, {"amount_mean_7d_1h": 4.0}), Row)
assert_type(since_midnight.test_run({"request": {"amount": 1.0}}, datetime.now(UTC)), dict[str, Any])
assert_type(shares[["same_age"]], OnDemandReference)
assert_type(shares.with_name("alike"), OnDemandReference)
assert_type(difference.output_fields, tuple[Field, ...])
difference_view: OnDemandFeatureView[..., Mapping[str, Any]] = difference
assert_type(scoring.on_demand_references, tuple[OnDemandReference, ...])
