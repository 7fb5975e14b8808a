"""The stand-in DynamoDB as a process: `python -m perf.load.standin --port N`.

Speaks enough HTTP/1.1 for clients of DynamoDB (requests with a Content-Length, kept alive), and beside it
`POST /_control` (tables, faults, latency) and `GET /_control` (counters). Parsing is cut by hand: a request
is one `find` for its blank line and one for each header that matters. It must not know what the rows mean.

Invariants:
1. Answers of one connection come in the order of its requests.
2. Every answer of DynamoDB carries the CRC-32 of its body, right unless a fault was asked for.
3. It ends when its standard input does, so it never outlives what started it.
4. With a certificate it listens on a second port, with TLS; the counters name it. With a secret it refuses
   requests whose signature isn't that secret's.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import socket
import ssl
import struct
import sys
import time
import zlib
from typing import TYPE_CHECKING, Any, cast

import orjson
import uvloop

from perf.load.described import DescribedTable
from perf.load.dynamo_error import DynamoError, server_fault, throttled, unknown_operation, validation
from perf.load.end_of_input import end_of_input
from perf.load.faults import FaultPlan, Faults
from perf.load.histogram import Histogram
from perf.load.latency_law import DYNAMODB_MS, LatencyLaw
from perf.load.operations import Store
from perf.load.precise_timer import PreciseTimer
from perf.load.prepared_items import PreparedItems
from perf.load.signature import SignatureCheck
from perf.load.tables import PreparedTable

try:  # ten times zlib's speed on answers of 100 KB, which keeps the stand-in out of the way
    from isal.isal_zlib import crc32
except ImportError:
    crc32 = zlib.crc32

if TYPE_CHECKING:
    from collections.abc import Callable

_TARGET = b"x-amz-target:"
_LENGTH = b"content-length:"
_HEAD_MAX_BYTES = 64 * 1024
_BACKLOG = 1_024
_STATUS = {200: b"200 OK", 400: b"400 Bad Request", 500: b"500 Internal Server Error"}


_CONSTANT_HEAD = (
    b"\r\nServer: stand-in\r\nContent-Type: application/x-amz-json-1.0\r\nConnection: keep-alive\r\n"
    b"x-amzn-RequestId: 00000000000000000000000000000000000000000000000000AA\r\nx-amz-crc32: "
)


class Counters:
    """What went over the wire, for the harness to read."""

    def __init__(self) -> None:
        self.errors = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.connections = 0
        self.connections_total = 0
        self.connections_peak = 0


class StandIn:
    """What all connections share: the store, the law, the counters."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.store = Store()
        self.counters = Counters()
        self.law: LatencyLaw | None = None
        self.timer = PreciseTimer(loop)
        self.calls = Histogram()
        self.signatures: SignatureCheck | None = None
        self.tls_port: int | None = None

    def answer(self, target: str, body: bytes) -> tuple[int, bytes]:
        """Answer one DynamoDB request with a status and a body."""
        try:
            _, dot, operation = target.partition(".")
            if not dot:
                raise unknown_operation(target)
            return 200, self.store.perform(operation, body)
        except DynamoError as error:
            self.counters.errors += 1
            return error.status, error.error_body()

    def control(self, wanted: dict[str, Any]) -> None:
        """Change tables, faults and latency as the harness asks.

        Raises:
            DynamoError: an unknown name.
        """
        unknown = set(wanted) - {"describe", "faults", "latency_ms", "prepare", "reset"}
        if unknown:
            raise validation(f"unknown controls: {sorted(unknown)}")
        for table in wanted.get("prepare", ()):
            name = table["table"]
            if "items" in table:
                self.store.tables[name] = PreparedItems(name, table["key"], table["items"])
                self.store.whole_items.add(name)
            else:
                self.store.tables[name] = PreparedTable(name, table["rows"])
        for table in wanted.get("describe", ()):
            name, header = table["table"], bytes.fromhex(table["header"])
            described = DescribedTable(name, table["number"], header, has_text=table["has_text"])
            self.store.tables[name] = described
        if "faults" in wanted:
            self.store.faults = Faults(FaultPlan.from_json(wanted["faults"]))
        if "latency_ms" in wanted:
            self.law = _law(wanted["latency_ms"])
        if wanted.get("reset"):
            self._reset()

    def _reset(self) -> None:
        connections = self.counters.connections
        self.counters = Counters()
        self.counters.connections = connections
        self.calls = Histogram()
        store = self.store
        store.calls.clear()
        for table in store.tables.values():
            table.keys_read = 0
        store.keys = store.absent_keys = store.unprocessed_keys = store.write_units = 0

    def note_call(self, received_s: float) -> None:
        """Keep how long a delayed call took."""
        self.calls.record(int((time.monotonic() - received_s) * 1e9))

    def state(self) -> dict[str, Any]:
        """Give the counters."""
        counters, store = self.counters, self.store
        return {
            "calls": dict(store.calls),
            "keys": store.keys,
            "keys_by_table": {
                name: table.keys_read for name, table in store.tables.items() if table.keys_read
            },
            "absent_keys": store.absent_keys,
            "unprocessed_keys": store.unprocessed_keys,
            "write_units": store.write_units,
            "errors": counters.errors,
            "bytes_in": counters.bytes_in,
            "bytes_out": counters.bytes_out,
            "connections": counters.connections,
            "connections_total": counters.connections_total,
            "connections_peak": counters.connections_peak,
            "tls_port": self.tls_port,
            "call_ms": self.calls.summary_ms(),
            "call_buckets_ms": self.calls.buckets_ms(),
        }


def _law(wanted: dict[str, float] | str | None) -> LatencyLaw | None:
    if wanted is None:
        return None
    if wanted == "dynamodb":
        return LatencyLaw(DYNAMODB_MS)
    if isinstance(wanted, str):
        raise validation(f"unknown latency law: {wanted[:64]}")
    return LatencyLaw({float(percent): ms for percent, ms in wanted.items()})


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count a client in."""
        self._transport = cast("asyncio.Transport", transport)
        counters = self._stand_in.counters
        counters.connections += 1
        counters.connections_total += 1
        counters.connections_peak = max(counters.connections_peak, counters.connections)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count a client out."""
        del exc
        self._transport = None
        self._stand_in.counters.connections -= 1

    def data_received(self, data: bytes) -> None:
        """Take bytes in; answer each request as it is complete."""
        self._stand_in.counters.bytes_in += len(data)
        self._buffer = self._buffer + data if self._buffer else data
        self._advance()

    def _advance(self) -> None:
        while self._buffer and not self._waiting and self._transport is not None:
            blank = self._buffer.find(b"\r\n\r\n")
            if blank < 0:
                if len(self._buffer) > _HEAD_MAX_BYTES:
                    self._transport.abort()
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
        received_s = time.monotonic()
        stand_in = self._stand_in
        at = lowered.find(_TARGET)
        if at < 0:
            self._control(head, body)
            return
        if stand_in.signatures is not None and not self._is_signed(stand_in.signatures, head, body):
            return
        end = lowered.find(b"\r", at)
        target = head[at + len(_TARGET) : end if end > 0 else None].strip().decode("latin-1")
        if stand_in.law is None and not stand_in.store.faults.active:
            self._send(*stand_in.answer(target, body))
        else:
            self._take_with_faults(target, body, received_s)

    def _is_signed(self, signatures: SignatureCheck, head: bytes, body: bytes) -> bool:
        try:
            signatures.check(head, body, time.time())
        except DynamoError as error:
            self._stand_in.counters.errors += 1
            self._send(error.status, error.error_body())
            return False
        return True

    def _take_with_faults(self, target: str, body: bytes, received_s: float) -> None:
        stand_in = self._stand_in
        operation = target.partition(".")[2]
        fate = stand_in.store.faults.fate(operation)
        if fate in {"drop_connection", "reset_connection"}:
            self._drop(reset=fate == "reset_connection")
            return
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
        self._later(received_s, delay_s, lambda: self._send(status, answer, fate))

    def _later(self, received_s: float, delay_s: float, send: Callable[[], None]) -> None:
        def finish() -> None:
            self._waiting = False
            send()
            self._stand_in.note_call(received_s)
            self._advance()

        if delay_s:
            self._waiting = True
            self._stand_in.timer.call_at(received_s + delay_s, finish)
        else:
            send()

    def _send(self, status: int, body: bytes, fate: str = "ok") -> None:
        crc = crc32(body)
        if fate == "wrong_crc":
            crc ^= 1
        head = b"HTTP/1.1 %b\r\nDate: %b%b%d\r\nContent-Length: %d\r\n\r\n"
        answer = head % (_STATUS[status], _http_date(), _CONSTANT_HEAD, crc, len(body)) + body
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
        except (KeyError, TypeError, ValueError) as error:
            status, answer = 400, validation(f"control: {error!r}"[:200]).error_body()
        self._send(status, answer)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._stand_in.counters.bytes_out += len(data)
            self._transport.write(data)

    def _drop(self, *, reset: bool = False) -> None:
        if self._transport is None:
            return
        if reset:
            # Lingering for no time sends RST in place of FIN (socket(7)).
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.close()
        self._buffer = b""


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


async def _serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    stand_in = StandIn(loop)
    if options.check_signature:
        stand_in.signatures = SignatureCheck(*options.check_signature.split(":", 1))

    def connection() -> Connection:
        return Connection(stand_in)

    server = await loop.create_server(connection, options.host, options.port, backlog=_BACKLOG)
    if options.tls_cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.tls_cert, options.tls_key)
        with_tls = await loop.create_server(connection, options.host, 0, backlog=_BACKLOG, ssl=context)
        stand_in.tls_port = with_tls.sockets[0].getsockname()[1]
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await end_of_input(loop)
    server.close()
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
