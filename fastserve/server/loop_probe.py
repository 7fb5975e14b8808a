"""Samples how late the loop is and how long the lines are that requests stand in, and tells the admission.

Invariants:
1. Nothing here is called by a request: one timer, 50 times a second while nothing is late.
2. A sample is the loop's lag: a timer that is set for a moment and runs later was kept waiting by the turn
   that the loop was in, as were the requests that came meanwhile. The thread's CPU tells how much of that was
   our own work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from time import monotonic, thread_time
from typing import Protocol, runtime_checkable

from fastserve.serving.admission import CALM_EVERY_S, Admission
from fastserve.serving.ready import ReadyRequests
from fastserve.serving.requests import VectorRequest


@runtime_checkable
class HasLine(Protocol):
    """A store whose calls may have to wait for a connection."""

    @property
    def line(self) -> tuple[int, int]:
        """How many calls have stood in line since the start, and how many stand in it now."""


class LineWatch:
    """How long calls wait in line, from two counts: when the last of a moment's line has left it."""

    def __init__(self, store: HasLine) -> None:
        self._store = store
        self._marked_s: float | None = None
        self._mark = 0
        self._waited_s = 0.0  # as far as seen, by the last of the line that is looked at,
        self._before_s = 0.0  # and by the last of the one before it

    def wait_s(self, now_s: float) -> float:
        """Return how long a call has to stand in line at least; 0.0 where none was seen before.

        While it isn't known of those that stand there now, it is what it was of those before them.
        """
        ever, waiting = self._store.line
        if not waiting:
            self._marked_s = None
            self._waited_s = self._before_s = 0.0
        elif self._marked_s is not None and ever - waiting < self._mark:
            self._waited_s = now_s - self._marked_s
        else:
            self._before_s, self._waited_s = self._waited_s, 0.0
            self._marked_s = now_s
            self._mark = ever
        return max(self._waited_s, self._before_s)


class LoopProbe:
    """The timer of one worker.

    ``waiting`` are the requests in flight, the oldest first, and ``ready`` those whose rows are there, which
    let reading go first while requests are shed. ``every_time`` is called by each sample, for what else is
    done so often.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        admission: Admission,
        store: object,
        waiting: Collection[VectorRequest],
        ready: ReadyRequests,
        every_time: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._admission = admission
        self._line = LineWatch(store) if isinstance(store, HasLine) else None
        self._waiting = waiting
        self._ready = ready
        self._every_time = every_time
        self._due_s = self._cpu_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Sample from now on."""
        self._cpu_s = thread_time()
        self._set_timer(CALM_EVERY_S, monotonic())

    def stop(self) -> None:
        """Sample no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, delay_s: float, now_s: float) -> None:
        self._due_s = now_s + delay_s
        self._timer = self._loop.call_later(delay_s, self._on_time)

    def _on_time(self) -> None:
        now_s = monotonic()
        line_s = self._ready.wait_s()
        if self._line is not None:
            line_s = max(line_s, self._line.wait_s(now_s))
        cpu_s = thread_time()
        late_s = max(0.0, now_s - self._due_s)
        oldest = next(iter(self._waiting), None)
        oldest_s = None if oldest is None else oldest.started_s
        delay_s = self._admission.on_sample(now_s, late_s, cpu_s - self._cpu_s, line_s, oldest_s)
        self._cpu_s = cpu_s
        self._ready.reads_first = self._admission.is_shedding
        self._every_time()
        self._set_timer(delay_s, now_s)
