"""`fastserve materialize --due` and `--status`: views by their schedules, and how they stand, as tables."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from fastserve.cli.materialize import cpus, remarks, store_name, time_text
from fastserve.config import Settings
from fastserve.sdk.durations import format_duration

if TYPE_CHECKING:
    from fastserve.ingest.compact import CompactReport
    from fastserve.ingest.refresh import Refreshed, Status
    from fastserve.ingest.schedule import Due, Gap

FAILED = 1
NOTHING = "-"
ERROR_LENGTH_MAX = 500


async def refresh_due(settings: Settings, arguments: argparse.Namespace) -> int:
    """Bring views up to their schedules; return the exit code."""
    from fastserve.cli.workspace import load_workspace
    from fastserve.ingest.refresh import RefreshSettings, refresh

    workspace = load_workspace(settings)
    store = await workspace.stores.open(may_lack=True)
    try:
        results = await refresh(
            workspace.repo,
            arguments.views,
            store,
            workspace=workspace.plan.workspace,
            settings=RefreshSettings(
                delay_ns=_delay_ns(arguments),
                max_bad_rows=arguments.max_bad_rows,
                parallel=arguments.parallel or cpus(),
                store_name=store_name(settings.store),
            ),
        )
    finally:
        await store.close()
    print(refreshed_text(results))
    return FAILED if any(result.outcome == "failed" for result in results) else 0


async def show_status(settings: Settings, arguments: argparse.Namespace) -> int:
    """Show how views stand; return the exit code."""
    from fastserve.cli.workspace import load_workspace
    from fastserve.ingest.refresh import scheduled_plans, statuses
    from fastserve.ingest.registry import Registry
    from fastserve.store.mixed import prefixes_of

    workspace = load_workspace(settings)
    store = await workspace.stores.open(may_lack=True)
    name = workspace.plan.workspace
    try:
        plans = scheduled_plans(workspace.repo, arguments.views, workspace=name, prefixes=prefixes_of(store))
        found = await statuses(plans, Registry(store, name), time.time_ns(), _delay_ns(arguments))
    finally:
        await store.close()
    schedules = {plan.name: plan.view.batch_schedule for plan in plans}
    print(status_text(found, schedules))
    return FAILED if any(status.standing == "failing" for status in found) else 0


def _delay_ns(arguments: argparse.Namespace) -> int:
    delay: timedelta = arguments.delay or timedelta(0)
    return delay // timedelta(microseconds=1) * 1000


def refreshed_text(results: Sequence[Refreshed]) -> str:
    """Return what became of the views: a table, then what there is to say of each."""
    from fastserve.plan.text_table import text_table

    if not results:
        return "No view has a batch_schedule."
    headings = ["view", "outcome", "until", "missed", "keys", "bytes", "seconds"]
    lines = [text_table(headings, [_row(result) for result in results], set(headings[3:]))]
    for result in results:
        lines += _what_to_say(result)
    return "\n".join(lines)


def _row(result: Refreshed) -> list[str]:
    report, wanted = result.report, result.due
    figures = [NOTHING] * 3
    if report is not None:
        figures = [f"{report.keys:,}", f"{report.bytes:,}", f"{report.seconds:.1f}"]
    until = NOTHING if wanted is None else time_text(wanted.until_ns)
    return [result.view, result.outcome, until, _missed(wanted), *figures]


def _missed(wanted: Due | None) -> str:
    return NOTHING if wanted is None or wanted.gap is None else f"{wanted.gap.count:,}"


def _what_to_say(result: Refreshed) -> list[str]:
    from fastserve.ingest.compact import CompactReport

    lines = []
    if result.outcome == "running elsewhere":
        until = time_text(result.state.lease_until_ns)
        lines.append(result.error or f"{result.view}: {result.state.owner} has it until {until}")
    elif result.error:
        attempts = "1 attempt" if result.state.attempts == 1 else f"{result.state.attempts:,} attempts"
        since = f" (after {attempts})" if result.state.attempts else ""
        lines.append(f"{result.view}: failed{since}: {result.error[:ERROR_LENGTH_MAX]}")
    if result.due is not None and result.due.gap is not None:
        lines.append(f"{result.view}: {gap_text(result.due.gap)}")
    if result.due is not None and result.due.reason == "changed definition":
        lines.append(f"{result.view}: made again, for its definition has changed")
    if isinstance(result.report, CompactReport):
        lines += compact_remarks(result.report)
    elif result.report is not None:
        lines += remarks(result.report)
    return lines


def gap_text(gap: Gap) -> str:
    """Return in words which due times were passed over."""
    if gap.count == 1:
        return (
            f"1 due time was missed, {time_text(gap.first_ns)}; what it would have written is in what is now"
        )
    span = f"{time_text(gap.first_ns)} to {time_text(gap.last_ns)}"
    return f"{gap.count:,} due times were missed, {span}; what they would have written is in what is now"


def compact_remarks(report: CompactReport) -> list[str]:
    """Return what there is to say of a compaction besides its figures."""
    lines = []
    if report.spoilt:
        keys = ", ".join(report.spoilt)
        lines.append(f"{report.view}: keys have a sum beyond int64, which is null: {keys}")
    if report.too_large:
        keys = ", ".join(report.too_large)
        lines.append(f"{report.view}: rows are too large for a store and were left out: {keys}")
    return lines


def status_text(found: Sequence[Status], schedules: dict[str, timedelta | None]) -> str:
    """Return how scheduled views stand, then the last errors and gaps."""
    from fastserve.plan.text_table import text_table

    if not found:
        return "No view has a batch_schedule."
    headings = ["view", "schedule", "state", "until", "as of", "due", "attempts"]
    rows = []
    for status in found:
        done, schedule = status.done, schedules[status.view]
        rows.append(
            [
                status.view,
                NOTHING if schedule is None else format_duration(schedule),
                status.standing,
                NOTHING if done is None else time_text(done.until_ns),
                NOTHING if done is None else time_text(done.as_of_ns),
                NOTHING if status.due is None else time_text(status.due.until_ns),
                f"{status.state.attempts:,}",
            ]
        )
    lines = [text_table(headings, rows, {"attempts"})]
    for status in found:
        lines += _status_lines(status)
    return "\n".join(lines)


def _status_lines(status: Status) -> list[str]:
    state, lines = status.state, []
    if status.standing == "running":
        lines.append(f"{status.view}: {state.owner} has it until {time_text(state.lease_until_ns)}")
    if state.last_error:
        when, error = time_text(state.last_error_ns), state.last_error[:ERROR_LENGTH_MAX]
        lines.append(f"{status.view}: last error, {when}: {error}")
    if state.gaps:
        lines.append(f"{status.view}: {gap_text(state.gaps[-1])}")
    return lines
