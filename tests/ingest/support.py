"""A feature repo, a store and a run of the job, all in a test's own folder."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fastserve.ingest.apply import execute, plan_apply
from fastserve.ingest.materialize import MaterializeReport, materialize
from fastserve.ingest.putting import destination, get_put
from fastserve.plan.views import ViewPlan, plan_view
from fastserve.sdk.repo import Repo, load_repo
from fastserve.store.interface import OnlineStore
from fastserve.store.url import open_store
from fastserve.tiles.rows import decode_row, effective_ns_of

T = TypeVar("T")
DAY_NS = 86_400 * 10**9
HOUR_NS = 3_600 * 10**9
UNTIL_NS = 1_767_225_600 * 10**9  # 2026-01-01T00:00:00Z

HEADER = """
from datetime import datetime, timedelta
import pyarrow, pyarrow.compute
from fastserve import *
user = Entity("user", Field("user_id", String))
hours, days = lambda n: timedelta(hours=n), lambda n: timedelta(days=n)
def aggregates(column, functions, windows):
    return [Aggregate(column, f, TimeWindow(w)) for f in functions for w in windows]
"""


class Workbench:
    """Writes definitions and files into a folder and runs the job on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"local:{folder / 'store'}?sync=off"
        self._loads = 0

    def write(self, name: str, text: str | bytes) -> Path:
        """Write a file of the repo's folder."""
        path = self.folder / "repo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else textwrap.dedent(text).lstrip().encode())
        return path

    def define(self, text: str) -> Repo:
        """Write the definitions, with the usual names at hand, and load them."""
        self.write("defs.py", HEADER + textwrap.dedent(text))
        return load_repo(self.folder / "repo")

    def with_store(self, work: Callable[[OnlineStore], Awaitable[T]]) -> T:
        """Run something with the open store."""

        async def run() -> T:
            store = await open_store(self.url)
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(run())

    def apply(self, repo: Repo) -> None:
        """Do as `fastserve apply`."""

        async def work(store: OnlineStore) -> None:
            await execute(await plan_apply(repo, store), store)

        self.with_store(work)

    def run(self, repo: Repo, views: Sequence[str] | None = None, **options: Any) -> list[MaterializeReport]:
        """Apply, then materialize."""
        self.apply(repo)
        options = {"until_ns": UNTIL_NS, "progress": False, **options}
        return self.with_store(lambda store: materialize(repo, views or list(repo.views), store, **options))

    def plan(self, repo: Repo, view: str) -> ViewPlan:
        """Compile a view."""
        return plan_view(repo.views[view], repo.workspace, "")

    def rows(self, plan: ViewPlan, keys: Sequence[Sequence[Any]]) -> list[bytes | None]:
        """Read rows by their join keys."""
        texts = [plan.key_text(key) for key in keys]
        return self.with_store(lambda store: get_put(store, destination(plan), texts))

    def row(self, repo: Repo, view: str, *key: Any) -> tuple[int, dict[str, Any]] | None:
        """Return a row's effective time and values, None if there is none."""
        plan = self.plan(repo, view)
        row = self.rows(plan, [key])[0]
        return None if row is None else (effective_ns_of(row), decode_row(plan.layout, row))
