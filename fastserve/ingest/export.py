"""Rows into files that DynamoDB imports from S3, instead of into the store: for first loads of large tables.

The job is that of `materialize`, with another outlet. A view's rows come into ``FOLDER/<table>/data``:
gzipped DynamoDB JSON with an item on each line, cut into files of a bounded size. ``manifest.json`` beside
them says what is in them and how they are imported. An import makes its table: there must be none of that
name before. Once it is done, `imported` tells the store's records what the rows are.

Invariants
1. An item is, byte for byte, what a put of the same row would have sent.
2. The manifest is written last: without it the files aren't whole, and the next export begins anew.
3. A key is in one line of all files: every partition has other entity keys.

The facts about imports (one object prefix, a new table, at most 50,000 objects, the price by the plain text)
are from the DynamoDB Developer Guide, "Importing data from Amazon S3".
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import orjson

from fastserve.errors import DefinitionError, StoreError
from fastserve.ingest.apply import table_spec
from fastserve.ingest.export_files import ExportedFile, ExportFiles
from fastserve.ingest.materialize import (
    MEMORY_MB,
    MaterializeReport,
    Outlet,
    plan_to_write,
    record_of,
    run_jobs,
)
from fastserve.ingest.partition import PartitionResult
from fastserve.ingest.putting import NotPut, destination
from fastserve.plan import explain_bundles
from fastserve.plan.sizes import write_units
from fastserve.plan.stores import TablePrefixes
from fastserve.plan.views import ViewPlan
from fastserve.sdk.repo import Repo
from fastserve.store.dynamodb.admin import creation_parameters
from fastserve.store.dynamodb.writer import ordinary_item, packed_item
from fastserve.tiles.rows import effective_ns_of

FORMAT = 1
ITEM_BYTES_MAX = 400 << 10
MANIFEST = "manifest.json"
BUCKET = "BUCKET"
"""Stands in the commands for the bucket's name, which is the account's business."""

PRICE_PER_GB_IMPORTED_USD = 0.15
PRICE_PER_MILLION_WRITE_UNITS_USD = explain_bundles.PRICE_PER_MILLION_WRITE_UNITS_USD
PRICE_OF = "us-east-1, list price since November 2024"
GB = 1 << 30


@dataclass(frozen=True, slots=True)
class Exported:
    """What became of one view. ``write_units`` are those that puts of the same items would cost."""

    report: MaterializeReport
    folder: Path
    table: str
    files: tuple[ExportedFile, ...]
    write_units: int
    commands: tuple[str, ...]

    @property
    def text_bytes(self) -> int:
        """The plain text, which is what an import is charged for."""
        return sum(file.text_bytes for file in self.files)

    @property
    def import_usd(self) -> float:
        """The price of the import."""
        return self.text_bytes / GB * PRICE_PER_GB_IMPORTED_USD

    @property
    def puts_usd(self) -> float:
        """The price of putting the same items, on demand."""
        return self.write_units / 1e6 * PRICE_PER_MILLION_WRITE_UNITS_USD


async def export(
    repo: Repo,
    views: Sequence[str],
    folder: Path,
    *,
    until_ns: int,
    prefixes: TablePrefixes | str = "",
    regions: Mapping[str, str] = MappingProxyType({}),
    inputs: Sequence[str] | None = None,
    max_bad_rows: int | None = None,
    progress: bool = True,
    parallel: int = 1,
    memory_mb: int = MEMORY_MB,
    workspace: str | None = None,
    scratch: str | Path | None = None,
) -> list[Exported]:
    """Make the rows of views as `materialize` does, but write them into files under ``folder``.

    ``prefixes`` are the stores', ``regions`` those of the stores that are DynamoDB, by their names: that of a
    view's store stands in its commands.

    Raises:
        DefinitionError: as `materialize`; the folder holds an export of one of the views already; one is in a
            bundle.
        StoreError: an item that DynamoDB can't hold.
    """
    workspace = workspace or repo.workspace
    plans = [plan_to_write(repo, name, workspace, prefixes) for name in views]
    _refuse_bundles(plans)
    outlets = [_FileOutlet(plan, folder / plan.table, workspace, regions.get(plan.store)) for plan in plans]
    for outlet in outlets:
        outlet.check_folder()
    work: list[tuple[ViewPlan, Outlet]] = list(zip(plans, outlets, strict=True))
    try:
        await run_jobs(
            work,
            until_ns=until_ns,
            inputs=inputs,
            max_bad_rows=max_bad_rows,
            progress=progress,
            parallel=parallel,
            memory_mb=memory_mb,
            scratch=scratch,
        )
    finally:
        for outlet in outlets:
            outlet.close()
    return [outlet.exported() for outlet in outlets]


def _refuse_bundles(plans: Sequence[ViewPlan]) -> None:
    """Refuse views whose rows aren't items: an import makes a table of whole items, and adds none to one."""
    for plan in plans:
        if plan.attribute is not None:
            raise DefinitionError(
                f"--export: expected views with tables of their own, got {plan.name!r} of the bundle "
                f"{plan.view.bundle!r}, whose items several jobs write: materialize it into the store",
                plan.view.location,
            )


class _FileOutlet:
    """Writes the items of one view into files; an `Outlet`."""

    def __init__(self, plan: ViewPlan, folder: Path, workspace: str, region: str | None) -> None:
        self._plan = plan
        self._folder = folder
        self._workspace = workspace
        self._region = region
        self._spec = table_spec(plan)
        self._newest = destination(plan).newest
        self._files = ExportFiles(folder / "data")
        self._write_units = 0
        self._lock = asyncio.Lock()
        self._exported: Exported | None = None

    def check_folder(self) -> None:
        """Raise DefinitionError if there is a whole export already."""
        if (self._folder / MANIFEST).exists():
            raise DefinitionError(f"--export: expected a folder without an export, got one in {self._folder}")

    def close(self) -> None:
        """Close what a failed job left open."""
        self._files.close()

    def exported(self) -> Exported:
        """Return what became of the view, after `finish`."""
        if self._exported is None:
            raise DefinitionError(f"view {self._plan.name!r}: expected an export that has ended")
        return self._exported

    async def begin(self, name: str, partitions: int) -> Mapping[int, tuple[int, int]]:
        """See `Outlet`; an export is never gone on with."""
        self._files.begin()
        return {}

    async def put(self, made: Iterable[tuple[list[str], list[bytes]]]) -> NotPut:
        """See `Outlet`."""
        for keys, rows in made:
            async with self._lock:  # partitions take turns
                await asyncio.to_thread(self._put, keys, rows)
        return NotPut()

    def _put(self, keys: list[str], rows: list[bytes]) -> None:
        sized = map(self._packed, keys, rows) if self._plan.packed else map(self._ordinary, rows)
        lines = []
        for item, size in sized:
            if size > ITEM_BYTES_MAX:
                message = f"item: expected at most {ITEM_BYTES_MAX} bytes, got {size}"
                raise StoreError(f"table {self._spec.name}: {message}")
            self._write_units += write_units(size)
            lines.append(b'{"Item":%b}\n' % item)
        self._files.add(lines)

    def _packed(self, key: str, row: bytes) -> tuple[bytes, int]:
        """Return an item and its size; sizes are as `item_bytes` counts them."""
        item = packed_item(self._spec.name, key, row)
        size = len("k") + len(key.encode()) + len("v") + len(row)
        if not self._newest:
            return item, size
        time = b"%d" % effective_ns_of(row)
        return b'%b,"e":{"N":"%b"}}' % (item[:-1], time), size + len("e") + _number_bytes(time)

    def _ordinary(self, row: bytes) -> tuple[bytes, int]:
        item = ordinary_item(self._spec, orjson.loads(row))
        return item, item_bytes(orjson.loads(item))

    async def partition_done(self, partition: int, result: PartitionResult) -> None:
        """See `Outlet`."""

    async def finish(self, report: MaterializeReport) -> None:
        """See `Outlet`; writes the manifest."""
        files = tuple(await asyncio.to_thread(self._files.close))
        self._exported = Exported(
            report=report,
            folder=self._folder,
            table=self._spec.name,
            files=files,
            write_units=self._write_units,
            commands=commands(self._plan, self._folder, self._region) if files else (),
        )
        manifest = self._manifest(self._exported)
        text = orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        (self._folder / MANIFEST).write_bytes(text)

    def _manifest(self, exported: Exported) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "workspace": self._workspace,
            "view": self._plan.name,
            "table": exported.table,
            "items": sum(file.items for file in exported.files),
            "text_bytes": exported.text_bytes,
            "write_units_of_puts": exported.write_units,
            "files": [asdict(file) for file in exported.files],
            "commands": list(exported.commands),
            "materialized": asdict(record_of(self._plan, exported.report)),
        }


# --- sizes and commands -------------------------------------------------------------------------------------


def item_bytes(item: Mapping[str, Any]) -> int:
    """Return an item's size as DynamoDB counts it, numbers at their longest.

    From "DynamoDB item sizes and formats" in the Developer Guide.
    """
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def _value_bytes(typed: Mapping[str, Any]) -> int:
    ((kind, value),) = typed.items()
    if kind == "S":
        return len(value.encode())
    if kind == "N":
        return _number_bytes(value)
    if kind == "B":
        return len(value) * 3 // 4
    if kind == "M":
        return 3 + sum(1 + len(name.encode()) + _value_bytes(inner) for name, inner in value.items())
    if kind == "L":
        return 3 + sum(1 + _value_bytes(inner) for inner in value)
    return 1


def _number_bytes(text: str | bytes) -> int:
    return len(text) // 2 + 2


def commands(plan: ViewPlan, folder: Path, region: str | None) -> tuple[str, ...]:
    """Return the commands that upload a view's files and import them; `BUCKET` is the caller's to fill in."""
    bucket, prefix = BUCKET, shlex.quote(f"{plan.table}/")
    parameters = orjson.dumps(creation_parameters(table_spec(plan))).decode()
    words = [
        "aws dynamodb import-table",
        *([] if region is None else [f"--region {shlex.quote(region)}"]),
        f"--s3-bucket-source S3Bucket={bucket},S3KeyPrefix={prefix}",
        "--input-format DYNAMODB_JSON --input-compression-type GZIP",
        f"--table-creation-parameters {shlex.quote(parameters)}",
    ]
    upload = f"aws s3 cp --recursive {shlex.quote(str(folder / 'data'))} s3://{bucket}/{prefix}"
    return upload, " ".join(words)
