"""Wide functions evaluated the slow, obvious way, and hypothesis strategies for their events."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

from fastserve.sdk.types import Bool, DataType, Float32, Float64, Int64, String, Timestamp
from fastserve.tiles.times import format_time

Event = tuple[int, Any]
Params = dict[str, float]

VALUES: dict[DataType, st.SearchStrategy[Any]] = {
    Int64: st.one_of(st.integers(-3, 3), st.integers(-(2**63) + 1, 2**63 - 1)),
    Float64: st.one_of(
        st.sampled_from([0.0, -0.0, 1.5, -1.5, math.nan, math.inf, -math.inf]), st.floats(width=64)
    ),
    Float32: st.one_of(st.sampled_from([0.0, -0.0, 0.1, math.nan]), st.floats(width=32)).map(
        lambda value: float(np.float32(value))
    ),
    String: st.one_of(st.sampled_from(["", "a", "b", "é", "\U0001f600", "\uffff"]), st.text(max_size=5)),
    Bool: st.booleans(),
    Timestamp: st.one_of(st.integers(0, 3), st.integers(-(2**63) + 1, 2**63 - 1)),
}
NUMERIC = (Int64, Float64, Float32)


def event_lists(dtype: DataType, max_size: int = 12) -> st.SearchStrategy[list[Event]]:
    """Events with many ties in time."""
    return st.lists(st.tuples(st.integers(0, 5), VALUES[dtype]), max_size=max_size)


def split(draw: st.DrawFn, events: Sequence[Any], parts: int = 4) -> list[list[Any]]:
    """Return the events in slots of any sizes and in any order."""
    slots: list[list[Any]] = [[] for _ in range(parts)]
    for event in draw(st.permutations(events)):
        slots[draw(st.integers(0, parts - 1))].append(event)
    return slots


def order(value: Any) -> Any:
    """Return what values compare by: NaN above everything, -0.0 below 0.0."""
    if isinstance(value, float):
        return (math.isnan(value), 0.0 if math.isnan(value) else value, math.copysign(1, value))
    return value.encode() if isinstance(value, str) else value


def is_nan(value: Any) -> bool:
    """Tell whether a value is a NaN."""
    return isinstance(value, float) and math.isnan(value)


def as_json(dtype: DataType, value: Any) -> Any:
    """Return what reading the API's JSON of a value gives."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if dtype == Timestamp:
        return format_time(value)
    if dtype == Int64:
        return str(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float(str(np.float32(value))) if dtype == Float32 else value


def naive(function: str, params: Params, dtype: DataType, events: Sequence[Event]) -> Any:
    """Return a function of events as reading the API's JSON of it gives it; floats are rounded once."""
    if not events:
        return None
    by_time = sorted(events, key=lambda event: (event[0], order(event[1])))
    if function in {"last", "first"}:
        if "n" not in params:
            return as_json(dtype, by_time[-1 if function == "last" else 0][1])
        n = int(params["n"])
        chosen = by_time[-n:] if function == "last" else by_time[:n]
        return [as_json(dtype, value) for _, value in chosen]
    if function in {"last_distinct", "first_distinct"}:
        return _distinct(function, int(params["n"]), dtype, by_time)
    values = [value for _, value in events]
    if function in {"min", "max"}:
        ordered = sorted((value for value in values if not is_nan(value)), key=order)
        best = ordered[0 if function == "min" else -1] if ordered else None
        return as_json(dtype, best + 0.0 if isinstance(best, float) else best)
    if function == "approx_percentile":
        finite = sorted(float(value) for value in values if math.isfinite(value))
        rank = math.ceil(Fraction(str(params["percentile"])) * len(finite))
        return finite[max(rank, 1) - 1] + 0.0 if finite else None
    return _number(function, dtype, values)


def _distinct(function: str, n: int, dtype: DataType, by_time: Sequence[Event]) -> list[Any]:
    seen: list[Any] = []
    for _, value in reversed(by_time) if function == "last_distinct" else by_time:
        plain = value + 0.0 if isinstance(value, float) else value
        if not any(plain == other or (is_nan(plain) and is_nan(other)) for other in seen):
            seen.append(plain)
    chosen = seen[:n]
    return [as_json(dtype, value) for value in (chosen[::-1] if function == "last_distinct" else chosen)]


def _number(function: str, dtype: DataType, values: Sequence[Any]) -> Any:
    if function == "count":
        return str(len(values))
    total = sum(Fraction(value) for value in values) if all(map(math.isfinite, values)) else sum(values)
    if dtype == Int64 and function in {"sum", "mean"} and abs(total) >= 2**63:
        return None
    if function == "sum":
        return str(total) if dtype == Int64 else as_json(Float64, rounded(total) + 0.0)
    if function == "mean":
        return as_json(Float64, rounded(total) / len(values) + 0.0)
    if len(values) == 1 and function.endswith("samp"):
        return None
    if not all(map(math.isfinite, values)):
        return "NaN"
    exact = [Fraction(value) for value in values]
    variance = statistics.variance(exact) if function.endswith("samp") else statistics.pvariance(exact)
    return as_json(
        Float64, math.sqrt(rounded(variance)) if function.startswith("stddev") else rounded(variance)
    )


def rounded(number: Any) -> float:
    """Return the nearest float64."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf
