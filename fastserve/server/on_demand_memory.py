"""The numbers of on-demand views in memory that all processes of a server share.

Made before the workers are forked; each writes into a part of its own, so that any of them can tell the whole
server's numbers.

Invariants
1. A cell has one writer: the worker of that index, whichever process it is; a worker's numbers go on where
   its predecessor's ended.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping

from fastserve.serving.on_demand_times import CELLS_PER_VIEW, OnDemandTimes, ViewStats

CELL_BYTES = 8


class OnDemandMemory:
    """The numbers of all workers, by view."""

    def __init__(self, views: Iterable[str], workers: int) -> None:
        self._views = tuple(views)
        size = CELL_BYTES * CELLS_PER_VIEW * max(1, len(self._views))
        self._mapping = mmap.mmap(-1, size * workers)
        self._parts = [
            memoryview(self._mapping)[first : first + size].cast("q")
            for first in range(0, size * workers, size)
        ]

    def of_worker(self, index: int) -> OnDemandTimes:
        """Return one worker's numbers."""
        return OnDemandTimes(self._views, self._parts[index])

    def totals(self) -> Mapping[str, ViewStats]:
        """Return each view's numbers over all workers."""
        each = [self.of_worker(index).stats() for index in range(len(self._parts))]
        return {view: sum((stats[view] for stats in each), ViewStats()) for view in self._views}
