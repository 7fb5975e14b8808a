"""A DynamoDB on a socket that does what a script says: the faults that no emulator shows on demand.

Serves BatchGetItem and BatchWriteItem over tables that are dictionaries, in the test's loop. Each request
takes the next `Fault` of the script, or is answered properly when the script has ended. Items come shuffled.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from typing import Any

import orjson

PREFIX = "com.amazonaws.dynamodb.v20120810#"
THROTTLED = {
    "__type": PREFIX + "ProvisionedThroughputExceededException",
    "message": "The level of configured provisioned throughput for the table was exceeded.",
}


class Fault(Enum):
    """What happens to one request."""

    NONE = auto()
    RESET = auto()  # the connection is reset before a byte of the answer
    RESET_MID_ANSWER = auto()
    STALL = auto()  # no answer until `release`, then a late one
    WRONG_CRC = auto()
    CHUNKED = auto()
    CLOSE_AFTER = auto()  # says so and closes
    CLOSE_SILENTLY = auto()  # answers as if it kept the connection, and closes
    UNPROCESSED = auto()  # leaves some keys out, at least one and not all
    ALL_UNPROCESSED = auto()
    FOREIGN_UNPROCESSED = auto()  # leaves out a key that nobody asked for
    FOREIGN_ITEM = auto()
    THROTTLED = auto()
    ERROR_500 = auto()
    HTML_503 = auto()
    NOT_JSON = auto()
    NOT_HTTP = auto()
    SKEWED = auto()
    EXPIRED = auto()
    UNASKED = auto()  # a second answer behind the first


class ScriptedStore:
    """The server; `serving` makes one. What it was asked is in ``requests``: (operation, body, head)."""

    def __init__(self, seed: int = 0) -> None:
        self.tables: dict[str, dict[str, str]] = {}
        self.script: deque[Fault] = deque()
        self.fault_of_all: Fault | None = None
        self.requests: list[tuple[str, dict[str, Any], str]] = []
        self.connections = 0
        self.accepting = True
        self.date = "Tue, 11 Mar 2025 10:00:00 GMT"
        self._chance = random.Random(seed)
        self._released = asyncio.Event()
        self._next_request: asyncio.Future[None] | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def keys_asked(self, number: int = -1) -> list[tuple[str, str]]:
        """Give (table, key) of all keys of one BatchGetItem."""
        items = self.requests[number][1]["RequestItems"]
        return [(table, key["k"]["S"]) for table, entry in items.items() for key in entry["Keys"]]

    async def until_asked(self, count: int) -> None:
        """Wait until there have been ``count`` requests."""
        while len(self.requests) < count:
            self._next_request = asyncio.get_running_loop().create_future()
            await self._next_request

    def release(self) -> None:
        """Have the stalled requests answered."""
        self._released.set()

    def drop_connections(self) -> None:
        """Reset all connections, idle ones too."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if not self.accepting:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._serve_one(reader, writer):
                    pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = [line.partition(": ") for line in head.split("\r\n")[1:-2]]
        headers = {name.lower(): value for name, _, value in lines}
        request = orjson.loads(await reader.readexactly(int(headers["content-length"])))
        operation = headers["x-amz-target"].rpartition(".")[2]
        self.requests.append((operation, request, head))
        if self._next_request is not None and not self._next_request.done():
            self._next_request.set_result(None)
        fault = self.script.popleft() if self.script else self.fault_of_all or Fault.NONE
        if fault is Fault.RESET:
            writer.transport.abort()
            return False
        if fault is Fault.STALL:
            await self._released.wait()
        status, body = self._answer(operation, request, fault)
        raw = self._framed(status, body, fault)
        if fault is Fault.RESET_MID_ANSWER:
            writer.write(raw[: len(raw) // 2])
            await writer.drain()
            await asyncio.sleep(0)
            writer.transport.abort()
            return False
        writer.write(raw)
        await writer.drain()
        return fault not in {Fault.CLOSE_AFTER, Fault.CLOSE_SILENTLY, Fault.NOT_HTTP}

    def _answer(self, operation: str, request: dict[str, Any], fault: Fault) -> tuple[int, bytes]:
        errors: dict[Fault, tuple[int, object]] = {
            Fault.THROTTLED: (400, THROTTLED),
            Fault.ERROR_500: (500, {"__type": PREFIX + "InternalServerError", "message": "oops"}),
            Fault.SKEWED: (
                400,
                {"__type": PREFIX + "InvalidSignatureException", "message": "Signature expired"},
            ),
            Fault.EXPIRED: (400, {"__type": PREFIX + "ExpiredTokenException", "message": "expired"}),
        }
        if fault is Fault.HTML_503:
            return 503, b"<html>busy</html>"
        if fault is Fault.NOT_JSON:
            return 200, b"\x00\x01"
        if fault in errors:
            status, document = errors[fault]
            return status, orjson.dumps(document)
        for table in request["RequestItems"]:
            if table not in self.tables:
                return 400, orjson.dumps(
                    {
                        "__type": PREFIX + "ResourceNotFoundException",
                        "message": "Requested resource not found",
                    }
                )
        entries = request["RequestItems"]
        if operation == "BatchWriteItem":
            return 200, orjson.dumps(self._write(entries, fault))
        if any(len(key["k"]["S"]) > 2048 for entry in entries.values() for key in entry["Keys"]):
            return 400, orjson.dumps(
                {
                    "__type": PREFIX + "ValidationException",
                    "message": "Size of hashkey has exceeded the maximum",
                }
            )
        return 200, orjson.dumps(self._read(entries, fault))

    def _read(self, entries: dict[str, Any], fault: Fault) -> dict[str, Any]:
        responses: dict[str, list[Any]] = {table: [] for table in entries}
        unprocessed: dict[str, Any] = {}
        asked = [(table, key) for table, entry in entries.items() for key in entry["Keys"]]
        left_out = self._left_out(len(asked), fault)
        self._chance.shuffle(asked)
        for number, (table, key) in enumerate(asked):
            text = key["k"]["S"]
            if number in left_out:
                unprocessed.setdefault(table, {"Keys": []})["Keys"].append(key)
            elif text in self.tables[table]:
                responses[table].append({"k": {"S": text}, "v": {"B": self.tables[table][text]}})
        first = next(iter(entries))
        if fault is Fault.FOREIGN_ITEM:
            responses[first].append({"k": {"S": "nobody's"}, "v": {"B": "AAAA"}})
        if fault is Fault.FOREIGN_UNPROCESSED:
            unprocessed.setdefault(first, {"Keys": []})["Keys"].append({"k": {"S": "nobody's"}})
        return {"Responses": responses, "UnprocessedKeys": unprocessed}

    def _write(self, entries: dict[str, Any], fault: Fault) -> dict[str, Any]:
        requests = [(table, request) for table, requests in entries.items() for request in requests]
        left_out = self._left_out(len(requests), fault)
        unprocessed: dict[str, list[Any]] = {}
        for number, (table, request) in enumerate(requests):
            if number in left_out:
                unprocessed.setdefault(table, []).append(request)
            elif "PutRequest" in request:
                item = request["PutRequest"]["Item"]
                self.tables[table][item["k"]["S"]] = item["v"]["B"]
            else:
                self.tables[table].pop(request["DeleteRequest"]["Key"]["k"]["S"], None)
        return {"UnprocessedItems": unprocessed}

    def _left_out(self, count: int, fault: Fault) -> set[int]:
        if fault is Fault.ALL_UNPROCESSED:
            return set(range(count))
        if fault is not Fault.UNPROCESSED or count < 2:
            return set()
        some = {number for number in range(count) if self._chance.random() < 0.3}
        return some - {0} or {count - 1}

    def _framed(self, status: int, body: bytes, fault: Fault) -> bytes:
        if fault is Fault.NOT_HTTP:
            return b"SSH-2.0-OpenSSH_9.2\r\n\r\n"
        crc = zlib.crc32(body) ^ (fault is Fault.WRONG_CRC)
        head = f"HTTP/1.1 {status} Text\r\nDate: {self.date}\r\nx-amz-crc32: {crc}\r\n".encode()
        if fault is Fault.CLOSE_AFTER:
            head += b"Connection: close\r\n"
        if fault is Fault.CHUNKED:
            half = len(body) // 2
            pieces = b"".join(
                b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:]) if part
            )
            return head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
        raw = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        return raw + raw if fault is Fault.UNASKED else raw


@asynccontextmanager
async def serving(
    script: Iterable[Fault] = (), *, seed: int = 0, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[ScriptedStore]:
    """Run a scripted store on a port of 127.0.0.1, any free one unless told otherwise."""
    store = ScriptedStore(seed)
    store.script.extend(script)
    handlers: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(store.serve(reader, writer))
        handlers.add(task)
        task.add_done_callback(handlers.discard)

    server = await asyncio.start_server(accept, host, port)
    store.port = server.sockets[0].getsockname()[1]
    try:
        yield store
    finally:
        server.close()
        for task in list(handlers):
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
