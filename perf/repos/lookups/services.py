"""The measured services without aggregates: each feature is one stored number."""

from __future__ import annotations

from fastserve import Attribute, Entity, FeatureService, FeatureView, Field, FileSource, Float64, String

user = Entity("user", join_keys=Field("user_id", String))


def lookup_view(name: str, features: int) -> FeatureView:
    """Make a view of float64 look-ups."""
    return FeatureView(
        name,
        entities=[user],
        source=FileSource(f"{name}_rows", f"{name}.parquet", timestamp_field="at"),
        features=[Attribute(f"f{number:03d}", Float64) for number in range(features)],
        timestamp_field="at",
    )


def service_of(name: str, views: int, features: int) -> FeatureService:
    """Make a service of look-ups with tables of its own."""
    return FeatureService(
        name, features=[lookup_view(f"{name}_v{number:02d}", features) for number in range(views)]
    )


lookups_1x10 = service_of("lookups_1x10", views=1, features=10)
lookups_1x100 = service_of("lookups_1x100", views=1, features=100)
lookups_5x100 = service_of("lookups_5x100", views=5, features=100)
lookups_10x100 = service_of("lookups_10x100", views=10, features=100)
lookups_50x100 = service_of("lookups_50x100", views=50, features=100)
