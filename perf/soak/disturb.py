"""What disturbs the server itself: workers that are killed, reloads; and the machine, which is only noticed.

Invariants:
1. A worker is killed only while it serves and another one does: what is lost is its requests alone. Who has
   accepted a connection serves.
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
PAUSE_S = 0.05
_PAUSE_LOOK_S = 0.25
_PAUSE_GRACE_S = 1.0
_ESTABLISHED = "01"
_RELOADED = b"\nreloaded: "
_NOT_RELOADED = b"\nnot reloaded: "
_RELOAD_WITHIN_S = 60.0


class Killer:
    """Kills a worker every so often."""

    def __init__(self, server_pid: int, port: int, account: Account, seed: int) -> None:
        self._server_pid = server_pid
        self._port = port
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
            if now_s < due_s or len(settled) < 2:
                continue
            serving = [pid for pid in settled if has_accepted(pid, self._port)]
            if len(serving) >= 2:
                self._kill(self._random.choice(serving))
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
        self._over = asyncio.Event()
        self.reloads = 0
        self.failed = 0

    async def run(self, every_s: float) -> None:
        """Reload until stopped; one that was begun is seen to its end."""
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), every_s)
                return
            await self.reload()

    def stop(self) -> None:
        """Begin no further one."""
        self._over.set()

    async def reload(self) -> None:
        """Reload once; a worker that is killed while it starts makes it fail, and what served goes on.

        Raises:
            TimeoutError: it wasn't done in a minute.
        """
        before = self._told()
        os.kill(self._server_pid, signal.SIGHUP)
        async with asyncio.timeout(_RELOAD_WITHIN_S):
            while self._told() == before:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_EVERY_S)
        self.reloads, self.failed = self._told()

    def _told(self) -> tuple[int, int]:
        log = self._log.read_bytes()
        return log.count(_RELOADED), log.count(_NOT_RELOADED)


def has_accepted(pid: int, port: int) -> bool:
    """Tell whether a process holds a connection to a port that it has accepted."""
    held = set()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # it has just been closed
                held.add(link.readlink().name.removeprefix("socket:[").removesuffix("]"))
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    except OSError:
        return False
    local = f":{port:04X}"
    rows = [line.split() for line in lines]
    return any(row[3] == _ESTABLISHED and row[1].endswith(local) and row[9] in held for row in rows)
