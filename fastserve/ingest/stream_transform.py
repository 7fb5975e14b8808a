"""Transformations of pushed records: the same SQL or function as over files, on the records of one request.

That is only right where a row of the result depends on one row of the source alone, for a batch of pushed
records is any cut through the source. So SQL is taken when DuckDB's plan of it has nothing but scans,
projections, filters and unnesting, and a function when its parameter is annotated ``pyarrow.RecordBatch``:
such a function is called batch by batch over files, too, and has to be right for any batch.

Invariants
1. What isn't known to be right for any batch is a DefinitionError when the feed is made.
2. Times are exact to the nanosecond on both sides.
3. What the author's code raises over records is a RequestError with its type and first line.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from fastserve.errors import DefinitionError, RequestError
from fastserve.ingest.columns import quoted
from fastserve.ingest.events import Transform, Values
from fastserve.ingest.files import first_line
from fastserve.ingest.transform import takes_batches
from fastserve.ingest.values import python_values
from fastserve.plan.views import ViewPlan
from fastserve.sdk.sources import PushSource
from fastserve.sdk.types import (
    Array,
    Bool,
    DataType,
    Field,
    Float32,
    Float64,
    Int64,
    Map,
    String,
    Struct,
    Timestamp,
)
from fastserve.sdk.view_rules import SOURCE_PLACE, UNTIL_PLACE

ROW_BY_ROW = frozenset(
    {
        "PROJECTION",
        "FILTER",
        "UNNEST",
        "UNION",  # of all: without duplicates it comes with a GROUP BY
        "CTE",
        "CTE_SCAN",
        "ARROW_SCAN",
        "PYTHON_ARROW_SCAN",
    }
)
"""Physical operators of DuckDB's whose output for a row depends on that row alone."""
_VOLATILE = re.compile(
    r"\b(random|uuid|gen_random_uuid|nextval|now|current_\w+|today|get_current_\w+)\b", re.IGNORECASE
)
PUSHED = "fs_pushed"

_SCALARS: dict[DataType, Any] = {
    Int64: pa.int64(),
    Float64: pa.float64(),
    Float32: pa.float32(),
    String: pa.string(),
    Bool: pa.bool_(),
    Timestamp: pa.timestamp("ns"),
}


def make_transform(plan: ViewPlan, source: PushSource) -> Transform:
    """Return the function that applies a view's transformation to the values of a source's records.

    Raises:
        DefinitionError: the transformation can't be applied batch by batch.
    """
    transformation = plan.view.transformation
    schema = pa.schema([(field.name, arrow_type(field.dtype)) for field in source.schema])
    apply: Callable[[Any], Any]
    if isinstance(transformation, str):
        apply = _SqlTransform(plan, source, transformation, schema)
    elif transformation is not None and takes_batches(transformation):
        apply = transformation
    else:
        expected = "one that is right for any batch of pushed records: SQL, or a function whose parameter is "
        raise _refused(plan, f"expected {expected}annotated pyarrow.RecordBatch, got one of a whole table")
    return _Transform(plan, schema, apply)


def arrow_type(dtype: DataType) -> Any:
    """Return the Arrow type in which a transformation sees a pushed column."""
    if isinstance(dtype, Array):
        return pa.list_(arrow_type(dtype.element))
    if isinstance(dtype, Map):
        return pa.map_(pa.string(), arrow_type(dtype.value))
    if isinstance(dtype, Struct):
        return pa.struct([(field.name, arrow_type(field.dtype)) for field in dtype.fields])
    return _SCALARS[dtype]


def _refused(plan: ViewPlan, message: str) -> DefinitionError:
    return DefinitionError(f"FeatureView {plan.name!r}: transformation ({message})", plan.view.location)


class _Transform:
    """Values to a batch, through the author's code, and back to values by the view's columns."""

    def __init__(self, plan: ViewPlan, schema: Any, apply: Callable[[Any], Any]) -> None:
        self._plan = plan
        self._schema = schema
        self._apply = apply
        self._columns = {column.name: column for column in plan.view.input_columns}
        if plan.view.timestamp_field is not None:
            self._columns.setdefault(plan.view.timestamp_field, Field(plan.view.timestamp_field, Timestamp))

    def __call__(self, values: Sequence[Values]) -> list[dict[str, Any]]:
        """Return the rows that the transformation makes of these records; raises RequestError."""
        arrays = [
            pa.array([_for_arrow(field.type, value) for value in column], field.type)
            for field, column in zip(self._schema, zip(*values, strict=True), strict=True)
        ]
        try:
            made = self._apply(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
            columns = [self._column(made, column) for column in self._columns.values()]
        except RequestError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {first_line(error)}"
            raise RequestError(400, f"transformation of view {self._plan.name!r}: {what}") from error
        return [dict(zip(self._columns, row, strict=True)) for row in zip(*columns, strict=True)]

    def _column(self, made: Any, column: Field) -> list[Any]:
        if column.name not in made.schema.names:
            listed = ", ".join(made.schema.names)
            raise RequestError(
                400,
                f"transformation of view {self._plan.name!r}: expected a column {column.name!r}, "
                f"got {listed}",
            )
        array = made.column(column.name)
        wanted = arrow_type(column.dtype)
        if array.type != wanted:
            if pa.types.is_timestamp(array.type) and array.type.tz is not None:
                array = array.cast(pa.timestamp(array.type.unit, "UTC"))
            array = array.cast(wanted)
        return python_values(column.dtype, array)


def _for_arrow(kind: Any, value: Any) -> Any:
    """Return a record's value as Arrow takes it: structs by name, the rest as it is."""
    if value is None:
        return None
    if pa.types.is_struct(kind):
        return {f.name: _for_arrow(f.type, part) for f, part in zip(kind, value, strict=True)}
    if pa.types.is_list(kind):
        return [_for_arrow(kind.value_type, part) for part in value]
    if pa.types.is_map(kind):
        return [(key, _for_arrow(kind.item_type, part)) for key, part in value.items()]
    return value


class _SqlTransform:
    """SQL over a batch, on a DuckDB connection of its own."""

    def __init__(self, plan: ViewPlan, source: PushSource, sql: str, schema: Any) -> None:
        if UNTIL_PLACE in sql:
            raise _refused(plan, f"expected SQL without {UNTIL_PLACE}, for records are pushed at any time")
        volatile = _VOLATILE.search(sql)
        if volatile is not None:
            expected = "expected SQL whose rows are the same when a request is sent again"
            raise _refused(plan, f"{expected}, got {volatile.group()}")
        self._name = source.name
        names = {source.name} if source.batch_source is None else {source.name, source.batch_source.name}
        self._names = names
        self._sql = sql.replace(SOURCE_PLACE, quoted(source.name)).strip().rstrip(";")
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._check(plan, schema)

    def _check(self, plan: ViewPlan, schema: Any) -> None:
        connection = _connect()  # closed again: the server forks after this
        try:
            self._register(connection, pa.Table.from_batches([], schema))
            plans = orjson.loads(connection.execute(f"EXPLAIN (FORMAT json) {self._sql}").fetchall()[0][1])
        except duckdb.Error as error:
            raise _refused(plan, f"expected SQL that runs, got: {first_line(error)}") from None
        finally:
            connection.close()
        others = [name for root in plans for name in _operators(root) if name not in ROW_BY_ROW]
        if others:
            raise _refused(
                plan,
                "expected SQL that makes each row of one pushed record alone (SELECT … WHERE …), "
                f"got {others[0].replace('_', ' ').lower()}",
            )

    def _register(self, connection: duckdb.DuckDBPyConnection, table: Any) -> None:
        for name in self._names:
            connection.register(name, table)

    def __call__(self, batch: Any) -> Any:
        with self._lock:
            connection = self._connection = self._connection or _connect()
            self._register(connection, pa.Table.from_batches([batch]))
            return connection.sql(self._sql).to_arrow_table()


def _operators(node: Mapping[str, Any]) -> Iterator[str]:
    yield str(node["name"])
    for child in node.get("children", ()):
        yield from _operators(child)


def _connect() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:", config={"threads": 1})
    connection.execute("SET TimeZone = 'UTC'; SET enable_external_access = false")
    connection.execute("PRAGMA disable_optimizer")  # it would plan away what an empty table doesn't need
    return connection
