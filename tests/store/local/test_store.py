"""What is the local store's own, beside the contract that all stores keep."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import lmdb
import pytest

from fastserve.errors import StoreError
from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.interface import TableSpec
from fastserve.store.local import layout, store
from fastserve.store.local.catalogue import Catalogue
from fastserve.store.local.environment import Transaction
from fastserve.store.local.store import LocalStore, open_local
from fastserve.store.url import LocalSettings

ROOT = Path(__file__).parents[3]
VIEWS = ReadGroup(0, ("views",))


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[LocalStore]:
    store = await open_local(LocalSettings(str(folder)))
    try:
        await store.create_table(TableSpec("views"))
        yield store
    finally:
        await store.close()


def fetched(store: LocalStore, *keys: str, group: ReadGroup = VIEWS) -> list[KeyRead]:
    reads = [KeyRead(group, key, 0.0) for key in keys]
    settled: list[KeyRead] = []
    store.reader(settled.extend).fetch(reads)
    assert settled == reads
    return reads


HOLDING = """
import sys
from fastserve.store.local.environment import acquire
def hold(transaction, _):
    print("held", flush=True)
    sys.stdin.readline()
acquire(sys.argv[1]).write(hold, None)
print("free", flush=True)
sys.stdin.readline()
"""


def holding(folder: Path) -> subprocess.Popen[bytes]:
    """Start a process that keeps a write transaction open until it is told to end it."""
    command = [sys.executable, "-c", HOLDING, str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_while_another_process_writes_the_loop_turns_and_reads_go_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(tmp_path) as store:
            await store.put_rows("views", [("a", b"abc")])
            other = holding(tmp_path)
            try:
                assert other.stdin is not None
                assert other.stdout is not None
                assert other.stdout.readline() == b"held\n"
                writing = asyncio.create_task(store.put_rows("views", [("b", b"bbb")]))
                for _ in range(1000):
                    await asyncio.sleep(0)
                    assert fetched(store, "a")[0].rows == [b"abc"]
                assert not writing.done()
                other.stdin.write(b"\n")
                other.stdin.flush()
                await writing
                assert await store.get_rows("views", ["b"]) == [b"bbb"]
            finally:
                other.kill()
                other.communicate()

    asyncio.run(story())


def test_the_loop_turns_between_the_slices_of_a_long_read_and_a_long_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "WRITE_SLICE_ROWS", 10)
    monkeypatch.setattr(store, "READ_SLICE_KEYS", 10)

    async def story() -> None:
        async with opened(tmp_path) as local:
            turns = 0

            async def turn() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            turning = asyncio.create_task(turn())
            rows = [(str(number), b"abc") for number in range(200)]
            await local.put_rows("views", rows)
            after_writing = turns
            assert await local.get_rows("views", [key for key, _ in rows]) == [b"abc"] * 200
            after_reading = turns
            await local.delete_rows("views", [key for key, _ in rows])
            turning.cancel()
            assert after_writing >= 20
            assert after_reading - after_writing >= 19
            assert turns - after_reading >= 20

    asyncio.run(story())


@pytest.mark.parametrize("lengths", [[], [1], [5, 5], [100], [3] * 10, [1] * 25, [9, 1, 1, 9], [10, 10]])
def test_slices_hold_all_rows_in_their_order(lengths: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "WRITE_SLICE_BYTES", 10)
    monkeypatch.setattr(store, "WRITE_SLICE_ROWS", 7)
    rows = [(str(number), bytes(length)) for number, length in enumerate(lengths)]
    slices = list(store._row_slices(rows))
    assert [row for part in slices for row in part] == rows
    for part in slices:
        assert 1 <= len(part) <= 7
        assert sum(len(row) for _, row in part[:-1]) < 10


def test_a_row_that_is_wrong_keeps_its_slice_from_being_written(tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(tmp_path) as store:
            with pytest.raises(StoreError) as caught:
                await store.put_rows("views", [("a", b"abc"), ("", b"abc")])
            expected = f"local store {tmp_path}: table views: key: expected 1 to 2048 bytes, got 0"
            assert str(caught.value) == expected
            assert await store.get_rows("views", ["a"]) == [None]

    asyncio.run(story())


def test_closing_while_a_write_is_under_way_lets_it_end_or_fail(tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(tmp_path) as store:
            rows = [(str(number), bytes(2000)) for number in range(20_000)]
            writing = asyncio.create_task(store.put_rows("views", rows))
            await asyncio.sleep(0)
            await store.close()
            with pytest.raises(StoreError, match="closed"):
                await writing
        async with opened(tmp_path) as store:
            there = [row is not None for row in await store.get_rows("views", [key for key, _ in rows])]
            written = there.index(False)
            assert written
            assert not any(there[written:])

    asyncio.run(story())


def test_a_cancelled_write_leaves_whole_slices_and_a_store_that_works(tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(tmp_path) as store:
            rows = [(str(number), bytes(2000)) for number in range(20_000)]
            writing = asyncio.create_task(store.put_rows("views", rows))
            await asyncio.sleep(0)
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writing
            await store.put_rows("views", [("after", b"abc")])
            assert await store.get_rows("views", ["after"]) == [b"abc"]

    asyncio.run(story())


def test_keys_with_the_same_hash_never_get_each_others_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sha256:
        def __init__(self, data: bytes) -> None:
            self.length = len(data)

        def digest(self) -> bytes:
            return self.length.to_bytes(32, "big")

    monkeypatch.setattr(layout, "sha256", Sha256)

    async def story() -> None:
        async with opened(tmp_path) as store:
            one, other = "x" * 1000, "y" * 1000
            await store.put_rows("views", [(one, b"one")])
            assert await store.get_rows("views", [one, other]) == [b"one", None]
            assert [read.rows for read in fetched(store, one, other)] == [[b"one"], [None]]
            await store.delete_rows("views", [other])
            assert await store.get_rows("views", [one]) == [b"one"]
            await store.put_rows("views", [(other, b"other")])
            assert await store.get_rows("views", [one, other]) == [None, b"other"]

    asyncio.run(story())


def test_another_programs_environment_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"theirs", b"1")

    async def story() -> None:
        with pytest.raises(StoreError) as caught:
            await open_local(LocalSettings(str(tmp_path)))
        assert str(caught.value) == (
            f"local store {tmp_path}: expected a folder that fastserve has made, "
            "got another program's LMDB environment"
        )

    asyncio.run(story())
    with lmdb.open(str(tmp_path)) as environment, environment.begin() as transaction:
        assert transaction.get(b"theirs") == b"1"


def test_a_store_that_needs_no_durability_works_the_same(tmp_path: Path) -> None:
    async def story() -> None:
        store = await open_local(LocalSettings(str(tmp_path), "off"))
        await store.create_table(TableSpec("views"))
        await store.put_rows("views", [("a", b"abc")])
        await store.close()
        async with opened(tmp_path) as again:
            assert await again.get_rows("views", ["a"]) == [b"abc"]

    asyncio.run(story())


def test_a_key_that_is_no_text_fails_only_its_own_read(tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(tmp_path) as store:
            await store.put_rows("views", [("a", b"abc")])
            wrong, right, long = fetched(store, "\ud800", "a", "x" * 5000)
            expected = f"local store {tmp_path}: key: expected text without lone surrogates, got '\\ud800'"
            assert str(wrong.error) == expected
            assert right.rows == [b"abc"]
            assert long.rows == [None]

    asyncio.run(story())


def test_an_environment_that_cannot_be_read_fails_all_reads_of_the_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with opened(tmp_path) as store:

            def fail(self: Catalogue, transaction: Transaction, group: ReadGroup) -> None:
                raise lmdb.CorruptedError("mdb_get")

            monkeypatch.setattr(Catalogue, "group_numbers", fail)
            for read in fetched(store, "a", "b"):
                assert isinstance(read.error, StoreError)
                assert str(read.error).startswith(f"local store {tmp_path}: is damaged; make it again")

    asyncio.run(story())


def test_a_group_of_a_new_plan_with_an_old_number_reads_its_own_tables(tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(tmp_path) as store:
            await store.create_table(TableSpec("other"))
            await store.put_rows("views", [("a", b"abc")])
            await store.put_rows("other", [("a", b"def")])
            settled: list[KeyRead] = []
            reader = store.reader(settled.extend)
            for group in (VIEWS, ReadGroup(0, ("other",)), ReadGroup(0, ("other", "views")), VIEWS):
                reader.fetch([KeyRead(group, "a", 0.0)])
            assert [read.rows for read in settled] == [[b"abc"], [b"def"], [b"def", b"abc"], [b"abc"]]

    asyncio.run(story())


def test_an_item_that_is_spoilt_fails_only_its_own_read(tmp_path: Path) -> None:
    async def story() -> None:
        async with opened(tmp_path) as store:
            await store.put_rows("views", [("spoilt", b"{"), ("a", b"{}")])
            items = ReadGroup(1, ("views",), own_items=False)
            spoilt, whole = fetched(store, "spoilt", "a", group=items)
            expected = f"local store {tmp_path}: table 'views': expected an item, got something else"
            assert str(spoilt.error) == expected
            assert whole.rows == [{}]

    asyncio.run(story())
