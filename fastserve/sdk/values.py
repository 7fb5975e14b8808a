"""Python values checked against data types: what an on-demand view returns, and what a trial run passes in.

For whoever evaluates on-demand views (`trial_run` here, the serving layer): ``output_checker(fields)`` gives
the function that checks a result dict and returns its values in the fields' order, ``value_checker(dtype)``
the one for a single value, ``copier(dtype)`` the one that makes a fresh object of a checked value. All are
compiled once and called per request. Knows no NumPy; its scalars are taken for what they hold.

A checked value is None or, by type: Int64 int; Float64 float; Float32 float, rounded to 32 bits; String str;
Bool bool; Timestamp datetime in UTC; Array list; Struct dict by field name, in the fields' order; Map dict.

Invariants:
1. A checker raises TypeError (another type) or ValueError (a value that the type can't hold), with a message
   that names the place, what was expected and what came; nothing else.
2. A checked value shares no list or dict with what was given, and holds values of the types above only.
3. Nothing is guessed: bool is no number, a float is no int, text is no number, a datetime says its zone. An
   int is taken for a float, as Python's own type checkers do.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from fastserve.errors import shown
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

Check = Callable[[Any], Any]
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1
# What int64 nanoseconds since the epoch hold, in whole years.
TIME_FIRST: Final = datetime(1678, 1, 1, tzinfo=UTC)
TIME_LAST: Final = datetime(2262, 1, 1, tzinfo=UTC)
_FLOAT32: Final = struct.Struct("<f")


def output_checker(fields: Sequence[Field]) -> Callable[[Any], list[Any]]:
    """Return the function that checks a function's result and returns its values in the fields' order.

    It raises TypeError for a result that is no dict, for a missing or an extra feature and for a value of
    another type, and ValueError for a value that its type can't hold.
    """
    checks = [(field.name, value_checker(field.dtype, f"feature `{field.name}`")) for field in fields]
    count = len(checks)

    def check(result: Any) -> list[Any]:
        if type(result) is not dict:
            result = _as_dict(result, fields)
        if len(result) == count:
            try:
                return [check(result[name]) for name, check in checks]
            except KeyError:
                pass
        raise _names_differ(result, [name for name, _ in checks])

    return check


def value_checker(dtype: DataType, what: str, *, nan: bool = False) -> Check:
    """Return the function that checks one value; ``what`` is its name in messages.

    ``nan`` says whether NaN is taken: requests and rows may hold it, a result may not (null is None).
    """
    if isinstance(dtype, Array):
        return _array(dtype, what, nan=nan)
    if isinstance(dtype, Struct):
        return _struct(dtype, what, nan=nan)
    if isinstance(dtype, Map):
        return _map(dtype, what, nan=nan)
    if dtype in (Float64, Float32):
        return _float(what, nan=nan, is_single=dtype == Float32)
    return _SCALARS[dtype](what)


def copier(dtype: DataType) -> Check | None:
    """Return the function that copies a checked value, or None where values of the type can't be changed."""
    if isinstance(dtype, Array):
        return _copied(list, copier(dtype.element))
    if isinstance(dtype, Map):
        return _copied_members(copier(dtype.value))
    if isinstance(dtype, Struct):
        members = [(field.name, copier(field.dtype)) for field in dtype.fields]
        return _copied_struct([(name, copy) for name, copy in members if copy is not None])
    return None


def wrong_type(what: str, expected: str, value: object) -> TypeError:
    """Return the error for a value of another type."""
    return TypeError(f"{what}: expected {expected}, got {_came(value)}")


def wrong_value(what: str, expected: str, value: object) -> ValueError:
    """Return the error for a value that the type can't hold."""
    return ValueError(f"{what}: expected {expected}, got {_came(value)}")


def _came(value: object) -> str:
    if value is None:
        return "None"
    return f"{type(value).__name__} {shown(value)}"


# --- the result as a whole


def _as_dict(result: object, fields: Sequence[Field]) -> dict[Any, Any]:
    if isinstance(result, Mapping):
        return dict(result)
    names = ", ".join(field.name for field in fields)
    raise wrong_type("result", f"a dict of {shown(names)}", result)


def _names_differ(result: Mapping[Any, Any], names: Sequence[str]) -> TypeError:
    missing = [name for name in names if name not in result]
    if missing:
        return TypeError(f"feature `{missing[0]}`: expected in the result, got {shown(list(result))}")
    extra = next(name for name in result if name not in names)
    return TypeError(f"result: expected only {shown(', '.join(names))}, got {shown(extra)} as well")


# --- scalars; each has its common case first


def _unwrapped(value: Any) -> Any:
    """Return what a NumPy scalar or an array of no dimensions holds; anything else as it is."""
    if hasattr(value, "dtype") and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()
    return value


def _int64(what: str) -> Check:
    def check(value: Any) -> Any:
        if type(value) is int and INT64_MIN <= value <= INT64_MAX:
            return value
        if value is None:
            return None
        number = _unwrapped(value)
        if not isinstance(number, int) or isinstance(number, bool):
            raise wrong_type(what, "int64 (an int)", value)
        if not INT64_MIN <= number <= INT64_MAX:
            raise wrong_value(what, "int64 (-2^63 to 2^63 - 1)", value)
        return int(number)

    return check


def _float(what: str, *, nan: bool, is_single: bool) -> Check:
    name = "float32" if is_single else "float64"

    def check(value: Any) -> Any:
        if type(value) is float and not is_single and (value == value or nan):  # noqa: PLR0124 - NaN isn't
            return value
        if value is None:
            return None
        number = _unwrapped(value)
        if not isinstance(number, (float, int)) or isinstance(number, bool):
            raise wrong_type(what, f"{name} (a float)", value)
        try:
            number = float(number)
            number = _FLOAT32.unpack(_FLOAT32.pack(number))[0] if is_single else number
        except OverflowError:
            raise wrong_value(what, f"{name} that is not too large", value) from None
        if number != number and not nan:  # noqa: PLR0124 - NaN isn't
            raise wrong_value(what, f"{name} that is a number (None is null)", value)
        return number

    return check


def _string(what: str) -> Check:
    def check(value: Any) -> Any:
        if type(value) is str and value.isascii():
            return value
        if value is None:
            return None
        if not isinstance(value, str):
            raise wrong_type(what, "string (a str)", value)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise wrong_value(what, "string that can be written in UTF-8", value) from None
        return str.__str__(value)

    return check


def _bool(what: str) -> Check:
    def check(value: Any) -> Any:
        if value is True or value is False or value is None:
            return value
        flag = _unwrapped(value)
        if type(flag) is not bool:
            raise wrong_type(what, "bool (True or False)", value)
        return flag

    return check


def _timestamp(what: str) -> Check:
    def check(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, datetime):
            raise wrong_type(what, "timestamp (a datetime)", value)
        if value != value:  # noqa: PLR0124 - pandas' NaT isn't
            raise wrong_value(what, "timestamp that is a time (None is null)", value)
        if value.utcoffset() is None:
            raise wrong_value(what, "timestamp with a time zone, such as datetime.now(UTC)", value)
        if not TIME_FIRST <= value < TIME_LAST:
            raise wrong_value(what, "timestamp in the years 1678 to 2261", value)
        if type(value) is datetime and value.tzinfo is UTC:
            return value
        moment = value.astimezone(UTC)
        return datetime.combine(moment.date(), moment.timetz())  # of pandas' own class, too

    return check


_SCALARS: Final[dict[DataType, Callable[[str], Check]]] = {
    Int64: _int64,
    String: _string,
    Bool: _bool,
    Timestamp: _timestamp,
}


# --- containers


def _array(dtype: Array, what: str, *, nan: bool) -> Check:
    element = value_checker(dtype.element, f"{what}, an element", nan=nan)

    def check(value: Any) -> Any:
        if type(value) is list or type(value) is tuple:
            return [element(item) for item in value]
        if value is None:
            return None
        if isinstance(value, (list, tuple)):
            return [element(item) for item in value]
        if hasattr(value, "dtype") and getattr(value, "ndim", 0) == 1:  # a NumPy array
            return [element(item) for item in value.tolist()]
        raise wrong_type(what, f"{dtype} (a list)", value)

    return check


def _struct(dtype: Struct, what: str, *, nan: bool) -> Check:
    members = [
        (field.name, value_checker(field.dtype, f"{what}, field `{field.name}`", nan=nan))
        for field in dtype.fields
    ]
    names = [name for name, _ in members]

    def check(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise wrong_type(what, f"{shown(str(dtype))} (a dict by field name)", value)
        if len(value) != len(names) or any(name not in value for name in names):
            raise wrong_type(what, f"a dict of exactly {', '.join(names)}", list(value))
        return {name: member(value[name]) for name, member in members}

    return check


def _map(dtype: Map, what: str, *, nan: bool) -> Check:
    key_check = _string(f"{what}, a key")
    member = value_checker(dtype.value, f"{what}, a value", nan=nan)

    def check(value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise wrong_type(what, f"{dtype} (a dict)", value)
        if any(key is None for key in value):
            raise wrong_type(f"{what}, a key", "string (a str)", None)
        return {key_check(key): member(item) for key, item in value.items()}

    return check


# --- copies


def _copied(make: Callable[[Any], Any], element: Check | None) -> Check:
    if element is None:
        return lambda value: None if value is None else make(value)
    return lambda value: None if value is None else [element(item) for item in value]


def _copied_members(member: Check | None) -> Check:
    if member is None:
        return lambda value: None if value is None else dict(value)
    return lambda value: None if value is None else {key: member(item) for key, item in value.items()}


def _copied_struct(members: Sequence[tuple[str, Check]]) -> Check:
    def copy(value: Any) -> Any:
        if value is None:
            return None
        return {**value, **{name: member(value[name]) for name, member in members}}

    return copy
