"""The batch job on Spark, for views whose data are past one machine: a DataFrame in, rows of the store out.

The frame holds what a view's files would hold after the view's transformation: join keys, the timestamp, the
columns that features are made of. Executors check its rows as the single-machine job does; when few enough
are bad, the good ones are shuffled by entity key and sorted, and every partition's rows are made by the same
code and put by the executor that made them, which opens the store from its URL. What runs there is in
`spark_tasks`; here is what the driver does. PySpark is imported inside of functions alone.

The same events give the same rows as `materialize` makes, byte for byte, but for float sums: those may differ
in the last digits where events of one entity key have the same time, whose order Spark doesn't keep.

Invariants
1. Nothing is written before every row was read and checked.
2. What was materialized is recorded only after the last row was written.
3. Which rows a partition has depends on their entity keys and the number of partitions alone: Spark's own
   hash cuts them, which is the same in every run.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb

from fastserve.errors import DefinitionError, shown
from fastserve.ingest.badrows import BadRows
from fastserve.ingest.columns import CheckedColumn, quoted
from fastserve.ingest.files import Relation, describe
from fastserve.ingest.jobs import JobRecords, fingerprint_of
from fastserve.ingest.materialize import (
    EPOCH,
    MaterializeReport,
    as_of_ns,
    check_tables,
    finish_view,
    make_report,
    plan_to_write,
    time_bounds,
)
from fastserve.ingest.partition import PartitionResult, rows_job
from fastserve.ingest.places import check_place, confirm_place
from fastserve.ingest.putting import check_told, destination
from fastserve.ingest.registry import Registry
from fastserve.ingest.shuffle import TIME, checked_columns, feature_columns, key_column
from fastserve.ingest.spark_tasks import (
    INPUT,
    NOTE,
    ORDER,
    PARTITION,
    RESULT,
    CheckJob,
    CheckNote,
    WriteJob,
    check_batches,
    read_note,
    read_result,
    spark_type,
    write_batches,
)
from fastserve.plan.views import ViewPlan, duration_ns
from fastserve.sdk.repo import Repo
from fastserve.sdk.types import DataType, Int64, Timestamp
from fastserve.store.addresses import StoreAddresses, addresses, configured_prefixes
from fastserve.store.interface import OnlineStore
from fastserve.store.url import LocalSettings, parse_store_url

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.types import StructType

T = TypeVar("T")
_INTEGERS = frozenset({"tinyint", "smallint", "int", "bigint"})


def materialize_frame(
    frame: DataFrame,
    repo: Repo,
    view: str,
    store: str,
    *,
    until: datetime | None = None,
    order_by: str | None = None,
    partitions: int | None = None,
    max_bad_rows: int | None = None,
    input_name: str | None = None,
    workspace: str | None = None,
    stores: Mapping[str, str] = MappingProxyType({}),
) -> MaterializeReport:
    """Materialize a view from a DataFrame of all its events before ``until``.

    Args:
        frame: The view's rows after its transformation, which isn't applied here. Columns are found by name,
            whatever their case; others are let be. Timestamps are Spark's, dates, or text.
        repo: The feature repo, as `fastserve.sdk.repo.load_repo` loads it.
        view: The name of a view that has a source with files, in whose place the frame stands.
        store: The store's URL. Executors open it, so credentials have to be there; ``local:`` does for Spark
            in local mode alone.
        until: With a zone; None is now.
        order_by: A column of integers or timestamps that tells which of two rows of attributes with one
            entity key and one time is the later one. Without it that depends on the rows' values.
        partitions: How many to cut the rows into; None is ``spark.sql.shuffle.partitions``.
        max_bad_rows: None tolerates 5 % of the rows, 0 none.
        input_name: Says what is in the frame, such as a table's version. A job that failed goes on where it
            ended if it is started again with the same name, so the same name has to stand for the same rows.
            None starts anew.
        workspace: None is the repo's.
        stores: The URLs of the stores that views name.

    Raises:
        DefinitionError: an unknown view, a table that isn't there, a column that lacks or can't be of the
            declared type, too many bad rows (`BadRowsError`); a URL that executors can't use.
        StoreError: the store failed on the driver, or an item of a bundle had room for nothing.
        pyspark.errors.PySparkException: a task failed as often as Spark tries it; what it raised is in the
            message.
    """
    plan = plan_to_write(repo, view, workspace or repo.workspace, configured_prefixes(store, stores))
    until_ns = time.time_ns() if until is None else _nanoseconds(until)
    session = frame.sparkSession
    if partitions is not None and partitions < 1:
        raise DefinitionError(f"partitions: expected at least 1, got {partitions}")
    job = _FrameJob(
        plan=plan,
        workspace=workspace or repo.workspace,
        store=_reachable(
            addresses(store, stores, {table: plan.store for table in plan.tables if plan.store}), session
        ),
        until_ns=until_ns,
        as_of_ns=as_of_ns(plan, until_ns),
        partitions=partitions or int(session.conf.get("spark.sql.shuffle.partitions", "200") or 200),
        max_bad_rows=max_bad_rows,
        order_by=order_by,
        input_name=input_name,
    )
    return job.run(frame)


def _nanoseconds(moment: datetime) -> int:
    if moment.utcoffset() is None:
        raise DefinitionError(f"until: expected a time with a zone, got {shown(moment.isoformat())}")
    return duration_ns(moment - EPOCH)


def _reachable(where: StoreAddresses, session: SparkSession) -> StoreAddresses:
    """Return the stores' addresses as executors are to open them, whatever folder they work in."""
    named = {name: _reachable_url(url, session) for name, url in where.named.items()}
    return StoreAddresses(_reachable_url(where.main, session), named, where.homes)


def _reachable_url(url: str, session: SparkSession) -> str:
    if not isinstance(parse_store_url(url), LocalSettings):
        return url
    master = session.conf.get("spark.master", "") or ""
    if not master.startswith("local"):
        raise DefinitionError(
            f"store {shown(url)}: expected a store that all executors reach, got a folder of one machine: "
            f"local: is for Spark in local mode, this one's master is {shown(master)}"
        )
    target, question, query = url.removeprefix("local:").partition("?")
    return f"local:{Path(target).absolute()}{question}{query}"


@dataclass(frozen=True, slots=True)
class _FrameJob:
    """One view's way from a frame to rows."""

    plan: ViewPlan
    workspace: str
    store: StoreAddresses
    until_ns: int
    as_of_ns: int
    partitions: int
    max_bad_rows: int | None
    order_by: str | None
    input_name: str | None

    def run(self, frame: DataFrame) -> MaterializeReport:
        """Do it all; return what it came to."""
        from pyspark import StorageLevel

        began = time.perf_counter()
        self._with_registry(self._check_tables)
        check, selected = self._check_job(frame)
        # Kept on disk, because it is read twice: the source may be dear to read, or give other rows then.
        checked = _checked(selected, check).persist(StorageLevel.DISK_ONLY)
        try:
            notes = [read_note(row[0]) for row in checked.where(f"{NOTE} IS NOT NULL").select(NOTE).collect()]
            bad = self._judged(notes)
            since_ns, done = self._with_registry(self._begin)
            results = self._written(checked, check, since_ns, sorted(done))
        finally:
            checked.unpersist()
        check_told(self.plan, [key for result in results for key in result.untold])
        report = make_report(
            self.plan,
            self.until_ns,
            rows_read=sum(note.rows_read for note in notes),
            rows_outside=sum(note.rows_outside for note in notes),
            bad=bad,
            results=results,
            done=done,
            seconds=time.perf_counter() - began,
        )
        self._with_registry(lambda registry, store: self._finish(registry, store, report, since_ns))
        return report

    # --- the store, from the driver -------------------------------------------------------------------------

    def _with_registry(self, work: Callable[[Registry, OnlineStore], Awaitable[T]]) -> T:
        async def run() -> T:
            store = await self.store.open()
            try:
                return await work(Registry(store, self.workspace), store)
            finally:
                await store.close()

        # In a thread: a notebook's own loop runs in this one.
        with ThreadPoolExecutor(1, "fastserve-registry") as executor:
            return executor.submit(lambda: asyncio.run(run())).result()

    async def _check_tables(self, registry: Registry, store: OnlineStore) -> None:
        await check_tables([self.plan], registry, store, self.store.main)

    async def _begin(self, registry: Registry, _store: OnlineStore) -> tuple[int, dict[int, tuple[int, int]]]:
        """Record the layout of the rows to come; return since when the tables are there, and what is done."""
        since_ns = await check_place(registry, self.plan)
        if self.plan.packed:
            await registry.record_schema(self.plan)
        records = self._records(registry, since_ns)
        return since_ns, {} if records is None else await records.done()

    async def _finish(
        self, registry: Registry, store: OnlineStore, report: MaterializeReport, since_ns: int
    ) -> None:
        await confirm_place(registry, self.plan, since_ns)
        await finish_view(store, registry, self.plan, report)
        records = self._records(registry, since_ns)
        if records is not None:
            await records.clear()

    def _records(self, registry: Registry, since_ns: int) -> JobRecords | None:
        name = self._job_name()
        return None if name is None else JobRecords(registry, name, self.partitions, since_ns)

    def _job_name(self) -> str | None:
        if self.input_name is None:
            return None
        return fingerprint_of(
            self.plan, ["spark", self.input_name, self.order_by], self.until_ns, self.partitions
        )

    # --- checking -------------------------------------------------------------------------------------------

    def _check_job(self, frame: DataFrame) -> tuple[CheckJob, DataFrame]:
        """Return the checks of the frame's columns, and the frame cut down to those.

        Raises:
            DefinitionError: a column lacks, is there twice or can't be of the declared type.
        """
        from pyspark.sql import functions

        if frame.isStreaming:
            raise DefinitionError("DataFrame: expected one that ends, got a streaming one")
        names, dtypes = self._needed()
        found = {name: _found(frame, name) for name in names}
        columns = [
            functions.col(_backquoted(column)).alias(name)
            for name, column in found.items()
            if column is not None
        ]
        order = self._order(frame)
        if order is not None:
            columns.append(order.alias(ORDER))
        types = _duckdb_types(frame.select(columns))
        others = {name: "" for name in frame.columns if name not in found.values()}
        relation = Relation(f"SELECT * FROM {INPUT}", types | others, "the DataFrame")
        checks = checked_columns(self.plan, relation)
        if order is not None:
            checks.append((ORDER, CheckedColumn(ORDER, quoted(ORDER), "false", quoted(ORDER), "")))
            dtypes.append(Int64)
        job = CheckJob(
            view=self.plan.name,
            types=types,
            columns=tuple(checks),
            dtypes=tuple(dtypes),
            bounds=time_bounds(self.plan, self.as_of_ns),
            tie_sql=self._tie_sql() if order is None else None,
        )
        return job, frame.select(columns)

    def _needed(self) -> tuple[list[str], list[DataType]]:
        """Return the columns of the frame that are needed, each once, and the types of those that come out.

        Both are in the order of `checked_columns`; a column may come out twice, as a join key and a feature.
        """
        fields = [(field.name, field.dtype) for field in self.plan.key_fields]
        if self.plan.view.timestamp_field is not None:
            fields.append((self.plan.view.timestamp_field, Timestamp))
        fields += [(field.name, field.dtype) for field in feature_columns(self.plan)]
        return list(dict.fromkeys(name for name, _ in fields)), [dtype for _, dtype in fields]

    def _order(self, frame: DataFrame) -> Column | None:
        """Return the column that is largest for the last of equals, None if none was named.

        Raises:
            DefinitionError: there is no such column, or it isn't wanted.
        """
        from pyspark.sql import functions

        if self.order_by is None:
            return None
        if self.plan.schema is not None:
            raise DefinitionError(
                "order_by: expected none for a view of aggregates, to which the order of equals means nothing"
            )
        name = _found(frame, self.order_by)
        kind = "" if name is None else frame.select(_backquoted(name)).schema[0].dataType.simpleString()
        if name is None or kind not in {*_INTEGERS, "timestamp"}:
            got = f"{shown(self.order_by)}, which the DataFrame doesn't have" if name is None else kind
            raise DefinitionError(f"order_by: expected a column of integers or timestamps, got {got}")
        column = functions.col(_backquoted(name))
        return column.cast("bigint") if kind in _INTEGERS else functions.unix_micros(column)

    def _tie_sql(self) -> str | None:
        """Return the SQL that takes the place of an order that nobody named: values decide."""
        if self.plan.schema is not None:
            return None  # nothing of an aggregate depends on the order of what has one time
        features = ", ".join(quoted(field.name) for field in feature_columns(self.plan))
        return f"CAST(hash({features}) >> 1 AS BIGINT)"

    def _judged(self, notes: Iterable[CheckNote]) -> BadRows:
        """Return the bad rows of all tasks.

        Raises:
            BadRowsError: too many.
        """
        bad = BadRows(self.plan.name, self.max_bad_rows, option="max_bad_rows=N")
        rows_read = 0
        for note in notes:
            bad.add(note.rows_bad, list(note.samples))
            rows_read += note.rows_read
        bad.check(rows_read)
        return bad

    # --- writing --------------------------------------------------------------------------------------------

    def _written(
        self, checked: DataFrame, check: CheckJob, since_ns: int, done: Sequence[int]
    ) -> list[PartitionResult]:
        from pyspark.sql import functions

        keys = [key_column(place) for place in range(len(self.plan.key_fields))]
        # What HashPartitioning does with these columns: the partition is known before the shuffle.
        partition = functions.pmod(functions.hash(*keys), functions.lit(self.partitions))
        rows = checked.where(f"{NOTE} IS NULL").drop(NOTE).withColumn(PARTITION, partition)
        if done:
            rows = rows.where(~functions.col(PARTITION).isin(list(done)))
        order = [name for name in [*keys, TIME, ORDER] if name in check.names]
        job = WriteJob(
            rows=rows_job(self.plan, self.as_of_ns),
            destination=destination(self.plan),
            store=self.store,
            workspace=self.workspace,
            job_name=self._job_name(),
            since_ns=since_ns,
            partitions=self.partitions,
        )

        def write(batches: Iterator[Any]) -> Iterator[Any]:
            return write_batches(job, batches)

        shuffled = rows.repartition(self.partitions, *keys).sortWithinPartitions(*order)
        return [read_result(row[0]) for row in shuffled.mapInArrow(write, f"{RESULT} string").collect()]


def _checked(frame: DataFrame, job: CheckJob) -> DataFrame:
    def check(batches: Iterator[Any]) -> Iterator[Any]:
        from pyspark import TaskContext

        context = TaskContext.get()
        return check_batches(job, batches, -1 if context is None else context.partitionId())

    return frame.mapInArrow(check, _checked_type(job))


def _checked_type(job: CheckJob) -> StructType:
    from pyspark.sql.types import LongType, StringType, StructType

    schema = StructType()
    for (name, _), dtype in zip(job.columns, job.dtypes, strict=True):
        schema = schema.add(name, spark_type(dtype))
    if job.tie_sql is not None:
        schema = schema.add(ORDER, LongType())
    return schema.add(NOTE, StringType())


def _found(frame: DataFrame, name: str) -> str | None:
    """Return a column's name as the frame has it, None if there is none: case doesn't count, as in SQL.

    Raises:
        DefinitionError: there are several.
    """
    names = [column for column in frame.columns if column.lower() == name.lower()]
    if len(names) > 1:
        raise DefinitionError(f"DataFrame: expected one column {name!r}, got {len(names)} of that name")
    return names[0] if names else None


def _backquoted(name: str) -> str:
    return "`" + re.sub("`", "``", name) + "`"


def _duckdb_types(selected: DataFrame) -> dict[str, str]:
    """Return the columns and their types as DuckDB will see them in tasks."""
    connection = duckdb.connect()
    try:
        connection.register(INPUT, selected.limit(0).toArrow())
        return describe(connection, f"SELECT * FROM {INPUT}")
    finally:
        connection.close()
