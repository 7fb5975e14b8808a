"""The slow, obvious twin: aggregates by a loop over raw events. Every optimised path is compared with it.

Knows neither tiles nor rows, only what the documentation says of windows: asked at t, a window of length w
covers [floor(t - w, hop), t), one with an offset o [floor(t + o - w, hop), floor(t + o, hop)), a lifetime all
before t. What a row can't know (events at or after its as_of) the twin leaves out as well: with batch rows
alone the answer is over [floor(t - w, hop), as_of). A clock behind the row's as_of (skew between hosts) is
taken for the as_of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from fastserve.tiles.aggregates import AggregateSpec
from fastserve.tiles.windows import LIFETIME_NS


@dataclass(frozen=True, slots=True)
class Event:
    """One raw event: its entity key, its time and its columns, None for null."""

    key: Any
    time_ns: int
    values: Mapping[str, Any]


def naive_answer(events: Iterable[Event], spec: AggregateSpec, key: Any, as_of_ns: int, time_ns: int) -> Any:
    """Return one aggregate of one key at ``time_ns`` from rows written at ``as_of_ns``; None is null."""
    window = spec.window
    asked_ns = max(time_ns, as_of_ns) + window.offset_ns
    start_ns = (asked_ns - window.window_ns) // window.hop_ns * window.hop_ns
    end_ns = as_of_ns
    if window.offset_ns < 0:
        end_ns = min(end_ns, asked_ns // window.hop_ns * window.hop_ns)
    timed = []
    for event in events:
        begun = window.window_ns == LIFETIME_NS or start_ns <= event.time_ns
        if event.key == key and begun and event.time_ns < end_ns:
            value = event.values[spec.column]
            if value is not None:
                timed.append((event.time_ns, value))
    return naive_function(spec.function, timed)


def naive_function(function: str, timed: list[tuple[int, Any]]) -> Any:
    """Return the function of values that aren't null, given with their times."""
    timed = sorted(timed, key=lambda pair: (pair[0], order_of(pair[1])))
    values = [value for _, value in timed]
    if function in {"last", "first"}:
        return None if not values else values[-1] if function == "last" else values[0]
    if function.startswith(("var_", "stddev_")):
        return naive_spread(function, values)
    if function == "count":
        return len(values)
    if function in {"min", "max"}:
        numbers = [value for value in values if not (isinstance(value, float) and math.isnan(value))]
        if not numbers:
            return None
        return min(numbers) if function == "min" else max(numbers)
    if not values:
        return None
    total: Any = 0
    for value in values:
        total += value
    return total / len(values) if function == "mean" else total


def order_of(value: Any) -> tuple[int, Any, float]:
    """Return what values sort by: NaN above all, -0.0 below 0.0."""
    if isinstance(value, float) and math.isnan(value):
        return (1, 0, 0.0)
    return (0, value, math.copysign(1.0, value) if isinstance(value, float) else 0.0)


def naive_spread(function: str, values: list[Any]) -> float | None:
    """Return a variance or a standard deviation, exact but for the last rounding."""
    divisor = len(values) - function.endswith("_samp")
    if divisor <= 0:
        return None
    if not all(map(math.isfinite, values)):
        return math.nan
    mean = sum(map(Fraction, values)) / Fraction(len(values))
    variance = float(sum(((Fraction(value) - mean) ** 2 for value in values), Fraction(0)) / divisor)
    return math.sqrt(variance) if function.startswith("stddev") else variance
