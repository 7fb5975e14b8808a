"""Merging the slots of compacted rows and finalizing features, for all rows of a batch at once.

The rows of one request stand side by side in one *vector row* (all views of the service, `serving.vectors`
joins them); the vector rows of several requests are stacked to a matrix. Which words of it a feature is made
of depends on the clock and on the rows' ``as_of``. Three ways compute the same thing:

- `MergePlan.fast`: all rows share one ``as_of`` per view. Index arrays for the live slots are made once and
  hold until a window's start moves; merging is one ``take`` and one reduction per group of components with
  equally many live slots.
- `MergePlan.masked`: any mix of ``as_of``. All slots are taken, those outside the window are replaced by the
  neutral element.
- `MergePlan.loop`: what `masked` does, in one pass over each line, where the loop in C is compiled and takes
  the batch (`merge_loop`).

How words merge is `operations`' business, how values come of them `finalize`'s.

``take`` with a prepared index costs 0.6 ns per number and fancy indexing 4.5; adding the terms up costs 0.3
by ``add.reduce`` and 2.8 by ``add.reduceat``, which also gives the next segment's value for an empty one
(`perf/micro/merge.py`).

Invariants
1. A row takes part only if it may answer at the request's time (`windows.serves`); the caller has replaced
   all others by null rows.
2. A window without live slots reads its component's neutral element from the constants at the end of the
   vector row.
3. No integer sum wraps: sums that could leave int64 are done again with Python integers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from fastserve.tiles.aggregates import AggregateFeature, CompactedSchema
from fastserve.tiles.finalize import (
    FLOAT_KINDS,
    INT_KINDS,
    KINDS,
    Finalizer,
    Sources,
    kind_of,
    make_finalizer,
    side_by_side,
)
from fastserve.tiles.merge_groups import (
    BEYOND_ALL_TAILS,
    CONSTANT_BITS,
    Group,
    PlacedComponent,
    make_groups,
    masked_terms,
)
from fastserve.tiles.merge_loop import MergeLoop
from fastserve.tiles.operations import FLOAT64, INT64, REDUCTIONS, Floats, Words, merge_terms
from fastserve.tiles.windows import Window

__all__ = ["BEYOND_ALL_TAILS", "CONSTANT_BITS", "Epoch", "FeaturePlace", "MergePlan", "Words"]


@dataclass(frozen=True, slots=True)
class Epoch:
    """Index arrays that hold for one ``as_of`` per place from ``start_ns`` until ``end_ns``."""

    as_of: Words
    start_ns: int
    end_ns: int
    groups: tuple[Group, ...]
    finalizer: Finalizer


@dataclass(frozen=True, slots=True)
class FeaturePlace:
    """Where a feature's values come out: column ``index`` of the float or of the integer result.

    A series comes out as its ``elements``, and with no index of its own (-1), as wide features do.
    """

    is_float: bool
    index: int
    elements: tuple[FeaturePlace, ...] = ()


Collected: TypeAlias = "tuple[str, int] | list[Collected]"
Places = Sequence[tuple[int, int, CompactedSchema, Sequence[AggregateFeature]]]


class MergePlan:
    """The aggregates of one service, compiled for its vector row.

    ``places`` gives, for each aggregate view's place in the vector row, its number, its first word and its
    schema, and the features that the service reads of it. ``constants`` is the word at which `CONSTANT_BITS`
    start. ``heads`` are by place and component the words of its head slot, part by part.
    """

    def __init__(
        self, places: Places, constants: int, heads: Mapping[tuple[int, int], tuple[int, ...]] | None = None
    ) -> None:
        self._heads = heads or {}
        self._constants = {bits: constants + CONSTANT_BITS.index(bits) for bits in CONSTANT_BITS}
        self.place_numbers = np.array([place for place, *_ in places], np.intp)
        self.horizons_ns = np.array([schema.horizon_ns for _, _, schema, _ in places], np.int64)
        self._place_column = {place: column for column, (place, *_) in enumerate(places)}
        self._components: list[PlacedComponent] = []
        self._features: dict[str, list[tuple[int, int]]] = {kind: [] for kind in KINDS}
        self._numbers: dict[tuple[int, int], int] = {}
        collected = [
            [self._collected(feature, place, base, schema) for feature in features]
            for place, base, schema, features in places
        ]
        self.feature_places = [[self._place_of(each) for each in features] for features in collected]
        self._windows = sorted(
            {(placed.place, placed.component.window) for placed in self._components},
            key=lambda pair: (pair[0], repr(pair[1])),
        )
        numbers = {pair: number for number, pair in enumerate(self._windows)}
        self._masked_groups, columns = make_groups(
            self._components, lambda placed: range(placed.component.window.slots), self._constants, numbers
        )
        self._masked_finalizer = self._finalizer(columns)
        self._compile_windows([window for _, window in self._windows])
        self._constants_word = constants

    def loop(self, columns: int) -> MergeLoop:
        """Return the loop that does the same where it is compiled, for lines of so many effective times."""
        return MergeLoop(
            self._constants_word + len(CONSTANT_BITS),
            columns,
            dict(zip(self.place_numbers.tolist(), self.horizons_ns.tolist(), strict=True)),
            self._components,
            self._features,
        )

    def _compile_windows(self, windows: Sequence[Window]) -> None:
        self._place_of_window = np.array([self._place_column[place] for place, _ in self._windows], np.intp)
        # A lifetime has nothing that could drop out: any length does.
        self._lengths = np.array([0 if w.is_lifetime else w.window_ns for w in windows], np.int64)
        self._hops = np.array([window.hop_ns for window in windows], np.int64)
        self._offsets = np.array([window.offset_ns for window in windows], np.int64)
        self._reaches = self._lengths - self._offsets
        self._has_heads = any(window.heads for window in windows)

    # --- features -------------------------------------------------------------------------------------------

    def _collected(
        self, feature: AggregateFeature, place: int, base: int, schema: CompactedSchema
    ) -> Collected:
        """Take in a feature; return its kind and its number among those, or those of its elements."""
        if feature.value is None:
            return [self._collected(element, place, base, schema) for element in feature.elements]

        def number_of(local: int) -> int:
            if (place, local) not in self._numbers:
                component = schema.components[local]
                self._numbers[place, local] = len(self._components)
                heads = self._heads.get((place, local), ())
                self._components.append(PlacedComponent(component, base + component.word, place, heads))
            return self._numbers[place, local]

        kind = kind_of(feature, schema)
        value = number_of(feature.value)
        self._features[kind].append((value, value if feature.count is None else number_of(feature.count)))
        return kind, len(self._features[kind]) - 1

    def _place_of(self, collected: Collected) -> FeaturePlace:
        if isinstance(collected, list):
            return FeaturePlace(False, -1, tuple(map(self._place_of, collected)))
        kind, number = collected
        family = list(FLOAT_KINDS if kind in FLOAT_KINDS else INT_KINDS)
        before = sum(len(self._features[other]) for other in family[: family.index(kind)])
        return FeaturePlace(kind in FLOAT_KINDS, before + number)

    def _finalizer(self, columns: Sequence[tuple[int, int]]) -> Finalizer:
        """Return the finalizer for components that come out in ``columns``: of first and of second parts."""
        return make_finalizer(
            {
                kind: [Sources(*columns[value], columns[count][0]) for value, count in pairs]
                for kind, pairs in self._features.items()
            }
        )

    @property
    def floats(self) -> int:
        """Number of columns of the float result."""
        return sum(len(self._features[kind]) for kind in FLOAT_KINDS)

    @property
    def ints(self) -> int:
        """Number of columns of the integer result."""
        return sum(len(self._features[kind]) for kind in INT_KINDS)

    @property
    def counts(self) -> int:
        """How many of the integer columns, from the first on, are counts: 0 and not null where empty."""
        return len(self._features["count"])

    # --- the two ways ---------------------------------------------------------------------------------------

    def epoch(self, as_of: Words, time_ns: int) -> Epoch:
        """Prepare `fast` for rows with ``as_of``, shape (places,), asked at ``time_ns``."""
        times = {place: int(as_of[column]) for place, column in self._place_column.items()}
        groups, columns = make_groups(
            self._components,
            lambda placed: placed.component.window.live_slots(times[placed.place], time_ns),
            self._constants,
        )
        ends = [window.changes_ns(time_ns) for _, window in self._windows]
        end_ns = min(ends, default=BEYOND_ALL_TAILS)
        return Epoch(as_of.copy(), time_ns, end_ns, groups, self._finalizer(columns))

    def fast(self, matrix: Words, epoch: Epoch) -> tuple[Floats, Words]:
        """Merge and finalize rows that all have the epoch's ``as_of``, or are null rows.

        ``matrix`` has shape (requests, words of the vector row). Returns floats of shape (requests,
        `floats`), null as the reserved NaN, and integers of shape (requests, `ints`), null as the smallest
        int64; counts are 0 where nothing was counted.
        """
        float_parts: list[Floats] = []
        int_parts: list[Words] = []
        # By IEEE 754 and without a warning: inf - inf is NaN. Once per batch, for it takes a microsecond.
        with np.errstate(invalid="ignore", over="ignore"):
            for group in epoch.groups:
                _merge(group, matrix.take(group.words, axis=1), float_parts, int_parts)
        return _finalized(float_parts, int_parts, len(matrix), epoch.finalizer)

    def masked(self, matrix: Words, as_of: Words, time_ns: int) -> tuple[Floats, Words]:
        """As `fast`, for rows of any ``as_of``, shape (requests, places)."""
        as_of = as_of.take(self._place_of_window, axis=1)
        starts_then = (as_of - self._reaches) // self._hops
        dropped = np.maximum((time_ns - self._reaches) // self._hops - starts_then, 0)
        gone = come = dropped
        if self._has_heads:
            ends_then = (as_of + self._offsets) // self._hops
            gone = starts_then + dropped - ends_then
            come = (np.maximum(as_of, time_ns) + self._offsets) // self._hops - ends_then
        float_parts: list[Floats] = []
        int_parts: list[Words] = []
        with np.errstate(invalid="ignore", over="ignore"):
            for group in self._masked_groups:
                terms = masked_terms(group, matrix.take(group.words, axis=1), dropped, gone, come)
                _merge(group, terms, float_parts, int_parts)
        return _finalized(float_parts, int_parts, len(matrix), self._masked_finalizer)


def _merge(group: Group, terms: Words, float_parts: list[Floats], int_parts: list[Words]) -> None:
    op = group.op
    if op.parts > 1:
        (float_parts if op.is_float else int_parts).append(merge_terms(op, terms))
    elif op.is_float:
        float_parts.append(REDUCTIONS[op](terms.view(FLOAT64)))
    else:
        int_parts.append(REDUCTIONS[op](terms))


def _finalized(
    float_parts: list[Floats], int_parts: list[Words], lines: int, finalizer: Finalizer
) -> tuple[Floats, Words]:
    return finalizer.values(side_by_side(float_parts, lines, FLOAT64), side_by_side(int_parts, lines, INT64))
