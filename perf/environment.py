"""Where and with what a measurement was made, so that its figures can be read later.

Invariants:
1. Nothing here names a person, a host or a path.
"""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastserve.compiled import has_loops, is_compiled
from perf.load.child import ROOT

_PACKAGES = ("uvloop", "httptools", "orjson", "numpy", "pybase64", "isal")


def describe_environment() -> dict[str, Any]:
    """Give machine, versions, commit and date."""
    return {"machine": _machine(), "versions": _versions(), "commit": _commit(), "date": _date()}


def _date() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _machine() -> dict[str, Any]:
    return {
        "cpu": _cpu_name(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _versions() -> dict[str, Any]:
    found = {
        "python": platform.python_version(),
        "python_build": " ".join(platform.python_build()),
        "compiled": is_compiled(),
        "loops": has_loops(),
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str:
    try:
        name = _git("rev-parse", "--short=12", "HEAD")
        return name + ("-dirty" if _git("status", "--porcelain", "--", "fastserve", "perf") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()
