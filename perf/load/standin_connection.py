"""One client's connection to the stand-in DynamoDB: HTTP requests in, answers out when their time has come.

Parsing is cut by hand: a request is one `find` for its blank line and one for each header that matters. It
knows no sockets: bytes come with the moment at which they came, and leave by a link.

Invariants:
1. Answers of one connection come in the order of its requests.
2. Every answer of DynamoDB carries the CRC-32 of its body, right unless a fault was asked for.
3. A call's time by the latency law begins when its request had come, whenever this process reads it; under
   TLS when it was read, and behind another request when that one was answered.
"""

from __future__ import annotations

import time
import zlib
from typing import TYPE_CHECKING, Protocol

import orjson

from perf.load.dynamo_error import DynamoError, server_fault, throttled, unknown_operation, validation
from perf.load.prepared_answer import HEAD_ROOM_BYTES

try:  # ten times zlib's speed on answers of 100 KB, which keeps the stand-in out of the way
    from isal.isal_zlib import crc32
except ImportError:
    crc32 = zlib.crc32

if TYPE_CHECKING:
    from collections.abc import Callable

    from perf.load.signature import SignatureCheck
    from perf.load.standin_state import StandIn

_TARGET = b"x-amz-target:"
_LENGTH = b"content-length:"
_HEAD_MAX_BYTES = 64 * 1024
_STATUS = {200: b"200 OK", 400: b"400 Bad Request", 500: b"500 Internal Server Error"}
_CONSTANT_HEAD = (
    b"\r\nServer: stand-in\r\nContent-Type: application/x-amz-json-1.0\r\nConnection: keep-alive\r\n"
    b"x-amzn-RequestId: 00000000000000000000000000000000000000000000000000AA\r\nx-amz-crc32: "
)


class Link(Protocol):
    """What carries a connection's bytes."""

    def write(self, data: bytes | memoryview) -> None:
        """Send."""

    def close(self, *, reset: bool = False) -> None:
        """End the connection."""


class Connection:
    """One client's connection."""

    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in
        self._link: Link | None = None
        self._buffer = b""
        self._came_s = 0.0
        self._waiting = False

    def begin(self, link: Link) -> None:
        """Count a client in."""
        self._link = link
        counters = self._stand_in.counters
        counters.connections += 1
        counters.connections_total += 1
        counters.connections_peak = max(counters.connections_peak, counters.connections)

    def end(self) -> None:
        """Count a client out."""
        self._link = None
        self._stand_in.counters.connections -= 1

    def take(self, data: bytes, came_s: float) -> None:
        """Take bytes in that came at a moment; answer each request as it is complete."""
        self._stand_in.counters.bytes_in += len(data)
        self._buffer = self._buffer + data if self._buffer else data
        self._came_s = came_s
        self._advance()

    def _advance(self) -> None:
        while self._buffer and not self._waiting and self._link is not None:
            blank = self._buffer.find(b"\r\n\r\n")
            if blank < 0:
                if len(self._buffer) > _HEAD_MAX_BYTES:
                    self._link.close(reset=True)
                return
            head = self._buffer[:blank]
            lowered = head.lower()
            end = blank + 4 + _content_length(lowered)
            if len(self._buffer) < end:
                return
            body = self._buffer[blank + 4 : end]
            self._buffer = self._buffer[end:]
            self._take(head, lowered, body)

    def _take(self, head: bytes, lowered: bytes, body: bytes) -> None:
        stand_in = self._stand_in
        at = lowered.find(_TARGET)
        if at < 0:
            self._control(head, body)
            return
        if stand_in.signatures is not None and not self._is_signed(stand_in.signatures, head, body):
            return
        end = lowered.find(b"\r", at)
        target = head[at + len(_TARGET) : end if end > 0 else None].strip().decode("latin-1")
        if stand_in.store.faults.active:
            self._take_with_faults(target, body)
        else:
            status, answer = stand_in.answer(target, body)
            delay_s = stand_in.law.draw_s() if stand_in.law else 0.0
            self._later(delay_s, lambda: self._send(status, answer))

    def _is_signed(self, signatures: SignatureCheck, head: bytes, body: bytes) -> bool:
        try:
            signatures.check(head, body, time.time())
        except DynamoError as error:
            self._stand_in.counters.errors += 1
            self._send(error.status, error.error_body())
            return False
        return True

    def _take_with_faults(self, target: str, body: bytes) -> None:
        stand_in = self._stand_in
        operation = target.partition(".")[2]
        fate = stand_in.store.faults.fate(operation)
        if fate in {"drop_connection", "reset_connection"}:
            self._drop(reset=fate == "reset_connection")
            return
        answer: bytes | bytearray
        if fate == "throttle":
            status, answer = 400, throttled().error_body()
        elif fate == "server_error":
            status, answer = 500, server_fault().error_body()
        else:
            status, answer = stand_in.answer(target, body)
        delay_s = stand_in.law.draw_s() if stand_in.law else 0.0
        delay_s += stand_in.store.faults.slow_s(operation, body)
        if fate == "stall":
            delay_s += stand_in.store.faults.plan.stall_ms / 1_000
        self._later(delay_s, lambda: self._send(status, answer, fate))

    def _later(self, delay_s: float, send: Callable[[], None]) -> None:
        came_s = self._came_s

        def finish() -> None:
            self._waiting = False
            send()
            self._stand_in.note_call(came_s)
            self._came_s = time.monotonic()
            self._advance()

        if delay_s:
            self._waiting = True
            self._stand_in.timer.call_at(came_s + delay_s, finish)
        else:
            send()

    def _send(self, status: int, body: bytes | bytearray, fate: str = "ok") -> None:
        if isinstance(body, bytearray):
            whole = memoryview(body)
            head = _head(status, crc32(whole[HEAD_ROOM_BYTES:]), len(body) - HEAD_ROOM_BYTES)
            start = HEAD_ROOM_BYTES - len(head)
            whole[start:HEAD_ROOM_BYTES] = head
            self._write(whole[start:])
            return
        crc = crc32(body)
        if fate == "wrong_crc":
            crc ^= 1
        answer = _head(status, crc, len(body)) + body
        # Cut within the body: the head promises more than comes.
        self._write(answer if fate != "cut_answer" else answer[: -(len(body) + 1) // 2])
        if fate == "cut_answer":
            self._drop()

    def _control(self, head: bytes, body: bytes) -> None:
        stand_in = self._stand_in
        status, answer = 200, b""
        try:
            if head.startswith(b"POST /_control "):
                stand_in.control(orjson.loads(body))
            elif not head.startswith(b"GET /_control "):
                raise unknown_operation("no X-Amz-Target")
            answer = orjson.dumps(stand_in.state())
        except DynamoError as error:
            status, answer = error.status, error.error_body()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            status, answer = 400, validation(f"control: {error!r}"[:200]).error_body()
        self._send(status, answer)

    def _write(self, data: bytes | memoryview) -> None:
        if self._link is not None:
            self._stand_in.counters.bytes_out += len(data)
            self._link.write(data)

    def _drop(self, *, reset: bool = False) -> None:
        if self._link is not None:
            self._link.close(reset=reset)
            self._buffer = b""


def _head(status: int, crc: int, size_bytes: int) -> bytes:
    form = b"HTTP/1.1 %b\r\nDate: %b%b%d\r\nContent-Length: %d\r\n\r\n"
    return form % (_STATUS[status], _http_date(), _CONSTANT_HEAD, crc, size_bytes)


def _content_length(lowered_head: bytes) -> int:
    at = lowered_head.find(_LENGTH)
    if at < 0:
        return 0
    end = lowered_head.find(b"\r", at)
    return int(lowered_head[at + len(_LENGTH) : end if end > 0 else None])


_date_cache: tuple[int, bytes] = (0, b"")


def _http_date() -> bytes:
    global _date_cache  # noqa: PLW0603 - one value for the process, remade every second
    now = int(time.time())
    if _date_cache[0] != now:
        _date_cache = now, time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now)).encode()
    return _date_cache[1]
