"""Services that differ in one thing at a time, for `python -m perf sweep`; each is named after it.

Every service has views and tables of its own.
"""

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
    String,
    TimeWindow,
)

user = Entity("user", join_keys=Field("user_id", String))
# The store keys of a request whose features stay as many.
ALL_FEATURES = 1_000


def source_of(name: str) -> FileSource:
    """Name where a view's rows would come from."""
    return FileSource(f"{name}_rows", f"{name}.parquet", timestamp_field="at")


def lookups(name: str, features: int) -> FeatureView:
    """Make a view of float64 look-ups."""
    return FeatureView(
        name,
        entities=[user],
        source=source_of(name),
        features=[Attribute(f"f{number:03d}", Float64) for number in range(features)],
        timestamp_field="at",
    )


def sums(name: str, features: int, days: int) -> FeatureView:
    """Make a view of sums over windows of one length."""
    return FeatureView(
        name,
        entities=[user],
        source=source_of(name),
        features=[
            Aggregate(
                Field(f"c{number:03d}", Float64),
                "sum",
                TimeWindow(timedelta(days=days)),
                tail_hop=timedelta(days=1),
            )
            for number in range(features)
        ],
        aggregation_interval=timedelta(hours=1),
        timestamp_field="at",
    )


def service_of(name: str, views: int, features: int) -> FeatureService:
    """Make a service of that many views of look-ups."""
    return FeatureService(
        name, features=[lookups(f"{name}_v{number:02d}", features) for number in range(views)]
    )


base = service_of("sweep_base", views=5, features=100)
by_features = [service_of(f"sweep_features_{count}", 1, count) for count in (10, 50, 100, 200, 500, 1_000)]
by_views = [service_of(f"sweep_views_{count}", count, 20) for count in (1, 2, 5, 10, 20, 50)]
by_keys = [service_of(f"sweep_keys_{count}", count, ALL_FEATURES // count) for count in (1, 2, 5, 10, 20, 50)]
by_window = [
    FeatureService(f"sweep_window_{days}", features=[sums(f"sweep_window_{days}_v", 100, days)])
    for days in (1, 7, 28, 356)
]
