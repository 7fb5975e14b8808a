"""Pushed records from within a consumer of Kafka, Kinesis or any other source of records.

Knows the repo and where its stores are; what is done with records is `stream`'s.

Invariants
1. The store is opened by ``async with`` and closed at its end, after what is being written.
2. A value means what it means over HTTP.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from fastserve.api.ingest import MAX_RECORDS, IngestRequest
from fastserve.api.ingest import request_id as id_of
from fastserve.errors import DefinitionError, RequestError
from fastserve.ingest.stream import Ingestor, IngestSettings, named_feed, source_feeds
from fastserve.ingest.stream_blocks import WriteCounts
from fastserve.sdk.repo import load_repo
from fastserve.store.interface import OnlineStore


class StreamWriter:
    """Writes records of push sources into an online store from within a consumer of your own.

    ::

        async with StreamWriter("repo", "dynamodb://eu-central-1?prefix=prod.") as writer:
            await writer.write("transactions", records, request_id=f"{partition}-{offset}")

    ``write`` returns after the records are in the store. Call it with several batches at once
    (`asyncio.gather`): they share reads and writes. After an error write the same batch again with the same
    ``request_id``; what had been written counts once. Acknowledge to the source after ``write`` returned.
    ``stores`` are the URLs of the stores that views name.

    Raises:
        DefinitionError: the repo, its workspace or the store's URL can't be used.
    """

    def __init__(
        self,
        repo: str | Path,
        store: str,
        *,
        workspace: str | None = None,
        settings: IngestSettings | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        stores: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        from fastserve.plan.service import plan_workspace
        from fastserve.store.addresses import addresses, configured_prefixes

        plan = plan_workspace(load_repo(str(repo)), configured_prefixes(store, stores), workspace)
        self._workspace = plan.workspace
        self._feeds = source_feeds(plan.views.values())
        self._addresses = addresses(store, stores, plan.homes)
        self._settings = settings
        self._clock_ns = clock_ns
        self._store: OnlineStore | None = None
        self._ingestor: Ingestor | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the push sources that views read."""
        return tuple(self._feeds)

    def check_source(self, source: str) -> None:
        """Check that records of a source can be written.

        Raises:
            RequestError: there is no such source, or one of its views can't be pushed to.
        """
        named_feed(self._feeds, source)

    @property
    def counts(self) -> WriteCounts:
        """What became of the writes of blocks so far."""
        return WriteCounts() if self._ingestor is None else self._ingestor.counts

    async def __aenter__(self) -> Self:
        """Open the store.

        Raises:
            StoreError: it can't be opened.
        """
        self._store = await self._addresses.open()
        try:
            self._ingestor = Ingestor(
                self._workspace, self._feeds, self._store, self._settings, self._clock_ns
            )
            await self._ingestor.load_shapes()
        except BaseException:
            await self._store.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for what is being written and close the store."""
        if self._ingestor is not None:
            await self._ingestor.close()
        if self._store is not None:
            await self._store.close()
        self._ingestor = self._store = None

    async def write(
        self, source: str, records: Sequence[Mapping[str, Any]], *, request_id: str | None = None
    ) -> dict[str, int]:
        """Write records of one source; return how many went to each view.

        Without a ``request_id`` the records themselves are the id: the same ones again, within ten minutes,
        are taken for a retry.

        Raises:
            BadRecordsError: records can't be taken, all of them listed; nothing was written.
            RequestError: an unknown source, or no records. StoreError: the store failed; write them again.
        """
        if self._ingestor is None:
            raise DefinitionError("StreamWriter: expected to be used inside `async with`")
        if not 1 <= len(records) <= MAX_RECORDS:
            raise RequestError(400, f"expected 1 to {MAX_RECORDS} records, got {len(records)}")
        plain = [{name: _plain(value) for name, value in record.items()} for record in records]
        text = json.dumps([source, plain], default=repr) if request_id is None else request_id
        return await self._ingestor.ingest(IngestRequest(None, {source: plain}, id_of(text), dry_run=False))


def _plain(value: Any) -> Any:
    """Return a value as it would come over HTTP; only times have another form in Python."""
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).isoformat()
    return value
