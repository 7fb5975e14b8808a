"""Merging the slots of compacted rows and finalizing features, for all rows of a batch at once.

The rows of one request stand side by side in one *vector row* (all views of the service, `serving.vectors`
joins them); the vector rows of several requests are stacked to a matrix. Which words of it a feature is made
of depends on the clock and on the rows' ``as_of``. Two ways compute the same thing:

- `MergePlan.fast`: all rows share one ``as_of`` per view. Index arrays for the live slots are made once and
  hold until a window's start moves; merging is one ``take`` and one reduction per group of components with
  equally many live slots.
- `MergePlan.masked`: any mix of ``as_of``. All slots are taken, those outside the window are replaced by the
  neutral element.

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

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from fastserve.tiles.aggregates import (
    NEGATIVE_ZERO_BITS,
    NEUTRAL_BITS,
    AggregateFeature,
    CompactedSchema,
    Component,
    Op,
)
from fastserve.tiles.layout import NULL_FLOAT64_BITS, NULL_INT64
from fastserve.tiles.windows import Window

Words = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

FLOAT64 = np.dtype("<f8")
INT64 = np.dtype("<i8")
NULL_FLOAT64 = np.array([NULL_FLOAT64_BITS], "<i8").view("<f8")[0]

CONSTANT_BITS = (NEGATIVE_ZERO_BITS, 0, NULL_FLOAT64_BITS, 2**63 - 1, 0, 0)
"""The words that stand behind the rows in a vector row: every neutral element, filled up to a multiple of 24
bytes."""

BEYOND_ALL_TAILS = np.iinfo(np.int64).max


def add_exactly(terms: Words) -> Words:
    """Sum int64 ``terms`` of shape (rows, terms, components) over the middle axis.

    Sums outside int64 become null, and so do those with a term that is null.
    """
    limit = 2**62 // max(1, terms.shape[1])
    if not terms.size or (int(terms.max()) <= limit and int(terms.min()) >= -limit):
        result: Words = np.add.reduce(terms, axis=1)
        return result
    exact = terms.astype(object).sum(axis=1)
    sums = np.array([[v if NULL_INT64 < v < 2**63 else NULL_INT64 for v in row] for row in exact], np.int64)
    # A slot whose own sum left int64 (`write`) spoils the whole, whatever the others hold.
    sums[(terms == NULL_INT64).any(axis=1)] = NULL_INT64
    return sums


REDUCTIONS: dict[Op, Callable[[Any], Any]] = {
    # initial: NumPy starts a sum at 0.0, which would turn an empty window's -0.0 into a zero.
    Op.ADD_F: lambda terms: np.add.reduce(terms, axis=1, initial=-0.0),
    Op.ADD_I: add_exactly,
    Op.COUNT: lambda terms: np.add.reduce(terms, axis=1),
    Op.MIN_F: lambda terms: np.fmin.reduce(terms, axis=1),
    Op.MAX_F: lambda terms: np.fmax.reduce(terms, axis=1),
    Op.MIN_I: lambda terms: np.minimum.reduce(terms, axis=1),
    Op.MAX_I: lambda terms: np.maximum.reduce(terms, axis=1),
}


@dataclass(frozen=True, slots=True)
class PlacedComponent:
    """A component in the vector row: its first slot's word there, and the number of its view's place.

    ``heads`` are the words, part by part, of its head slot (`tiles.heads`), none where nothing is streamed.
    """

    component: Component
    word: int
    place: int
    heads: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Group:
    """Components that are merged by one call: words of shape (terms, components)."""

    op: Op
    words: Index
    slot: Index | None = None
    window: Index | None = None


@dataclass(frozen=True, slots=True)
class _Finalizer:
    """Where the merged components of each kind of feature stand, one index array per kind."""

    sums: Index
    extremes: Index
    means: Index
    mean_counts: Index
    int_means: Index
    int_mean_counts: Index
    counts: Index
    ints: Index
    int_counts: Index


@dataclass(frozen=True, slots=True)
class Epoch:
    """Index arrays that hold for one ``as_of`` per place from ``start_ns`` until ``end_ns``."""

    as_of: Words
    start_ns: int
    end_ns: int
    groups: tuple[_Group, ...]
    finalizer: _Finalizer


@dataclass(frozen=True, slots=True)
class FeaturePlace:
    """Where a feature's values come out: column ``index`` of the float or of the integer result."""

    is_float: bool
    index: int


class MergePlan:
    """The aggregates of one service, compiled for its vector row.

    ``places`` gives, for each aggregate view's place in the vector row, its number, its first word and its
    schema, and the features that the service reads of it. ``constants`` is the word at which `CONSTANT_BITS`
    start. ``heads`` are by place and component the words of its head slot, part by part.
    """

    def __init__(
        self,
        places: Sequence[tuple[int, int, CompactedSchema, Sequence[AggregateFeature]]],
        constants: int,
        heads: Mapping[tuple[int, int], tuple[int, ...]] | None = None,
    ) -> None:
        self._heads = heads or {}
        self._constants = {op: constants + CONSTANT_BITS.index(bits[0]) for op, bits in NEUTRAL_BITS.items()}
        self.place_numbers = np.array([place for place, *_ in places], np.intp)
        self.horizons_ns = np.array([schema.horizon_ns for _, _, schema, _ in places], np.int64)
        self._components: list[PlacedComponent] = []
        self._features: dict[str, list[tuple[int, int]]] = {kind: [] for kind in _KINDS}
        self.feature_places: list[list[FeaturePlace]] = []
        self._collect(places)
        self._windows = sorted(
            {(c.place, c.component.window) for c in self._components},
            key=lambda pair: (pair[0], repr(pair[1])),
        )
        self._window_number = {pair: number for number, pair in enumerate(self._windows)}
        self._masked_groups, positions = self._group(
            lambda placed: list(range(placed.component.window.slots)), masked=True
        )
        self._masked_finalizer = self._finalizer(positions)
        self._neutral = {op: np.array(bits[:1], "<i8") for op, bits in NEUTRAL_BITS.items()}
        self._place_of_window = np.array([self._place_column[place] for place, _ in self._windows], np.intp)
        self._lengths = np.array([window.window_ns for _, window in self._windows], np.int64)
        self._hops = np.array([window.hop_ns for _, window in self._windows], np.int64)

    def _collect(
        self, places: Sequence[tuple[int, int, CompactedSchema, Sequence[AggregateFeature]]]
    ) -> None:
        self._place_column = {place: column for column, (place, *_) in enumerate(places)}
        pending: list[tuple[str, int]] = []
        for place, base, schema, features in places:
            numbers: dict[int, int] = {}

            def number_of(
                local: int,
                place: int = place,
                base: int = base,
                schema: CompactedSchema = schema,
                numbers: dict[int, int] = numbers,
            ) -> int:
                if local not in numbers:
                    component = schema.components[local]
                    numbers[local] = len(self._components)
                    head = self._heads.get((place, local), ())
                    self._components.append(PlacedComponent(component, base + component.word, place, head))
                return numbers[local]

            for feature in features:
                assert feature.value is not None
                kind = _kind_of(feature, schema)
                count = feature.value if feature.count is None else feature.count
                pair = (number_of(feature.value), number_of(count))
                pending.append((kind, len(self._features[kind])))
                self._features[kind].append(pair)
        offsets = {
            kind: sum(len(self._features[other]) for other in family[: family.index(kind)])
            for family in (_FLOAT_KINDS, _INT_KINDS)
            for kind in family
        }
        flat = iter([FeaturePlace(kind in _FLOAT_KINDS, offsets[kind] + number) for kind, number in pending])
        self.feature_places = [[next(flat) for _ in features] for *_, features in places]

    @property
    def floats(self) -> int:
        """Number of columns of the float result."""
        return sum(len(self._features[kind]) for kind in _FLOAT_KINDS)

    @property
    def ints(self) -> int:
        """Number of columns of the integer result."""
        return sum(len(self._features[kind]) for kind in _INT_KINDS)

    @property
    def counts(self) -> int:
        """How many of the integer columns, from the first on, are counts: 0 and not null where empty."""
        return len(self._features["count"])

    # --- the two ways ---

    def epoch(self, as_of: Words, time_ns: int) -> Epoch:
        """Prepare `fast` for rows with ``as_of``, shape (places,), asked at ``time_ns``."""
        times = {place: int(as_of[column]) for place, column in self._place_column.items()}
        groups, positions = self._group(
            lambda placed: placed.component.window.live_slots(times[placed.place], time_ns), masked=False
        )
        ends = [window.changes_ns(time_ns) for _, window in self._windows]
        return Epoch(
            as_of.copy(), time_ns, min(ends, default=BEYOND_ALL_TAILS), groups, self._finalizer(positions)
        )

    def fast(self, matrix: Words, epoch: Epoch) -> tuple[Floats, Words]:
        """Merge and finalize rows that all have the epoch's ``as_of``, or are null rows.

        ``matrix`` has shape (requests, words of the vector row). Returns floats of shape (requests,
        `floats`), null as the reserved NaN, and integers of shape (requests, `ints`), null as the smallest
        int64; counts are 0 where nothing was counted.
        """
        return self._finalize(matrix, epoch.groups, epoch.finalizer, None)

    def masked(self, matrix: Words, as_of: Words, time_ns: int) -> tuple[Floats, Words]:
        """As `fast`, for rows of any ``as_of``, shape (requests, places)."""
        starts_now = (time_ns - self._lengths) // self._hops
        starts_then = (as_of.take(self._place_of_window, axis=1) - self._lengths) // self._hops
        dropped = np.maximum(starts_now - starts_then, 0)
        return self._finalize(matrix, self._masked_groups, self._masked_finalizer, dropped)

    # --- merge ---

    def _finalize(
        self, matrix: Words, groups: Iterable[_Group], at: _Finalizer, dropped: Words | None
    ) -> tuple[Floats, Words]:
        float_parts: list[Floats] = []
        int_parts: list[Words] = []
        # By IEEE 754 and without a warning: inf - inf is NaN. Once per batch, for it takes a microsecond.
        with np.errstate(invalid="ignore", over="ignore"):
            for group in groups:
                terms = matrix.take(group.words, axis=1)
                if dropped is not None and group.slot is not None and group.window is not None:
                    live = group.slot[None, :, :] >= dropped.take(group.window, axis=1)[:, None, :]
                    terms = np.where(live, terms, self._neutral[group.op])
                if group.op.is_float:
                    float_parts.append(REDUCTIONS[group.op](terms.view(FLOAT64)))
                else:
                    int_parts.append(REDUCTIONS[group.op](terms))
        floats = _side_by_side(float_parts, len(matrix), FLOAT64)
        ints = _side_by_side(int_parts, len(matrix), INT64)
        return _float_features(floats, ints, at), _int_features(ints, at)

    # --- compile ---

    def _group(
        self, slots_of: Callable[[PlacedComponent], list[int]], *, masked: bool
    ) -> tuple[tuple[_Group, ...], Index]:
        """Group components by operation and number of terms.

        Also returns where each component's merged value comes out.
        """
        members: dict[tuple[Op, int], list[tuple[int, list[int]]]] = {}
        for number, placed in enumerate(self._components):
            slots = slots_of(placed)
            words = [placed.word + slot for slot in slots] + list(placed.heads)
            words = words or [self._constants[placed.component.op]]
            members.setdefault((placed.component.op, len(words)), []).append((number, words))
        groups: list[_Group] = []
        positions = np.zeros(len(self._components), np.intp)
        next_place = {True: 0, False: 0}
        for (op, _), entries in sorted(members.items(), key=lambda item: (item[0][0].value, item[0][1])):
            if op is Op.ADD_F and len(entries) == 1:
                # NumPy adds a single column pairwise and several of them in order. With its double beside it
                # a sum has the same last digit, whichever way it is merged and whatever beside it.
                entries = entries * 2  # noqa: PLW2901
            numbers = [number for number, _ in entries]
            index = np.array([words for _, words in entries], np.intp).T.copy()
            positions[numbers] = np.arange(next_place[op.is_float], next_place[op.is_float] + len(numbers))
            next_place[op.is_float] += len(numbers)
            groups.append(_Group(op, index, *(self._slots_and_windows(numbers) if masked else ())))
        return tuple(groups), positions

    def _slots_and_windows(self, numbers: list[int]) -> tuple[Index, Index]:
        placed = [self._components[number] for number in numbers]
        slots = [_tail_numbers(p.component.window) + [BEYOND_ALL_TAILS] * len(p.heads) for p in placed]
        windows = [self._window_number[(p.place, p.component.window)] for p in placed]
        return np.array(slots, np.int64).T.copy(), np.array(windows, np.intp)

    def _finalizer(self, positions: Index) -> _Finalizer:
        def at(kind: str, which: int) -> Index:
            return positions[np.array([pair[which] for pair in self._features[kind]], np.intp)]

        return _Finalizer(
            sums=at("sum", 0),
            extremes=at("extreme", 0),
            means=at("mean", 0),
            mean_counts=at("mean", 1),
            int_means=at("int_mean", 0),
            int_mean_counts=at("int_mean", 1),
            counts=at("count", 0),
            ints=at("int", 0),
            int_counts=at("int", 1),
        )


def _side_by_side(parts: list[Any], lines: int, dtype: np.dtype[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts, axis=1) if parts else np.empty((lines, 0), dtype)


_FLOAT_KINDS = ("sum", "extreme", "mean", "int_mean")
_INT_KINDS = ("count", "int")
_KINDS = _FLOAT_KINDS + _INT_KINDS


def _kind_of(feature: AggregateFeature, schema: CompactedSchema) -> str:
    assert feature.value is not None
    op = schema.components[feature.value].op
    if feature.spec.function == "mean":
        return "mean" if op is Op.ADD_F else "int_mean"
    if op is Op.COUNT:
        return "count"
    if op is Op.ADD_F:
        return "sum"
    return "extreme" if op.is_float else "int"


def _tail_numbers(window: Window) -> list[int]:
    """Return, slot by slot, after how many dropped tails the slot is no longer live; the core never drops."""
    return [BEYOND_ALL_TAILS] * window.has_core + list(range(window.tails))


def _float_features(floats: Floats, ints: Words, at: _Finalizer) -> Floats:
    parts = []
    if at.sums.size:
        sums = floats.take(at.sums, axis=1)
        np.copyto(sums, NULL_FLOAT64, where=sums.view(INT64) == NEGATIVE_ZERO_BITS)
        parts.append(sums)
    if at.extremes.size:
        extremes = floats.take(at.extremes, axis=1)
        np.copyto(extremes, NULL_FLOAT64, where=np.isnan(extremes))
        parts.append(extremes)
    if at.means.size:
        parts.append(_means(floats.take(at.means, axis=1), ints.take(at.mean_counts, axis=1)))
    if at.int_means.size:
        sums_i = ints.take(at.int_means, axis=1)
        means = _means(sums_i.astype(np.float64), ints.take(at.int_mean_counts, axis=1))
        np.copyto(means, NULL_FLOAT64, where=sums_i == NULL_INT64)
        parts.append(means)
    return cast("Floats", _side_by_side(parts, len(floats), FLOAT64))


def _means(sums: Floats, counts: Words) -> Floats:
    empty = counts == 0
    means: Floats = sums / np.where(empty, 1, counts)
    np.copyto(means, NULL_FLOAT64, where=empty)
    return means


def _int_features(ints: Words, at: _Finalizer) -> Words:
    if not at.ints.size:
        return ints.take(at.counts, axis=1) if at.counts.size else ints[:, :0]
    values = ints.take(at.ints, axis=1)
    np.copyto(values, NULL_INT64, where=ints.take(at.int_counts, axis=1) == 0)
    return np.concatenate([ints.take(at.counts, axis=1), values], axis=1)
