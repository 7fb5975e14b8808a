"""The stand-in DynamoDB as a process: `python -m perf.load.standin --port N`.

Speaks enough HTTP/1.1 for clients of DynamoDB (requests with a Content-Length, kept alive), and beside it
`POST /_control` (tables, faults, latency) and `GET /_control` (counters). It must not know what rows mean.

Invariants:
1. It ends when its standard input does, so it never outlives what started it.
2. With a certificate it listens on a second port, with TLS; the counters name it. With a secret it refuses
   requests whose signature isn't that secret's.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import socket
import ssl
import sys
import time
from typing import cast

import uvloop

from perf.load.end_of_input import end_of_input
from perf.load.signature import SignatureCheck
from perf.load.stamped_socket import StampedSocket
from perf.load.standin_connection import Connection
from perf.load.standin_state import StandIn

log = logging.getLogger(__name__)

_BACKLOG = 1_024
_ACCEPT_AGAIN_S = 0.1
_READ_BYTES = 256 * 1024


class TlsLink(asyncio.Protocol):
    """A connection under TLS, read by the loop's transports: what it reads counts as having just come."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._connection.begin(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        del exc
        self._connection.end()

    def data_received(self, data: bytes) -> None:
        """Hand bytes on."""
        self._connection.take(data, time.monotonic())

    def write(self, data: bytes | memoryview) -> None:
        """Send."""
        assert self._transport is not None
        self._transport.write(data)

    def close(self, *, reset: bool = False) -> None:
        """End the connection."""
        assert self._transport is not None
        if reset:
            self._transport.abort()
        else:
            self._transport.close()


class Listener:
    """Accepts connections, whose bytes carry the moments at which they came."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stand_in: StandIn, host: str, port: int) -> None:
        self._loop = loop
        self._stand_in = stand_in
        # Nearly all requests come in one read; all connections share it.
        self._buffer = bytearray(_READ_BYTES)
        self._socket = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self._listen()

    def close(self) -> None:
        """Accept no more."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _listen(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._socket.accept()
            except BlockingIOError:
                return
            except ConnectionError:  # the client has gone
                continue
            except OSError as error:  # no descriptors are left: others have to close first
                log.warning("can't accept: %s", error)
                self._loop.remove_reader(self._socket.fileno())
                self._loop.call_later(_ACCEPT_AGAIN_S, self._listen)
                return
            connected.setblocking(False)
            self._begin(connected)

    def _begin(self, connected: socket.socket) -> None:
        connection, view = Connection(self._stand_in), memoryview(self._buffer)

        def on_data(count: int, came_ns: int) -> None:
            connection.take(bytes(view[:count]), came_ns / 1e9)

        connection.begin(StampedSocket(self._loop, connected, view, on_data, connection.end))


async def _serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stand_in = StandIn(loop)
    if options.check_signature:
        stand_in.signatures = SignatureCheck(*options.check_signature.split(":", 1))

    listener = Listener(loop, stand_in, options.host, options.port)
    if options.tls_cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.tls_cert, options.tls_key)
        with_tls = await loop.create_server(
            lambda: TlsLink(Connection(stand_in)), options.host, 0, backlog=_BACKLOG, ssl=context
        )
        stand_in.tls_port = with_tls.sockets[0].getsockname()[1]
    sys.stdout.write(f"{listener.port}\n")
    sys.stdout.flush()
    await end_of_input(loop)
    listener.close()
    stand_in.timer.close()


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m perf.load.standin", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one, printed on the first line")
    parser.add_argument("--tls-cert", help="a second port, with TLS")
    parser.add_argument("--tls-key")
    parser.add_argument(
        "--check-signature",
        metavar="KEY_ID:SECRET",
        help="refuse what isn't signed with it",
    )
    logging.basicConfig(level=logging.WARNING)
    # Requests are trees without cycles; collections would only add to the latencies that are measured.
    gc.disable()
    uvloop.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
