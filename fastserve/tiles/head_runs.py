"""Runs of tiles, and how they are cut so that those that are reduced together are nearly as long.

What a run is, and what heads are, `tiles.heads` says. Runs are spread out to one array and filled up with an
empty tile: that is cheap while they are about as long, and while the array fits into the cache. Knows no
component, only how many numbers a tile gives.

Invariants
1. Each run is in one part, and no part is without runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastserve.tiles.operations import Index, Words

Bools = npt.NDArray[np.bool_]

MAX_SPREAD = 3
"""Runs of one batch are spread out together as long as this many times the tiles they have suffice for it."""
MAX_TERMS = 1 << 18
"""Numbers reduced at once, in two megabytes. With 36 tiles a key, merging for 32 lines of 1,000 features took
25 us a line, 40 with a quarter of it and 28 with twice as much."""


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
class Layer:
    """The tiles of one window, or of all that take every one: by run the last one's word, and how many."""

    last: Index
    counts: Index


@dataclass(frozen=True, slots=True)
class Spread:
    """Layers side by side: ``last`` and ``counts`` have shape (layers, runs), the others are by run."""

    words: Words
    last: Index
    counts: Index
    numbers: Index
    empty_at: Index

    def end_together(self) -> bool:
        """Whether each layer has a run's last tile, as all windows have that end with the request."""
        return bool((self.last == self.last[0]).all())


def chosen_runs(runs: Runs, own: Bools) -> Runs:
    """Return those of the runs for which ``own`` is true."""
    starts = runs.starts[own.repeat(runs.counts)]
    return Runs(runs.words, runs.at[own], runs.counts[own], runs.owners[own], starts)


def even_parts(counts: Index, width: int) -> list[Index] | None:
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
