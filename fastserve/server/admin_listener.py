"""One worker's part of the admin listener: connections of their own, beside those of the clients.

It knows nothing of what is answered there. Every worker accepts, and whichever turns first takes one:
any of them can tell of the whole server, and a handful of scrapers and probes need no balance.

Invariants
1. Nothing here is counted among the clients' connections and answers, nor waits for them.
2. A worker that leaves after a reload takes no more admin connections, since it doesn't know the new
   definitions. Where the whole server drains it does until its last client has gone: a probe is to be told.
"""

from __future__ import annotations

import asyncio
import socket
from time import time

from fastserve.server.connections import Connections
from fastserve.server.exchange import Application
from fastserve.server.listener import Acceptor
from fastserve.server.options import ServerOptions
from fastserve.server.protocol import protocol_factory
from fastserve.server.shared_memory import ROW_CELLS, Row


class AdminListener:
    """Accepts and answers on the admin address."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        application: Application,
        options: ServerOptions,
    ) -> None:
        connections = Connections(application, options, loop.time(), int(time()))
        # A row that nobody shares: the acceptor sees no other worker, and takes what comes.
        row = Row(memoryview(bytearray(ROW_CELLS * 8)).cast("q"))
        self._acceptor = Acceptor(loop, listener, protocol_factory(connections), [row], 0)
        connections.on_closed = self._acceptor.on_closed
        self._connections = connections
        self._acceptor.start()

    def on_tick(self, now_s: float, epoch_s: int) -> None:
        """Take the time and sweep."""
        self._connections.on_tick(now_s, epoch_s)

    def drain(self, now_s: float, *, accepts: bool) -> None:
        """Let every connection go after its next answer; with ``accepts`` take new ones until `close`."""
        self._connections.drain(now_s)
        if not accepts:
            self._acceptor.close(takes_queued=False)

    async def close(self) -> None:
        """Accept no more and cut what is left."""
        self._acceptor.close(takes_queued=False)
        self._connections.abort()
        await asyncio.sleep(0)
