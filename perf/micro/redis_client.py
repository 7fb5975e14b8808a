"""What a call to Redis costs: redis-py, with hiredis and without, and our reader; same keys, same rows.

Run as `python -m perf.micro.redis_client`; it starts a redis-server. Figures are CPU microseconds of this
process per call, from the reads to their rows: the least of several rounds, all ways in each. uvloop, one
call at a time. "the bytes" writes a call that was made before and waits for as many bytes as come: the least
that any client can take.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from time import process_time_ns
from typing import Any

import redis.asyncio
import uvloop
from redis._parsers import _AsyncHiredisParser, _AsyncRESP2Parser

from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.interface import TableSpec
from fastserve.store.redis import layout
from fastserve.store.redis.nodes import packed
from fastserve.store.url import open_store
from perf.load import redis_server

ROW_BYTES = 816
"""100 float64 and a header."""
SHAPES = ((1, 1), (1, 16), (5, 4), (50, 1), (50, 2))
"""Tables of a group, and keys."""
CALLS = 400
ROUNDS = 7

Way = Callable[[], Awaitable[None]]


class Bytes(asyncio.Protocol):
    """Sends a payload; the answer is there when so many bytes have come."""

    def __init__(self) -> None:
        self.payload = b""
        self.expected = self.left = 0
        self.done: asyncio.Future[None] | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.left -= len(data)
        if self.left <= 0 and self.done is not None:
            self.done.set_result(None)

    async def call(self) -> None:
        self.left = self.expected
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(self.payload)
        await self.done


async def cost_us(way: Way) -> float:
    start = process_time_ns()
    for _ in range(CALLS):
        await way()
    return (process_time_ns() - start) / CALLS / 1000


def by_library(client: Any, group: ReadGroup, keys: Sequence[str]) -> Way:
    """Ask redis-py, and cut what it gives up among the reads."""
    tables = [table.encode() for table in group.tables]

    async def call() -> None:
        places = [layout.row_key(table, key.encode()) for key in keys for table in tables]
        values = await client.mget(places)
        size = len(tables)
        rows = [values[at : at + size] for at in range(0, len(values), size)]
        assert rows[-1][-1] is not None

    return call


def by_reader(store: Any, group: ReadGroup, keys: Sequence[str]) -> Way:
    """Ask as the coalescer does."""
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[None]] = []

    def settle(reads: Sequence[KeyRead]) -> None:
        assert reads[-1].rows[-1] is not None
        waiting.pop().set_result(None)

    reader = store.reader(settle)

    async def call() -> None:
        done = loop.create_future()
        waiting.append(done)
        reader.fetch([KeyRead(group, key, loop.time() + 1) for key in keys])
        await done

    return call


async def by_bytes(port: int, group: ReadGroup, keys: Sequence[str]) -> Way:
    """Give the least: no command is made, no reply is read."""
    places = [layout.row_key(table.encode(), key.encode()) for key in keys for table in group.tables]
    _, protocol = await asyncio.get_running_loop().create_connection(Bytes, "127.0.0.1", port)
    protocol.payload = packed((b"MGET", *places))
    head = len(b"*%d\r\n" % len(places))
    protocol.expected = head + len(places) * len(b"$%d\r\n%b\r\n" % (ROW_BYTES, bytes(ROW_BYTES)))
    return protocol.call


async def measure(address: redis_server.RedisAddress) -> None:
    store = await open_store(address.store_url())
    parsers = {"redis-py, its own parser": _AsyncRESP2Parser, "redis-py, hiredis": _AsyncHiredisParser}
    clients = {}
    for name, parser in parsers.items():
        pool: Any = redis.asyncio.ConnectionPool(port=address.port, protocol=2, parser_class=parser)
        clients[name] = redis.asyncio.Redis.from_pool(pool)
    for tables, count in SHAPES:
        group = ReadGroup(0, tuple(f"prod.shop.view{number}" for number in range(tables)))
        keys = [f"user{number:08}" for number in range(count)]
        for table in group.tables:
            await store.create_table(TableSpec(table))
            await store.put_rows(table, [(key, bytes(ROW_BYTES)) for key in keys])
        ways = {name: by_library(client, group, keys) for name, client in clients.items()}
        ways |= {
            "ours": by_reader(store, group, keys),
            "the bytes": await by_bytes(address.port, group, keys),
        }
        found: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                found[name].append(await cost_us(way))
        for name, figures in found.items():
            print(f"{tables:3} tables x {count:2} keys  {name:26} {min(figures):8.1f} us", flush=True)
    for client in clients.values():
        await client.aclose()
    await store.close()


def main() -> int:
    with redis_server.running() as address:
        uvloop.run(measure(address))
    return 0


if __name__ == "__main__":
    sys.exit(main())
