"""An explanation set for a reader: the totals, then a table each for reads, rows, windows and the answer.

It computes nothing: what it prints stands in the `Explanation`.

Invariants
1. No line depends on the terminal; the same explanation gives the same text.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastserve.plan.explain import (
    PRICE_OF,
    PRICE_PER_MILLION_READ_UNITS_USD,
    Explanation,
    ReadCost,
    RowCost,
)
from fastserve.plan.explain_bundles import MAX_BUNDLE_BYTES, PRICE_PER_MILLION_WRITE_UNITS_USD, BundleCost
from fastserve.plan.explain_streams import StreamCost
from fastserve.plan.sizes import ASSUMED_KEY_BYTES, ASSUMED_VARIABLE_BYTES
from fastserve.plan.text_table import text_table

NO_PRICE = "Redis charges nothing for reads and writes, it is paid for by its memory"


def explain_text(explanation: Explanation) -> str:
    """Return the explanation as plain text, with a line break at its end."""
    parts = [_head(explanation), _totals(explanation)]
    if explanation.rows:
        parts += [_reads_table(explanation), _rows_table(explanation)]
    if explanation.bundles:
        parts.append(_bundles_table(explanation))
    if explanation.streams:
        parts.append(_streams_table(explanation))
    if explanation.windows:
        parts.append(_windows_table(explanation))
    if explanation.computed:
        parts.append(_computed_table(explanation))
    parts.append(_outputs_table(explanation))
    return "\n\n".join(parts) + "\n"


def _head(explanation: Explanation) -> str:
    lines = [f"Service {explanation.service} in workspace {explanation.workspace}"]
    if explanation.description:
        lines.append(explanation.description)
    if explanation.join_keys or not explanation.request_context:
        lines.append(f"Join keys: {_fields(explanation.join_keys)}")
    if explanation.request_context:
        lines.append(f"Request context: {_fields(explanation.request_context)}")
    return "\n".join(lines)


def _fields(fields: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name}: {dtype}" for name, dtype in fields)


def _totals(e: Explanation) -> str:
    blocks = ""
    if e.stream_keys:
        blocks = f"\n{'':14}without blocks {e.keys - e.stream_keys:,} keys"
        blocks += f", {e.read_units - e.stream_read_units:,g} read units" if e.is_priced else ""
    call = "call" if e.unpriced_stores else "BatchGetItem call"
    lines = {
        "features": f"{len(e.outputs):,}",
        "keys": f"{e.keys:,} in {_count(len(e.reads), 'read')}, {_count(e.calls, call)}" + blocks,
        "bytes": f"{e.item_bytes:,} in items, of which {e.row_bytes:,} are fixed parts of rows",
    }
    if e.is_priced:
        lines["read units"] = f"{e.read_units:,g}, {_consistency(e)}"
        lines["price"] = f"{e.price_per_million_vectors_usd:,.4g} USD per million vectors, {_unit_price(e)}"
    if e.unpriced_stores:
        lines["no price"] = f"{_stores(e.unpriced_stores)}: {NO_PRICE}"
    return "\n".join(["One vector costs", *(f"  {name:<10}  {text}" for name, text in lines.items())])


def _stores(names: Sequence[str]) -> str:
    return ", ".join(f"store {name!r}" if name else "the main store" for name in names)


def _consistency(explanation: Explanation) -> str:
    if explanation.reads_consistently:
        return "consistent where a table is pushed to, else eventually consistent, for half as much"
    return "eventually consistent (consistent reads cost twice that)"


def _unit_price(explanation: Explanation) -> str:
    price = explanation.price_per_million_read_units_usd
    given = f"at {price:g} USD per million read request units"
    if price != PRICE_PER_MILLION_READ_UNITS_USD:
        return given
    return f"{given}\n{'':14}({PRICE_OF}; --price-per-million-read-units gives another)"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _reads_table(explanation: Explanation) -> str:
    rows = [
        [str(number), ", ".join(read.join_keys), str(len(read.tables)), _tables(read)]
        for number, read in enumerate(explanation.reads)
    ]
    table = text_table(["read", "join keys", "keys", "tables"], rows, {"read", "keys"}, "  ")
    return f"Reads (a read is one key, looked up in all of its tables)\n{table}"


def _tables(read: ReadCost) -> str:
    tables = ", ".join(read.tables)
    notes = [f"{read.block} block"] if read.block is not None else []
    notes += [f"a bundle, {_count(read.rows, 'row')} of its item"] if read.rows is not None else []
    notes += [f"store {read.store!r}"] if read.store is not None else []
    return f"{tables} ({', '.join(notes)})" if notes else tables


def _streams_table(explanation: Explanation) -> str:
    rows = []
    for cost in explanation.streams:
        few = "1 tile" if cost.keys else ""
        rows.append([cost.view, cost.block, str(cost.keys), few, *_stream_figures(cost)])
        if cost.keys:
            many = f"{cost.full_tiles:,} tiles"
            rows.append(["", "", "", many, *_full_stream_figures(cost)])
    headings = ["view", "block", "keys", "blocks of", "item bytes", "read units", "write units an event"]
    table = text_table(headings, rows, set(headings[1:]), "  ")
    title = "Streams (blocks hold what was pushed after a row's as-of; a pushed event rewrites its block)"
    notes = [
        f"  Full blocks of {cost.view} are more than an item can have: few keys may have so many tiles."
        for cost in explanation.streams
        if not cost.fits
    ]
    return "\n".join([title, table, *notes])


def _stream_figures(cost: StreamCost) -> list[str]:
    size = f"{cost.item_bytes:,}"
    if not cost.priced:
        return [size, "", ""]
    return [size, f"{cost.read_units:g}" if cost.keys else "", f"{cost.write_units:,}"]


def _full_stream_figures(cost: StreamCost) -> list[str]:
    units = [f"{cost.full_read_units:g}", f"{cost.full_write_units:,}"] if cost.priced else ["", ""]
    return [f"{cost.full_item_bytes:,}", *units]


def _rows_table(explanation: Explanation) -> str:
    rows = [
        [
            row.view,
            row.kind,
            ", ".join(row.join_keys),
            str(row.features),
            f"{row.row_bytes:,}",
            f"{row.item_bytes:,}",
            f"{row.read_units:g}" if row.bundle is None and row.priced else "",
            f"{row.write_units:,}" if row.priced else "",
            _validity(row),
        ]
        for row in explanation.rows
    ]
    headings = [
        "view",
        "kind",
        "join keys",
        "features",
        "row bytes",
        "item bytes",
        "read units",
        "write units",
    ]
    table = text_table([*headings, "answers for"], rows, set(headings[3:]), "  ")
    assumed = (
        f"  Items are taken to have keys of {ASSUMED_KEY_BYTES} bytes, and texts, arrays, structs and maps "
        f"of {ASSUMED_VARIABLE_BYTES}.\n  A key without a row costs as much as a small one."
    )
    title = "Rows"
    if explanation.is_priced:
        pushed = ", 1 of a table that is pushed to" if explanation.reads_consistently else ""
        title += f" (reading an item takes 0.5 units per started 4 KB{pushed}, writing it 1 per started 1 KB)"
    return f"{title}\n{table}\n{assumed}"


def _bundles_table(explanation: Explanation) -> str:
    price = explanation.price_per_million_read_units_usd
    rows = []
    for cost in explanation.bundles:
        name = cost.bundle or "(none)"
        of = f"{cost.views_read} of {len(cost.views)}"
        rows.append([name, ", ".join(cost.join_keys), of, "bundled", *_bundle_figures(cost, price)])
        rows.append(["", "", "", "apart", *_apart_figures(cost, price)])
    headings = ["bundle", "entity", "views read", "", "keys", "bytes", "read units", "USD per million"]
    headings += ["write units a row", "all rows of a key"]
    table = text_table(headings, rows, set(headings[4:]), "  ")
    title = "Bundles (rows of one entity in one item; a written row takes the units of the whole item)"
    notes = [note for cost in explanation.bundles for note in _bundle_notes(cost)]
    both = (
        f"  The vector: {explanation.bundled_price_per_million_vectors_usd:,.4g} USD per million with all "
        f"bundles, {explanation.apart_price_per_million_vectors_usd:,.4g} without any."
    )
    return "\n".join([title, table, *([both] if explanation.is_priced else []), *notes])


def _bundle_figures(cost: BundleCost, price: float) -> list[str]:
    usd = f"{cost.read_units * price:,.4g}"
    units = [f"{cost.read_units:g}", usd, f"{cost.write_units:,}", f"{cost.refresh_units:,}"]
    units = units if cost.priced else [""] * len(units)
    return [str(cost.keys), f"{cost.keys * cost.moved_bytes:,}", *units]


def _apart_figures(cost: BundleCost, price: float) -> list[str]:
    usd = f"{cost.apart_read_units * price:,.4g}"
    units = [f"{cost.apart_read_units:g}", usd, "", f"{cost.apart_refresh_units:,}"]
    units = units if cost.priced else [""] * len(units)
    return [str(cost.apart_keys), f"{cost.apart_bytes:,}", *units]


def _bundle_notes(cost: BundleCost) -> list[str]:
    name = f"bundle {cost.bundle}" if cost.bundle else f"a bundle of {', '.join(cost.views[:3])}"
    name += ", …" if cost.bundle is None and len(cost.views) > 3 else ""
    notes = []
    if not cost.priced:
        notes.append(f"  {name} saves keys alone: {NO_PRICE}.")
    elif cost.pays_from is None:
        notes.append(f"  {name} never pays: its reads cost no less.")
    elif cost.pays_from == 0:
        notes.append(f"  {name} pays always: its writes cost no more.")
    else:
        notes.append(
            f"  {name} pays from {_rounded_up(cost.pays_from):,} vectors of a key on between two writes of "
            f"all its rows (at {PRICE_PER_MILLION_WRITE_UNITS_USD:g} USD per million write request units)."
        )
    if not cost.fits:
        notes.append(
            f"  {name} is too large: {cost.item_bytes:,} bytes, an item has room for {MAX_BUNDLE_BYTES:,}."
        )
    return notes


def _rounded_up(number: float) -> int:
    return -int(-number // 1)


def _validity(row: RowCost) -> str:
    if row.horizon is not None:
        return f"{row.horizon} after its as-of"
    return "ever" if row.ttl is None else f"{row.ttl} after its time"


def _windows_table(explanation: Explanation) -> str:
    rows = [
        [
            cost.view,
            cost.window,
            cost.hop,
            cost.interval,
            cost.leading_edge.replace("_", " "),
            str(cost.core),
            str(cost.tails),
            str(cost.heads),
            str(cost.slots),
            f"{cost.row_bytes:,}",
            ", ".join(cost.components),
        ]
        for cost in explanation.windows
    ]
    headings = [
        "view",
        "window",
        "hop",
        "interval",
        "ends",
        "core",
        "tails",
        "heads",
        "slots",
        "row bytes",
        "components",
    ]
    numbers = {"window", "hop", "interval", "core", "tails", "heads", "slots", "row bytes"}
    table = text_table(headings, rows, numbers, "  ")
    title = "Windows (slots = core + tails + heads, for each component; a window's start moves by its hop)"
    return f"{title}\n{table}"


def _computed_table(explanation: Explanation) -> str:
    rows = [
        [
            view.view,
            view.mode,
            view.isolation,
            view.time_limit or "",
            str(view.features),
            str(view.answered),
            ", ".join(view.sources),
        ]
        for view in explanation.computed
    ]
    headings = ["view", "mode", "runs", "time limit", "features", "answered", "sources"]
    table = text_table(headings, rows, {"features", "answered"}, "  ")
    return f"On-demand views, in the order in which they are computed\n{table}"


def _outputs_table(explanation: Explanation) -> str:
    rows = [
        [str(number), output.name, output.dtype, output.made_of]
        for number, output in enumerate(explanation.outputs, 1)
    ]
    table = text_table(["#", "feature", "type", "made of"], rows, {"#"}, "  ")
    return f"The answer, in this order\n{table}"
