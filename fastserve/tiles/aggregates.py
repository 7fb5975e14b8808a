"""Aggregate features as mergeable components, and the compacted row that stores them.

A component is one number per slot of a window: a column's sum, count, minimum or maximum over the slot. It is
the intermediate representation (IR): components of disjoint slots merge with the component's own operation,
and a feature is finalized from one or two merged components. Features share components: mean needs sum and
count, and when the view also asks for the count over the same window nothing more is stored.

What an empty slot holds is the operation's neutral element, chosen so that emptiness survives the merge for
free:

    operation  neutral   why
    ADD_F      -0.0      x + -0.0 is x for every x, and -0.0 comes out only when every term was -0.0. A sum
                         that is zero is stored as 0.0, so an empty one is told from it without a count.
    ADD_I      0         the count beside it tells empty from zero
    COUNT      0         an empty window's count is 0
    MIN_F      null NaN  np.fmin and np.fmax pass over NaN
    MAX_F      null NaN
    MIN_I      2**63-1   the count beside it tells empty from extreme
    MAX_I      -2**63

Invariants
1. A component's operation is associative and commutative over slots, with the neutral element above (floats:
   up to rounding).
2. Integer sums are exact; one that leaves int64 is never wrapped silently (`merge` checks).
3. The schema of a view is a function of its definition alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from fastserve.sdk.types import DataType, Float64, Int64, Timestamp
from fastserve.tiles.layout import RowLayout, make_layout
from fastserve.tiles.windows import Window


class Op(Enum):
    """What merges two numbers of a component."""

    ADD_F = "sum"
    ADD_I = "isum"
    COUNT = "count"
    MIN_F = "min"
    MAX_F = "max"
    MIN_I = "imin"
    MAX_I = "imax"

    @property
    def is_float(self) -> bool:
        """Whether the component's numbers are float64 (else int64)."""
        return self in FLOAT_OPS


FLOAT_OPS = frozenset({Op.ADD_F, Op.MIN_F, Op.MAX_F})


@dataclass(frozen=True, slots=True)
class Component:
    """An operation over one input column and window: ``window.slots`` numbers from word ``word`` on."""

    op: Op
    column: str
    window: Window
    word: int


@dataclass(frozen=True, slots=True)
class AggregateSpec:
    """One aggregate as the definition asks for it: names, types, window."""

    name: str
    function: str
    column: str
    input_type: DataType
    output_type: DataType
    window: Window


@dataclass(frozen=True, slots=True)
class AggregateFeature:
    """A feature and the components (by index) that it is finalized from.

    ``count`` is None where the value itself tells that nothing was there.
    """

    spec: AggregateSpec
    value: int
    count: int | None


@dataclass(frozen=True, slots=True)
class CompactedSchema:
    """All that a view's compacted rows hold and how its features come out of them."""

    layout: RowLayout
    components: tuple[Component, ...]
    features: tuple[AggregateFeature, ...]
    horizon_ns: int


def components_of(function: str, input_type: DataType) -> tuple[Op, Op | None]:
    """Return the operations that a function is finalized from: the value's, and the count's where needed."""
    integral = input_type in (Int64, Timestamp)
    if function == "count":
        return Op.COUNT, None
    if function == "sum":
        return (Op.ADD_I, Op.COUNT) if integral else (Op.ADD_F, None)
    if function == "mean":
        return (Op.ADD_I if integral else Op.ADD_F), Op.COUNT
    if function == "min":
        return (Op.MIN_I, Op.COUNT) if integral else (Op.MIN_F, None)
    if function == "max":
        return (Op.MAX_I, Op.COUNT) if integral else (Op.MAX_F, None)
    raise AssertionError(function)


def make_schema(specs: Sequence[AggregateSpec], horizon_ns: int) -> CompactedSchema:
    """Lay out the compacted row of a view with these aggregates; equal components are shared."""
    places: dict[tuple[Op, str, Window], int] = {}
    features: list[AggregateFeature] = []
    for spec in specs:
        value_op, count_op = components_of(spec.function, spec.input_type)
        value = places.setdefault((value_op, spec.column, spec.window), len(places))
        count = (
            None if count_op is None else places.setdefault((count_op, spec.column, spec.window), len(places))
        )
        features.append(AggregateFeature(spec, value, count))
    layout = make_layout(
        [
            (
                f"{column}:{op.value}:{window.window_ns}:{window.hop_ns}:{slot}",
                Float64 if op.is_float else Int64,
            )
            for op, column, window in places
            for slot in window.slot_names
        ]
    )
    components: list[Component] = []
    first = 0
    for op, column, window in places:
        components.append(Component(op, column, window, layout.columns[first].word))
        first += window.slots
    return CompactedSchema(layout, tuple(components), tuple(features), horizon_ns)
