"""Until when streamed views' events are in rows, and which shapes blocks have, up to date in one worker.

Whether an absent row means an entity without events, the registry alone knows: batch jobs and compactions
run elsewhere. So do servers with newer definitions, whose blocks this one must be able to read. Every worker
asks at its start and then now and again; requests never wait for it.

Invariants
1. A watermark that couldn't be read stays what it was: it may be too old, which is told as missing data, and
   is never too new. Whatever went wrong, it is asked for again.
2. A row that was read as absent before a job wrote it never meets the job's watermark: that is put to use
   only after ``settle_s``, when every request that may have such a row, by its own read or one that it
   joined, has been answered.
3. Services without streamed views ask nothing.
"""

from __future__ import annotations

import asyncio
import logging

from fastserve.errors import StoreError
from fastserve.ingest.definition import rows_digest
from fastserve.ingest.registry import Registry
from fastserve.plan.service import WorkspacePlan
from fastserve.serving.heads import Watermarks
from fastserve.tiles.blocks import BlockShape

LOGGER = logging.getLogger("fastserve")
POLL_EVERY_S = 10.0
"""After a batch job, keys without a row count as missing for at most so long, and ``settle_s``, too long."""


class WatermarkPoll:
    """Keeps the watermarks and the shapes of blocks of one worker; ``shapes`` is added to as it stands.

    ``settle_s`` is for how long a read may be waited for and used after it was sent.
    """

    def __init__(
        self,
        registry: Registry,
        plan: WorkspacePlan,
        watermarks: Watermarks,
        shapes: dict[str, dict[int, BlockShape]],
        settle_s: float = 0.0,
    ) -> None:
        streamed = {
            stream.place.view.name for service in plan.services.values() for stream in service.streams
        }
        self._views = sorted(streamed)
        self._digests = {view: rows_digest(plan.views[view]) for view in self._views}
        self._registry = registry
        self._watermarks = watermarks
        self._shapes = shapes
        self._settle_s = settle_s
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read them, and go on doing so until `stop`.

        Raises:
            StoreError: the store fails at the first time.
        """
        if self._views:
            await self.refresh()
            self._task = asyncio.get_running_loop().create_task(self._poll())

    async def refresh(self) -> None:
        """Read them once, and put them to use at once, which is right only before the first request.

        Raises:
            StoreError: the store fails.
        """
        await self._take_in(settle_s=0.0)

    async def _take_in(self, settle_s: float) -> None:
        if not await self._registry.exists():
            return  # nothing was applied, so nothing is complete
        found = await self._registry.watermarks(self._views, self._digests)
        self._shapes.update(await self._registry.shapes(self._views))
        known = {view: at_ns for view, at_ns in found.items() if at_ns is not None}
        before = self._watermarks.until_ns
        # One that was withdrawn or is older now is no longer true, for whomever.
        self._watermarks.until_ns = {
            view: min(at_ns, known[view]) for view, at_ns in before.items() if view in known
        }
        await asyncio.sleep(settle_s)
        self._watermarks.until_ns = known

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
                await self._take_in(self._settle_s)
            except StoreError as error:
                LOGGER.warning("the views' watermarks and shapes couldn't be read: %s", error)
            except Exception:
                LOGGER.exception("the views' watermarks and shapes couldn't be understood")
