"""The page of one feature view or on-demand view: what it is made of, its features, who reads it.

Invariants
1. The page is a function of the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import cleandoc
from typing import Any

from fastserve.plan.explain_windows import duration_text, spec_text, window_costs
from fastserve.plan.views import ViewPlan, duration_ns
from fastserve.sdk.calculation import Calculation
from fastserve.sdk.features import Attribute
from fastserve.sdk.on_demand import OnDemandFeatureView
from fastserve.sdk.sources import FileSource, PushSource, Source
from fastserve.server.console.html import Child, Html, tag
from fastserve.server.console.layout import (
    Frame,
    Headings,
    chips,
    coded,
    facts,
    link,
    page,
    section,
    service_address,
    size_text,
    table,
    tags_of,
)
from fastserve.server.console.overview import kind_text, validity_text
from fastserve.server.console.service_page import UP, windows_table


def view_page(frame: Frame, plan: ViewPlan, services: Sequence[str]) -> bytes:
    """Return the page of a feature view that these services read."""
    view = plan.view
    windows = tuple(window_costs(plan))
    return page(
        frame,
        plan.name,
        UP,
        tag("p", link(f"{UP}#views", "Feature views"), class_="trail"),
        tag("h1", plan.name),
        tag("p", view.description, class_="lead") if view.description else None,
        facts(
            {
                "Kind": kind_text(plan),
                "Entities": chips(entity.name for entity in view.entities),
                "Join keys": chips(f"{field.name}: {field.dtype}" for field in plan.key_fields),
                "Timestamp": view.timestamp_field,
                "Tile": None if plan.interval_ns is None else duration_text(plan.interval_ns),
                "Leading edge": view.leading_edge.replace("_", " ") if view.is_aggregate else None,
                "Answers for": validity_text(plan),
                "Schedule": _duration(view.batch_schedule),
                "Start": None if view.start_time is None else view.start_time.isoformat(),
                "Cached for": _duration(view.cache_ttl),
                "Where the store fails": _duration(view.stale_ttl),
                "Tables": chips(plan.tables),
                "Store": view.store,
                "Row": _row_text(plan),
                "Owner": view.owner,
                "Tags": tags_of(view.tags),
                "Read by": _readers(services),
            }
        ),
        section("features", "Features", _features(plan)),
        section("source", "Source", _source(view.source), _transformation(plan)),
        section("windows", "Windows", windows_table(windows, of_one=True)) if windows else None,
    )


def _duration(value: Any) -> str | None:
    return None if value is None else duration_text(duration_ns(value))


def _row_text(plan: ViewPlan) -> str:
    if plan.feast is not None:
        return "an item that Feast wrote"
    if not plan.packed:
        return "an attribute per feature"
    variable = len(plan.layout.variable_columns)
    beside = f" and {variable} of variable width" if variable else ""
    return f"packed, {size_text(plan.layout.fixed_bytes)} fixed{beside}"


def _readers(services: Sequence[str]) -> Html:
    if not services:
        return tag("span", "no service")
    links = [link(f"{UP}{service_address(name)}", name) for name in services]
    return tag("span", *links, class_="links")


def _features(plan: ViewPlan) -> Html:
    view = plan.view
    made_of = (
        {} if plan.schema is None else {each.spec.name: spec_text(each.spec) for each in plan.schema.features}
    )
    columns: Headings = [coded("Feature"), coded("Type"), "Made of", "Description", "Tags"]
    tagged = any(feature.tags for feature in view.features)
    rows: list[list[Child]] = [
        [
            name,
            str(view.output_type(name)),
            made_of.get(name, f"column {name}"),
            feature.description,
            tags_of(feature.tags),
        ]
        for name, feature in zip(view.feature_names, view.features, strict=True)
    ]
    last = len(columns) if tagged else len(columns) - 1
    return table("Features", columns[:last], [row[:last] for row in rows], filtered=True)


def _source(source: Source) -> Html:
    if isinstance(source, FileSource):
        return facts(
            {
                "Name": source.name,
                "Kind": f"{source.format} files",
                "Files": chips(source.paths),
                "About": source.description,
                "Owner": source.owner,
                "Tags": tags_of(source.tags),
            }
        )
    about = {"About": source.description, "Owner": source.owner, "Tags": tags_of(source.tags)}
    if not isinstance(source, PushSource):
        return facts({"Name": source.name, "Kind": "rows that somebody else writes", **about})
    history = source.batch_source
    return facts(
        {
            "Name": source.name,
            "Kind": "pushed records",
            "Columns": chips(f"{field.name}: {field.dtype}" for field in source.schema),
            "History": None if history is None else chips(history.paths),
            **about,
        }
    )


def _transformation(plan: ViewPlan) -> Html | None:
    made = plan.view.transformation
    if made is None:
        return None
    if isinstance(made, str):
        return tag("pre", tag("code", cleandoc(made)), class_="sql", tabindex=0, aria_label="Transformation")
    return facts({"Transformation": f"function {getattr(made, '__name__', 'without a name')}"})


def on_demand_page(frame: Frame, view: OnDemandFeatureView[..., Any], services: Sequence[str]) -> bytes:
    """Return the page of an on-demand view that these services compute."""
    mode = view.mode if view.function is not None else "calculations"
    return page(
        frame,
        view.name,
        UP,
        tag("p", link(f"{UP}#on-demand", "On-demand views"), class_="trail"),
        tag("h1", view.name),
        tag("p", view.description, class_="lead") if view.description else None,
        facts(
            {
                "Kind": "computed when a request comes",
                "Mode": mode,
                "Runs": "in a helper process" if view.isolation == "process" else "in the worker",
                "Time limit": _duration(view.time_limit) or "the server's",
                "Request time": "is asked for" if view.needs_time else None,
                "Owner": view.owner,
                "Tags": tags_of(view.tags),
                "Read by": _readers(services),
            }
        ),
        section("features", "Features", _computed_features(view)),
        section("sources", "Sources", _inputs(view)),
    )


def _computed_features(view: OnDemandFeatureView[..., Any]) -> Html:
    columns: Headings = [coded("Feature"), coded("Type"), "Made of", "Description"]
    rows: list[list[Child]] = [
        [name, str(view.output_type(name)), _made_of(feature), feature.description]
        for name, feature in zip(view.feature_names, view.features, strict=True)
    ]
    return table("Features", columns, rows)


def _made_of(feature: Attribute | Calculation) -> Html | str:
    if isinstance(feature, Calculation):
        return tag("code", feature.expr)
    return "what the function returns"


def _inputs(view: OnDemandFeatureView[..., Any]) -> Html:
    columns: Headings = ["Source", coded("Fields")]
    rows: list[list[Child]] = [
        [each.name, chips(f"{field.name}: {field.dtype}" for field in each.fields)] for each in view.inputs
    ]
    return table("Sources", columns, rows)
