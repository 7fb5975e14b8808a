"""Checked rows of one view, partitioned by entity key into temporary Parquet files.

All events of an entity key come into one partition, whichever file they were in, so that partitions are
worked on alone and in parallel. Rows that no row of the online store could hold (at or after ``until``, or
before every window) are left out here, so that a job over years of files keeps only what its windows see.

Invariants
1. Which partition a row comes to depends on its entity key and the number of partitions alone.
2. At most `BUFFER_BYTES` wait in memory, whatever the source's size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fastserve.errors import DefinitionError
from fastserve.ingest.checking import ROW
from fastserve.ingest.columns import CheckedColumn, check_column, check_key_length, check_text_length, quoted
from fastserve.ingest.files import Relation
from fastserve.plan.views import ViewPlan
from fastserve.sdk.features import Aggregate
from fastserve.sdk.types import Field, String, Timestamp
from fastserve.tiles.wide import MAX_STRING_BYTES, kept_texts

BUFFER_BYTES = 64 << 20
PARTITION = "fs_partition"
TIME = "fs_time"
PARTITION_BYTES = 128 << 20
"""Plain text per partition: sorted by DuckDB in a few hundred MB, or spilled."""
MAX_PARTITIONS = 256
SMALL_BYTES = 8 << 20
MANY = 8
"""Partitions of what isn't small: two or more processes then have their hands full to the end."""


def key_column(place: int) -> str:
    """Return the name of a join key's column in the partition files."""
    return f"fs_key_{place}"


def partitions_for(plain_bytes: int) -> int:
    """Return how many partitions to cut a source of that size into: a function of the size alone."""
    if plain_bytes <= SMALL_BYTES:
        return 1
    return max(MANY, min(MAX_PARTITIONS, -(-plain_bytes // PARTITION_BYTES)))


def checked_columns(view: ViewPlan, relation: Relation) -> list[tuple[str, CheckedColumn]]:
    """Return the columns of a relation that the view needs, under their names in the partition files.

    Raises:
        DefinitionError: the relation lacks a column, or has it with a type that can't be the declared one.
    """
    keys = view.key_fields
    strings = sum(field.dtype == String for field in keys)
    columns = []
    for place, field in enumerate(keys):
        column = _column(view, relation, field, required=True)
        if field.dtype == String:
            column = check_key_length(column, strings)
        columns.append((key_column(place), column))
    if view.view.timestamp_field is not None:
        field = Field(view.view.timestamp_field, Timestamp)
        columns.append((TIME, _column(view, relation, field, required=True)))
    kept = set() if view.schema is None else kept_texts(view.schema)
    for field in feature_columns(view):
        column = _column(view, relation, field)
        if field.name in kept:
            column = check_text_length(column, MAX_STRING_BYTES)
        columns.append((field.name, column))
    _check_cases(view, [field.name for field in feature_columns(view)])
    return columns


def _check_cases(view: ViewPlan, names: Sequence[str]) -> None:
    """Refuse columns that differ by case alone: to SQL they are one, with one's values in both."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            message = f"columns {other!r} and {name!r} (expected names that differ by more than case)"
            raise DefinitionError(f"FeatureView {view.name!r}: {message}", view.view.location)


def feature_columns(view: ViewPlan) -> list[Field]:
    """Return the columns that features are made of, each once, and the secondary key's."""
    fields: dict[str, Field] = {}
    key = view.view.aggregation_secondary_key
    if key is not None:
        fields[key.name] = key
    for feature in view.view.features:
        field = feature.input_column if isinstance(feature, Aggregate) else feature.column
        fields.setdefault(field.name, field)
    return list(fields.values())


def _column(view: ViewPlan, relation: Relation, field: Field, *, required: bool = False) -> CheckedColumn:
    source_type = relation.type_of(field.name)
    try:
        if source_type is None:
            have = ", ".join(list(relation.types)[:30])
            raise DefinitionError(
                f"column {field.name!r}: expected one of that name, {relation.shown} has {have}"
            )
        return check_column(
            field, source_type, required=required, summed=view.schema is not None, finite=not view.packed
        )
    except DefinitionError as error:
        location = view.view.location
        raise DefinitionError(
            f"FeatureView {view.name!r}: {relation.shown}: {error.message}", location
        ) from None


def partition_sql(view: ViewPlan, partitions: int) -> str:
    """Return the SQL expression for a row's partition."""
    keys = ", ".join(quoted(key_column(place)) for place in range(len(view.key_fields)))
    return f"CAST(hash({keys}) % {partitions} AS INTEGER) AS {PARTITION}"


@dataclass(frozen=True, slots=True)
class TimeBounds:
    """The times of events that can matter, half-open; ``floor_ns`` None is the beginning of time."""

    floor_ns: int | None
    until_ns: int

    def hold(self, times_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Return which of the times matter."""
        inside = times_ns < self.until_ns
        if self.floor_ns is not None:
            inside &= times_ns >= self.floor_ns
        return inside


class Partitions:
    """The partition files of one view, being written."""

    def __init__(self, folder: Path, count: int, bounds: TimeBounds) -> None:
        self.count = count
        self.rows = 0
        self.outside = 0
        self._folder = folder
        self._bounds = bounds
        self._next_row = 0
        self._waiting: list[list[Any]] = [[] for _ in range(count)]
        self._waiting_bytes = 0
        self._writers: dict[int, Any] = {}
        folder.mkdir(parents=True)

    def path(self, partition: int) -> Path | None:
        """Return a partition's file, None if no row came to it."""
        path = self._folder / f"{partition}.parquet"
        return path if path.exists() else None

    def add(self, batches: Iterable[Any]) -> None:
        """Take in the checked batches of one relation; rows of later relations count as later ones."""
        last = 0
        for batch in batches:
            numbers = batch.column(ROW).to_numpy()
            last = int(numbers[-1])
            table = pa.Table.from_batches([batch.drop_columns([ROW])])
            kept = self._within(table.append_column(ROW, pa.array(numbers + self._next_row)))
            if kept.num_rows:
                self._split(kept)
        self._next_row += last

    def _within(self, table: Any) -> Any:
        """Return the rows whose time can matter; views without a timestamp have none to look at."""
        rows = table.num_rows
        if TIME in table.column_names:
            inside = self._bounds.hold(table.column(TIME).to_numpy())
            if not inside.all():
                table = table.take(pa.array(np.flatnonzero(inside)))
        self.outside += rows - table.num_rows
        self.rows += table.num_rows
        return table

    def _split(self, table: Any) -> None:
        owners = table.column(PARTITION).to_numpy()
        table = table.drop_columns([PARTITION])
        order = np.argsort(owners, kind="stable")
        cuts = np.searchsorted(owners[order], np.arange(self.count + 1))
        for partition in range(self.count):
            rows = order[cuts[partition] : cuts[partition + 1]]
            if len(rows):
                part = table.take(pa.array(rows))
                self._waiting[partition].append(part)
                self._waiting_bytes += part.nbytes
        if self._waiting_bytes > BUFFER_BYTES:
            self._flush()

    def _flush(self) -> None:
        for partition, tables in enumerate(self._waiting):
            if tables:
                whole = pa.concat_tables(tables)
                if partition not in self._writers:
                    path = self._folder / f"{partition}.parquet"
                    self._writers[partition] = pq.ParquetWriter(path, whole.schema, compression="lz4")
                self._writers[partition].write_table(whole)
        self._waiting = [[] for _ in range(self.count)]
        self._waiting_bytes = 0

    def close(self) -> None:
        """Write what waits and close the files."""
        try:
            self._flush()
        finally:
            for writer in self._writers.values():
                writer.close()


def sort_columns(keys: int) -> Sequence[str]:
    """Return the columns by which a partition is sorted: entity key, time, place in the source."""
    return [*(key_column(place) for place in range(keys)), TIME, ROW]
