"""How a measured service is made up, of V views with F features each or as the article has it.

This file defines nothing itself.

Three of four views are aggregates: sums over 1, 7, 28 and 356 days, 1,000 to 1,250 to 1,250 to 250 of them
as in the article. With a tail hop of a day and a horizon of two, a stored row has a core and two tails for
each sum (two tails for the day's), so about three numbers a feature. Every service has views and tables of
its own: nothing is shared that a lone service would not share. With a ``bundle`` its views share an item.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

from fastserve import (
    Aggregate,
    Attribute,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    Float64,
    TimeWindow,
)

from .entities import user

# Window in days -> its share of all aggregates (1,000, 1,250, 1,250 and 250 of 3,750).
WINDOW_SHARES = {1: 4 / 15, 7: 1 / 3, 28: 1 / 3, 356: 1 / 15}
HOP = timedelta(days=1)


def lookup_view(name: str, features: int, bundle: str | None = None) -> FeatureView:
    """Make a view of float64 look-ups."""
    return FeatureView(
        name,
        entities=[user],
        source=FileSource(f"{name}_rows", f"{name}.parquet", timestamp_field="at"),
        features=[Attribute(f"f{number:03d}", Float64) for number in range(features)],
        timestamp_field="at",
        bundle=bundle,
    )


def aggregate_view(name: str, features: int, bundle: str | None = None) -> FeatureView:
    """Make a view of sums over the article's windows."""
    return _sums_view(name, _columns_by_window(features), bundle)


def _sums_view(name: str, columns_by_window: dict[int, int], bundle: str | None) -> FeatureView:
    return FeatureView(
        name,
        entities=[user],
        source=FileSource(f"{name}_events", f"{name}.parquet", timestamp_field="at"),
        features=[
            Aggregate(Field(f"c{column:02d}", Float64), "sum", TimeWindow(timedelta(days=days)), tail_hop=HOP)
            for days, columns in columns_by_window.items()
            for column in range(columns)
        ],
        aggregation_interval=timedelta(hours=1),
        timestamp_field="at",
        bundle=bundle,
    )


def article_service(name: str, views: int, features: int, bundle: str | None = None) -> FeatureService:
    """Make a service with the article's counts, to one: a quarter look-ups, the rest by window.

    Of 5,000: 1,250 look-ups, 1,000 sums over a day, 1,250 each over 7 and 28 days, 250 over 356.
    """
    lookups = max(1, round(views / 4))
    aggregates = views - lookups
    sums = features * 3 // 4
    counts = {days: round(sums * share) for days, share in WINDOW_SHARES.items()}
    made = [
        lookup_view(f"{name}_v{number:02d}", part, bundle)
        for number, part in enumerate(_parts(features - sums, lookups))
    ]
    by_window = {days: _parts(count, aggregates) for days, count in counts.items()}
    made += [
        _sums_view(
            f"{name}_v{lookups + number:02d}",
            {days: part[number] for days, part in by_window.items()},
            bundle,
        )
        for number in range(aggregates)
    ]
    return FeatureService(name, features=made)


def service_of(name: str, views: int, features: int, bundle: str | None = None) -> FeatureService:
    """Make a service of that many views: a quarter look-ups, rounded, and at least one."""
    lookups = max(1, round(views / 4))
    made = [
        lookup_view(f"{name}_v{number:02d}", features, bundle)
        if number < lookups
        else aggregate_view(f"{name}_v{number:02d}", features, bundle)
        for number in range(views)
    ]
    return FeatureService(name, features=made)


def _columns_by_window(features: int) -> dict[int, int]:
    counts = {days: round(features * share) for days, share in WINDOW_SHARES.items()}
    counts[7] += features - sum(counts.values())
    return counts


def _parts(total: int, count: int) -> list[int]:
    """Split a number into as many parts, equal to one."""
    edges = [total * number // count for number in range(count + 1)]
    return [high - low for low, high in pairwise(edges)]
