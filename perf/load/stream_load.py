"""One stream's load: its requests made beforehand, its connections, its counts.

Knows neither the clock's rhythm (`generator`) nor a mix of streams (`mix`), beyond who sends next. It must
not know how vectors are computed: values are verified through a callback that the plan names.

Invariants:
1. Only what was intended to start within the measured time is counted.
2. A latency counts from the intended start, a probe's from its sending: a probe asks about the server alone.
   It ends when the kernel had the answer, whenever this process reads it.
3. A late probe counts as kept by work where the server's processes together used that much CPU between its
   sending and the reading of its answer: an upper bound with several workers. A loop that stood still
   without working (a file, a lock) isn't told from one that waited for a CPU.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections import deque
from typing import TYPE_CHECKING

from perf.load.histogram import Histogram
from perf.load.key_laws import draw_entities, entity_key, partner_key
from perf.load.load_plan import LoadPlan, Stream
from perf.load.processes import WorkClock
from perf.load.timed_connection import TimedConnection, connect_timed

if TYPE_CHECKING:
    from collections.abc import Callable

_PROBLEMS_MAX = 5
_OK = 200
_REFUSED = frozenset({429, 503})
_RECONNECT_EVERY_S = 0.1
_COLDEST_EVERY = 16
STALL_NS = 10_000_000
"""An event loop that answers nobody for longer stands still, by the budget."""


class Window:
    """The measured time; empty until it is set."""

    def __init__(self) -> None:
        self.start_ns = 1 << 62
        self.end_ns = 1 << 62

    def holds(self, moment_ns: int) -> bool:
        """Tell whether a moment is measured."""
        return self.start_ns <= moment_ns < self.end_ns


class StreamLoad:
    """One stream's requests, connections and counts."""

    def __init__(self, stream: Stream, plan: LoadPlan, window: Window, seed: int) -> None:
        self.stream = stream
        self._plan = plan
        self._window = window
        self.latency = Histogram()
        self.refused = Histogram()
        # How late the generator itself was: what it adds to latencies that count from the intended start.
        self.lateness = Histogram()
        self.answered = self.errors = self.lost = self.verified = self.wrong = 0
        # Of late probes: the server was at work all the time; it isn't known.
        self.worked = self.unjudged = 0
        self.response_bytes = 0
        self.problems: list[str] = []
        self.connections: list[TimedConnection] = []
        self.free: deque[TimedConnection] = deque()
        self._is_probe = stream.is_probe
        self._work = WorkClock(plan.watch["server"]) if stream.is_probe and "server" in plan.watch else None
        self.waiting: deque[int] = deque()
        self._until_coldest = _COLDEST_EVERY
        self.stopped = False
        self._reconnects: set[asyncio.Task[None]] = set()
        self._verify = _load_verify(stream)
        self._until_verified = stream.verify_every
        self._requests = _requests(stream, plan, seed)
        self._next = 0

    async def open(self) -> None:
        """Open all connections. Raises OSError."""
        for _ in range(self.stream.connections if self.stream.share is None else 0):
            connection = await connect_timed(self._plan.host, self._plan.port, self)
            self.connections.append(connection)
            self.free.append(connection)

    def start_closed(self) -> None:
        """Let every connection send, and send again."""
        while self.free:
            self.send(self.free.popleft(), time.monotonic_ns())

    def arrive(self, intended_ns: int) -> None:
        """Take one arrival of the open loop, mostly over the connection that was free last.

        Pools of clients and proxies use the warmest one first, too. Now and then it is the coldest one's
        turn, or the server would close it for being idle.
        """
        if not self.free:
            self.waiting.append(intended_ns)
            return
        self._until_coldest -= 1
        if self._until_coldest:
            connection = self.free.pop()
        else:
            connection = self.free.popleft()
            self._until_coldest = _COLDEST_EVERY
        self.send(connection, intended_ns)

    def send(self, connection: TimedConnection, intended_ns: int) -> None:
        """Send the next request, over one of the stream's own connections or a mix's."""
        position = self._next
        self._next = position + 1 if position + 1 < len(self._requests) else 0
        connection.key, request = self._requests[position]
        connection.intended_ns = intended_ns
        connection.sent_ns = time.monotonic_ns()
        keep_body = False
        if self._verify is not None:
            self._until_verified -= 1
            if self._until_verified <= 0:
                keep_body = True
                self._until_verified = self.stream.verify_every
        if self._work is not None:
            connection.server_cpu_ns = self._work.read_ns()
        connection.send(request, keep_body=keep_body)

    def on_answer(self, connection: TimedConnection, status: int, body: bytes | None) -> None:
        """Count an answer and send the next request."""
        self.take_answer(connection, status, body)
        if not self.stopped:
            self._go_on(connection)

    def take_answer(self, connection: TimedConnection, status: int, body: bytes | None) -> None:
        """Count an answer."""
        came_ns = connection.came_ns
        if status in _REFUSED and self.stream.may_refuse:
            if self._window.holds(connection.intended_ns):
                # What this process lets wait is no refusal's time.
                self.refused.record(came_ns - connection.sent_ns)
        elif self._window.holds(connection.intended_ns):
            took_ns = came_ns - (connection.sent_ns if self._is_probe else connection.intended_ns)
            self.latency.record(took_ns)
            if self._work is not None and took_ns > STALL_NS:
                self._judge_late(connection)
            if status == _OK:
                self.answered += 1
            else:
                self.fail(f"status {status}")
        if body is not None:
            self._check(connection.key, status, body)

    def _judge_late(self, connection: TimedConnection) -> None:
        """Find out what a late probe waited for."""
        assert self._work is not None
        now_ns = self._work.read_ns()
        if now_ns is None or connection.server_cpu_ns is None:
            self.unjudged += 1
        elif now_ns - connection.server_cpu_ns > STALL_NS:
            self.worked += 1

    def _go_on(self, connection: TimedConnection) -> None:
        if self.stream.rate_per_s is None:
            self.send(connection, time.monotonic_ns())
        elif self.waiting:
            self.send(connection, self.waiting.popleft())
        else:
            self.free.append(connection)

    def on_loss(self, connection: TimedConnection) -> None:
        """Count a loss and open another connection."""
        if self.stopped:
            return
        self.take_loss(connection)
        if connection in self.free:
            self.free.remove(connection)
        self.connections.remove(connection)
        task = asyncio.get_running_loop().create_task(self._reopen())
        self._reconnects.add(task)
        task.add_done_callback(self._reconnects.discard)

    def take_loss(self, connection: TimedConnection) -> None:
        """Count a loss, if a measured request was under way."""
        if connection.busy and self._window.holds(connection.intended_ns):
            self.lost += 1
            self.fail("connection lost before the answer")

    async def _reopen(self) -> None:
        try:
            connection = await connect_timed(self._plan.host, self._plan.port, self)
        except OSError as error:
            self.fail(f"cannot connect: {error}")
            await asyncio.sleep(_RECONNECT_EVERY_S)
            if not self.stopped:
                await self._reopen()
            return
        self.connections.append(connection)
        self._go_on(connection)

    def give_up_overdue(self, now_ns: int) -> None:
        """Abort what has been under way for longer than the plan's timeout."""
        limit_ns = now_ns - int(self._plan.timeout_s * 1e9)
        for connection in list(self.connections):
            if connection.busy and connection.sent_ns < limit_ns:
                connection.abort()

    def stop(self) -> int:
        """Close all connections; give how many measured requests are unanswered."""
        self.stopped = True
        unanswered = sum(1 for moment_ns in self.waiting if self._window.holds(moment_ns))
        for connection in self.connections:
            unanswered += connection.busy and self._window.holds(connection.intended_ns)
            connection.close()
        for task in self._reconnects:
            task.cancel()
        return unanswered

    def outstanding(self) -> bool:
        """Tell whether something measured is still without its answer."""
        busy = any(entry.busy and self._window.holds(entry.intended_ns) for entry in self.connections)
        return busy or any(self._window.holds(moment_ns) for moment_ns in self.waiting)

    def _check(self, key: str, status: int, body: bytes) -> None:
        self.response_bytes = len(body)
        if self._verify is None or status != _OK:
            return
        problem = self._verify(key, body)
        self.verified += 1
        if problem is not None:
            self.wrong += 1
            self._note(f"{key}: {problem}")

    def fail(self, problem: str) -> None:
        """Count an error."""
        self.errors += 1
        self._note(problem)

    def _note(self, problem: str) -> None:
        if len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(problem)


def _requests(stream: Stream, plan: LoadPlan, seed: int) -> list[tuple[str, bytes]]:
    """Make the requests beforehand: sending one is then one write."""
    extra = "".join(f"{name}: {value}\r\n" for name, value in stream.headers.items())
    length = len(f"{stream.head}{_key_part(stream, entity_key(0))}{stream.tail}".encode())
    if stream.method == "GET":
        return [("", f"GET {stream.path} HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\n{extra}\r\n".encode())]
    start = (
        f"POST {stream.path} HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\nContent-Type: application/json\r\n"
        f"{extra}Content-Length: {length}\r\n\r\n{stream.head}"
    ).encode()
    tail = stream.tail.encode()
    drawn = draw_entities(stream.key_law, stream.entities, seed, stream.zipf_exponent).tolist()
    names = {index: entity_key(index) for index in set(drawn)}
    made = {index: (name, start + _key_part(stream, name).encode() + tail) for index, name in names.items()}
    return [made[index] for index in drawn]


def _key_part(stream: Stream, key: str) -> str:
    return key if stream.middle is None else f"{key}{stream.middle}{partner_key(key)}"


def _load_verify(stream: Stream) -> Callable[[str, bytes], str | None] | None:
    if stream.verify is None:
        return None
    module, _, name = stream.verify.partition(":")
    make = getattr(importlib.import_module(module), name)
    made: Callable[[str, bytes], str | None] = make(stream.verify_with)
    return made
