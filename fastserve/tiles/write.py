"""Events of many entity keys to the numbers of their compacted rows.

Takes events that are sorted by entity and, within one, by time, as NumPy arrays: whoever read them
(DuckDB, Spark, a stream) is not known here. A chunk of events gives a matrix of row words, one row per
entity; an entity whose events were cut by the chunk's end is put together with `merge_words`, so that no
entity has to fit into memory. What is bytes in rows, `wide_write` makes.

What an input value does, function by function:

    input     count   sum, mean               min, max          var_…, stddev_…     last, first
    null      no      no                      no                no                  no
    NaN       yes     the result is NaN       passed over; all  the result is NaN   a value, above all others
                                              NaN is as if all
                                              were null
    infinity  yes     IEEE 754 (inf - inf is  as any number     the result is NaN   as any number
                      NaN)
    -0.0      yes     a sum of zero is        as 0.0            as 0.0              as any number, below 0.0
                      stored 0.0

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
2. Only events within a window's slots count, all of them before as_of, whatever else the chunk holds.
3. A float sum of zero is +0.0, a NaN sum 0x7FF8_0000_0000_0000, an empty minimum the reserved null: nothing
   stored is mistaken for a neutral element. An extreme that is zero is +0.0, too: of both zeros NumPy takes
   any, so that the order of merges would show.
4. Values that are all the same have squared deviations of exactly 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastserve.tiles.aggregates import INT64_MAX, CompactedSchema, Component, Op
from fastserve.tiles.layout import NULL_FLOAT64_BITS, NULL_INT64
from fastserve.tiles.operations import (
    INT64,
    NAN_BITS,
    Floats,
    Index,
    Words,
    order_keys,
    over_axis,
    over_segments,
    pick,
    reduce_parts,
    stored_bits,
)
from fastserve.tiles.rows import RowBuilder
from fastserve.tiles.windows import Window

Bools = npt.NDArray[np.bool_]

LOW_BITS = np.int64(0xFFFF_FFFF)


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
    return min(window.start_ns(as_of_ns) for window in schema.windows)


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
        for part, numbers in enumerate(_reduce(component.op, column, events.times_ns, found)):
            first = component.word + part * component.window.slots
            words[found.entities, first + found.slots] = numbers
    return words


def _find_runs(window: Window, column: EventColumn, times_ns: Words, owners: Index, as_of_ns: int) -> _Runs:
    bounds = window.slot_bounds_ns(as_of_ns)
    in_time_order = np.array(window.slots_in_time_order, np.intp)
    ends = np.array([bounds[slot][1] for slot in in_time_order], np.int64)
    start_ns, end_ns = window.bounds_ns(as_of_ns)
    counts = (times_ns >= start_ns) & (times_ns < end_ns)
    if column.valid is not None:
        counts &= column.valid
    events = np.flatnonzero(counts)
    # How many slots end at or before the event: slots without length are passed over, as they hold nothing.
    order = np.searchsorted(ends, times_ns[events], side="right")
    runs = owners[events] * np.intp(window.slots) + order
    starts = np.flatnonzero(np.diff(runs, prepend=-1))
    firsts = runs[starts]
    return _Runs(events, starts, firsts // window.slots, in_time_order[firsts % window.slots])


def _reduce(op: Op, column: EventColumn, times_ns: Words, runs: _Runs) -> list[Words]:
    """Return, part by part, one number per run, floats as their bits."""
    if op is Op.COUNT or column.values is None or not len(runs.starts):
        return [runs.lengths] * op.parts
    values = column.values[runs.events]
    if op is Op.MOMENTS:
        return _moments(values.astype(np.float64, copy=False), runs)
    if op in (Op.LAST_F, Op.FIRST_F):
        return _picks(op, times_ns, order_keys(values.astype(np.float64, copy=False)), runs)
    if op in (Op.LAST_I, Op.FIRST_I):
        return _picks(op, times_ns, values.astype(np.int64, copy=False), runs)
    if op.is_float:
        return [_reduce_floats(op, values.astype(np.float64, copy=False), runs.starts)]
    integers = values.astype(np.int64, copy=False)
    if op is Op.ADD_I:
        return [_sum_exactly(integers, runs)]
    return [(np.minimum if op is Op.MIN_I else np.maximum).reduceat(integers, runs.starts)]


def _moments(values: Floats, runs: _Runs) -> list[Words]:
    """Return count, mean and squared deviations, in two passes and as distances from each run's first."""
    counts = runs.lengths.astype(np.float64)
    firsts = values[runs.starts]
    with np.errstate(invalid="ignore", over="ignore"):
        apart = values - np.repeat(firsts, runs.lengths)
        mean_apart = np.add.reduceat(apart, runs.starts) / counts
        apart -= np.repeat(mean_apart, runs.lengths)
        apart *= apart
        squares = np.add.reduceat(apart, runs.starts)
        means = firsts + mean_apart
    return [counts.view(INT64), stored_bits(means, NAN_BITS), stored_bits(squares, NAN_BITS)]


def _picks(op: Op, times_ns: Words, values: Words, runs: _Runs) -> list[Words]:
    over = over_segments(runs.starts, len(values))
    return list(pick(op, times_ns[runs.events], values, over))


def _reduce_floats(op: Op, values: Floats, starts: Index) -> Words:
    if op is not Op.ADD_F:
        extremes = (np.fmin if op is Op.MIN_F else np.fmax).reduceat(values, starts)
        return stored_bits(extremes + 0.0, NULL_FLOAT64_BITS)  # -0.0 + 0.0 is 0.0: see invariant 3
    with np.errstate(invalid="ignore", over="ignore"):
        sums = np.add.reduceat(values, starts)
    return stored_bits(sums + 0.0, NAN_BITS)  # likewise


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
    over = over_axis(2)
    for component in schema.components:
        pairs = zip(_parts(left, component), _parts(right, component), strict=True)
        numbers = reduce_parts(component.op, [np.stack(pair, axis=1) for pair in pairs], over)
        for place, part in zip(_parts(merged, component), numbers, strict=True):
            place[:] = part
    return merged


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
    return words[:, component.word : component.word + component.words]


def _parts(words: Words, component: Component) -> list[Words]:
    """Return views of a component's words, part by part, shape (rows, slots)."""
    slots = component.window.slots
    first = component.word
    return [words[:, first + part * slots : first + (part + 1) * slots] for part in range(component.op.parts)]
