"""`fastserve materialize --export DIR` and `--imported DIR`: first loads by way of S3."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastserve.config import Settings

if TYPE_CHECKING:
    from fastserve.cli.workspace import Workspace
    from fastserve.ingest.export import Exported
    from fastserve.ingest.imported import Imported


async def export_views(
    settings: Settings,
    arguments: argparse.Namespace,
    workspace: Workspace,
    views: Sequence[str],
    until_ns: int,
    parallel: int,
) -> list[Exported]:
    """Write views into files. The store isn't opened: only its tables' names matter."""
    from fastserve.ingest.export import export
    from fastserve.plan.stores import MAIN_STORE
    from fastserve.store.addresses import configured_prefixes, named_settings
    from fastserve.store.url import DynamoDBSettings, parse_store_url

    stores = {MAIN_STORE: parse_store_url(settings.store), **named_settings(workspace.stores.named)}
    return await export(
        workspace.repo,
        views,
        Path(arguments.export),
        until_ns=until_ns,
        prefixes=configured_prefixes(settings.store, settings.stores),
        regions={name: one.region for name, one in stores.items() if isinstance(one, DynamoDBSettings)},
        inputs=arguments.input,
        max_bad_rows=arguments.max_bad_rows,
        parallel=parallel,
        workspace=workspace.plan.workspace,
    )


def export_text(exported: Sequence[Exported]) -> str:
    """Return what the files hold, what they cost in both ways, and how they are imported."""
    from fastserve.ingest.export import (
        BUCKET,
        PRICE_OF,
        PRICE_PER_GB_IMPORTED_USD,
        PRICE_PER_MILLION_WRITE_UNITS_USD,
    )
    from fastserve.plan.text_table import text_table

    headings = ["view", "files", "text", "compressed", "import", "write units", "puts instead"]
    rows = [
        [
            one.report.view,
            f"{len(one.files):,}",
            _bytes(one.text_bytes),
            _bytes(sum(file.bytes for file in one.files)),
            _usd(one.import_usd),
            f"{one.write_units:,}",
            _usd(one.puts_usd),
        ]
        for one in exported
    ]
    prices = f"{_usd(PRICE_PER_GB_IMPORTED_USD)} for a GB of text imported"
    prices += f", {_usd(PRICE_PER_MILLION_WRITE_UNITS_USD)} for a million write units"
    lines = [
        text_table(headings, rows, set(headings[1:])),
        f"Prices: {prices} ({PRICE_OF}).",
        "",
        f"An import makes its table, so there must be none yet. With {BUCKET} filled in:",
        *(f"  {command}" for one in exported for command in one.commands),
        "Once the imports are done:",
        "  fastserve apply",
    ]
    folders = dict.fromkeys(str(one.folder.parent) for one in exported)
    lines += [f"  fastserve materialize --imported {shlex.quote(folder)}" for folder in folders]
    return "\n".join(lines)


def _bytes(size: int) -> str:
    for unit, power in (("GB", 30), ("MB", 20), ("KB", 10)):
        if size >= 1 << power:
            return f"{size / (1 << power):.1f} {unit}"
    return f"{size} B"


def _usd(price: float) -> str:
    """Return a price in cents, or as many digits as tell it from another."""
    if price >= 100 or price == 0:
        return f"${price:,.0f}"
    return f"${price:.3g}" if price >= 0.001 else "< $0.001"


async def record_imported(settings: Settings, arguments: argparse.Namespace) -> str:
    """Record an export whose tables are imported; return what there is to say."""
    from fastserve.cli.materialize import store_name
    from fastserve.cli.workspace import load_workspace
    from fastserve.ingest.imported import record_import

    workspace = load_workspace(settings)
    store = await workspace.stores.open()
    try:
        imported = await record_import(
            workspace.repo,
            Path(arguments.imported),
            store,
            workspace=workspace.plan.workspace,
            store_name=store_name(settings.store),
        )
    finally:
        await store.close()
    return "\n".join(map(imported_text, imported))


def imported_text(imported: Imported) -> str:
    """Return what was recorded of one view."""
    from fastserve.cli.materialize import time_text

    items = "1 item" if imported.items == 1 else f"{imported.items:,} items"
    until = time_text(imported.materialized.until_ns)
    return f"{imported.view}: {items} in {imported.table}, recorded as materialized until {until}"
