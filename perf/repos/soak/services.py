"""What soaks read and push to: rows of self-describing values, and totals that can be counted along."""

from __future__ import annotations

from datetime import timedelta

from fastserve import (
    Aggregate,
    Attribute,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    Float64,
    Int64,
    LifetimeWindow,
    PushSource,
    String,
    Timestamp,
)

user = Entity("user", join_keys=Field("user_id", String))


def described_view(name: str, *features: Attribute) -> FeatureView:
    """Make a view of look-ups."""
    source = FileSource(f"{name}_rows", f"{name}.parquet", timestamp_field="at")
    return FeatureView(name, entities=[user], source=source, features=[*features], timestamp_field="at")


numbers = [
    described_view(f"t{number:02d}", *[Attribute(name, Float64) for name in ("a", "b", "c", "version")])
    for number in range(50)
]
texts = [
    described_view(
        f"text{number}",
        Attribute("number", Int64),
        Attribute("text", String),
        Attribute("version", Float64),
    )
    for number in range(2)
]
wide = FeatureService("wide", features=[*numbers, *texts])
narrow = FeatureService("narrow", features=[*numbers[:4], texts[0]])

events = PushSource(
    "events",
    [Field("user_id", String), Field("at", Timestamp), Field("units", Int64)],
    timestamp_field="at",
)
totals = FeatureView(
    "totals",
    [user],
    events,
    [
        Aggregate(Field("units", Int64), function, LifetimeWindow(), name=function)
        for function in ("count", "sum")
    ],
    aggregation_interval=timedelta(minutes=5),
)
pushed = FeatureService("pushed", features=[totals])
