"""Timers finer than the event loop's: uvloop rounds to whole milliseconds, a timerfd does not.

Linux only; elsewhere it falls back on the loop's own timers. Knows nothing of what it calls.

Invariants:
1. Callbacks run in the order of their times, never before them, on the loop's thread.
2. Times are those of `time.monotonic`, in seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import heapq
import itertools
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC


class _Moment(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Moment), ("value", _Moment))


class PreciseTimer:
    """A heap of callbacks behind one timerfd."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._fd = -1
        if sys.platform == "linux":
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._fd >= 0:
            loop.add_reader(self._fd, self._fire)

    def call_at(self, when_s: float, callback: Callable[[], None]) -> None:
        """Run a callback once `time.monotonic` has reached a time."""
        entry = (when_s, next(self._number), callback)
        heapq.heappush(self._due, entry)
        if self._due[0] is entry:
            self._arm(when_s)

    def close(self) -> None:
        """Forget what is still due."""
        self._due.clear()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _arm(self, when_s: float) -> None:
        if self._fd < 0:
            self._loop.call_later(max(0.0, when_s - time.monotonic()), self._fire)
            return
        seconds = int(when_s)
        # Zero would disarm the timer: one nanosecond is the earliest.
        setting = _Setting(value=_Moment(seconds, max(1, int((when_s - seconds) * 1e9) + 1)))
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(setting), None)

    def _fire(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(BlockingIOError):
                os.read(self._fd, 8)
        due = self._due
        now_s = time.monotonic()
        while due and due[0][0] <= now_s:
            heapq.heappop(due)[2]()
        if due:
            self._arm(due[0][0])
