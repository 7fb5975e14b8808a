"""One connection to one Redis server: calls go out as they come, answers come in the same order.

Knows neither rows nor slots. hiredis splits the bytes into replies; redis-py over the same parser takes
three to four times as long for a call (docs/decisions/0008-redis-hot-side.md).

Invariants
1. Each call gets exactly one outcome: as many replies as it has commands, or a failure.
2. After a byte that nobody asked for, one that is no reply, or silence for longer than a call may take, the
   connection is cut: no reply can be taken for another call's.
3. A call that was told that its time is over keeps its place: its replies are passed over when they come.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import hiredis

from fastserve.store.redis.failures import CLOSED, TIMED_OUT, Failure, Kind

Outcome: TypeAlias = "list[Any] | Failure"

KEEPALIVE_IDLE_S = 30


class Call:
    """Some commands on their way: their bytes, how many replies they get, and who is told of them."""

    __slots__ = ("deadline_s", "done", "on_done", "payload", "replies", "sent_s")

    def __init__(
        self, payload: bytes, replies: int, deadline_s: float, on_done: Callable[[Outcome], None]
    ) -> None:
        self.payload = payload
        self.replies = replies
        self.deadline_s = deadline_s
        self.on_done = on_done
        self.sent_s = 0.0
        self.done = False

    def finish(self, outcome: Outcome) -> None:
        """Tell the outcome, unless one was told."""
        if not self.done:
            self.done = True
            self.on_done(outcome)


class Link(asyncio.Protocol):
    """The protocol side of one connection. ``on_lost`` is called once, when it can't be used any more."""

    __slots__ = (
        # connection
        "_clock",
        "_on_lost",
        "_parser",
        "_transport",
        "lost",
        # calls
        "_calls",
        "_heard_s",
        "_replies",
    )

    def __init__(self, clock: Callable[[], float], on_lost: Callable[[Link], None]) -> None:
        self._clock = clock
        self._on_lost = on_lost
        self._parser = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self.lost = False
        self._calls: deque[Call] = deque()
        self._heard_s = 0.0
        self._replies: list[Any] = []

    @property
    def busy(self) -> bool:
        """Whether replies are awaited."""
        return bool(self._calls)

    def send(self, call: Call) -> None:
        """Send a call's commands behind those that were sent before."""
        if self._transport is None or self.lost:
            call.finish(Failure(Kind.TRANSIENT, "connection lost"))
            return
        call.sent_s = self._clock()
        self._calls.append(call)
        self._transport.write(call.payload)

    def look(self, now_s: float, timeout_s: float) -> None:
        """End the calls whose deadline has passed; cut the connection if it has been silent for too long."""
        if not self._calls:
            return
        if now_s - max(self._calls[0].sent_s, self._heard_s) > timeout_s:
            self.cut(TIMED_OUT)
            return
        for call in [call for call in self._calls if call.deadline_s <= now_s]:
            call.finish(TIMED_OUT)

    def cut(self, failure: Failure = CLOSED) -> None:
        """Break the connection off; calls without an answer fail."""
        self._lose()
        if self._transport is not None:
            self._transport.abort()
        self._fail(failure)

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        own = transport.get_extra_info("socket")
        if own is not None:  # a server that has gone without a word is noticed, also when nothing is asked
            own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)

    def data_received(self, data: bytes) -> None:
        """Take in bytes that have come."""
        self._heard_s = self._clock()
        parser = self._parser
        try:
            parser.feed(data)
            while (reply := parser.gets()) is not False:  # False, which this protocol can't say: not yet
                if not self._calls:
                    self.cut(Failure(Kind.TRANSIENT, "the server sent what nobody had asked for"))
                    return
                self._take(reply)
        except hiredis.ProtocolError as error:
            self.cut(Failure(Kind.TRANSIENT, f"malformed answer: {error}"))

    def eof_received(self) -> None:
        """Let the transport close."""
        self._lose()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what has no answer."""
        self._lose()
        self._transport = None
        self._fail(Failure(Kind.TRANSIENT, f"connection lost: {exc or 'closed by the other side'}"))

    # Inside.

    def _take(self, reply: Any) -> None:
        call = self._calls[0]
        if call.replies == 1:
            self._calls.popleft()
            call.finish([reply])
            return
        self._replies.append(reply)
        if len(self._replies) == call.replies:
            replies, self._replies = self._replies, []
            self._calls.popleft()
            call.finish(replies)

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            self._on_lost(self)

    def _fail(self, failure: Failure) -> None:
        calls, self._calls = self._calls, deque()
        for call in calls:
            call.finish(failure)
