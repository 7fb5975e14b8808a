"""An export that was imported, recorded: from then on the store knows what the rows of its tables are.

`export` writes the files and their manifest, the service imports them by itself, and nothing of fastserve has
seen the rows arrive. So a few are read back and compared before anything is recorded.

Invariants
1. Nothing is recorded of any view before all of the folder's are looked at.
2. What is recorded is what the export recorded: until when, as of when, under which definition.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from isal import igzip

from fastserve.errors import DefinitionError, shown
from fastserve.ingest.apply import table_spec
from fastserve.ingest.definition import rows_digest
from fastserve.ingest.export import FORMAT, MANIFEST
from fastserve.ingest.materialize import check_tables, plan_to_write
from fastserve.ingest.places import check_place
from fastserve.ingest.putting import destination, get_put
from fastserve.ingest.registry import Materialized, Registry
from fastserve.plan.stores import TablePrefixes
from fastserve.plan.views import ViewPlan
from fastserve.sdk.repo import Repo
from fastserve.store.interface import OnlineStore
from fastserve.store.mixed import prefixes_of

CHECKED_FILES = 20
"""An import is looked at through the first item of so many files."""

_open_gzip: Any = igzip.open  # it has no types


@dataclass(frozen=True, slots=True)
class Imported:
    """What was recorded of one view."""

    view: str
    table: str
    items: int
    materialized: Materialized


async def record_import(
    repo: Repo,
    folder: Path,
    store: OnlineStore,
    *,
    workspace: str | None = None,
    store_name: str = "the store",
) -> list[Imported]:
    """Record the views of an export as materialized, once their tables are imported.

    The first item of each file (of `CHECKED_FILES` at most) is read back and compared.

    Raises:
        DefinitionError: there is no whole export in the folder; it is of another workspace, or of a view that
            has changed since; a table isn't there, or doesn't hold what was exported.
        StoreError: the store failed.
    """
    workspace = workspace or repo.workspace
    paths = await asyncio.to_thread(lambda: sorted(folder.glob(f"*/{MANIFEST}")))
    if not paths:
        raise DefinitionError(f"--imported: expected a folder with exports, found no {MANIFEST} in {folder}")
    registry = Registry(store, workspace)
    found = []
    for path in paths:
        manifest = _read_manifest(path)
        plan = _exported_plan(repo, manifest, path, workspace, prefixes_of(store))
        await check_tables([plan], registry, store, store_name)
        await check_place(registry, plan)
        await _compare(plan, manifest, path.parent, store)
        found.append((plan, manifest))
    imported = []
    for plan, manifest in found:
        record = Materialized(**manifest["materialized"])
        if plan.packed:
            await registry.record_schema(plan)
        await registry.record_materialized(record)
        imported.append(Imported(plan.name, plan.table, int(manifest["items"]), record))
    return imported


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = orjson.loads(path.read_bytes())
        if manifest["format"] != FORMAT:
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        raise DefinitionError(f"{path}: expected the manifest of an export in format {FORMAT}") from None
    return manifest


def _exported_plan(
    repo: Repo, manifest: Mapping[str, Any], path: Path, workspace: str, prefixes: TablePrefixes
) -> ViewPlan:
    if manifest["workspace"] != workspace:
        got = shown(manifest["workspace"])
        raise DefinitionError(f"{path}: expected an export of workspace {workspace}, got one of {got}")
    plan = plan_to_write(repo, manifest["view"], workspace, prefixes)
    if manifest["table"] != plan.table:
        raise DefinitionError(
            f"{path}: expected an export for table {plan.table}, got {shown(manifest['table'])}"
        )
    if manifest["materialized"]["definition"] != rows_digest(plan):
        raise DefinitionError(
            f"{path}: expected the view as it is defined now, got one that has changed since"
        )
    return plan


async def _compare(plan: ViewPlan, manifest: Mapping[str, Any], folder: Path, store: OnlineStore) -> None:
    for file in manifest["files"][:CHECKED_FILES]:
        path = folder / file["path"]
        item = await asyncio.to_thread(_first_item, path)
        if plan.packed:
            (row,) = await get_put(store, destination(plan), [item["k"]["S"]])
            # A push may have come between: then only that there is a row can be told.
            same = row is not None and (destination(plan).newest or row == b64decode(item["v"]["B"]))
        else:
            spec = table_spec(plan)
            keys = [spec.partition_key] + ([] if spec.sort_key is None else [spec.sort_key])
            key = {k.name: item[k.name]["S"] if k.type == "S" else int(item[k.name]["N"]) for k in keys}
            same = (await store.get_items(plan.table, [key]))[0] is not None
        if not same:
            raise DefinitionError(
                f"table {plan.table}: expected the rows of {path}, found none or others: is the import done?"
            )


def _first_item(path: Path) -> Any:
    try:
        with _open_gzip(path, "rb") as file:
            return orjson.loads(file.readline())["Item"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DefinitionError(f"{path}: expected a file of the export, with an item on each line") from None
