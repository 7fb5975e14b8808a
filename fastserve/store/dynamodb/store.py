"""The DynamoDB store: credentials, endpoint, wire client, reader, writer and administration put together.

Knows which part does what and nothing of how. Belongs to the event loop that opened it.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastserve.errors import StoreError
from fastserve.store.counts import StoreCounts
from fastserve.store.dynamodb.admin import TableAdmin
from fastserve.store.dynamodb.breaker import Breaker
from fastserve.store.dynamodb.call import Caller
from fastserve.store.dynamodb.conditional import ConditionalWriter
from fastserve.store.dynamodb.credentials import CredentialSource, find_keys, open_source
from fastserve.store.dynamodb.endpoint import Endpoint, default_tls_context
from fastserve.store.dynamodb.hedging import Hedger
from fastserve.store.dynamodb.pool import Pool, PoolSettings
from fastserve.store.dynamodb.reader import DynamoDBReader
from fastserve.store.dynamodb.writer import Writer
from fastserve.store.interface import AttributeValue, Item, Settle, TableSpec, VersionedRow
from fastserve.store.url import DynamoDBSettings
from fastserve.wire.circuit import Circuit
from fastserve.wire.hedging import HedgeLaw

CALL_TIMEOUT_S = 0.5


async def open_dynamodb(
    settings: DynamoDBSettings,
    *,
    call_timeout_s: float = CALL_TIMEOUT_S,
    tls: ssl.SSLContext | None = None,
    hedge_floor_s: float = 0.0,
) -> DynamoDBStore:
    """Find credentials and endpoint; no connection to DynamoDB is made before the first call.

    ``call_timeout_s`` is the time of one try of a read, ``hedge_floor_s`` the least age at which a slow one
    gets a second copy (0: never). ``tls`` None makes a context from the system's certificates, or from those
    that ``AWS_CA_BUNDLE`` or the profile's ``ca_bundle`` names.

    Raises:
        DefinitionError: there are no credentials, or they or the endpoint can't be used.
    """
    from aiobotocore.session import AioSession

    session: Any = AioSession()
    source = await open_source(await find_keys(session))
    admin = TableAdmin(session, settings.region, settings.endpoint)
    try:
        url = settings.endpoint or (await admin.client()).meta.endpoint_url
        endpoint = Endpoint.of_url(url)
        if endpoint.tls and tls is None:
            tls = default_tls_context(session.get_config_variable("ca_bundle"))
    except BaseException:
        await admin.close()
        await source.close()
        raise
    loop = asyncio.get_running_loop()
    connections = settings.connections or PoolSettings().max_connections
    pool = Pool(loop, endpoint, PoolSettings(max_connections=connections), tls, random.random)
    law = HedgeLaw(hedge_floor_s) if hedge_floor_s else None
    if law is not None:
        pool.watcher = Hedger(pool, law, loop)
    caller = Caller(pool, source, endpoint.host_header, settings.region, time.time, loop.time, random.random)
    caller.breaker = Breaker(pool, Circuit(random.random), loop.time, caller.carry_by)
    return DynamoDBStore(settings, call_timeout_s, source, admin, pool, caller, law)


class DynamoDBStore:
    """An `OnlineStore` in DynamoDB; `open_dynamodb` makes them."""

    def __init__(
        self,
        settings: DynamoDBSettings,
        call_timeout_s: float,
        source: CredentialSource,
        admin: TableAdmin,
        pool: Pool,
        caller: Caller,
        hedges: HedgeLaw | None = None,
    ) -> None:
        self._settings = settings
        self._call_timeout_s = call_timeout_s
        self._source = source
        self._admin = admin
        self._pool = pool
        self._caller = caller
        self._hedges = hedges
        self._writer = Writer(caller)
        self._conditional = ConditionalWriter(caller, self._writer)
        self._specs: dict[str, TableSpec] = {}
        self._open = True

    @property
    def table_prefix(self) -> str:
        """The URL's prefix."""
        return self._settings.prefix

    @property
    def counts(self) -> StoreCounts:
        """What became of reads, beside the ordinary."""
        counts = self._caller.counts
        if self._hedges is not None:
            counts.hedges, counts.hedges_won = self._hedges.copies, self._hedges.won
        if self._caller.breaker is not None:
            counts.circuit_opened = self._caller.breaker.opened
            counts.circuits_open = int(self._caller.breaker.is_open)
        return counts

    async def describe_tables(self, names: Sequence[str]) -> dict[str, TableSpec | None]:
        """See `OnlineStore`."""
        await self._ready()
        return await self._admin.describe_tables(names)

    async def create_table(self, spec: TableSpec) -> None:
        """See `OnlineStore`. On-demand billing; an existing table keeps what it has."""
        await self._ready()
        await self._admin.create_table(spec)

    async def delete_table(self, name: str) -> None:
        """Delete a table with all its rows; for tests."""
        await self._ready()
        self._specs.pop(name, None)
        await self._admin.delete_table(name)

    async def put_rows(self, table: str, rows: Sequence[tuple[str, bytes]]) -> None:
        """See `OnlineStore`."""
        await self._ready()
        await self._writer.put_rows(table, rows)

    async def get_rows(self, table: str, keys: Sequence[str]) -> list[bytes | None]:
        """See `OnlineStore`."""
        await self._ready()
        return await self._writer.get_rows(table, keys)

    async def delete_rows(self, table: str, keys: Sequence[str]) -> None:
        """See `OnlineStore`."""
        await self._ready()
        await self._writer.delete_rows(table, keys)

    async def get_versioned(self, table: str, keys: Sequence[str]) -> list[VersionedRow | None]:
        """See `OnlineStore`."""
        await self._ready()
        return await self._writer.get_versioned(table, keys)

    async def replace_row(
        self, table: str, key: str, row: VersionedRow, *, timeout_s: float | None = None
    ) -> VersionedRow | None:
        """See `OnlineStore`."""
        await self._ready()
        return await self._conditional.replace_row(table, key, row, timeout_s)

    async def put_newest(
        self, table: str, rows: Sequence[tuple[str, bytes]], *, timeout_s: float | None = None
    ) -> None:
        """See `OnlineStore`. A call for each row: the service has no condition for batches."""
        await self._ready()
        await self._conditional.put_newest(table, rows, timeout_s)

    async def scan_rows(
        self, table: str, part: int = 0, parts: int = 1
    ) -> AsyncIterator[Sequence[tuple[str, bytes]]]:
        """See `OnlineStore`."""
        await self._ready()
        async for rows in self._conditional.scan_rows(table, part, parts):
            yield rows
            await self._ready()

    async def enable_expiry(self, table: str) -> None:
        """See `OnlineStore`."""
        await self._ready()
        await self._admin.enable_expiry(table)

    async def sweep(self, table: str, now_s: int) -> int:
        """See `OnlineStore`. The service deletes by itself, within days."""
        await self._ready()
        await self._spec(table)
        return 0

    async def put_items(self, table: str, items: Sequence[Item]) -> None:
        """See `OnlineStore`."""
        await self._ready()
        await self._writer.put_items(await self._spec(table), items)

    async def get_items(self, table: str, keys: Sequence[Item]) -> list[dict[str, AttributeValue] | None]:
        """See `OnlineStore`."""
        await self._ready()
        return await self._writer.get_items(await self._spec(table), keys)

    @property
    def line(self) -> tuple[int, int]:
        """How many calls have stood in line for a connection since the start, and how many stand in it."""
        return self._pool.line

    def reader(self, settle: Settle) -> DynamoDBReader:
        """See `OnlineStore`."""
        self._check_open()
        return DynamoDBReader(
            self._caller,
            settle,
            asyncio.get_running_loop(),
            timeout_s=self._call_timeout_s,
            consistent=self._settings.consistent_reads,
        )

    async def close(self) -> None:
        """See `OnlineStore`."""
        if self._open:
            self._open = False
            await self._pool.close()
            await self._admin.close()
            await self._source.close()

    async def _spec(self, table: str) -> TableSpec:
        """Return a table's key, asked for once: it can't change without the table being made anew."""
        spec = self._specs.get(table)
        if spec is None:
            spec = (await self._admin.describe_tables([table]))[table]
            if spec is None:
                raise StoreError(f"DynamoDB: table {table} doesn't exist in {self._settings.region}")
            self._specs[table] = spec
        return spec

    async def _ready(self) -> None:
        self._check_open()
        await self._source.fresh()

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError("DynamoDB: the store is closed")
