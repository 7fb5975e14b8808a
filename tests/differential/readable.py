"""Values as the API's JSON has them, read back into those that the twin answers with.

Knows the API's encoding as API clients do, and nothing of how it is made.
"""

from __future__ import annotations

import math
import re
import struct
from datetime import UTC, datetime
from typing import Any

from fastserve.sdk.types import Array, Bool, DataType, Float32, Float64, Int64, String, Timestamp

TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def value_of(dtype: DataType, text: Any) -> Any:
    """Return the value that a JSON value of this type means."""
    if text is None:
        return None
    if isinstance(dtype, Array):
        assert isinstance(text, list), text
        return [value_of(dtype.element, element) for element in text]
    if dtype == Int64:
        assert isinstance(text, str), text
        assert re.fullmatch(r"0|-?[1-9]\d*", text), text
        return int(text)
    if dtype in (Float64, Float32):
        if isinstance(text, str):
            return NOT_FINITE[text]
        assert isinstance(text, (int, float)), text
        assert not isinstance(text, bool), text
        number = float(text)
        return number if dtype == Float64 else float(struct.unpack("<f", struct.pack("<f", number))[0])
    if dtype == Timestamp:
        return time_of(text)
    assert isinstance(text, bool if dtype == Bool else str), text
    assert dtype in (Bool, String), dtype
    return text


def time_of(text: str) -> int:
    """Return the nanoseconds since the epoch of a time."""
    found = TIME.fullmatch(text)
    assert found, text
    seconds = int(datetime.fromisoformat(found[1]).replace(tzinfo=UTC).timestamp())
    return seconds * 10**9 + int((found[2] or "").ljust(9, "0"))
