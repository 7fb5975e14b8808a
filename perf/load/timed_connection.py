"""A connection of the load generator that knows when the kernel had its answer.

Invariants:
1. `came_ns` is the moment, on `time.monotonic_ns`, at which an answer's last segment had come.
2. All of `ClientConnection`'s hold.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol, cast

from perf.load.client_connection import AnswerOwner, ClientConnection
from perf.load.stamped_socket import StampedSocket


class TimedOwner(Protocol):
    """What is told of answers."""

    def on_answer(self, connection: TimedConnection, status: int, body: bytes | None) -> None:
        """Take a whole answer; the body only if it was to be kept."""

    def on_loss(self, connection: TimedConnection) -> None:
        """Take note that the connection is gone."""


class TimedConnection(ClientConnection):
    """A `ClientConnection` over a stamped socket."""

    __slots__ = ("_socket", "came_ns", "server_cpu_ns")

    def __init__(self, owner: TimedOwner, loop: asyncio.AbstractEventLoop, connected: socket.socket) -> None:
        super().__init__(cast("AnswerOwner", owner))
        self.came_ns = 0
        # The CPU that the server had used when the request was sent; of probes alone.
        self.server_cpu_ns: int | None = None
        self._socket = StampedSocket(loop, connected, self.get_buffer(0), self._on_data, self._on_lost)

    def send(self, request: bytes, *, keep_body: bool) -> None:
        """Send one request."""
        self.begin(keep_body=keep_body)
        self._socket.write(request)

    def abort(self) -> None:
        """Give up on the connection; a loss follows."""
        self._socket.close(reset=True)

    def close(self) -> None:
        """Close; `on_loss` follows, as after `abort`, once all is sent."""
        self._socket.close()

    def _on_data(self, count: int, came_ns: int) -> None:
        self.came_ns = max(came_ns, self.sent_ns)
        self.buffer_updated(count)

    def _on_lost(self) -> None:
        self.connection_lost(None)


async def connect_timed(host: str, port: int, owner: TimedOwner) -> TimedConnection:
    """Open a connection. Raises OSError."""
    loop = asyncio.get_running_loop()
    connected = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connected.setblocking(False)
    try:
        await loop.sock_connect(connected, (host, port))
        return TimedConnection(owner, loop, connected)
    except BaseException:
        connected.close()
        raise
