"""Request context as it comes in JSON, checked against the fields that a service's on-demand views take.

Invariants
1. A value is taken only if it has the declared type, as of join keys: int64 also as a decimal string, times
   as ISO-8601 text, and float64 also as an integer or as "NaN", "Infinity", "-Infinity". null is null.
2. What comes out are the Python values that functions get (`sdk.values`).
3. A message names the field, within it the place, what was expected and what came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from struct import Struct as Packing
from typing import Any

from fastserve.api.values import bad_value, int64_value, timestamp_value
from fastserve.errors import RequestError, shown
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
from fastserve.serving.on_demand_batch import datetime_of

WHAT = "Request context field"
FLOAT_WORDS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": -float("inf")}
STRING_OR_NULL = frozenset({str, type(None)})
_FLOAT32 = Packing("<f")

Read = Callable[[Any], Any]


class ContextReader:
    """Checks the request context of one service."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = [(field.name, value_reader(field.dtype, field.name)) for field in fields]
        self._count = len(fields)

    def values(self, context: Mapping[str, Any], row: str = "", *, ignore_extra: bool = False) -> list[Any]:
        """Return the values in the fields' order; ``row`` names the row of a batch in messages.

        Raises:
            RequestError: one is missing, unknown or of the wrong type.
        """
        try:
            values = [read(context[name]) for name, read in self._fields]
        except KeyError as error:
            instead = said_instead(context, [name for name, _ in self._fields])
            raise RequestError(
                400, f"Missing required request context field: `{error.args[0]}`{row}{instead}"
            ) from None
        except RequestError as error:
            raise RequestError(error.status, f"{error.message}{row}") from None
        if len(context) != self._count and not ignore_extra:
            self._refuse_extra(context, row)
        return values

    def _refuse_extra(self, context: Mapping[str, Any], row: str) -> None:
        known = [name for name, _ in self._fields]
        extra = next(name for name in context if name not in known)
        expected = ", ".join([f"`{name}`" for name in known]) or "none"
        message = f"Unknown request context field{row}: expected {expected}, got {shown(extra)}"
        raise RequestError(400, message)


def said_instead(given: Mapping[str, Any], known: Sequence[str]) -> str:
    """Return what a message on a missing name adds of one that nobody knows, which may be meant."""
    extra = next((name for name in given if name not in known), None)
    return "" if extra is None else f"; got the unknown {shown(extra)}"


def value_reader(dtype: DataType, name: str) -> Read:
    """Return the function that checks a JSON value and returns the Python value; it raises `RequestError`."""
    if isinstance(dtype, Array):
        return _array(dtype, name)
    if isinstance(dtype, Struct):
        return _struct(dtype, name)
    if isinstance(dtype, Map):
        return _map(dtype, name)
    return _SCALARS[dtype](name)


def _string(name: str) -> Read:
    def read(value: Any) -> Any:
        if type(value) is str or value is None:
            return value
        raise bad_value(WHAT, name, "string", value)

    return read


def _bool(name: str) -> Read:
    def read(value: Any) -> Any:
        if type(value) is bool or value is None:
            return value
        raise bad_value(WHAT, name, "bool (true or false)", value)

    return read


def _int64(name: str) -> Read:
    return lambda value: None if value is None else int64_value(WHAT, name, value)


def _float64(name: str) -> Read:
    def read(value: Any) -> Any:
        if type(value) is float or value is None:
            return value
        return _float_of(name, "float64", value)

    return read


def _float_of(name: str, dtype: str, value: Any) -> float:
    if type(value) in (int, float):
        return float(value)  # JSON's integers end at 2^64
    if type(value) is str and value in FLOAT_WORDS:
        return FLOAT_WORDS[value]
    raise bad_value(WHAT, name, f'{dtype} (a number, "NaN", "Infinity" or "-Infinity")', value)


def _float32(name: str) -> Read:
    def read(value: Any) -> Any:
        if value is None:
            return None
        number = _float_of(name, "float32", value)
        try:
            return _FLOAT32.unpack(_FLOAT32.pack(number))[0]
        except OverflowError:
            raise bad_value(WHAT, name, "float32 (up to 3.4e38)", value) from None

    return read


def _timestamp(name: str) -> Read:
    return lambda value: None if value is None else datetime_of(timestamp_value(WHAT, name, value))


def _array(dtype: Array, name: str) -> Read:
    element = value_reader(dtype.element, f"{name}[]")
    all_strings = dtype.element == String

    def read(value: Any) -> Any:
        if type(value) is not list:
            if value is None:
                return None
            raise bad_value(WHAT, name, f"{dtype} (an array)", value)
        # Asking for the set of types is three times as fast as asking each string.
        if all_strings and STRING_OR_NULL.issuperset(map(type, value)):
            return value
        return [element(item) for item in value]

    return read


def _struct(dtype: Struct, name: str) -> Read:
    members = [(field.name, value_reader(field.dtype, f"{name}.{field.name}")) for field in dtype.fields]
    expected = f"an object of exactly {', '.join(member for member, _ in members)}"

    def read(value: Any) -> Any:
        if value is None:
            return None
        if type(value) is not dict or value.keys() != {member for member, _ in members}:
            raise bad_value(WHAT, name, expected, value)
        return {member: check(value[member]) for member, check in members}

    return read


def _map(dtype: Map, name: str) -> Read:
    member = value_reader(dtype.value, f"{name}{{}}")

    def read(value: Any) -> Any:
        if value is None:
            return None
        if type(value) is not dict:
            raise bad_value(WHAT, name, f"{dtype} (an object)", value)
        return {key: member(item) for key, item in value.items()}

    return read


_SCALARS: dict[DataType, Callable[[str], Read]] = {
    Int64: _int64,
    Float64: _float64,
    Float32: _float32,
    String: _string,
    Bool: _bool,
    Timestamp: _timestamp,
}
