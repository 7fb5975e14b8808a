"""The slow, obvious twin: aggregates by a loop over raw events. Every optimised path is compared with it.

Knows neither tiles nor rows, only what DESIGN.md says of windows: asked at t, a window of length w covers
[floor(t - w, hop), t). What a row can't know (events at or after its as_of) the twin leaves out as well: with
batch rows alone the answer is over [floor(t - w, hop), as_of). A clock behind the row's as_of (skew between
hosts) is taken for the as_of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastserve.tiles.aggregates import AggregateSpec


@dataclass(frozen=True, slots=True)
class Event:
    """One raw event: its entity key, its time and its columns, None for null."""

    key: Any
    time_ns: int
    values: Mapping[str, Any]


def naive_answer(events: Iterable[Event], spec: AggregateSpec, key: Any, as_of_ns: int, time_ns: int) -> Any:
    """Return one aggregate of one key at ``time_ns`` from rows written at ``as_of_ns``; None is null."""
    start_ns = (max(time_ns, as_of_ns) - spec.window.window_ns) // spec.window.hop_ns * spec.window.hop_ns
    values = []
    for event in events:
        if event.key == key and start_ns <= event.time_ns < as_of_ns:
            value = event.values[spec.column]
            if value is not None:
                values.append(value)
    return naive_function(spec.function, values)


def naive_function(function: str, values: list[Any]) -> Any:
    """Return the function of values that aren't null."""
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
