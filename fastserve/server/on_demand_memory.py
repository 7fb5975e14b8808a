"""The numbers of on-demand views in memory that all processes of a server share.

Made before the workers are forked; each writes into a part of its own, so that any of them can tell the whole
server's numbers.

Invariants
1. A cell has one writer: the worker of that index, whichever process it is; a worker's numbers go on where
   its predecessor's ended, also where a reload came between.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastserve.server.named_cells import NamedCells, Numbers
from fastserve.serving.on_demand_times import CELLS_PER_VIEW, OnDemandTimes


class OnDemandMemory:
    """The numbers of all workers, by view."""

    def __init__(self, views: Iterable[str], workers: int) -> None:
        self._cells = NamedCells(CELLS_PER_VIEW, workers)
        self.add(views)

    def add(self, views: Iterable[str]) -> None:
        """Make room for views that are new; called before a fork."""
        self._cells.add(views)

    def of_worker(self, index: int) -> OnDemandTimes:
        """Return one worker's numbers."""
        cells = self._cells.row(index)
        return OnDemandTimes(tuple(cells), cells)

    def numbers(self) -> dict[str, Numbers]:
        """Return the cells of all workers as they are now, by view, each of shape (workers, `Stat`)."""
        return self._cells.numbers()
