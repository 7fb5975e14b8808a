"""A connection of the server without a socket: bytes in, exchanges and answers out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from fastserve.server.connections import Connections
from fastserve.server.exchange import Application, Exchange
from fastserve.server.options import ServerOptions
from fastserve.server.protocol import HttpProtocol
from fastserve.wire.http1 import HttpLimits

LIMITS = HttpLimits(body_bytes=1_000_000)
NOW_S = 1000.0
EPOCH_S = 784111777  # the date of RFC 9110's examples


class FakeTransport(asyncio.Transport):
    """Keeps what is written; a reader that doesn't read is played by `hold`."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.reads = True
        self.is_shut = False
        self.is_closed = False
        self.is_aborted = False
        self.unsent_bytes = 0
        self.holds = False
        self.high_bytes = 0
        self.protocol: HttpProtocol | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert isinstance(data, bytes)
        assert not self.is_shut
        assert not self.is_closed
        self.writes.append(data)
        if self.holds:
            was_over = self.unsent_bytes > self.high_bytes
            self.unsent_bytes += len(data)
            if not was_over and self.unsent_bytes > self.high_bytes and self.protocol is not None:
                self.protocol.pause_writing()

    def release(self, size_bytes: int) -> None:
        self.unsent_bytes -= size_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high_bytes = high or 0

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def is_closing(self) -> bool:
        return self.is_closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_shut = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True
        self.is_aborted = True


@dataclass
class Answer:
    """One answer as a client reads it."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Client:
    """The other side of one connection."""

    application: Application | None = None
    options: ServerOptions = field(default_factory=lambda: ServerOptions(limits=LIMITS))
    shared: Connections = field(init=False)
    exchanges: list[Exchange] = field(default_factory=list)
    transport: FakeTransport = field(default_factory=FakeTransport)

    def __post_init__(self) -> None:
        self.shared = Connections(self._on_exchange, self.options, NOW_S, EPOCH_S)
        self.protocol = HttpProtocol(self.shared)
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)

    def _on_exchange(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        if self.application is not None:
            self.application(exchange)

    def send(self, *segments: bytes) -> None:
        for segment in segments:
            if not self.transport.is_closed:
                self.protocol.data_received(segment)

    @property
    def received(self) -> bytes:
        return b"".join(self.transport.writes)

    def answers(self, methods: Iterable[str] = ()) -> list[Answer]:
        """Read what came as answers to requests with these methods (GET when there are no more)."""
        return read_answers(self.received, methods)


def answer_body(exchange: Exchange) -> None:
    exchange.respond(200, exchange.body)


def echoing(options: ServerOptions | None = None, **settings: float) -> Client:
    """Return a client of a server that answers each body with itself."""
    return Client(answer_body, options or replace(ServerOptions(limits=LIMITS), **settings))  # type: ignore[arg-type]


def asking(**settings: float) -> Client:
    """Return a client of a server that answers when the test does."""
    return Client(None, replace(ServerOptions(limits=LIMITS), **settings))  # type: ignore[arg-type]


def read_answers(received: bytes, methods: Iterable[str] = ()) -> list[Answer]:
    """Read answers one after another, as strictly as a client may; interim ones too."""
    answers = []
    asked = iter(methods)
    while received:
        head, end, received = received.partition(b"\r\n\r\n")
        assert end, head
        line, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = line.split(" ", 2)
        assert version == "HTTP/1.1"
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert len(headers) == len(lines)
        has_body = int(status) >= 200 and next(asked, "GET") != "HEAD"
        length = int(headers.get("content-length", 0)) if has_body else 0
        assert len(received) >= length
        answers.append(Answer(int(status), headers, received[:length]))
        received = received[length:]
    return answers


GET = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"


def post(body: bytes, path: bytes = b"/p", fields: bytes = b"") -> bytes:
    """Return the bytes of a POST."""
    return b"POST %b HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n%b" % (path, fields, len(body), body)
