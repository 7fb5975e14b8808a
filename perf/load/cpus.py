"""CPUs for the server alone, as in service, and none that sleeps, as on hosts that are tuned for latency.

Without the first the kernel moves three busy processes between two CPUs as it likes, and a request waits for
the generator to give up the CPU that its worker was on; clients and store have other machines in service.
What else the machine runs is kept off these CPUs by `perf.load.clear_cpus`.

Without the second a CPU stops as soon as it has nothing to do. To wake it takes a virtual machine tens of
microseconds, after which its caches are cold: at 300 requests a second the server took 510 to 720 us of
CPU each, and 370 to 400 where CPUs were kept awake. Hosts that are tuned for latency don't let them sleep
(tuned's profile latency-performance), and cyclictest measures in the same way: whoever holds the file below
open may write how many microseconds waking may take, and 0 keeps them running
(https://docs.kernel.org/power/pm_qos_interface.html).

Invariants:
1. Where there are no more CPUs than the server has workers nothing is kept apart.
2. On leaving, everything may run where it did before, and CPUs sleep again; if this process is killed, too.
3. Where the machine doesn't let us, CPUs sleep; `can_keep_awake` tells.
"""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from perf.load.child import ROOT, ChildError
from perf.load.processes import process_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


LATENCY_LIMIT = Path("/dev/cpu_dma_latency")


def can_keep_awake() -> bool:
    """Tell whether this process may keep CPUs awake, by doing it for a moment."""
    with contextlib.ExitStack() as stack:
        return _keep_awake(stack)


@contextlib.contextmanager
def kept_awake() -> Iterator[None]:
    """Let no CPU sleep, where the machine lets us."""
    with contextlib.ExitStack() as stack:
        _keep_awake(stack)
        yield


def _keep_awake(stack: contextlib.ExitStack) -> bool:
    try:
        limit = stack.enter_context(LATENCY_LIMIT.open("r+b", buffering=0))
        limit.write(struct.pack("i", 0))
    except OSError:
        return False
    return True


@contextlib.contextmanager
def kept_apart(workers: int, *, alone: bool) -> Iterator[Callable[[int], None]]:
    """Leave as many CPUs as a server has workers to it; whatever is started within runs on the others.

    ``alone`` keeps what else the machine runs off them, too, as far as it lets us: not beside other tests.
    Gives what tells it a server's pid, once it is up.

    Raises:
        ChildError: what keeps others off did not come up.
    """
    all_cpus = os.sched_getaffinity(0)
    own = set(sorted(all_cpus)[-workers:])
    if len(own) == len(all_cpus):
        yield lambda _pid: None
        return
    os.sched_setaffinity(0, all_cpus - own)
    try:
        with _cleared(own) if alone else contextlib.nullcontext():
            yield lambda pid: _move(pid, own)
    finally:
        os.sched_setaffinity(0, all_cpus)


@contextlib.contextmanager
def _cleared(cpus: set[int]) -> Iterator[None]:
    command = [sys.executable, "-m", "perf.load.clear_cpus", *map(str, cpus)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        moved = process.stdout.readline().strip()
        if not moved.isdigit():
            raise ChildError(f"perf.load.clear_cpus: expected how many threads it moved, got {moved[:64]!r}")
        yield


def _move(root_pid: int, cpus: set[int]) -> None:
    """Let a process tree run on these CPUs, each thread of it."""
    for pid in process_tree(root_pid):
        with contextlib.suppress(OSError):  # it has ended
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), cpus)
