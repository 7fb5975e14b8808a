"""Events of many entity keys to the wide parts of their compacted rows: what `write` does for words.

Takes the same chunks, sorted by entity and time; values come as Python objects. A chunk gives, for every
column of bytes of the layout, the IR of each entity. An entity whose events were cut by a chunk's end is put
together by `WideTiler.merged`, IR by IR, so it takes as much memory as its row and a chunk.

Invariants
1. `merged` of the tiles of two chunks gives tiles that answer as those of both chunks' events do.
2. Only events inside of a slot's bounds count, whatever else the chunk holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from fastserve.tiles.aggregates import CompactedSchema, WideComponent
from fastserve.tiles.wide import WideFunction, function_of
from fastserve.tiles.windows import Window

Words = npt.NDArray[np.int64]
Index = npt.NDArray[np.intp]

WideTiles = list[list[bytes]]
"""By column of bytes, in the layout's order, the IR of each entity."""


@dataclass(frozen=True, slots=True)
class WideEvents:
    """A chunk: entity e has the events ``starts[e]`` to ``starts[e + 1]``, ascending by ``times_ns``.

    ``columns`` hold None for null, timestamps as int nanoseconds.
    """

    starts: Index
    times_ns: Words
    columns: Mapping[str, Sequence[Any]]

    @property
    def entities(self) -> int:
        """How many entities have events in the chunk."""
        return len(self.starts) - 1


@dataclass(frozen=True, slots=True)
class _Runs:
    """Events that count, in runs: ``cuts`` are their bounds, each of one entity and slot."""

    times_ns: list[int]
    values: list[Any]
    cuts: list[int]
    entities: list[int]
    slots: list[int]


class WideTiler:
    """Tiles and merges the wide components of one view."""

    def __init__(self, schema: CompactedSchema) -> None:
        self._components = schema.wide
        self._functions: list[WideFunction] = [function_of(component) for component in schema.wide]
        self._column_functions = [
            function
            for component, function in zip(schema.wide, self._functions, strict=True)
            for _ in component.columns
        ]

    def __bool__(self) -> bool:
        """Whether the view has wide components."""
        return bool(self._components)

    @property
    def columns(self) -> int:
        """How many columns of bytes a row has."""
        return len(self._column_functions)

    @property
    def inputs(self) -> set[str]:
        """The columns of events that are needed as Python values."""
        keys = {component.secondary_key[0] for component in self._components if component.secondary_key}
        return {component.column for component in self._components} | keys

    def tile(self, events: WideEvents, as_of_ns: int) -> WideTiles:
        """Return the tiles of a chunk.

        Raises:
            ValueError: a string is longer than `wide.MAX_STRING_BYTES`; readers see to it before.
        """
        tiles: WideTiles = [[b""] * events.entities for _ in self._column_functions]
        owners = np.repeat(np.arange(events.entities), np.diff(events.starts))
        found: dict[tuple[Window, str, object], _Runs] = {}
        first = 0
        for component, function in zip(self._components, self._functions, strict=True):
            key = (component.window, component.column, component.secondary_key)
            if key not in found:
                found[key] = _find_runs(component, events, owners, as_of_ns)
            runs = found[key]
            places = zip(pairwise(runs.cuts), runs.entities, runs.slots, strict=True)
            for (low, high), entity, slot in places:
                ir = function.tile(runs.times_ns[low:high], runs.values[low:high])
                tiles[first + slot][entity] = ir
            first += component.window.slots
        return tiles

    def merged(self, left: WideTiles, right: WideTiles) -> WideTiles:
        """Return the tiles of entities that have events in both, entity by entity."""
        return [
            [
                function.merge([old, new]) if old and new else old or new
                for old, new in zip(olds, news, strict=True)
            ]
            for function, olds, news in zip(self._column_functions, left, right, strict=True)
        ]


def entities(tiles: WideTiles, low: int, high: int) -> WideTiles:
    """Return the tiles of entities ``low`` to ``high``."""
    return [irs[low:high] for irs in tiles]


def wide_bytes(tiles: WideTiles) -> int:
    """Return how many bytes the IRs of all entities have."""
    return sum(len(ir) for irs in tiles for ir in irs)


def _find_runs(component: WideComponent, events: WideEvents, owners: Index, as_of_ns: int) -> _Runs:
    values, there = _values(component, events.columns)
    places, slot_order = _slots_of(component.window, events.times_ns, as_of_ns)
    counts = (places >= 0) & there
    picked = np.flatnonzero(counts)
    width = max(1, len(slot_order))
    runs = owners[picked] * np.intp(width) + places[picked]
    starts = np.flatnonzero(np.diff(runs, prepend=-1))
    return _Runs(
        events.times_ns[picked].tolist(),
        [values[place] for place in picked.tolist()],
        [*starts.tolist(), len(picked)],
        (runs[starts] // width).tolist(),
        [slot_order[place] for place in (runs[starts] % width).tolist()],
    )


def _values(
    component: WideComponent, columns: Mapping[str, Sequence[Any]]
) -> tuple[Sequence[Any], npt.NDArray[np.bool_]]:
    """Return the values that the function is given, and for which events there is one."""
    values = columns[component.column]
    if component.secondary_key is None:
        return values, np.array([value is not None for value in values], np.bool_)
    keys = columns[component.secondary_key[0]]
    return list(zip(keys, values, strict=True)), np.array([key is not None for key in keys], np.bool_)


def _slots_of(window: Window, times_ns: Words, as_of_ns: int) -> tuple[Index, list[int]]:
    """Return for each time the number of its slot among those with a length, in time order; -1 for none."""
    bounds = window.slot_bounds_ns(as_of_ns)
    order = [slot for slot in window.slots_in_time_order if bounds[slot][0] < bounds[slot][1]]
    if not order:
        return np.full(len(times_ns), -1, np.intp), order
    lows = np.array([bounds[slot][0] for slot in order], np.int64)
    highs = np.array([bounds[slot][1] for slot in order], np.int64)
    places = np.searchsorted(lows, times_ns, side="right") - 1
    return np.where(times_ns < highs[places], places, -1), order
