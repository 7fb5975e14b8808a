"""What Spark's executors run for `ingest.spark`: checking rows, and making and putting those of a partition.

Both are functions from an iterator of Arrow batches to one, as ``mapInArrow`` wants them. The checks are
those of files (`checking`, on DuckDB), the rows those of the single-machine job (`partition.RowMaker`). What
a task is sent is plain data: SQL texts, layouts, the store's URL. Neither the feature repo nor Spark's driver
is known here, and of Spark only the types of columns on their way between the tasks.

Invariants
1. A task that runs twice writes the same rows under the same keys.
2. A partition is recorded as written only after the store has taken all of its rows.
3. Between the tasks times are int64 nanoseconds, no type of Spark's: neither a session's time zone nor
   Spark's microseconds can change one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa

from fastserve.errors import InvariantError
from fastserve.ingest.badrows import BadRow, BadRows
from fastserve.ingest.checking import ROW, Reading
from fastserve.ingest.columns import CheckedColumn
from fastserve.ingest.files import Relation, connect
from fastserve.ingest.jobs import JobRecords
from fastserve.ingest.partition import BATCH_EVENTS, PartitionResult, RowsJob, row_maker
from fastserve.ingest.progress import Silent
from fastserve.ingest.putting import Destination, put_made
from fastserve.ingest.registry import Registry
from fastserve.ingest.scratch import scratch_folder
from fastserve.ingest.shuffle import TIME, TimeBounds
from fastserve.sdk.types import Array, Bool, DataType, Float32, Float64, Int64, Map, String, Struct, Timestamp
from fastserve.store.addresses import StoreAddresses

if TYPE_CHECKING:
    from pyspark.sql import types as spark_types

INPUT = "fs_input"
ORDER = "fs_order"
"""Which of several rows of one entity key and time is the last: the largest."""
NOTE = "fs_note"
"""The column that is null in a row of data; a partition's last row has nothing but its note in JSON."""
PARTITION = "fs_spark_partition"
RESULT = "fs_result"
"""The one column of what a writing task yields: a `PartitionResult` in JSON."""
MEMORY_MB = 256
"""For DuckDB in a checking task: it holds a few batches and nothing else."""


# --- checking -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckJob:
    """What a task needs to check rows of a view.

    ``columns`` are the checks under the names of the partition files, ``dtypes`` their types in that order.
    ``types`` are DuckDB's of the columns that come. ``tie_sql`` makes `ORDER` where no column does and one is
    wanted.
    """

    view: str
    types: dict[str, str]
    columns: tuple[tuple[str, CheckedColumn], ...]
    dtypes: tuple[DataType, ...]
    bounds: TimeBounds
    tie_sql: str | None

    @property
    def names(self) -> list[str]:
        """The names of the columns of data that come out."""
        return [name for name, _ in self.columns] + ([] if self.tie_sql is None else [ORDER])


@dataclass(frozen=True, slots=True)
class CheckNote:
    """What a task found in its part of the frame; ``samples`` are the first bad rows."""

    rows_read: int
    rows_bad: int
    rows_outside: int
    samples: tuple[BadRow, ...]


def checked_schema(job: CheckJob) -> pa.Schema:
    """Return the Arrow schema of what `check_batches` yields."""
    fields = [(name, arrow_type(dtype)) for (name, _), dtype in zip(job.columns, job.dtypes, strict=True)]
    fields += [] if job.tie_sql is None else [(ORDER, pa.int64())]
    return pa.schema([*fields, (NOTE, pa.string())])


def check_batches(job: CheckJob, batches: Iterator[Any], partition: int) -> Iterator[Any]:
    """Yield the good rows whose time can matter, then one row with the note; see `CheckNote`."""
    schema = checked_schema(job)
    bad = BadRows(job.view, None)
    outside = read = 0
    first = next(batches, None)
    if first is not None:
        with _duckdb() as connection:
            reader = pa.RecordBatchReader.from_batches(first.schema, _again(first, batches))
            connection.register(INPUT, reader)
            relation = Relation(f"SELECT * FROM {INPUT}", job.types, f"DataFrame, partition {partition}")
            reading = Reading(connection, bad, Silent())
            extra = [] if job.tie_sql is None else [f"{job.tie_sql} AS {ORDER}"]
            for batch in reading.batches(relation, job.columns, extra):
                kept = _within(job.bounds, batch.drop_columns([ROW]))
                outside += len(batch) - len(kept)
                if len(kept):
                    yield _cast(kept, schema)
            read = reading.rows
    note = CheckNote(read, bad.count, outside, tuple(bad.samples))
    yield pa.RecordBatch.from_pylist([{NOTE: orjson.dumps(asdict(note)).decode()}], schema=schema)


def read_note(text: str) -> CheckNote:
    """Return what a task noted."""
    note = orjson.loads(text)
    samples = tuple(BadRow(**sample) for sample in note.pop("samples"))
    return CheckNote(**note, samples=samples)


@contextmanager
def _duckdb() -> Iterator[Any]:
    with scratch_folder() as folder:
        connection = connect(folder, MEMORY_MB, threads=1)
        try:
            yield connection
        finally:
            connection.close()


def _again(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _within(bounds: TimeBounds, batch: Any) -> Any:
    if TIME not in batch.schema.names:
        return batch
    inside = bounds.hold(batch.column(TIME).to_numpy())
    return batch if inside.all() else batch.take(pa.array(np.flatnonzero(inside)))


def _cast(batch: Any, schema: Any) -> Any:
    arrays = [_as(batch.column(field.name), field.type) for field in schema if field.name != NOTE]
    return pa.RecordBatch.from_arrays([*arrays, pa.nulls(len(batch), pa.string())], schema=schema)


def _as(array: Any, target: Any) -> Any:
    """Return an array in another type: times inside of nested values become integers."""
    if array.type == target:
        return array
    if pa.types.is_timestamp(array.type):
        return array.cast(pa.timestamp("ns", array.type.tz)).cast(target)
    if pa.types.is_map(target):
        keys, items = _as(array.keys, target.key_type), _as(array.items, target.item_type)
        return pa.MapArray.from_arrays(_offsets(array), keys, items)
    if pa.types.is_list(target):
        return pa.ListArray.from_arrays(_offsets(array), _as(array.values, target.value_type))
    if pa.types.is_struct(target):
        members = [_as(array.field(place), target.field(place).type) for place in range(target.num_fields)]
        return pa.StructArray.from_arrays(members, fields=list(target), mask=array.is_null())
    return array.cast(target)


def _offsets(array: Any) -> Any:
    """Return a list's or map's offsets, null where the value is: that is how Arrow takes them."""
    valid = np.append(array.is_valid().to_numpy(zero_copy_only=False), True)
    return pa.array(array.offsets.to_numpy(), pa.int32(), mask=~valid)


# --- writing ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WriteJob:
    """What a task needs to make and put a partition's rows.

    ``job_name`` is under what partitions are recorded, None if the job can't be gone on with.
    """

    rows: RowsJob
    destination: Destination
    store: StoreAddresses
    workspace: str
    job_name: str | None
    since_ns: int
    partitions: int


def write_batches(job: WriteJob, batches: Iterator[Any]) -> Iterator[Any]:
    """Make and put the rows of sorted events; yield one row that says what they came to."""
    first = next(batches, None)
    if first is None:
        return
    result = asyncio.run(_written(job, _again(first, batches)))
    yield pa.RecordBatch.from_pydict({RESULT: [orjson.dumps(asdict(result)).decode()]})


def read_result(text: str) -> PartitionResult:
    """Return what a task wrote."""
    facts: dict[str, Any] = {
        name: tuple(fact) if isinstance(fact, list) else fact for name, fact in orjson.loads(text).items()
    }
    return PartitionResult(**facts)


async def _written(job: WriteJob, batches: Iterator[Any]) -> PartitionResult:
    maker = row_maker(job.rows)
    seen: set[int] = set()
    keys = size = 0

    def counted() -> Iterator[tuple[list[str], list[bytes]]]:
        nonlocal keys, size
        for texts, rows in maker.rows(_gathered(batches, seen)):
            keys += len(texts)
            size += sum(map(len, rows))
            yield texts, rows

    store = await job.store.open()
    try:
        not_put = await put_made(store, job.destination, counted())
        result = maker.result(keys, size).less(not_put)
        if job.job_name is not None and not result.untold:
            # One partition, unless Spark put several into one task: then all are done now.
            records = JobRecords(Registry(store, job.workspace), job.job_name, job.partitions, job.since_ns)
            for number, partition in enumerate(sorted(seen)):
                await records.record(partition, 0 if number else result.keys, 0 if number else result.bytes)
    finally:
        await store.close()
    return result


def _gathered(batches: Iterator[Any], seen: set[int]) -> Iterator[Any]:
    """Yield batches of about `BATCH_EVENTS` rows: Spark's are small, and every one has its price."""
    waiting: list[Any] = []
    rows = 0
    for batch in batches:
        seen.update(np.unique(batch.column(PARTITION).to_numpy()).tolist())
        waiting.append(batch)
        rows += len(batch)
        if rows >= BATCH_EVENTS:
            yield from pa.Table.from_batches(waiting).combine_chunks().to_batches()
            waiting, rows = [], 0
    if rows:
        yield from pa.Table.from_batches(waiting).combine_chunks().to_batches()


# --- types --------------------------------------------------------------------------------------------------

_ARROW: dict[DataType, Any] = {
    Int64: pa.int64(),
    Float64: pa.float64(),
    Float32: pa.float32(),
    String: pa.string(),
    Bool: pa.bool_(),
    Timestamp: pa.int64(),
}
_SPARK: dict[DataType, str] = {
    Int64: "LongType",
    Float64: "DoubleType",
    Float32: "FloatType",
    String: "StringType",
    Bool: "BooleanType",
    Timestamp: "LongType",
}


def arrow_type(dtype: DataType) -> Any:
    """Return how values of a type travel between the tasks; timestamps are int64 nanoseconds."""
    if isinstance(dtype, Array):
        return pa.list_(arrow_type(dtype.element))
    if isinstance(dtype, Map):
        return pa.map_(pa.string(), arrow_type(dtype.value))
    if isinstance(dtype, Struct):
        return pa.struct([(field.name, arrow_type(field.dtype)) for field in dtype.fields])
    return _ARROW[dtype]


def spark_type(dtype: DataType) -> spark_types.DataType:
    """Return the same as a type of Spark's."""
    from pyspark.sql import types

    if isinstance(dtype, Array):
        return types.ArrayType(spark_type(dtype.element))
    if isinstance(dtype, Map):
        return types.MapType(types.StringType(), spark_type(dtype.value))
    if isinstance(dtype, Struct):
        fields = [types.StructField(field.name, spark_type(field.dtype)) for field in dtype.fields]
        return types.StructType(fields)
    made = getattr(types, _SPARK[dtype])()
    if not isinstance(made, types.DataType):
        raise InvariantError(f"no type of Spark's is called {_SPARK[dtype]}")
    return made
