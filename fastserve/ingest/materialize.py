"""The batch job: a view's files, through its transformation and tiling, into the online store.

For each view: find the files, check every row, partition the good ones by entity key (`shuffle`), then sort,
tile and encode partition after partition (`partition`, in processes where there is much to do) and put the
rows. A view whose files hold too many bad rows is not written at all. Starting an interrupted job again skips
the partitions that the store already has; running a finished one again writes the same rows. A key whose
events have all left the windows keeps the row that it has: that answers rightly until its horizon, and is
missing from then on.

Invariants
1. Nothing is written before every row was read and checked.
2. What was materialized is recorded only after the last row was written. A guarded job (`lease`) asks before
   it puts rows, and again before it records.
3. Memory is bounded by `memory_mb` and some 300 MB, whatever the size of the files; the rest is on disk, in a
   folder that goes with the job (`scratch`).
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import duckdb
import pyarrow as pa

from fastserve.errors import DefinitionError, shown
from fastserve.ingest.apply import table_specs
from fastserve.ingest.badrows import BadRow, BadRows
from fastserve.ingest.checking import Reading
from fastserve.ingest.definition import rows_digest
from fastserve.ingest.files import InputFile, connect, find_files, first_line
from fastserve.ingest.jobs import JobRecords, fingerprint
from fastserve.ingest.lease import Guard, Unguarded
from fastserve.ingest.partition import SAMPLES, PartitionJob, PartitionResult, make_rows, read_rows, rows_job
from fastserve.ingest.places import check_place, confirm_place
from fastserve.ingest.progress import Progress, make_progress
from fastserve.ingest.putting import NotPut, check_told, destination, put_made
from fastserve.ingest.registry import Materialized, Registry
from fastserve.ingest.scratch import scratch_folder
from fastserve.ingest.shuffle import (
    Partitions,
    TimeBounds,
    checked_columns,
    partition_sql,
    partitions_for,
)
from fastserve.ingest.transform import view_relations
from fastserve.plan.stores import TablePrefixes
from fastserve.plan.views import ViewPlan, duration_ns, plan_view
from fastserve.sdk.repo import Repo
from fastserve.sdk.sources import FileSource
from fastserve.store.interface import OnlineStore
from fastserve.store.mixed import prefixes_of
from fastserve.tiles.write import earliest_ns

MEMORY_MB = 1024
MEMORY_MB_MIN = 64
"""What DuckDB needs to read and sort at all."""
ROWS_FOR_PROCESSES = 500_000
"""Below so many rows a process takes longer to start than the work does."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class MaterializeReport:
    """What became of one view.

    ``rows_outside`` were good, but at or after ``until`` or before every window. ``bad_samples`` are the
    first of the bad rows. ``spoilt_keys`` have an integer sum beyond int64, which is null. ``too_large_keys``
    have more than a store's row holds, or than their item in the ``bundle`` has room for: they keep the row
    that they had, and without one those of aggregates are missing, whatever is pushed. ``resumed`` partitions
    had been written by an earlier run of the same job.
    """

    view: str
    until_ns: int
    as_of_ns: int
    rows_read: int
    rows_bad: int
    rows_outside: int
    keys: int
    bytes: int
    seconds: float
    bad_samples: tuple[BadRow, ...] = ()
    spoilt_keys: int = 0
    spoilt_samples: tuple[str, ...] = ()
    too_large_keys: int = 0
    too_large_samples: tuple[str, ...] = ()
    resumed: int = 0
    bundle: str | None = None


@dataclass(frozen=True, slots=True)
class JobSettings:
    """How a job runs: what every view of it shares."""

    until_ns: int
    inputs: Sequence[str] | None
    max_bad_rows: int | None
    parallel: int
    memory_mb: int
    scratch: Path


async def materialize(
    repo: Repo,
    views: Sequence[str],
    store: OnlineStore,
    *,
    until_ns: int,
    inputs: Sequence[str] | None = None,
    max_bad_rows: int | None = None,
    progress: bool = True,
    parallel: int = 1,
    memory_mb: int = MEMORY_MB,
    workspace: str | None = None,
    scratch: str | Path | None = None,
    store_name: str = "the store",
    guard: Guard | None = None,
) -> list[MaterializeReport]:
    """Materialize views, one after the other, from all events before ``until_ns``.

    ``inputs`` are read in place of the sources' files; then all views must have one source. ``max_bad_rows``
    None tolerates 5 % of a view's rows (`badrows.TOLERATED_SHARE`), 0 none. ``scratch`` is where temporary
    files go. ``store_name`` is the store's in messages. ``guard`` is asked before anything is written.

    Raises:
        DefinitionError: an unknown view, one without files, a table that isn't there, files that can't be
        read, too many bad rows (`BadRowsError`). StoreError: the store failed; running the job again goes on
        where it ended.
    """
    workspace = workspace or repo.workspace
    prefixes = prefixes_of(store)
    plans = [plan_to_write(repo, name, workspace, prefixes) for name in views]
    _check_one_source(plans, inputs)
    registry = Registry(store, workspace)
    await check_tables(plans, registry, store, store_name)
    work = [(plan, StoreOutlet(plan, store, registry, guard or Unguarded())) for plan in plans]
    return await run_jobs(
        work,
        until_ns=until_ns,
        inputs=inputs,
        max_bad_rows=max_bad_rows,
        progress=progress,
        parallel=parallel,
        memory_mb=memory_mb,
        scratch=scratch,
    )


class Outlet(Protocol):
    """Where one view's rows go, and who remembers how far the job came."""

    async def begin(self, name: str, partitions: int) -> Mapping[int, tuple[int, int]]:
        """Prepare for the rows of the job ``name``; return what an earlier run of it has written.

        That is keys and bytes by partition.
        """

    async def put(self, made: Iterable[tuple[list[str], list[bytes]]]) -> NotPut:
        """Take what a `RowMaker` made; return what there is no room for."""

    async def partition_done(self, partition: int, result: PartitionResult) -> None:
        """Remember that all rows of a partition were put."""

    async def finish(self, report: MaterializeReport) -> None:
        """Remember that all rows of the view were put."""


class StoreOutlet:
    """Puts rows into the online store and keeps the records beside them."""

    def __init__(self, plan: ViewPlan, store: OnlineStore, registry: Registry, guard: Guard) -> None:
        self._plan = plan
        self._store = store
        self._registry = registry
        self._guard = guard
        self._records: JobRecords | None = None
        self._since_ns = 0

    async def begin(self, name: str, partitions: int) -> Mapping[int, tuple[int, int]]:
        """See `Outlet`."""
        self._since_ns = await check_place(self._registry, self._plan)
        if self._plan.packed:
            await self._registry.record_schema(self._plan)
        self._records = JobRecords(self._registry, name, partitions, self._since_ns)
        return await self._records.done()

    async def put(self, made: Iterable[tuple[list[str], list[bytes]]]) -> NotPut:
        """See `Outlet`."""
        await self._guard.hold()
        return await put_made(self._store, destination(self._plan), made)

    async def partition_done(self, partition: int, result: PartitionResult) -> None:
        """See `Outlet`."""
        if self._records is not None:
            await self._records.record(partition, result.keys, result.bytes)

    async def finish(self, report: MaterializeReport) -> None:
        """See `Outlet`."""
        await self._guard.confirm()
        await confirm_place(self._registry, self._plan, self._since_ns)
        await finish_view(self._store, self._registry, self._plan, report)
        if self._records is not None:
            await self._records.clear()


async def run_jobs(
    work: Sequence[tuple[ViewPlan, Outlet]],
    *,
    until_ns: int,
    inputs: Sequence[str] | None,
    max_bad_rows: int | None,
    progress: bool,
    parallel: int,
    memory_mb: int,
    scratch: str | Path | None,
) -> list[MaterializeReport]:
    """Make the rows of views one after the other, each into its outlet; `materialize` says what is what."""
    _check_one_source([plan for plan, _ in work], inputs)
    shows = make_progress(wanted=progress)
    try:
        with scratch_folder(scratch) as folder:
            settings = JobSettings(until_ns, inputs, max_bad_rows, max(1, parallel), memory_mb, folder)
            return [await _ViewJob(plan, outlet, settings, shows).run() for plan, outlet in work]
    finally:
        shows.close()


def plan_to_write(repo: Repo, name: str, workspace: str, prefixes: TablePrefixes | str) -> ViewPlan:
    """Return the plan of a view that batch jobs write.

    Raises:
        DefinitionError: there is no such view, or it has nothing to materialize.
    """
    view = repo.views.get(name)
    if view is None and name in repo.on_demand_views:
        raise DefinitionError(
            f"on-demand view {name!r}: it is computed at request time and has nothing to materialize",
            repo.on_demand_views[name].location,
        )
    if view is None:
        known = ", ".join(list(repo.views)[:20]) or "none, for the repo has none"
        raise DefinitionError(f"view: expected one of {known}, got {shown(name)}")
    if view.batch_source is None:
        kind = f"the {type(view.source).__name__} {view.source.name!r}"
        without = " without a batch_source" if view.is_streamed else ""
        raise DefinitionError(
            f"FeatureView {name!r}: expected a source with files to materialize, got {kind}{without}",
            view.location,
        )
    return plan_view(view, workspace, prefixes)


def _source(plan: ViewPlan) -> FileSource:
    source = plan.view.batch_source
    if source is None:
        raise DefinitionError(f"FeatureView {plan.name!r}: expected a source with files, got none")
    return source


def _check_one_source(plans: Sequence[ViewPlan], inputs: Sequence[str] | None) -> None:
    sources = {_source(plan).name for plan in plans}
    if inputs is not None and len(sources) > 1:
        listed = ", ".join(sorted(sources))
        raise DefinitionError(f"--input: expected views of one source, got views of {len(sources)}: {listed}")


async def check_tables(
    plans: Sequence[ViewPlan], registry: Registry, store: OnlineStore, store_name: str
) -> None:
    """Check that `fastserve apply` has been here.

    Raises:
        DefinitionError: a table isn't there or has another key.
    """
    wanted = [spec for plan in plans for spec in table_specs(plan)]
    found = await store.describe_tables([registry.table, *(spec.name for spec in wanted)])
    missing = [name for name, spec in found.items() if spec is None]
    if missing:
        homes = {table: plan.store for plan in plans if plan.store for table in plan.tables}
        place = f"the store {homes[missing[0]]!r}" if missing[0] in homes else store_name
        raise DefinitionError(
            f"table {missing[0]}: expected it in {place}, found none: name the store you applied to "
            "with --store, or run `fastserve apply` first"
        )
    for plan in plans:
        for spec in table_specs(plan):
            if found[spec.name] != spec:
                raise DefinitionError(
                    f"table {spec.name}: expected the key of view {plan.name!r}, found another: "
                    "`fastserve apply` says which"
                )


def as_of_ns(plan: ViewPlan, until_ns: int) -> int:
    """Return the as_of of a view's rows of all events before ``until_ns``."""
    return plan.as_of_ns(until_ns) if plan.schema is not None else until_ns


def time_bounds(plan: ViewPlan, as_of_ns: int) -> TimeBounds:
    """Return the times of events that any row written as of ``as_of_ns`` can hold."""
    start = plan.view.start_time
    floors = [] if start is None else [duration_ns(start - EPOCH)]
    if plan.schema is not None:
        floors.append(earliest_ns(plan.schema, as_of_ns))
    return TimeBounds(max(floors, default=None), as_of_ns)


def make_report(
    plan: ViewPlan,
    until_ns: int,
    *,
    rows_read: int,
    rows_outside: int,
    bad: BadRows,
    results: Sequence[PartitionResult],
    done: Mapping[int, tuple[int, int]],
    seconds: float,
) -> MaterializeReport:
    """Return what became of a view; ``done`` are the keys and bytes of partitions of an earlier run."""
    return MaterializeReport(
        view=plan.name,
        until_ns=until_ns,
        as_of_ns=as_of_ns(plan, until_ns),
        rows_read=rows_read,
        rows_bad=bad.count,
        rows_outside=rows_outside,
        keys=sum(result.keys for result in results) + sum(keys for keys, _ in done.values()),
        bytes=sum(result.bytes for result in results) + sum(size for _, size in done.values()),
        seconds=seconds,
        bad_samples=tuple(bad.samples),
        spoilt_keys=sum(result.spoilt_count for result in results),
        spoilt_samples=tuple(key for result in results for key in result.spoilt)[:SAMPLES],
        too_large_keys=sum(result.too_large_count for result in results),
        too_large_samples=tuple(key for result in results for key in result.too_large)[:SAMPLES],
        resumed=len(done),
        bundle=plan.view.bundle,
    )


def record_of(plan: ViewPlan, report: MaterializeReport) -> Materialized:
    """Return what is recorded of a view whose rows are all written."""
    return Materialized(
        view=report.view,
        until_ns=report.until_ns,
        as_of_ns=report.as_of_ns,
        schema_id=plan.layout.schema_id,
        rows_read=report.rows_read,
        rows_bad=report.rows_bad,
        keys=report.keys,
        bytes=report.bytes,
        definition=rows_digest(plan),
    )


async def finish_view(
    store: OnlineStore, registry: Registry, plan: ViewPlan, report: MaterializeReport
) -> None:
    """Record that all rows of a view are written, and let go of what they make superfluous."""
    await registry.record_materialized(record_of(plan, report))
    if plan.stream is not None:
        await store.sweep(plan.stream.table, int(time.time()))


class _ViewJob:
    """One view's way from files to rows."""

    def __init__(self, plan: ViewPlan, outlet: Outlet, settings: JobSettings, shows: Progress) -> None:
        self._plan = plan
        self._outlet = outlet
        self._settings = settings
        self._shows = shows
        self._folder = settings.scratch / plan.name
        self._as_of_ns = as_of_ns(plan, settings.until_ns)
        self._bad = BadRows(plan.name, settings.max_bad_rows)

    async def run(self) -> MaterializeReport:
        """Do it all; return what it came to."""
        try:
            return await self._run()
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            memory, folder = self._settings.memory_mb, self._settings.scratch
            room = f"room to work in ({memory} MB of memory, disk under {folder})"
            message = f"FeatureView {self._plan.name!r}: expected {room}, got: {first_line(error)}"
            raise DefinitionError(message) from error

    async def _run(self) -> MaterializeReport:
        began = time.perf_counter()
        source = _source(self._plan)
        files = await asyncio.to_thread(find_files, source, self._settings.inputs, self._settings.scratch)
        partitions = partitions_for(sum(file.plain_bytes for file in files))
        rows_read, staged = await self._staged(files, partitions)
        name = fingerprint(self._plan, files, self._settings.until_ns, partitions)
        done = await self._outlet.begin(name, partitions)
        results = await self._written(staged, done)
        check_told(self._plan, [key for result in results for key in result.untold])
        report = make_report(
            self._plan,
            self._settings.until_ns,
            rows_read=rows_read,
            rows_outside=staged.outside,
            bad=self._bad,
            results=results,
            done=done,
            seconds=time.perf_counter() - began,
        )
        await self._outlet.finish(report)
        return report

    # --- reading --------------------------------------------------------------------------------------------

    async def _staged(self, files: Sequence[InputFile], partitions: int) -> tuple[int, Partitions]:
        stop = threading.Event()
        try:
            return await asyncio.to_thread(self._stage, files, partitions, stop)
        finally:
            stop.set()  # a cancelled job's thread goes on until it looks

    def _stage(self, files: Sequence[InputFile], count: int, stop: threading.Event) -> tuple[int, Partitions]:
        """Read, check and partition; runs in a thread.

        Raises:
            BadRowsError: too many bad rows.
        """
        view, settings = self._plan.view, self._settings
        partitions = Partitions(self._folder / "partitions", count, time_bounds(self._plan, self._as_of_ns))
        connection = connect(self._folder, max(MEMORY_MB_MIN, settings.memory_mb // 2), settings.parallel)
        self._shows.step(f"{view.name}: reading", "rows")
        try:
            reading = Reading(connection, self._bad, self._shows, stop)
            rows_read = 0
            extra = [partition_sql(self._plan, count)]
            source, until_ns = _source(self._plan), self._settings.until_ns
            for relation in view_relations(reading, view, source, files, self._folder, until_ns):
                before = reading.rows
                partitions.add(reading.batches(relation, checked_columns(self._plan, relation), extra))
                rows_read += reading.rows - before
            self._bad.check(reading.rows)
        finally:
            connection.close()
            partitions.close()
        return rows_read, partitions

    # --- writing --------------------------------------------------------------------------------------------

    async def _written(
        self, staged: Partitions, done: Mapping[int, tuple[int, int]]
    ) -> list[PartitionResult]:
        """Make and put the rows of all partitions that aren't done, several at a time."""
        waiting = [p for p in range(staged.count) if p not in done and staged.path(p) is not None]
        self._shows.step(f"{self._plan.name}: writing", "partitions", len(waiting))
        limit = asyncio.Semaphore(self._settings.parallel)
        executor = self._executor(staged.rows)

        async def one(partition: int, source: Path) -> PartitionResult:
            async with limit:
                result = await self._make_and_put(partition, source, executor)
                if not result.untold:
                    await self._outlet.partition_done(partition, result)
                self._shows.advance(1)
                return result

        try:
            async with asyncio.TaskGroup() as group:
                paths = [(partition, staged.path(partition)) for partition in waiting]
                tasks = [
                    group.create_task(one(partition, path)) for partition, path in paths if path is not None
                ]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        await asyncio.to_thread(executor.shutdown)
        return [task.result() for task in tasks]

    def _executor(self, rows: int) -> Executor:
        parallel = self._settings.parallel
        if parallel == 1 or rows < ROWS_FOR_PROCESSES:
            return ThreadPoolExecutor(parallel, "fastserve-partition")
        # Not forked: this process has DuckDB's and the store's threads.
        return ProcessPoolExecutor(parallel, multiprocessing.get_context("spawn"))

    async def _make_and_put(self, partition: int, source: Path, executor: Executor) -> PartitionResult:
        job = self._partition_job(partition, source)
        result = await asyncio.get_running_loop().run_in_executor(executor, make_rows, job)
        not_put = await self._outlet.put(read_rows(job.target))
        await asyncio.to_thread(_remove, source, job.target)  # other partitions need the space
        return result.less(not_put)

    def _partition_job(self, partition: int, source: Path) -> PartitionJob:
        return PartitionJob(
            source=source,
            target=self._folder / f"{partition}.rows",
            scratch=self._folder / f"sort-{partition}",
            rows=rows_job(self._plan, self._as_of_ns),
            memory_mb=max(MEMORY_MB_MIN, self._settings.memory_mb // 2 // self._settings.parallel),
        )


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
