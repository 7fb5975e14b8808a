"""The page of one feature service: what a vector costs, a form to ask for one, and the answer's schema.

Invariants
1. The page is a function of the plan, its explanation and the policy of asking.
"""

from __future__ import annotations

from fastserve.plan.explain import PRICE_OF, Explanation, ReadCost, RowCost
from fastserve.plan.explain_streams import StreamCost
from fastserve.plan.explain_windows import WindowCost
from fastserve.plan.service import ServicePlan
from fastserve.plan.sizes import ASSUMED_KEY_BYTES, ASSUMED_VARIABLE_BYTES
from fastserve.server.console.html import Child, Html, join, tag
from fastserve.server.console.layout import (
    Frame,
    Headings,
    chips,
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
from fastserve.server.console.query_form import query_section
from fastserve.server.console.trial import Policy

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
        query_section(plan, policy, time),
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
    told = [
        ("Features", f"{len(cost.outputs):,}", "in a vector"),
        ("Keys", f"{cost.keys:,}", f"in {counted(len(cost.reads), 'read')}, {calls}"),
        ("Bytes", size_text(cost.item_bytes), "in the store's items"),
    ]
    about = []
    if cost.is_priced:
        told += [
            ("Read units", f"{cost.read_units:g}", "a vector"),
            ("Price", price_text(cost.price_per_million_vectors_usd), "per million vectors, in reads"),
        ]
        about.append(f"Priced as {PRICE_OF}; a key without a row costs as much as a small one.")
    if cost.unpriced_stores:
        about.append("Redis charges nothing for reads and writes.")
    return join([figures(told), tag("p", " ".join(about), class_="about")])


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
            _units(row) if row.bundle is None else f"in {row.bundle}",
            row.write_units if row.priced else "–",
            _validity(row),
        ]
        for row in cost.rows
    ]
    return table("Rows", columns, rows)


def _units(cost: RowCost | StreamCost) -> str:
    return f"{cost.read_units:g}" if cost.priced else "–"


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
            _units(each),
            f"{each.full_read_units:g}" if each.priced else "–",
            f"{each.write_units:,} to {each.full_write_units:,}" if each.priced else "–",
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
