"""A worker's helper processes for isolated on-demand views: who runs what, until when, and who comes next.

Each helper runs one call at a time; calls for which there is none wait in their order. It knows nothing of
views: a call goes out, its outcome comes back.

Invariants
1. Every job is told one outcome, and never within `submit`.
2. A call that takes longer than its limit, or than its request may, is ended by killing its helper; another
   helper takes the place. A result that had come by then counts.
3. A helper that dies fails the one call that it ran.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from fastserve.server.on_demand_process import (
    FORK,
    FRAME,
    KILL,
    ORDER,
    ORPHAN_GRACE_S,
    Answer,
    Call,
    Nursery,
    framed,
)
from fastserve.serving.on_demand import Done, Job, Outcome, Raised, Stopped

LOGGER = logging.getLogger("fastserve")
HELPERS: Final = 4
"""Per worker: isolated code waits for something more often than it computes."""
RETRY_S: Final = 0.5
CHUNK_BYTES: Final = 1 << 20
GONE_AFTER_S: Final = 2.0
REAP_TICK_S: Final = 0.005
NO_HELPER = "its helper process ended during the call"


class Pending:
    """A job and what belongs to it here."""

    __slots__ = ("is_limit", "job", "on_done", "timer")

    def __init__(self, job: Job, on_done: Callable[[Outcome], None]) -> None:
        self.job = job
        self.on_done = on_done
        self.timer: asyncio.TimerHandle | None = None
        self.is_limit = False

    def stop_timer(self) -> None:
        """Let the timer go."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class OnDemandPool:
    """The helper processes of one worker, and the calls that wait for them."""

    def __init__(self, nursery: Nursery, loop: asyncio.AbstractEventLoop, helpers: int = HELPERS) -> None:
        self._nursery = nursery
        self._loop = loop
        self._size = helpers
        self._helpers: set[Helper] = set()
        self._idle: list[Helper] = []
        self._waiting: deque[Pending] = deque()
        self._is_closed = False

    def start(self) -> None:
        """Have the helpers forked."""
        while len(self._helpers) < self._size and not self._is_closed:
            self._fork()

    async def close(self) -> None:
        """End all helpers and the nursery."""
        self._is_closed = True
        for helper in list(self._helpers):
            helper.close()
        self._helpers.clear()
        self._nursery.control.close()
        until_s = self._loop.time() + GONE_AFTER_S
        while not self._is_nursery_gone() and self._loop.time() < until_s:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(REAP_TICK_S)

    def _is_nursery_gone(self) -> bool:
        with suppress(ChildProcessError):
            return os.waitpid(self._nursery.pid, os.WNOHANG)[0] != 0
        return True

    def submit(self, job: Job, on_done: Callable[[Outcome], None]) -> None:
        """Run a call as soon as a helper is free; ``on_done`` is told once, not before this returns."""
        if job.deadline_s <= self._loop.time():  # to start it would be to kill a helper for nothing
            self._loop.call_soon(on_done, Stopped(None, is_limit=False))
            return
        pending = Pending(job, on_done)
        if self._idle and self._has_room(job.view):
            self._run(self._idle.pop(), pending)
            return
        self._waiting.append(pending)
        wait_s = max(0.0, job.deadline_s - self._loop.time())
        pending.timer = self._loop.call_later(wait_s, self._give_up_waiting, pending)

    def _give_up_waiting(self, pending: Pending) -> None:
        self._waiting.remove(pending)
        pending.on_done(Stopped(None, is_limit=False))

    def _run(self, helper: Helper, pending: Pending) -> None:
        job = pending.job
        pending.stop_timer()
        left_s = max(0.0, job.deadline_s - self._loop.time())
        pending.is_limit = job.limit_s is not None and job.limit_s <= left_s
        time_s = job.limit_s if job.limit_s is not None and pending.is_limit else left_s
        call = Call(job.view, job.lines, job.sources, job.moment, time_s + ORPHAN_GRACE_S)
        pending.timer = self._loop.call_later(time_s, self._end_call, helper)
        helper.run(pending, framed(call))

    def _end_call(self, helper: Helper) -> None:
        """Kill a helper whose call's time is over, unless its answer has come and nobody has looked yet."""
        if helper.take():
            return
        pending = helper.pending
        if pending is None:
            return
        helper.pending = None
        self._order(KILL, helper.pid)
        self._lose(helper)
        pending.on_done(Stopped(None, is_limit=pending.is_limit))

    # --- what helpers tell

    def on_ready(self, helper: Helper) -> None:
        """Take a helper that has nothing to do."""
        for pending in self._waiting:
            if self._has_room(pending.job.view):
                self._waiting.remove(pending)
                self._run(helper, pending)
                return
        self._idle.append(helper)

    def _has_room(self, view: str) -> bool:
        """Whether a view may have one more helper; the last is kept for others, should its calls hang."""
        busy = sum(h.pending is not None and h.pending.job.view == view for h in self._helpers)
        return busy < max(1, self._size - 1)

    def on_answer(self, helper: Helper, pending: Pending, answer: Answer) -> None:
        """Take a call's answer, and give the helper another call."""
        pending.stop_timer()
        self.on_ready(helper)
        values, failure, took_ns = answer
        limit_s = pending.job.limit_s
        if limit_s is not None and took_ns > limit_s * 1e9:
            pending.on_done(Stopped(None, is_limit=True))
        elif values is not None:
            pending.on_done(Done(values, took_ns))
        elif failure is not None:
            pending.on_done(Raised(*failure, took_ns))

    def on_end(self, helper: Helper) -> None:
        """Replace a helper that has ended by itself, and fail its call."""
        pending, helper.pending = helper.pending, None
        was_ready = helper.pid != 0
        if was_ready:
            LOGGER.error("helper process %d for on-demand views ended; starting another", helper.pid)
        self._lose(helper, RETRY_S if not was_ready else 0.0)
        if pending is not None:
            pending.stop_timer()
            pending.on_done(Stopped(NO_HELPER, is_limit=False))

    def _lose(self, helper: Helper, delay_s: float = 0.0) -> None:
        helper.close()
        self._helpers.discard(helper)
        if helper in self._idle:
            self._idle.remove(helper)
        if not self._is_closed:
            self._loop.call_later(delay_s, self.start)

    # --- the nursery

    def _fork(self) -> None:
        ours, its = socket.socketpair()
        ours.setblocking(False)
        with its:
            if not self._order(FORK, 0, [its.fileno()]):
                ours.close()
                return
        helper = Helper(self, self._loop, ours)
        self._helpers.add(helper)

    def _order(self, command: bytes, pid: int, fds: list[int] | None = None) -> bool:
        try:
            socket.send_fds(self._nursery.control, [ORDER.pack(command, pid)], fds or [])
        except OSError as error:
            if not self._is_closed:
                # Without a nursery there are no helpers any more: the arbiter starts a whole worker.
                self._is_closed = True
                LOGGER.error("the helper processes' parent has ended (%s); this worker ends, too", error)  # noqa: TRY400 - where it was found says nothing
                os.kill(os.getpid(), signal.SIGTERM)
            return False
        return True


class Helper:
    """A worker's end of one helper's socket."""

    __slots__ = ("_incoming", "_loop", "_outgoing", "_pool", "_socket", "pending", "pid")

    def __init__(
        self, pool: OnDemandPool, loop: asyncio.AbstractEventLoop, connection: socket.socket
    ) -> None:
        self._pool = pool
        self._loop = loop
        self._socket = connection
        self._incoming = bytearray()
        self._outgoing = b""
        self.pending: Pending | None = None
        self.pid = 0
        loop.add_reader(connection, self.take)

    def close(self) -> None:
        """Let go of the socket; a helper that reads from it ends."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()

    def run(self, pending: Pending, frame: bytes) -> None:
        """Send a call."""
        self.pending = pending
        self._outgoing = frame
        self._send()

    def _send(self) -> None:
        try:
            sent = self._socket.send(self._outgoing)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # it has ended, of which its reader tells
        self._outgoing = self._outgoing[sent:]
        if self._outgoing:
            self._loop.add_writer(self._socket, self._go_on_sending)

    def _go_on_sending(self) -> None:
        self._loop.remove_writer(self._socket)
        self._send()

    def take(self) -> bool:
        """Read what has come; return whether a message was whole."""
        try:
            part = self._socket.recv(CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            part = b""
        if not part:
            self._pool.on_end(self)
            return True
        self._incoming += part
        if len(self._incoming) < FRAME.size:
            return False
        end = FRAME.size + FRAME.unpack_from(self._incoming)[0]
        if len(self._incoming) < end:
            return False
        message = pickle.loads(self._incoming[FRAME.size : end])  # noqa: S301 - from our own helper
        self._incoming.clear()  # a helper sends nothing before it is asked again
        self._on_message(message)
        return True

    def _on_message(self, message: Any) -> None:
        pending, self.pending = self.pending, None
        if not self.pid:
            self.pid = message
            self._pool.on_ready(self)
        elif pending is not None:
            self._pool.on_answer(self, pending, message)
