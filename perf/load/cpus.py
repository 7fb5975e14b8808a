"""CPUs for the server alone: as in service, where clients and store have machines of their own.

Without it the kernel moves three busy processes between two CPUs as it likes, and a request waits for the
generator to give up the CPU that its worker was on.

Invariants:
1. Where there are no more CPUs than the server has workers nothing is kept apart.
2. On leaving, this process may run where it did before.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from perf.load.processes import process_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def kept_apart(workers: int) -> Iterator[Callable[[int], None]]:
    """Leave as many CPUs as a server has workers to it; whatever is started within runs on the others.

    Gives what tells it a server's pid, once it is up.
    """
    all_cpus = os.sched_getaffinity(0)
    own = set(sorted(all_cpus)[-workers:])
    if len(own) == len(all_cpus):
        yield lambda _pid: None
        return
    os.sched_setaffinity(0, all_cpus - own)
    try:
        yield lambda pid: _move(pid, own)
    finally:
        os.sched_setaffinity(0, all_cpus)


def _move(root_pid: int, cpus: set[int]) -> None:
    """Let a process tree run on these CPUs, each thread of it."""
    for pid in process_tree(root_pid):
        with contextlib.suppress(OSError):  # it has ended
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), cpus)
