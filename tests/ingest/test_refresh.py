"""Views by their schedules: what a run does, two runs at once, and runs that end half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from fastserve.errors import DefinitionError, StoreError
from fastserve.ingest import lease as leases
from fastserve.ingest.lease import LEASE_NS, SKEW_NS, refresh_states
from fastserve.ingest.refresh import Refreshed, RefreshSettings, refresh, scheduled_plans, statuses
from fastserve.ingest.registry import Registry
from fastserve.ingest.schedule import Gap
from fastserve.sdk.repo import Repo
from fastserve.store.interface import OnlineStore
from tests.ingest.runners import Clock
from tests.ingest.support import DAY_NS, HOUR_NS, UNTIL_NS, Workbench

DEFINITIONS = """
    source = FileSource("events", "events.csv", timestamp_field="at")
    other = FileSource("others", "others.csv", timestamp_field="at")
    amount = Field("amount", Float64)
    counts = aggregates(amount, ["count"], [days(7)])
    spend = FeatureView("spend", user, source, counts, aggregation_interval=hours(1), batch_schedule=hours(6))
    profile = FeatureView("profile", user, source, [Attribute("amount", Float64)], batch_schedule=days(1))
    broken = FeatureView("broken", user, other, counts,
                         aggregation_interval=hours(1), batch_schedule=hours(3))
    free = FeatureView("free", user, source, counts, aggregation_interval=hours(1))
"""
EVENTS = """\
user_id,amount,at
u1,1,2025-12-31T23:30:00Z
u1,2,2025-12-31T12:00:00Z
u2,3,2025-12-31T03:00:00Z
u1,4,2026-01-01T05:00:00Z
u3,5,2026-01-01T11:00:00Z
"""
SETTINGS = RefreshSettings(progress=False, parallel=2)


@pytest.fixture
def repo(bench: Workbench) -> Repo:
    repo = bench.define(DEFINITIONS)
    bench.write("events.csv", EVENTS)
    bench.write("others.csv", EVENTS)
    bench.apply(repo)
    return repo


def refreshed(
    bench: Workbench, repo: Repo, clock: Clock, *views: str, name: str = "a", **settings: Any
) -> dict[str, Refreshed]:
    def work(store: OnlineStore) -> Awaitable[list[Refreshed]]:
        chosen = RefreshSettings(**{"progress": False, "parallel": 2, **settings})
        return refresh(repo, views, store, settings=chosen, runner=clock.eager(name))

    return {result.view: result for result in bench.with_store(work)}


def outcomes(results: dict[str, Refreshed]) -> dict[str, str]:
    return {view: result.outcome for view, result in results.items()}


def counts_of(bench: Workbench, repo: Repo, view: str = "spend") -> tuple[set[int], dict[str, int]]:
    """Give the effective times of a view's rows, and how many events each user's row counts."""
    plan = bench.plan(repo, view)
    users = ["u1", "u2", "u3"]
    rows = {user: bench.row(repo, view, user) for user in users}
    times = {row[0] for row in rows.values() if row}
    assert plan.schema is not None
    return times, {user: sum(row[1].values()) for user, row in rows.items() if row}


def test_every_scheduled_view_is_brought_up_to_its_newest_boundary(bench: Workbench, repo: Repo) -> None:
    clock = Clock(UNTIL_NS + HOUR_NS)

    results = refreshed(bench, repo, clock)

    assert outcomes(results) == {"spend": "done", "profile": "done", "broken": "done"}
    assert counts_of(bench, repo) == ({UNTIL_NS}, {"u1": 2, "u2": 1})
    assert bench.row(repo, "profile", "u1") == (UNTIL_NS - HOUR_NS // 2, {"amount": 1.0})
    assert set(outcomes(refreshed(bench, repo, clock)).values()) == {"up to date"}


def test_a_run_after_missed_boundaries_does_the_newest_and_records_the_gap(
    bench: Workbench, repo: Repo
) -> None:
    clock = Clock(UNTIL_NS - 12 * HOUR_NS)
    refreshed(bench, repo, clock)
    clock.now_ns = UNTIL_NS + 13 * HOUR_NS

    results = refreshed(bench, repo, clock)

    gap = Gap(UNTIL_NS - 6 * HOUR_NS, UNTIL_NS + 6 * HOUR_NS, 3)
    assert results["spend"].due is not None
    assert results["spend"].due.gap == gap
    assert results["spend"].state.gaps == (gap,)
    assert counts_of(bench, repo) == ({UNTIL_NS + 12 * HOUR_NS}, {"u1": 3, "u2": 1, "u3": 1})
    assert results["profile"].due is not None
    assert results["profile"].due.gap is None


def test_a_failed_view_keeps_none_from_being_done_and_is_tried_again(bench: Workbench, repo: Repo) -> None:
    (bench.folder / "repo" / "others.csv").unlink()
    clock = Clock(UNTIL_NS)

    for attempts in (1, 2):
        results = refreshed(bench, repo, clock, "broken", "spend")
        assert results["spend"].outcome == ("done" if attempts == 1 else "up to date")
        assert results["broken"].outcome == "failed"
        assert "FileSource 'others': path (expected at least one file" in results["broken"].error
        assert results["broken"].state.attempts == attempts
        (status,) = states(bench, repo, clock, "broken")
        assert (status.standing, status.state.attempts) == ("failing", attempts)
        assert "FileSource 'others'" in status.state.last_error

    bench.write("others.csv", EVENTS)
    assert refreshed(bench, repo, clock, "broken")["broken"].outcome == "done"
    (status,) = states(bench, repo, clock, "broken")
    assert (status.standing, status.state.attempts, status.state.last_error) == ("up to date", 0, "")


def states(bench: Workbench, repo: Repo, clock: Clock, *views: str) -> Any:
    async def work(store: OnlineStore) -> Any:
        plans = scheduled_plans(repo, views, workspace=None, prefixes="")
        return await statuses(plans, Registry(store, repo.workspace), clock.now_ns)

    return bench.with_store(work)


def test_how_views_stand_is_told_without_doing_anything(bench: Workbench, repo: Repo) -> None:
    clock = Clock(UNTIL_NS)
    assert [status.standing for status in states(bench, repo, clock)] == ["due"] * 3
    refreshed(bench, repo, clock, "spend")
    clock.now_ns += 5 * HOUR_NS
    assert [status.standing for status in states(bench, repo, clock)] == ["up to date", "due", "due"]
    clock.now_ns += HOUR_NS
    (status,) = states(bench, repo, clock, "spend")
    assert (status.standing, status.done.until_ns, status.boundary_ns) == ("due", UNTIL_NS, clock.now_ns)

    async def work(store: OnlineStore) -> None:
        await leases.acquire(Registry(store, "default"), clock.runner("b"), "spend", clock.now_ns)

    bench.with_store(work)
    (status,) = states(bench, repo, clock, "spend")
    assert (status.standing, status.state.owner) == ("running", "b")


def test_a_changed_definition_is_made_good(bench: Workbench, repo: Repo) -> None:
    clock = Clock(UNTIL_NS + HOUR_NS)
    refreshed(bench, repo, clock)
    changed = bench.define(DEFINITIONS.replace('["count"], [days(7)]', '["count"], [days(1)]'))
    bench.apply(changed)

    results = refreshed(bench, changed, clock)

    assert outcomes(results) == {"spend": "done", "profile": "up to date", "broken": "done"}
    assert results["spend"].due is not None
    assert (results["spend"].due.reason, results["spend"].due.until_ns) == ("changed definition", UNTIL_NS)
    assert set(outcomes(refreshed(bench, changed, clock)).values()) == {"up to date"}


def test_an_authors_function_may_raise_anything(bench: Workbench, capsys: pytest.CaptureFixture[str]) -> None:
    repo = bench.define(
        DEFINITIONS
        + """
    def divide(table):
        return table.slice(1 // 0)
    odd = FeatureView("odd", user, source, counts, aggregation_interval=hours(1), batch_schedule=hours(6),
                      transformation=divide)
    """
    )
    bench.write("events.csv", EVENTS)
    bench.apply(repo)

    results = refreshed(bench, repo, Clock(UNTIL_NS), "odd", "spend")

    assert outcomes(results) == {"odd": "failed", "spend": "done"}
    assert "ZeroDivisionError" in results["odd"].error


@pytest.mark.parametrize(
    "view, message",
    [
        ("free", "FeatureView 'free': expected a batch_schedule, got none"),
        ("nothing", "view: expected one of spend, profile, broken, free, got 'nothing'"),
    ],
)
def test_views_that_have_no_schedule_are_refused(
    bench: Workbench, repo: Repo, view: str, message: str
) -> None:
    with pytest.raises(DefinitionError) as refused:
        refreshed(bench, repo, Clock(UNTIL_NS), view)
    assert message in str(refused.value)


def test_a_store_that_was_not_applied_to_is_refused(bench: Workbench) -> None:
    repo = bench.define(DEFINITIONS)

    with pytest.raises(DefinitionError, match=r"default\.fastserve: expected it in the store, found none"):
        refreshed(bench, repo, Clock(UNTIL_NS))


class Meddling:
    """A store that calls back before each write, which may raise, or wait."""

    def __init__(self, store: OnlineStore, before: Callable[[str, str], Awaitable[None]]) -> None:
        self._store = store
        self._before = before

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def put_rows(self, table: str, rows: Sequence[tuple[str, bytes]]) -> None:
        await self._before("put_rows", f"{table} {rows[0][0]}")
        await self._store.put_rows(table, rows)

    async def replace_row(self, table: str, key: str, *arguments: Any, **options: Any) -> Any:
        await self._before("replace_row", f"{table} {key}")
        return await self._store.replace_row(table, key, *arguments, **options)

    async def delete_rows(self, table: str, keys: Sequence[str]) -> None:
        await self._before("delete_rows", f"{table} {keys[:1]}")
        await self._store.delete_rows(table, keys)


class KilledError(BaseException):
    """What nobody catches, as nobody catches a kill."""


@pytest.mark.parametrize("calls", range(10))
def test_a_run_that_is_killed_at_any_write_is_made_good_by_the_next(
    bench: Workbench, repo: Repo, calls: int
) -> None:
    clock = Clock(UNTIL_NS)
    seen: list[str] = []

    async def kill(operation: str, what: str) -> None:
        if len(seen) == calls:
            raise KilledError
        seen.append(f"{operation} {what}")

    async def killed(store: OnlineStore) -> bool:
        runner = clock.eager("a")
        try:
            await refresh(repo, ["spend"], Meddling(store, kill), settings=SETTINGS, runner=runner)
        except KilledError:
            return True
        return False

    was_killed = bench.with_store(killed)
    assert was_killed == (calls < 8), seen  # so the parameters go beyond the last write
    recorded = any("materialized/spend" in call for call in seen)
    clock.now_ns += 1
    early = refreshed(bench, repo, clock, "spend", name="b")["spend"].outcome
    assert early == ("done" if calls == 0 else "up to date" if recorded else "running elsewhere")
    clock.now_ns += LEASE_NS + SKEW_NS
    late = refreshed(bench, repo, clock, "spend", name="b")["spend"]
    assert late.outcome == ("done" if early == "running elsewhere" else "up to date")
    assert counts_of(bench, repo) == ({UNTIL_NS}, {"u1": 2, "u2": 1})
    if late.outcome == "done":
        assert late.state.attempts == 0


def test_two_runners_at_once_do_each_view_once(bench: Workbench, repo: Repo) -> None:
    clock = Clock(UNTIL_NS)
    recorded: list[str] = []

    async def before(operation: str, what: str) -> None:
        if "default.fastserve materialized/" in what:
            recorded.append(what.rpartition("/")[2])
        await asyncio.sleep(0)

    async def work(store: OnlineStore) -> list[list[Refreshed]]:
        runs = [
            refresh(repo, [], Meddling(store, before), settings=SETTINGS, runner=clock.eager(name))
            for name in "abc"
        ]
        return await asyncio.gather(*runs)

    results = bench.with_store(work)

    assert sorted(recorded) == ["broken", "profile", "spend"]
    done = [result.view for run in results for result in run if result.outcome == "done"]
    assert sorted(done) == ["broken", "profile", "spend"]
    assert {result.outcome for run in results for result in run} <= {
        "done",
        "up to date",
        "running elsewhere",
    }
    assert counts_of(bench, repo) == ({UNTIL_NS}, {"u1": 2, "u2": 1})


def test_a_runner_that_lost_its_lease_stops_before_it_records(bench: Workbench, repo: Repo) -> None:
    clock = Clock(UNTIL_NS)
    reached, going_on = asyncio.Event(), asyncio.Event()

    async def stall(operation: str, what: str) -> None:
        if operation == "put_rows" and what.startswith("default.spend"):
            reached.set()
            await going_on.wait()

    async def work(store: OnlineStore) -> tuple[Refreshed, Refreshed]:
        slow = asyncio.create_task(
            refresh(repo, ["spend"], Meddling(store, stall), settings=SETTINGS, runner=clock.runner("slow"))
        )
        await reached.wait()
        clock.now_ns = UNTIL_NS + 6 * HOUR_NS
        (quick,) = await refresh(repo, ["spend"], store, settings=SETTINGS, runner=clock.eager("quick"))
        going_on.set()
        return (await slow)[0], quick

    slow, quick = bench.with_store(work)

    assert (slow.outcome, quick.outcome) == ("running elsewhere", "done")
    assert "the lease of slow is lost" in slow.error

    async def recorded(store: OnlineStore) -> tuple[Any, Any]:
        registry = Registry(store, "default")
        return await registry.materialized(["spend"]), await refresh_states(registry, ["spend"])

    done, state = bench.with_store(recorded)
    assert done["spend"].until_ns == UNTIL_NS + 6 * HOUR_NS
    assert (state["spend"].owner, state["spend"].attempts) == ("", 0)


def test_what_the_store_is_to_blame_for_is_tried_again_in_the_same_run(bench: Workbench, repo: Repo) -> None:
    clock = Clock(UNTIL_NS)
    failures = ["default.spend", "default.spend"]

    async def fail(operation: str, what: str) -> None:
        if operation == "put_rows" and failures and what.startswith(failures[0]):
            failures.pop()
            raise StoreError("the store is away", retryable=True)

    async def work(store: OnlineStore) -> list[Refreshed]:
        meddling = Meddling(store, fail)
        return await refresh(repo, ["spend"], meddling, settings=SETTINGS, runner=clock.eager("a"))

    (result,) = bench.with_store(work)

    assert (result.outcome, failures) == ("done", [])
    assert counts_of(bench, repo) == ({UNTIL_NS}, {"u1": 2, "u2": 1})


def test_a_store_that_stays_away_fails_every_view_and_keeps_its_own_lease_no_secret(
    bench: Workbench, repo: Repo
) -> None:
    clock = Clock(UNTIL_NS)
    away = False

    async def fail(operation: str, what: str) -> None:
        nonlocal away
        away = away or what.startswith("default.spend")
        if away:
            raise StoreError("the store is away", retryable=True)

    async def work(store: OnlineStore) -> list[Refreshed]:
        meddling = Meddling(store, fail)
        return await refresh(repo, [], meddling, settings=SETTINGS, runner=clock.eager("a"))

    results = bench.with_store(work)

    assert [result.outcome for result in results] == ["failed"] * 3
    assert all("the store is away" in result.error for result in results)
    clock.now_ns += DAY_NS
    assert set(outcomes(refreshed(bench, repo, clock, name="b")).values()) == {"done"}
