"""A process that keeps all others off some CPUs, kernel threads included, until its standard input ends.

A busy server's CPU was taken by threads of the kernel (reclaiming memory, RCU, work queues) for 5 to 9 ms
once or twice a second, which made 1 % of all refusals late. Hosts that are tuned for latency keep them off
(docs/operating.md, Hosts). Interrupts stay where they are. It is a process of its own so that all is put back
however whoever started it ends.

Run as `python -m perf.load.clear_cpus CPU...`; it prints how many threads it has moved, as far as the machine
lets it: without privileges, the user's own.

Invariants:
1. What may run nowhere else stays: each CPU has kernel threads of its own.
2. At its end what was moved may run where it did before, and so may what has begun since and inherited less:
   where that is all it knows, also what a thread that wasn't moved has begun there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

# One bit for each CPU on which the kernel may do work that is bound to none, in hexadecimal.
WORK_QUEUES = Path("/sys/devices/virtual/workqueue/cpumask")


# Threads begin while they are gone through.
MAX_PASSES = 5


class ClearedCpus:
    """Moves the threads that ``threads`` names off some CPUs, as far as they may be moved, and back."""

    def __init__(
        self, cpus: Collection[int], threads: Callable[[], Iterable[int]], work_queues: Path
    ) -> None:
        self._cpus = frozenset(cpus)
        self._threads = threads
        self._work_queues = work_queues
        # Also of those that weren't moved: one whose place has always been the rest is given no more.
        self._before: dict[int, frozenset[int]] = {}
        # For threads that begin later: they inherit the rest, and what there was before is told by that.
        self._before_by_rest: dict[frozenset[int], frozenset[int]] = {}
        self._work_before: str | None = None
        self.moved = 0

    def clear(self) -> None:
        """Move them, those too that have begun meanwhile."""
        self._work_before = self._move_work()
        for _ in range(MAX_PASSES):
            moved = sum([self._move(thread) for thread in self._threads()])
            self.moved += moved
            if not moved:
                return

    def _move(self, thread: int) -> bool:
        with contextlib.suppress(OSError):  # it has ended, or mustn't be moved
            before = frozenset(os.sched_getaffinity(thread))
            rest = before - self._cpus
            self._before.setdefault(thread, before)
            if rest and rest != before:
                os.sched_setaffinity(thread, rest)
                self._before_by_rest.setdefault(rest, before)
                return True
        return False

    def _move_work(self) -> str | None:
        with contextlib.suppress(OSError, ValueError):
            before = self._work_queues.read_text()
            mask = int(before.replace(",", ""), 16)
            rest = mask & ~sum(1 << cpu for cpu in self._cpus)
            if rest and rest != mask:
                self._work_queues.write_text(_mask_text(rest))
                return before
        return None

    def put_back(self) -> None:
        """Let all run where they did."""
        for _ in range(MAX_PASSES):
            if not sum([self._put_back(thread) for thread in self._threads()]):
                break
        if self._work_before is not None:
            with contextlib.suppress(OSError):
                self._work_queues.write_text(self._work_before)

    def _put_back(self, thread: int) -> bool:
        with contextlib.suppress(OSError):
            now = frozenset(os.sched_getaffinity(thread))
            before = self._before.get(thread, self._before_by_rest.get(now, now))
            if before != now and now in self._before_by_rest:
                os.sched_setaffinity(thread, before)
                return True
        return False


def _mask_text(mask: int) -> str:
    digits = f"{mask:x}"
    digits = digits.zfill(-len(digits) % 8 + len(digits)) if len(digits) > 8 else digits  # words of 32 bits
    return ",".join(digits[at : at + 8] for at in range(0, len(digits), 8))


def all_threads() -> Iterator[int]:
    """Give the ids of all threads of the machine, the kernel's included."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                yield from [int(thread.name) for thread in (process / "task").iterdir()]


def main() -> None:
    """Clear the CPUs that the arguments name until standard input ends."""
    # Sent to whole process groups, by a terminal or by who ends the starter: this ends by its standard input.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    cleared = ClearedCpus([int(cpu) for cpu in sys.argv[1:]], all_threads, WORK_QUEUES)
    try:
        cleared.clear()
        print(cleared.moved, flush=True)  # which fails where the starter has gone
        sys.stdin.read()
    finally:
        cleared.put_back()


if __name__ == "__main__":
    main()
