"""A view's ``aggregation_secondary_key``: the column that splits an entity's values, and its own features.

Invariants:
1. Every window of a view with such a key has one feature that gives the keys; arrays of that window are
   aligned with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fastserve.sdk.checks import Checks
from fastserve.sdk.features import Aggregate, Feature
from fastserve.sdk.functions import SECONDARY_KEYS, AggregateFunction
from fastserve.sdk.types import Field, Int64, String
from fastserve.sdk.windows import TimeWindowSeries

SECONDARY_KEY_TYPES: Final = (String, Int64)


def check_secondary_key(checks: Checks, value: object) -> Field | None:
    """Return the key when it is a field of a type that a key can have, None when none was given."""
    if value is None:
        return None
    what = "aggregation_secondary_key"
    key = checks.instance(what, value, Field, 'a Field such as Field("ad_id", String)')
    if key is not None and key.valid and key.dtype not in SECONDARY_KEY_TYPES:
        checks.wrong(f"{what} {key.name!r}", "String or Int64", key.dtype, key.location)
    return key


def secondary_keys(key: Field | None, features: Iterable[Feature]) -> list[Aggregate]:
    """Return the features that give the keys: one for each different window of the aggregates."""
    if key is None or not key.valid:
        return []
    windows = {
        feature.time_window: feature
        for feature in features
        if isinstance(feature, Aggregate)
        and feature.valid
        and not isinstance(feature.time_window, TimeWindowSeries)
    }
    return [
        Aggregate(
            key,
            AggregateFunction(SECONDARY_KEYS),
            window,
            name=f"{key.name}_keys_{window.label}",
            tail_hop=feature.tail_hop,
            description=f"The values of {key.name} that occur within {window.label}, sorted.",
        )
        for window, feature in windows.items()
    ]
