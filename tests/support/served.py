"""A worker's whole service inside the test's own loop: real store, engine and application, no socket.

The clock stands where the test puts it, so that one process can ask at thousands of moments.

Invariants
1. What is asked goes the way of a request, from the body's bytes to the answer's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import orjson

from fastserve.config import Settings
from fastserve.plan.service import plan_workspace
from fastserve.sdk.repo import Repo
from fastserve.sdk.types import DataType
from fastserve.server import boot, watermarks, worker_service
from fastserve.server.exchange import Application, Exchange, Headers
from fastserve.server.metrics_memory import MetricsMemory
from fastserve.server.options import ServerOptions
from fastserve.server.worker import WorkerContext
from fastserve.wire.http1 import RequestHead
from perf.load import standin_client
from tests.differential.readable import value_of
from tests.support.feature_server import GET_FEATURES_BATCH, clean_environ

WAIT_S = 30.0
FOREVER_S = 1e6
ROWS_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Vector:
    """One vector: its values, and the statuses beside them, by ``<view>.<feature>``."""

    values: dict[str, Any]
    statuses: dict[str, str]


class _Connection:
    """Waits for the answer of one exchange."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

    def send_answer(
        self, exchange: Exchange, status: int, body: bytes, content_type: bytes, headers: Headers
    ) -> None:
        self.answer.set_result((status, body))

    def send_json(self, exchange: Exchange, parts: Sequence[bytes]) -> None:
        self.answer.set_result((200, b"".join(parts)))


class _State:
    is_ready = True
    is_draining = False

    def totals(self) -> dict[str, int]:
        return {}


class Served:
    """A worker's application, asked as over HTTP."""

    def __init__(self, repo: Repo, application: Application, clock: list[int]) -> None:
        self._repo = repo
        self._application = application
        self._clock = clock
        self._types: dict[str, dict[str, DataType]] = {}
        for service in repo.services.values():
            self._types[service.name] = {
                f"{reference.name}.{feature}": reference.view.output_type(feature)
                for reference in service.references
                for feature in reference.features
            }

    def set_clock(self, now_ns: int) -> None:
        """Put the clock of requests there."""
        self._clock[0] = now_ns

    async def post(self, path: str, document: Any, now_ns: int) -> tuple[int, Any]:
        """Return the status and the JSON of an answer."""
        self.set_clock(now_ns)
        body = orjson.dumps(document)
        head = RequestHead("POST", path, "", len(body), False, True, False, False, None, None, None, None)
        connection = _Connection()
        self._application(Exchange(connection, head, body, asyncio.get_running_loop().time()))
        status, content = await asyncio.wait_for(connection.answer, WAIT_S)
        return status, orjson.loads(content)

    async def vectors(self, service: str, rows: Sequence[Mapping[str, Any]], now_ns: int) -> list[Vector]:
        """Return the vectors of rows of join keys, all of one moment where there are at most 1,000."""
        found: list[Vector] = []
        for first in range(0, len(rows), ROWS_AT_ONCE):
            found += await self._vectors(service, rows[first : first + ROWS_AT_ONCE], now_ns)
        return found

    async def _vectors(self, service: str, rows: Sequence[Mapping[str, Any]], now_ns: int) -> list[Vector]:
        document = await self.batch(service, rows, now_ns)
        about = document["metadata"]["features"]
        names = [feature["name"] for feature in about]
        dtypes = [self._types[service][name] for name in names]
        return [
            Vector(
                {
                    name: value_of(dtype, value)
                    for name, dtype, value in zip(names, dtypes, result["features"], strict=True)
                },
                {feature["name"]: feature["status"][row] for feature in about},
            )
            for row, result in enumerate(document["result"])
        ]

    async def batch(self, service: str, rows: Sequence[Mapping[str, Any]], now_ns: int) -> Any:
        """Return the answer for at most 1,000 rows, with names and statuses."""
        params = {
            "featureServiceName": service,
            "requestData": [{"joinKeyMap": row} for row in rows],
            "metadataOptions": {"includeNames": True, "includeServingStatus": True},
        }
        status, document = await self.post(GET_FEATURES_BATCH, {"params": params}, now_ns)
        assert status == 200, document
        return document


@contextmanager
def dynamodb_url() -> Iterator[str]:
    """Give the URL of an empty stand-in, with made-up credentials in this process's environment."""
    with patch.dict(os.environ, clean_environ(), clear=True), standin_client.running() as stand_in:
        yield stand_in.store_url()


@asynccontextmanager
async def serving(repo: Repo, url: str) -> AsyncIterator[Served]:
    """Serve a repo out of a store, in this loop, until the end of the block."""
    plan = plan_workspace(repo)
    settings = Settings(store=url)
    clock = [0]
    metrics = MetricsMemory(1)
    worker = boot.make_boot(settings, plan, metrics)(
        WorkerContext(0, ServerOptions(), _State())  # type: ignore[arg-type] # of shared memory elsewhere
    )
    # What is known of watermarks is what there was at the start, however long a test takes.
    with (
        patch.object(worker_service, "_clock", lambda _fixed: lambda: clock[0]),
        patch.object(watermarks, "POLL_EVERY_S", FOREVER_S),
    ):
        await worker.start()
        await asyncio.sleep(0)  # the poll goes to sleep
    try:
        yield Served(repo, worker.application, clock)
    finally:
        await worker.stop()
