"""`python -m perf.load.stepped_clock FILE serve …`: fastserve by a clock that somebody else steps.

The file holds eight bytes: by how many nanoseconds the clock is ahead. It is mapped into memory, so that all
workers follow at once and reading the clock costs no system call more. Only the time since the epoch is
stepped; clocks that measure spans go on, as they do when a machine's clock is set.

Invariants:
1. `time.time` and `time.time_ns` are in place before anything of fastserve is imported.
"""

from __future__ import annotations

import mmap
import sys
import time
from pathlib import Path
from struct import Struct

_OFFSET = Struct("<q")


class SteppedClock:
    """The file, as seen by who steps the clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.step(0.0)

    def step(self, ahead_s: float) -> None:
        """Set by how much the clock is ahead."""
        with self.path.open("r+b" if self.path.exists() else "wb") as file:
            file.write(_OFFSET.pack(int(ahead_s * 1e9)))


def follow(path: Path) -> None:
    """Let this process, and what it forks, follow the file."""
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)
    real_ns = time.time_ns

    def time_ns() -> int:
        ahead_ns: int = _OFFSET.unpack_from(mapped)[0]
        return real_ns() + ahead_ns

    def seconds() -> float:
        return time_ns() / 1e9

    time.time_ns, time.time = time_ns, seconds


def main() -> int:
    """Run fastserve's command line with what is left of the arguments."""
    follow(Path(sys.argv[1]))
    from fastserve.cli.entry import main as run

    sys.argv[:] = ["fastserve", *sys.argv[2:]]
    return run()


if __name__ == "__main__":
    sys.exit(main())
