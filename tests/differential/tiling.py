"""Raw events to compacted rows through `tiles.write`, and hypothesis strategies for both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from fastserve.sdk.types import Bool, DataType, Float64, Int64, String
from fastserve.tiles.aggregates import AggregateSpec, CompactedSchema
from fastserve.tiles.windows import (
    BEGINNING_NS,
    DAY_NS,
    HOUR_NS,
    LIFETIME_NS,
    MINUTE_NS,
    Window,
    default_hop_ns,
)
from fastserve.tiles.write import EventColumn, Events, encode_words, merge_words, spoilt_rows, tile_events
from tests.differential.naive import Event

COLUMNS: dict[str, DataType] = {"amount": Float64, "units": Int64, "kind": String, "flag": Bool}
NUMERIC = ("sum", "count", "mean", "min", "max", "var_pop", "var_samp", "stddev_pop", "stddev_samp")
FUNCTIONS = {
    "amount": (*NUMERIC, "last", "first"),
    "units": (*NUMERIC, "last", "first"),
    "kind": ("count",),
    "flag": ("last", "first"),
}


def spec(column: str, function: str, window: Window, dtype: DataType | None = None) -> AggregateSpec:
    """Return an aggregate whose name says all that it is."""
    dtype = dtype or COLUMNS[column]
    floats = function == "mean" or function.startswith(("var_", "stddev_"))
    output = Int64 if function == "count" else Float64 if floats else dtype
    name = f"{column}_{function}_{window.window_ns}_{window.hop_ns}"
    if window.offset_ns:
        name += f"_{-window.offset_ns}"
    return AggregateSpec(name, function, column, dtype, output, window)


def all_specs(windows: Sequence[Window]) -> list[AggregateSpec]:
    """Return every function of every column over every window."""
    return [spec(column, f, w) for w in windows for column, names in FUNCTIONS.items() for f in names]


def chunk_of(events: Sequence[Event]) -> tuple[list[Any], Events]:
    """Return the entity keys and the events as `tiles.write` takes them."""
    ordered = sorted(events, key=lambda event: (event.key, event.time_ns))
    keys = sorted({event.key for event in events})
    starts = [next(n for n, event in enumerate(ordered) if event.key == key) for key in keys]
    columns = {}
    for name, dtype in COLUMNS.items():
        raw = [event.values.get(name) for event in ordered]
        valid = np.array([value is not None for value in raw], np.bool_)
        values = None
        if dtype != String:
            numpy_type = np.float64 if dtype == Float64 else np.int64
            values = np.array([0 if value is None else value for value in raw], numpy_type)
        columns[name] = EventColumn(values, None if valid.all() else valid)
    times = np.array([event.time_ns for event in ordered], np.int64)
    return keys, Events(np.array([*starts, len(ordered)], np.intp), times, columns)


def compact(
    schema: CompactedSchema, events: Sequence[Event], as_of_ns: int, cut: int = 0
) -> dict[Any, bytes]:
    """Return the rows by key; ``cut`` > 0 makes them of two chunks, cut after that many events."""
    parts = [part for part in (events[:cut], events[cut:]) if part]
    words: dict[Any, Any] = {}
    for part in parts:
        keys, chunk = chunk_of(part)
        tiled = tile_events(schema, chunk, as_of_ns)
        for number, key in enumerate(keys):
            row = tiled[number : number + 1]
            words[key] = row if key not in words else merge_words(schema, words[key], row)
    if not words:
        return {}
    stacked = np.concatenate(list(words.values()))
    return dict(zip(words, encode_words(schema, stacked, as_of_ns), strict=True))


def spoilt_keys(schema: CompactedSchema, events: Sequence[Event], as_of_ns: int) -> set[Any]:
    """Return the keys with an int64 sum that left its range."""
    keys, chunk = chunk_of(events)
    return {keys[number] for number in spoilt_rows(schema, tile_events(schema, chunk, as_of_ns))}


INTERVALS_NS = (MINUTE_NS, 5 * MINUTE_NS, 7 * MINUTE_NS, HOUR_NS, DAY_NS)


@st.composite
def window_sets(draw: st.DrawFn) -> list[Window]:
    """Windows of one view: one interval, one horizon, lengths that are multiples of it, any hops."""
    interval = draw(st.sampled_from(INTERVALS_NS))
    horizon = draw(st.sampled_from([MINUTE_NS, 90 * MINUTE_NS, DAY_NS, 2 * DAY_NS]))
    lengths = draw(st.lists(st.integers(1, 400), min_size=1, max_size=3, unique=True))
    windows = []
    for length in lengths:
        window_ns = length * interval
        hop = draw(st.sampled_from([default_hop_ns(window_ns, interval), interval, 2 * interval]))
        offset = -draw(st.sampled_from([0, 0, 1, 2, 3, 100])) * interval
        windows.append(Window(window_ns, hop, interval, horizon, offset))
    if draw(st.booleans()):
        windows.append(Window(LIFETIME_NS, interval, interval, horizon))
    return [window for window in windows if window.slots <= 2000] or [
        Window(interval, interval, interval, HOUR_NS)
    ]


def floats() -> st.SearchStrategy[float]:
    """Floats whose sums are exact in any order, with both zeros, NaN and the infinities."""
    exact = st.integers(-(2**30), 2**30).map(lambda number: number / 8)
    return st.one_of(exact, st.sampled_from([0.0, -0.0, float("nan"), float("inf"), -float("inf")]))


@st.composite
def event_lists(draw: st.DrawFn, as_of_ns: int, windows: Sequence[Window], max_size: int = 12) -> list[Event]:
    """Events of a few keys, many on the boundaries of slots or a nanosecond off them."""
    slots = [bounds for window in windows for bounds in window.slot_bounds_ns(as_of_ns)]
    edges = sorted({edge for bounds in slots for edge in bounds if edge != BEGINNING_NS})
    at_edges = st.tuples(st.sampled_from(edges), st.integers(-1, 1)).map(sum)
    anywhere = st.integers(edges[0] - 10, edges[-1] + 10)
    times = st.one_of(at_edges, anywhere)
    values = st.fixed_dictionaries(
        {
            "amount": st.none() | floats(),
            "units": st.none() | st.integers(-(2**58), 2**58),
            "kind": st.none() | st.sampled_from(["", "a"]),
            "flag": st.none() | st.booleans(),
        }
    )
    return draw(st.lists(st.builds(Event, st.sampled_from("abc"), times, values), max_size=max_size))
