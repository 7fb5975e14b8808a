"""One keep-alive HTTP/1.1 connection of what sends load, made to cost little.

Knows no load laws: it sends bytes, waits for the whole answer, and says so. Reads go into one buffer that all
connections share, since a body is counted and not kept, except for the answers that are to be verified.

Invariants:
1. One request is outstanding at most; `on_answer` or `on_loss` is called exactly once for each.
2. An answer is whole when Content-Length bytes have followed its head; anything else is a loss.
3. After a loss the connection is done with.
"""

from __future__ import annotations

import asyncio
from typing import Protocol, cast

_BUFFER_BYTES = 1 << 20
# Loaders of one process share it: a read is looked at before the loop goes on to the next.
_buffer = bytearray(_BUFFER_BYTES)
_view = memoryview(_buffer)
_SPELLINGS = (b"Content-Length: ", b"content-length: ")


class AnswerOwner(Protocol):
    """What is told of answers."""

    def on_answer(self, connection: ClientConnection, status: int, body: bytes | None) -> None:
        """Take a whole answer; the body only if it was to be kept."""

    def on_loss(self, connection: ClientConnection) -> None:
        """Take note that the connection is gone."""


class ClientConnection(asyncio.BufferedProtocol):
    """A connection with at most one request under way."""

    __slots__ = (
        "_head",
        "_kept",
        "_missing",
        "_owner",
        "_status",
        "_transport",
        "busy",
        "closes",
        "intended_ns",
        "key",
        "load",
        "sent_ns",
    )

    def __init__(self, owner: AnswerOwner) -> None:
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._missing = 0
        self._status = 0
        self._kept: list[bytes] | None = None
        self.busy = False
        # Whether the last answer said that the server closes the connection.
        self.closes = False
        self.key = ""
        # Whose request is under way; the owner's business, for owners of several loads.
        self.load: object = None
        self.intended_ns = 0
        self.sent_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report a loss."""
        del exc
        self._transport = None
        self._owner.on_loss(self)

    def send(self, request: bytes, *, keep_body: bool) -> None:
        """Send one request."""
        self.begin(keep_body=keep_body)
        assert self._transport is not None
        self._transport.write(request)

    def begin(self, *, keep_body: bool) -> None:
        """Expect an answer."""
        self.busy = True
        self._kept = [] if keep_body else None

    def abort(self) -> None:
        """Give up on the connection; a loss follows."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close without a report of what is under way."""
        if self._transport is not None:
            self._transport.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the shared buffer."""
        del sizehint
        return _view

    def buffer_updated(self, nbytes: int) -> None:
        """Count what came."""
        if self._missing:
            self._take_body(0, nbytes)
        elif not self.busy:
            self.abort()
        else:
            self._take_head(nbytes)

    def eof_received(self) -> bool:
        """Close when the server does."""
        return False

    def _take_head(self, nbytes: int) -> None:
        if self._head:
            data = self._head + _buffer[:nbytes]
            self._head = b""
            if len(data) > _BUFFER_BYTES:
                self.abort()
                return
            nbytes = len(data)
            _buffer[:nbytes] = data
        blank = _buffer.find(b"\r\n\r\n", 0, nbytes)
        if blank < 0:
            self._head = bytes(_buffer[:nbytes])
            return
        length = _content_length(blank)
        if length < 0 or not _buffer.startswith(b"HTTP/1.1 "):
            self.abort()
            return
        self._status = int(_buffer[9:12])
        self.closes = _buffer.find(b"onnection: close\r\n", 0, blank + 2) >= 0
        self._missing = length
        self._take_body(blank + 4, nbytes)

    def _take_body(self, start: int, end: int) -> None:
        if self._kept is not None:
            self._kept.append(bytes(_buffer[start:end]))
        self._missing -= end - start
        if self._missing < 0:
            self.abort()
        elif not self._missing:
            body = None if self._kept is None else b"".join(self._kept)
            self.busy = False
            self._owner.on_answer(self, self._status, body)


def _content_length(blank: int) -> int:
    for spelling in _SPELLINGS:
        at = _buffer.find(spelling, 0, blank)
        if at >= 0:
            start = at + len(spelling)
            end = _buffer.find(b"\r", start, blank + 1)
            return int(_buffer[start:end])
    return _content_length_any_case(blank)


def _content_length_any_case(blank: int) -> int:
    for line in bytes(_buffer[:blank]).split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return -1


async def connect(host: str, port: int, owner: AnswerOwner) -> ClientConnection:
    """Open a connection. Raises OSError."""
    loop = asyncio.get_running_loop()

    _, connection = await loop.create_connection(lambda: ClientConnection(owner), host, port)
    return connection
