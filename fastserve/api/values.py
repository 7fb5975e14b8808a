"""Join-key values as they come in JSON, checked and turned into key text.

Invariants
1. A value is taken only if it has the declared type, exactly: no rounding, no truth of numbers, no number of
   text unless the API says so (int64 may come as a decimal string, timestamps come as text).
2. A message names the key, what was expected and what came, at most 64 characters of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import orjson

from fastserve.errors import RequestError, shown
from fastserve.plan.keys import EMPTY_TEXT, MAX_KEY_BYTES, NULL_TEXT, string_text
from fastserve.sdk.types import Bool, DataType, Field, Int64, String, Timestamp
from fastserve.tiles.times import parse_time_ns

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
DECIMAL = re.compile(r"-?[0-9]{1,19}", re.ASCII)

KeyText = Callable[[Any], str]


def bad_value(what: str, name: str, expected: str, value: object) -> RequestError:
    """Return the error for a value of the wrong type or range."""
    return RequestError(400, f"{what} `{name}`: expected {expected}, got {_came(value)}")


def json_fault(text: bytes, error: orjson.JSONDecodeError) -> str:
    """Return what is wrong with a JSON text that orjson refuses, and where."""
    line, column, what = error.lineno, error.colno, error.msg[:64]
    try:
        text.decode()
    except UnicodeDecodeError as fault:  # orjson tells no place of it
        before = text[: fault.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode()) + 1
        what = "bytes that are no UTF-8"
    return f"{what} at line {line}, column {column}"


def _came(value: object) -> str:
    if value is None:
        return "null"
    kinds = {
        bool: "boolean",
        int: "integer",
        float: "number",
        str: "string",
        list: "array",
        dict: "object",
    }
    return f"{kinds.get(type(value), type(value).__name__)} {shown(value)}"


def int64_value(what: str, name: str, value: Any) -> int:
    """Return an int64 from a JSON integer or a decimal string, exactly.

    Raises:
        RequestError: of another type, or outside int64.
    """
    number = value
    if type(value) is str and DECIMAL.fullmatch(value):
        number = int(value)
    if type(number) is not int or not INT64_MIN <= number <= INT64_MAX:
        raise bad_value(what, name, "int64 (an integer or a decimal string, -2^63 to 2^63 - 1)", value)
    return number


def timestamp_value(what: str, name: str, value: Any) -> int:
    """Return nanoseconds since the epoch from ISO-8601 text.

    Raises:
        RequestError: not text, or not such a time.
    """
    if type(value) is not str:
        raise bad_value(what, name, "timestamp (ISO-8601 text)", value)
    try:
        return parse_time_ns(value)
    except ValueError as error:
        raise bad_value(what, name, f"timestamp; {error}", value) from None


def key_text(field: Field) -> KeyText:
    """Return the function that checks a JSON value of a join key and returns its key text.

    It raises `RequestError`.
    """
    return _KEY_TEXTS[field.dtype](field.name)


def _string_key(name: str) -> KeyText:
    def text(value: Any) -> str:
        if type(value) is not str:
            if value is None:
                return NULL_TEXT
            raise bad_value("Join key", name, "string", value)
        # One test for the common case: letters, digits and _ need no escape and no length check.
        if value.isidentifier() and len(value) < SHORT_KEY:
            return value
        if not value:
            return EMPTY_TEXT
        escaped = string_text(value)
        if len(value) >= SHORT_KEY and len(escaped.encode("utf-8", "replace")) > MAX_KEY_BYTES:
            raise bad_value("Join key", name, f"at most {MAX_KEY_BYTES} bytes", value)
        return escaped

    return text


SHORT_KEY = 256
"""So many characters are never more than MAX_KEY_BYTES bytes, escaped or not."""


def _int64_key(name: str) -> KeyText:
    def text(value: Any) -> str:
        return NULL_TEXT if value is None else str(int64_value("Join key", name, value))

    return text


def _bool_key(name: str) -> KeyText:
    def text(value: Any) -> str:
        if value is None:
            return NULL_TEXT
        if type(value) is not bool:
            raise bad_value("Join key", name, "bool (true or false)", value)
        return "true" if value else "false"

    return text


def _timestamp_key(name: str) -> KeyText:
    def text(value: Any) -> str:
        return NULL_TEXT if value is None else str(timestamp_value("Join key", name, value))

    return text


_KEY_TEXTS: dict[DataType, Callable[[str], KeyText]] = {
    String: _string_key,
    Int64: _int64_key,
    Bool: _bool_key,
    Timestamp: _timestamp_key,
}
