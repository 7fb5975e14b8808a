"""One partition of a view to rows: sorted by entity key and time, tiled or picked, encoded, kept in a file.

Runs in a process of its own where there is much to do, so what it needs comes as plain data (`PartitionJob`)
and what it makes goes into a file, which the job's own process puts into the store. Knows no store.

Invariants
1. The rows depend on the partition's events alone: doing it again gives the same bytes.
2. Memory is bounded by a few batches and DuckDB's limit, also when one entity has all the events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from fastserve.ingest.columns import literal, quoted
from fastserve.ingest.files import connect
from fastserve.ingest.putting import NotPut
from fastserve.ingest.shuffle import TIME, feature_columns, key_column, sort_columns
from fastserve.ingest.values import item_values, json_texts, python_values, single_array
from fastserve.plan.keys import encode_key
from fastserve.plan.reads import KeyAttributes
from fastserve.plan.views import ViewPlan
from fastserve.sdk.types import Bool, DataType, Field, String
from fastserve.store.interface import MAX_ROW_BYTES
from fastserve.tiles.aggregates import CompactedSchema, Op
from fastserve.tiles.layout import NO_ROW, RowLayout, Storage, storage_of
from fastserve.tiles.operations import Words
from fastserve.tiles.rows import RowBuilder
from fastserve.tiles.times import format_time
from fastserve.tiles.wide_write import WideEvents, WideTiler, WideTiles, entities, wide_bytes
from fastserve.tiles.write import (
    EventColumn,
    Events,
    encode_words,
    merge_words,
    spoilt_rows,
    tile_events,
)

BATCH_EVENTS = 100_000
CHUNK_WORDS = 4 << 20
"""At most so many numbers of compacted rows are held at once (32 MB): a batch is cut accordingly."""
SAMPLES = 10
"""So many keys are named where something is to be said of them."""
ROWS_SCHEMA = pa.schema([("key", pa.string()), ("row", pa.binary())])


@dataclass(frozen=True, slots=True)
class RowsJob:
    """What decides a view's rows, given its sorted events. ``schema`` is None for views of attributes.

    ``effective_ns`` is the as_of of compacted rows, and the time of attribute rows without a timestamp of
    their own.
    """

    key_fields: tuple[Field, ...]
    key_attributes: KeyAttributes
    packed: bool
    columns: tuple[Field, ...]
    layout: RowLayout
    schema: CompactedSchema | None
    timestamp_attribute: str | None
    has_time: bool
    effective_ns: int


@dataclass(frozen=True, slots=True)
class PartitionJob:
    """All that is needed to make the rows of a partition's file ``source`` into the file ``target``."""

    source: Path
    target: Path
    scratch: Path
    rows: RowsJob
    memory_mb: int


def rows_job(plan: ViewPlan, effective_ns: int) -> RowsJob:
    """Return what decides the rows of a view: plain data, which other processes can be sent."""
    return RowsJob(
        key_fields=plan.key_fields,
        key_attributes=plan.key_attributes,
        packed=plan.packed,
        columns=tuple(feature_columns(plan)),
        layout=plan.layout,
        schema=plan.schema,
        timestamp_attribute=plan.timestamp_attribute,
        has_time=plan.view.timestamp_field is not None,
        effective_ns=effective_ns,
    )


@dataclass(frozen=True, slots=True)
class PartitionResult:
    """What a partition came to.

    ``spoilt`` are keys with an int64 sum that left its range, ``too_large`` keys that get no row, since the
    store couldn't hold it (the first few of each). ``untold`` are those of them that nothing tells from keys
    without events: the partition isn't done.
    """

    keys: int
    bytes: int
    spoilt_count: int
    spoilt: tuple[str, ...]
    too_large_count: int = 0
    too_large: tuple[str, ...] = ()
    untold: tuple[str, ...] = ()

    def less(self, not_put: NotPut) -> PartitionResult:
        """Return the result without rows for which there was no room."""
        if not not_put.keys and not not_put.untold:
            return self
        return replace(
            self,
            keys=self.keys - len(not_put.keys),
            bytes=self.bytes - not_put.row_bytes,
            too_large_count=self.too_large_count + len(not_put.keys),
            too_large=(*self.too_large, *not_put.keys)[:SAMPLES],
            untold=tuple(not_put.untold[:SAMPLES]),
        )


def row_maker(job: RowsJob) -> RowMaker:
    """Return what makes a view's rows out of record batches of sorted events."""
    return _Aggregates(job) if job.schema is not None else _Attributes(job)


def make_rows(job: PartitionJob) -> PartitionResult:
    """Make the rows of a partition into the file ``job.target``."""
    connection = connect(job.scratch, job.memory_mb, threads=1)
    maker = row_maker(job.rows)
    keys = size = 0
    try:
        with pa.OSFile(str(job.target), "wb") as file, pa.ipc.new_stream(file, ROWS_SCHEMA) as writer:
            for texts, rows in maker.rows(_sorted_tables(job, connection)):
                keys += len(texts)
                size += sum(map(len, rows))
                writer.write_batch(
                    pa.record_batch([pa.array(texts), pa.array(rows, pa.binary())], schema=ROWS_SCHEMA)
                )
    finally:
        connection.close()
    return maker.result(keys, size)


def read_rows(path: Path) -> Iterator[tuple[list[str], list[bytes]]]:
    """Yield the keys and rows that `make_rows` left in a file."""
    with pa.OSFile(str(path), "rb") as file, pa.ipc.open_stream(file) as reader:
        for batch in reader:
            yield batch.column("key").to_pylist(), batch.column("row").to_pylist()


def _sorted_tables(job: PartitionJob, connection: Any) -> Iterator[Any]:
    order = [name for name in sort_columns(len(job.rows.key_fields)) if name != TIME or job.rows.has_time]
    columns = ", ".join(map(quoted, order))
    sql = f"SELECT * FROM read_parquet({literal(str(job.source))}) ORDER BY {columns}"
    yield from connection.sql(sql).to_arrow_reader(BATCH_EVENTS)


def _starts(keys: list[Any]) -> npt.NDArray[np.intp]:
    """Return where a new entity begins, given the sorted join-key columns of at least one row; no nulls."""
    changes = np.zeros(len(keys[0]), np.bool_)
    changes[0] = True
    for column in keys:
        differs = pc.not_equal(column.slice(1), column.slice(0, len(column) - 1))
        changes[1:] |= differs.to_numpy(zero_copy_only=False)
    return np.flatnonzero(changes)


class RowMaker:
    """Makes rows of events that come sorted by entity key and, within one, by time; see `row_maker`.

    ``spoilt_count`` counts the keys with an int64 sum that left its range, ``spoilt`` are the first of them.
    ``too_large_count`` and ``too_large`` are of keys with aggregates that get `NO_ROW`, since the store
    couldn't hold their row.
    """

    def __init__(self, job: RowsJob) -> None:
        self.job = job
        self.spoilt_count = 0
        self.spoilt: list[str] = []
        self.too_large_count = 0
        self.too_large: list[str] = []

    def rows(self, tables: Iterator[Any]) -> Iterator[tuple[list[str], list[bytes]]]:
        """Yield keys and rows of record batches, every entity once; an entity may go over batches' ends."""
        raise NotImplementedError

    def result(self, keys: int, size: int) -> PartitionResult:
        """Return what all rows came to, given how many were made, and of how many bytes."""
        return PartitionResult(
            keys - self.too_large_count,
            size - self.too_large_count * len(NO_ROW),
            self.spoilt_count,
            tuple(self.spoilt),
            self.too_large_count,
            tuple(self.too_large),
        )

    def keys(self, table: Any) -> tuple[list[Any], npt.NDArray[np.intp]]:
        """Return the join-key columns and where entities begin."""
        columns = [single_array(table.column(key_column(place))) for place in range(len(self.job.key_fields))]
        return columns, _starts(columns)

    def key_texts(self, columns: list[Any], at: npt.NDArray[np.intp]) -> list[str]:
        """Return the key texts of the entities whose rows stand at these places."""
        dtypes = [field.dtype for field in self.job.key_fields]
        places = pa.array(at)
        values = [python_values(d, column.take(places)) for d, column in zip(dtypes, columns, strict=True)]
        if len(dtypes) == 1:
            return [encode_key(dtypes, (value,)) for value in values[0]]
        return [encode_key(dtypes, row) for row in zip(*values, strict=True)]


@dataclass(slots=True)
class _Tiled:
    """The tiles of a few entities. Those of a ``too_large`` one, then the only one, are no longer kept."""

    keys: list[str]
    words: Words
    wide: WideTiles
    too_large: bool = False

    def part(self, low: int, high: int) -> _Tiled:
        """Return entities ``low`` to ``high``, as copies."""
        return _Tiled(self.keys[low:high], self.words[low:high].copy(), entities(self.wide, low, high))


class _Aggregates(RowMaker):
    """Tiles the events of each entity; an entity cut by a batch's end is carried over and merged."""

    def __init__(self, job: RowsJob) -> None:
        super().__init__(job)
        assert job.schema is not None  # noqa: S101 - for the type checker: `row_maker` looks first
        self._schema = job.schema
        self._numeric = {c.column for c in job.schema.components if c.op is not Op.COUNT}
        self._tiler = WideTiler(self._schema)
        self._wide_inputs = self._tiler.inputs
        self._entities_at_once = max(1, CHUNK_WORDS // (job.layout.fixed_words + self._tiler.columns))

    def rows(self, tables: Iterator[Any]) -> Iterator[tuple[list[str], list[bytes]]]:
        """Yield keys and rows, every entity once."""
        return map(self._encoded, self._whole(tables))

    def _whole(self, tables: Iterator[Any]) -> Iterator[_Tiled]:
        """Yield the tiles of all entities, each with all of its events."""
        carried: _Tiled | None = None
        for table in tables:
            for tiled in self._tiled(table):
                rest = tiled
                if carried is not None:
                    if carried.keys == tiled.keys[:1]:
                        carried = self._merged(carried, tiled.part(0, 1))
                        rest = tiled.part(1, len(tiled.keys))
                    if rest.keys:
                        yield carried
                if rest.keys:
                    carried = rest.part(len(rest.keys) - 1, len(rest.keys))
                if len(rest.keys) > 1:
                    yield rest.part(0, len(rest.keys) - 1)
        if carried is not None:
            yield carried

    def _merged(self, left: _Tiled, right: _Tiled) -> _Tiled:
        """Return the tiles of one entity's events so far; they never take more than a row and a batch."""
        words = merge_words(self._schema, left.words, right.words)
        if left.too_large:
            return _Tiled(left.keys, words, left.wide, too_large=True)
        wide = self._tiler.merged(left.wide, right.wide)
        if wide_bytes(wide) > MAX_ROW_BYTES:
            return _Tiled(left.keys, words, [[b""] for _ in wide], too_large=True)
        return _Tiled(left.keys, words, wide)

    def _tiled(self, table: Any) -> Iterator[_Tiled]:
        keys, starts = self.keys(table)
        texts = self.key_texts(keys, starts)
        ends = np.append(starts[1:], len(table))
        times = single_array(table.column(TIME)).to_numpy()
        columns = {field.name: self._event_column(table, field) for field in self.job.columns}
        values = {
            field.name: python_values(field.dtype, table.column(field.name))
            for field in self.job.columns
            if field.name in self._wide_inputs
        }
        for first in range(0, len(starts), self._entities_at_once):
            last = min(first + self._entities_at_once, len(starts))
            low, high = int(starts[first]), int(ends[last - 1])
            bounds = np.append(starts[first:last], high) - low
            parts = {name: _slice(column, low, high) for name, column in columns.items()}
            words = tile_events(self._schema, Events(bounds, times[low:high], parts), self.job.effective_ns)
            wide: WideTiles = []
            if self._tiler:
                cut = {name: column[low:high] for name, column in values.items()}
                events = WideEvents(bounds, times[low:high], cut)
                wide = self._tiler.tile(events, self.job.effective_ns)
            yield _Tiled(texts[first:last], words, wide)

    def _event_column(self, table: Any, field: Field) -> EventColumn:
        array = single_array(table.column(field.name))
        valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
        if field.name not in self._numeric:
            return EventColumn(None, valid)
        if pa.types.is_boolean(array.type):
            array = array.cast(pa.int64())
        return EventColumn(pc.fill_null(array, 0).to_numpy(), valid)

    def _encoded(self, tiled: _Tiled) -> tuple[list[str], list[bytes]]:
        texts = tiled.keys
        spoilt = spoilt_rows(self._schema, tiled.words)
        self.spoilt_count += len(spoilt)
        self.spoilt += [texts[place] for place in spoilt[: SAMPLES - len(self.spoilt)]]
        if tiled.too_large:
            return texts, [self._left_out(text) for text in texts]
        rows = encode_words(self._schema, tiled.words, self.job.effective_ns, tiled.wide)
        if max(map(len, rows)) <= MAX_ROW_BYTES:
            return texts, rows
        return texts, [
            row if len(row) <= MAX_ROW_BYTES else self._left_out(text)
            for text, row in zip(texts, rows, strict=True)
        ]

    def _left_out(self, text: str) -> bytes:
        self.too_large_count += 1
        if len(self.too_large) < SAMPLES:
            self.too_large.append(text)
        return NO_ROW


def _slice(column: EventColumn, low: int, high: int) -> EventColumn:
    values = None if column.values is None else column.values[low:high]
    return EventColumn(values, None if column.valid is None else column.valid[low:high])


class _Attributes(RowMaker):
    """Takes the last row of each entity; an entity that may go on in the next batch is carried over."""

    def rows(self, tables: Iterator[Any]) -> Iterator[tuple[list[str], list[bytes]]]:
        """Yield keys and rows, every entity once."""
        carried = None
        for batch in tables:
            table = pa.Table.from_batches([batch])
            if carried is not None:
                table = pa.concat_tables([carried, table])
            keys, starts = self.keys(table)
            lasts = np.append(starts[1:], table.num_rows) - 1
            carried = table.slice(table.num_rows - 1)
            if len(lasts) > 1:
                yield self._encoded(keys, table, lasts[:-1])
        if carried is not None:
            keys, _ = self.keys(carried)
            yield self._encoded(keys, carried, np.zeros(1, np.intp))

    def _encoded(
        self, keys: list[Any], table: Any, at: npt.NDArray[np.intp]
    ) -> tuple[list[str], list[bytes]]:
        texts = self.key_texts(keys, at)
        picked = table.take(pa.array(at))
        if not self.job.packed:
            return texts, self._items(picked)
        return texts, self._packed(picked)

    def _times(self, picked: Any) -> npt.NDArray[np.int64]:
        if self.job.has_time:
            times: npt.NDArray[np.int64] = single_array(picked.column(TIME)).to_numpy()
            return times
        return np.full(picked.num_rows, self.job.effective_ns, np.int64)

    def _packed(self, picked: Any) -> list[bytes]:
        builder = RowBuilder(self.job.layout, picked.num_rows)
        builder.set_effective_ns(self._times(picked))
        for field in self.job.columns:
            array = single_array(picked.column(field.name))
            if storage_of(field.dtype) is Storage.JSON:
                builder.set_json(field.name, json_texts(field.dtype, array))
            else:
                nulls = array.is_null().to_numpy(zero_copy_only=False)
                empty = False if field.dtype == Bool else 0
                builder.set_numbers(
                    field.name, pc.fill_null(array, empty).to_numpy(zero_copy_only=False), nulls
                )
        return builder.build()

    def _items(self, picked: Any) -> list[bytes]:
        """Return ordinary items as JSON: the key, an attribute per feature, the time if it is wanted."""
        attributes: dict[str, list[Any]] = {}
        for place, field in enumerate(self.job.key_fields):
            values = python_values(field.dtype, picked.column(key_column(place)))
            attributes[self.job.key_attributes[place][0]] = _key_values(field.dtype, values)
        for field in self.job.columns:
            attributes[field.name] = item_values(field.dtype, picked.column(field.name))
        if self.job.timestamp_attribute is not None:
            attributes[self.job.timestamp_attribute] = list(map(format_time, self._times(picked).tolist()))
        names = list(attributes)
        rows = zip(*attributes.values(), strict=True)
        return [orjson.dumps(dict(zip(names, row, strict=True))) for row in rows]


def _key_values(dtype: DataType, values: list[Any]) -> list[Any]:
    """Return join-key values as a table's key attributes hold them: text or a number."""
    if dtype == String:
        return values
    return ["true" if value else "false" for value in values] if dtype == Bool else values
