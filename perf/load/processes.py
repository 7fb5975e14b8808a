"""What processes have cost: CPU and memory, for a process and all below it.

Reads /proc and the clocks of processes; knows no load and no server.

Invariants:
1. CPU is user + system of every thread of every process of the tree that is still there; what ended before
   the second reading is left out of both only if it ended before the first, so measure over a time when
   none ends.
2. `cpu_ns` comes from schedstat where the kernel has it, else from clock ticks of 10 ms.
3. A `WorkClock` knows the processes that ran when it was made, no later ones.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Reading:
    """One process's cost so far."""

    pid: int
    cpu_ns: int
    user_ns: int
    system_ns: int
    rss_bytes: int
    context_switches: int
    waited_ns: int


def process_tree(root_pid: int) -> list[int]:
    """Give a process and all its descendants, the root first."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            parent = _parent_pid(entry)
            children.setdefault(parent, []).append(int(entry.name))
    tree, waiting = [], [root_pid]
    while waiting:
        pid = waiting.pop()
        tree.append(pid)
        waiting.extend(children.get(pid, ()))
    return tree


def read_process(pid: int) -> Reading:
    """Read one process's cost.

    Raises:
        OSError: there is no such process.
    """
    place = _PROC / str(pid)
    fields = _stat_fields(place)
    user_ns, system_ns = int(fields[11]) * _TICK_NS, int(fields[12]) * _TICK_NS
    run_ns, waited_ns, switches = _scheduled_ns(place)
    return Reading(
        pid=pid,
        cpu_ns=run_ns or user_ns + system_ns,
        user_ns=user_ns,
        system_ns=system_ns,
        rss_bytes=int(fields[21]) * _PAGE_BYTES,
        context_switches=switches,
        waited_ns=waited_ns,
    )


def read_tree(root_pid: int) -> list[Reading]:
    """Read the cost of a process and all its descendants that are there."""
    readings = []
    for pid in process_tree(root_pid):
        try:
            readings.append(read_process(pid))
        except (OSError, IndexError):
            continue
    return readings


def _stat_fields(place: Path) -> list[str]:
    # The name stands in brackets and may hold spaces: fields are counted from the last bracket (proc(5)).
    return (place / "stat").read_text().rpartition(")")[2].split()


def _parent_pid(place: Path) -> int:
    try:
        return int(_stat_fields(place)[1])
    except (OSError, IndexError):
        return -1


def _scheduled_ns(place: Path) -> tuple[int, int, int]:
    total = waited = switches = 0
    for task in (place / "task").iterdir():
        try:
            run_ns, waited_ns, slices = (task / "schedstat").read_text().split()
        except OSError:
            continue
        total += int(run_ns)
        waited += int(waited_ns)
        switches += int(slices)
    return total, waited, switches


class WorkClock:
    """The CPU that a process and all below it have used, exact at any moment, at a microsecond each."""

    def __init__(self, root_pid: int) -> None:
        # Linux's id of the CPU clock of a whole process: CPUCLOCK_SCHED under the inverted pid
        # (MAKE_PROCESS_CPUCLOCK of its posix-timers.h); Python has no clock_getcpuclockid.
        self._clocks = [~pid << 3 | 2 for pid in process_tree(root_pid)]

    def read_ns(self) -> int | None:
        """Give their CPU so far; None once one of them has ended."""
        try:
            return sum(map(time.clock_gettime_ns, self._clocks))
        except OSError:
            return None
