"""A class of places: those whose components are alike in kind and number, reduced together by NumPy.

A batch costs a few NumPy calls for each class, however many lines, views, windows and tiles it has. The tiles
are spread out to an array of shape (most tiles of a run, columns, layers, runs), filled up with an empty
tile, because ``add.reduce`` over that takes 0.3 ns a number and ``add.reduceat`` over runs 2.8
(`perf/micro/merge.py`). A *layer* are the tiles of one window, or of all windows that take every tile, as
most do. Tiles are merged from the newest on, so that of windows that end together a longer one can go on from
a shorter one, with the same outcome as by itself.

Knows of the vector row only the words of its own heads: where these begin, `tiles.heads` decides.

Invariants
1. A class has at least two columns of every operation: NumPy adds up a single one in another order.
2. The outcome doesn't depend on which lines, places and tiles are reduced together, to the last digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np

from fastserve.tiles.aggregates import NEUTRAL_BITS, CompactedSchema, Op
from fastserve.tiles.blocks import BlockSchema
from fastserve.tiles.head_merge import LoopGroup, LoopPlace
from fastserve.tiles.head_runs import Layer, Runs, Spread, chosen_runs, even_parts
from fastserve.tiles.layout import NULL_FLOAT64_BITS, NULL_INT64
from fastserve.tiles.operations import (
    FLOAT64,
    INT64,
    NAN_BITS,
    REDUCTIONS,
    Index,
    Words,
    over_axis,
    reduce_parts,
)
from fastserve.tiles.windows import Window

NESTED_FROM = 1 << 14
"""So many numbers less to reduce outweigh the calls that it takes to go on from one window to the next."""
NOTHING = -1
"""The layer of windows that take no tile."""


@dataclass(frozen=True, slots=True)
class HeadPlace:
    """What a service reads of one streamed view: the components that get heads, by their numbers."""

    schema: CompactedSchema
    blocks: BlockSchema
    components: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of one operation in a class: from ``first`` on, ``parts`` times ``count``, part by part."""

    op: Op
    first: int
    count: int

    @property
    def end(self) -> int:
        return self.first + self.op.parts * self.count


class PlaceClass:
    """Places of a service whose tiles are reduced together; ``first`` is the class's first word."""

    def __init__(
        self, places: Sequence[HeadPlace], positions: Sequence[int], empty_at: Index, first: int
    ) -> None:
        self.positions = list(positions)
        self._first = first
        members = [_Member(places[position]) for position in positions]
        self._members = members
        self._columns: list[_Columns] = []
        self._width = 0
        for op in members[0].columns:
            count = max(2, *[len(member.columns[op]) for member in members])
            self._columns.append(_Columns(op, self._width, count))
            self._width = self._columns[-1].end
        self._has_moments = Op.MOMENTS in members[0].columns
        self._at = np.array([self._column_words(member) for member in members], np.intp).T.copy()
        self._windows = max(len(member.windows) for member in members)
        self._number: Index | None = None  # of each position in the class; None: all are in it
        if len(members) < len(places):
            self._number = np.full(len(places), -1, np.intp)
            self._number[self.positions] = np.arange(len(members))
        self._empty_at = empty_at[self.positions]
        self._tile_words = np.array([1 + places[position].blocks.words for position in positions], np.intp)
        self._interval_ns = gcd(*[places[position].blocks.interval_ns for position in positions])
        self._tick = (0, 0)
        self._bounds: _Bounds | None = None
        bits = [bits for c in self._columns for bits in NEUTRAL_BITS[c.op] for _ in range(c.count)]
        self._neutral = np.array(bits, INT64)
        self.neutral: Words = np.tile(self._neutral, len(members) * self._windows)

    def _column_words(self, member: _Member) -> list[int]:
        """Return for every column the word of a tile that it is read from."""
        words: list[int] = []
        for columns in self._columns:
            own = member.columns[columns.op]
            filled_up = [own[number % len(own)] for number in range(columns.count)]
            words += [word + part for part in range(columns.op.parts) for word in filled_up]
        return words

    @property
    def words(self) -> int:
        """How many words the heads of the class take."""
        return len(self.neutral)

    def words_of(self, position: int, component: int) -> tuple[int, ...]:
        """See `HeadPlan.words_of`."""
        number = self.positions.index(position)
        op, column, window = self._members[number].parts[component]
        columns = next(each for each in self._columns if each.op is op)
        first = self._first + (number * self._windows + window) * self._width + columns.first + column
        return tuple(first + part * columns.count for part in range(op.parts))

    def in_loop(self) -> dict[int, LoopPlace]:
        """Return by position what the loop in C has to know; it needs nothing that fills up."""
        found = {}
        for number, member in enumerate(self._members):
            groups = [
                LoopGroup(each.op, each.first, each.count, tuple(member.columns[each.op]))
                for each in self._columns
            ]
            found[self.positions[number]] = LoopPlace(
                *tiles_of(member.place),
                self._first + number * self._windows * self._width,
                self._width,
                tuple(member.windows),
                tuple(groups),
            )
        return found

    # --- merge ---

    def _bounds_at(self, now_ns: int) -> _Bounds:
        """Return the windows' bounds, made anew if any tile may have come in or dropped out since."""
        tick = (now_ns // self._interval_ns, -(-now_ns // self._interval_ns))
        if self._bounds is None or tick != self._tick:
            self._tick = tick
            bounds = [
                [
                    (window.start_ns(now_ns), window.end_ns(now_ns))
                    for window in _padded(member.windows, self._windows)
                ]
                for member in self._members
            ]
            both = np.array(bounds, np.int64)
            self._bounds = _Bounds(both[:, :, 0].T.copy(), both[:, :, 1].T.copy())
        return self._bounds

    def merge(
        self, runs: Runs, lines: Index, positions: Index, empty_from: int, now_ns: int, heads: Words
    ) -> None:
        """Merge those of ``runs`` that are of the class into ``heads``, as `HeadPlan.merge` says.

        ``lines`` and ``positions`` are by run; ``empty_from`` is the word of `Runs.words` at which the empty
        tiles begin.
        """
        numbers = positions
        if self._number is not None:
            numbers = self._number.take(positions)
            own = numbers >= 0
            if not own.all():
                if not own.any():
                    return
                runs = chosen_runs(runs, own)
                lines, numbers = lines[own], numbers[own]
        layers, layer_of = self._layers(runs, numbers, now_ns)
        if not layers:
            return
        merged = self._merged(runs, numbers, layers, empty_from)
        doubles = runs.owners[1:] == runs.owners[:-1]
        if doubles.any():
            merged, lines, numbers = self._joined(merged, np.flatnonzero(doubles), lines, numbers)
        self._unify(merged)
        self._put(merged, layer_of, lines, numbers, heads)

    def _layers(self, runs: Runs, numbers: Index, now_ns: int) -> tuple[list[Layer], list[int]]:
        """Return the different heads to be made, and for each window the number of its own or `NOTHING`."""
        bounds = self._bounds_at(now_ns)
        oldest, newest = int(runs.starts.min()), int(runs.starts.max())
        last = runs.at + (runs.counts - 1) * self._tile_words.take(numbers)
        layers: list[Layer] = []
        layer_of: list[int] = []
        whole = NOTHING
        for window in range(self._windows):
            ends_within = newest >= bounds.first_end[window]
            if ends_within or oldest < bounds.last_start[window]:
                ends = bounds.ends[window] if ends_within else None
                layer = self._cut(runs, last, numbers, bounds.starts[window], ends)
                layer_of.append(len(layers) if layer.counts.any() else NOTHING)
                layers += [layer] * (layer_of[-1] != NOTHING)
                continue
            if whole == NOTHING:
                whole = len(layers)
                layers.append(Layer(last, runs.counts))
            layer_of.append(whole)
        return layers, layer_of

    def _cut(self, runs: Runs, last: Index, numbers: Index, starts: Words, ends: Words | None) -> Layer:
        """Return what windows that start there take of runs; if they end before the newest tile, there."""
        firsts = np.cumsum(runs.counts) - runs.counts
        # No run is empty, so that each segment is its own. With a type: sums of bools are bools else.
        before = runs.starts < starts.take(numbers).repeat(runs.counts)
        passed: Index = np.add.reduceat(before, firsts, dtype=np.intp)
        counts = runs.counts - passed
        if ends is None:
            return Layer(last, counts)
        behind = runs.starts >= ends.take(numbers).repeat(runs.counts)
        left_out: Index = np.add.reduceat(behind, firsts, dtype=np.intp)
        return Layer(last - left_out * self._tile_words.take(numbers), counts - left_out)

    def _merged(self, runs: Runs, numbers: Index, layers: Sequence[Layer], empty_from: int) -> Words:
        """Return the layers' heads, shape (columns, layers, runs)."""
        last = np.array([layer.last for layer in layers])
        counts = np.array([layer.counts for layer in layers])
        empty_at = self._empty_at.take(numbers) + empty_from
        most = np.maximum(counts.max(axis=0), 1)  # a window may take nothing of a run
        parts = even_parts(most, self._width * len(layers))
        if parts is None:
            return self._merged_part(Spread(runs.words, last, counts, numbers, empty_at))
        merged = np.empty((self._width, *counts.shape), INT64)
        for part in parts:
            # `take`, for what fancy indices give along a last axis lies transposed in memory.
            merged[:, :, part] = self._merged_part(
                Spread(
                    runs.words,
                    last.take(part, axis=1),
                    counts.take(part, axis=1),
                    numbers.take(part),
                    empty_at.take(part),
                )
            )
        return merged

    def _merged_part(self, tiles: Spread) -> Words:
        layers, runs = tiles.counts.shape
        if layers > 1 and not self._has_moments:
            order = np.argsort(tiles.counts.sum(axis=1), kind="stable")
            steps = tiles.counts.take(order, axis=0)
            steps[1:] -= steps[:-1].copy()
            saved = layers * int(tiles.counts.max()) - int(steps.max(axis=1).sum()) - layers
            if saved * runs * self._width > NESTED_FROM and (steps >= 0).all() and tiles.end_together():
                nested = self._nested(tiles, order.tolist(), steps)
                if nested is not None:
                    return nested
        terms = self._terms(tiles, tiles.last, tiles.counts)
        return terms[0] if len(terms) == 1 else self._reduced(terms)

    def _nested(self, tiles: Spread, order: Sequence[int], steps: Index) -> Words | None:
        """Merge layers each of which has the tiles of the one before and older ones, ``steps`` many.

        Each goes on from the one before, which is the order in which it would be added up by itself. None if
        an integer sum is spoilt: older tiles may bring back into int64 what has left it on the way.
        """
        merged = np.empty((self._width, *steps.shape), INT64)
        last = tiles.last[:1].copy()
        widths = self._tile_words.take(tiles.numbers)
        before: Words | None = None
        for layer, own in zip(order, steps, strict=True):
            if before is None or own.any():
                terms = self._terms(tiles, last, own[None])
                if before is not None:
                    terms = np.concatenate([before, terms])
                before = self._reduced(terms)[None]
                if self._is_spoilt(before[0]):
                    return None
                last -= own * widths
            merged[:, layer] = before[0, :, 0]
        return merged

    def _is_spoilt(self, merged: Words) -> bool:
        sums = [columns for columns in self._columns if columns.op is Op.ADD_I]
        return any(bool((merged[each.first : each.end] == NULL_INT64).any()) for each in sums)

    def _terms(self, tiles: Spread, last: Index, counts: Index) -> Words:
        """Return the newest ``counts`` tiles of runs and older ones, shape (tiles, columns, layers, runs)."""
        steps = np.arange(max(1, int(counts.max())))[:, None, None]
        spread = last - steps * self._tile_words.take(tiles.numbers)
        np.copyto(spread, tiles.empty_at, where=steps >= counts)
        return tiles.words.take(spread[:, None] + self._at.take(tiles.numbers, axis=1)[:, None])

    def _reduced(self, terms: Words) -> Words:
        """Merge terms of shape (tiles, columns, layers, runs) over the tiles.

        Runs stand last, so that NumPy's inner loops are long: with columns last they took ten times as long.
        """
        tiles, _, layers, count = terms.shape
        merged = np.empty((self._width, layers, count), INT64)
        for columns in self._columns:
            parts = [
                terms[:, first : first + columns.count].reshape(1, tiles, columns.count * layers * count)
                for first in range(columns.first, columns.end, columns.count)
            ]
            place = columns.first
            for part in _reduced(columns.op, parts):
                merged[place : place + columns.count] = part.reshape(columns.count, layers, count)
                place += columns.count
        return merged

    def _joined(
        self, merged: Words, firsts: Index, lines: Index, numbers: Index
    ) -> tuple[Words, Index, Index]:
        """Merge the runs at ``firsts`` with those behind them, which are of the same keys."""
        both = np.stack([merged[:, :, firsts], merged[:, :, firsts + 1]])
        merged[:, :, firsts + 1] = self._reduced(both)
        kept = np.delete(np.arange(len(lines)), firsts)
        return merged[:, :, kept], lines[kept], numbers[kept]

    def _unify(self, merged: Words) -> None:
        """Give every NaN of a kind the same bits, whatever made it; those of moments have them."""
        for columns in self._columns:
            if columns.op.is_float and columns.op.parts == 1:
                own = merged[columns.first : columns.end]
                nan_bits = NAN_BITS if columns.op is Op.ADD_F else NULL_FLOAT64_BITS
                np.copyto(own, nan_bits, where=np.isnan(own.view(FLOAT64)))

    def _put(
        self, merged: Words, layer_of: Sequence[int], lines: Index, numbers: Index, heads: Words
    ) -> None:
        """Write the layers' heads, shape (columns, layers, keys), to their windows' words."""
        region = heads[:, self._first : self._first + self.words].reshape(
            len(heads), len(self.positions), self._windows, self._width
        )
        if NOTHING in layer_of:  # it stands behind the layers, at -1
            neutral = np.broadcast_to(self._neutral[:, None, None], (self._width, 1, len(lines)))
            merged = np.concatenate([merged, neutral], axis=1)
        region[lines, numbers] = merged.take(layer_of, axis=1).transpose(2, 1, 0)


class _Bounds:
    """Where the windows of a class begin and end, shape (windows, members)."""

    __slots__ = ("ends", "first_end", "last_start", "starts")

    def __init__(self, starts: Words, ends: Words) -> None:
        self.starts = starts
        self.ends = ends
        self.last_start: list[int] = starts.max(axis=1).tolist()
        self.first_end: list[int] = ends.min(axis=1).tolist()


class _Member:
    """One place's components sorted into columns and windows.

    ``columns`` are by operation the first words of a tile's components; ``parts`` are by component its
    operation, its column among those of the operation, and the number of its window.
    """

    def __init__(self, place: HeadPlace) -> None:
        self.place = place
        self.windows: list[Window] = []
        self.parts: dict[int, tuple[Op, int, int]] = {}
        columns: dict[Op, list[int]] = {}
        for number in place.components:
            component = place.schema.components[number]
            if component.window not in self.windows:
                self.windows.append(component.window)
            own = columns.setdefault(component.op, [])
            word = 1 + place.blocks.component_words[number]  # behind the tile's start
            if word not in own:
                own.append(word)
            self.parts[number] = (component.op, own.index(word), self.windows.index(component.window))
        self.columns = {op: columns[op] for op in Op if op in columns}


def _reduced(op: Op, parts: Sequence[Words]) -> list[Words]:
    """Merge the parts of components, each of shape (1, tiles, columns and runs), over the tiles."""
    if op.parts > 1:
        return reduce_parts(op, parts, over_axis(parts[0].shape[1]))
    terms = parts[0].view(FLOAT64) if op.is_float else parts[0]
    return [REDUCTIONS[op](terms).view(INT64)]


def tiles_of(place: HeadPlace) -> tuple[int, int, int]:
    """Return the words of a place's tiles, their interval and the rows' horizon in nanoseconds."""
    return 1 + place.blocks.words, place.blocks.interval_ns, place.schema.horizon_ns


def likeness(place: HeadPlace) -> tuple[frozenset[Op], int]:
    """Return what places of one class have in common."""
    member = _Member(place)
    columns = sum(op.parts * len(words) for op, words in member.columns.items())
    return frozenset(member.columns), (columns * len(member.windows)).bit_length()


def _padded(windows: list[Window], count: int) -> list[Window]:
    return windows + windows[:1] * (count - len(windows))
