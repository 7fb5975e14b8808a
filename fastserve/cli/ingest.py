"""`fastserve ingest --source NAME < events.jsonl`: records from standard input into a store."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fastserve.cli.flags import Subparsers, add_command, add_settings, count_argument, load_settings
from fastserve.errors import DefinitionError, RequestError, StoreError

if TYPE_CHECKING:
    from fastserve.ingest.lines import LinesReport

BATCH = 100
SHOWN_BAD_LINES = 20
FAILED = 1


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(
        commands, "ingest", run, "write records of a push source, JSON lines on standard input, to a store"
    )
    parser.add_argument("--source", metavar="NAME", required=True, help="name of the push source")
    parser.add_argument(
        "--batch",
        metavar="N",
        type=count_argument(1),
        default=BATCH,
        help=f"records to write at once (default: {BATCH})",
    )
    add_settings(parser, ("repo", "store", "workspace", "ingest_max_future_s", "clock"))


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Write what comes; 1 if any line was bad or the store failed."""
    import asyncio

    from fastserve.ingest.lines import ingest_lines
    from fastserve.ingest.progress import make_progress
    from fastserve.ingest.stream import IngestSettings
    from fastserve.ingest.stream_writer import StreamWriter

    settings = load_settings(arguments, environ)
    clock_ns = settings.clock_ns
    writer = StreamWriter(
        settings.repo,
        settings.store,
        workspace=settings.workspace,
        settings=IngestSettings(settings.ingest_max_future_s),
        clock_ns=time.time_ns if clock_ns is None else lambda: clock_ns,
        stores=settings.stores,
    )
    try:
        writer.check_source(arguments.source)
    except RequestError as error:
        raise DefinitionError(f"--source: {error.message}") from None
    progress = make_progress(wanted=True)
    progress.step(f"{arguments.source}: writing", "records")
    try:
        report = asyncio.run(
            ingest_lines(writer, arguments.source, sys.stdin.buffer, arguments.batch, progress.advance)
        )
    finally:
        progress.close()
    return _tell(report)


def _tell(report: LinesReport) -> int:
    """Print what came of it and return the exit code.

    Raises:
        StoreError: the store had failed.
    """
    per_view = ", ".join(f"{view} {count:,}" for view, count in report.counts.items()) or "none"
    rate = f"{report.written / report.seconds:,.0f} a second" if report.seconds else "at once"
    records = "1 record" if report.written == 1 else f"{report.written:,} records"
    print(f"{records} written in {report.seconds:.1f} s, {rate}; by view: {per_view}")
    if report.bad_count:
        bad = "1 line was bad" if report.bad_count == 1 else f"{report.bad_count:,} lines were bad"
        print(f"{bad} and left out:", file=sys.stderr)
        for line, message in report.bad[:SHOWN_BAD_LINES]:
            print(f"  line {line}: {message}", file=sys.stderr)
        rest = report.bad_count - SHOWN_BAD_LINES
        if rest > 0:
            numbers = ", ".join(str(line) for line, _ in report.bad[SHOWN_BAD_LINES:])
            cut = "" if len(report.bad) == report.bad_count else ", …"
            print(f"  and {rest:,} more, in lines {numbers}{cut}", file=sys.stderr)
    if report.error is not None:
        until = f"every good line up to {report.safe_line:,} is written" if report.safe_line else "no line is"
        raise StoreError(f"{report.error.message} ({until}; begin again at line {report.safe_line + 1:,})")
    return FAILED if report.bad_count else 0
