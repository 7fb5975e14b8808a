"""The page of one feature service: what a vector costs, a form to ask for one, and the answer's schema.

Invariants
1. The page is a function of the plan, its explanation and the policy of asking.
2. What stands in the form are names and types, never values.
"""

from __future__ import annotations

import json

from fastserve.api.openapi_types import examples
from fastserve.plan.explain import PRICE_OF, Explanation, ReadCost, RowCost
from fastserve.plan.explain_windows import WindowCost
from fastserve.plan.service import ServicePlan
from fastserve.plan.sizes import ASSUMED_KEY_BYTES, ASSUMED_VARIABLE_BYTES
from fastserve.sdk.types import Array, Field, Map, Struct
from fastserve.server.console.html import Child, Html, join, tag
from fastserve.server.console.layout import (
    Frame,
    Headings,
    chips,
    code,
    coded,
    counted,
    facts,
    figures,
    link,
    numbers,
    page,
    price_text,
    section,
    size_text,
    table,
    tags_of,
    view_address,
)
from fastserve.server.console.trial import GET_FEATURES, Policy

UP = "../../"


def service_page(frame: Frame, plan: ServicePlan, cost: Explanation, policy: Policy, time: str) -> bytes:
    """Return the page; ``time`` is what the example's timestamps are."""
    service = plan.service
    return page(
        frame,
        plan.name,
        UP,
        tag("p", link(f"{UP}#services", "Services"), class_="trail"),
        tag("h1", plan.name),
        tag("p", service.description, class_="lead") if service.description else None,
        _now(plan),
        facts({"Owner": service.owner, "Tags": tags_of(service.tags)}),
        _costs(cost),
        _try(plan, policy, time),
        _answer(plan, cost),
        section("reads", "Reads", _reads(cost), about="A read is one key, looked up in all of its tables."),
        section("rows", "Rows", _rows(cost), about=_ASSUMED) if cost.rows else None,
        section("streams", "Streams", _streams(cost), about=_STREAMS) if cost.streams else None,
        section("windows", "Windows", windows_table(cost.windows)) if cost.windows else None,
        section("computed", "On-demand views", _computed(cost), about=_ORDER) if cost.computed else None,
    )


_ASSUMED = (
    f"Keys are taken to have {ASSUMED_KEY_BYTES} bytes, and texts, arrays, structs and maps "
    f"{ASSUMED_VARIABLE_BYTES}. Reading an item takes 0.5 units per started 4 KB, 1 where it is pushed to."
)
_STREAMS = "Blocks hold what was pushed after a row was written; a pushed event rewrites its block."
_ORDER = "In the order in which they are computed."


def _now(plan: ServicePlan) -> Html:
    """Return a line that the script fills in."""
    figure = {
        name: tag("span", "–", data_service=plan.name, data_figure=name) for name in ("rate", "p50", "p99")
    }
    return tag(
        "p",
        figure["rate"],
        " requests per second, latency ",
        figure["p50"],
        " (p50), ",
        figure["p99"],
        " (p99)",
        class_="now",
        hidden=True,
        data_now=True,
    )


def _costs(cost: Explanation) -> Html:
    calls = counted(cost.calls, "call")
    told = figures(
        [
            ("Features", f"{len(cost.outputs):,}", "in a vector"),
            ("Keys", f"{cost.keys:,}", f"in {counted(len(cost.reads), 'read')}, {calls}"),
            ("Bytes", size_text(cost.item_bytes), "in the store's items"),
            ("Read units", f"{cost.read_units:g}", "a vector"),
            ("Price", price_text(cost.price_per_million_vectors_usd), "per million vectors, in reads"),
        ]
    )
    return join(
        [
            told,
            tag(
                "p",
                f"Priced as {PRICE_OF}; a key without a row costs as much as a small one.",
                class_="about",
            ),
        ]
    )


# --- asking -----------------------------------------------------------------------------------------------


def _try(plan: ServicePlan, policy: Policy, time: str) -> Html:
    if not policy.is_open:
        return section(
            "try", "Try a query", tag("p", policy.reason, class_="note"), _curl(plan, policy, time)
        )
    fields = [_field("key", field) for field in plan.join_keys]
    fields += [_field("context", field) for field in plan.context_fields]
    if policy.needs_key:
        fields.append(_api_key())
    form = tag(
        "form",
        tag("div", *fields, class_="fields"),
        tag(
            "div",
            tag("button", "Ask", type="submit", class_="first"),
            tag("button", "Copy as curl", type="button", data_copy=True),
            tag("span", "", role="status", class_="told", data_told=True),
            class_="buttons",
        ),
        class_="try",
        autocomplete="off",
        data_service=plan.name,
        data_workspace=plan.workspace,
        data_needs_key=policy.needs_key,
    )
    answered = tag("div", aria_live="polite", data_answer=True)
    return section(
        "try",
        "Try a query",
        tag("noscript", tag("p", "The form needs JavaScript; the command below doesn't.", class_="note")),
        form,
        _curl(plan, policy, time),
        answered,
    )


def _field(kind: str, field: Field) -> Html:
    identity = f"{kind}-{field.name}"
    shared = {
        "id": identity,
        "data_kind": kind,
        "data_name": field.name,
        "data_type": str(field.dtype),
        "spellcheck": "false",
    }
    nested = isinstance(field.dtype, (Array, Map, Struct))
    entry = (
        tag("textarea", rows=2, placeholder="JSON", **shared)
        if nested
        else tag("input", type="text", autocapitalize="none", **shared)
    )
    return tag(
        "div",
        tag("label", code(field.name), tag("span", str(field.dtype), class_="type"), for_=identity),
        entry,
        tag(
            "label",
            tag("input", type="checkbox", data_null=identity, aria_label=f"{field.name} is null"),
            "null",
            class_="null",
        ),
        class_="field",
    )


def _api_key() -> Html:
    return tag(
        "div",
        tag("label", "API key", for_="api-key"),
        tag("input", id="api-key", type="password", autocomplete="off", spellcheck="false"),
        tag("span", "Sent with this query and kept nowhere.", class_="remark"),
        class_="field wide",
    )


def _curl(plan: ServicePlan, policy: Policy, time: str) -> Html:
    return tag(
        "pre",
        tag("code", curl_text(plan, policy, time), data_curl=True),
        class_="curl",
        tabindex=0,
        aria_label="The query as a curl command",
    )


def curl_text(plan: ServicePlan, policy: Policy, time: str) -> str:
    """Return a command that asks for a vector, with values of the right types."""
    params: dict[str, object] = {
        "workspaceName": plan.workspace,
        "featureServiceName": plan.name,
        "joinKeyMap": examples(plan.join_keys, time),
    }
    if plan.context_fields:
        params["requestContextMap"] = examples(plan.context_fields, time)
    lines = [f"curl -s {policy.serving_url}{GET_FEATURES}"]
    if policy.needs_key:
        lines.append('-H "Authorization: Tecton-key $FASTSERVE_API_KEY"')
    body = json.dumps({"params": params}, ensure_ascii=False)
    lines.append(f"-d {_quoted(body)}")
    return " \\\n  ".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# --- what it is made of -----------------------------------------------------------------------------------


def _answer(plan: ServicePlan, cost: Explanation) -> Html:
    columns: Headings = [numbers("#"), coded("Feature"), coded("Type"), "Made of", "Description"]
    rows: list[list[Child]] = []
    for number, (line, output) in enumerate(zip(cost.outputs, plan.outputs, strict=True), 1):
        rows.append([number, line.name, str(output.dtype), line.made_of, output.description])
    inner = table("The answer", columns, rows, filtered=True)
    return section("answer", "The answer", inner, about="Features stand in this order.")


def _reads(cost: Explanation) -> Html:
    columns: Headings = [numbers("Read"), coded("Join keys"), numbers("Keys"), coded("Tables")]
    rows: list[list[Child]] = [
        [number, chips(read.join_keys), len(read.tables), _tables(read)]
        for number, read in enumerate(cost.reads)
    ]
    return table("Reads", columns, rows)


def _tables(read: ReadCost) -> Html:
    block = None if read.block is None else tag("span", f"{read.block} block", class_="described")
    return join([chips(read.tables), block])


def _rows(cost: Explanation) -> Html:
    columns: Headings = [
        "View",
        "Kind",
        coded("Join keys"),
        numbers("Features"),
        numbers("Row"),
        numbers("Item"),
        numbers("Read units"),
        numbers("Write units"),
        "Answers for",
    ]
    rows: list[list[Child]] = [
        [
            link(f"{UP}{view_address(row.view)}", row.view),
            row.kind,
            chips(row.join_keys),
            row.features,
            size_text(row.row_bytes),
            size_text(row.item_bytes),
            f"{row.read_units:g}" if row.bundle is None else f"in {row.bundle}",
            row.write_units,
            _validity(row),
        ]
        for row in cost.rows
    ]
    return table("Rows", columns, rows)


def _validity(row: RowCost) -> str:
    if row.horizon is not None:
        return f"{row.horizon} after its as-of"
    return "ever" if row.ttl is None else f"{row.ttl} after its time"


def _streams(cost: Explanation) -> Html:
    columns: Headings = [
        "View",
        "Block",
        numbers("Keys"),
        numbers("Item, 1 tile"),
        numbers("Item, full"),
        numbers("Read units"),
        numbers("Read units, full"),
        numbers("Write units an event"),
    ]
    rows: list[list[Child]] = [
        [
            link(f"{UP}{view_address(each.view)}", each.view),
            each.block or "–",
            each.keys,
            size_text(each.item_bytes),
            size_text(each.full_item_bytes),
            f"{each.read_units:g}",
            f"{each.full_read_units:g}",
            f"{each.write_units:,} to {each.full_write_units:,}",
        ]
        for each in cost.streams
    ]
    return table("Streams", columns, rows)


def windows_table(windows: tuple[WindowCost, ...], *, of_one: bool = False) -> Html:
    """Return the table of how windows are cut; ``of_one`` view, whose name then needn't stand there."""
    columns: Headings = [
        "View",
        "Window",
        "Hop",
        "Tile",
        "Ends",
        numbers("Core"),
        numbers("Tails"),
        numbers("Heads"),
        numbers("Row bytes"),
        coded("Components"),
    ]
    rows: list[list[Child]] = [
        [
            link(f"{UP}{view_address(each.view)}", each.view),
            each.window,
            each.hop or "–",
            each.interval,
            each.leading_edge.replace("_", " "),
            each.core,
            each.tails,
            each.heads,
            each.row_bytes,
            chips(each.components),
        ]
        for each in windows
    ]
    first = 1 if of_one else 0
    return table("Windows", columns[first:], [row[first:] for row in rows])


def _computed(cost: Explanation) -> Html:
    columns: Headings = [
        "View",
        "Mode",
        "Runs",
        "Time limit",
        numbers("Features"),
        numbers("Answered"),
        coded("Sources"),
    ]
    rows: list[list[Child]] = [
        [
            link(f"{UP}{view_address(each.view)}", each.view),
            each.mode,
            each.isolation,
            each.time_limit or "the server's",
            each.features,
            each.answered,
            chips(each.sources),
        ]
        for each in cost.computed
    ]
    return table("On-demand views", columns, rows)
