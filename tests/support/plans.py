"""Services compiled without a folder: every type, attributes and aggregates, one and two join keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from fastserve import (
    Aggregate,
    Array,
    Attribute,
    AttributesFormat,
    Bool,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    Float32,
    Float64,
    Int64,
    Map,
    String,
    Struct,
    Timestamp,
)
from fastserve.plan.service import WorkspacePlan, plan_workspace
from fastserve.plan.views import ViewPlan
from fastserve.sdk.repo import Repo
from fastserve.sdk.service import AnyView
from fastserve.tiles.rows import RowBuilder, encode_row
from fastserve.tiles.windows import DAY_NS, HOUR_NS

USER = Entity("user", join_keys=Field("user_id", String))
SHOP = Entity("shop", join_keys=Field("shop_id", Int64))
EVENTS = FileSource("events", path="events.csv", timestamp_field="at")

ATTRIBUTES = {
    "a_int": Int64,
    "b_float": Float64,
    "c_single": Float32,
    "d_text": String,
    "e_bool": Bool,
    "f_time": Timestamp,
    "g_array": Array(Int64),
    "h_struct": Struct([Field("x", Float64), Field("y", String)]),
    "i_map": Map(String, Int64),
    "j_float": Float64,
}
INPUTS = {
    "amount": (Float64, ("sum", "mean", "count", "min", "max")),
    "units": (Int64, ("sum", "mean", "count", "min", "max")),
    "score": (Float32, ("sum", "min", "max")),
    "seen": (Timestamp, ("min", "max", "count")),
    "kind": (String, ("count",)),
}
WINDOWS = (timedelta(hours=3), timedelta(days=1), timedelta(days=28))

NOW_NS = 20_000 * DAY_NS + 10 * HOUR_NS
AS_OF_NS = NOW_NS - 7 * HOUR_NS
TTL = timedelta(hours=12)
TTL_NS = 12 * HOUR_NS


def attribute_view(
    name: str,
    names: Sequence[str] = tuple(ATTRIBUTES),
    *,
    entities: Sequence[Entity] = (USER,),
    ttl: timedelta | None = None,
    row_format: AttributesFormat | None = None,
    cache_ttl: timedelta | None = None,
    stale_ttl: timedelta | None = None,
    store: str | None = None,
) -> FeatureView:
    """Return a view with these of the `ATTRIBUTES`."""
    return FeatureView(
        name,
        entities=list(entities),
        source=EVENTS,
        ttl=ttl,
        row_format=row_format or "packed",
        cache_ttl=cache_ttl,
        stale_ttl=stale_ttl,
        store=store,
        features=[Attribute(n, ATTRIBUTES[n], description=f"What {n} is", tags={"of": n}) for n in names],
    )


def all_aggregates(windows: Sequence[timedelta] = WINDOWS) -> list[Aggregate]:
    """Return every function of every input over every window."""
    return [
        Aggregate(Field(column, dtype), function, window)
        for column, (dtype, functions) in INPUTS.items()
        for function in functions
        for window in windows
    ]


def aggregate_view(
    name: str,
    features: Sequence[Aggregate] | None = None,
    *,
    entities: Sequence[Entity] = (USER,),
    horizon: timedelta = timedelta(days=2),
) -> FeatureView:
    """Return a view of aggregates with an interval of an hour."""
    return FeatureView(
        name,
        entities=list(entities),
        source=EVENTS,
        features=list(features or all_aggregates()),
        aggregation_interval=timedelta(hours=1),
        horizon=horizon,
    )


def workspace_plan(services: Mapping[str, Sequence[AnyView]], prefix: str = "") -> WorkspacePlan:
    """Return the plan of a workspace ``w`` with these services."""
    made = {name: FeatureService(name, features=list(parts)) for name, parts in services.items()}
    views = {
        ref.view.name: ref.view
        for service in made.values()
        for ref in (*service.references, *service.source_references)
    }
    on_demand = {view.name: view for service in made.values() for view in service.on_demand_views}
    repo = Repo(Path(), "w", {}, {}, views, made, on_demand_views=on_demand)
    return plan_workspace(repo, prefix)


def attribute_row(view: ViewPlan, values: dict[str, Any], effective_ns: int = AS_OF_NS) -> bytes:
    """Return a packed row of the values that the view has; JSON columns as their bytes."""
    known = {name: value for name, value in values.items() if name in view.layout.by_name}
    return encode_row(view.layout, known, effective_ns)


def aggregate_row(
    view: ViewPlan, slots: Mapping[int, Sequence[float | int]], as_of_ns: int = AS_OF_NS
) -> bytes:
    """Return a compacted row whose components, by number, hold these slots."""
    assert view.schema is not None
    builder = RowBuilder(view.layout, 1)
    builder.set_effective_ns(as_of_ns)
    for number, component in enumerate(view.schema.components):
        if component.op.is_float:
            builder.set_words(component.word, np.array([slots[number]], np.float64))
        else:
            builder.set_words(component.word, np.array([slots[number]], np.int64))
    return builder.build()[0]
