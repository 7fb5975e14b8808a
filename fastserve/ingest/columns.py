"""One column of a source as SQL: its value in the type that the view declares, and what is wrong with it.

Text is never read by guessing: a value either has the declared type or its row is bad. DuckDB's own casts are
wider (``'1.5'`` becomes the integer 2, ``'0x1F'`` 31), so what they would bend is refused before.

Invariants
1. A value that isn't null either comes out with its meaning unchanged, or ``fault`` is true for its row.
2. Timestamps come out as int64 nanoseconds since the epoch; without a zone they are UTC.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from fastserve.errors import DefinitionError
from fastserve.ingest.members import JSON, member_fault
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

TEXT = "VARCHAR"
_INTEGER_TYPES = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"})
_UNSIGNED_TYPES = frozenset({"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"})
_WHOLE = _INTEGER_TYPES | _UNSIGNED_TYPES
_REAL = re.compile(r"DOUBLE|FLOAT|DECIMAL\(.*\)")
_TIME = re.compile(r"DATE|TIMESTAMP.*")
_SCALAR_SQL: dict[DataType, str] = {
    Int64: "BIGINT",
    Float64: "DOUBLE",
    Float32: "FLOAT",
    String: "VARCHAR",
    Bool: "BOOLEAN",
}

MAX_KEY_TEXT_BYTES = 2000
"""For the strings of one entity key together; a store's key has at most 2,048 bytes, separators and all."""


@dataclass(frozen=True, slots=True)
class CheckedColumn:
    """SQL expressions over one source column. ``fault`` is true where the row is bad, never null.

    ``expected`` says what a value should have been, ``instead_of_null`` what should have been there at all.
    """

    name: str
    value: str
    fault: str
    raw: str
    expected: str
    instead_of_null: str = ""


def quoted(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return text as a quoted SQL string."""
    return "'" + text.replace("'", "''") + "'"


def duckdb_type(dtype: DataType) -> str:
    """Return DuckDB's name of a type."""
    if isinstance(dtype, Array):
        return f"{duckdb_type(dtype.element)}[]"
    if isinstance(dtype, Map):
        return f"MAP(VARCHAR, {duckdb_type(dtype.value)})"
    if isinstance(dtype, Struct):
        fields = ", ".join(f"{quoted(field.name)} {duckdb_type(field.dtype)}" for field in dtype.fields)
        return f"STRUCT({fields})"
    return _SCALAR_SQL.get(dtype, "TIMESTAMPTZ_NS")


def check_column(
    field: Field, source_type: str, *, required: bool = False, summed: bool = False, finite: bool = False
) -> CheckedColumn:
    """Return the expressions for a column of the DuckDB type ``source_type``.

    ``required`` columns must not be null. ``summed`` ones feed aggregates, where the smallest int64 means
    null. ``finite`` ones go to items of DynamoDB, which has no NaN and no infinity.

    Raises:
        DefinitionError: no value of the source's type can be one of the declared type.
    """
    raw = quoted(field.name)
    value = _value(field.dtype, source_type, raw)
    members = None if value is None else _members(field.dtype, source_type, raw)
    if value is None or members is None:
        raise DefinitionError(f"column {field.name!r}: expected {field.dtype}, the source has {source_type}")
    faults = [
        f"({raw} IS NULL OR {value} IS NULL)" if required else f"({raw} IS NOT NULL AND {value} IS NULL)"
    ]
    is_float = field.dtype in {Float64, Float32}
    if is_float and source_type == TEXT:
        faults.append(_grown(value, raw))
    if members != "false":
        faults.append(members)
    if finite and is_float:
        faults.append(f"coalesce(NOT isfinite({value}), false)")
    expected = _expected(field.dtype, source_type, "finite " if finite and is_float else "")
    if summed and field.dtype == Int64:
        faults.append(f"coalesce({value} = (-9223372036854775808)::BIGINT, false)")
        expected += " above -2**63"
    return CheckedColumn(
        field.name, value, f"({' OR '.join(faults)})", raw, expected, f"{expected}, not null"
    )


def _expected(dtype: DataType, source_type: str, finite: str) -> str:
    if dtype == Timestamp:
        return "a timestamp in ISO-8601" if source_type == TEXT else "a timestamp"
    article = "an" if dtype == Int64 or isinstance(dtype, Array) else "a"
    return f"{article} {finite}{dtype}"


def check_inferred(name: str, kind: str) -> CheckedColumn:
    """Return the expressions for a column of text whose type was inferred from a file's first rows."""
    raw = quoted(name)
    if kind == TEXT:
        return CheckedColumn(name, raw, "false", raw, "text")
    value = (_int64(TEXT, raw) if kind == "BIGINT" else None) or f"TRY_CAST({raw} AS {kind})"
    expected = f"{kind} as in the file's first rows"
    return CheckedColumn(name, value, f"({raw} IS NOT NULL AND {value} IS NULL)", raw, expected)


def check_key_length(column: CheckedColumn, strings: int) -> CheckedColumn:
    """Add the check that a join key of type string isn't too long, one of ``strings`` in its entity key."""
    limit = MAX_KEY_TEXT_BYTES // strings
    text = column.value  # the source may have whole numbers, or UUIDs
    escaped = f"replace(replace({text}, '\\', '\\\\'), '|', '\\|')"
    too_long = f"coalesce(strlen({text}) > {limit // 2} AND strlen({escaped}) > {limit}, false)"
    expected = f"{column.expected} of at most {limit} bytes"
    return replace(column, fault=f"({column.fault} OR {too_long})", expected=expected)


def check_text_length(column: CheckedColumn, limit: int) -> CheckedColumn:
    """Add the check that a string which rows keep has at most ``limit`` bytes."""
    too_long = f"coalesce(strlen({column.value}) > {limit}, false)"
    expected = f"{column.expected} of at most {limit} bytes"
    fault = f"({column.fault} OR {too_long})"
    return replace(column, fault=fault, expected=expected, instead_of_null=f"{expected}, not null")


def _value(dtype: DataType, source_type: str, raw: str) -> str | None:
    if source_type == '"NULL"':  # Parquet's column without any value
        return f"NULL::{duckdb_type(dtype)}" if dtype != Timestamp else "NULL::BIGINT"
    if dtype == Int64:
        return _int64(source_type, raw)
    if dtype in {Float64, Float32}:
        is_number = source_type in _WHOLE or _REAL.fullmatch(source_type) or source_type == TEXT
        return f"TRY_CAST({raw} AS {_SCALAR_SQL[dtype]})" if is_number else None
    if dtype == String:
        as_text = source_type in _WHOLE or source_type in {TEXT, "UUID"} or source_type.startswith("ENUM(")
        return f"CAST({raw} AS VARCHAR)" if as_text else None
    if dtype == Bool:
        return f"TRY_CAST({raw} AS BOOLEAN)" if source_type in {"BOOLEAN", TEXT} else None
    if dtype == Timestamp:
        is_time = source_type == TEXT or _TIME.fullmatch(source_type)
        return f"epoch_ns(TRY_CAST({raw} AS TIMESTAMPTZ_NS))" if is_time else None
    return _nested(dtype, source_type, raw)


def _grown(value: str, text: str) -> str:
    """Return what is true of 1e999, which would silently become infinite."""
    return f"coalesce(isinf({value}) AND NOT contains(lower({text}), 'inf'), false)"


def _members(dtype: DataType, source_type: str, raw: str) -> str | None:
    """Return the SQL of the fault that a nested value's members have; see `member_fault`."""
    if not isinstance(dtype, (Array, Map, Struct)) or source_type == duckdb_type(dtype):
        return "false"
    if source_type == TEXT:
        return member_fault(dtype, JSON, f"TRY_CAST({raw} AS JSON)", _member_fault)
    return member_fault(dtype, source_type, raw, _member_fault)


def _member_fault(dtype: DataType, source_type: str, raw: str) -> str | None:
    is_float = dtype in {Float64, Float32}
    kind = duckdb_type(dtype)
    if source_type == kind or _always_fits(dtype, source_type):
        return "false"
    text = f"({raw} ->> '$')" if source_type == JSON else raw
    source_type = TEXT if source_type == JSON else source_type
    value = _value(dtype, source_type, text)
    if value is None:
        return None
    lost = f"({text} IS NOT NULL AND ({value} IS NULL OR TRY_CAST({raw} AS {kind}) IS NULL))"
    return f"({lost} OR {_grown(value, text)})" if is_float and source_type == TEXT else lost


def _always_fits(dtype: DataType, source_type: str) -> bool:
    """Whether each value can be cast, so that no member need be looked at."""
    if dtype == Float64:
        return source_type in _WHOLE or _REAL.fullmatch(source_type) is not None
    narrow = {"TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER"}
    return dtype == Int64 and source_type in narrow


def _int64(source_type: str, raw: str) -> str | None:
    if source_type in _WHOLE:
        return f"TRY_CAST({raw} AS BIGINT)"
    if _REAL.fullmatch(source_type):
        return f"CASE WHEN {raw} = floor({raw}) THEN TRY_CAST({raw} AS BIGINT) END"
    if source_type == TEXT:
        whole = rf"regexp_full_match({raw}, '\s*[+-]?[0-9]+(\.0*)?\s*')"
        return f"CASE WHEN {whole} THEN TRY_CAST({raw} AS BIGINT) END"
    return None


def _nested(dtype: DataType, source_type: str, raw: str) -> str | None:
    if source_type == TEXT:
        return f"TRY_CAST(TRY_CAST({raw} AS JSON) AS {duckdb_type(dtype)})"
    fits = {Array: source_type.endswith("]"), Map: source_type.startswith("MAP(")}
    fits[Struct] = source_type.startswith("STRUCT(")
    return f"TRY_CAST({raw} AS {duckdb_type(dtype)})" if fits.get(type(dtype)) else None
