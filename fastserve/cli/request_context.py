"""Request-time values of a command line, into the JSON values that the API takes for their types.

It knows a type only as the metadata endpoint tells it, and judges no scalar: what doesn't look like its type
goes out as the text it is, so that the server says what is wrong with it.

Invariants
1. A string goes out as it was given; for every other type ``null`` is null.
2. What comes out can be written as JSON: no NaN, no infinity, no lone surrogates.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from fastserve.errors import DefinitionError, shown

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_BOOLEANS = {"true": True, "false": False}
_FLOATS = frozenset({"float32", "float64"})
_NESTED = {"array": "an array in JSON", "struct": "an object in JSON", "map": "an object in JSON"}


def typed_values(given: Mapping[str, str], types: Mapping[str, str]) -> dict[str, Any]:
    """Return the values for the API; ``types`` are by field, and a field that has none stays text.

    Raises:
        DefinitionError: a value of an array, struct or map isn't JSON.
    """
    return {name: _typed(name, text, types.get(name, "string")) for name, text in given.items()}


def _typed(name: str, text: str, kind: str) -> Any:
    if kind == "string":
        return text
    if text == "null":
        return None
    if kind in _FLOATS:
        return _number(text)
    if kind == "boolean":
        return _BOOLEANS.get(text, text)
    return _nested(name, text, _NESTED[kind]) if kind in _NESTED else text


def _number(text: str) -> float | str:
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    return number if math.isfinite(number) else text  # "NaN" and "Infinity" are words in the API


def _nested(name: str, text: str, expected: str) -> Any:
    try:
        value = json.loads(text, parse_float=_finite, parse_constant=str)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise DefinitionError(
            f"request context {shown(name)}: expected {expected}, got {shown(text)}"
        ) from None
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number
