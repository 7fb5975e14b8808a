"""The records beside the rows: what was applied, which layouts rows have, what was materialized when.

They lie in one table of the online store, ``<prefix><workspace>.fastserve``, each a JSON text (a long one
compressed) under a key that can be computed. Whoever applies, materializes or serves reads and writes them
through here.

    key                            record
    views                          the names of all views ever applied
    view/<view>                    how the view was defined when it was applied (`ingest.definition`)
    schema/<view>/<schema id>      a layout that rows of the view may have, the id as 8 hexadecimal digits
    schemas/<view>                 the ids of these layouts
    shape/<view>/<schema id>       a shape that blocks of the view may have, the id as 8 hexadecimal digits
    shapes/<view>                  the ids of these shapes
    materialized/<view>            until when it was materialized or compacted, with which as_of and schema
    refresh/<view>                 who is bringing it up to its schedule, how often in vain (`ingest.lease`)
    job/<job>.<since>/<partition>  that a partition of an unfinished job is written (`ingest.jobs`)

Invariants
1. A layout or shape is recorded before the first row or block that has it is written, and never forgotten:
   rows outlive definitions.
2. A record that can't be understood is a StoreError, never passed over.
3. Records that several may change at once (`refresh/…`) are changed by `swap` alone, all others by `write`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from fastserve.errors import InvariantError, StoreError, shown
from fastserve.plan.views import ViewPlan
from fastserve.sdk.types import SCALARS, Array, Bytes, DataType, Field, Map, Struct
from fastserve.store.interface import OnlineStore, TableSpec, VersionedRow
from fastserve.tiles.blocks import BlockShape, described_shape
from fastserve.tiles.layout import RowLayout, make_layout

VIEWS_KEY = "views"
ROW_MULTIPLE_BYTES = 3
"""What stands in a table's rows is a multiple of 3 bytes long, so that its base64 text has no padding;
JSON may be followed by spaces."""
COMPRESSED_FROM_BYTES: Final = 128 << 10
"""A store's row has 390 KB; the layout of a view with 10,000 slots 1 MB, which shrinks to a thirtieth."""
COMPRESSED_MARK: Final = b"x"
"""What zlib's streams begin with."""


@dataclass(frozen=True, slots=True)
class Materialized:
    """What was last materialized or compacted of a view. Times are nanoseconds since the epoch.

    ``definition`` is `ingest.definition.rows_digest` of the view then, empty where it wasn't recorded yet.
    """

    view: str
    until_ns: int
    as_of_ns: int
    schema_id: int
    rows_read: int
    rows_bad: int
    keys: int
    bytes: int
    definition: str = ""


def registry_table(table_prefix: str, workspace: str) -> str:
    """Return the physical name of the table with a workspace's records."""
    return f"{table_prefix}{workspace}.fastserve"


class Registry:
    """The records of one workspace in one store. Every method raises `StoreError` when the store fails."""

    def __init__(self, store: OnlineStore, workspace: str) -> None:
        self._store = store
        self.workspace = workspace
        self.table = registry_table(store.table_prefix, workspace)

    async def exists(self) -> bool:
        """Whether the workspace was ever applied to the store."""
        return (await self._store.describe_tables([self.table]))[self.table] is not None

    async def create(self) -> None:
        """Create the table of records where there is none."""
        await self._store.create_table(TableSpec(self.table))

    async def views(self) -> list[str]:
        """Return the names of all views that were ever applied."""
        names = await self.read_one(VIEWS_KEY)
        return [] if names is None else [str(name) for name in names]

    async def definitions(self, views: Sequence[str]) -> dict[str, dict[str, Any] | None]:
        """Return how each view was defined when it was applied, None where it never was."""
        found = await self.read([f"view/{view}" for view in views])
        return dict(zip(views, found, strict=True))

    async def record_definitions(self, definitions: Mapping[str, Mapping[str, Any]]) -> None:
        """Record how views are defined now."""
        names = sorted({*await self.views(), *definitions})
        await self.write(
            {f"view/{name}": record for name, record in definitions.items()} | {VIEWS_KEY: names}
        )

    async def record_schema(self, view: ViewPlan) -> None:
        """Record the layout that rows of the view are about to be written with."""
        ids = await self.read_one(f"schemas/{view.name}") or []
        schema_id = view.layout.schema_id
        if schema_id in ids:
            return
        await self.write({schema_key(view.name, schema_id): {"columns": view.layout.describe()}})
        await self.write({f"schemas/{view.name}": [*ids, schema_id]})

    async def layouts(self, views: Sequence[str]) -> dict[str, dict[int, RowLayout]]:
        """Return every layout that rows of these views may have, by view and schema id."""
        lists = await self.read([f"schemas/{view}" for view in views])
        places = [(view, int(i)) for view, ids in zip(views, lists, strict=True) for i in ids or ()]
        records = await self.read([schema_key(view, schema_id) for view, schema_id in places])
        layouts: dict[str, dict[int, RowLayout]] = {view: {} for view in views}
        for (view, schema_id), record in zip(places, records, strict=True):
            if record is None:
                raise StoreError(
                    f"table {self.table}: {schema_key(view, schema_id)}: expected a record, got none"
                )
            layouts[view][schema_id] = described_layout(record["columns"], schema_id)
        return layouts

    async def record_shape(self, view: str, shape: BlockShape) -> None:
        """Record the shape that blocks of the view are about to be written with."""
        ids = await self.read_one(f"shapes/{view}") or []
        if shape.schema_id in ids:
            return
        await self.write({_shape_key(view, shape.schema_id): shape.describe()})
        await self.write({f"shapes/{view}": [*ids, shape.schema_id]})

    async def shapes(self, views: Sequence[str]) -> dict[str, dict[int, BlockShape]]:
        """Return every shape that blocks of these views may have, by view and schema id."""
        lists = await self.read([f"shapes/{view}" for view in views])
        places = [(view, int(i)) for view, ids in zip(views, lists, strict=True) for i in ids or ()]
        records = await self.read([_shape_key(view, schema_id) for view, schema_id in places])
        shapes: dict[str, dict[int, BlockShape]] = {view: {} for view in views}
        for (view, schema_id), record in zip(places, records, strict=True):
            shapes[view][schema_id] = self._shape(_shape_key(view, schema_id), record, schema_id)
        return shapes

    def _shape(self, key: str, record: Any, schema_id: int) -> BlockShape:
        try:
            shape = described_shape(record)
        except (KeyError, TypeError, ValueError):
            shape = None
        if shape is None or shape.schema_id != schema_id:
            raise StoreError(f"table {self.table}: {key}: expected the shape of a block, got {shown(record)}")
        return shape

    async def materialized(self, views: Sequence[str]) -> dict[str, Materialized | None]:
        """Return what was last materialized of each view, None where nothing was."""
        records = await self.read([f"materialized/{view}" for view in views])
        return {
            view: None if record is None else self._materialized(view, record)
            for view, record in zip(views, records, strict=True)
        }

    def _materialized(self, view: str, record: Any) -> Materialized:
        try:
            return Materialized(**record)
        except TypeError:
            key = f"materialized/{view}"
            message = f"table {self.table}: {key}: expected what was materialized, got {shown(record)}"
            raise StoreError(message) from None

    async def watermarks(
        self, views: Sequence[str], digests: Mapping[str, str] | None = None
    ) -> dict[str, int | None]:
        """Return for each view until when an absent row means an entity without events, None for never.

        That is the as_of of what was last materialized or compacted; every entity with events before it has a
        row. A view that has nothing but its stream begins when it is applied; one that has files, too, may
        have events in them of any entity, until it is materialized as it is defined: with the digest that
        ``digests`` gives (`ingest.definition.rows_digest`), for rows of other windows, files or
        transformations say nothing of entities that only these have events of.
        """
        materialized = await self.materialized(views)
        definitions = await self.definitions(views)
        return {
            view: _complete_until_ns(
                record, definitions[view], None if digests is None else digests.get(view)
            )
            for view, record in materialized.items()
        }

    async def forget_materialized(self, views: Sequence[str]) -> None:
        """Forget what was materialized of views that have no rows any more."""
        await self.delete([f"materialized/{view}" for view in views])

    async def record_materialized(self, record: Materialized) -> None:
        """Record that all rows of a view are written."""
        await self.write({f"materialized/{record.view}": asdict(record)})

    # --- records as they are --------------------------------------------------------------------------------

    async def read_one(self, key: str) -> Any:
        """Return the record under ``key``, None where there is none."""
        return (await self.read([key]))[0]

    async def read(self, keys: Sequence[str]) -> list[Any]:
        """Return the records under ``keys`` in that order, None where there is none."""
        rows = await self._store.get_rows(self.table, keys) if keys else []
        return [None if row is None else self._decoded(key, row) for key, row in zip(keys, rows, strict=True)]

    def _decoded(self, key: str, row: bytes) -> Any:
        try:
            return orjson.loads(_plain(row))
        except (orjson.JSONDecodeError, zlib.error):
            message = f"table {self.table}: {key}: expected a record in JSON, got {shown(row)}"
            raise StoreError(message) from None

    async def write(self, records: Mapping[str, Any]) -> None:
        """Write records, each over what was under its key."""
        rows = [(key, _encoded(record)) for key, record in records.items()]
        await self._store.put_rows(self.table, rows)

    async def versions(self, keys: Sequence[str]) -> list[tuple[int, Any]]:
        """Return records that `swap` writes, each with its version: 0 and None where there is none."""
        rows = await self._store.get_versioned(self.table, keys) if keys else []
        return [
            (0, None) if row is None else (row.version, self._decoded(key, row.row))
            for key, row in zip(keys, rows, strict=True)
        ]

    async def swap(self, key: str, version: int, record: Any) -> tuple[int, Any]:
        """Write a record in the place of that of ``version`` (0: of none); return what is there now.

        That is the record itself with the version after, unless somebody else has written in between.
        """
        wanted = VersionedRow(version + 1, _encoded(record))
        there = await self._store.replace_row(self.table, key, wanted)
        return (0, None) if there is None else (there.version, self._decoded(key, there.row))

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete records; absent ones are no error."""
        if keys:
            await self._store.delete_rows(self.table, keys)


def _complete_until_ns(
    record: Materialized | None, definition: Mapping[str, Any] | None, digest: str | None
) -> int | None:
    stream = None if definition is None else definition.get("stream")
    is_alone = stream is not None and bool(stream["alone"])
    if record is not None:
        return record.as_of_ns if is_alone or digest in (None, record.definition) else None
    return int(definition["created_ns"]) if definition is not None and is_alone else None


def _encoded(record: Any) -> bytes:
    text = orjson.dumps(record)
    if len(text) > COMPRESSED_FROM_BYTES:
        text = zlib.compress(text)
    return text + b" " * (-len(text) % ROW_MULTIPLE_BYTES)


def _plain(row: bytes) -> bytes:
    """Return a record's text: no JSON begins with the byte that a compressed one begins with."""
    return zlib.decompressobj().decompress(row) if row[:1] == COMPRESSED_MARK else row


def _shape_key(view: str, schema_id: int) -> str:
    return f"shape/{view}/{schema_id:08x}"


def schema_key(view: str, schema_id: int) -> str:
    """Return where a layout is recorded."""
    return f"schema/{view}/{schema_id:08x}"


def described_layout(columns: Sequence[tuple[str, Mapping[str, Any]]], schema_id: int) -> RowLayout:
    """Return the layout of which ``columns`` is the description.

    Raises:
        StoreError: the description isn't that of a layout with this schema id.
    """
    try:
        layout = make_layout([(name, described_type(dtype)) for name, dtype in columns])
    except (InvariantError, KeyError, TypeError, ValueError):
        raise StoreError(
            f"schema {schema_id:08x}: expected columns with their types, got {shown(columns)}"
        ) from None
    if layout.schema_id != schema_id:
        raise StoreError(
            f"schema {schema_id:08x}: expected its own columns, got those of {layout.schema_id:08x}"
        )
    return layout


_SCALARS = {dtype.name: dtype for dtype in (*SCALARS, Bytes)}


def described_type(described: Mapping[str, Any]) -> DataType:
    """Return the type whose ``to_api()`` this is.

    Raises:
        InvariantError: it isn't any type's.
        KeyError: it lacks a part.
    """
    kind = described["type"]
    if kind == "array":
        return Array(described_type(described["elementType"]))
    if kind == "map":
        return Map(described_type(described["keyType"]), described_type(described["valueType"]))
    if kind == "struct":
        return Struct([Field(f["name"], described_type(f["dataType"])) for f in described["fields"]])
    if kind in _SCALARS:
        return _SCALARS[kind]
    raise InvariantError(f"no type is called {shown(kind)}")
