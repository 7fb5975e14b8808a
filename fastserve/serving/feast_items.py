"""Items that Feast's DynamoDB store wrote: the time of the row, and the values of its features.

An item is ``{"entity_id": {"S": …}, "event_ts": {"S": …}, "values": {"M": {feature: {"B": Value}}}}``.

Invariants
1. A feature that the item lacks is null; a value of another type than the view declares makes the row
   unreadable, as does whatever Feast didn't write.
2. What no type of ours holds (maps, lists in lists, sets of sets) is JSON text where the view says String.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from pybase64 import b64decode

from fastserve.errors import shown
from fastserve.plan.feast import feast_name
from fastserve.plan.views import ViewPlan
from fastserve.sdk.types import Array, Bool, DataType, Float32, Float64, Int64, String, Timestamp
from fastserve.tiles.rows import RowError
from fastserve.tiles.times import format_time, parse_time_ns
from fastserve.tiles.windows import SECOND_NS
from fastserve.wire.feast_values import value_of, values_of_texts

INT64_LIMIT = 2**63
NO_TIME = "1970-01-01T00:00:00Z"
"""What Feast answers where there is no row, and for the columns of join keys."""

_PLAIN_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.(\d{3})(\d{3}))?\+00:00", re.ASCII)

Item = Mapping[str, Mapping[str, Any]]


def item_time(item: Item) -> str:
    """Return the text of an item's time, as Feast wrote it.

    Raises:
        RowError: there is none.
    """
    try:
        found = item["event_ts"]["S"]
    except (KeyError, TypeError):
        found = None
    if type(found) is not str:
        raise RowError("attribute 'event_ts': expected a time, got none")
    return found


def item_values(item: Item) -> Mapping[str, Mapping[str, Any]]:
    """Return the features of an item: by name, attributes with a serialized value each.

    Raises:
        RowError: there are none.
    """
    try:
        found = item["values"]["M"]
    except (KeyError, TypeError):
        found = None
    if type(found) is not dict:
        raise RowError("attribute 'values': expected a map of values, got none")
    return found


def time_ns(text: str) -> int:
    """Return an item's time in nanoseconds since the epoch.

    Raises:
        RowError: it isn't a time.
    """
    try:
        return parse_time_ns(text)
    except ValueError as error:
        raise RowError(f"attribute 'event_ts': {error}, got {shown(text)}") from None


def time_text(text: str) -> str:
    """Return an item's time as Feast's server writes it: RFC 3339 in UTC, 0, 3, 6 or 9 digits for fractions.

    Raises:
        RowError: it isn't a time.
    """
    match = _PLAIN_TIME.fullmatch(text)
    if match is None:
        return format_time(time_ns(text))
    day, clock, milliseconds, microseconds = match.groups()
    if milliseconds is None or (milliseconds == "000" and microseconds == "000"):
        return f"{day}T{clock}Z"
    return f"{day}T{clock}.{milliseconds}{'' if microseconds == '000' else microseconds}Z"


def value_in(name: str, attribute: Mapping[str, Any]) -> Any:
    """Return the value of a feature in one item, as `values_in`."""
    try:
        return value_of(b64decode(attribute["B"], validate=True))
    except (KeyError, TypeError, ValueError) as error:
        raise RowError(f"feature {shown(name)}: expected a value that Feast wrote, got: {error}") from None


def values_in(name: str, attributes: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return the values of one feature in some items.

    Raises:
        RowError: one isn't a value that Feast wrote.
    """
    try:
        return values_of_texts([attribute["B"] for attribute in attributes])
    except (KeyError, TypeError, ValueError) as error:
        raise RowError(f"feature {shown(name)}: expected a value that Feast wrote, got: {error}") from None


def feast_values(view: ViewPlan, item: Item) -> tuple[dict[str, Any], int]:
    """Return an item's values by the view's names, in its types, and the item's time in nanoseconds.

    Raises:
        RowError: the item isn't Feast's, or a value has another type than the view declares.
    """
    stored = item_values(item)
    values: dict[str, Any] = {}
    for column in view.layout.columns:
        name = feast_name(view, column.name)
        attribute = stored.get(name)
        value = None if attribute is None else value_in(name, attribute)
        try:
            values[column.name] = None if value is None else converted(column.dtype, value)
        except (TypeError, ValueError):
            raise RowError(f"feature {shown(name)}: expected {column.dtype}, got {shown(value)}") from None
    return values, time_ns(item_time(item))


def converted(dtype: DataType, value: Any) -> Any:
    """Return a value of Feast's in a type of ours.

    Raises:
        TypeError, ValueError: it has another type.
    """
    if isinstance(dtype, Array):
        if type(value) is not list:
            raise TypeError(value)
        return [None if each is None else converted(dtype.element, each) for each in value]
    return _CONVERTED[dtype](value)


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(value)
    return value


def _number(value: Any) -> float:
    if type(value) not in {int, float}:
        raise TypeError(value)
    return float(value)


def _text(value: Any) -> str:
    return value if type(value) is str else orjson.dumps(value).decode()


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise TypeError(value)
    return value


def _time(value: Any) -> int | None:
    """Return a time: seconds since the epoch, or ISO-8601 of one with a zone."""
    if type(value) is str:
        return parse_time_ns(value)
    seconds = _integer(value)
    if seconds == -INT64_LIMIT:
        return None  # pandas' NaT
    found = seconds * SECOND_NS
    if not -INT64_LIMIT < found < INT64_LIMIT:
        raise ValueError(value)
    return found


_CONVERTED: dict[DataType, Callable[[Any], Any]] = {
    Int64: _integer,
    Float64: _number,
    Float32: _number,
    String: _text,
    Bool: _bool,
    Timestamp: _time,
}
