"""When a view is due: the boundaries of its batch schedule, and what lies between them and what there is.

A view's *boundaries* are the multiples of its ``batch_schedule`` since the epoch that lie after its
``start_time``; a run brings it up to the newest that has passed. Rows are computed as a whole, as of one
boundary, so a run after missed boundaries does the newest alone: rows as of an older one would be written
over at once. Which boundaries were passed over is kept as a `Gap`, for in their time rows were older than the
schedule promised.

Pure: the clock is an argument.

Invariants
1. Two runners that look at one view at one time find the same boundary.
2. A view that was brought up to a boundary isn't due before the next, unless its definition changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from fastserve.ingest.definition import rows_digest
from fastserve.ingest.registry import Materialized
from fastserve.plan.views import ViewPlan, duration_ns
from fastserve.tiles.windows import floor_to

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SETTLE_NS = 60 * 10**9
"""How long after a boundary a view is compacted: events on their way then are in their blocks by now."""

Reason = Literal["never done", "schedule", "changed definition"]


@dataclass(frozen=True, slots=True)
class Gap:
    """Boundaries that were passed over: ``count`` of them, from the first to the last, both included."""

    first_ns: int
    last_ns: int
    count: int


@dataclass(frozen=True, slots=True)
class Due:
    """That a view must be brought up to ``until_ns``, and why."""

    until_ns: int
    reason: Reason
    gap: Gap | None = None


def newest_boundary_ns(plan: ViewPlan, now_ns: int, delay_ns: int = 0) -> int | None:
    """Return the newest boundary that is ``delay_ns`` old; None without a schedule, or before the first.

    A view without files is compacted from what was pushed, which has `SETTLE_NS` to come in.
    """
    if plan.view.batch_schedule is None:
        return None
    schedule_ns = duration_ns(plan.view.batch_schedule)
    if is_compacted(plan):
        delay_ns = max(delay_ns, SETTLE_NS)
    boundary_ns = floor_to(now_ns - delay_ns, schedule_ns)
    start = plan.view.start_time
    if start is not None and boundary_ns <= duration_ns(start - EPOCH):
        return None
    return boundary_ns


def is_compacted(plan: ViewPlan) -> bool:
    """Whether the view's rows come from its stream alone, so that it is compacted, not materialized."""
    return plan.stream is not None and plan.view.batch_source is None


def due(plan: ViewPlan, done: Materialized | None, now_ns: int, delay_ns: int = 0) -> Due | None:
    """Return what the view is due for, given what was last done; None if nothing."""
    boundary_ns = newest_boundary_ns(plan, now_ns, delay_ns)
    if boundary_ns is None:
        return None
    if done is None:
        return Due(boundary_ns, "never done")
    if done.until_ns < boundary_ns:
        return Due(boundary_ns, "schedule", _gap(plan, done.until_ns, boundary_ns))
    if done.definition and done.definition != rows_digest(plan):
        return Due(done.until_ns, "changed definition")
    return None


def _gap(plan: ViewPlan, done_ns: int, boundary_ns: int) -> Gap | None:
    schedule_ns = 0 if plan.view.batch_schedule is None else duration_ns(plan.view.batch_schedule)
    first_ns = floor_to(done_ns, schedule_ns) + schedule_ns
    if first_ns >= boundary_ns:
        return None
    return Gap(first_ns, boundary_ns - schedule_ns, (boundary_ns - first_ns) // schedule_ns)
