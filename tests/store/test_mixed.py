"""Several stores as one: whose table is whose, and what becomes of the others when one is away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import pytest

from fastserve.errors import StoreError
from fastserve.plan.reads import ReadGroup
from fastserve.plan.stores import MAIN_STORE
from fastserve.serving.coalescer import KeyRead, Reader
from fastserve.store import mixed
from fastserve.store.addresses import StoreAddresses
from fastserve.store.counts import Counting, StoreCounts
from fastserve.store.interface import OnlineStore, TableSpec, VersionedRow
from fastserve.store.mixed import MixedStore, main_of, one_of
from perf.load.free_port import free_port
from tests.support.redis_servers import RedisServer, redis_started

TABLES = ("ours", "theirs")


def two_folders(folder: Path) -> StoreAddresses:
    return StoreAddresses(
        f"local:{folder}/main?sync=off", {"hot": f"local:{folder}/hot?sync=off"}, {"theirs": "hot"}
    )


def counts_of(store: OnlineStore, name: str) -> StoreCounts:
    found: object = one_of(store, name)
    assert isinstance(found, Counting)
    return found.counts


class Settled:
    """Waits until reads are settled."""

    def __init__(self) -> None:
        self.reads: list[KeyRead] = []
        self._changed = asyncio.Event()

    def __call__(self, reads: Sequence[KeyRead]) -> None:
        self.reads += reads
        self._changed.set()

    async def after(self, reader: Reader, reads: Sequence[KeyRead]) -> None:
        self.reads.clear()
        reader.fetch(reads)
        while len(self.reads) < len(reads):
            await self._changed.wait()
            self._changed.clear()


def test_every_method_goes_to_the_store_of_its_table(tmp_path: Path) -> None:
    where = two_folders(tmp_path)

    async def story() -> None:
        store = await where.open()
        assert isinstance(store, MixedStore)
        for table in TABLES:
            await store.create_table(TableSpec(table))
            await store.put_rows(table, [("a", table.encode())])
            await store.put_newest(table, [("n", bytes(24))])
            row = VersionedRow(1, b"v")
            assert await store.replace_row(table, "v", row) == row
            assert await store.get_versioned(table, ["v"]) == [row]
            await store.enable_expiry(table)
            assert await store.sweep(table, 10) == 0
            await store.delete_rows(table, ["n"])
            assert await store.get_rows(table, ["a", "n"]) == [table.encode(), None]
            scanned = [row async for rows in store.scan_rows(table) for row in rows]
            assert sorted(scanned) == [("a", table.encode()), ("v", b"v")]
        assert await store.describe_tables([*TABLES, "none"]) == {
            "ours": TableSpec("ours"),
            "theirs": TableSpec("theirs"),
            "none": None,
        }
        settled = Settled()
        groups = [ReadGroup(0, ("ours",)), ReadGroup(1, ("theirs",), store="hot")]
        reads = [KeyRead(group, "a", 1e9) for group in groups]
        await settled.after(store.reader(settled), reads)
        assert [read.rows for read in reads] == [[b"ours"], [b"theirs"]]
        await store.close()
        await store.close()
        for url, there in ((where.main, "ours"), (where.named["hot"], "theirs")):
            alone = await StoreAddresses(url).open()
            found = await alone.describe_tables(TABLES)
            assert [name for name, spec in found.items() if spec is not None] == [there]
            await alone.close()

    asyncio.run(story())


def test_items_lie_in_the_store_of_their_table(tmp_path: Path) -> None:
    async def story(store: OnlineStore) -> None:
        for table in TABLES:
            await store.create_table(TableSpec(table))
            await store.put_items(table, [{"k": "a", "table": table}])
            assert await store.get_items(table, [{"k": "a"}]) == [{"k": "a", "table": table}]

    async def whole() -> None:
        store = await two_folders(tmp_path).open()
        await story(store)
        await store.close()

    asyncio.run(whole())


def test_a_named_store_that_is_away_fails_its_own_tables_until_it_is_there(tmp_path: Path) -> None:
    port = free_port()
    where = StoreAddresses(
        f"local:{tmp_path}/main?sync=off", {"hot": f"redis://127.0.0.1:{port}"}, {"theirs": "hot"}
    )

    async def story() -> None:
        with pytest.raises(StoreError, match="store 'hot' can't be opened: Redis"):
            await where.open()
        store = await where.open(may_lack=True)
        assert isinstance(store, MixedStore)
        await store.create_table(TableSpec("ours"))
        assert list(store.lacking) == ["hot"]
        for call in (
            store.create_table(TableSpec("theirs")),
            store.describe_tables(TABLES),
            store.put_rows("theirs", [("a", b"abc")]),
        ):
            with pytest.raises(StoreError, match="store 'hot' can't be opened"):
                await call
        settled = Settled()
        reader = store.named_readers["hot"](settled)
        early = KeyRead(ReadGroup(0, ("theirs",), store="hot"), "a", 1e9)
        await settled.after(reader, [early])
        assert early.error is not None
        assert early.error.retryable
        assert "store 'hot' can't be opened" in early.error.message
        server = RedisServer(tmp_path)
        server.port = port
        server.start()
        try:
            await asyncio.wait(store._later)
            await store.create_table(TableSpec("theirs"))
            await store.put_rows("theirs", [("a", b"abc")])
            late = KeyRead(early.group, "a", asyncio.get_running_loop().time() + 5)
            await settled.after(reader, [late])
            assert late.rows == [b"abc"]
            assert counts_of(store, "hot").failures == 0
        finally:
            await store.close()
            server.stop()

    with patch.object(mixed, "OPEN_AGAIN_S", 0.05):
        asyncio.run(story())


def test_closing_ends_the_waiting_for_a_store_that_is_away(tmp_path: Path) -> None:
    async def story() -> None:
        where = StoreAddresses(
            f"local:{tmp_path}/main", {"hot": f"redis://127.0.0.1:{free_port()}"}, {"theirs": "hot"}
        )
        store = await where.open(may_lack=True)
        await store.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(story())


def test_troubles_of_each_store_are_counted_by_it(tmp_path: Path) -> None:
    async def story(url: str) -> None:
        where = StoreAddresses(f"local:{tmp_path}/main", {"a": url, "b": url}, {"x": "a", "y": "b"})
        store = await where.open()
        assert one_of(store, MAIN_STORE) is main_of(store)
        counts_of(store, "b").retries += 1
        assert [counts_of(store, name).retries for name in ("a", "b")] == [0, 1]
        await store.close()

    with redis_started(tmp_path) as server:
        asyncio.run(story(f"redis://127.0.0.1:{server.port}"))
