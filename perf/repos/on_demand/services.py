"""The measured on-demand views: how alike two sets of 20 strings are, stored or sent; and next to nothing.

The same function is written for one request in plain Python and for all requests of a batch.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import numpy as np

from fastserve import (
    Array,
    Attribute,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    Float64,
    RequestSource,
    String,
    on_demand_feature_view,
)

user = Entity("user", join_keys=Field("user_id", String))
visits = FeatureView(
    "visits",
    entities=[user],
    source=FileSource("visit_rows", "visits.parquet", timestamp_field="at"),
    features=[Attribute("places", Array(String))],
    timestamp_field="at",
)
visits_a = visits.with_name("visits_a").with_join_key_map({"user_id": "user_a"})
visits_b = visits.with_name("visits_b").with_join_key_map({"user_id": "user_b"})
sent = RequestSource(schema=[Field("places_a", Array(String)), Field("places_b", Array(String))])
amounts = RequestSource(schema=[Field("amount", Float64)])


def similarity(left: list[str] | None, right: list[str] | None) -> float:
    """Return the Jaccard similarity of two lists' values."""
    a, b = set(left or ()), set(right or ())
    together = len(a | b)
    return len(a & b) / together if together else 0.0


def similarities(left: Any, right: Any) -> Any:
    """Return the similarity of each pair in two object arrays."""
    return np.fromiter(map(similarity, left, right), np.float64, len(left))


@on_demand_feature_view(sources=[visits_a, visits_b], features=[Attribute("similarity", Float64)])
def alike(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Compare two users' places."""
    return {"similarity": similarity(a["places"], b["places"])}


@on_demand_feature_view(
    sources=[visits_a, visits_b], features=[Attribute("similarity", Float64)], mode="numpy"
)
def alike_columns(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Compare two users' places, for a batch."""
    return {"similarity": similarities(a["places"], b["places"])}


@on_demand_feature_view(sources=[sent], features=[Attribute("similarity", Float64)])
def sent_alike(request: dict[str, Any]) -> dict[str, Any]:
    """Compare two sets that the request brings."""
    return {"similarity": similarity(request["places_a"], request["places_b"])}


@on_demand_feature_view(sources=[sent], features=[Attribute("similarity", Float64)], mode="numpy")
def sent_alike_columns(request: dict[str, Any]) -> dict[str, Any]:
    """Compare two sets that the requests of a batch bring."""
    return {"similarity": similarities(request["places_a"], request["places_b"])}


@on_demand_feature_view(sources=[amounts], features=[Attribute("doubled", Float64)])
def doubled(request: dict[str, Any]) -> dict[str, Any]:
    """Double a number: what is left is the framework's."""
    return {"doubled": request["amount"] * 2.0}


@on_demand_feature_view(sources=[amounts], features=[Attribute("doubled", Float64)], mode="numpy")
def doubled_columns(request: dict[str, Any]) -> dict[str, Any]:
    """Double the numbers of a batch."""
    return {"doubled": request["amount"] * 2.0}


@on_demand_feature_view(
    sources=[amounts],
    features=[Attribute("doubled", Float64)],
    isolation="process",
    time_limit=timedelta(milliseconds=200),
)
def standstill(request: dict[str, Any]) -> dict[str, Any]:
    """Double a number far too late; without isolation it would hold up the whole worker."""
    time.sleep(60)
    return {"doubled": request["amount"] * 2.0}


jaccard_python = FeatureService("jaccard_python", features=[alike])
jaccard_numpy = FeatureService("jaccard_numpy", features=[alike_columns])
jaccard_sent_python = FeatureService("jaccard_sent_python", features=[sent_alike])
jaccard_sent_numpy = FeatureService("jaccard_sent_numpy", features=[sent_alike_columns])
trivial_python = FeatureService("trivial_python", features=[doubled])
trivial_numpy = FeatureService("trivial_numpy", features=[doubled_columns])
standstill_alone = FeatureService("standstill", features=[standstill])
