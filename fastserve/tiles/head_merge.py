"""Blocks found and tiles merged by one call each, where the loop in `_head_merge.c` is compiled.

What NumPy does in some seventy calls for a batch of whatever size (`serving.blocks`, `serving.heads`,
`tiles.heads`), the loop does in one pass over the tiles. It is told by a *program* of flat int64 where a
view's tiles have which number and where its heads lie:

    places, the clocks' skew (ns), and of each place where its record begins
    record   tile words, interval (ns), horizon (ns), first word of the heads, words of a window, windows,
             first bound, groups
    group    operation, columns, first word and distance of parts in a window, the columns' words in a tile

and beside it, as long as they hold, by the windows' bounds: number, start and end, the last one to end first.

What the loop doesn't take it leaves to the twin: starts that don't ascend, zeros of both signs among minima
or maxima (of which NumPy takes any), moments of values that aren't finite.

Invariants
1. Heads that the loop makes are those of `HeadPlan.merge`, bit by bit.
2. Nothing is decided here: a loop that isn't compiled, or refuses, changes what a batch costs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import gcd
from types import ModuleType
from typing import Any

import numpy as np

from fastserve.tiles.aggregates import Op
from fastserve.tiles.layout import NULL_INT64
from fastserve.tiles.operations import OPERATION_CODES, Words
from fastserve.tiles.windows import CLOCK_SKEW_NS, Window

__all__ = ["HeadLoop", "LoopGroup", "LoopPlace"]

_HEAD_WORDS = 2
"""What stands before the places' beginnings in a program."""
_BOUND_WORDS = 3


def _loaded() -> ModuleType | None:
    try:
        from fastserve.tiles import _head_merge
    except ImportError:
        return None
    return _head_merge


_native = _loaded()


@dataclass(frozen=True, slots=True)
class LoopGroup:
    """Columns of one operation: part p of column i has word ``first + p * step + i`` of a window's heads."""

    op: Op
    first: int
    step: int
    columns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LoopPlace:
    """The tiles of one streamed place, and where its heads lie: ``stride`` words for each window."""

    tile_words: int
    interval_ns: int
    horizon_ns: int
    first: int = 0
    stride: int = 0
    windows: tuple[Window, ...] = ()
    groups: tuple[LoopGroup, ...] = ()


class HeadLoop:
    """The loop for one service, if it is compiled; else it leaves everything to the twin.

    Its ``program`` holds for good, the ``bounds`` are those of the latest time.
    """

    def __init__(self, places: Sequence[LoopPlace]) -> None:
        self._native = _native
        self._places = tuple(places)
        self._interval_ns = gcd(*[place.interval_ns for place in places])
        self._tick = (0, -1)
        self.bounds = b""
        records: list[int] = []
        firsts: list[int] = []
        bounds = 0
        for place in places:
            firsts.append(_HEAD_WORDS + len(places) + len(records))
            windows = len(place.windows)
            records += [place.tile_words, place.interval_ns, place.horizon_ns, place.first, place.stride]
            records += [windows, bounds, len(place.groups)]
            for group in place.groups:
                records += [OPERATION_CODES[group.op], len(group.columns), group.first, group.step]
                records += group.columns
            bounds += _BOUND_WORDS * windows
        self.program = _packed([len(places), CLOCK_SKEW_NS, *firsts, *records])

    def find(self, blocks: list[Any], whole_units: int, items: bytes, words: bytes, placed: Words) -> bool:
        """Write to ``placed`` by block its first word and the number of its tiles, 0 where there is none.

        ``words`` are the blocks joined, ``whole_units`` is how long 24 bytes are in the form in which they
        came, and ``items`` are by block of a line its header word and how many bytes a tile takes. Returns
        False if any is not as it should be, or isn't known to be.
        """
        if self._native is None:
            return False
        found: bool = self._native.find_blocks(blocks, whole_units, items, words, placed)
        return found

    def merge(
        self,
        words: bytes,
        placed: Words,
        floors: Words,
        columns: Words,
        matrix: Words,
        newest: Words,
        first_word: int,
        now_ns: int,
        *,
        is_told: bool,
    ) -> bool | None:
        """Merge the tiles that count into the heads of ``matrix``, which begin at ``first_word``.

        ``placed`` are by line, place and block its first word and the number of its tiles. Tiles count that
        start at or after the floor of their line in the column of ``floors`` that ``columns`` says by place.
        ``matrix`` has a vector row for each line. ``newest`` has the shape of floors and is written: the end
        of the newest tile, or now while it is open, the smallest int64 where none counts. Unless ``is_told``
        which tiles count, floors are the rows' as_of; it returns None if some row can't answer at ``now_ns``,
        or is missing (the smallest int64) where there are tiles. Returns False if all this is left to the
        twin, which writes to the same heads.
        """
        if self._native is None:
            return False
        tick = (now_ns // self._interval_ns, -(-now_ns // self._interval_ns))
        if tick != self._tick:
            self.bounds = self._bounds_at(now_ns)
            self._tick = tick
        done: bool | None = self._native.merge_heads(
            self.program,
            self.bounds,
            words,
            placed,
            floors,
            columns,
            matrix,
            newest,
            first_word,
            now_ns,
            is_told,
        )
        return done

    def _bounds_at(self, now_ns: int) -> bytes:
        """Return the bounds; of windows that end together a longer one can go on from a shorter one."""
        found: list[int] = []
        for place in self._places:
            windows = [  # no tile starts before int64
                (number, max(NULL_INT64, window.start_ns(now_ns)), max(NULL_INT64, window.end_ns(now_ns)))
                for number, window in enumerate(place.windows)
            ]
            windows.sort(key=lambda window: (-window[2], -window[1]))
            found += chain.from_iterable(windows)
        return _packed(found)


def _packed(numbers: Sequence[int]) -> bytes:
    return np.array(numbers, "<i8").tobytes()
