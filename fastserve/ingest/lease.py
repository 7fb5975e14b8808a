"""Leases: that one runner alone brings a view up to its schedule, and what became of its attempts.

Everything about a view's refreshing lies in one record, ``refresh/<view>``: who has it until when, what it
is being brought up to, how often that was tried in vain and why, which boundaries were passed over. The
record is only ever swapped for the next version of itself, so of two runners that reach for it at once one
gets it, and the other sees that.

    free --acquire--> held by A until t --renew--> … --finish--> free
                         '-- A dies; after t --acquire--> held by B, and A's next renewal fails

Knows no jobs and no schedules, only what is recorded of them.

Invariants
1. At most one runner holds a view's lease, as long as clocks differ by less than `SKEW_NS`.
2. A runner that has lost its lease finds out at its next `renew`, which comes before anything is recorded,
   or by its own clock, whichever is first.
3. An attempt is counted when it begins: one that was killed has been counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, TypeVar

from fastserve.errors import StoreError
from fastserve.ingest.registry import Registry
from fastserve.ingest.schedule import Gap

LEASE_NS = 60 * 10**9
SKEW_NS = 5 * 10**9
"""How much the clocks of two runners may differ; a lapsed lease is left alone for as long."""
RENEWALS_PER_LEASE = 4
GAPS_KEPT = 20
ERROR_LENGTH_MAX = 2_000

Result = TypeVar("Result")
Pause = Callable[[float], Awaitable[None]]


class LeaseLostError(StoreError):
    """Another runner has taken the view over, or the lease couldn't be renewed in time."""


class Guard(Protocol):
    """Asked by a job whether it may go on writing."""

    async def hold(self) -> None:
        """Return if rows may be put now; raise LeaseLostError if not."""

    async def confirm(self) -> None:
        """Return if the job's end may be recorded now; raise LeaseLostError if not."""


class Unguarded:
    """Lets a job go on: it was started by hand, for no schedule."""

    async def hold(self) -> None:
        """Say yes."""

    async def confirm(self) -> None:
        """Say yes."""


@dataclass(frozen=True, slots=True)
class RefreshState:
    """What is recorded of a view's refreshing. Times are nanoseconds since the epoch.

    ``owner`` is empty while nobody has the lease. ``attempts`` are those since the last success.
    """

    owner: str = ""
    lease_until_ns: int = 0
    until_ns: int = 0
    attempts: int = 0
    began_ns: int = 0
    done_ns: int = 0
    last_error: str = ""
    last_error_ns: int = 0
    gaps: tuple[Gap, ...] = field(default=())

    def is_held(self, now_ns: int) -> bool:
        """Whether some runner has the lease, or may still think so."""
        return bool(self.owner) and now_ns < self.lease_until_ns + SKEW_NS


def refresh_key(view: str) -> str:
    """Return where a view's refreshing is recorded."""
    return f"refresh/{view}"


async def refresh_states(registry: Registry, views: Sequence[str]) -> dict[str, RefreshState]:
    """Return what is recorded of each view's refreshing."""
    records = await registry.versions([refresh_key(view) for view in views])
    return {view: _state(record) for view, (_, record) in zip(views, records, strict=True)}


def _state(record: dict[str, Any] | None) -> RefreshState:
    if record is None:
        return RefreshState()
    return RefreshState(**{**record, "gaps": tuple(Gap(**gap) for gap in record["gaps"])})


@dataclass(frozen=True, slots=True)
class Runner:
    """Who refreshes, by which clock, and for how long a lease is taken. ``name`` is unlike any other's."""

    name: str
    clock_ns: Callable[[], int]
    lease_ns: int = LEASE_NS
    pause: Pause = asyncio.sleep


async def acquire(
    registry: Registry, runner: Runner, view: str, until_ns: int, gap: Gap | None = None
) -> Lease | RefreshState:
    """Take a view's lease to bring it up to ``until_ns``; return the holder's state if another has it.

    Raises:
        StoreError: the store failed.
    """
    key = refresh_key(view)
    ((version, record),) = await registry.versions([key])
    while True:
        state, now_ns = _state(record), runner.clock_ns()
        if state.is_held(now_ns) and state.owner != runner.name:  # its own it couldn't give back
            return state
        wanted = replace(
            state,
            owner=runner.name,
            lease_until_ns=now_ns + runner.lease_ns,
            until_ns=until_ns,
            attempts=state.attempts + 1,
            began_ns=now_ns,
            gaps=_with_gap(state.gaps, gap),
        )
        tried = version + 1
        version, record = await registry.swap(key, version, asdict(wanted))
        if version == tried and _state(record).owner == runner.name:
            return Lease(registry, runner, view, version, wanted)


def _with_gap(gaps: tuple[Gap, ...], gap: Gap | None) -> tuple[Gap, ...]:
    """Return the gaps with one more; one that begins where the last did is the same, grown."""
    if gap is None:
        return gaps
    return (*(known for known in gaps if known.first_ns != gap.first_ns), gap)[-GAPS_KEPT:]


class Lease:
    """A lease that is held; `acquire` makes them. It is its job's `Guard`."""

    def __init__(
        self, registry: Registry, runner: Runner, view: str, version: int, state: RefreshState
    ) -> None:
        self._registry = registry
        self._runner = runner
        self._view = view
        self._version = version
        self._state = state
        self._turn = asyncio.Lock()

    @property
    def state(self) -> RefreshState:
        """What was last recorded."""
        return self._state

    async def hold(self) -> None:
        """Return while the lease has half its time left, or could be renewed.

        Raises:
            LeaseLostError: it is lost.
        """
        if self._left_ns() < self._runner.lease_ns // 2:
            await self.confirm()

    async def confirm(self) -> None:
        """Renew the lease.

        Raises:
            LeaseLostError: another runner has it, or the store can't be asked and its time is up.
        """
        try:
            await self.renew()
        except LeaseLostError:
            raise
        except StoreError as error:
            if self._left_ns() <= 0:
                raise self._lost(f"it couldn't be renewed: {error.message}") from error

    async def renew(self) -> None:
        """Take the lease for its full time from now on.

        Raises:
            LeaseLostError: another runner has it.
            StoreError: the store failed; it isn't known whether the lease was renewed.
        """
        async with self._turn:
            await self._swap(lease_until_ns=self._runner.clock_ns() + self._runner.lease_ns)

    async def finish(self, error: str = "") -> None:
        """Give the lease back, with the error if the attempt failed.

        Raises:
            LeaseLostError: another runner has it.
            StoreError: the store failed; the lease lapses by itself.
        """
        now_ns = self._runner.clock_ns()
        came = {"last_error": error[:ERROR_LENGTH_MAX], "last_error_ns": now_ns}
        if not error:
            came = {"last_error": "", "attempts": 0, "done_ns": now_ns}
        async with self._turn:
            await self._swap(owner="", lease_until_ns=0, **came)

    async def _swap(self, **changes: Any) -> None:
        wanted = replace(self._state, **changes)
        version, record = await self._registry.swap(refresh_key(self._view), self._version, asdict(wanted))
        state = _state(record)
        if version != self._version + 1 or state.owner not in {self._runner.name, wanted.owner}:
            raise self._lost(f"{state.owner or 'nobody'} has it now")
        self._version, self._state = version, state
        if state != wanted:  # an earlier try, whose answer was lost, had been written after all
            await self._swap(**changes)

    def _left_ns(self) -> int:
        return self._state.lease_until_ns - self._runner.clock_ns()

    def _lost(self, why: str) -> LeaseLostError:
        return LeaseLostError(f"view {self._view}: the lease of {self._runner.name} is lost: {why}")


async def keeping(lease: Lease, runner: Runner, job: Coroutine[Any, Any, Result]) -> Result:
    """Run a job, renewing its lease meanwhile; a job whose lease is lost is cancelled.

    Raises:
        LeaseLostError: the lease is lost. Whatever the job raises.
    """
    work = asyncio.create_task(job)
    renewals = asyncio.create_task(_renewals(lease, runner))
    try:
        await asyncio.wait({work, renewals}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        await renewals
        raise AssertionError("renewals end by an error only")
    finally:
        for task in (work, renewals):
            task.cancel()
        await asyncio.gather(work, renewals, return_exceptions=True)


async def _renewals(lease: Lease, runner: Runner) -> None:
    while True:
        await runner.pause(runner.lease_ns / 10**9 / RENEWALS_PER_LEASE)
        await lease.confirm()
