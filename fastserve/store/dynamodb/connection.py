"""One keep-alive connection: sends one request, gives its answer to a callback, waits for the next.

Knows nothing of DynamoDB, signatures or retries; who owns it (a `Pool`) decides what a loss means.

1. At most one call is outstanding. Its ``on_answer`` is called exactly once, with an answer or a failure.
2. After a failure, a deadline, or a byte that nobody asked for, the connection is cut and never used again:
   a late answer can't be read as a later call's.
3. An answer's body may be a view on this connection's buffer: ``on_answer`` reads it before it returns.
4. The owner is told that the connection is free before ``on_answer`` runs: a waiting call goes out first.

The kernel writes straight into one buffer that is used over and over. Against chunks that are joined, and
against a buffer made for each Content-Length, this saves nothing at 1 KB and a fifth of the whole round
trip's CPU at 200 KB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from fastserve.errors import InvariantError
from fastserve.wire.client_http import Answer, AnswerParser, WireError
from fastserve.wire.ddb_errors import TIMEOUT, Failure, Kind

BUFFER_BYTES = 64 * 1024
# What one large answer needed is given back after it: 32 connections keep at most 16 MB.
KEPT_BUFFER_BYTES = 512 * 1024


class Call(Protocol):
    """One request on its way: ``payload`` is head and body.

    The answer is due ``timeout_s`` after the payload was sent, later while more of it keeps coming, and never
    after ``deadline_s`` on the loop's clock. Waiting for a connection isn't the service's time.
    """

    payload: bytes
    timeout_s: float
    deadline_s: float
    resent: bool  # went out a second time because its connection had died while idle

    @property
    def on_answer(self) -> Callable[[Answer | Failure], None]:
        """Called once with the outcome; doesn't raise."""


class Owner(Protocol):
    """Who lends the connection out."""

    def on_free(self, connection: Connection) -> None:
        """Take back a connection whose answer has come and that can be used again."""

    def on_lost(self, connection: Connection) -> None:
        """Forget a connection; called once, when it can't be used any more."""

    def maybe_resend(self, call: Call) -> bool:
        """Return True if the call of a connection that had died while idle goes out once more."""


class Connection(asyncio.BufferedProtocol):
    """The protocol side of one connection."""

    __slots__ = (
        # connection
        "_owner",
        "_transport",
        "_parser",
        "_buffer",
        "_view",
        "lost",
        "answers",
        "idle_since_s",
        "idle_limit_s",
        "retire_at_s",
        # call
        "call",
        "sent_s",
        "_due_s",
        "_filled_when_due",
        "_filled",
    )

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._parser = AnswerParser()
        self._filled = 0
        self._take_buffer(BUFFER_BYTES)
        self.lost = False
        self.answers = 0
        self.idle_since_s = 0.0
        self.idle_limit_s = 0.0
        self.retire_at_s = 0.0
        self.call: Call | None = None
        self.sent_s = 0.0
        self._due_s = 0.0
        self._filled_when_due = 0

    def send(self, call: Call, now_s: float) -> None:
        """Send a call's payload; the connection must be free. The owner asks `is_late` from time to time."""
        if self.call is not None or self._transport is None:
            raise InvariantError("a call was given to a connection that isn't free")
        self.call = call
        self.sent_s = now_s
        self._due_s = min(now_s + call.timeout_s, call.deadline_s)
        self._filled_when_due = 0
        self._transport.write(call.payload)

    def is_late(self, now_s: float) -> bool:
        """Say whether the call outstanding has had its time; one whose answer is coming in gets more."""
        call = self.call
        if call is None or now_s < self._due_s:
            return False
        if self._filled == self._filled_when_due or now_s >= call.deadline_s:
            return True
        self._filled_when_due = self._filled
        self._due_s = min(now_s + call.timeout_s, call.deadline_s)
        return False

    def close(self) -> None:
        """Close a connection that has no call."""
        self._lose()
        if self._transport is not None:
            self._transport.close()

    def cut(self, failure: Failure) -> None:
        """Break the connection off at once; a call outstanding fails with ``failure``."""
        self._lose()
        if self._transport is not None:
            self._transport.abort()
        self._fail(failure)

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Give the part of the buffer that is free."""
        return self._view[self._filled :] if self._filled else self._view

    def buffer_updated(self, nbytes: int) -> None:
        """Take in bytes that have come."""
        filled = self._filled + nbytes
        if self.call is None:
            self.cut(UNASKED)  # nobody is told: no call is outstanding
            return
        try:
            answer = self._parser.parse(self._buffer, filled)
        except WireError as error:
            self.cut(Failure(Kind.TRANSIENT, "malformed answer", str(error)))
            return
        if answer is None:
            self._filled = filled
            self._make_room()
        else:
            self._finish(answer)

    def eof_received(self) -> None:
        """Let the transport close: an answer is never complete by the connection's end."""
        self._lose()  # `connection_lost` comes a turn later, and an idle connection could be lent until then

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail a call outstanding, or have it sent again if the connection had died before the call."""
        self._lose()
        self._transport = None
        call = self.call
        if call is None:
            return
        if self.answers and not self._filled and self._owner.maybe_resend(call):
            self.call = None
            return
        self._fail(Failure(Kind.TRANSIENT, "connection lost", str(exc or "closed by the other side")))

    # Inside.

    def _finish(self, answer: Answer) -> None:
        call = self.call
        self.call = None
        self._filled = 0
        self.answers += 1
        if len(self._buffer) > KEPT_BUFFER_BYTES:
            self._take_buffer(BUFFER_BYTES)
        if answer.keep_alive:
            self._owner.on_free(self)
        else:
            self.close()
        if call is not None:
            call.on_answer(answer)

    def _make_room(self) -> None:
        size = len(self._buffer)
        wanted = self._parser.wanted_bytes or (size * 2 if self._filled == size else size)
        if wanted > size:
            old = self._view
            self._take_buffer(wanted)
            self._view[: self._filled] = old[: self._filled]

    def _take_buffer(self, size: int) -> None:
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)

    def _lose(self) -> None:
        if not self.lost:
            self.lost = True
            self._owner.on_lost(self)

    def _fail(self, failure: Failure) -> None:
        call = self.call
        self.call = None
        if call is not None:
            call.on_answer(failure)


UNASKED = Failure(Kind.TRANSIENT, "unasked data", "the other side sent data without a request")
TIMED_OUT = Failure(Kind.TRANSIENT, TIMEOUT, "no answer within the call's time")
# The same for a call whose time was too short to blame the service.
CUT_SHORT = Failure(Kind.TRANSIENT, TIMEOUT, "no answer within the little time that was left for the call")
CLOSED = Failure(Kind.PERMANENT, "closed", "the store was closed")
