"""Our protocol on a socket and an application that numbers what it is asked, for proxies to stand before."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import orjson
import uvloop

from fastserve.server.connections import Connections
from fastserve.server.exchange import Exchange
from fastserve.server.options import ServerOptions
from fastserve.server.protocol import protocol_factory
from fastserve.wire.http1 import HttpLimits


@dataclass
class Recorder:
    """What the server was asked, in its order; the answer tells the number and the target."""

    port: int = 0
    targets: list[str] = field(default_factory=list)

    def __call__(self, exchange: Exchange) -> None:
        target = f"{exchange.path}?{exchange.query}"
        self.targets.append(target)
        exchange.respond(200, orjson.dumps({"number": len(self.targets) - 1, "target": target}))


@contextmanager
def recording() -> Iterator[Recorder]:
    """Serve in a thread until the end of the block."""
    recorder = Recorder()
    loop = uvloop.new_event_loop()
    options = ServerOptions(limits=HttpLimits(body_bytes=1_000_000))
    shared = Connections(recorder, options, time.monotonic(), int(time.time()))
    listener = socket.create_server(("127.0.0.1", 0))
    recorder.port = listener.getsockname()[1]
    server = loop.run_until_complete(loop.create_server(protocol_factory(shared), sock=listener))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def close() -> None:
        server.close()
        shared.abort()
        await asyncio.sleep(0)

    try:
        yield recorder
    finally:
        asyncio.run_coroutine_threadsafe(close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
