"""Work that must not happen in the process that will fork workers: opening stores, event loops, threads.

It is done in a forked child, whose errors come back as the parent's own.

Invariants
1. The child never returns into the parent's code: it leaves the process whatever happens.
2. A DefinitionError or StoreError raised by the work is raised by `run_in_child` with the same text.
3. The child doesn't outlive `run_in_child`: whoever interrupts or terminates the parent ends both.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from fastserve.errors import DefinitionError, FastserveError, InvariantError, StoreError

# A terminal interrupts both processes, `kill` only the parent: then it passes it on after so long.
GRACE_S = 1.0
POLL_S = 0.02
TERMINATED = 128 + signal.SIGTERM

_KINDS: dict[str, Callable[[str], FastserveError]] = {
    "definition": DefinitionError,
    "store": StoreError,
    "unforeseen": InvariantError,
}


def run_in_child(work: Callable[[], None]) -> None:
    """Run ``work`` in a forked child and wait for it.

    Raises:
        DefinitionError: the work did.
        StoreError: the work did.
        InvariantError: the work ended in another way; its traceback is on stderr.
        KeyboardInterrupt: the work, or this process, was interrupted.
        SystemExit: this process was told to terminate.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_fd)
        _work_and_leave(work, write_fd)
    os.close(write_fd)
    previous = signal.signal(signal.SIGTERM, handle_terminate)
    try:
        with os.fdopen(read_fd, encoding="utf-8") as pipe:
            kind, _, message = pipe.read().partition(" ")
        os.waitpid(child, 0)
    except (KeyboardInterrupt, SystemExit) as ending:
        _interrupt(child, 0.0 if isinstance(ending, SystemExit) else GRACE_S)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    if kind == "interrupted":
        raise KeyboardInterrupt
    if kind != "done":
        raise _KINDS.get(kind, InvariantError)(message or "a child process ended without a word")


def handle_terminate(_number: int, _frame: object) -> NoReturn:
    """Leave by way of every `finally` that is on the stack."""
    raise SystemExit(TERMINATED)


def _interrupt(child: int, grace_s: float) -> None:
    """Wait for a child that may be ending by itself; interrupt it after ``grace_s``."""
    end_s = time.monotonic() + grace_s
    while time.monotonic() < end_s:
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(POLL_S)
    os.kill(child, signal.SIGINT)
    os.waitpid(child, 0)


def _work_and_leave(work: Callable[[], None], fd: int) -> NoReturn:
    report = "unforeseen a child process failed; the traceback above belongs into the report"
    try:
        work()
        report = "done"
    except DefinitionError as error:
        report = f"definition {error}"
    except FastserveError as error:
        report = f"store {error}"
    except KeyboardInterrupt:
        report = "interrupted"
    except BaseException:  # noqa: BLE001 - a child that returned would go on as a second parent
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(fd, report.encode("utf-8", "replace"))
        os._exit(0)
