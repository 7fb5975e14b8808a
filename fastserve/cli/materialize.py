"""`fastserve materialize VIEW…`: a repo's files into rows of a store; with ``--due`` by the views' schedules.

Exit codes besides the usual: 1 if a scheduled view failed, while all others were brought up to date.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from fastserve.cli.flags import (
    Subparsers,
    add_command,
    add_settings,
    count_argument,
    duration_argument,
    load_settings,
    time_argument,
)
from fastserve.config import Settings
from fastserve.errors import DefinitionError

if TYPE_CHECKING:
    from fastserve.ingest.materialize import MaterializeReport
    from fastserve.sdk.repo import Repo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands, "materialize", run, "compute rows of views from their files and write them"
    )
    parser.add_argument("views", metavar="VIEW", nargs="*", help="names of feature views")
    parser.add_argument("--all", action="store_true", help="all views that have files")
    parser.add_argument(
        "--due",
        action="store_true",
        help="bring the views, or all with a batch_schedule, up to their newest due time",
    )
    parser.add_argument(
        "--status", action="store_true", help="show how scheduled views stand, and do nothing"
    )
    parser.add_argument(
        "--delay",
        metavar="DURATION",
        type=duration_argument,
        help="with --due: how long after a due time the files are complete, such as 30m (default: 0s)",
    )
    parser.add_argument(
        "--input", metavar="FILE", nargs="+", help="files or globs to read in place of the source's own"
    )
    parser.add_argument(
        "--until",
        metavar="TIME",
        type=time_argument,
        help="take events before this time, such as 2013-12-30T12:00:00Z or a date (default: now)",
    )
    parser.add_argument(
        "--max-bad-rows",
        metavar="N",
        type=count_argument(0),
        help="write nothing of a view that has more bad rows (default: 5 %% of its rows)",
    )
    parser.add_argument(
        "--parallel", metavar="N", type=count_argument(1), help="processes to use (default: one per CPU)"
    )
    parser.add_argument(
        "--export", metavar="DIR", help="write files for DynamoDB's import from S3, and nothing to the store"
    )
    parser.add_argument(
        "--imported", metavar="DIR", help="record the exports in a folder, whose tables are imported by now"
    )
    add_settings(parser, ("repo", "store", "workspace"))


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Materialize the views that were named, or those that are due."""
    import asyncio

    _check_flags(arguments)
    settings = load_settings(arguments, environ)
    if arguments.due or arguments.status:
        from fastserve.cli.due import refresh_due, show_status

        work = show_status if arguments.status else refresh_due
        return asyncio.run(work(settings, arguments))
    if arguments.imported is not None:
        from fastserve.cli.export import record_imported

        print(asyncio.run(record_imported(settings, arguments)))
        return 0
    until_ns = time.time_ns() if arguments.until is None else nanoseconds(arguments.until)
    asyncio.run(_materialize(settings, arguments, until_ns))
    return 0


def _check_flags(arguments: argparse.Namespace) -> None:
    """Check that flags of one way aren't mixed with those of the other.

    Raises:
        DefinitionError: they are.
    """
    given = {
        "--all": arguments.all,
        "--input": arguments.input is not None,
        "--until": arguments.until is not None,
        "--export": arguments.export is not None,
        "--imported": arguments.imported is not None,
    }
    mixed = [flag for flag, is_given in given.items() if is_given]
    if (arguments.due or arguments.status) and mixed:
        way = "--due" if arguments.due else "--status"
        raise DefinitionError(f"materialize: expected {way} without {mixed[0]}, got both")
    if arguments.delay is not None and not (arguments.due or arguments.status):
        raise DefinitionError("materialize: expected --delay with --due or --status, got it alone")
    if arguments.imported is not None and (arguments.views or len(mixed) > 1):
        other = next((flag for flag in mixed if flag != "--imported"), "VIEW")
        raise DefinitionError(f"materialize: expected --imported without {other}, got both")


def nanoseconds(moment: datetime) -> int:
    """Return a time in nanoseconds since the epoch, exactly."""
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000


async def _materialize(settings: Settings, arguments: argparse.Namespace, until_ns: int) -> None:
    from fastserve.cli.workspace import load_workspace
    from fastserve.ingest.materialize import materialize

    workspace = load_workspace(settings)
    views = _chosen(workspace.repo, arguments.views, everything=arguments.all)
    _check_until(workspace.repo, views, until_ns)
    if arguments.export is not None:
        from fastserve.cli.export import export_text, export_views

        parallel = arguments.parallel or cpus()
        exported = await export_views(settings, arguments, workspace, views, until_ns, parallel)
        print(report_text([one.report for one in exported]))
        print(f"\n{export_text(exported)}")
        return
    store = await workspace.stores.open()
    try:
        reports = await materialize(
            workspace.repo,
            views,
            store,
            until_ns=until_ns,
            inputs=arguments.input,
            max_bad_rows=arguments.max_bad_rows,
            parallel=arguments.parallel or cpus(),
            workspace=workspace.plan.workspace,
            store_name=store_name(settings.store),
        )
    finally:
        await store.close()
    print(report_text(reports))


def _check_until(repo: Repo, views: Sequence[str], until_ns: int) -> None:
    """Check that rows of streamed views don't hold the future: what is pushed until then wouldn't count.

    Raises:
        DefinitionError: they would.
    """
    from fastserve.sdk.sources import PushSource

    pushed = [
        name for name in views if name in repo.views and isinstance(repo.views[name].source, PushSource)
    ]
    if pushed and until_ns > time.time_ns():
        raise DefinitionError(
            f"--until: expected a time that is past for {pushed[0]!r}, which is pushed to, "
            f"got {time_text(until_ns)}"
        )


def store_name(url: str) -> str:
    """Return what a store is called in messages: its URL, and the folder if it is one."""
    from fastserve.store.url import LocalSettings, parse_store_url

    store = parse_store_url(url)
    folder = f" (folder {Path(store.folder).absolute()})" if isinstance(store, LocalSettings) else ""
    return f"the store {url}{folder}"


def _chosen(repo: Repo, named: Sequence[str], *, everything: bool) -> list[str]:
    """Return the views to materialize.

    Raises:
        DefinitionError: none was named, or some in two ways.
    """
    with_files = [view.name for view in repo.views.values() if view.batch_source is not None]
    if everything and named:
        raise DefinitionError("materialize: expected names of views or --all, got both")
    if not everything and not named:
        listed = ", ".join(with_files) or "none, for no view has files"
        raise DefinitionError(f"materialize: expected names of views, or --all for {listed}; got neither")
    return with_files if everything else list(dict.fromkeys(named))


def cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def report_text(reports: Sequence[MaterializeReport]) -> str:
    """Return what became of the views: a table, then the first of the rows that were bad."""
    from fastserve.plan.text_table import text_table

    headings = ["view", "rows read", "bad", "outside", "keys", "bytes", "seconds", "as of"]
    rows = [
        [
            report.view,
            f"{report.rows_read:,}",
            f"{report.rows_bad:,}",
            f"{report.rows_outside:,}",
            f"{report.keys:,}",
            f"{report.bytes:,}",
            f"{report.seconds:.1f}",
            time_text(report.as_of_ns),
        ]
        for report in reports
    ]
    lines = [text_table(headings, rows, set(headings[1:7]))]
    for report in reports:
        lines += remarks(report)
    return "\n".join(lines)


def remarks(report: MaterializeReport) -> list[str]:
    """Return what there is to say of a view besides its figures."""
    lines = []
    if report.rows_outside and report.rows_outside == report.rows_read - report.rows_bad:
        is_one = report.rows_outside == 1
        rows = "the one good row is" if is_one else f"all {report.rows_outside:,} good rows are"
        from_on = f"of {time_text(report.until_ns)} or later (--until), or older than the view looks back"
        lines.append(f"{report.view}: nothing was written, for {rows} outside: {from_on}")
    if report.rows_bad:
        rows = "1 bad row was left out:"
        if report.rows_bad > 1:
            rows = f"{report.rows_bad:,} bad rows were left out, the first of them:"
        lines.append(f"{report.view}: {rows}")
        lines += [f"  {sample}" for sample in report.bad_samples]
    if report.spoilt_keys:
        keys = ", ".join(report.spoilt_samples)
        have = "1 key has" if report.spoilt_keys == 1 else f"{report.spoilt_keys:,} keys have"
        lines.append(f"{report.view}: {have} a sum beyond int64, which is null: {keys}")
    if report.too_large_keys:
        from fastserve.store.interface import MAX_ROW_BYTES

        keys = ", ".join(report.too_large_samples)
        got = "1 key has a row" if report.too_large_keys == 1 else f"{report.too_large_keys:,} keys have rows"
        beside = "" if report.bundle is None else f", those beside it in bundle {report.bundle} included"
        lines.append(
            f"{report.view}: {got} of more than {MAX_ROW_BYTES} bytes{beside}, which wasn't written: {keys}"
        )
    if report.resumed:
        partitions = "1 partition" if report.resumed == 1 else f"{report.resumed:,} partitions"
        lines.append(f"{report.view}: {partitions} had been written by an earlier run")
    return lines


def time_text(time_ns: int) -> str:
    """Return a time as RFC 3339, to the microsecond where it isn't a whole second."""
    return (EPOCH + timedelta(microseconds=time_ns // 1000)).isoformat().replace("+00:00", "Z")
