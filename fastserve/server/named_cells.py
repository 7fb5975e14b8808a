"""Numbers by name in memory that all processes of a server share: a row of cells for each name and worker.

It knows nothing of what is counted. `add` is called before a fork, by the process that forks.

Invariants
1. A cell has one writer: the worker of its row, whichever process that is. Cells are aligned: a reader sees
   an old or a new value, never half of one.
2. Nothing is ever cleared: a worker goes on where its predecessor ended, and a name that is added twice keeps
   its numbers. So sums over all rows never fall, however often workers and definitions are replaced.
3. A process knows the names that were added before its fork.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

CELL_BYTES = 8
LINE_BYTES = 64  # rows don't share cache lines: each has another writer
Numbers = npt.NDArray[np.int64]


class _Segment:
    """The cells of the names of one `add`."""

    def __init__(self, names: tuple[str, ...], cells: int, rows: int) -> None:
        self.names = names
        self._row_bytes = -(-len(names) * cells * CELL_BYTES // LINE_BYTES) * LINE_BYTES
        self._mapping = mmap.mmap(-1, self._row_bytes * rows)
        self._cells = cells
        self._rows = rows

    def row(self, row: int) -> Mapping[str, memoryview]:
        """Return one row's cells by name."""
        size = self._cells * CELL_BYTES
        first = row * self._row_bytes
        memory = memoryview(self._mapping)
        return {
            name: memory[first + number * size : first + (number + 1) * size].cast("q")
            for number, name in enumerate(self.names)
        }

    def numbers(self) -> Mapping[str, Numbers]:
        """Return a copy of all cells by name, each of shape (rows, cells)."""
        whole = np.frombuffer(self._mapping, np.int64).reshape(self._rows, -1).copy()
        return {
            name: whole[:, number * self._cells : (number + 1) * self._cells]
            for number, name in enumerate(self.names)
        }


class NamedCells:
    """So many cells for each name, in each of ``rows`` rows."""

    def __init__(self, cells: int, rows: int) -> None:
        self._cells = cells
        self._rows = rows
        self._segments: list[_Segment] = []

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order in which they were added."""
        return tuple(name for segment in self._segments for name in segment.names)

    def add(self, names: Iterable[str]) -> None:
        """Make room for the names that there are no cells of."""
        fresh = tuple(dict.fromkeys(name for name in names if name not in self.names))
        if fresh:
            self._segments.append(_Segment(fresh, self._cells, self._rows))

    def row(self, row: int) -> dict[str, memoryview]:
        """Return the cells of one row, by name."""
        return {name: cells for segment in self._segments for name, cells in segment.row(row).items()}

    def numbers(self) -> dict[str, Numbers]:
        """Return the cells of all rows as they are now, by name, each of shape (rows, cells)."""
        return {name: each for segment in self._segments for name, each in segment.numbers().items()}
