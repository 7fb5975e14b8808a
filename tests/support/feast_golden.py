"""What real Feast did with the repo in `tests/golden/feast`: registry, items, answers; and our plan of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastserve.cli.feast_repo import FeastTables, write_repo
from fastserve.errors import StoreError
from fastserve.plan.service import WorkspacePlan, plan_workspace
from fastserve.sdk.repo import load_repo
from fastserve.serving.coalescer import KeyRead
from fastserve.wire.feast_registry import FeastRegistry, read_registry

FOLDER = Path(__file__).parent.parent / "golden" / "feast"
PROJECT = "rides"
CLOCK = "2026-07-01T12:00:00Z"
CLOCK_NS = 1_782_907_200 * 10**9


@cache
def golden(name: str) -> Any:
    """Return what is recorded in a file."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def exchange(name: str) -> Any:
    """Return one recorded request, with Feast's status and answer."""
    (found,) = (each for each in golden("exchanges.json") if each["name"] == name)
    return found


@cache
def registry() -> FeastRegistry:
    """Return the project's definitions."""
    return read_registry((FOLDER / "registry.db").read_bytes(), PROJECT)


@cache
def feast_plan() -> WorkspacePlan:
    """Return the plan of what `fastserve import-feast` writes."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "features.py").write_text(write_repo(registry(), FeastTables(PROJECT), "Rides.").text)
        return plan_workspace(load_repo(folder), "", PROJECT)


class ItemStore:
    """The items that Feast wrote, answered when told to; no I/O."""

    def __init__(self, max_keys: int = 100) -> None:
        self.max_keys = max_keys
        self.items = {
            (table, item["entity_id"]["S"]): item
            for table, items in golden("items.json").items()
            for item in items
        }
        self.failing: dict[str, StoreError] = {}
        self.batches: list[list[KeyRead]] = []
        self.open: list[KeyRead] = []
        self.settle: Callable[[Sequence[KeyRead]], None]

    def reader(self, settle: Callable[[Sequence[KeyRead]], None]) -> ItemStore:
        self.settle = settle
        return self

    def fetch(self, reads: Sequence[KeyRead]) -> None:
        self.batches.append(list(reads))
        self.open += reads

    def answer(self) -> None:
        """Settle what is open."""
        ready, self.open = self.open, []
        for read in ready:
            key = json.loads(read.key)["entity_id"]["S"]
            read.rows = [self.items.get((table, key)) for table in read.group.tables]
            read.error = next((self.failing[t] for t in read.group.tables if t in self.failing), None)
        self.settle(ready)
