"""Merging and finalizing in one pass over each line, where the loop in `_merge_loop.c` is compiled.

NumPy needs some thirty calls for a batch of rows, 60 us whatever they are for, and reads each term by an
index of its own; the loop reads the slots of a window side by side (`perf/micro/heads.py`). It goes by a
*program*: what `MergePlan` knows of windows, components and features, as a line of int64. Which slots count
it works out by line and window, so that rows need not share an ``as_of``.

    head       width, columns, skew, and how many cells, places, windows, groups and steps there are
    places     column of the effective times, horizon
    windows    place, reach, hop, offset, whether there is a core, tails, heads
    groups     operation, window, whether there are head slots, how many members; of each member:
               its cell, its first word, the words of its head slot, three
    steps      kind of feature, how many; of each feature the cells of its value, of the value's second part
               and of its count

A *cell* takes what a component comes to on one line; moments take two.

Invariants
1. What the loop gives is what `MergePlan.masked` gives, to the bit. Where it can't it refuses the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from types import ModuleType

import numpy as np

from fastserve.tiles.aggregates import Op
from fastserve.tiles.finalize import FLOAT_KINDS, INT_KINDS, KINDS
from fastserve.tiles.layout import NULL_FLOAT64_BITS
from fastserve.tiles.merge_groups import PlacedComponent
from fastserve.tiles.operations import INT64, OPERATION_CODES, Floats, Words
from fastserve.tiles.windows import CLOCK_SKEW_NS, Window

__all__ = ["MergeLoop", "has_odd", "has_odd_by_numpy"]

_HEAD_PARTS = 3
"""Moments have as many, all else fewer."""


def _loaded() -> ModuleType | None:
    try:
        from fastserve.tiles import _merge_loop
    except ImportError:
        return None
    return _merge_loop


_native = _loaded()


class MergeLoop:
    """The loop for one service, if it is compiled: ``merged`` gives None otherwise.

    ``width`` is the length of the vector row in words, ``columns`` how many effective times a line has,
    ``horizons_ns`` those of the places of aggregates, by their column. ``features`` are by kind the numbers
    of the components of values and counts.
    """

    def __init__(
        self,
        width: int,
        columns: int,
        horizons_ns: Mapping[int, int],
        components: Sequence[PlacedComponent],
        features: Mapping[str, Sequence[tuple[int, int]]],
    ) -> None:
        self._floats = sum(len(features[kind]) for kind in FLOAT_KINDS)
        self._ints = sum(len(features[kind]) for kind in INT_KINDS)
        self._merge: Callable[..., bool] | None = None
        if _native is not None and components:
            text = _program(width, columns, horizons_ns, components, features)
            self._merge = partial(_native.merge, _native.prepare(np.array(text, INT64)))

    def merged(self, matrix: Words, effective: Words, now_ns: int) -> tuple[Floats, Words] | None:
        """Merge rows whose effective times are ``effective``, shape (requests, columns).

        As `MergePlan.masked`; None where that has to be asked: without the loop, for a row that can't answer
        at ``now_ns``, for sums that may leave int64.
        """
        if self._merge is None:
            return None
        floats = np.empty((len(matrix), self._floats))
        ints = np.empty((len(matrix), self._ints), np.int64)
        if self._merge(matrix, effective, floats, ints, now_ns):
            return floats, ints
        return None


def has_odd_by_numpy(floats: Floats) -> bool:
    """Whether any float is a NaN or an infinity without being null: the twin."""
    finite = np.isfinite(floats)
    return not finite.all() and bool((~finite & (floats.view(INT64) != NULL_FLOAT64_BITS)).any())


has_odd: Callable[[Floats], bool] = has_odd_by_numpy if _native is None else _native.has_odd


# --- the program --------------------------------------------------------------------------------------------


def _program(
    width: int,
    columns: int,
    horizons_ns: Mapping[int, int],
    components: Sequence[PlacedComponent],
    features: Mapping[str, Sequence[tuple[int, int]]],
) -> list[int]:
    places = {column: number for number, column in enumerate(horizons_ns)}
    windows = {
        pair: n for n, pair in enumerate(dict.fromkeys((c.place, c.component.window) for c in components))
    }
    cells = _cells(components)
    groups = [
        (key, list(members))
        for key, members in groupby(
            sorted(range(len(components)), key=lambda number: _group_key(components[number], windows)),
            key=lambda number: _group_key(components[number], windows),
        )
    ]
    steps = [kind for kind in KINDS if features.get(kind)]
    text = [width, columns, CLOCK_SKEW_NS, cells[-1], len(places), len(windows), len(groups), len(steps)]
    for column, horizon_ns in horizons_ns.items():
        text += [column, horizon_ns]
    for place, window in windows:
        text += [places[place], *_window(window)]
    for key, numbers in groups:
        text += [*key, len(numbers)]
        for number in numbers:
            placed = components[number]
            text += [cells[number], placed.word, *placed.heads, *[0] * (_HEAD_PARTS - len(placed.heads))]
    for kind in steps:
        text += [KINDS.index(kind), len(features[kind])]
        for value, count in features[kind]:
            text += [cells[value], cells[value + 1] - 1, cells[count]]
    return text


def _cells(components: Sequence[PlacedComponent]) -> list[int]:
    """Return the first cell of each component, and behind them how many there are."""
    counts = [2 if placed.component.op is Op.MOMENTS else 1 for placed in components]
    return [0, *np.cumsum(counts, dtype=int).tolist()]


def _group_key(placed: PlacedComponent, windows: Mapping[tuple[int, Window], int]) -> tuple[int, int, int]:
    component = placed.component
    return OPERATION_CODES[component.op], windows[placed.place, component.window], bool(placed.heads)


def _window(window: Window) -> list[int]:
    length_ns = 0 if window.is_lifetime else window.window_ns  # nothing drops out of a lifetime
    reach_ns = length_ns - window.offset_ns
    return [reach_ns, window.hop_ns, window.offset_ns, window.has_core, window.tails, window.heads]
