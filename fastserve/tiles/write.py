"""Events of many entity keys to the numbers of their compacted rows.

Takes events that are sorted by entity and, within one, by time, as NumPy arrays: whoever read them
(DuckDB, Spark, a stream) is not known here. A chunk of events gives a matrix of row words, one row per
entity; an entity whose events were cut by the chunk's end is put together with `merge_words`, so that no
entity has to fit into memory.

What an input value does, function by function:

    input     count   sum, mean                     min, max
    null      no      no                            no
    NaN       yes     the result is NaN             passed over; all NaN is as if all were null
    infinity  yes     IEEE 754 (inf - inf is NaN)   as any number
    -0.0      yes     a sum of zero is stored 0.0   as any number

An int64 sum that leaves the range within one slot is never wrapped: the slot is *spoilt* (it holds
`NULL_INT64`, the smallest int64), features over it are null, and `spoilt_rows` tells whom it befell, for the
job's report. Input values of -2**63 are the reader's to refuse: they can't be told from null once they are a
minimum.

Runs, not segments, are reduced: the events of one slot that hold a value stand together, and only slots with
such events are handed to ``reduceat``, which gives the next segment's value for an empty one. All other
slots keep the neutral element.

Invariants
1. ``merge_words`` of the words of two chunks gives the words of both chunks' events (floats: up to
   rounding).
2. Only events in [start of the window, as_of) count, whatever else the chunk holds.
3. A float sum of zero is +0.0, a NaN sum 0x7FF8_0000_0000_0000, an empty minimum the reserved null: nothing
   stored is mistaken for a neutral element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastserve.tiles.aggregates import CompactedSchema, Component, Op
from fastserve.tiles.layout import NULL_FLOAT64_BITS, NULL_INT64
from fastserve.tiles.rows import RowBuilder
from fastserve.tiles.windows import Window

Words = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Index = npt.NDArray[np.intp]

NAN_BITS = 0x7FF8_0000_0000_0000
"""How a NaN is stored; the reserved null has another payload."""
LOW_BITS = np.int64(0xFFFF_FFFF)
INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class EventColumn:
    """One input column of a chunk; ``valid`` is true where there is a value (None: everywhere).

    ``values`` is float64 or int64 (timestamps as nanoseconds); None does where values are only counted.
    """

    values: npt.NDArray[Any] | None
    valid: Bools | None = None


@dataclass(frozen=True, slots=True)
class Events:
    """A chunk: entity e has the events ``starts[e]`` to ``starts[e + 1]``, ascending by ``times_ns``."""

    starts: Index
    times_ns: Words
    columns: Mapping[str, EventColumn]

    @property
    def entities(self) -> int:
        """How many entities have events in the chunk."""
        return len(self.starts) - 1


@dataclass(frozen=True, slots=True)
class _Runs:
    """The events of one (window, column) that count, in runs: one for each entity and slot that has any."""

    events: Index
    starts: Index
    entities: Index
    slots: Index

    @property
    def lengths(self) -> Words:
        return np.diff(self.starts, append=len(self.events)).astype(np.int64)


def earliest_ns(schema: CompactedSchema, as_of_ns: int) -> int:
    """Return the time before which no event counts for rows written at ``as_of_ns``."""
    return min(component.window.start_ns(as_of_ns) for component in schema.components)


def neutral_words(schema: CompactedSchema, count: int) -> Words:
    """Return words of shape (count, words of the layout), all slots empty and the header zero."""
    row = np.zeros(schema.layout.fixed_words, "<i8")
    for component in schema.components:
        row[component.word : component.word + component.words] = component.neutral_bits
    return np.tile(row, (count, 1))


def tile_events(schema: CompactedSchema, events: Events, as_of_ns: int) -> Words:
    """Return each entity's row, shape (entities, words of the layout), floats as their bits."""
    words = neutral_words(schema, events.entities)
    runs: dict[tuple[Window, str], _Runs] = {}
    owners = np.repeat(np.arange(events.entities), np.diff(events.starts))
    for component in schema.components:
        key = (component.window, component.column)
        column = events.columns[component.column]
        if key not in runs:
            runs[key] = _find_runs(component.window, column, events.times_ns, owners, as_of_ns)
        found = runs[key]
        words[found.entities, component.word + found.slots] = _reduce(component.op, column, found)
    return words


def _find_runs(window: Window, column: EventColumn, times_ns: Words, owners: Index, as_of_ns: int) -> _Runs:
    bounds = window.slot_bounds_ns(as_of_ns)
    in_time_order = bounds[window.has_core :] + bounds[: window.has_core]
    ends = np.array([end for _, end in in_time_order], np.int64)
    counts = (times_ns >= window.start_ns(as_of_ns)) & (times_ns < as_of_ns)
    if column.valid is not None:
        counts &= column.valid
    events = np.flatnonzero(counts)
    # How many slots end at or before the event: slots without length are passed over, as they hold nothing.
    order = np.searchsorted(ends, times_ns[events], side="right")
    runs = owners[events] * np.intp(window.slots) + order
    starts = np.flatnonzero(np.diff(runs, prepend=-1))
    firsts = runs[starts]
    slots = firsts % window.slots
    if window.has_core:
        slots = (slots + 1) % window.slots  # the core is last in time and first in the row
    return _Runs(events, starts, firsts // window.slots, slots)


def _reduce(op: Op, column: EventColumn, runs: _Runs) -> Words:
    """Return one number per run, floats as their bits."""
    if op is Op.COUNT or column.values is None or not len(runs.starts):
        return runs.lengths
    values = column.values[runs.events]
    if op.is_float:
        return _reduce_floats(op, values.astype(np.float64, copy=False), runs.starts)
    integers = values.astype(np.int64, copy=False)
    if op is Op.ADD_I:
        return _sum_exactly(integers, runs)
    return (np.minimum if op is Op.MIN_I else np.maximum).reduceat(integers, runs.starts)


def _reduce_floats(op: Op, values: npt.NDArray[np.float64], starts: Index) -> Words:
    if op is not Op.ADD_F:
        extremes = (np.fmin if op is Op.MIN_F else np.fmax).reduceat(values, starts)
        return _bits_with(extremes, NULL_FLOAT64_BITS)
    with np.errstate(invalid="ignore", over="ignore"):
        sums = np.add.reduceat(values, starts)
    return _bits_with(sums + 0.0, NAN_BITS)  # -0.0 + 0.0 is 0.0


def _bits_with(values: npt.NDArray[np.float64], nan_bits: int) -> Words:
    bits = values.view("<i8").copy()
    bits[np.isnan(values)] = nan_bits
    return bits


def _sum_exactly(values: Words, runs: _Runs) -> Words:
    longest = int(runs.lengths.max())
    if max(int(values.max()), -int(values.min())) * longest <= INT64_MAX:
        sums: Words = np.add.reduceat(values, runs.starts)
        return sums
    # In halves of 32 bits, which 2**31 events can't overflow.
    high = np.add.reduceat(values >> 32, runs.starts)
    low = np.add.reduceat(values & LOW_BITS, runs.starts)
    high += low >> 32
    return np.where(_fits_int32(high), (high << 32) | (low & LOW_BITS), NULL_INT64)


def _fits_int32(values: Words) -> Bools:
    result: Bools = (values >= -(2**31)) & (values < 2**31)
    return result


def merge_words(schema: CompactedSchema, left: Words, right: Words) -> Words:
    """Return the words of rows that hold the events of both, which were tiled for one ``as_of``."""
    merged = left.copy()
    for component in schema.components:
        place = slice(component.word, component.word + component.window.slots)
        merged[:, place] = _merge(component.op, left[:, place], right[:, place])
    return merged


def _merge(op: Op, left: Words, right: Words) -> Words:
    if op.is_float:
        terms = (np.ascontiguousarray(part).view("<f8") for part in (left, right))
        return _merge_floats(op, *terms)
    if op is Op.COUNT:
        return left + right
    if op is not Op.ADD_I:
        return (np.minimum if op is Op.MIN_I else np.maximum)(left, right)
    total = left + right  # wraps; the sign then differs from both terms'
    wrapped = ((left ^ total) & (right ^ total)) < 0
    spoilt = wrapped | (left == NULL_INT64) | (right == NULL_INT64)
    return np.where(spoilt, NULL_INT64, total)


def _merge_floats(op: Op, left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> Words:
    if op is Op.ADD_F:
        with np.errstate(invalid="ignore", over="ignore"):
            return _bits_with(left + right, NAN_BITS)
    return _bits_with((np.fmin if op is Op.MIN_F else np.fmax)(left, right), NULL_FLOAT64_BITS)


def spoilt_rows(schema: CompactedSchema, words: Words) -> Index:
    """Return the numbers of rows that hold an int64 sum which left the range."""
    spoilt = np.zeros(len(words), np.bool_)
    for component in schema.components:
        if component.op is Op.ADD_I:
            spoilt |= (_numbers(words, component) == NULL_INT64).any(axis=1)
    return np.flatnonzero(spoilt)


def encode_words(
    schema: CompactedSchema, words: Words, as_of_ns: int, wide: Sequence[Sequence[bytes]] = ()
) -> list[bytes]:
    """Return the compacted rows of ``words``, in order. ``wide`` are their columns of bytes, if any."""
    builder = RowBuilder(schema.layout, len(words))
    builder.set_effective_ns(as_of_ns)
    for component in schema.components:
        numbers = np.ascontiguousarray(_numbers(words, component))
        builder.set_words(component.word, numbers.view("<f8") if component.op.is_float else numbers)
    for column, irs in zip(schema.layout.bytes_columns, wide, strict=bool(wide)):
        builder.set_bytes(column.name, irs)
    return builder.build()


def _numbers(words: Words, component: Component) -> Words:
    return words[:, component.word : component.word + component.window.slots]
