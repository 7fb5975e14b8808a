"""The keys of tables that Feast wrote: from join keys, as texts or as values, to the text of a read.

Invariants
1. A key that Feast can't have written, one with null or with a number out of its type's range, becomes one
   that isn't in the table: it is absent, as its row is.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Sequence
from typing import Any, Final

from fastserve.plan.keys import EMPTY_TEXT, NULL_TEXT
from fastserve.plan.reads import KeyAttributes
from fastserve.tiles.windows import SECOND_NS
from fastserve.wire.feast_key import FeastKeyForm, entity_id_of, int_limits

FEAST_KEY: Final[KeyAttributes] = (("entity_id", "S"),)
NO_ENTITY: Final = "-"
"""No entity id: those are hexadecimal."""

_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)


def entity_key(entity_id: str) -> str:
    """Return the text under which the read of an entity id is known: its DynamoDB key as JSON."""
    return f'{{"entity_id":{{"S":"{entity_id}"}}}}'


def feast_key(form: FeastKeyForm) -> Callable[[Sequence[str]], str]:
    """Return what makes the text of a read of the texts of its join keys, in the form's order."""
    make = entity_id_of(form)
    readers = [_value_reader(kind, form.version) for kind in form.types]

    def key(texts: Sequence[str]) -> str:
        try:
            values = [read(text) for read, text in zip(readers, texts, strict=True)]
        except _NoSuchKey:
            return entity_key(NO_ENTITY)
        return entity_key(make(values))

    return key


class _NoSuchKey(Exception):
    """A value that no key of Feast's holds."""


def _value_reader(kind: str, version: int) -> Callable[[str], Any]:
    if kind == "STRING":
        return _string
    if kind == "BYTES":
        return _bytes
    least, end = int_limits(kind, version)
    unit = SECOND_NS if kind == "UNIX_TIMESTAMP" else 1

    def integer(text: str) -> int:
        if text == NULL_TEXT:
            raise _NoSuchKey
        number, rest = divmod(int(text), unit)
        if rest or not least <= number < end:
            raise _NoSuchKey
        return number

    return integer


def _string(text: str) -> str:
    if "\\" not in text:
        return text
    if text == NULL_TEXT:
        raise _NoSuchKey
    return "" if text == EMPTY_TEXT else _ESCAPE.sub(r"\1", text)


def _bytes(text: str) -> bytes:
    try:
        return b64decode(_string(text), validate=True)
    except (binascii.Error, ValueError):
        raise _NoSuchKey from None
