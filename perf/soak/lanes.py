"""The load of a soak: requests at their times over some connections, each answer judged as it comes.

Knows no services: what to send and how to judge is the stream's.

Invariants:
1. Every request that was begun is noted once: answered, lost, or late and given up.
2. In an open loop requests begin at their times whatever the answers do, and wait for a connection if none
   is free; a closed one has as many under way as it has connections.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from perf.load.client_connection import ClientConnection, connect
from perf.soak.account import LATE, LOST, Account

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_OK = 200
_ANSWER_WITHIN_S = 12.0
_LOOK_EVERY_S = 0.5
_RECONNECT_S = 0.05
_HOST = "127.0.0.1"


class Ask(Protocol):
    """A request that knows what it must bring."""

    def request(self, port: int, *, close: bool = False) -> bytes:
        """Give the bytes to send."""

    def judge(self, body: bytes, sent_s: float, done_s: float) -> tuple[str, str, int]:
        """Give what an answer of status 200 is, what is wrong with it, and how many keys were judged."""


class Lanes:
    """One stream of requests. Without a rate it is closed: an answer begins the next request."""

    def __init__(
        self,
        name: str,
        ask: Callable[[], Ask],
        account: Account,
        port: int,
        *,
        connections: int,
        rate_per_s: float | None = None,
        keeps_connections: bool = True,
    ) -> None:
        self.name = name
        self._ask = ask
        self._account = account
        self._port = port
        self._size = connections
        self._gap_s = 1.0 / rate_per_s if rate_per_s else 0.0
        self._keeps = keeps_connections
        self._open: set[ClientConnection] = set()
        self._free: deque[ClientConnection] = deque()
        self._waiting: deque[float] = deque()
        self._under_way: dict[ClientConnection, tuple[Ask, float]] = {}
        self._late: set[ClientConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._due_s = 0.0
        self._is_stopped = False
        self.begun = 0
        self._latencies_s: list[float] = []

    async def start(self) -> None:
        """Open the connections and begin."""
        for _ in range(self._size):
            self._connect_soon()
        self._spawn(self._watch())
        if self._gap_s:
            self._due_s = time.monotonic()
            self._arrive()

    async def stop(self, within_s: float = _ANSWER_WITHIN_S) -> None:
        """Begin nothing more; wait for what is under way, then give it up."""
        self._is_stopped = True
        self._waiting.clear()
        until_s = time.monotonic() + within_s
        while self._under_way and time.monotonic() < until_s:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for task in list(self._tasks):
            task.cancel()
        for connection in list(self._open):
            if connection in self._under_way:
                self._late.add(connection)
            connection.abort()
        await asyncio.sleep(0.02)

    def latency_ms(self) -> dict[str, float]:
        """Give quantiles of the time from sending to answer; nothing where nothing was answered."""
        if not self._latencies_s:
            return {}
        found = np.quantile(np.array(self._latencies_s) * 1_000, (0.5, 0.99, 0.999, 1.0))
        return dict(zip(("p50", "p99", "p99.9", "max"), np.round(found, 2).tolist(), strict=True))

    def _arrive(self) -> None:
        if self._is_stopped:
            return
        now_s = time.monotonic()
        while self._due_s <= now_s:
            self._waiting.append(self._due_s)
            self._due_s += self._gap_s
        self._serve_waiting()
        asyncio.get_running_loop().call_later(max(0.001, self._due_s - now_s), self._arrive)

    def _serve_waiting(self) -> None:
        while self._waiting and self._free:
            self._waiting.popleft()
            self._send(self._free.popleft())

    def _on_free(self, connection: ClientConnection) -> None:
        if self._is_stopped:
            connection.close()
        elif self._gap_s:
            self._free.append(connection)
            self._serve_waiting()
        else:
            self._send(connection)

    def _send(self, connection: ClientConnection) -> None:
        ask = self._ask()
        self.begun += 1
        self._under_way[connection] = ask, time.time()
        connection.sent_ns = time.monotonic_ns()
        connection.send(ask.request(self._port, close=not self._keeps), keep_body=True)

    def on_answer(self, connection: ClientConnection, status: int, body: bytes | None) -> None:
        """Judge an answer, and go on."""
        self._latencies_s.append((time.monotonic_ns() - connection.sent_ns) / 1e9)
        ask, sent_s = self._under_way.pop(connection)
        done_s = time.time()
        kind, detail, reads = str(status), (body or b"")[:200].decode(errors="replace"), 0
        if status == _OK:
            kind, detail, reads = ask.judge(body or b"", sent_s, done_s)
        self._account.note(self.name, kind, detail, sent_s, done_s, reads)
        if self._keeps and not connection.closes:
            self._on_free(connection)
        else:
            connection.close()

    def on_loss(self, connection: ClientConnection) -> None:
        """Note what was under way, and open another connection."""
        self._open.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if connection in self._under_way:
            _, sent_s = self._under_way.pop(connection)
            kind = LATE if connection in self._late else LOST
            self._account.note(self.name, kind, "connection", sent_s, time.time())
        self._late.discard(connection)
        if not self._is_stopped:
            self._connect_soon()

    def _connect_soon(self) -> None:
        self._spawn(self._connect())

    async def _connect(self) -> None:
        while not self._is_stopped:
            try:
                connection = await connect(_HOST, self._port, self)
            except OSError as error:
                now_s = time.time()
                self._account.note(self.name, LOST, f"cannot connect: {error}", now_s, now_s)
                await asyncio.sleep(_RECONNECT_S)
                continue
            self._open.add(connection)
            self._on_free(connection)
            return

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            limit_ns = time.monotonic_ns() - int(_ANSWER_WITHIN_S * 1e9)
            for connection in list(self._under_way):
                if connection.sent_ns < limit_ns:
                    self._late.add(connection)
                    connection.abort()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
