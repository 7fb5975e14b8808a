"""`fastserve compact VIEW…`: what was pushed to views without files, into their rows."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from fastserve.cli.flags import (
    Subparsers,
    add_command,
    add_settings,
    count_argument,
    load_settings,
    time_argument,
)
from fastserve.cli.materialize import cpus, nanoseconds, store_name, time_text
from fastserve.config import Settings
from fastserve.errors import DefinitionError

if TYPE_CHECKING:
    from fastserve.ingest.compact import CompactReport
    from fastserve.plan.views import ViewPlan


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "compact", run, "make rows of what was pushed to views that have no files")
    parser.add_argument("views", metavar="VIEW", nargs="*", help="names of feature views")
    parser.add_argument("--all", action="store_true", help="all views that have a stream and no files")
    parser.add_argument(
        "--until",
        metavar="TIME",
        type=time_argument,
        help="make rows as of the last complete tile before this time (default: a minute ago)",
    )
    parser.add_argument(
        "--parallel", metavar="N", type=count_argument(1), help="parts to scan at once (default: one per CPU)"
    )
    add_settings(parser, ("repo", "store", "workspace"))


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Compact the views that were named."""
    import asyncio

    asyncio.run(_compact(load_settings(arguments, environ), arguments))
    return 0


async def _compact(settings: Settings, arguments: argparse.Namespace) -> None:
    from fastserve.cli.workspace import load_workspace
    from fastserve.ingest.refresh import RefreshSettings, compact_by_hand, new_runner
    from fastserve.ingest.registry import Registry
    from fastserve.ingest.schedule import SETTLE_NS

    workspace = load_workspace(settings)
    settled_ns = time.time_ns() - SETTLE_NS
    until_ns = settled_ns if arguments.until is None else nanoseconds(arguments.until)
    if until_ns > settled_ns:
        raise DefinitionError(
            f"--until: expected a time {SETTLE_NS // 10**9} s ago or more, as what is pushed takes its time, "
            f"got {time_text(until_ns)}"
        )
    store = await workspace.stores.open()
    name = workspace.plan.workspace
    try:
        reports = await compact_by_hand(
            _chosen(workspace.plan.views, arguments.views, everything=arguments.all),
            store,
            Registry(store, name),
            until_ns=until_ns,
            settings=RefreshSettings(
                parallel=arguments.parallel or cpus(), store_name=store_name(settings.store)
            ),
            runner=new_runner(),
        )
    finally:
        await store.close()
    print(report_text(reports))


def _chosen(plans: Mapping[str, ViewPlan], named: Sequence[str], *, everything: bool) -> list[ViewPlan]:
    """Return the plans of the views to compact.

    Raises:
        DefinitionError: none was named, some in two ways, or one that isn't compacted.
    """
    from fastserve.ingest.compact import plan_to_compact
    from fastserve.ingest.schedule import is_compacted

    streamed = [plan for plan in plans.values() if is_compacted(plan)]
    if everything and named:
        raise DefinitionError("compact: expected names of views or --all, got both")
    if not everything and not named:
        listed = ", ".join(plan.name for plan in streamed) or "none, for no view has nothing but a stream"
        raise DefinitionError(f"compact: expected names of views, or --all for {listed}; got neither")
    return streamed if everything else [plan_to_compact(plans, name) for name in dict.fromkeys(named)]


def report_text(reports: Sequence[CompactReport]) -> str:
    """Return what became of the views: a table, then what there is to say of each."""
    from fastserve.cli.due import compact_remarks
    from fastserve.plan.text_table import text_table

    headings = ["view", "blocks", "tiles", "keys", "bytes", "removed", "expired", "seconds", "as of"]
    rows = [
        [
            report.view,
            f"{report.blocks:,}",
            f"{report.tiles:,}",
            f"{report.keys:,}",
            f"{report.bytes:,}",
            f"{report.removed:,}",
            f"{report.swept:,}",
            f"{report.seconds:.1f}",
            time_text(report.as_of_ns),
        ]
        for report in reports
    ]
    lines = [text_table(headings, rows, set(headings[1:8]))]
    for report in reports:
        lines += compact_remarks(report)
    return "\n".join(lines)
