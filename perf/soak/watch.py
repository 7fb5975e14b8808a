"""What workers hold: memory and descriptors, read from /proc, and how they grow.

Invariants:
1. A worker that ended has its samples up to then; one that lived for less than half of the time has no slope.
2. Slopes leave the warm-up out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_PROC = Path("/proc")
_WARM_UP_SHARE = 1 / 6
_ENOUGH = 10


@dataclass
class Samples:
    """One worker's samples: seconds since the beginning, RSS and private memory in MiB, descriptors."""

    times_s: list[float] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    private_mib: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)


class Watch:
    """Samples the workers of one server."""

    def __init__(self, server_pid: int) -> None:
        self._server_pid = server_pid
        self._began_s = time.monotonic()
        self.samples: dict[int, Samples] = {}

    def workers(self) -> list[int]:
        """Give the workers' processes."""
        return children(self._server_pid)

    def sample(self) -> None:
        """Read all workers."""
        now_s = time.monotonic() - self._began_s
        for pid in self.workers():
            try:
                rss, private = _memory_mib(pid)
                descriptors = len(list((_PROC / str(pid) / "fd").iterdir()))
            except OSError:
                continue  # it has just ended
            samples = self.samples.setdefault(pid, Samples())
            samples.times_s.append(now_s)
            samples.rss_mib.append(rss)
            samples.private_mib.append(private)
            samples.descriptors.append(descriptors)

    def report(self) -> list[dict[str, Any]]:
        """Give each worker's growth, those that lived longest first."""
        length_s = time.monotonic() - self._began_s
        found = [_growth(number, each, length_s) for number, each in enumerate(self.samples.values())]
        return sorted(found, key=lambda each: -float(each["lived_s"]))


def children(pid: int) -> list[int]:
    """Give a process's children."""
    try:
        return [int(child) for child in (_PROC / f"{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _memory_mib(pid: int) -> tuple[float, float]:
    found = {}
    for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) / 1024
    return found["Rss"], found["Private_Clean"] + found["Private_Dirty"]


def _growth(number: int, samples: Samples, length_s: float) -> dict[str, Any]:
    times = np.array(samples.times_s)
    lived_s = float(times[-1] - times[0])
    report: dict[str, Any] = {
        "worker": number,
        "lived_s": round(lived_s, 1),
        "rss_mib": [samples.rss_mib[0], samples.rss_mib[-1], max(samples.rss_mib)],
        "private_mib": [samples.private_mib[0], samples.private_mib[-1]],
        "descriptors": [samples.descriptors[0], samples.descriptors[-1], max(samples.descriptors)],
    }
    settled = times > times[0] + _WARM_UP_SHARE * length_s
    if lived_s < length_s / 2 or settled.sum() < _ENOUGH:
        return report
    hours = times[settled] / 3600
    for name in ("rss_mib", "private_mib", "descriptors"):
        values = np.array(getattr(samples, name), float)[settled]
        report[f"{name}_per_h"] = round(float(np.polyfit(hours, values, 1)[0]), 3)
        halves = np.array_split(values, 2)
        report[f"{name}_halves"] = [round(float(np.median(half)), 2) for half in halves]
    return report
