"""The floor: the least a uvloop + httptools process must do for the same bytes in and out.

`python -m perf.floor --answer-bytes N` parses each request with httptools, runs `orjson.loads` over its
body and answers a constant body of that size. With `--store-port` and `--tables` it also sends the stand-in
one constant BatchGetItem for all requests of a loop turn, as many keys as their vectors need, and counts
the bytes of the answer without reading them: then the bytes to and from the store are the same, too. It
must not know what a feature is: it checks, looks up, decodes and formats nothing, so a server can only beat
it by leaving uvloop, httptools or Python.

Invariants:
1. Every request gets one answer, in the order of its connection.
2. With a store, a request is answered after a store answer that was asked for after the request came.
3. It ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
from typing import cast

import httptools
import orjson
import uvloop

from perf.load.client_connection import ClientConnection, connect
from perf.load.end_of_input import end_of_input
from perf.load.key_laws import entity_key

_CALL_MAX_KEYS = 100


class Floor:
    """What all connections share: the answer, and the way to the store."""

    def __init__(self, answer_bytes: int, store: StoreFloor | None) -> None:
        self.answer = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
            b"Content-Length: %d\r\n\r\n" % answer_bytes
        ) + b" " * answer_bytes
        self.store = store


class FloorConnection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._body = b""
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        orjson.loads(self._body)
        self._body = b""
        if self._floor.store is None:
            self.answer()
        else:
            self._floor.store.ask(self)

    def answer(self) -> None:
        if self._transport is not None:
            self._transport.write(self._floor.answer)


class StoreFloor:
    """Constant calls to the stand-in, one for each turn's requests or as many as their keys need."""

    def __init__(self, port: int, tables: list[str]) -> None:
        self._port = port
        self._requests_per_call = max(1, _CALL_MAX_KEYS // len(tables))
        self._calls = [_batch_get(port, tables, count) for count in range(1, self._requests_per_call + 1)]
        self._free: list[ClientConnection] = []
        self._served: dict[ClientConnection, list[FloorConnection]] = {}
        self._waiting: list[FloorConnection] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def ask(self, client: FloorConnection) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(client)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        step = self._requests_per_call
        for start in range(0, len(waiting), step):
            clients = waiting[start : start + step]
            if self._free:
                self._send(self._free.pop(), clients)
            else:
                task = self._loop.create_task(self._open_and_send(clients))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)

    async def _open_and_send(self, clients: list[FloorConnection]) -> None:
        self._send(await connect("127.0.0.1", self._port, self), clients)

    def _send(self, connection: ClientConnection, clients: list[FloorConnection]) -> None:
        self._served[connection] = clients
        connection.send(self._calls[len(clients) - 1], keep_body=False)

    def on_answer(self, connection: ClientConnection, status: int, body: bytes | None) -> None:
        for client in self._served.pop(connection):
            client.answer()
        self._free.append(connection)

    def on_loss(self, connection: ClientConnection) -> None:
        if connection in self._free:
            self._free.remove(connection)


def _batch_get(port: int, tables: list[str], requests: int) -> bytes:
    keys = [{"k": {"S": entity_key(number)}} for number in range(requests)]
    body = orjson.dumps({"RequestItems": {table: {"Keys": keys} for table in tables}})
    # As long as a signed request's head: the signature itself costs the floor nothing.
    return (
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/x-amz-json-1.0\r\n"
        b"X-Amz-Target: DynamoDB_20120810.BatchGetItem\r\nX-Amz-Date: 20260101T000000Z\r\n"
        b"Authorization: AWS4-HMAC-SHA256 Credential=0/20260101/local/dynamodb/aws4_request, "
        b"SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=%064d\r\n"
        b"Content-Length: %d\r\n\r\n" % (port, 0, len(body))
    ) + body


async def _serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    store = StoreFloor(options.store_port, options.tables.split(",")) if options.store_port else None
    floor = Floor(options.answer_bytes, store)
    server = await loop.create_server(lambda: FloorConnection(floor), "127.0.0.1", 0, backlog=1_024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await end_of_input(loop)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m perf.floor", description=__doc__)
    parser.add_argument("--answer-bytes", type=int, required=True)
    parser.add_argument("--store-port", type=int)
    parser.add_argument("--tables", default="t")
    options = parser.parse_args()
    assert sys.stdin is not None
    gc.disable()
    uvloop.run(_serve(options))


if __name__ == "__main__":
    main()
