"""The first process: binds the listener, forks the workers and keeps their number, until it is told to stop.

It knows nothing of HTTP, and runs no event loop, thread or connection, which a fork would break.

Invariants:
1. Signals only queue: a handler does nothing, the number comes through a pipe, and one loop acts on it.
2. Every child is reaped, also a stranger's (as process 1 of a container it inherits those).
3. No worker outlives it: each holds the reading end of a pipe whose writing end only the arbiter holds.
4. Until the server has been ready once, a worker that can't start ends it with the reason; later it is
   started again, with a growing delay, as long as any other worker serves.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from time import monotonic, monotonic_ns
from typing import NoReturn

from fastserve.errors import DefinitionError, InvariantError
from fastserve.server.listener import bind_listener, listener_url
from fastserve.server.options import ServerOptions
from fastserve.server.shared_memory import Cell, SharedMemory, State
from fastserve.server.worker import BOOT_FAILED, BeforeLoop, Boot, Inheritance, run_worker

CANNOT_LISTEN = 1
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
POLL_S = 0.5
# A worker that lived this long died of something new: its successor starts at once.
STABLE_S = 10.0
BACKOFF_S = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
# After the workers' own limit, for what they do once it has passed.
KILL_DELAY_S = 2.0
ABORT_DELAY_S = 1.0


def run(options: ServerOptions, boot: Boot, before_loop: BeforeLoop | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    ``boot`` is called in each worker, inside its event loop; what it closes over is made before the fork and
    shared. ``before_loop`` is called in each worker before that loop exists.
    0 is a graceful end, 1 an address that can't be listened on, 3 a worker that can't start.
    """
    try:
        listener = bind_listener(options)
    except DefinitionError as error:
        tell(error.message)
        return CANNOT_LISTEN
    with listener:
        return Arbiter(options, boot, listener, before_loop).run()


def tell(line: str) -> None:
    """Write one line for the operator."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class Slot:
    """A worker's place, whoever fills it now."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.pid = 0
        self.started_s = 0.0
        self.start_at_s = 0.0
        self.deaths = 0
        self.kill_at_s: float | None = None
        self.was_ready = False


class Arbiter:
    """The parent of the workers."""

    def __init__(
        self,
        options: ServerOptions,
        boot: Boot,
        listener: socket.socket,
        before_loop: BeforeLoop | None = None,
    ) -> None:
        self._options = options
        self._listener = listener
        self._memory = SharedMemory(options.workers)
        self._slots = [Slot(index) for index in range(options.workers)]
        self._wake_read, self._wake_write = _nonblocking_pipe()
        lifeline_read, self._lifeline_write = os.pipe()
        self._inheritance = Inheritance(
            options, boot, listener, self._memory, lifeline_read, self._wake_write, before_loop
        )
        self._stop_deadline_s: float | None = None
        self._exit_code = 0
        self._was_ready = False

    def run(self) -> int:
        """Fork the workers and look after them; return the exit code."""
        previous = [(number, signal.signal(number, handle_signal)) for number in SIGNALS]
        previous_fd = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        gc.collect()
        gc.freeze()  # the collector would write into pages that all workers share
        try:
            while not self._is_over():
                self._step()
        finally:
            signal.set_wakeup_fd(previous_fd)
            for number, handler in previous:
                signal.signal(number, handler)
            gc.unfreeze()
            for fd in (
                self._wake_read,
                self._wake_write,
                self._lifeline_write,
                self._inheritance.lifeline_fd,
            ):
                os.close(fd)
        return self._exit_code

    def _is_over(self) -> bool:
        return self._stop_deadline_s is not None and not any(slot.pid for slot in self._slots)

    def _step(self) -> None:
        """One turn: fork who is missing, sleep until something happens, act on it."""
        if self._stop_deadline_s is None:
            self._top_up()
        self._wait()
        self._reap()
        if self._stop_deadline_s is None:
            self._check_ready()
            self._check_silent()
        self._check_deadlines()

    # --- forking ---

    def _top_up(self) -> None:
        now_s = monotonic()
        for slot in self._slots:
            if not slot.pid and now_s >= slot.start_at_s:
                self._fork(slot)

    def _fork(self, slot: Slot) -> None:
        row = self._memory.workers[slot.index]
        row.clear()
        row[Cell.STATE] = State.BOOTING
        row[Cell.STARTED_NS] = monotonic_ns()
        slot.started_s = monotonic()
        slot.was_ready = False
        slot.kill_at_s = None
        # A signal between the fork and the child's own handlers would come through the pipe like one of ours.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            slot.pid = os.fork()
            if slot.pid == 0:
                self._become_worker(slot.index)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        row[Cell.PID] = slot.pid

    def _become_worker(self, index: int) -> NoReturn:
        """Go on as a worker and never return to the arbiter's code."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            os.close(self._lifeline_write)
            os.close(self._wake_read)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            code = run_worker(self._inheritance, index)
        except BaseException:  # noqa: BLE001 - nothing may get back into the arbiter's frames
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    # --- watching ---

    def _wait(self) -> None:
        now_s = monotonic()
        times = [slot.start_at_s - now_s for slot in self._slots if not slot.pid]
        select.select([self._wake_read], [], [], max(0.0, min([POLL_S, *times])))
        while numbers := _read_available(self._wake_read):
            if signal.SIGTERM in numbers or signal.SIGINT in numbers:
                self._stop(signal.SIGINT in numbers)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for slot in self._slots:
                if slot.pid == pid:
                    self._on_death(slot, os.waitstatus_to_exitcode(status))

    def _on_death(self, slot: Slot, code: int) -> None:
        pid, slot.pid = slot.pid, 0
        row = self._memory.workers[slot.index]
        was_ready = slot.was_ready or row.state is State.READY
        row.clear()
        if self._stop_deadline_s is not None:
            return
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if not was_ready and not self._serves_without(slot):
            self._fail(f"worker {slot.index} (pid {pid}) could not start ({how}); stopping")
            return
        now_s = monotonic()
        slot.deaths = 1 if now_s - slot.started_s > STABLE_S else slot.deaths + 1
        delay_s = BACKOFF_S[min(slot.deaths, len(BACKOFF_S)) - 1]
        slot.start_at_s = now_s + delay_s
        tell(f"worker {slot.index} (pid {pid}) died ({how}); starting another in {delay_s:g} s")

    def _serves_without(self, slot: Slot) -> bool:
        """Whether the server was ready once and another worker serves now."""
        rows = [row for index, row in enumerate(self._memory.workers) if index != slot.index]
        return self._was_ready and any(row.state is State.READY for row in rows)

    def _check_ready(self) -> None:
        for slot in self._slots:
            if self._memory.workers[slot.index].state is State.READY:
                slot.was_ready = True
        if not self._was_ready and all(slot.was_ready and slot.pid for slot in self._slots):
            self._was_ready = True
            count = len(self._slots)
            workers = "1 worker" if count == 1 else f"{count} workers"
            tell(f"listening on {listener_url(self._listener)} with {workers}")

    def _check_silent(self) -> None:
        """Kill a worker that doesn't beat, or that doesn't get ready."""
        now_s, now_ns = monotonic(), monotonic_ns()
        for slot in self._slots:
            if not slot.pid or slot.kill_at_s is not None:
                continue
            silence_s = self._memory.workers[slot.index].silence_s(now_ns)
            if slot.was_ready and silence_s > self._options.heartbeat_timeout_s:
                tell(f"worker {slot.index} (pid {slot.pid}) was silent for {silence_s:.1f} s: killing it")
                _kill(slot.pid, signal.SIGABRT)  # its fault handler shows where it was stuck
                slot.kill_at_s = now_s + ABORT_DELAY_S
            elif not slot.was_ready and now_s - slot.started_s > self._options.boot_timeout_s:
                limit_s = self._options.boot_timeout_s
                tell(f"worker {slot.index} (pid {slot.pid}) was not ready in {limit_s:g} s: killing it")
                slot.kill_at_s = now_s

    # --- stopping ---

    def _stop(self, by_interrupt: bool) -> None:
        now_s = monotonic()
        if self._stop_deadline_s is None:
            self._memory.arbiter[Cell.STATE] = State.DRAINING
            self._stop_deadline_s = now_s + self._options.shutdown_timeout_s + KILL_DELAY_S
            self._listener.close()
            for slot in self._slots:
                _kill(slot.pid, signal.SIGTERM)
        elif by_interrupt:
            self._stop_deadline_s = now_s  # asked twice at a terminal: now

    def _fail(self, reason: str) -> None:
        tell(reason)
        self._exit_code = BOOT_FAILED
        self._stop(by_interrupt=False)

    def _check_deadlines(self) -> None:
        now_s = monotonic()
        for slot in self._slots:
            is_stopped = self._stop_deadline_s is not None and now_s >= self._stop_deadline_s
            if is_stopped or (slot.kill_at_s is not None and now_s >= slot.kill_at_s):
                _kill(slot.pid, signal.SIGKILL)


def handle_signal(_number: int, _frame: object) -> None:
    """Do nothing: the wake-up pipe has the number."""


def _kill(pid: int, number: signal.Signals) -> None:
    if pid < 0:
        raise InvariantError(f"expected a worker's pid, got {pid}")
    if pid:
        with suppress(ProcessLookupError):  # it is being reaped
            os.kill(pid, number)


def _nonblocking_pipe() -> tuple[int, int]:
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    os.set_blocking(write_fd, False)
    return read_fd, write_fd


def _read_available(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except BlockingIOError:
        return b""
