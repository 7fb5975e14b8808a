"""The console's first page: what happens now, and all services and views there are.

The catalogue is complete without a script; places for live figures are filled by one.

Invariants
1. The page is a function of the plan.
"""

from __future__ import annotations

from collections.abc import Mapping

from fastserve.plan.explain import Explanation
from fastserve.plan.explain_windows import duration_text
from fastserve.plan.service import WorkspacePlan
from fastserve.plan.views import ViewPlan, duration_ns
from fastserve.sdk.sources import ExternalSource, PushSource
from fastserve.server.console.html import Child, Html, join, tag
from fastserve.server.console.layout import (
    Column,
    Frame,
    Headings,
    chips,
    coded,
    counted,
    link,
    numbers,
    page,
    price_text,
    section,
    service_address,
    table,
    view_address,
)
from fastserve.server.feast_handler import counted_services

TILES = (
    ("rate", "Requests", "per second"),
    ("errors", "Errors", "of requests, 4xx and 5xx"),
    ("p50", "Latency p50", "in the server"),
    ("p99", "Latency p99", "in the server"),
    ("keys", "Store keys", "per second"),
    ("batch", "Keys per call", "read together"),
    ("flight", "In flight", "requests"),
    ("lag", "Loop lag p99", "of the workers"),
)
NOTHING_LIVE = "Live figures need JavaScript. The numbers behind them are on the page of metrics."


def overview(frame: Frame, plan: WorkspacePlan, explanations: Mapping[str, Explanation]) -> bytes:
    """Return the page."""
    return page(
        frame,
        "Overview",
        "./",
        tag("h1", "Overview", class_="unseen"),
        tag("noscript", tag("p", NOTHING_LIVE, class_="note")),
        _live(plan),
        _services(plan, explanations),
        _views(plan),
        _on_demand(plan),
        _sources(plan),
    )


def _live(plan: WorkspacePlan) -> Html:
    return tag(
        "div",
        tag("div", *(_tile(*each) for each in TILES), class_="tiles"),
        tag(
            "div",
            _chart("rate", "Throughput", "Requests per second, by service"),
            _chart("latency", "Latency", "From a request's last byte to its answer", _choice(plan)),
            class_="charts",
        ),
        _freshness(plan),
        class_="live",
        hidden=True,
        id="live",
    )


def _tile(name: str, label: str, remark: str) -> Html:
    return tag(
        "div",
        tag("span", label, class_="label"),
        tag("span", "–", class_="value", data_value=True),
        tag("span", remark, class_="remark"),
        tag("span", class_="spark", aria_hidden="true"),
        class_="tile",
        data_tile=name,
    )


def _choice(plan: WorkspacePlan) -> Html:
    options = [tag("option", "All services", value="")]
    options += [tag("option", name, value=name) for name in counted_services(plan)]
    return tag(
        "label", tag("span", "Service", class_="unseen"), tag("select", *options, id="latency-service")
    )


def _chart(name: str, heading: str, about: str, extra: Html | None = None) -> Html:
    return tag(
        "figure",
        tag("figcaption", tag("span", tag("strong", heading), tag("span", about)), extra),
        tag("div", class_="plot"),
        tag("ul", class_="legend"),
        class_="chart",
        data_chart=name,
    )


def _freshness(plan: WorkspacePlan) -> Html | None:
    """Return the table of ages; the script fills in what each is and draws it.

    When somebody else has written a view's rows, nobody here knows.
    """
    views = {
        name: view for name, view in plan.views.items() if not isinstance(view.view.source, ExternalSource)
    }
    if not views:
        return None
    columns = [Column("View"), numbers("Age"), Column("Of the longest that it answers for"), Column("")]
    rows = join(
        tag(
            "tr",
            tag("td", link(view_address(name), name)),
            tag("td", "–", class_="num", data_age=True),
            tag("td", class_="bar-cell", data_bar=True),
            tag("td", "", data_state=True),
            data_view=name,
            **_limits(view),
        )
        for name, view in views.items()
    )
    head = tag(
        "tr", *(tag("th", each.heading, scope="col", class_="num" * each.numbers or None) for each in columns)
    )
    inner = tag(
        "table", tag("caption", "Freshness of views", class_="unseen"), tag("thead", head), tag("tbody", rows)
    )
    about = (
        "Time since the moment up to which rows were materialized or compacted; pushed records aren't in it"
    )
    return tag(
        "figure",
        tag("figcaption", tag("span", tag("strong", "Freshness"), tag("span", about))),
        tag("div", inner, class_="box plain", tabindex=0, role="region", aria_label="Freshness of views"),
        class_="chart freshness",
    )


def _limits(view: ViewPlan) -> dict[str, str | int | None]:
    """Return after how many seconds the view is due, and after how many its rows don't answer."""
    schedule = view.view.batch_schedule
    limit_ns = view.schema.horizon_ns if view.schema else view.ttl_ns
    return {
        "data_due_s": None if schedule is None else duration_ns(schedule) // 10**9,
        "data_limit_s": None if limit_ns is None else limit_ns // 10**9,
    }


def _services(plan: WorkspacePlan, explanations: Mapping[str, Explanation]) -> Html:
    columns: Headings = [
        "Service",
        coded("Join keys"),
        numbers("Features"),
        numbers("Keys"),
        numbers("Read units"),
        numbers("Per million"),
        numbers("Requests/s"),
        numbers("p99"),
    ]
    rows: list[list[Child]] = []
    for name, service in plan.services.items():
        cost = explanations[name]
        described = service.service.description
        rows.append(
            [
                join(
                    [
                        link(service_address(name), name),
                        tag("span", described, class_="described") if described else None,
                    ]
                ),
                chips(field.name for field in service.join_keys),
                len(service.outputs),
                cost.keys,
                f"{cost.read_units:g}" if cost.is_priced else "–",
                price_text(cost.price_per_million_vectors_usd) if cost.is_priced else "–",
                tag("span", "–", data_service=name, data_figure="rate"),
                tag("span", "–", data_service=name, data_figure="p99"),
            ]
        )
    about = "What a model asks for. Keys, read units and price are those of one vector."
    return section("services", "Services", table("Services", columns, rows), about=about)


def _views(plan: WorkspacePlan) -> Html:
    columns: Headings = [
        "View",
        "Kind",
        coded("Join keys"),
        numbers("Features"),
        "Source",
        "Answers for",
        "Schedule",
    ]
    rows: list[list[Child]] = []
    for name, view in plan.views.items():
        described = view.view.description
        schedule = view.view.batch_schedule
        rows.append(
            [
                join(
                    [
                        link(view_address(name), name),
                        tag("span", described, class_="described") if described else None,
                    ]
                ),
                kind_text(view),
                chips(field.name for field in view.key_fields),
                len(view.view.features),
                view.view.source.name,
                validity_text(view),
                "–" if schedule is None else duration_text(duration_ns(schedule)),
            ]
        )
    return section("views", "Feature views", table("Feature views", columns, rows))


def kind_text(view: ViewPlan) -> str:
    """Return what kind of view it is, in words."""
    kind = "aggregates" if view.schema else "attributes"
    return f"{kind}, streamed" if view.is_streamed else kind


def validity_text(view: ViewPlan) -> str:
    """Return for how long a row answers, in words."""
    if view.schema is not None:
        return duration_text(view.schema.horizon_ns)
    return "ever" if view.ttl_ns is None else duration_text(view.ttl_ns)


def _on_demand(plan: WorkspacePlan) -> Html | None:
    found = {each.name: each.view for service in plan.services.values() for each in service.on_demand}
    if not found:
        return None
    columns: Headings = [
        "View",
        "Mode",
        "Runs",
        coded("Sources"),
        numbers("Features"),
        numbers("Vectors/s"),
        numbers("Time a vector"),
    ]
    rows: list[list[Child]] = [
        [
            join(
                [
                    link(view_address(name), name),
                    tag("span", view.description, class_="described") if view.description else None,
                ]
            ),
            view.mode if view.function is not None else "calculations",
            view.isolation,
            chips(source.name for source in view.sources),
            len(view.features),
            tag("span", "–", data_computed=name, data_of="rate"),
            tag("span", "–", data_computed=name, data_of="took"),
        ]
        for name, view in found.items()
    ]
    return section(
        "on-demand",
        "On-demand views",
        table("On-demand views", columns, rows),
        about="Computed when a request comes.",
    )


def _sources(plan: WorkspacePlan) -> Html | None:
    sources = {view.view.source.name: view.view.source for view in plan.views.values()}
    pushed = [source for source in sources.values() if isinstance(source, PushSource)]
    if not pushed:
        return None
    columns: Headings = ["Source", coded("Columns"), coded("Timestamp")]
    rows: list[list[Child]] = [
        [
            source.name,
            chips(f"{field.name}: {field.dtype}" for field in source.schema),
            source.timestamp_field or "–",
        ]
        for source in pushed
    ]
    about = f"{counted(len(pushed), 'source')} that records can be pushed to, by POST /ingest."
    return section("sources", "Push sources", table("Push sources", columns, rows), about=about)
