"""The bare server: the least that a hand-written server does for right answers; it measures the machine.

    python -m perf.bare --store-port PORT --tables T,… --row-words N --first-word N --features N

It answers vectors of float64 look-ups out of packed rows: uvloop, httptools, orjson, one signed BatchGetItem
for the requests of a loop turn over pooled connections, NumPy. It validates nothing and knows one service,
one body and one kind of row; it has no options, metadata, statuses, errors, deadlines, retries, checksums or
pipelining. An absent key or an answer other than 200 ends in an exception: it was written to be timed, not
to be used. It must not import fastserve: what makes that faster must not make its measure faster.

Invariants:
1. Values are right: an item goes to the request that asked for its key, in whatever order items come.
2. One call is under way on a store connection, one request on a client's.
3. It ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hmac
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import cast

import httptools
import numpy as np
import orjson
import pybase64
import uvloop

from perf.load.end_of_input import end_of_input

_CALL_MAX_KEYS = 100
_BUFFER_BYTES = 64 * 1024
_BLANK_LINE = b"\r\n\r\n"
_LENGTH_HEADER = b"content-length:"
_ACCESS_KEY, _SECRET_KEY, _REGION = "bare", "bare", "local"
_SIGNED_HEADERS = "content-type;host;x-amz-date;x-amz-target"

# The requests of a call: entity key -> the connections that wait for its vector.
Batch = dict[str, list["BareConnection"]]


@dataclass(frozen=True)
class VectorShape:
    """Where a vector's numbers stand: the same words of a row of each table, in the answer's order."""

    tables: tuple[str, ...]
    row_words: int
    first_word: int
    features: int


class Signer:
    """Heads of signed BatchGetItem requests; all but the body's hash is made once a second.

    Format: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._second = -1
        self._key = self._canonical = self._to_sign = self._head = b""

    def head(self, body: bytes) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._prepare(second)
        canonical = sha256(self._canonical + sha256(body).hexdigest().encode()).hexdigest()
        signature = hmac.digest(self._key, self._to_sign + canonical.encode(), "sha256").hex()
        return b"%b%b\r\nContent-Length: %d\r\n\r\n" % (self._head, signature.encode(), len(body))

    def _prepare(self, second: int) -> None:
        self._second = second
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        scope = f"{moment[:8]}/{_REGION}/dynamodb/aws4_request"
        key = f"AWS4{_SECRET_KEY}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        headers = {
            "content-type": "application/x-amz-json-1.0",
            "host": self._host,
            "x-amz-date": moment,
            "x-amz-target": "DynamoDB_20120810.BatchGetItem",
        }
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        sent = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._key = key
        self._canonical = f"POST\n/\n\n{lines}\n{_SIGNED_HEADERS}\n".encode()
        self._to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n".encode()
        self._head = (
            f"POST / HTTP/1.1\r\n{sent}Authorization: AWS4-HMAC-SHA256 Credential={_ACCESS_KEY}/{scope}, "
            f"SignedHeaders={_SIGNED_HEADERS}, Signature="
        ).encode()


class BatchGet:
    """One service's BatchGetItem bodies: all keys in each table."""

    def __init__(self, tables: tuple[str, ...]) -> None:
        opened = [b'%b:{"Keys":[' % orjson.dumps(table) for table in tables]
        self._pieces = [b'{"RequestItems":{' + opened[0], *(b"]}," + head for head in opened[1:]), b"]}}}"]

    def body(self, batch: Batch) -> bytes:
        keys = '{"k":{"S":"' + '"}},{"k":{"S":"'.join(batch) + '"}}'
        return keys.encode().join(self._pieces)


class Vectors:
    """Store answers to HTTP answers."""

    def __init__(self, shape: VectorShape) -> None:
        self._tables = shape.tables
        self._rows_shape = (-1, len(shape.tables), shape.row_words)
        self._words = slice(shape.first_word, shape.first_word + shape.features)
        self._vector_words = len(shape.tables) * shape.features

    def send(self, body: memoryview, batch: Batch) -> None:
        rows = self._rows(orjson.loads(body)["Responses"], batch)
        # Not for safety: with `validate` it takes a decoder four times as fast.
        matrix = np.frombuffer(pybase64.b64decode("".join(rows), validate=True), "<f8")
        picked = matrix.reshape(self._rows_shape)[:, :, self._words]
        vectors = np.ascontiguousarray(picked).reshape(-1, self._vector_words)
        for vector, clients in zip(vectors, batch.values(), strict=True):
            text = orjson.dumps({"result": {"features": vector}}, option=orjson.OPT_SERIALIZE_NUMPY)
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(
                text
            )
            for client in clients:
                client.answer(head + text)

    def _rows(self, answers: dict[str, list[dict[str, dict[str, str]]]], batch: Batch) -> list[str]:
        """Give the rows' texts: key by key as asked, and for each key in the order of the tables."""
        if len(batch) == 1:
            return [answers[table][0]["v"]["B"] for table in self._tables]
        by_key: dict[str, list[str]] = {key: [] for key in batch}
        for table in self._tables:
            for item in answers[table]:
                by_key[item["k"]["S"]].append(item["v"]["B"])
        return [row for rows in by_key.values() for row in rows]


class StoreConnection(asyncio.BufferedProtocol):
    """One connection to the store; the kernel writes into a buffer that is used over and over."""

    __slots__ = ("_batch", "_buffer", "_end", "_filled", "_start", "_store", "_transport", "_view")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._transport: asyncio.Transport | None = None
        self._batch: Batch = {}
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = self._start = self._end = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, batch: Batch, payload: bytes) -> None:
        assert self._transport is not None
        self._batch = batch
        self._transport.write(payload)

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if not self._end:
            self._find_body()
        if self._end and self._filled == self._end:
            body, batch = self._view[self._start : self._end], self._batch
            self._filled = self._end = 0
            self._store.on_answer(self, body, batch)

    def _find_body(self) -> None:
        blank = self._buffer.find(_BLANK_LINE, 0, self._filled)
        if blank < 0:
            return
        head = bytes(self._view[:blank]).lower()
        at = head.index(_LENGTH_HEADER) + len(_LENGTH_HEADER)
        self._start = blank + len(_BLANK_LINE)
        self._end = self._start + int(head[at:].partition(b"\r")[0])
        if self._end > len(self._buffer):
            # A new one: a bytearray that is looked at can't grow.
            larger = bytearray(2 * self._end)
            larger[: self._filled] = self._view[: self._filled]
            self._buffer, self._view = larger, memoryview(larger)


class Store:
    """The pool of connections, and the keys that wait for the end of the loop's turn."""

    def __init__(self, port: int, shape: VectorShape) -> None:
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._signer = Signer(f"127.0.0.1:{port}")
        self._batch_get = BatchGet(shape.tables)
        self._vectors = Vectors(shape)
        self._requests_per_call = max(1, _CALL_MAX_KEYS // len(shape.tables))
        self._waiting: Batch = {}
        self._free: list[StoreConnection] = []
        self._opening: set[asyncio.Task[None]] = set()

    def ask(self, key: str, client: BareConnection) -> None:
        waiting = self._waiting
        if not waiting:
            self._loop.call_soon(self._flush)
        if key in waiting:
            waiting[key].append(client)
        else:
            waiting[key] = [client]

    def on_answer(self, connection: StoreConnection, body: memoryview, batch: Batch) -> None:
        self._vectors.send(body, batch)
        self._free.append(connection)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, {}
        step = self._requests_per_call
        if len(waiting) <= step:
            self._send(waiting)
            return
        items = list(waiting.items())
        for start in range(0, len(items), step):
            self._send(dict(items[start : start + step]))

    def _send(self, batch: Batch) -> None:
        body = self._batch_get.body(batch)
        payload = self._signer.head(body) + body
        if self._free:
            self._free.pop().send(batch, payload)
        else:
            task = self._loop.create_task(self._open_and_send(batch, payload))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open_and_send(self, batch: Batch, payload: bytes) -> None:
        _, connection = await self._loop.create_connection(
            lambda: StoreConnection(self), "127.0.0.1", self._port
        )
        connection.send(batch, payload)


class BareConnection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = ("_body", "_parser", "_store", "_transport")

    def __init__(self, store: Store) -> None:
        self._store = store
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
        key = orjson.loads(self._body)["params"]["joinKeyMap"]["user_id"]
        self._body = b""
        self._store.ask(key, self)

    def answer(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)


async def _serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    tables = tuple(options.tables.split(","))
    shape = VectorShape(tables, options.row_words, options.first_word, options.features)
    store = Store(options.store_port, shape)
    server = await loop.create_server(lambda: BareConnection(store), "127.0.0.1", 0, backlog=1_024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await end_of_input(loop)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m perf.bare", description=__doc__)
    parser.add_argument("--store-port", type=int, required=True)
    parser.add_argument("--tables", required=True, help="names, with commas between")
    parser.add_argument("--row-words", type=int, required=True, help="8-byte words of a row")
    parser.add_argument("--first-word", type=int, required=True, help="where a row's features begin")
    parser.add_argument("--features", type=int, required=True, help="features of a row")
    options = parser.parse_args()
    gc.disable()
    uvloop.run(_serve(options))


if __name__ == "__main__":
    main()
