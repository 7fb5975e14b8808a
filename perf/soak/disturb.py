"""What disturbs the server itself: workers that are killed, reloads; and the machine, which is only noticed.

Invariants:
1. A worker is killed only while another one has served for a while: what is lost is its requests alone.
2. A kill explains lost connections, for a moment. A reload explains nothing.
3. A pause is a process that was ready to run and got no CPU for a while, by the scheduler's own count.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from perf.soak.account import LOST, PAUSE, Account
from perf.soak.matrix import STORE
from perf.soak.watch import children

if TYPE_CHECKING:
    from collections.abc import Sequence

_SETTLED_S = 1.5
_LOOK_EVERY_S = 0.1
_LOST_WITHIN_S = 1.0
# In a quarter of a second, and for how long it explains what failed: a breaker may have opened.
PAUSE_S = 0.1
_PAUSE_LOOK_S = 0.25
_PAUSE_GRACE_S = 1.0
_RELOADED = b"reloaded: "
_RELOAD_WITHIN_S = 60.0


class Killer:
    """Kills a worker every so often."""

    def __init__(self, server_pid: int, account: Account, seed: int) -> None:
        self._server_pid = server_pid
        self._account = account
        self._random = random.Random(seed)
        self.killed = 0

    async def run(self, every_s: float) -> None:
        """Kill until cancelled."""
        since: dict[int, float] = {}
        due_s = time.monotonic() + every_s
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            now_s = time.monotonic()
            since = {pid: since.get(pid, now_s) for pid in children(self._server_pid)}
            settled = [pid for pid, from_s in since.items() if now_s - from_s > _SETTLED_S]
            if now_s >= due_s and len(settled) >= 2:
                self._kill(self._random.choice(settled))
                due_s = max(due_s + every_s, now_s + _LOOK_EVERY_S)

    def _kill(self, pid: int) -> None:
        span = self._account.begin("kill", frozenset({LOST}), _LOST_WITHIN_S, time.time())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.killed += 1
        span.end_s = time.time()


class PauseWatch:
    """Notices when processes of the soak get no CPU."""

    def __init__(self, pids: Sequence[int], account: Account) -> None:
        self._pids = pids
        self._account = account
        self.pauses = 0
        self.paused_s = 0.0

    async def run(self) -> None:
        """Look until cancelled."""
        before = self._waited_s()
        while True:
            began_s = time.time()
            await asyncio.sleep(_PAUSE_LOOK_S)
            now = self._waited_s()
            longest_s = max((now[pid] - before[pid] for pid in now.keys() & before.keys()), default=0.0)
            before = now
            if longest_s >= PAUSE_S:
                span = self._account.begin(PAUSE, STORE, _PAUSE_GRACE_S, began_s)
                span.end_s = time.time()
                self.pauses += 1
                self.paused_s += longest_s

    def _waited_s(self) -> dict[int, float]:
        pids = [*self._pids, *(child for pid in self._pids for child in children(pid))]
        found = {}
        for pid in pids:
            with contextlib.suppress(OSError):
                _, waited_ns, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
                found[pid] = int(waited_ns) / 1e9
        return found


class Reloader:
    """Sends SIGHUP, and waits for the log to say that new workers serve."""

    def __init__(self, server_pid: int, log: Path) -> None:
        self._server_pid = server_pid
        self._log = log
        self.reloads = 0

    async def run(self, every_s: float) -> None:
        """Reload until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.reload()

    async def reload(self) -> None:
        """Reload once.

        Raises:
            TimeoutError: it wasn't done in a minute.
        """
        before = self._log.read_bytes().count(_RELOADED)
        os.kill(self._server_pid, signal.SIGHUP)
        async with asyncio.timeout(_RELOAD_WITHIN_S):
            while self._log.read_bytes().count(_RELOADED) == before:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_EVERY_S)
        self.reloads += 1
