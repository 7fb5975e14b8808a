"""The twin's questions as definitions of views, and twin and view side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fastserve import (
    Aggregate,
    AggregateFunction,
    Bool,
    DataType,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    Float32,
    Float64,
    Int64,
    LifetimeWindow,
    PushSource,
    String,
    Timestamp,
    TimeWindow,
    TimeWindowSeries,
)
from fastserve.sdk.repo import Repo
from fastserve.sdk.sources import Source
from tests.differential.twin import Lifetime, Period, Rules, Series, Wanted

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
USER = Entity("user", Field("user_id", String))
COLUMNS: Mapping[str, DataType] = {
    "amount": Float64,
    "units": Int64,
    "kind": String,
    "flag": Bool,
    "seen": Timestamp,
    "score": Float32,
    "shop": String,
    "shelf": Int64,
}
TIME = "at"
DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "approx_count_distinct": {"precision": 8},
    "approx_percentile": {"precision": 100},
}


@dataclass(frozen=True, slots=True)
class Definition:
    """A view and what the twin is asked for each of its features."""

    view: FeatureView
    rules: Rules
    asked: Mapping[str, Wanted]
    horizon_ns: int
    start_ns: int | None = None


def duration(time_ns: int) -> timedelta:
    """Return a duration as definitions have it."""
    assert time_ns % 1_000 == 0
    return timedelta(microseconds=time_ns // 1_000)


def window_of(period: Period) -> TimeWindow | LifetimeWindow | TimeWindowSeries:
    """Return a period as definitions have it."""
    if isinstance(period, Lifetime):
        return LifetimeWindow()
    if isinstance(period, Series):
        return TimeWindowSeries(
            series_start=duration(period.start_ns),
            series_end=duration(period.end_ns),
            window_size=duration(period.size_ns),
            step_size=duration(period.step_ns),
        )
    return TimeWindow(duration(period.size_ns), offset=duration(period.offset_ns))


def aggregate_of(wanted: Wanted, name: str, columns: Mapping[str, DataType] = COLUMNS) -> Aggregate:
    """Return an aggregate as definitions have it."""
    order = ("n", "percentile", "precision")
    params = {**DEFAULTS.get(wanted.function, {}), **wanted.params}
    return Aggregate(
        Field(wanted.column, columns[wanted.column]),
        AggregateFunction(wanted.function, tuple((key, params[key]) for key in order if key in params)),
        window_of(wanted.period),
        name=name,
        tail_hop=None if wanted.hop_ns is None else duration(wanted.hop_ns),
    )


def push_source(name: str, history: str | None) -> PushSource:
    """Return a source of events with all columns, and with files behind it if there are any."""
    fields = [Field("user_id", String), Field(TIME, Timestamp)]
    fields += [Field(column, dtype) for column, dtype in COLUMNS.items()]
    return PushSource(name, fields, None if history is None else file_source(history), timestamp_field=TIME)


def file_source(path: str) -> FileSource:
    """Return the files of events."""
    return FileSource("history", path, timestamp_field=TIME)


def define(
    name: str,
    source: Source,
    rules: Rules,
    asked: Sequence[Wanted] | Mapping[str, Wanted],
    horizon_ns: int,
    start_ns: int | None = None,
) -> Definition:
    """Return a view with these aggregates; those of a view have one secondary key, or none.

    With a key all aggregates over one window have the first one's hop: others are refused.
    """
    if not isinstance(asked, Mapping):
        asked = {f"f{number}": wanted for number, wanted in enumerate(asked)}
    named = dict(asked)
    (secondary,) = {wanted.secondary for wanted in named.values()}
    if secondary is not None:
        hops: dict[object, int | None] = {}
        for feature, w in named.items():
            named[feature] = replace(w, hop_ns=hops.setdefault(window_of(w.period), w.hop_ns))
    view = FeatureView(
        name,
        entities=[USER],
        source=source,
        features=[aggregate_of(wanted, feature) for feature, wanted in named.items()],
        aggregation_interval=duration(rules.interval_ns),
        leading_edge="last_complete_tile" if rules.last_complete_tile else "now",
        horizon=duration(horizon_ns),
        start_time=None if start_ns is None else EPOCH + duration(start_ns),
        aggregation_secondary_key=None if secondary is None else Field(secondary, COLUMNS[secondary]),
    )
    for added in view.aggregates[len(asked) :]:  # the secondary keys
        like = next(w for w in named.values() if window_of(w.period) == added.time_window)
        assert added.name is not None
        named[added.name] = replace(like, function="secondary_keys", column=str(secondary), params={})
    return Definition(view, rules, named, horizon_ns, start_ns)


def repo_of(folder: Path, *definitions: Definition) -> Repo:
    """Return a repo of these views, with a service for each under the view's name."""
    views = {definition.view.name: definition.view for definition in definitions}
    sources: dict[str, Any] = {view.source.name: view.source for view in views.values()}
    for view in views.values():
        if view.batch_source is not None:
            sources[view.batch_source.name] = view.batch_source
    services = {name: FeatureService(name, [view]) for name, view in views.items()}
    return Repo(folder, "w", {"user": USER}, sources, views, services, on_demand_views={})
