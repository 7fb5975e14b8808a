"""Columns of join keys as they come in JSON, checked and made into entity ids.

Invariants
1. A value is taken only if Feast would make the same key of it: also a number as text and text as a number,
   if they are exact. Any other is a `FeastFault` that names the column, the row, what was expected and what
   came; what Feast would cut to fit (1.5 to 1) is among them.
2. Views with the same join keys share their ids: they are made once a request.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastserve.api.feast import FeastFault, FeastRequest
from fastserve.api.values import DECIMAL
from fastserve.errors import shown
from fastserve.plan.feast import NO_ENTITY_KEYS, FeastPlan, FeastSelection
from fastserve.plan.feast_keys import entity_key
from fastserve.tiles.times import parse_time_ns
from fastserve.tiles.windows import SECOND_NS
from fastserve.wire.feast_key import FeastKeyForm, entity_id_of, int_limits

EXACT_FLOATS = 2**53
Columns = Mapping[str, list[Any]]


class KeyColumns:
    """Makes the keys of all rows of a request for some parts."""

    def __init__(self, parts: Sequence[FeastSelection]) -> None:
        forms: dict[tuple[FeastKeyForm, tuple[str, ...]], int] = {}
        self._of_part = [
            forms.setdefault((part.view.key_form, part.request_keys), len(forms)) for part in parts
        ]
        self._makers = [_Maker(form, names) for form, names in forms]
        self._read = {name for maker in self._makers for name in maker.names}

    def texts(self, columns: Columns, rows: int) -> tuple[list[tuple[str, ...]], dict[str, list[Any]]]:
        """Return for each row the key texts of its parts, and the columns with the values that keys have.

        Raises:
            FeastFault: a column lacks, or has a value that no key is made of.
        """
        echoed = dict(columns)
        for name, values in columns.items():
            if name not in self._read:
                _check_scalars(name, values)
        made = [maker.keys(columns, rows, echoed) for maker in self._makers]
        return list(zip(*[made[number] for number in self._of_part], strict=True)), echoed


def join_key_columns(plan: FeastPlan, request: FeastRequest, parts: Sequence[FeastSelection]) -> Columns:
    """Return the columns of join keys under the names that views have for them, in the request's order.

    Columns that no entity of the project has are left out, as Feast does.

    Raises:
        FeastFault: there is no row, or columns have different lengths.
    """
    lengths = {len(values) for values in request.columns.values()}
    if len(lengths) > 1:
        counts = shown({name: len(values) for name, values in request.columns.items()})
        raise FeastFault(400, f"`entities`: expected columns of one length, got {counts}")
    if not request.columns and all(part.request_keys == NO_ENTITY_KEYS for part in parts):
        return {}
    if not any(lengths):
        raise FeastFault(400, "`entities`: expected at least one row, got none")
    found: dict[str, list[Any]] = {}
    for name, values in request.columns.items():
        join_key = name if name in plan.join_keys else plan.entities.get(name)
        if join_key is not None:
            found[join_key] = values
    return found


def row_count(request: FeastRequest) -> int:
    """Return how many rows a request asks for."""
    return len(next(iter(request.columns.values()), (None,)))


class _Maker:
    """Makes keys of one form out of columns of these names."""

    def __init__(self, form: FeastKeyForm, names: Sequence[str]) -> None:
        self._make = entity_id_of(form)
        self._only = entity_key(self._make([""])) if form.names == NO_ENTITY_KEYS else None
        self._readers = [
            (name, kind, _COLUMNS[kind](name, kind, form.version))
            for name, kind in zip(names, form.types, strict=True)
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are read."""
        return () if self._only is not None else tuple(name for name, _, _ in self._readers)

    def keys(self, columns: Columns, rows: int, echoed: dict[str, list[Any]]) -> list[str]:
        """Return the key texts of all rows; what the columns' values were taken for goes into ``echoed``."""
        if self._only is not None:
            return [self._only] * rows
        taken = []
        for name, kind, read in self._readers:
            values = columns.get(name)
            if values is None:
                raise FeastFault(400, f"`entities`: expected the join key {shown(name)}, got none of it")
            found = read(values)
            taken.append(found)
            if kind != "BYTES":
                echoed[name] = found
        make = self._make
        return [entity_key(make(row)) for row in zip(*taken, strict=True)]


Reader = Callable[[list[Any]], list[Any]]


def _wrong(name: str, row: int, expected: str, value: object) -> FeastFault:
    came = "null" if value is None else shown(value)
    return FeastFault(400, f"`entities.{name}[{row}]`: expected {expected}, got {came}")


def _check_scalars(name: str, values: Sequence[Any]) -> None:
    """Check a column that is answered as it came: arrays in arrays can be read deeper than written."""
    for row, value in enumerate(values):
        if isinstance(value, (list, dict)):
            raise _wrong(name, row, "a value of a join key", value)


def _strings(name: str, _kind: str, _version: int) -> Reader:
    def read(values: list[Any]) -> list[Any]:
        found = values
        for row, value in enumerate(values):
            if type(value) is str:
                continue
            if type(value) is not int:
                raise _wrong(name, row, "a string", value)
            if found is values:
                found = values.copy()
            found[row] = str(value)
        return found

    return read


def _integers(name: str, kind: str, version: int) -> Reader:
    least, end = int_limits(kind, version)

    def read(values: list[Any]) -> list[Any]:
        found = values
        for row, value in enumerate(values):
            if type(value) is int and least <= value < end:
                continue
            number = _whole(value)
            if number is None or not least <= number < end:
                raise _wrong(name, row, f"an integer from {least} to {end - 1}", value)
            if found is values:
                found = values.copy()
            found[row] = number
        return found

    return read


def _whole(value: Any) -> int | None:
    """Return the integer that a decimal text or a float without a fraction is."""
    if type(value) is str and DECIMAL.fullmatch(value):
        return int(value)
    return int(value) if type(value) is float and value.is_integer() and abs(value) < EXACT_FLOATS else None


def _times(name: str, kind: str, version: int) -> Reader:
    least, end = int_limits(kind, version)

    def read(values: list[Any]) -> list[Any]:
        found: list[Any] = []
        for row, value in enumerate(values):
            seconds = value
            if type(value) is str:
                seconds = _whole_seconds(value)
            if type(seconds) is not int or not least <= seconds < end:
                raise _wrong(name, row, "whole seconds since the epoch, or an ISO-8601 time of such", value)
            found.append(seconds)
        return found

    return read


def _whole_seconds(text: str) -> int | None:
    """Return the seconds since the epoch that a time is; None for what is none, or not a whole second."""
    try:
        seconds, rest = divmod(parse_time_ns(text), SECOND_NS)
    except ValueError:
        return None
    return None if rest else seconds


def _byte_strings(name: str, _kind: str, _version: int) -> Reader:
    def read(values: list[Any]) -> list[Any]:
        found: list[Any] = []
        for row, value in enumerate(values):
            try:
                found.append(b64decode(value, validate=True))
            except (TypeError, ValueError, binascii.Error):
                raise _wrong(name, row, "bytes in base64", value) from None
        return found

    return read


_COLUMNS: Mapping[str, Callable[[str, str, int], Reader]] = {
    "STRING": _strings,
    "INT64": _integers,
    "INT32": _integers,
    "UNIX_TIMESTAMP": _times,
    "BYTES": _byte_strings,
}
