"""A worker's service: what it has opened is closed, however its life ends, and what was counted is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fastserve.config import Settings
from fastserve.errors import StoreError
from fastserve.server.boot import make_boot
from fastserve.server.metrics_memory import MetricsMemory
from fastserve.server.options import ServerOptions
from fastserve.server.shared_memory import SharedMemory
from fastserve.server.worker import WorkerContext, WorkerState
from fastserve.server.worker_service import WorkerService
from fastserve.store.addresses import StoreAddresses
from tests.server.application_world import application_plan


class Store:
    """A store that answers nothing: it fails, or waits for ever."""

    table_prefix = ""

    def __init__(self, *, waits: bool = False) -> None:
        self.asked = asyncio.Event()
        self.closed = 0
        self._waits = waits

    async def describe_tables(self, names: Sequence[str]) -> dict[str, None]:
        self.asked.set()
        if self._waits:
            await asyncio.Event().wait()
        raise StoreError("gone")

    async def close(self) -> None:
        self.closed += 1


def service_of(**settings: Any) -> WorkerService:
    options = ServerOptions(admin_port=settings.get("admin_port"))
    context = WorkerContext(0, options, WorkerState(SharedMemory(1), 0))
    return make_boot(Settings(**settings), application_plan(), MetricsMemory(1))(context)


def open_as(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    async def opened(*_: Any, **__: Any) -> Store:
        return store

    monkeypatch.setattr(StoreAddresses, "open", opened)


def test_a_start_that_fails_closes_what_it_has_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        store = Store()
        open_as(monkeypatch, store)
        with pytest.raises(StoreError, match="gone"):
            await service_of().start()
        assert store.closed == 1

    asyncio.run(run())


def test_a_start_that_is_told_to_end_closes_what_it_has_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        store = Store(waits=True)
        open_as(monkeypatch, store)
        starting = asyncio.ensure_future(service_of().start())
        await store.asked.wait()
        starting.cancel()
        await asyncio.wait({starting})
        assert starting.cancelled()
        assert store.closed == 1

    asyncio.run(run())


class Part:
    """Something that a service ends, in one way or the other."""

    def __init__(self, name: str, ended: list[str]) -> None:
        self._name = name
        self._ended = ended

    async def close(self) -> None:
        self._ended.append(self._name)

    def stop(self) -> None:
        self._ended.append(self._name)


def test_counting_ends_after_all_that_is_counted_and_before_the_store(tmp_path: Path) -> None:
    async def run() -> list[str]:
        ended: list[str] = []
        service = service_of(store=f"local:{tmp_path}")
        service._feature_log = Part("feature log", ended)  # type: ignore[assignment]
        service._ingest = Part("pushes", ended)  # type: ignore[assignment]
        service._metrics = Part("metrics", ended)  # type: ignore[assignment]
        service._store = Part("store", ended)  # type: ignore[assignment]
        await service.stop()
        return ended

    assert asyncio.run(run()) == ["feature log", "pushes", "metrics", "store"]
