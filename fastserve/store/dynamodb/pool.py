"""Keep-alive connections to one endpoint, lent to one call each.

Knows nothing of DynamoDB: payloads in, answers or failures out. Belongs to one event loop.

1. Every call given to `Pool.request` gets exactly one outcome, at the latest two ticks after its deadline (16
   in a line of more than 512 calls). A call whose deadline is over isn't sent.
2. At most ``max_connections`` are open or being opened. Calls that find none free wait in line.
3. The connection used last is used next, so that few stay hot and the rest go idle and are closed: by us,
   after 20 to 50 s, since the service drops idle ones at about 60 s and a call sent into that is lost.
4. A call whose connection had died while idle is sent once more, at once, on one that has just answered or
   has just been opened.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from fastserve.store.dynamodb.connection import CLOSED, CUT_SHORT, TIMED_OUT, Call, Connection
from fastserve.store.dynamodb.endpoint import Addresses, Endpoint
from fastserve.wire.ddb_errors import Failure, Kind

# How exact deadlines are. One timer for all calls: a timer per call costs more than the rest of the pool.
TICK_S = 0.01
# After a pause like this, calls get one more tick.
HELD_UP_S = 0.05
# A long line isn't looked through each tick: that would cost a tenth of a CPU at 16,384 calls.
SHORT_LINE = 512
LONG_LINE_TICKS = 16
RETIRE_EVERY_S = 2.0
# A store that is well has answered nearly every call by then (99 of 100 take less than 22 ms).
PATIENCE_S = 0.025
IDLE_MIN_S = 20.0
IDLE_MAX_S = 50.0 - RETIRE_EVERY_S


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Limits of one pool."""

    max_connections: int = 32
    connect_timeout_s: float = 1.0
    # Connections that are always busy would stay on the hosts that DNS named when they were opened.
    max_age_s: float = 600.0
    # A call behind this many has no chance inside any deadline.
    max_waiting: int = 16_384


class Watcher(Protocol):
    """Who looks at the calls under way from time to time."""

    def watch(self) -> None:
        """Be told that calls are under way again."""

    def close(self) -> None:
        """Be told that there will be none."""


class Pool:
    """Lends connections; see the module's invariants. ``uniform`` draws from [0, 1)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        endpoint: Endpoint,
        settings: PoolSettings,
        tls: ssl.SSLContext | None,
        uniform: Callable[[], float],
    ) -> None:
        self._loop = loop
        self._endpoint = endpoint
        self._addresses = Addresses(endpoint)
        self._settings = settings
        self._tls = tls if endpoint.tls else None
        self._uniform = uniform
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []
        self._waiting: deque[Call] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._tick_timer: asyncio.TimerHandle | None = None
        self._retire_timer: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._ticked_s = 0.0
        self._held_up = False
        self._closed = False
        self._answered_before = 0
        self._lined_up = 0
        self.opened = 0
        self.watcher: Watcher | None = None

    def request(self, call: Call) -> None:
        """Send a call on a free connection, or as soon as there is one."""
        if self._tick_timer is None and not self._begin():
            call.on_answer(CLOSED)
        elif self._idle:
            self._idle.pop().send(call, self._loop.time())
        elif len(self._waiting) < self._settings.max_waiting:
            self._waiting.append(call)
            self._lined_up += 1
            self._grow()
        else:
            call.on_answer(Failure(Kind.THROTTLED, "too many calls", "all connections are busy"))

    @property
    def connections(self) -> Collection[Connection]:
        """Those that are open."""
        return self._open

    @property
    def answered(self) -> int:
        """How many calls have had an answer. Added up when asked for: calls are many, questions few."""
        return self._answered_before + sum([connection.answers for connection in self._open])

    @property
    def has_room(self) -> bool:
        """Whether a call more would find a connection, or have one opened for it alone."""
        if self._waiting:
            return False
        return bool(self._idle) or len(self._open) + len(self._opening) < self._settings.max_connections

    @property
    def is_watched(self) -> bool:
        """Whether the timer runs that looks at calls under way."""
        return self._tick_timer is not None

    @property
    def line(self) -> tuple[int, int]:
        """How many calls have stood in line for a connection since the start, and how many stand in it."""
        return self._lined_up, len(self._waiting)

    async def close(self) -> None:
        """Cut all connections; calls that have no answer yet fail."""
        self._closed = True
        if self.watcher is not None:
            self.watcher.close()
        for timer in (self._tick_timer, self._retire_timer):
            if timer is not None:
                timer.cancel()
        self._tick_timer = self._retire_timer = None
        self._fail_waiting(CLOSED)
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for connection in list(self._open):
            connection.cut(CLOSED)

    # What connections call.

    def on_free(self, connection: Connection) -> None:
        """Send the call that has waited longest, or keep the connection for later."""
        now_s = self._loop.time()
        late = []
        while self._waiting:
            call = self._waiting.popleft()
            if call.deadline_s > now_s:
                connection.send(call, now_s)
                break
            late.append(call)
        else:
            if now_s >= connection.retire_at_s or self._closed:
                connection.close()
            else:
                connection.idle_since_s = now_s
                self._idle.append(connection)
        for call in late:
            call.on_answer(CUT_SHORT)

    def on_lost(self, connection: Connection) -> None:
        """Forget a connection."""
        self._open.discard(connection)
        self._answered_before += connection.answers
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting:
            self._grow()

    def maybe_resend(self, call: Call) -> bool:
        """Queue a call again, first in line, unless it was before; idle connections may be as dead."""
        if call.resent or self._closed:
            return False
        call.resent = True
        self._waiting.appendleft(call)
        self._lined_up += 1
        self._grow()
        return True

    # Opening.

    def _grow(self) -> None:
        room = self._settings.max_connections - len(self._open) - len(self._opening)
        for _ in range(min(room, len(self._waiting) - len(self._opening))):
            task = self._loop.create_task(self._connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(self._settings.connect_timeout_s):
                connection = await self._dial()
        except (OSError, TimeoutError) as error:
            self._end_opening()
            self._on_connect_failed(error)
            return
        self._end_opening()
        if connection.lost:
            self._on_connect_failed(ConnectionResetError("closed as soon as it was opened"))
            return
        now_s = self._loop.time()
        connection.idle_limit_s = IDLE_MIN_S + (IDLE_MAX_S - IDLE_MIN_S) * self._uniform()
        connection.retire_at_s = now_s + self._settings.max_age_s * (0.5 + 0.5 * self._uniform())
        self._open.add(connection)
        self.opened += 1
        self.on_free(connection)

    def _end_opening(self) -> None:
        """Count this task out at once: a call made by what follows must not rely on it for a connection."""
        task = asyncio.current_task()
        if task is not None:
            self._opening.discard(task)

    async def _dial(self) -> Connection:
        """Connect to the first address that answers, after a second look-up if none does."""
        try:
            return await self._dial_any(await self._addresses.next())
        except ssl.SSLError:
            raise
        except OSError:
            if not self._addresses.doubt(self._loop.time()):
                raise
            return await self._dial_any(await self._addresses.next())

    async def _dial_any(self, addresses: Sequence[str]) -> Connection:
        failure: OSError | None = None
        for address in addresses:
            try:
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self),
                    address,
                    self._endpoint.port,
                    ssl=self._tls,
                    server_hostname=self._endpoint.host if self._tls is not None else None,
                )
            except ssl.SSLError:
                raise
            except OSError as error:
                failure = error
            else:
                return connection
        raise failure or OSError("no address answered")

    def _on_connect_failed(self, error: OSError) -> None:
        """Fail what waits, unless another connection may still serve it."""
        while self._waiting and self._idle:
            self._idle.pop().send(self._waiting.popleft(), self._loop.time())
        if self._open or self._opening:
            return
        kind = Kind.PERMANENT if isinstance(error, ssl.SSLCertVerificationError) else Kind.TRANSIENT
        where = f"{self._endpoint.host}:{self._endpoint.port}"
        reason = str(error) or f"no connection within {self._settings.connect_timeout_s:g} s"
        self._fail_waiting(Failure(kind, f"can't connect to {where}", reason))

    def _fail_waiting(self, failure: Failure) -> None:
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.on_answer(failure)

    # Time.

    def _begin(self) -> bool:
        """Start the timers, which stop when there is nothing to watch; False when the pool is closed."""
        if self._closed:
            return False
        self._tick_timer = self._loop.call_later(TICK_S, self._tick)
        self._ticked_s = self._loop.time()
        if self.watcher is not None:
            self.watcher.watch()
        if self._retire_timer is None:
            self._retire_timer = self._loop.call_later(RETIRE_EVERY_S, self._retire)
        return True

    def _tick(self) -> None:
        """Fail the calls whose deadline has passed, and cut their connections."""
        busy = len(self._open) > len(self._idle)
        self._tick_timer = self._loop.call_later(TICK_S, self._tick) if busy or self._waiting else None
        now_s = self._loop.time()
        self._held_up = now_s - self._ticked_s > HELD_UP_S and not self._held_up
        self._ticked_s = now_s
        if self._held_up:
            # The loop was busy with something else: answers may lie unread in the kernel's buffers.
            return
        for connection in [connection for connection in self._open if connection.is_late(now_s)]:
            connection.cut(TIMED_OUT if now_s - connection.sent_s >= PATIENCE_S else CUT_SHORT)
        self._ticks += 1
        if len(self._waiting) <= SHORT_LINE or self._ticks % LONG_LINE_TICKS == 0:
            waiting, self._waiting = self._waiting, deque()
            self._waiting.extend(call for call in waiting if call.deadline_s > now_s)
            for call in waiting:
                if call.deadline_s <= now_s:
                    call.on_answer(CUT_SHORT)

    def _retire(self) -> None:
        """Close connections that have been idle for long; the first in the stack are idle longest."""
        now_s = self._loop.time()
        for connection in self._idle[:]:
            if now_s - connection.idle_since_s >= connection.idle_limit_s:
                connection.close()
        more = bool(self._open or self._opening)
        self._retire_timer = self._loop.call_later(RETIRE_EVERY_S, self._retire) if more else None
