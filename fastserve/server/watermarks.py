"""Until when streamed views' events are in rows, kept up to date in one worker.

Whether an absent row means an entity without events, the registry alone knows: batch jobs and compactions
run elsewhere. Every worker asks it at its start and then now and again; requests never wait for it.

Invariants
1. A watermark that couldn't be read stays what it was: it may be too old, which is told as missing data, and
   is never too new.
2. Services without streamed views ask nothing.
"""

from __future__ import annotations

import asyncio
import logging

from fastserve.errors import StoreError
from fastserve.ingest.registry import Registry
from fastserve.plan.service import WorkspacePlan
from fastserve.serving.heads import Watermarks

LOGGER = logging.getLogger("fastserve")
POLL_EVERY_S = 10.0
"""After a batch job, keys without a row count as missing for at most so long too long."""


class WatermarkPoll:
    """Keeps the watermarks of one worker."""

    def __init__(self, registry: Registry, plan: WorkspacePlan, watermarks: Watermarks) -> None:
        streamed = {
            stream.place.view.name for service in plan.services.values() for stream in service.streams
        }
        self._views = sorted(streamed)
        self._registry = registry
        self._watermarks = watermarks
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the watermarks, and go on doing so until `stop`.

        Raises:
            StoreError: the store fails at the first time.
        """
        if self._views:
            await self.refresh()
            self._task = asyncio.get_running_loop().create_task(self._poll())

    async def refresh(self) -> None:
        """Read the watermarks once.

        Raises:
            StoreError: the store fails.
        """
        if not await self._registry.exists():
            return  # nothing was applied, so nothing is complete
        found = await self._registry.watermarks(self._views)
        self._watermarks.until_ns = {view: at_ns for view, at_ns in found.items() if at_ns is not None}

    async def stop(self) -> None:
        """End the asking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_EVERY_S)
            try:
                await self.refresh()
            except StoreError as error:
                LOGGER.warning("the views' watermarks couldn't be read: %s", error)
