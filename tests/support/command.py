"""A `fastserve` command as a process of its own, whose output is read while it runs.

Invariants
1. The process ends with the `with` block, whatever happens in it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
POLL_S = 0.02


class Command:
    """A running command; its output goes to files beside each other in ``folder``."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process = process
        self._folder = folder

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return (self._folder / "out").read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        """What it has complained of so far."""
        return (self._folder / "err").read_text(encoding="utf-8")

    def wait_for(self, pattern: str, timeout_s: float = 30.0) -> re.Match[str]:
        """Return the first match in its output or complaints; fail when it ends without."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            ended = self.process.poll() is not None
            if match := re.search(pattern, self.out) or re.search(pattern, self.err):
                return match
            assert not ended, f"ended with {self.process.returncode}:\n{self.out}\n{self.err}"
            time.sleep(POLL_S)
        raise AssertionError(f"no {pattern} in {timeout_s} s:\n{self.out}\n{self.err}")

    def end(self, number: int, timeout_s: float = 15.0) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout_s)


@contextmanager
def running(folder: Path, *argv: str, environ: Mapping[str, str] | None = None) -> Iterator[Command]:
    """Run ``fastserve`` with ``argv`` in ``folder``, with no more of the environment than it needs."""
    logs = folder / f"command-{time.monotonic_ns()}"
    logs.mkdir(parents=True)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | dict(environ or {})
    with (logs / "out").open("wb") as out, (logs / "err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "fastserve", *argv], cwd=folder, env=environment, stdout=out, stderr=err
        )
    try:
        yield Command(process, logs)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
