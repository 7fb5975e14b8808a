"""Heads: what stream tiles add to a window, for all views of a service and all lines of a batch at once.

Behind its rows a vector row has *head slots*: one for each component that the service reads of a streamed
view, neutral where no tile counts. The merge takes a head in as one more slot that is always live. Which
tiles count for which window, their starts alone decide:

    tiles of a block    |  s0  |  s1  |  s2  |  s3  |  s4  |       starts, ascending
    row's as_of                ^                                    s1 … s4 count on this row: a *run*
    a window                          [ start_ns            end_ns )  of these, s2 and s3: a run, too

The tiles of a run lie side by side in their block, so that where they are is the first one's place, a tile's
length and how many they are. Which head has which words of the vector row is said here; places whose
components are alike are reduced together (`tiles.head_classes`).

All this is the twin of one pass over the tiles in C (`tiles.head_merge`), which serves where it is compiled.

Invariants
1. A head is the merge of exactly the tiles that start within the window, by the component's own operation.
2. The outcome doesn't depend on which lines, places and tiles are reduced together, to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fastserve.tiles.aggregates import AggregateFeature, Op
from fastserve.tiles.blocks import BlockSchema
from fastserve.tiles.head_classes import HeadPlace, PlaceClass, likeness, tiles_of
from fastserve.tiles.head_merge import HeadLoop, LoopPlace
from fastserve.tiles.head_runs import Runs
from fastserve.tiles.operations import INT64, Words
from fastserve.tiles.write import neutral_words

__all__ = ["HeadPlace", "HeadPlan", "Runs", "narrow_components"]

WORDS_MULTIPLE = 3
"""Heads fill up a multiple of 24 bytes, as rows do."""


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
        self._classes: list[PlaceClass] = []
        classes: dict[tuple[frozenset[Op], int], list[int]] = {}
        for position, place in enumerate(places):
            if place.components:
                classes.setdefault(likeness(place), []).append(position)
        word = 0
        for positions in classes.values():
            made = PlaceClass(self.places, positions, self._empty_at, word)
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
            [known.get(position) or LoopPlace(*tiles_of(place)) for position, place in enumerate(self.places)]
        )

    def merge(self, runs: Runs, now_ns: int, heads: Words) -> None:
        """Merge tiles into ``heads``, shape (lines, `words`), which holds `neutral` in every line."""
        lines, positions = np.divmod(runs.owners, len(self.places))
        empty_from = len(runs.words) - len(self.empty_tiles)
        # Infinities of both signs, and sums that leave float64, are values as others (`MergePlan.fast`).
        with np.errstate(invalid="ignore", over="ignore"):
            for each in self._classes:
                each.merge(runs, lines, positions, empty_from, now_ns, heads)


def _empty_tile(blocks: BlockSchema) -> Words:
    words: Words = neutral_words(blocks.tile_schema, 1)[0, 2 : 2 + blocks.words]
    return np.concatenate([np.zeros(1, INT64), words])


def _filled_up(words: Words) -> Words:
    return np.concatenate([words, np.zeros(-len(words) % WORDS_MULTIPLE, INT64)])
