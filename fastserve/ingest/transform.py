"""A view's rows before they are checked: its source's files, through its transformation if it has one.

Without a transformation every file is a relation of its own, and a CSV file's columns are text until the
view's types are checked. A transformation sees the whole source as one table. The columns of a CSV source
then have the types that their first 20,480 rows seem to have; a row whose value doesn't fit is bad (only
columns that the SQL mentions are looked at).

- SQL runs on DuckDB, which spills to disk: any size goes. ``{until}`` in it is the time up to which is
  materialized, so that a view can hold what was true then (the last 28 days of it, say).
- A function of a ``pyarrow.Table`` gets the whole source at once, so that is limited to `TABLE_BYTES_MAX`.
- A function whose parameter is annotated ``pyarrow.RecordBatch`` is called once for each batch of at most
  `checking.BATCH_ROWS` rows, and returns a batch or a table: any size goes.

Invariants
1. What the author's code raises is a DefinitionError at the view's definition.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from fastserve.errors import DefinitionError
from fastserve.ingest.checking import BATCH_ROWS, Reading
from fastserve.ingest.columns import check_inferred, literal, quoted
from fastserve.ingest.files import InputFile, Relation, describe, file_relation, first_line, sniffed_types
from fastserve.plan.views import MICROSECOND_NS
from fastserve.sdk.sources import FileSource
from fastserve.sdk.view_rules import SOURCE_PLACE, UNTIL_PLACE
from fastserve.sdk.views import FeatureView
from fastserve.tiles.times import format_time
from fastserve.tiles.windows import floor_to

TABLE_BYTES_MAX = 1 << 30
TRANSFORMED = "fs_transformed"


def view_relations(
    reading: Reading,
    view: FeatureView,
    source: FileSource,
    files: Sequence[InputFile],
    scratch: Path,
    until_ns: int,
) -> Iterator[Relation]:
    """Yield the relations that hold a view's rows up to ``until_ns``, one after the other.

    Raises:
        DefinitionError: a file can't be read, or the transformation failed.
    """
    transformation = view.transformation
    if transformation is None:
        for file in files:
            yield file_relation(reading.connection, source, file)
        return
    table = _source_table(reading, source, files, transformation, scratch)
    if isinstance(transformation, str):
        yield sql_relation(reading.connection, view, source, transformation, until_ns)
    else:
        yield _function_relation(reading.connection, view, table, transformation, scratch)


def sql_relation(
    connection: duckdb.DuckDBPyConnection, view: FeatureView, source: FileSource, sql: str, until_ns: int
) -> Relation:
    """Return the relation of a transformation in SQL, over a connection that has the source as a table.

    Raises:
        DefinitionError: the SQL isn't right.
    """
    until = f"TIMESTAMPTZ {literal(format_time(floor_to(until_ns, MICROSECOND_NS)))}"
    sql = sql.replace(SOURCE_PLACE, quoted(source.name)).replace(UNTIL_PLACE, until).strip().rstrip(";")
    try:
        return Relation(f"({sql})", describe(connection, sql), f"{view.name} (transformed)")
    except duckdb.Error as error:
        raise _failed(view, error) from None


def _failed(view: FeatureView, error: BaseException) -> DefinitionError:
    message = f"transformation (expected one that runs, got {type(error).__name__}: {first_line(error)})"
    return DefinitionError(f"FeatureView {view.name!r}: {message}", view.location)


# --- the source as one table --------------------------------------------------------------------------------


def _source_table(
    reading: Reading, source: FileSource, files: Sequence[InputFile], transformation: object, scratch: Path
) -> str:
    """Make the source a view of DuckDB's under its own name; return the query of its rows."""
    texts = [file for file in files if file.format == "csv"]
    paths = [file.path for file in files if file.format == "parquet"]
    if texts:
        paths += _typed_copies(reading, source, texts, transformation, scratch)
    listed = ", ".join(map(literal, paths))
    sql = f"SELECT * FROM read_parquet([{listed}], union_by_name = true)"
    try:
        reading.connection.execute(f"CREATE OR REPLACE TEMP VIEW {quoted(source.name)} AS {sql}")
    except duckdb.Error as error:
        message = f"FileSource {source.name!r}: expected readable files, got: {first_line(error)}"
        raise DefinitionError(message, source.location) from None
    return sql


def _typed_copies(
    reading: Reading, source: FileSource, files: Sequence[InputFile], transformation: object, scratch: Path
) -> list[str]:
    """Copy CSV files to Parquet with the types that they seem to have; return where the copies are."""
    types = sniffed_types(reading.connection, source, files)
    types = {name: kind for name, kind in types.items() if _mentioned(name, transformation)} or types
    copies = []
    for number, file in enumerate(files):
        relation = file_relation(reading.connection, source, file)
        columns = [
            (name, check_inferred(name, kind)) for name, kind in types.items() if relation.type_of(name)
        ]
        copy = scratch / f"typed-{number}.parquet"
        writer = None
        for batch in reading.batches(relation, columns):
            writer = writer or pq.ParquetWriter(copy, batch.schema, compression="lz4")
            writer.write_batch(batch)
        if writer is not None:
            writer.close()
            copies.append(str(copy))
    if not copies:
        raise DefinitionError(f"FileSource {source.name!r}: expected rows, found none", source.location)
    return copies


def _mentioned(name: str, transformation: object) -> bool:
    """Whether a transformation can see a column; a star or COLUMNS sees all."""
    if not isinstance(transformation, str):
        return True
    text = transformation.lower()
    return name.lower() in text or "*" in text or "columns(" in text


# --- functions ----------------------------------------------------------------------------------------------


def takes_batches(function: Callable[..., Any]) -> bool:
    """Whether a function's parameter is annotated as a record batch."""
    annotations = [parameter.annotation for parameter in inspect.signature(function).parameters.values()]
    first = annotations[0] if annotations else None
    return str(getattr(first, "__name__", first)).rpartition(".")[2] == "RecordBatch"


def _function_relation(
    connection: duckdb.DuckDBPyConnection,
    view: FeatureView,
    sql: str,
    function: Callable[..., Any],
    scratch: Path,
) -> Relation:
    reader = connection.cursor().sql(sql).to_arrow_reader(BATCH_ROWS)  # of its own: it is read for long
    named = f"{view.name} (transformed)"
    if takes_batches(function):
        query = _by_batches(view, reader, function, scratch / "transformed.parquet")
        return Relation(query, describe(connection, query), named)
    connection.register(TRANSFORMED, _called(view, function, _whole_table(view, reader)))
    query = f"SELECT * FROM {TRANSFORMED}"
    return Relation(query, describe(connection, query), named)


def _whole_table(view: FeatureView, reader: Any) -> Any:
    batches = []
    size = 0
    for batch in reader:
        batches.append(batch)
        size += batch.nbytes
        if size > TABLE_BYTES_MAX:
            message = (
                f"transformation (expected a source of at most {TABLE_BYTES_MAX >> 20} MB for a function of "
                "a whole table, got a larger one: annotate its parameter pyarrow.RecordBatch, or write SQL)"
            )
            raise DefinitionError(f"FeatureView {view.name!r}: {message}", view.location)
    return pa.Table.from_batches(batches, reader.schema)


def _called(view: FeatureView, function: Callable[..., Any], argument: Any) -> Any:
    """Return the function's result as a table.

    Raises:
        DefinitionError: it raised, or returned something else.
    """
    try:
        result = function(argument)
    except Exception as error:
        raise _failed(view, error) from error
    if isinstance(result, pa.RecordBatch):
        return pa.Table.from_batches([result])
    if isinstance(result, pa.Table):
        return result
    message = f"transformation (expected it to return a pyarrow.Table, got {type(result).__name__})"
    raise DefinitionError(f"FeatureView {view.name!r}: {message}", view.location)


def _by_batches(view: FeatureView, reader: Any, function: Callable[..., Any], target: Path) -> str:
    """Call the function batch by batch, keep what it returns in a file; return the query of its rows."""
    writer = None
    for batch in reader:
        table = _called(view, function, batch)
        writer = writer or pq.ParquetWriter(target, table.schema, compression="lz4")
        try:
            writer.write_table(table.cast(writer.schema))
        except (pa.ArrowException, ValueError) as error:
            raise _failed(view, error) from None
    if writer is None:
        table = _called(view, function, pa.RecordBatch.from_pylist([], schema=reader.schema))
        writer = pq.ParquetWriter(target, table.schema)
    writer.close()
    return f"SELECT * FROM read_parquet({literal(str(target))})"
