"""How long each on-demand view's code took, as plain numbers in cells that processes may share.

Knows nothing of where the cells lie, nor who reads them: one writer adds, any reader may look.

Invariants
1. A view has `CELLS_PER_VIEW` cells, in the order of `Stat`.
2. Times are those of the author's function and the check of its result, without the inputs' making.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol


class Stat(IntEnum):
    """What each of a view's cells counts."""

    CALLS = 0
    LINES = 1
    SUM_NS = 2
    MAX_NS = 3
    FAILURES = 4


CELLS_PER_VIEW = len(Stat)


@dataclass(frozen=True, slots=True)
class ViewStats:
    """One view's numbers, of one process."""

    calls: int = 0
    lines: int = 0
    sum_ns: int = 0
    max_ns: int = 0
    failures: int = 0


class Cells(Protocol):
    """Numbers by position, in a list or in memory that processes share."""

    def __getitem__(self, position: int, /) -> int: ...

    def __setitem__(self, position: int, number: int, /) -> None: ...


class OnDemandTimes:
    """The numbers of one process; ``cells`` are int64, `CELLS_PER_VIEW` for each of the views."""

    def __init__(self, views: Sequence[str], cells: Mapping[str, Cells] | None = None) -> None:
        self.views = tuple(views)
        own: Mapping[str, Cells] = {view: [0] * CELLS_PER_VIEW for view in views}
        self._cells = own if cells is None else cells

    def recorder(self, view: str) -> Recorder:
        """Return what adds to one view's numbers."""
        return Recorder(self._cells[view])

    def stats(self) -> Mapping[str, ViewStats]:
        """Return the numbers by view."""
        return {view: ViewStats(*[self._cells[view][stat] for stat in Stat]) for view in self.views}


class Recorder:
    """Adds to one view's numbers."""

    __slots__ = ("_calls", "_cells", "_failures", "_lines", "_max", "_sum")

    def __init__(self, cells: Cells) -> None:
        self._cells = cells
        # As plain integers: to index by a member of an enumeration costs as much as all the rest.
        self._calls = int(Stat.CALLS)
        self._lines = int(Stat.LINES)
        self._sum = int(Stat.SUM_NS)
        self._max = int(Stat.MAX_NS)
        self._failures = int(Stat.FAILURES)

    def add(self, calls: int, lines: int, sum_ns: int, max_ns: int) -> None:
        """Count calls for so many lines, their whole time and that of the longest."""
        cells = self._cells
        cells[self._calls] += calls
        cells[self._lines] += lines
        cells[self._sum] += sum_ns
        cells[self._max] = max(cells[self._max], max_ns)

    def fail(self) -> None:
        """Count a line that has failed."""
        self._cells[self._failures] += 1
