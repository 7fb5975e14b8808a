"""Heads: what stream tiles add to a window, for all views of a service and all lines of a batch at once.

Behind its rows a vector row has *head slots*: one for each component that the service reads of a streamed
view, neutral where no tile counts. The merge takes a head in as one more slot that is always live. Which
tiles count for which window is decided here, by their starts alone:

    tiles of a key      |  s0  |  s1  |  s2  |  s3  |  s4  |       starts, ascending
    row's as_of                ^                                    s1 … s4 count on this row
    a window                          [ start_ns            end_ns )  of these, s2 and s3

Places whose components are alike in kind and number make a *class*, whose tiles are reduced together: a
batch costs a few NumPy calls for each class, however many lines, views, windows and tiles it has. Its tiles
are spread out to an array of shape (most tiles of a key, columns, windows, keys), filled up with an empty
tile, because ``add.reduce`` over that takes 0.3 ns a number and ``add.reduceat`` over runs 2.8
(`perf/micro/merge.py`).

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
from fastserve.tiles.operations import FLOAT64, INT64, REDUCTIONS, over_axis, reduce_parts
from fastserve.tiles.windows import Window
from fastserve.tiles.write import neutral_words

Words = npt.NDArray[np.int64]
Index = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]

WORDS_MULTIPLE = 3
"""Heads fill up a multiple of 24 bytes, as rows do."""
WHOLE = -1
"""Stands for all windows that hold all tiles."""
MAX_SPREAD = 3
"""Keys of one batch are spread out together as long as this many times the tiles they have suffice for it."""
MAX_TERMS = 1 << 16
"""Numbers reduced at once, in half a megabyte. With 36 tiles a key, 32 lines of 1,000 features take 107 us a
line, 133 with a quarter of it and 134 with four times as much (`perf/micro/heads.py`)."""


@dataclass(frozen=True, slots=True)
class HeadPlace:
    """What a service reads of one streamed view: the components that get heads, by their numbers."""

    schema: CompactedSchema
    blocks: BlockSchema
    components: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tiles of one batch that came after their rows, ascending by ``owners``, then by start.

    ``words`` hold, somewhere, the tiles that begin at the words ``at``, and at their end
    `HeadPlan.empty_tiles`. ``owners`` are line times number of places plus position.
    """

    words: Words
    at: Index
    starts: Words
    owners: Index


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

    def merge(self, tiles: Tiles, now_ns: int, heads: Words) -> None:
        """Merge tiles into ``heads``, shape (lines, `words`), which holds `neutral` in every line."""
        for each in self._classes:
            each.merge(tiles, len(self.places), len(tiles.words) - len(self.empty_tiles), now_ns, heads)


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
        self._at = np.array([self._column_words(member) for member in members], np.intp).T.copy()
        self._windows = max(len(member.windows) for member in members)
        self._number = np.full(len(places), -1, np.intp)
        self._number[self.positions] = np.arange(len(members))
        self._empty_at = empty_at[self.positions]
        self._interval_ns = gcd(*[places[position].blocks.interval_ns for position in positions])
        self._tick = (0, 0)
        self._starts = self._ends = np.empty((0, 0), np.int64)
        neutral = [bits for c in self._columns for bits in NEUTRAL_BITS[c.op] for _ in range(c.count)]
        self.neutral: Words = np.tile(np.array(neutral, INT64), len(members) * self._windows)

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

    # --- merge ---

    def _bounds(self, now_ns: int) -> None:
        """Find the windows' starts and ends anew if any tile may have come in or dropped out since."""
        tick = (now_ns // self._interval_ns, -(-now_ns // self._interval_ns))
        if tick == self._tick and self._starts.size:
            return
        self._tick = tick
        bounds = [
            [
                (window.start_ns(now_ns), window.end_ns(now_ns))
                for window in _padded(member.windows, self._windows)
            ]
            for member in self._members
        ]
        both = np.array(bounds, np.int64)
        self._starts = both[:, :, 0].T.copy()
        self._ends = both[:, :, 1].T.copy()

    def merge(self, tiles: Tiles, places: int, empty_from: int, now_ns: int, heads: Words) -> None:
        owners, at, starts = tiles.owners, tiles.at, tiles.starts
        numbers = self._number.take(owners % places)
        if len(self.positions) < places:
            own = np.flatnonzero(numbers >= 0)
            owners, at, starts, numbers = owners[own], at[own], starts[own], numbers[own]
        if not len(owners):
            return
        self._bounds(now_ns)
        within: Bools = starts >= self._starts.take(numbers, axis=1)
        within &= starts < self._ends.take(numbers, axis=1)
        first = first_of_each(owners)
        counts = np.empty_like(first)
        np.subtract(first[1:], first[:-1], out=counts[:-1])
        counts[-1] = len(owners) - first[-1]
        keys = _Keys(len(first), tiles.words, owners[first] // places, numbers[first], first, counts)
        region = heads[:, self._first : self._first + self.words].reshape(
            len(heads), len(self.positions), self._windows, self._width
        )
        for part in _even_parts(keys, self._width):
            self._merge_keys(part, at, within, empty_from, region)

    def _merge_keys(self, keys: _Keys, at: Index, within: Bools, empty_from: int, region: Words) -> None:
        if len(keys.counts) < keys.of:
            chosen = keys.tiles()
            at, within = at.take(chosen), within.take(chosen, axis=1)
        layers, layer_of = _layers(within)
        if not layers:
            return
        spread = self._spread(keys, at, within, layers, empty_from)
        columns = self._at.take(keys.numbers, axis=1)
        merged = self._reduce(keys.words.take(spread[:, None] + columns[:, None]))
        for window, layer in layer_of:
            region[keys.lines, keys.numbers, window] = merged[:, layer].T

    def _spread(self, keys: _Keys, at: Index, within: Bools, layers: Sequence[int], empty_from: int) -> Index:
        """Return the tiles' words in shape (most tiles of a key, layers, keys), empty tiles where none is."""
        longest, count = int(keys.counts.max()), len(keys.counts)
        size = len(layers) * count
        spread = np.empty((longest, len(layers), count), np.intp)
        spread[:] = self._empty_at.take(keys.numbers) + empty_from
        # A tile's place is its number among its key's, times the size of a row, and its key.
        ends = np.cumsum(keys.counts)
        shift = np.arange(count) - (ends - keys.counts) * size
        places = np.arange(len(at)) * size + np.repeat(shift, keys.counts)
        flat = spread.reshape(-1)
        for layer, window in enumerate(layers):
            if window == WHOLE:
                flat[places + layer * count] = at
            else:
                inside = within[window]
                flat[places[inside] + layer * count] = at[inside]
        return spread

    def _reduce(self, terms: Words) -> Words:
        """Merge terms of shape (tiles, columns, layers, keys) over the tiles.

        Keys stand last, so that NumPy's inner loops are long: with columns last they took ten times as long.
        """
        longest, _, layers, count = terms.shape
        merged = np.empty((self._width, layers, count), INT64)
        for columns in self._columns:
            parts = [
                terms[:, first : first + columns.count].reshape(1, longest, columns.count * layers * count)
                for first in range(columns.first, columns.end, columns.count)
            ]
            place = columns.first
            for part in _reduced(columns.op, parts):
                merged[place : place + columns.count] = part.reshape(columns.count, layers, count)
                place += columns.count
        return merged


def _layers(within: Bools) -> tuple[list[int], list[tuple[int, int]]]:
    """Return the different heads to be made, windows or `WHOLE`, and (window, number of its head) pairs.

    Windows that hold all tiles, as most do, have one head.
    """
    layers: list[int] = []
    layer_of: list[tuple[int, int]] = []
    everything = np.flatnonzero(within.all(axis=1)).tolist()
    for window in np.flatnonzero(within.any(axis=1)).tolist():
        head = WHOLE if window in everything else window
        if head not in layers:
            layers.append(head)
        layer_of.append((window, layers.index(head)))
    return layers, layer_of


def first_of_each(owners: Index) -> Index:
    """Return where each owner's run begins in ``owners``, which ascend and aren't empty."""
    changes = np.flatnonzero(owners[1:] != owners[:-1])
    first = np.empty(len(changes) + 1, np.intp)
    first[0] = 0
    np.add(changes, 1, out=first[1:])
    return first


class _Member:
    """One place's components sorted into columns and windows.

    ``columns`` are by operation the first words of a tile's components; ``parts`` are by component its
    operation, its column among those of the operation, and the number of its window.
    """

    def __init__(self, place: HeadPlace) -> None:
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


@dataclass(frozen=True, slots=True)
class _Keys:
    """Some of ``of`` entity keys with tiles: line, number of the place in its class, first tile, tiles."""

    of: int
    words: Words
    lines: Index
    numbers: Index
    first: Index
    counts: Index

    def tiles(self) -> Index:
        """Return the numbers of all their tiles, key by key."""
        ends = np.cumsum(self.counts)
        result: Index = np.arange(int(ends[-1])) + np.repeat(self.first - (ends - self.counts), self.counts)
        return result

    def at(self, chosen: Index) -> _Keys:
        return _Keys(
            self.of,
            self.words,
            self.lines[chosen],
            self.numbers[chosen],
            self.first[chosen],
            self.counts[chosen],
        )


def _even_parts(keys: _Keys, width: int) -> list[_Keys]:
    """Cut keys into parts that can be spread out without much waste and fit into the cache."""
    longest, count = int(keys.counts.max()), len(keys.counts)
    if longest * count <= MAX_SPREAD * int(keys.counts.sum()) + 2 * longest:
        at_once = max(1, MAX_TERMS // (longest * width))
        if count <= at_once:
            return [keys]
        return [keys.at(np.arange(low, min(count, low + at_once))) for low in range(0, count, at_once)]
    many = keys.counts > longest // (MAX_SPREAD + 1)
    return [
        part
        for chosen in (np.flatnonzero(~many), np.flatnonzero(many))
        for part in _even_parts(keys.at(chosen), width)
    ]


def _reduced(op: Op, parts: Sequence[Words]) -> list[Words]:
    """Merge the parts of components, each of shape (1, tiles, columns and keys), over the tiles."""
    if op.parts > 1:
        return reduce_parts(op, parts, over_axis(parts[0].shape[1]))
    terms = parts[0].view(FLOAT64) if op.is_float else parts[0]
    return [REDUCTIONS[op](terms).view(INT64)]


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
