"""From merged components to feature values: one function per kind of feature, for all rows of a batch.

A *kind* is how a feature is made of its components. Merged components stand in two arrays, floats and
integers; a feature says in which columns its components came out (`Sources`). Null is in band: the reserved
NaN in floats, the smallest int64 in integers.

    kind          value
    sum           the sum; null where nothing was added (-0.0)
    extreme       the minimum or maximum; null where there was none (NaN)
    mean          sum / count; null where nothing was counted
    int_mean      the exact sum, as a float, / count; null also where the sum left int64
    pick_float    the float of an order key
    var_…         M2 / n, or M2 / (n - 1) and null of a single value; stddev_… its square root
    count         the count, 0 where nothing was counted
    int           the integer sum or extreme; null where nothing was counted
    pick_int      the integer picked

Invariants
1. A value's kind decides whether it comes out as a float or as an integer; counts are the first integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from fastserve.tiles.aggregates import (
    FIRST_OPS,
    LAST_OPS,
    NEGATIVE_ZERO_BITS,
    AggregateFeature,
    CompactedSchema,
    Op,
)
from fastserve.tiles.layout import NULL_INT64
from fastserve.tiles.operations import FLOAT64, INT64, NULL_FLOAT64, Floats, Index, Words, floats_of_keys

Step = Callable[[Floats, Words, Index, Index, Index], Any]
"""Takes merged floats and integers, and the columns of values, of second parts (M2) and of counts."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The columns in which a feature's components came out: its value, the value's second part, its count."""

    value: int
    second: int
    count: int


def _sums(floats: Floats, _ints: Words, value: Index, _second: Index, _count: Index) -> Floats:
    sums = floats.take(value, axis=1)
    np.copyto(sums, NULL_FLOAT64, where=sums.view(INT64) == NEGATIVE_ZERO_BITS)
    return sums


def _extremes(floats: Floats, _ints: Words, value: Index, _second: Index, _count: Index) -> Floats:
    extremes = floats.take(value, axis=1)
    np.copyto(extremes, NULL_FLOAT64, where=np.isnan(extremes))
    return extremes


def _means(floats: Floats, ints: Words, value: Index, _second: Index, count: Index) -> Floats:
    return _divided(floats.take(value, axis=1), ints.take(count, axis=1))


def _int_means(_floats: Floats, ints: Words, value: Index, _second: Index, count: Index) -> Floats:
    sums = ints.take(value, axis=1)
    means = _divided(sums.astype(np.float64), ints.take(count, axis=1))
    np.copyto(means, NULL_FLOAT64, where=sums == NULL_INT64)
    return means


def _divided(sums: Floats, counts: Words | Floats) -> Floats:
    empty = counts <= 0
    means: Floats = sums / np.where(empty, 1, counts)
    np.copyto(means, NULL_FLOAT64, where=empty)
    return means


def _picked_floats(_floats: Floats, ints: Words, value: Index, _second: Index, _count: Index) -> Floats:
    return floats_of_keys(ints.take(value, axis=1))


def _spread(lost: int, *, root: bool) -> Step:
    def spread(floats: Floats, _ints: Words, value: Index, second: Index, _count: Index) -> Floats:
        variances = _divided(floats.take(second, axis=1), floats.take(value, axis=1) - lost)
        if not root:
            return variances
        null = variances.view(INT64) == NULL_FLOAT64.view(INT64)
        roots: Floats = np.sqrt(variances)
        np.copyto(roots, NULL_FLOAT64, where=null)
        return roots

    return spread


def _counts(_floats: Floats, ints: Words, value: Index, _second: Index, _count: Index) -> Words:
    return ints.take(value, axis=1)


def _ints(_floats: Floats, ints: Words, value: Index, _second: Index, count: Index) -> Words:
    values = ints.take(value, axis=1)
    np.copyto(values, NULL_INT64, where=ints.take(count, axis=1) == 0)
    return values


FLOAT_KINDS: dict[str, Step] = {
    "sum": _sums,
    "extreme": _extremes,
    "mean": _means,
    "int_mean": _int_means,
    "pick_float": _picked_floats,
    "var_pop": _spread(0, root=False),
    "var_samp": _spread(1, root=False),
    "stddev_pop": _spread(0, root=True),
    "stddev_samp": _spread(1, root=True),
}
INT_KINDS: dict[str, Step] = {"count": _counts, "int": _ints, "pick_int": _counts}
KINDS = (*FLOAT_KINDS, *INT_KINDS)


def kind_of(feature: AggregateFeature, schema: CompactedSchema) -> str:
    """Return how a narrow feature of one window is made of its components."""
    op = schema.components[feature.value or 0].op
    if op is Op.MOMENTS:
        return feature.spec.function
    if op in LAST_OPS or op in FIRST_OPS:
        return "pick_float" if op in (Op.LAST_F, Op.FIRST_F) else "pick_int"
    if feature.spec.function == "mean":
        return "mean" if op is Op.ADD_F else "int_mean"
    if op is Op.COUNT:
        return "count"
    if op is Op.ADD_F:
        return "sum"
    return "extreme" if op.is_float else "int"


@dataclass(frozen=True, slots=True)
class Finalizer:
    """Which columns each kind's features are made of; kinds without features are left out."""

    float_steps: tuple[tuple[Step, Index, Index, Index], ...]
    int_steps: tuple[tuple[Step, Index, Index, Index], ...]

    def values(self, floats: Floats, ints: Words) -> tuple[Floats, Words]:
        """Return the values of merged components, the features of a kind side by side, kinds in order."""
        return (
            side_by_side([step(floats, ints, *at) for step, *at in self.float_steps], len(floats), FLOAT64),
            side_by_side([step(floats, ints, *at) for step, *at in self.int_steps], len(ints), INT64),
        )


def make_finalizer(sources: Mapping[str, Sequence[Sources]]) -> Finalizer:
    """Return the finalizer of features given kind by kind."""

    def steps(kinds: Mapping[str, Step]) -> tuple[tuple[Step, Index, Index, Index], ...]:
        return tuple(
            (
                step,
                np.array([each.value for each in sources[kind]], np.intp),
                np.array([each.second for each in sources[kind]], np.intp),
                np.array([each.count for each in sources[kind]], np.intp),
            )
            for kind, step in kinds.items()
            if sources.get(kind)
        )

    return Finalizer(steps(FLOAT_KINDS), steps(INT_KINDS))


def side_by_side(parts: Sequence[Any], lines: int, dtype: np.dtype[Any]) -> Any:
    """Return the columns of all parts; none give an array without columns."""
    if len(parts) == 1:
        return parts[0]
    return cast("Any", np.concatenate(parts, axis=1) if parts else np.empty((lines, 0), dtype))
