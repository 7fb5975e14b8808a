"""The whole server for tests: `fastserve serve` as a process over a feature repo and a store with rows.

`apply_and_put` writes rows whose values a test chooses, `apply_and_materialize` those that files give.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import orjson

from fastserve.ingest.apply import execute, plan_apply
from fastserve.ingest.materialize import MaterializeReport, materialize
from fastserve.plan.views import ViewPlan
from fastserve.sdk.repo import Repo, load_repo
from fastserve.store.interface import OnlineStore
from fastserve.store.url import open_store
from fastserve.tiles.rows import encode_row
from tests.support.http_connection import Answer
from tests.support.server_process import Connection, Server, running

V1 = "/api/v1/feature-service/"
GET_FEATURES = V1 + "get-features"
GET_FEATURES_BATCH = V1 + "get-features-batch"
METADATA = V1 + "metadata"

AWS: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": "AKIDTEST",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""Made-up credentials, and nothing of this machine's own."""


class Row(NamedTuple):
    """A row to be written: its entity key, its values by feature, its time."""

    key: Sequence[Any]
    values: Mapping[str, Any]
    effective_ns: int = 0


def command(*arguments: str) -> list[str]:
    """Return what runs the command line of this checkout."""
    return [sys.executable, "-m", "fastserve", *arguments]


def clean_environ(added: Mapping[str, str] = AWS) -> dict[str, str]:
    """Return this process's environment without what fastserve or AWS's tools would read, and ``added``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FASTSERVE_"))}
    return {**kept, **added}


@contextmanager
def starting_features(
    repo: Path, store: str, *flags: str, environ: Mapping[str, str] = AWS
) -> Iterator[Server]:
    """Run `fastserve serve` on a free port until the end of the block, without waiting for it."""
    arguments = ["serve", "--repo", str(repo), "--store", store, "--port", "0", *flags]
    with running(command(*arguments), clean_environ(environ)) as server:
        yield server


@contextmanager
def serving_features(
    repo: Path, store: str, *flags: str, environ: Mapping[str, str] = AWS
) -> Iterator[Server]:
    """Run `fastserve serve` until the end of the block; all workers are ready when the block begins."""
    with starting_features(repo, store, *flags, environ=environ) as server:
        server.wait_until_listening()
        yield server


def with_store(url: str, work: Callable[[OnlineStore], Awaitable[Any]]) -> Any:
    """Open a store in a loop of its own, with the server's credentials, and return what ``work`` returns."""

    async def whole() -> Any:
        store = await open_store(url)
        try:
            return await work(store)
        finally:
            await store.close()

    with patch.dict(os.environ, clean_environ(), clear=True):
        return asyncio.run(whole())


def apply_and_put(folder: Path, url: str, rows: Mapping[str, Sequence[Row]]) -> dict[str, ViewPlan]:
    """Apply a repo and write rows of packed views, by view; return its view plans.

    Raises:
        FastserveError: the repo can't be applied or a row can't be written.
    """
    repo = load_repo(folder)

    async def work(store: OnlineStore) -> dict[str, ViewPlan]:
        plan = await plan_apply(repo, store)
        await execute(plan, store)
        views = {view.name: view for view in plan.plans}
        for name, view_rows in rows.items():
            await store.put_rows(views[name].table, [packed(views[name], row) for row in view_rows])
        return views

    views: dict[str, ViewPlan] = with_store(url, work)
    return views


def packed(view: ViewPlan, row: Row) -> tuple[str, bytes]:
    """Return a row's key text and its bytes; texts and lists are written as the JSON they are stored as."""
    values = {
        name: orjson.dumps(value) if isinstance(value, str | list | dict) else value
        for name, value in row.values.items()
    }
    return view.key_text(row.key), encode_row(view.layout, values, row.effective_ns)


def apply_and_materialize(repo: Repo, url: str, until_ns: int) -> dict[str, MaterializeReport]:
    """Apply a repo and materialize all of its views out of their files."""

    async def work(store: OnlineStore) -> list[MaterializeReport]:
        await execute(await plan_apply(repo, store), store)
        return await materialize(repo, list(repo.views), store, until_ns=until_ns, progress=False, parallel=2)

    return {report.view: report for report in with_store(url, work)}


def ask(connection: Connection, service: str, join_keys: Mapping[str, Any], **params: Any) -> Answer:
    """Ask for one vector."""
    asked = {"featureServiceName": service, "joinKeyMap": join_keys, **params}
    return connection.ask(GET_FEATURES, orjson.dumps({"params": asked}))


def features(answer: Answer) -> list[Any]:
    """Return the values of a vector, which the answer must be."""
    assert answer.status == 200, answer.body
    values: list[Any] = orjson.loads(answer.body)["result"]["features"]
    return values
