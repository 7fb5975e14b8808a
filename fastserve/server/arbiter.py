"""The first process: binds the listener, forks the workers, keeps their number, replaces them on SIGHUP.

It knows nothing of HTTP, and runs no event loop, thread or connection, which a fork would break.

Invariants:
1. Signals only queue: a handler does nothing, the number comes through a pipe, and one loop acts on it.
2. Every child is reaped, also a stranger's (as process 1 of a container it inherits those).
3. No worker outlives it: each holds the reading end of a pipe whose writing end only the arbiter holds.
4. Until the server has been ready once, a worker that can't start ends it with the reason; later it is
   started again, with a growing delay, as long as any other worker serves.
5. A reload never leaves fewer workers serving: the new generation is ready before the old one drains. One
   that can't be read, compiled or started leaves the old one as it is, and stderr says why.
6. One worker at a time is replaced for what it has served or holds, and none while a reload is under way:
   its successor is ready before it drains.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from time import monotonic, monotonic_ns
from typing import NoReturn

from fastserve.errors import DefinitionError, FastserveError, InvariantError
from fastserve.server.generation import Definitions, Generation, Reload, Slot, worker_rows
from fastserve.server.listener import bind_admin, bind_listener, listener_url
from fastserve.server.log_format import tell
from fastserve.server.options import ServerOptions
from fastserve.server.recycling import MIB, Limits, draw_limits, rss_bytes
from fastserve.server.shared_memory import Cell, SharedMemory, State
from fastserve.server.worker import BOOT_FAILED, Inheritance, run_worker

CANNOT_LISTEN = 1
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP)
POLL_S = 0.5
# A worker that lived this long died of something new: its successor starts at once.
STABLE_S = 10.0
BACKOFF_S = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
# After the workers' own limit, for what they do once it has passed.
KILL_DELAY_S = 2.0
ABORT_DELAY_S = 1.0
# After a worker that was to take another's place could not start.
RECYCLE_AGAIN_S = 10.0


def run(definitions: Definitions, reload: Reload | None = None) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    ``reload`` is called on SIGHUP, first in a child of its own, then here; host, port and the number of
    workers stay what they were.
    0 is a graceful end, 1 an address that can't be listened on, 3 a worker that can't start.
    """
    with ExitStack() as closing:
        try:
            listener = closing.enter_context(bind_listener(definitions.options))
            admin = bind_admin(definitions.options)
        except DefinitionError as error:
            tell(error.message)
            return CANNOT_LISTEN
        if admin is not None:
            closing.enter_context(admin)
        return Arbiter(definitions, listener, reload, admin).run()


class Arbiter:
    """The parent of the workers."""

    def __init__(
        self,
        definitions: Definitions,
        listener: socket.socket,
        reload: Reload | None = None,
        admin: socket.socket | None = None,
    ) -> None:
        self._options: ServerOptions = definitions.options
        self._listener = listener
        self._admin = admin
        self._memory = SharedMemory(worker_rows(self._options))
        self._wake_read, self._wake_write = _nonblocking_pipe()
        self._lifeline_read, self._lifeline_write = os.pipe()
        # The generation that serves, then the one that is to follow it or the one that leaves.
        self._generations: list[Generation] = []
        # The worker that is to take another's place, and whose; then the one that left its place.
        self._successor: tuple[Slot, Slot] | None = None
        self._predecessor: Slot | None = None
        self._recycle_at_s = 0.0
        self._generations.append(self._generation(0, definitions))
        self._reload = reload
        self._trial = 0  # pid of the child that tries a reload
        self._trial_until_s = 0.0
        self._reload_wanted = False
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
                self._lifeline_read,
            ):
                os.close(fd)
        return self._exit_code

    def _generation(self, number: int, definitions: Definitions) -> Generation:
        inheritance = Inheritance(
            definitions.options,
            definitions.boot,
            self._listener,
            self._memory,
            self._lifeline_read,
            self._wake_write,
            definitions.before_loop,
            self._admin,
            definitions.tls,
        )
        return Generation(number, self._free_rows()[: self._options.workers], inheritance)

    def _free_rows(self) -> list[int]:
        taken = {slot.index for slot in self._slots}
        return [index for index in range(len(self._memory.workers)) if index not in taken]

    @property
    def _current(self) -> Generation:
        return self._generations[0]

    @property
    def _slots(self) -> list[Slot]:
        slots = [slot for generation in self._generations for slot in generation.slots]
        if self._successor is not None:
            slots.append(self._successor[0])
        if self._predecessor is not None:
            slots.append(self._predecessor)
        return slots

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
            self._check_generations()
            self._check_recycling()
        self._check_deadlines()

    # --- forking ---

    def _top_up(self) -> None:
        now_s = monotonic()
        for generation in self._generations:
            for slot in generation.slots:
                if not slot.pid and not generation.is_leaving and now_s >= slot.start_at_s:
                    self._fork(slot, generation.inheritance)

    def _fork(self, slot: Slot, inheritance: Inheritance) -> None:
        row = self._memory.workers[slot.index]
        row.clear()
        row[Cell.STATE] = State.BOOTING
        row[Cell.STARTED_NS] = monotonic_ns()
        slot.started_s = monotonic()
        slot.was_ready = False
        slot.kill_at_s = None
        slot.limits = draw_limits(inheritance.options)
        # A signal between the fork and the child's own handlers would come through the pipe like one of ours.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            slot.pid = os.fork()
            if slot.pid == 0:
                self._become_child(lambda: run_worker(inheritance, slot.index))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        row[Cell.PID] = slot.pid

    def _become_child(self, work: Callable[[], int]) -> NoReturn:
        """Go on as a worker, or with a trial, and never return to the arbiter's code."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            os.close(self._lifeline_write)
            os.close(self._wake_read)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            code = work()
        except BaseException:  # noqa: BLE001 - nothing may get back into the arbiter's frames
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    # --- watching ---

    def _wait(self) -> None:
        now_s = monotonic()
        staying = [generation for generation in self._generations if not generation.is_leaving]
        missing = [slot for generation in staying for slot in generation.slots if not slot.pid]
        times = [slot.start_at_s - now_s for slot in missing]
        select.select([self._wake_read], [], [], max(0.0, min([POLL_S, *times])))
        while numbers := _read_available(self._wake_read):
            if signal.SIGTERM in numbers or signal.SIGINT in numbers:
                self._stop(signal.SIGINT in numbers)
            elif signal.SIGHUP in numbers and self._reload is None:
                self._stop(by_interrupt=False)  # as of a terminal that was closed
            elif signal.SIGHUP in numbers:
                self._reload_wanted = True

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            if pid == self._trial:
                self._on_trial(code)
            self._on_recycled_death(pid, code)
            for generation in list(self._generations):
                for slot in generation.slots:
                    if slot.pid == pid:
                        self._on_death(generation, slot, code)

    def _on_death(self, generation: Generation, slot: Slot, code: int) -> None:
        pid, slot.pid = slot.pid, 0
        row = self._memory.workers[slot.index]
        was_ready = slot.was_ready or row.state is State.READY
        row.clear()
        if self._stop_deadline_s is not None or generation.is_leaving:
            return
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if generation is not self._current and not was_ready:
            self._give_up(generation, f"worker {slot.index} (pid {pid}) could not start ({how})")
            return
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
            if not slot.was_ready and self._memory.workers[slot.index].state is State.READY:
                slot.was_ready = True
                self._check_limits(slot)
        if not self._was_ready and self._current.is_ready:
            self._was_ready = True
            if self._admin is not None:
                tell(f"admin pages on {listener_url(self._admin)}")
            scheme = "http" if self._current.inheritance.tls is None else "https"
            tell(f"listening on {listener_url(self._listener, scheme)} with {self._workers}")

    @property
    def _workers(self) -> str:
        count = self._options.workers
        return "1 worker" if count == 1 else f"{count} workers"

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

    # --- reloading ---

    def _check_generations(self) -> None:
        """Let a generation that is ready take over, forget one that has gone, begin a reload when it may."""
        for following in self._generations[1:]:
            if following.is_leaving and following.is_gone:
                self._generations.remove(following)
            elif not following.is_leaving and following.is_ready:
                self._take_over(following)
        if self._reload_wanted and self._was_ready and self._is_settled:
            self._reload_wanted = False
            self._try_reload()

    def _try_reload(self) -> None:
        """Read the definitions in a child first: whatever they do there, this process goes on."""
        reload = self._reload
        if reload is None:
            return
        tell("SIGHUP: reading the definitions anew")
        self._trial_until_s = monotonic() + self._options.boot_timeout_s
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._trial = os.fork()
            if self._trial == 0:
                self._become_child(lambda: _tried(reload))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _on_trial(self, code: int) -> None:
        self._trial = 0
        if self._stop_deadline_s is not None or self._reload is None:
            return
        if code != 0:
            tell(f"not reloaded (exit code {code}); what served before goes on")
            return
        gc.unfreeze()
        try:
            definitions = self._reload()
        except BaseException as error:  # noqa: BLE001 - an author's code may fail now that did not
            if not isinstance(error, FastserveError):  # nobody foresaw it: show where
                traceback.print_exc()
            tell(f"not reloaded: {str(error) or type(error).__name__}; what served before goes on")
            return
        finally:
            gc.collect()
            gc.freeze()
        self._generations.append(self._generation(self._current.number + 1, definitions))

    def _take_over(self, generation: Generation) -> None:
        self._leave(self._current)
        self._generations = [generation, *(each for each in self._generations if each is not generation)]
        tell(f"reloaded: {self._workers} of generation {generation.number} serve; the ones before drain")

    def _give_up(self, generation: Generation, reason: str) -> None:
        tell(f"not reloaded: {reason}; what served before goes on")
        self._leave(generation)

    def _leave(self, generation: Generation) -> None:
        generation.is_leaving = True
        for slot in generation.slots:
            self._dismiss(slot)

    def _dismiss(self, slot: Slot) -> None:
        slot.kill_at_s = monotonic() + self._options.shutdown_timeout_s + KILL_DELAY_S
        _kill(slot.pid, signal.SIGTERM)

    # --- replacing a worker that has served enough ---

    @property
    def _is_settled(self) -> bool:
        """Whether neither a reload nor a worker's replacement is under way."""
        is_recycling = self._successor is not None or self._predecessor is not None
        return len(self._generations) == 1 and not self._trial and not is_recycling

    def _check_limits(self, slot: Slot) -> None:
        """Give up a limit of memory that a worker is beyond as soon as it is ready."""
        limit_bytes = slot.limits.rss_bytes
        if limit_bytes is not None and (held_bytes := rss_bytes(slot.pid)) >= limit_bytes:
            slot.limits = Limits(slot.limits.requests, None)
            held = f"holds {held_bytes // MIB} MB before its first request"
            tell(f"worker {slot.index} (pid {slot.pid}) {held}: max_rss_mb is too low, and is left out")

    def _check_recycling(self) -> None:
        if self._successor is not None and self._successor[0].was_ready:
            self._succeed(*self._successor)
        if self._is_settled and not self._reload_wanted and monotonic() >= self._recycle_at_s:
            for slot in self._current.slots:
                if slot.was_ready and slot.pid and slot.kill_at_s is None and self._recycle(slot):
                    return

    def _recycle(self, slot: Slot) -> bool:
        """Fork a worker for the place of one that has reached a limit; return whether it has."""
        reason = slot.limits.reason(self._memory.workers[slot.index][Cell.ANSWERS], slot.pid)
        if reason:
            tell(f"worker {slot.index} (pid {slot.pid}) is to be replaced: {reason}")
            successor = Slot(self._free_rows()[0])
            self._successor = (successor, slot)
            self._fork(successor, self._current.inheritance)
        return bool(reason)

    def _succeed(self, successor: Slot, slot: Slot) -> None:
        slots = self._current.slots
        slots[slots.index(slot)] = successor
        self._successor = None
        if slot.pid:
            self._predecessor = slot
            self._dismiss(slot)
        tell(f"worker {successor.index} (pid {successor.pid}) serves in place of worker {slot.index}")

    def _on_recycled_death(self, pid: int, code: int) -> None:
        if self._predecessor is not None and self._predecessor.pid == pid:
            self._memory.workers[self._predecessor.index].clear()
            self._predecessor = None
        elif self._successor is not None and self._successor[0].pid == pid:
            self._memory.workers[self._successor[0].index].clear()
            place = self._successor[1].index
            self._successor = None
            self._recycle_at_s = monotonic() + RECYCLE_AGAIN_S
            if self._stop_deadline_s is None:
                tell(f"worker {place} is not replaced: the one for its place ended with exit code {code}")

    # --- stopping ---

    def _stop(self, by_interrupt: bool) -> None:
        now_s = monotonic()
        if self._stop_deadline_s is None:
            self._memory.arbiter[Cell.STATE] = State.DRAINING
            self._stop_deadline_s = now_s + self._options.shutdown_timeout_s + KILL_DELAY_S
            self._listener.close()
            if self._admin is not None:
                self._admin.close()
            for pid in (*[slot.pid for slot in self._slots], self._trial):
                _kill(pid, signal.SIGTERM)
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
        if self._trial and now_s >= self._trial_until_s:
            _kill(self._trial, signal.SIGKILL)


def _tried(reload: Reload) -> int:
    """Return 0 if a reload would succeed, having said why if it wouldn't."""
    try:
        reload()
    except FastserveError as error:
        tell(f"not reloaded: {error}")
        return BOOT_FAILED
    return 0


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
