"""Heads: what stream tiles add to a window, for all views of a service and all lines of a batch at once.

Behind its rows a vector row has *head slots*: one for each component that the service reads of a streamed
view, neutral where no tile counts. The merge takes a head in as one more slot that is always live. Which
tiles count for which window is decided here, by their starts alone:

    tiles of a block    |  s0  |  s1  |  s2  |  s3  |  s4  |       starts, ascending
    row's as_of                ^                                    s1 … s4 count on this row: a *run*
    a window                          [ start_ns            end_ns )  of these, s2 and s3: a run, too

The tiles of a run lie side by side in their block, so that where they are is the first one's place, a tile's
length and how many they are.

Places whose components are alike in kind and number make a *class*, whose runs are reduced together: a
batch costs a few NumPy calls for each class, however many lines, views, windows and tiles it has. The tiles
are spread out to an array of shape (most tiles of a run, columns, layers, runs), filled up with an empty
tile, because ``add.reduce`` over that takes 0.3 ns a number and ``add.reduceat`` over runs 2.8
(`perf/micro/merge.py`). A *layer* are the tiles of one window, or of all windows that take every tile, as
most do. Tiles are merged from the newest on, so that of windows that end together a longer one can go on from
a shorter one, with the same outcome as by itself.

All this is the twin of one pass over the tiles in C (`tiles.head_merge`), which serves where it is compiled.

Invariants
1. A head is the merge of exactly the tiles that start within the window, by the component's own operation.
2. The outcome doesn't depend on which lines, places and tiles are reduced together, to the last digit.
3. A class has at least two columns of every operation: NumPy adds up a single one in another order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd

import numpy as np
import numpy.typing as npt

from fastserve.tiles.aggregates import NEUTRAL_BITS, AggregateFeature, CompactedSchema, Op
from fastserve.tiles.blocks import BlockSchema
from fastserve.tiles.head_merge import HeadLoop, LoopGroup, LoopPlace
from fastserve.tiles.layout import NULL_FLOAT64_BITS, NULL_INT64
from fastserve.tiles.operations import FLOAT64, INT64, NAN_BITS, REDUCTIONS, over_axis, reduce_parts
from fastserve.tiles.windows import Window
from fastserve.tiles.write import neutral_words

Words = npt.NDArray[np.int64]
Index = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]

WORDS_MULTIPLE = 3
"""Heads fill up a multiple of 24 bytes, as rows do."""
MAX_SPREAD = 3
"""Runs of one batch are spread out together as long as this many times the tiles they have suffice for it."""
MAX_TERMS = 1 << 18
"""Numbers reduced at once, in two megabytes. With 36 tiles a key, merging for 32 lines of 1,000 features took
25 us a line, 40 with a quarter of it and 28 with twice as much."""
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
class Runs:
    """Tiles of one batch that came after their rows: runs of neighbours, at most two of an entity key.

    A run has its first tile at the word ``at`` of ``words``, and ``counts`` of them, at least one. ``owners``
    ascend: line times number of places plus position. ``starts`` are those of all tiles, run after run,
    ascending within a run. At their end ``words`` hold `HeadPlan.empty_tiles`.
    """

    words: Words
    at: Index
    counts: Index
    owners: Index
    starts: Words


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of one operation in a class: from ``first`` on, ``parts`` times ``count``, part by part."""

    op: Op
    first: int
    count: int

    @property
    def end(self) -> int:
        return self.first + self.op.parts * self.count


def narrow_components(features: Iterable[AggregateFeature]) -> set[int]:
    """Return the numbers of the components, those of words, that features are finalized from."""
    found: set[int] = set()
    for feature in features:
        found.update(number for number in (feature.value, feature.count) if number is not None)
        found.update(narrow_components(feature.elements))
    return found


class HeadPlan:
    """The head slots of one service. ``places`` are those of its streamed views, by *position*."""

    def __init__(self, places: Sequence[HeadPlace]) -> None:
        self.places = tuple(places)
        empty = [_empty_tile(place.blocks) for place in places]
        self._empty_at = np.cumsum([0, *map(len, empty)][:-1], dtype=np.intp)
        self.empty_tiles: Words = _filled_up(np.concatenate(empty))
        self._classes: list[_Class] = []
        classes: dict[tuple[frozenset[Op], int], list[int]] = {}
        for position, place in enumerate(places):
            if place.components:
                classes.setdefault(_likeness(place), []).append(position)
        word = 0
        for positions in classes.values():
            made = _Class(self.places, positions, self._empty_at, word)
            self._classes.append(made)
            word += made.words
        self.neutral: Words = _filled_up(
            np.concatenate([np.empty(0, INT64), *[c.neutral for c in self._classes]])
        )

    @property
    def words(self) -> int:
        """How many words of the vector row the heads take."""
        return len(self.neutral)

    def words_of(self, position: int, component: int) -> tuple[int, ...]:
        """Return the words of a component's head among the heads, part by part."""
        for each in self._classes:
            if position in each.positions:
                return each.words_of(position, component)
        raise AssertionError(position)

    def loop(self) -> HeadLoop:
        """Return the loop that does the same where it is compiled."""
        known = {position: own for each in self._classes for position, own in each.in_loop().items()}
        return HeadLoop(
            [
                known.get(position) or LoopPlace(*_tiles_of(place))
                for position, place in enumerate(self.places)
            ]
        )

    def merge(self, runs: Runs, now_ns: int, heads: Words) -> None:
        """Merge tiles into ``heads``, shape (lines, `words`), which holds `neutral` in every line."""
        lines, positions = np.divmod(runs.owners, len(self.places))
        empty_from = len(runs.words) - len(self.empty_tiles)
        # Infinities of both signs, and sums that leave float64, are values as others (`MergePlan.fast`).
        with np.errstate(invalid="ignore", over="ignore"):
            for each in self._classes:
                each.merge(runs, lines, positions, empty_from, now_ns, heads)


class _Class:
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
        return len(self.neutral)

    def words_of(self, position: int, component: int) -> tuple[int, ...]:
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
                *_tiles_of(member.place),
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
        numbers = positions
        if self._number is not None:
            numbers = self._number.take(positions)
            own = numbers >= 0
            if not own.all():
                if not own.any():
                    return
                runs = _chosen(runs, own)
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

    def _layers(self, runs: Runs, numbers: Index, now_ns: int) -> tuple[list[_Layer], list[int]]:
        """Return the different heads to be made, and for each window the number of its own or `NOTHING`."""
        bounds = self._bounds_at(now_ns)
        oldest, newest = int(runs.starts.min()), int(runs.starts.max())
        last = runs.at + (runs.counts - 1) * self._tile_words.take(numbers)
        layers: list[_Layer] = []
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
                layers.append(_Layer(last, runs.counts))
            layer_of.append(whole)
        return layers, layer_of

    def _cut(self, runs: Runs, last: Index, numbers: Index, starts: Words, ends: Words | None) -> _Layer:
        """Return what windows that start there take of runs; if they end before the newest tile, there."""
        firsts = np.cumsum(runs.counts) - runs.counts
        # No run is empty, so that each segment is its own. With a type: sums of bools are bools else.
        before = runs.starts < starts.take(numbers).repeat(runs.counts)
        passed: Index = np.add.reduceat(before, firsts, dtype=np.intp)
        counts = runs.counts - passed
        if ends is None:
            return _Layer(last, counts)
        behind = runs.starts >= ends.take(numbers).repeat(runs.counts)
        left_out: Index = np.add.reduceat(behind, firsts, dtype=np.intp)
        return _Layer(last - left_out * self._tile_words.take(numbers), counts - left_out)

    def _merged(self, runs: Runs, numbers: Index, layers: Sequence[_Layer], empty_from: int) -> Words:
        """Return the layers' heads, shape (columns, layers, runs)."""
        last = np.array([layer.last for layer in layers])
        counts = np.array([layer.counts for layer in layers])
        empty_at = self._empty_at.take(numbers) + empty_from
        most = np.maximum(counts.max(axis=0), 1)  # a window may take nothing of a run
        parts = _even_parts(most, self._width * len(layers))
        if parts is None:
            return self._merged_part(_Spread(runs.words, last, counts, numbers, empty_at))
        merged = np.empty((self._width, *counts.shape), INT64)
        for part in parts:
            # `take`, for what fancy indices give along a last axis lies transposed in memory.
            merged[:, :, part] = self._merged_part(
                _Spread(
                    runs.words,
                    last.take(part, axis=1),
                    counts.take(part, axis=1),
                    numbers.take(part),
                    empty_at.take(part),
                )
            )
        return merged

    def _merged_part(self, tiles: _Spread) -> Words:
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

    def _nested(self, tiles: _Spread, order: Sequence[int], steps: Index) -> Words | None:
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

    def _terms(self, tiles: _Spread, last: Index, counts: Index) -> Words:
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


@dataclass(frozen=True, slots=True)
class _Layer:
    """The tiles of one window, or of all that take every one: by run the last one's word, and how many."""

    last: Index
    counts: Index


@dataclass(frozen=True, slots=True)
class _Spread:
    """Layers side by side: ``last`` and ``counts`` have shape (layers, runs), the others are by run."""

    words: Words
    last: Index
    counts: Index
    numbers: Index
    empty_at: Index

    def end_together(self) -> bool:
        """Whether each layer has a run's last tile, as all windows have that end with the request."""
        return bool((self.last == self.last[0]).all())


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


def _chosen(runs: Runs, own: Bools) -> Runs:
    starts = runs.starts[own.repeat(runs.counts)]
    return Runs(runs.words, runs.at[own], runs.counts[own], runs.owners[own], starts)


def _even_parts(counts: Index, width: int) -> list[Index] | None:
    """Cut runs into parts that spread out without much waste and fit into the cache; None: one will do."""
    at_once = max(1, MAX_TERMS // (int(counts.max()) * width))
    if len(counts) <= at_once and _is_even(counts):
        return None
    return _parts(counts, np.arange(len(counts)), width)


def _is_even(counts: Index) -> bool:
    longest = int(counts.max())
    return longest * len(counts) <= MAX_SPREAD * int(counts.sum()) + 2 * longest


def _parts(counts: Index, chosen: Index, width: int) -> list[Index]:
    own = counts[chosen]
    if _is_even(own):
        at_once = max(1, MAX_TERMS // (int(own.max()) * width))
        return [chosen[low : low + at_once] for low in range(0, len(chosen), at_once)]
    # What is longer than this part of the longest run is even by itself, so that both parts have runs.
    many = own > int(own.max()) // MAX_SPREAD
    return [part for some in (chosen[~many], chosen[many]) for part in _parts(counts, some, width)]


def _reduced(op: Op, parts: Sequence[Words]) -> list[Words]:
    """Merge the parts of components, each of shape (1, tiles, columns and runs), over the tiles."""
    if op.parts > 1:
        return reduce_parts(op, parts, over_axis(parts[0].shape[1]))
    terms = parts[0].view(FLOAT64) if op.is_float else parts[0]
    return [REDUCTIONS[op](terms).view(INT64)]


def _tiles_of(place: HeadPlace) -> tuple[int, int, int]:
    return 1 + place.blocks.words, place.blocks.interval_ns, place.schema.horizon_ns


def _likeness(place: HeadPlace) -> tuple[frozenset[Op], int]:
    member = _Member(place)
    columns = sum(op.parts * len(words) for op, words in member.columns.items())
    return frozenset(member.columns), (columns * len(member.windows)).bit_length()


def _padded(windows: list[Window], count: int) -> list[Window]:
    return windows + windows[:1] * (count - len(windows))


def _empty_tile(blocks: BlockSchema) -> Words:
    words: Words = neutral_words(blocks.tile_schema, 1)[0, 2 : 2 + blocks.words]
    return np.concatenate([np.zeros(1, INT64), words])


def _filled_up(words: Words) -> Words:
    return np.concatenate([words, np.zeros(-len(words) % WORDS_MULTIPLE, INT64)])
