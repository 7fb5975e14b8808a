"""The services of an example feature repo; `assert_type` holds the public names to the types they promise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_type

from fastserve import Attribute, DataType, Entity, FeatureService, FeatureView, FeatureViewReference, Field

from .entities import user
from .views import pairs, profile, user_amounts

friend = profile[["age"]].with_name("friend").with_join_key_map({"user_id": "friend_id"})
fraud = FeatureService("fraud:v2", features=[user_amounts, profile, friend, pairs.with_name("visits")])

assert_type(user, Entity)
assert_type(user.join_keys, tuple[Field, ...])
assert_type(profile, FeatureView)
assert_type(profile.attributes, tuple[Attribute, ...])
assert_type(profile.output_type("age"), DataType)
assert_type(profile[["age"]], FeatureViewReference)
assert_type(friend, FeatureViewReference)
assert_type(friend.join_key_map, Mapping[str, str])
assert_type(fraud.references, tuple[FeatureViewReference, ...])
