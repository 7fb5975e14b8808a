"""What HTTP itself costs: a connection's protocol without a socket, an application that only answers.

Run as `python -m perf.micro.http_protocol`. Figures are CPU nanoseconds per request, the least of
several rounds.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from time import process_time_ns

import httptools

from fastserve.server.connections import Connections
from fastserve.server.exchange import Exchange
from fastserve.server.options import ServerOptions
from fastserve.server.protocol import HttpProtocol
from fastserve.wire.http1 import HttpLimits, parse_head

BODY = b"x" * 120
ANSWER = b"y" * 200
POST = (
    b"POST /api/v1/feature-service/get-features HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"
    b"User-Agent: python-requests/2.32\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\n"
    b"Connection: keep-alive\r\nAuthorization: Tecton-key abcdefabcdefabcdef\r\n"
    b"Content-Type: application/json\r\nContent-Length: 120\r\n\r\n"
)
GET = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"
SEGMENTS = [(POST + BODY)[at : at + 40] for at in range(0, len(POST + BODY), 40)]
ROUNDS = 7


class FakeTransport(asyncio.Transport):
    """Takes what is written and forgets it."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class WithAllCallbacks:
    """What an httptools protocol usually asks for."""

    def on_url(self, url: bytes) -> None: ...
    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_headers_complete(self) -> None: ...
    def on_body(self, body: bytes) -> None: ...
    def on_message_complete(self) -> None: ...


def answer_at_once(exchange: Exchange) -> None:
    exchange.respond(200, ANSWER)


def connection() -> HttpProtocol:
    protocol = HttpProtocol(Connections(answer_at_once, ServerOptions(), 0.0, 0))
    protocol.connection_made(FakeTransport())
    return protocol


def feeding(*segments: bytes) -> Callable[[int], None]:
    receive = connection().data_received

    def run(times: int) -> None:
        for _ in range(times):
            for segment in segments:
                receive(segment)

    return run


def feeding_new_heads(times: int) -> None:
    receive = connection().data_received
    start, end = POST.split(b"Accept:")
    for number in range(times):
        receive(b"%bX-Amzn-Trace-Id: Root=1-%016x\r\nAccept:%b%b" % (start, number, end, BODY))


def parsing(times: int) -> None:
    limits = HttpLimits()
    for _ in range(times):
        parse_head(POST, limits)


def parsing_with_httptools(times: int) -> None:
    parser = httptools.HttpRequestParser(WithAllCallbacks())
    message = POST + BODY
    for _ in range(times):
        parser.feed_data(message)


def exchanging(times: int) -> None:
    protocol = connection()
    head = parse_head(POST, HttpLimits())
    for _ in range(times):
        protocol._dispatch(head, BODY)


CASES: list[tuple[str, Callable[[int], None], int]] = [
    ("httptools alone, all callbacks, no checks", parsing_with_httptools, 1),
    ("parse_head, eight fields", parsing, 1),
    ("exchange made, answered, written", exchanging, 1),
    ("POST of a known head, one segment", feeding(POST + BODY), 1),
    ("POST of a known head, body in a second segment", feeding(POST, BODY), 1),
    ("POST whose head is always new", feeding_new_heads, 1),
    ("GET of a known head", feeding(GET), 1),
    ("16 POSTs in one segment, per request", feeding((POST + BODY) * 16), 16),
    ("POST in segments of 40 bytes", feeding(*SEGMENTS), 1),
]


def measure(run: Callable[[int], None], requests: int, times: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = process_time_ns()
        run(times)
        best = min(best, (process_time_ns() - start) / times / requests)
    return best


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    for name, run, requests in CASES:
        print(f"{name:50s} {measure(run, requests, max(1, times // requests)):8.0f} ns")


if __name__ == "__main__":
    main()
