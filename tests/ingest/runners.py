"""Runners by a clock of the test's, which stands until it is set; pauses end when the test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastserve.ingest.lease import LEASE_NS, RENEWALS_PER_LEASE, Runner
from fastserve.ingest.registry import Registry
from fastserve.store.interface import OnlineStore
from tests.ingest.support import Workbench

T = TypeVar("T")


class Clock:
    """A clock that is set by hand; `runner` gives runners that go by it."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns
        self._pauses: list[asyncio.Future[None]] = []
        self._pausing = asyncio.Event()

    def __call__(self) -> int:
        return self.now_ns

    def runner(self, name: str) -> Runner:
        """Return a runner that pauses for ever, unless `wake` ends it."""
        return Runner(name, self, pause=self._pause)

    def eager(self, name: str) -> Runner:
        """Return a runner whose pauses take no time, and that renews no lease."""
        return Runner(name, self, pause=_no_time)

    async def _pause(self, seconds: float) -> None:
        pause: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pauses.append(pause)
        self._pausing.set()
        await pause

    async def until_paused(self) -> None:
        """Let others run until somebody pauses."""
        await self._pausing.wait()

    async def wake(self) -> None:
        """End all pauses."""
        await self.until_paused()
        self._pausing.clear()
        for pause in self._pauses:
            if not pause.done():
                pause.set_result(None)
        self._pauses.clear()


async def _no_time(seconds: float) -> None:
    if seconds >= LEASE_NS / RENEWALS_PER_LEASE / 10**9:
        await asyncio.Event().wait()


def with_registry(bench: Workbench, work: Callable[[OnlineStore, Registry], Coroutine[Any, Any, T]]) -> T:
    """Run something with an open store and its registry, which is made if it isn't there."""

    async def run(store: OnlineStore) -> T:
        registry = Registry(store, "default")
        await registry.create()
        return await work(store, registry)

    return bench.with_store(run)
