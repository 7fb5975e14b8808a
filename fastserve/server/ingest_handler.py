"""POST /ingest: a task for each request, since its answer waits for writes.

Knows HTTP's statuses and the API's shapes, nothing of records or blocks.

Invariants
1. Every exchange is answered once: after its records are written, or with what was wrong.
2. A client that went away stops nothing: what it sent is written, and its retry finds that.
"""

from __future__ import annotations

import asyncio

from fastserve.api.ingest import decode_ingest, encode_counts, encode_record_errors, encode_refusal
from fastserve.errors import RequestError, StoreError
from fastserve.ingest.stream import BadRecordsError, Ingestor
from fastserve.ingest.stream_blocks import WriteCounts
from fastserve.server.exchange import Exchange
from fastserve.server.vector_answer import refuse, refuse_unforeseen, store_refusal

MAX_IN_FLIGHT = 1024
"""Requests of one worker; a store that stands still mustn't fill its memory."""


class IngestHandler:
    """Answers the pushes of one worker."""

    def __init__(self, ingestor: Ingestor) -> None:
        self._ingestor = ingestor
        self.requests = 0
        self.records = 0  # that were written
        self.refused = 0  # records, of those that came in a request that could be read
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, exchange: Exchange) -> None:
        """Answer ``exchange`` when its records are written.

        Raises:
            RequestError: too many requests are under way.
        """
        if len(self._tasks) >= MAX_IN_FLIGHT:
            raise RequestError(429, f"Expected at most {MAX_IN_FLIGHT} ingest requests at once, got more")
        self.requests += 1
        task = asyncio.get_running_loop().create_task(self._answer(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def written(self) -> WriteCounts:
        """What became of the writes of stream tiles so far."""
        return self._ingestor.counts

    async def close(self) -> None:
        """Wait for the requests under way and for what is being written."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._ingestor.close()

    async def _answer(self, exchange: Exchange) -> None:
        workspace = self._ingestor.workspace
        try:
            request = decode_ingest(exchange.body, exchange.idempotency_key)
            counts = await self._ingestor.ingest(request)
            if not request.dry_run:
                self.records += sum(map(len, request.records.values()))
            exchange.respond(200, encode_counts(workspace, counts))
        except BadRecordsError as error:
            self.refused += len({(each.source, each.number) for each in error.errors})
            exchange.respond(400, encode_record_errors(workspace, error.errors))
        except RequestError as error:
            if error.status == 400:
                exchange.respond(400, encode_refusal(error.message))
            else:
                refuse(exchange, error)
        except StoreError as error:
            refuse(exchange, _late(error) if error.timed_out else store_refusal(error))
        except Exception as error:  # noqa: BLE001 - answered and logged; the server goes on
            refuse_unforeseen(exchange, error)


def _late(error: StoreError) -> RequestError:
    return RequestError(504, f"The online store took too long; send the records again: {error.message}")
