"""The wire client for tests: a reader over a pool to some endpoint, and reads that can be awaited."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.dynamodb.call import Caller
from fastserve.store.dynamodb.endpoint import Endpoint
from fastserve.store.dynamodb.pool import Pool, PoolSettings
from fastserve.store.dynamodb.reader import DynamoDBReader
from fastserve.wire.retry import RetryBudget
from fastserve.wire.sigv4 import Credentials


@dataclass
class FixedSource:
    """Credentials that stay, or are replaced by the test."""

    current: Credentials = field(default_factory=lambda: Credentials("AKIDTEST", "secret"))
    renewable: bool = False
    asked: int = 0

    def ask_soon(self) -> None:
        self.asked += 1


class WireClient:
    """A reader, and what it stands on."""

    def __init__(self, endpoint: str, *, timeout_s: float, settings: PoolSettings, consistent: bool) -> None:
        self.loop = asyncio.get_running_loop()
        self.source = FixedSource()
        chance = random.Random(7)
        parsed = Endpoint.of_url(endpoint)
        self.pool = Pool(self.loop, parsed, settings, None, chance.random)
        self.caller = Caller(
            self.pool, self.source, parsed.host_header, "us-east-1", time.time, self.loop.time, chance.random
        )
        self.caller.budget = RetryBudget()
        self.settled: list[KeyRead] = []
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self.reader = DynamoDBReader(
            self.caller, self._settle, self.loop, timeout_s=timeout_s, consistent=consistent
        )

    def _settle(self, reads: Sequence[KeyRead]) -> None:
        for read in reads:
            assert not read.settled, "a read is settled once"
            read.settled = True
            self.settled.append(read)
            self._waiting[id(read)].set_result(None)

    def reads(self, group: ReadGroup, *keys: str, within_s: float = 20.0) -> list[KeyRead]:
        """Make reads whose deadline is in ``within_s``."""
        return [KeyRead(group, key, self.loop.time() + within_s) for key in keys]

    def fetch(self, reads: Sequence[KeyRead]) -> None:
        """Hand reads to the reader."""
        for read in reads:
            self._waiting[id(read)] = self.loop.create_future()
        self.reader.fetch(reads)

    async def until_settled(self, reads: Sequence[KeyRead]) -> None:
        """Wait for all of these."""
        await asyncio.gather(*[self._waiting[id(read)] for read in reads])

    async def fetched(self, reads: Sequence[KeyRead]) -> None:
        """Hand reads to the reader and wait until all are settled."""
        self.fetch(reads)
        await self.until_settled(reads)


@asynccontextmanager
async def wire_client(
    endpoint: str,
    *,
    timeout_s: float = 5.0,
    settings: PoolSettings | None = None,
    consistent: bool = False,
) -> AsyncIterator[WireClient]:
    """Open a client to an endpoint; its pool is closed at the end."""
    client = WireClient(
        endpoint, timeout_s=timeout_s, settings=settings or PoolSettings(), consistent=consistent
    )
    try:
        yield client
    finally:
        await client.pool.close()
