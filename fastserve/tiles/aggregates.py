"""Aggregate features as mergeable components, and the compacted row that stores them.

A component is a few numbers per slot of a window: a column's sum, count, minimum, maximum, moments, last or
first value over the slot. They are the intermediate representation (IR): components of disjoint slots merge
with the component's own operation, and a feature is finalized from one or two merged components. Features
share components: mean needs sum and count, and when the view also asks for the count over the same window
nothing more is stored.

What an empty slot holds is the operation's neutral element (`NEUTRAL_BITS`), chosen so that emptiness
survives the merge for free:

    operation        neutral     why
    ADD_F            -0.0        x + -0.0 is x for every x, and -0.0 comes out only when every term was -0.0.
                                 A sum that is zero is stored as 0.0, so an empty one is told from it without
                                 a count.
    ADD_I            0           the count beside it tells empty from zero
    COUNT            0           an empty window's count is 0
    MIN_F, MAX_F     null NaN    np.fmin and np.fmax pass over NaN
    MIN_I            2**63-1     the count beside it tells empty from extreme
    MAX_I            -2**63
    MOMENTS          0, null     (count, mean, sum of squared deviations); a count of 0 takes part in nothing
                     NaN, 0
    LAST_F, LAST_I   -2**63      (time, value): before all times
                     twice
    FIRST_F, FIRST_I 2**63-1     after all times
                     twice

The value of LAST_F and FIRST_F is a float's *order key*: an int64 that sorts as the floats do, NaN above
all (`operations.order_keys`). So both pick by comparing integers, the same whatever the order of arrival.

What doesn't fit into words (texts, lists of values, sketches, values by secondary key) is a `WideComponent`:
bytes per slot, merged by `tiles.wide`.

Invariants
1. A component's operation is associative and commutative over slots, with the neutral element above (floats:
   up to rounding).
2. Integer sums are exact; one that leaves int64 is never wrapped silently (`merge` checks).
3. The schema of a view is a function of its definition alone, and what it made of a definition once it makes
   for ever: names of components are written into rows' schema ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from fastserve.sdk.functions import Parameter
from fastserve.sdk.types import Bytes, DataType, Float32, Float64, Int64, String, Timestamp
from fastserve.tiles.layout import NULL_FLOAT64_BITS, NULL_INT64, Column, RowLayout, make_layout
from fastserve.tiles.windows import Window

Params = tuple[tuple[str, Parameter], ...]

NEGATIVE_ZERO_BITS = NULL_INT64
"""The bits of -0.0 are those of the smallest int64."""
INT64_MAX = 2**63 - 1


class Op(Enum):
    """What merges the numbers of a component."""

    ADD_F = "sum"
    ADD_I = "isum"
    COUNT = "count"
    MIN_F = "min"
    MAX_F = "max"
    MIN_I = "imin"
    MAX_I = "imax"
    MOMENTS = "moments"
    LAST_F = "last"
    LAST_I = "ilast"
    FIRST_F = "first"
    FIRST_I = "ifirst"

    @property
    def is_float(self) -> bool:
        """Whether the component's words are float64 (else int64)."""
        return self in FLOAT_OPS

    @property
    def parts(self) -> int:
        """How many words each slot has."""
        return len(NEUTRAL_BITS[self])


FLOAT_OPS = frozenset({Op.ADD_F, Op.MIN_F, Op.MAX_F, Op.MOMENTS})
LAST_OPS = frozenset({Op.LAST_F, Op.LAST_I})
FIRST_OPS = frozenset({Op.FIRST_F, Op.FIRST_I})

NEUTRAL_BITS: dict[Op, tuple[int, ...]] = {
    Op.ADD_F: (NEGATIVE_ZERO_BITS,),
    Op.ADD_I: (0,),
    Op.COUNT: (0,),
    Op.MIN_F: (NULL_FLOAT64_BITS,),
    Op.MAX_F: (NULL_FLOAT64_BITS,),
    Op.MIN_I: (INT64_MAX,),
    Op.MAX_I: (NULL_INT64,),
    Op.MOMENTS: (0, NULL_FLOAT64_BITS, 0),
    Op.LAST_F: (NULL_INT64, NULL_INT64),
    Op.LAST_I: (NULL_INT64, NULL_INT64),
    Op.FIRST_F: (INT64_MAX, INT64_MAX),
    Op.FIRST_I: (INT64_MAX, INT64_MAX),
}
"""What an empty slot holds, part by part."""
PART_NAMES = {
    Op.MOMENTS: (".count", ".mean", ".squares"),
    **dict.fromkeys((*LAST_OPS, *FIRST_OPS), (".time", ".value")),
}


@dataclass(frozen=True, slots=True)
class Component:
    """An operation over one input column and window.

    Part p of slot s stands in word ``word + p * window.slots + s``.
    """

    op: Op
    column: str
    window: Window
    word: int

    @property
    def words(self) -> int:
        """How many words of a row it takes."""
        return self.op.parts * self.window.slots

    @property
    def neutral_bits(self) -> list[int]:
        """Return its words where every slot is empty."""
        return [bits for bits in NEUTRAL_BITS[self.op] for _ in range(self.window.slots)]


@dataclass(frozen=True, slots=True)
class WideComponent:
    """A function's state over one input column and window that is bytes: a column of bytes for each slot.

    ``params`` are those that decide what the state is (`state_params`). With a ``secondary_key`` (its name
    and type) the state holds one such state for each value of the key.
    """

    function: str
    params: Params
    column: str
    input_type: DataType
    secondary_key: tuple[str, DataType] | None
    window: Window
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class AggregateSpec:
    """One aggregate as the definition asks for it: names, types, window.

    ``output_type`` is the feature's. ``series`` are the windows of a series, oldest first; ``window`` is then
    the first of them. ``secondary_key`` is the column by which values are told apart, ``key_type`` its type.
    """

    name: str
    function: str
    column: str
    input_type: DataType
    output_type: DataType
    window: Window
    params: Params = ()
    secondary_key: str | None = None
    key_type: DataType | None = None
    series: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True)
class AggregateFeature:
    """A feature and what it is finalized from: exactly one of ``value``, ``wide`` and ``elements``.

    ``value`` is a component by its index, with a ``count`` beside it, which is None where the value itself
    tells that nothing was there. ``wide`` is a wide component by its index. ``elements`` are the features,
    one for each window, that make up a series.
    """

    spec: AggregateSpec
    value: int | None
    count: int | None
    wide: int | None = None
    elements: tuple[AggregateFeature, ...] = ()


@dataclass(frozen=True, slots=True)
class CompactedSchema:
    """All that a view's compacted rows hold and how its features come out of them."""

    layout: RowLayout
    components: tuple[Component, ...]
    features: tuple[AggregateFeature, ...]
    horizon_ns: int
    wide: tuple[WideComponent, ...] = field(default=())

    @property
    def windows(self) -> frozenset[Window]:
        """All windows of all components."""
        return frozenset([*(c.window for c in self.components), *(w.window for w in self.wide)])


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
    if function in {"var_pop", "var_samp", "stddev_pop", "stddev_samp"}:
        return Op.MOMENTS, None
    real = input_type in (Float64, Float32)
    if function == "last":
        return (Op.LAST_F if real else Op.LAST_I), None
    if function == "first":
        return (Op.FIRST_F if real else Op.FIRST_I), None
    raise AssertionError(function)


_ALWAYS_WIDE = frozenset({"last_distinct", "first_distinct", "approx_count_distinct", "approx_percentile"})


def is_wide(spec: AggregateSpec) -> bool:
    """Whether the aggregate's state is bytes and not a few numbers."""
    return (
        spec.secondary_key is not None
        or spec.function in _ALWAYS_WIDE
        or (spec.function in {"last", "first"} and bool(spec.params))
        or (spec.function in {"last", "first", "min", "max"} and spec.input_type == String)
    )


def state_params(function: str, params: Params) -> Params:
    """Return the parameters that decide a wide function's state: percentiles of a column share a sketch."""
    return tuple(pair for pair in params if function != "approx_percentile" or pair[0] != "percentile")


def make_schema(specs: Sequence[AggregateSpec], horizon_ns: int) -> CompactedSchema:
    """Lay out the compacted row of a view with these aggregates; equal components are shared."""
    maker = _SchemaMaker()
    features = tuple(maker.feature(spec) for spec in specs)
    layout = make_layout(maker.columns())
    components: list[Component] = []
    first = 0
    for op, column, window in maker.places:
        component = Component(op, column, window, layout.columns[first].word)
        components.append(component)
        first += component.words
    wide: list[WideComponent] = []
    for part in maker.wide:
        wide.append(replace(part, columns=layout.columns[first : first + part.window.slots]))
        first += part.window.slots
    return CompactedSchema(layout, tuple(components), features, horizon_ns, tuple(wide))


class _SchemaMaker:
    """Collects the different components of a view's features, narrow and wide."""

    def __init__(self) -> None:
        self.places: dict[tuple[Op, str, Window], int] = {}
        self.wide: dict[WideComponent, int] = {}

    def feature(self, spec: AggregateSpec) -> AggregateFeature:
        """Return the feature, its components added to those known."""
        if spec.series:
            single = [replace(spec, window=window, series=()) for window in spec.series]
            return AggregateFeature(spec, None, None, elements=tuple(map(self.feature, single)))
        if is_wide(spec):
            return AggregateFeature(spec, None, None, wide=self._wide(spec))
        value_op, count_op = components_of(spec.function, spec.input_type)
        value = self._place(value_op, spec)
        return AggregateFeature(spec, value, None if count_op is None else self._place(count_op, spec))

    def _place(self, op: Op, spec: AggregateSpec) -> int:
        return self.places.setdefault((op, spec.column, spec.window), len(self.places))

    def _wide(self, spec: AggregateSpec) -> int:
        key = None
        if spec.secondary_key is not None and spec.key_type is not None:
            key = (spec.secondary_key, spec.key_type)
        params = state_params(spec.function, spec.params)
        part = WideComponent(spec.function, params, spec.column, spec.input_type, key, spec.window, ())
        return self.wide.setdefault(part, len(self.wide))

    def columns(self) -> list[tuple[str, DataType]]:
        """Return the columns of the row's layout: narrow components first, then wide ones."""
        columns: list[tuple[str, DataType]] = []
        for op, column, window in self.places:
            dtype = Float64 if op.is_float else Int64
            for part in PART_NAMES.get(op, ("",)):
                prefix = f"{column}:{op.value}{part}:{window.text}"
                columns += [(f"{prefix}:{slot}", dtype) for slot in window.slot_names]
        for wide in self.wide:
            prefix = f"{wide.column}:{wide_name(wide)}:{wide.window.text}"
            columns += [(f"{prefix}:{slot}", Bytes) for slot in wide.window.slot_names]
        return columns


def wide_name(wide: WideComponent) -> str:
    """Return what tells a wide component's state from others over the column: ``last(n=3)/int64``.

    The column's type and the secondary key are part of it: bytes don't tell of which type they are.
    """
    params = ",".join(f"{name}={value}" for name, value in wide.params)
    key = "" if wide.secondary_key is None else f"/by {wide.secondary_key[0]} {wide.secondary_key[1]}"
    return f"{wide.function}({params})/{wide.input_type}{key}"
