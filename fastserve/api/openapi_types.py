"""Data types as JSON Schemas: what a request may hold for a value, what an answer holds, and an example.

Knows `fastserve.sdk.types` and the API's rules for values (`api.values`, `api.context`, `api.encode`); of
paths and documents it knows nothing. Scalars are named in `COMMON`, so that a document says them once.

Invariants
1. What a schema of a request's value lets through is a value that the server takes, but for what JSON Schema
   can't say: a string key's bytes, a date that doesn't exist.
2. An example is a value that the server takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastserve.plan.keys import MAX_KEY_BYTES
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

Schema = dict[str, Any]
Document = dict[str, Any]
"""A part of the document, or all of it."""

INT64_TEXT = (
    r"^(-?([0-9]{1,18}|[0-8][0-9]{18}|9[01][0-9]{17}|92[01][0-9]{16}|922[0-2][0-9]{15}|9223[0-2][0-9]{14}"
    r"|92233[0-6][0-9]{13}|922337[01][0-9]{12}|92233720[0-2][0-9]{10}|922337203[0-5][0-9]{9}"
    r"|9223372036[0-7][0-9]{8}|92233720368[0-4][0-9]{7}|922337203685[0-3][0-9]{6}|9223372036854[0-6][0-9]{5}"
    r"|92233720368547[0-6][0-9]{4}|922337203685477[0-4][0-9]{3}|9223372036854775[0-7][0-9]{2}"
    r"|922337203685477580[0-7])|-9223372036854775808)$"
)
"""Decimal text from -2^63 to 2^63 - 1."""
FLOAT_WORDS = ["NaN", "Infinity", "-Infinity"]
FLOAT32_MAX = 3.4028234663852886e38
TIME_TEXT = (
    r"^(167[89]|16[89][0-9]|1[789][0-9]{2}|2[01][0-9]{2}|22[0-5][0-9]|226[01])"
    r"-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"([Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?"
    r"( ?([Zz]|[+-](0[0-9]|1[0-7]):?[0-5][0-9]|[+-]18:?00))?)?$"
)
"""What `tiles.times` reads, but for days that a month doesn't have."""
WRITTEN_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{3}([0-9]{3}){0,2})?Z$"


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


def _floats(**bounds: float) -> Schema:
    return {"anyOf": [{"type": "number", **bounds}, {"enum": FLOAT_WORDS}, {"type": "null"}]}


COMMON: Mapping[str, Schema] = {
    "Int64": {
        "description": "An int64, exact above 2^53: an integer, or decimal text. null is a value.",
        "anyOf": [
            {"type": "integer", "format": "int64", "minimum": -(2**63), "maximum": 2**63 - 1},
            {"type": "string", "pattern": INT64_TEXT},
            {"type": "null"},
        ],
    },
    "Float64": {"description": "A float64; what isn't finite is text.", **_floats()},
    "Float32": {
        "description": "A float32; what isn't finite is text.",
        **_floats(minimum=-FLOAT32_MAX, maximum=FLOAT32_MAX),
    },
    "String": {"type": ["string", "null"]},
    "StringKey": {
        "description": f"Text of at most {MAX_KEY_BYTES:,} bytes in UTF-8. null is a value.",
        "type": ["string", "null"],
        "maxLength": MAX_KEY_BYTES,
    },
    "Boolean": {"type": ["boolean", "null"]},
    "Timestamp": {
        "description": "ISO-8601, up to nanoseconds, of the years 1678 to 2261; without a zone it is UTC.",
        "type": ["string", "null"],
        "format": "date-time",
        "pattern": TIME_TEXT,
    },
    "Int64Answer": {
        "description": "An int64 as decimal text, since JavaScript's numbers end at 2^53.",
        "type": ["string", "null"],
        "pattern": r"^-?[0-9]{1,19}$",
    },
    "FloatAnswer": {"description": "A number; what isn't finite is text.", **_floats()},
    "StringAnswer": {"type": ["string", "null"]},
    "BooleanAnswer": {"type": ["boolean", "null"]},
    "TimestampAnswer": {
        "description": "ISO-8601 in UTC, with as few digits behind the second as are exact.",
        "type": ["string", "null"],
        "pattern": WRITTEN_TIME,
    },
}
"""The schemas of scalars by name: what a request may hold, and what an answer holds (``…Answer``)."""

_TAKEN: Mapping[DataType, str] = {
    Int64: "Int64",
    Float64: "Float64",
    Float32: "Float32",
    String: "String",
    Bool: "Boolean",
    Timestamp: "Timestamp",
}
_WRITTEN: Mapping[DataType, str] = {
    Int64: "Int64Answer",
    Float64: "FloatAnswer",
    Float32: "FloatAnswer",
    String: "StringAnswer",
    Bool: "BooleanAnswer",
    Timestamp: "TimestampAnswer",
}
_EXAMPLES: Mapping[DataType, Any] = {Int64: "1", Float64: 12.5, Float32: 12.5, Bool: True}


def key_schema(dtype: DataType) -> Schema:
    """Return the schema of a join key's value."""
    return ref("StringKey") if dtype == String else ref(_TAKEN[dtype])


def taken_schema(dtype: DataType) -> Schema:
    """Return the schema of a value that comes with a request: request context, or a pushed record's."""
    if isinstance(dtype, Array):
        return {"type": ["array", "null"], "items": taken_schema(dtype.element)}
    if isinstance(dtype, Map):
        return {"type": ["object", "null"], "additionalProperties": taken_schema(dtype.value)}
    if isinstance(dtype, Struct):
        return {**object_of(dtype.fields, taken_schema), "type": ["object", "null"]}
    return ref(_TAKEN[dtype])


def written_schema(dtype: DataType) -> Schema:
    """Return the schema of a feature's value in an answer."""
    if isinstance(dtype, Array):
        return {"type": ["array", "null"], "items": written_schema(dtype.element)}
    if isinstance(dtype, Map):
        return {"type": ["object", "null"], "additionalProperties": written_schema(dtype.value)}
    if isinstance(dtype, Struct):
        members = [{"title": field.name, **written_schema(field.dtype)} for field in dtype.fields]
        return {"type": ["array", "null"], **exactly(members)}
    return ref(_WRITTEN[dtype])


def exactly(items: Sequence[Schema]) -> Schema:
    """Return what makes an array hold exactly these, one after the other."""
    return {"prefixItems": list(items), "items": False, "minItems": len(items), "maxItems": len(items)}


def object_of(fields: Sequence[Field], schema_of: Any) -> Schema:
    """Return the schema of an object that holds exactly these fields."""
    schema: Schema = {
        "type": "object",
        "properties": {field.name: schema_of(field.dtype) for field in fields},
        "additionalProperties": False,
    }
    if fields:
        schema["required"] = [field.name for field in fields]
    return schema


def example(dtype: DataType, name: str, time: str) -> Any:
    """Return a value of a field that the server takes; times are ``time``."""
    if isinstance(dtype, Array):
        return [example(dtype.element, name, time)]
    if isinstance(dtype, Map):
        return {"key": example(dtype.value, name, time)}
    if isinstance(dtype, Struct):
        return examples(dtype.fields, time)
    if dtype == Timestamp:
        return time
    return _EXAMPLES.get(dtype, f"{name.removesuffix('_id')}1")


def examples(fields: Sequence[Field], time: str) -> dict[str, Any]:
    """Return a value for each field."""
    return {field.name: example(field.dtype, field.name, time) for field in fields}
