"""The Redis store: rows by `layout`, control by redis-py, the hot side by connections of our own.

All writes that change more than one key run as a script, so that a row and its note never tell two stories.
Redis deletes what has expired by itself.

Invariants
1. Reads go to masters alone: a replica may lag behind what a write method has returned for.
2. A call of a script has the keys of one slot; on one server, of as many rows as fit `WRITE_BYTES`.
3. Tables, once found, are remembered: nobody removes any.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fastserve.errors import StoreError, shown
from fastserve.plan.reads import PACKED_KEY
from fastserve.store.counts import StoreCounts
from fastserve.store.interface import (
    MAX_ROW_BYTES,
    TIME_MARK,
    TINY_ROW_BYTES,
    AttributeValue,
    Item,
    Settle,
    TableSpec,
    VersionedRow,
)
from fastserve.store.items import decode_item, encode_item, key_text
from fastserve.store.limits import (
    MAX_ITEM_KEY_BYTES,
    check_key,
    check_row,
    check_spec,
    check_timed,
    check_versioned,
    encode_key,
    key_attributes,
    key_of,
    usable_table_name,
)
from fastserve.store.redis import layout, scripts
from fastserve.store.redis.control import TIMEOUT_S, Command, Control, credentials
from fastserve.store.redis.nodes import LinkSettings, Nodes
from fastserve.store.redis.reader import RedisReader
from fastserve.store.url import RedisSettings
from fastserve.wire.retry import RetryBudget

CALL_TIMEOUT_S = 0.5
READ_KEYS = 200
WRITE_ROWS = 200
BUNDLED_ROWS = 25
"""For each the script asks how long the rows beside it are."""
WRITE_BYTES = 1024 * 1024
"""A script keeps the server busy for a millisecond or two."""

NO_VERSION = layout.encode_number(0)


async def open_redis(
    settings: RedisSettings, *, call_timeout_s: float = CALL_TIMEOUT_S, tls: ssl.SSLContext | None = None
) -> RedisStore:
    """Connect and look whether the server keeps what it is given.

    ``call_timeout_s`` is the time of one try of a read. ``tls`` None makes a context from the system's
    certificates, or from those that ``SSL_CERT_FILE`` names.

    Raises:
        DefinitionError: the URL names credentials that aren't there.
        StoreError: no server answers, it refuses us, or it drops rows when its memory is full.
    """
    if settings.tls and tls is None:
        tls = ssl.create_default_context()
    control = Control(settings)
    links = LinkSettings(_greeting(settings), tls if settings.tls else None, call_timeout_s)
    nodes = Nodes(settings.addresses, links, control.slots if settings.cluster else None)
    try:
        await nodes.greet()
        await control.check(allow_eviction=settings.allow_eviction)
        await nodes.refresh()
    except BaseException:
        await nodes.close()
        await control.close()
        raise
    return RedisStore(settings, control, nodes)


def _greeting(settings: RedisSettings) -> Any:
    source, database = credentials(settings.credentials), settings.database

    def commands() -> list[tuple[bytes, ...]]:
        """Return what a connection begins with; PING tells a server that wants a password, or still loads."""
        made: list[tuple[bytes, ...]] = []
        if source is not None:
            made.append((b"AUTH", *(text.encode() for text in source.get_credentials())))
        if database:
            made.append((b"SELECT", b"%d" % database))
        return [*made, (b"PING",)]

    return commands


class RedisStore:
    """An `OnlineStore` in Redis."""

    def __init__(self, settings: RedisSettings, control: Control, nodes: Nodes) -> None:
        self._prefix = settings.prefix
        self._cluster = settings.cluster
        self._control = control
        self._nodes = nodes
        self._budget = RetryBudget()
        self.counts = StoreCounts()
        self._readers: list[RedisReader] = []
        self._tables: dict[str, TableSpec] = {}
        self._open = True

    @property
    def table_prefix(self) -> str:
        """See `OnlineStore`."""
        return self._prefix

    async def describe_tables(self, names: Sequence[str]) -> dict[str, TableSpec | None]:
        """See `OnlineStore`."""
        self._check_open()
        usable = [name for name in names if usable_table_name(name)]
        commands: list[Command] = [("GET", layout.table_key(name)) for name in usable]
        values = await self._control.run_all(f"table {', '.join(usable[:3])}", commands)
        found: dict[str, TableSpec | None] = dict.fromkeys(names)
        for name, value in zip(usable, values, strict=True):
            if value is not None:
                found[name] = self._tables[name] = layout.decode_table(name, value)
        return found

    async def create_table(self, spec: TableSpec) -> None:
        """See `OnlineStore`."""
        self._check_open()
        check_spec(spec)
        place = layout.table_key(spec.name)
        await self._control.run(f"table {spec.name}", ("SET", place, layout.encode_table(spec), "NX"))
        there = (await self.describe_tables([spec.name]))[spec.name]
        if there is None:
            raise StoreError(f"Redis: table {spec.name}: it was created, and is gone", retryable=True)
        check_key(there, key_of(spec))

    async def put_rows(self, table: str, rows: Sequence[tuple[str, bytes]]) -> None:
        """See `OnlineStore`."""
        await self._require_packed(table)
        await self._put(table, scripts.PUT, self._last(table, rows))

    async def get_rows(self, table: str, keys: Sequence[str]) -> list[bytes | None]:
        """See `OnlineStore`."""
        await self._require_packed(table)
        with _naming(table):
            places = [self._place(table, encode_key(key)) for key in keys]
        return await self._get(table, places)

    async def delete_rows(self, table: str, keys: Sequence[str]) -> None:
        """See `OnlineStore`."""
        await self._require_packed(table)
        with _naming(table):
            places = list(dict.fromkeys(self._place(table, encode_key(key)) for key in keys))
        for part in _slices(places, WRITE_ROWS):
            pairs = [(place, layout.note_key(place)) for place in part]
            await self._control.run_all(_what(table), self._commands("UNLINK", pairs))

    async def get_versioned(self, table: str, keys: Sequence[str]) -> list[VersionedRow | None]:
        """See `OnlineStore`."""
        await self._require_packed(table)
        with _naming(table):
            places = [self._place(table, encode_key(key)) for key in keys]
        found: list[VersionedRow | None] = []
        for part in _slices(places, READ_KEYS):
            pairs = [(place, layout.note_key(place)) for place in part]
            answers = await self._control.run_all(_what(table), self._commands("MGET", pairs))
            values = [value for answer in answers for value in answer]
            found += map(layout.decode_row, values[::2], values[1::2])
        return found

    async def replace_row(
        self, table: str, key: str, row: VersionedRow, *, timeout_s: float | None = None
    ) -> VersionedRow | None:
        """See `OnlineStore`."""
        await self._require_packed(table)
        with _naming(table):
            place = self._place(table, encode_key(key))
            check_versioned(row)
        before = layout.encode_number(row.version - 1)
        arguments = (row.row, layout.encode_note(row), before, row.expires_s, NO_VERSION)
        command = ("EVAL", scripts.REPLACE, 2, place, layout.note_key(place), *arguments)
        answer = await self._control.run(
            _what(table), command, timeout_s=TIMEOUT_S if timeout_s is None else timeout_s
        )
        return row if answer == 1 else layout.decode_row(*answer) if answer else None

    async def put_newest(
        self, table: str, rows: Sequence[tuple[str, bytes]], *, timeout_s: float | None = None
    ) -> None:
        """See `OnlineStore`."""
        await self._require_packed(table)
        placed = self._newest(table, rows)
        await self._put(
            table, scripts.PUT_NEWEST, placed, timeout_s=TIMEOUT_S if timeout_s is None else timeout_s
        )

    async def put_bundled(
        self,
        table: str,
        attribute: str,
        rows: Sequence[tuple[str, bytes]],
        *,
        newest: bool = False,
        timeout_s: float | None = None,
    ) -> list[str]:
        """See `OnlineStore`."""
        await self._require_packed(table)
        placed = self._newest(table, rows) if newest else self._last(table, rows)
        arguments = (attribute.encode(), TIME_MARK.encode(), MAX_ROW_BYTES, int(newest), TINY_ROW_BYTES)
        full: list[bytes] = []
        for part in _row_slices(placed.items(), BUNDLED_ROWS):
            calls = [[one] for one in part] if self._cluster else [part]
            commands: list[Command] = [
                ("EVAL", scripts.PUT_BUNDLED, len(call), *dict(call), *arguments, *dict(call).values())
                for call in calls
            ]
            answers = await self._control.run_all(
                _what(table), commands, timeout_s=TIMEOUT_S if timeout_s is None else timeout_s
            )
            for call, answer in zip(calls, answers, strict=True):
                full += [call[number - 1][0] for number in answer]
        return [layout.raw_key_of(table.encode(), place).decode() for place in full]

    async def get_bundled(self, table: str, attribute: str, keys: Sequence[str]) -> list[bytes | None]:
        """See `OnlineStore`."""
        await self._require_packed(table)
        with _naming(table):
            places = [self._place(table, encode_key(key)) for key in keys]
        found: list[bytes | None] = []
        for part in _slices(places, READ_KEYS):
            commands: list[Command] = [("HGET", place, attribute) for place in part]
            found += await self._control.run_all(_what(table), commands)
        return found

    async def delete_bundled(self, table: str, attribute: str, keys: Sequence[str]) -> None:
        """See `OnlineStore`; Redis lets go of a hash with its last field."""
        await self._require_packed(table)
        with _naming(table):
            places = list(dict.fromkeys(self._place(table, encode_key(key)) for key in keys))
        for part in _slices(places, WRITE_ROWS):
            commands: list[Command] = [("HDEL", place, attribute, attribute + TIME_MARK) for place in part]
            await self._control.run_all(_what(table), commands)

    async def scan_rows(
        self, table: str, part: int = 0, parts: int = 1
    ) -> AsyncIterator[Sequence[tuple[str, bytes]]]:
        """See `OnlineStore`; a row may come twice while the server grows or shrinks its dictionary."""
        await self._require_packed(table)
        name = table.encode()
        async for places in self._control.scan(_what(table), layout.rows_pattern(name), part, parts):
            for some in _slices(places, READ_KEYS):
                rows = await self._get(table, some)
                yield [
                    (layout.raw_key_of(name, place).decode(), row)
                    for place, row in zip(some, rows, strict=True)
                    if row is not None
                ]

    async def enable_expiry(self, table: str) -> None:
        """See `OnlineStore`: there is nothing to do."""
        await self._require_packed(table)

    async def sweep(self, table: str, now_s: int) -> int:
        """See `OnlineStore`: Redis has done it."""
        await self._require_packed(table)
        return 0

    async def put_items(self, table: str, items: Sequence[Item]) -> None:
        """See `OnlineStore`."""
        spec = await self._require(table)
        with _naming(table):
            placed = {self._item_place(spec, item): encode_item(item) for item in items}
            for data in placed.values():
                check_row(data)
        await self._put(table, scripts.PUT, placed)

    async def get_items(self, table: str, keys: Sequence[Item]) -> list[dict[str, AttributeValue] | None]:
        """See `OnlineStore`."""
        spec = await self._require(table)
        with _naming(table):
            places = [self._item_place(spec, key) for key in keys]
        values = await self._get(table, places)
        with _naming(table):
            return [None if value is None else decode_item(value) for value in values]

    def reader(self, settle: Settle) -> RedisReader:
        """See `OnlineStore`."""
        self._check_open()
        reader = RedisReader(
            self._nodes, self.describe_tables, settle, self._budget, self.counts, random.random
        )
        self._readers.append(reader)
        return reader

    async def close(self) -> None:
        """See `OnlineStore`."""
        if not self._open:
            return
        self._open = False
        for reader in self._readers:
            await reader.close()
        await self._nodes.close()
        await self._control.close()

    # Inside.

    def _last(self, table: str, rows: Sequence[tuple[str, bytes]]) -> dict[bytes, bytes]:
        """Return the last row of each key, by its place; all are checked."""
        with _naming(table):
            for _, row in rows:
                check_row(row)
            return {self._place(table, encode_key(key)): row for key, row in rows}

    def _newest(self, table: str, rows: Sequence[tuple[str, bytes]]) -> dict[bytes, bytes]:
        """Return the newest row of each key, by its place; all are checked."""
        placed: dict[bytes, bytes] = {}
        with _naming(table):
            for key, row in rows:
                check_timed(row)
                check_row(row)
                place = self._place(table, encode_key(key))
                there = placed.get(place)
                if there is None or _time_of(there) <= _time_of(row):
                    placed[place] = row
        return placed

    async def _put(
        self, table: str, script: bytes, placed: Mapping[bytes, bytes], *, timeout_s: float = TIMEOUT_S
    ) -> None:
        for part in _row_slices(placed.items()):
            if self._cluster:
                commands: list[Command] = [
                    ("EVAL", script, 2, place, layout.note_key(place), row) for place, row in part
                ]
            else:
                keys = [key for place, _ in part for key in (place, layout.note_key(place))]
                commands = [("EVAL", script, len(keys), *keys, *(row for _, row in part))]
            await self._control.run_all(_what(table), commands, timeout_s=timeout_s)

    async def _get(self, table: str, places: Sequence[bytes]) -> list[bytes | None]:
        rows: list[bytes | None] = []
        for part in _slices(places, READ_KEYS):
            commands = self._commands("MGET", [(place,) for place in part])
            for answer in await self._control.run_all(_what(table), commands):
                rows += answer
        return rows

    def _commands(self, verb: str, keys: Sequence[tuple[bytes, ...]]) -> list[Command]:
        """Return one command for all keys, or on a cluster one for those of each slot."""
        if self._cluster:
            return [(verb, *together) for together in keys]
        return [(verb, *(key for together in keys for key in together))]

    def _place(self, table: str, raw_key: bytes) -> bytes:
        return layout.row_key(table.encode(), raw_key)

    def _item_place(self, spec: TableSpec, item: Item) -> bytes:
        return self._place(spec.name, encode_key(key_text(key_attributes(spec), item), MAX_ITEM_KEY_BYTES))

    async def _require(self, table: str) -> TableSpec:
        self._check_open()
        spec = self._tables.get(table) or (await self.describe_tables([table]))[table]
        if spec is None:
            raise StoreError(f"Redis: table {shown(table)}: there is no such table")
        return spec

    async def _require_packed(self, table: str) -> None:
        check_key(await self._require(table), PACKED_KEY)

    def _check_open(self) -> None:
        if not self._open:
            raise StoreError("Redis: the store is closed")


@contextmanager
def _naming(table: str) -> Iterator[None]:
    """Put the table's name before the message of a StoreError."""
    try:
        yield
    except StoreError as error:
        raise StoreError(f"Redis: table {table}: {error.message}") from error


def _what(table: str) -> str:
    return f"table {table}"


def _time_of(row: bytes) -> int:
    return int.from_bytes(row[layout.TIME_START : layout.TIME_END], "little", signed=True)


def _slices(whole: Sequence[bytes], length: int) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(whole), length):
        yield whole[start : start + length]


def _row_slices(
    rows: Iterable[tuple[bytes, bytes]], most: int = WRITE_ROWS
) -> Iterator[list[tuple[bytes, bytes]]]:
    """Cut rows into slices of at most so many rows and about `WRITE_BYTES`."""
    part: list[tuple[bytes, bytes]] = []
    size = 0
    for place, row in rows:
        part.append((place, row))
        size += len(row)
        if size >= WRITE_BYTES or len(part) >= most:
            yield part
            part, size = [], 0
    if part:
        yield part
