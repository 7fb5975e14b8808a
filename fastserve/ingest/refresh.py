"""Bringing views up to their schedules: what `fastserve materialize --due` does, and what it shows.

For each scheduled view: see whether it is due (`schedule`), take its lease (`lease`), look again, run its
job (`materialize`, or `compact` where there is nothing but a stream), and give the lease back with what came
of it. A view that fails is put off and tried again after the others; one that another runner has is left to
it. Whoever calls (cron, a CronJob) may do so as often as it likes, and from several places at once.

Killed at any point, a run leaves what the next one takes up:

    killed                            left behind                           the next run
    before the lease was taken        nothing                               does it
    while the job ran                 a lease, some rows, partitions done   goes on, once the lease has lapsed
    after the job, before recording   a lease, all rows                     the same, with nothing left to do
    after recording                   a lease                               finds the view up to date

Invariants
1. A view is looked at again after its lease was taken: another runner may have done it in between.
2. No view's failure, whatever it is, keeps another view from being tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from fastserve.errors import DefinitionError, FastserveError, StoreError, shown
from fastserve.ingest.changes import has_rows_to_make
from fastserve.ingest.compact import CompactReport, compact_view
from fastserve.ingest.lease import (
    Lease,
    LeaseLostError,
    RefreshState,
    Runner,
    acquire,
    keeping,
    refresh_states,
)
from fastserve.ingest.materialize import MaterializeReport, check_tables, materialize
from fastserve.ingest.progress import make_progress
from fastserve.ingest.registry import Materialized, Registry
from fastserve.ingest.schedule import Due, due, is_compacted, newest_boundary_ns
from fastserve.plan.stores import TablePrefixes
from fastserve.plan.views import ViewPlan, plan_view
from fastserve.sdk.repo import Repo
from fastserve.store.interface import OnlineStore
from fastserve.store.mixed import prefixes_of

ROUNDS = 3
ROUND_PAUSE_S = 2.0

Report = MaterializeReport | CompactReport
Outcome = Literal["done", "up to date", "running elsewhere", "failed"]


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What became of one view. ``due`` is what it was due for; ``state`` what is recorded of its attempts."""

    view: str
    outcome: Outcome
    due: Due | None = None
    report: Report | None = None
    error: str = ""
    retryable: bool = False
    state: RefreshState = field(default_factory=RefreshState)


@dataclass(frozen=True, slots=True)
class RefreshSettings:
    """How jobs run, for all views; see `materialize`."""

    delay_ns: int = 0
    max_bad_rows: int | None = None
    parallel: int = 1
    progress: bool = True
    scratch: str | Path | None = None
    store_name: str = "the store"
    rounds: int = ROUNDS


def new_runner(clock_ns: Callable[[], int] = time.time_ns) -> Runner:
    """Return a runner by a name that tells host and process, and is unlike any other's."""
    return Runner(f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}", clock_ns)


def scheduled_plans(
    repo: Repo, named: Sequence[str], *, workspace: str | None, prefixes: TablePrefixes | str
) -> list[ViewPlan]:
    """Return the plans of the named views, or of all that have a schedule and rows to be made.

    Raises:
        DefinitionError: a named view isn't there, has no schedule or nothing to be made of.
    """
    plans = {
        name: plan_view(view, workspace or repo.workspace, prefixes) for name, view in repo.views.items()
    }
    if not named:
        return [plan for plan in plans.values() if plan.view.batch_schedule and has_rows_to_make(plan)]
    for name in named:
        if name not in plans:
            raise DefinitionError(f"view: expected one of {', '.join(list(plans)[:20])}, got {shown(name)}")
        if plans[name].view.batch_schedule is None:
            message = f"FeatureView {name!r}: expected a batch_schedule, got none"
            raise DefinitionError(message, plans[name].view.location)
        if not has_rows_to_make(plans[name]):
            message = f"FeatureView {name!r}: expected files or aggregates to make rows of, got neither"
            raise DefinitionError(message, plans[name].view.location)
    return [plans[name] for name in dict.fromkeys(named)]


async def refresh(
    repo: Repo,
    named: Sequence[str],
    store: OnlineStore,
    *,
    workspace: str | None = None,
    settings: RefreshSettings | None = None,
    runner: Runner | None = None,
) -> list[Refreshed]:
    """Bring the named views, or all that have a schedule, up to it. Failures are results, not errors.

    Raises:
        DefinitionError: a named view can't be refreshed, or `fastserve apply` hasn't been here.
    """
    settings = settings or RefreshSettings()
    runner = runner or new_runner()
    plans = scheduled_plans(repo, named, workspace=workspace, prefixes=prefixes_of(store))
    registry = Registry(store, workspace or repo.workspace)
    if not await registry.exists():
        await check_tables([], registry, store, settings.store_name)
    results: dict[str, Refreshed] = {}
    waiting = plans
    for number in range(settings.rounds):
        if number:
            await runner.pause(ROUND_PAUSE_S * 2 ** (number - 1))
        for plan in waiting:
            results[plan.name] = await _Refresh(repo, plan, store, registry, settings, runner).run()
        waiting = [plan for plan in waiting if results[plan.name].retryable]
        if not waiting:
            break
    return list(results.values())


class _Refresh:
    """One attempt at one view."""

    def __init__(
        self,
        repo: Repo,
        plan: ViewPlan,
        store: OnlineStore,
        registry: Registry,
        settings: RefreshSettings,
        runner: Runner,
    ) -> None:
        self._repo = repo
        self._plan = plan
        self._store = store
        self._registry = registry
        self._settings = settings
        self._runner = runner

    async def run(self) -> Refreshed:
        """Do the view if it is due and free; give what came of it."""
        try:
            return await self._run()
        except StoreError as error:  # before there was a lease to record it in
            return Refreshed(self._plan.name, "failed", error=str(error), retryable=True)

    async def _run(self) -> Refreshed:
        name = self._plan.name
        wanted = await self._due()
        if wanted is None:
            return Refreshed(name, "up to date")
        lease = await acquire(self._registry, self._runner, name, wanted.until_ns, wanted.gap)
        if not isinstance(lease, Lease):
            return Refreshed(name, "running elsewhere", wanted, state=lease)
        wanted = await self._due()
        if wanted is None:
            await lease.finish()
            return Refreshed(name, "up to date")
        try:
            report = await keeping(lease, self._runner, self._job(wanted, lease))
        except LeaseLostError as error:
            return Refreshed(name, "running elsewhere", wanted, error=str(error), state=lease.state)
        except asyncio.CancelledError:
            with contextlib.suppress(StoreError):  # then it lapses
                await lease.finish("interrupted")
            raise
        except FastserveError as error:
            return await self._failed(lease, wanted, str(error), retryable=isinstance(error, StoreError))
        except Exception as error:  # noqa: BLE001 - an author's code may raise anything; others go on
            traceback.print_exc(file=sys.stderr)
            return await self._failed(lease, wanted, f"{type(error).__name__}: {error}", retryable=False)
        await lease.finish()
        return Refreshed(name, "done", wanted, report, state=lease.state)

    async def _due(self) -> Due | None:
        done = (await self._registry.materialized([self._plan.name]))[self._plan.name]
        return due(self._plan, done, self._runner.clock_ns(), self._settings.delay_ns)

    async def _failed(self, lease: Lease, wanted: Due, error: str, *, retryable: bool) -> Refreshed:
        result = Refreshed(self._plan.name, "failed", wanted, error=error, retryable=retryable)
        try:
            await lease.finish(error)
        except StoreError as another:
            result = replace(result, error=f"{error} (and it couldn't be recorded: {another})")
        return replace(result, state=lease.state)

    def _job(self, wanted: Due, lease: Lease) -> Coroutine[Any, Any, Report]:
        return (
            self._compacted(wanted, lease) if is_compacted(self._plan) else self._materialized(wanted, lease)
        )

    async def _materialized(self, wanted: Due, lease: Lease) -> Report:
        settings = self._settings
        (report,) = await materialize(
            self._repo,
            [self._plan.name],
            self._store,
            until_ns=wanted.until_ns,
            max_bad_rows=settings.max_bad_rows,
            progress=settings.progress,
            parallel=settings.parallel,
            workspace=self._registry.workspace,
            scratch=settings.scratch,
            store_name=settings.store_name,
            guard=lease,
        )
        return report

    async def _compacted(self, wanted: Due, lease: Lease) -> Report:
        settings = self._settings
        await check_tables([self._plan], self._registry, self._store, settings.store_name)
        shows = make_progress(wanted=settings.progress)
        try:
            return await compact_view(
                self._plan,
                self._store,
                self._registry,
                until_ns=wanted.until_ns,
                now_ns=self._runner.clock_ns(),
                guard=lease,
                shows=shows,
                scratch=settings.scratch,
                parallel=settings.parallel,
            )
        finally:
            shows.close()


# --- by hand ------------------------------------------------------------------------------------------------


async def compact_by_hand(
    plans: Sequence[ViewPlan],
    store: OnlineStore,
    registry: Registry,
    *,
    until_ns: int,
    settings: RefreshSettings,
    runner: Runner,
) -> list[CompactReport]:
    """Compact views now, whether they are due or not, one after the other, each under its lease.

    Raises:
        DefinitionError: `fastserve apply` hasn't been here, or a view was compacted as of a later moment.
        StoreError: the store failed, another runner has a view, or a lease is lost.
    """
    await check_tables(plans, registry, store, settings.store_name)
    reports = []
    shows = make_progress(wanted=settings.progress)
    try:
        for plan in plans:
            lease = await acquire(registry, runner, plan.name, until_ns)
            if not isinstance(lease, Lease):
                raise StoreError(f"view {plan.name}: expected nobody at work on it, {lease.owner} is")
            job = compact_view(
                plan,
                store,
                registry,
                until_ns=until_ns,
                now_ns=runner.clock_ns(),
                guard=lease,
                shows=shows,
                scratch=settings.scratch,
                parallel=settings.parallel,
            )
            try:
                reports.append(await keeping(lease, runner, job))
            except LeaseLostError:
                raise
            except FastserveError as error:
                await lease.finish(str(error))
                raise
            await lease.finish()
    finally:
        shows.close()
    return reports


# --- status -------------------------------------------------------------------------------------------------

Standing = Literal["up to date", "due", "failing", "running", "not begun"]


@dataclass(frozen=True, slots=True)
class Status:
    """How one scheduled view stands. ``boundary_ns`` is the newest one, None before the first."""

    view: str
    standing: Standing
    boundary_ns: int | None
    done: Materialized | None
    due: Due | None
    state: RefreshState


async def statuses(
    plans: Sequence[ViewPlan], registry: Registry, now_ns: int, delay_ns: int = 0
) -> list[Status]:
    """Return how views stand.

    Raises:
        StoreError: the store failed.
    """
    names = [plan.name for plan in plans]
    done, states = await asyncio.gather(registry.materialized(names), refresh_states(registry, names))
    return [_status(plan, done[plan.name], states[plan.name], now_ns, delay_ns) for plan in plans]


def _status(
    plan: ViewPlan, done: Materialized | None, state: RefreshState, now_ns: int, delay_ns: int
) -> Status:
    wanted = due(plan, done, now_ns, delay_ns)
    boundary_ns = newest_boundary_ns(plan, now_ns, delay_ns)
    standing: Standing = "up to date" if wanted is None else "due"
    if boundary_ns is None:
        standing = "not begun"
    elif state.is_held(now_ns):
        standing = "running"
    elif wanted is not None and state.attempts:
        standing = "failing"
    return Status(plan.name, standing, boundary_ns, done, wanted, state)
