"""Numbers that arbiter and workers share: one anonymous mapping, a row of 64-bit numbers per worker.

It knows nothing of what the processes do with them.

Invariants:
1. A cell has one writer: row 0 is the arbiter's, a worker's row is that worker's while it lives, and the
   arbiter's before it is forked. Cells are aligned: a reader sees an old or a new value, never half of one.
2. The mapping is made before the fork and needs no name in any file system: it ends with the last process.
3. Times are CLOCK_MONOTONIC nanoseconds, which all processes of a machine share.
"""

from __future__ import annotations

import mmap
from enum import IntEnum
from time import monotonic_ns

ROW_CELLS = 32  # 256 bytes: rows don't share cache lines, and there is room


class State(IntEnum):
    """What a worker is doing."""

    ABSENT = 0
    BOOTING = 1
    READY = 2
    DRAINING = 3


class Cell(IntEnum):
    """Where a number lies in a row."""

    STATE = 0
    PID = 1
    HEARTBEAT_NS = 2
    STARTED_NS = 3
    CONNECTIONS = 4
    ACCEPTED = 5
    ANSWERS = 6
    CLIENT_ERRORS = 7
    SERVER_ERRORS = 8


class Row:
    """The cells of one process."""

    __slots__ = ("cells",)

    def __init__(self, cells: memoryview) -> None:
        self.cells = cells

    def __getitem__(self, cell: int) -> int:
        value: int = self.cells[cell]
        return value

    def __setitem__(self, cell: int, value: int) -> None:
        self.cells[cell] = value

    @property
    def state(self) -> State:
        """What the process is doing."""
        return State(self.cells[Cell.STATE])

    def clear(self) -> None:
        """Set all cells to 0."""
        for cell in range(ROW_CELLS):
            self.cells[cell] = 0

    def beat(self) -> None:
        """Say that the process is alive."""
        self.cells[Cell.HEARTBEAT_NS] = monotonic_ns()

    def silence_s(self, now_ns: int) -> float:
        """Return how long ago the process last said that it is alive."""
        return (now_ns - self.cells[Cell.HEARTBEAT_NS]) / 1e9


class SharedMemory:
    """The rows of one server; made before the fork."""

    def __init__(self, workers: int) -> None:
        row_bytes = ROW_CELLS * 8
        self._mapping = mmap.mmap(-1, row_bytes * (workers + 1))
        rows = [
            Row(memoryview(self._mapping)[start : start + row_bytes].cast("q"))
            for start in range(0, row_bytes * (workers + 1), row_bytes)
        ]
        self.arbiter = rows[0]
        self.workers = rows[1:]

    def totals(self) -> dict[str, int]:
        """Return the counters of all workers together, as of their last ticks."""
        counters = (Cell.CONNECTIONS, Cell.ACCEPTED, Cell.ANSWERS, Cell.CLIENT_ERRORS, Cell.SERVER_ERRORS)
        return {cell.name.lower(): sum(row[cell] for row in self.workers) for cell in counters}
