"""Processes that the harness starts, watches and stops.

Knows no load and no DynamoDB.

Invariants:
1. A child says it is ready by printing its port on its first line of output.
2. Leaving the context stops the child: its standard input is closed, then it is asked, then it is killed.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from perf.load.load_plan import LoadPlan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
_STOP_TIMEOUT_S = 5.0


class ChildError(Exception):
    """A process that was started did not come up."""


@contextlib.contextmanager
def module_process(module: str, arguments: Sequence[str] = ()) -> Iterator[tuple[int, int]]:
    """Run a module of this project that prints its port; give its pid and port.

    Raises:
        ChildError: it ended, or printed something else.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line.isdigit():
            raise ChildError(f"{module} printed {line[:64]!r} instead of its port")
        yield process.pid, int(line)
    finally:
        stop(process)


def run_load(plan: LoadPlan) -> dict[str, Any]:
    """Run a generator over a plan; give its report.

    Raises:
        ChildError: it failed.
    """
    # The time to connect and to drain comes on top of what the plan says.
    limit_s = plan.warmup_s + plan.duration_s + 60
    ended = subprocess.run(
        [sys.executable, "-m", "perf.load.generator"],
        cwd=ROOT,
        input=orjson.dumps(plan.to_json()),
        stdout=subprocess.PIPE,
        timeout=limit_s,
        check=False,
    )
    if ended.returncode:
        raise ChildError(f"the generator ended with {ended.returncode}")
    report: dict[str, Any] = orjson.loads(ended.stdout)
    return report


def stop(process: subprocess.Popen[str]) -> None:
    """End a child, at first kindly."""
    if process.stdin is not None:
        process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_TIMEOUT_S)
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
