"""An explanation set for a reader: the totals, then a table each for reads, rows, windows and the answer.

It computes nothing: what it prints stands in the `Explanation`.

Invariants
1. No line depends on the terminal; the same explanation gives the same text.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastserve.plan.explain import (
    ASSUMED_KEY_BYTES,
    ASSUMED_VARIABLE_BYTES,
    PRICE_OF,
    PRICE_PER_MILLION_READ_UNITS_USD,
    Explanation,
    ReadCost,
    RowCost,
)
from fastserve.plan.explain_streams import StreamCost
from fastserve.plan.text_table import text_table


def explain_text(explanation: Explanation) -> str:
    """Return the explanation as plain text, with a line break at its end."""
    parts = [_head(explanation), _totals(explanation)]
    if explanation.rows:
        parts += [_reads_table(explanation), _rows_table(explanation)]
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
        blocks += f", {e.read_units - e.stream_read_units:,g} read units"
    lines = {
        "features": f"{len(e.outputs):,}",
        "keys": f"{e.keys:,} in {_count(len(e.reads), 'read')}, {_count(e.calls, 'BatchGetItem call')}"
        + blocks,
        "bytes": f"{e.item_bytes:,} in items, of which {e.row_bytes:,} are fixed parts of rows",
        "read units": f"{e.read_units:,g}, {_consistency(e)}",
        "price": f"{e.price_per_million_vectors_usd:,.4g} USD per million vectors, {_unit_price(e)}",
    }
    return "\n".join(["One vector costs", *(f"  {name:<10}  {text}" for name, text in lines.items())])


def _consistency(explanation: Explanation) -> str:
    if explanation.streams:
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
    return [f"{cost.item_bytes:,}", f"{cost.read_units:g}" if cost.keys else "", f"{cost.write_units:,}"]


def _full_stream_figures(cost: StreamCost) -> list[str]:
    return [f"{cost.full_item_bytes:,}", f"{cost.full_read_units:g}", f"{cost.full_write_units:,}"]


def _rows_table(explanation: Explanation) -> str:
    rows = [
        [
            row.view,
            row.kind,
            ", ".join(row.join_keys),
            str(row.features),
            f"{row.row_bytes:,}",
            f"{row.item_bytes:,}",
            f"{row.read_units:g}",
            f"{row.write_units:,}",
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
    title = "Rows (reading an item takes 0.5 units per started 4 KB, writing it 1 per started 1 KB)"
    return f"{title}\n{table}\n{assumed}"


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
