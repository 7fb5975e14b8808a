"""Writes under a condition, scans and expiry, as `fastserve.store.interface` promises them of all stores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from fastserve.errors import StoreError
from fastserve.plan.reads import ReadGroup
from fastserve.store.interface import MAX_ROW_BYTES, KeyAttribute, OnlineStore, TableSpec, VersionedRow
from tests.store.test_contract import STORES as PLAIN_STORES
from tests.store.test_contract import fetched, key_read, opened, row_of, rows_in, told, with_table
from tests.support.dynamodb_servers import (  # noqa: F401 - pytest finds fixtures by their names here
    aws_environment,
    dynoxide_endpoint,
    moto_endpoint,
)
from tests.support.standin import StandInAddress, stand_in  # noqa: F401 - likewise


def standin_url(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue("aws_environment")
    address: StandInAddress = request.getfixturevalue("stand_in")
    return address.store_url()


STORES: Mapping[str, Callable[[pytest.FixtureRequest], str]] = {**PLAIN_STORES, "stand-in": standin_url}
LONG_KEY = "k" * 1500


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest) -> str:
    return STORES[request.param](request)


def timed(time_ns: int, mark: int = 0) -> bytes:
    """Return a row of that effective time."""
    return bytes(8) + time_ns.to_bytes(8, "little", signed=True) + bytes([mark] * 8)


@pytest.mark.parametrize("key", ["a", LONG_KEY], ids=["short", "long"])
def test_a_row_is_replaced_only_by_the_next_version(url: str, key: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        first = VersionedRow(1, b"abc", b"ids", 2_000_000_000)
        assert await store.get_versioned(table, [key]) == [None]
        assert await store.replace_row(table, key, VersionedRow(2, b"abc")) is None
        assert await store.replace_row(table, key, first) is first
        assert await store.get_versioned(table, [key, "b"]) == [first, None]
        assert await store.get_rows(table, [key]) == [b"abc"]
        for wrong in (1, 3, 7):
            assert await store.replace_row(table, key, VersionedRow(wrong, b"xxx")) == first
        second = VersionedRow(2, row_of(key, 3000))
        assert await store.replace_row(table, key, second) is second
        assert await store.get_versioned(table, [key]) == [second]

    told(url, story)


def test_a_row_that_is_there_word_for_word_counts_as_written(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        first = VersionedRow(1, b"abc", b"ids")
        await store.replace_row(table, "a", first)
        again = replace(first)
        assert await store.replace_row(table, "a", again) is again
        other = replace(first, ids=b"ids of others")
        assert await store.replace_row(table, "a", other) == first

    told(url, story)


def test_the_first_version_follows_a_plain_row_and_a_plain_row_any_version(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.put_rows(table, [("a", b"abc")])
        assert await store.get_versioned(table, ["a"]) == [VersionedRow(0, b"abc")]
        for number in (1, 2):
            row = VersionedRow(number, bytes([number] * 3), b"i")
            assert await store.replace_row(table, "a", row) is row
        await store.put_rows(table, [("a", b"new")])
        assert await store.get_versioned(table, ["a"]) == [VersionedRow(0, b"new")]

    told(url, story)


def test_a_deleted_row_begins_anew(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.replace_row(table, "a", VersionedRow(1, b"abc", b"i"))
        await store.delete_rows(table, ["a"])
        assert await store.get_versioned(table, ["a"]) == [None]
        assert await store.replace_row(table, "a", VersionedRow(2, b"abc")) is None
        row = VersionedRow(1, b"def")
        assert await store.replace_row(table, "a", row) is row

    told(url, story)


def test_of_many_writers_of_one_version_one_wins(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        async with opened(url) as other:
            rows = [VersionedRow(1, bytes([number] * 3)) for number in range(20)]
            results = await asyncio.gather(
                *[(store, other)[n % 2].replace_row(table, "a", row) for n, row in enumerate(rows)]
            )
        winners = [row for row, result in zip(rows, results, strict=True) if result is row]
        assert len(winners) == 1
        assert all(result == winners[0] for result in results)

    told(url, story)


def test_no_change_of_concurrent_writers_is_lost(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        async with opened(url) as other:

            async def mark(through: OnlineStore, number: int) -> None:
                there = (await through.get_versioned(table, ["marks"]))[0]
                while True:
                    version, marks = (0, b"") if there is None else (there.version, there.row)
                    row = VersionedRow(version + 1, marks + bytes([number] * 3))
                    there = await through.replace_row(table, "marks", row)
                    if there is row:
                        return

            await asyncio.gather(*[mark((store, other)[n % 2], n) for n in range(12)])
        (marks,) = await store.get_versioned(table, ["marks"])
        assert marks is not None
        assert sorted(marks.row[::3]) == list(range(12))
        assert marks.version == 12

    told(url, story)


def test_a_row_too_long_with_its_ids_is_refused(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        with pytest.raises(StoreError, match=table):
            await store.replace_row(table, "a", VersionedRow(1, bytes(MAX_ROW_BYTES), b"i"))
        largest = VersionedRow(1, bytes(MAX_ROW_BYTES - 12_000), bytes(12_000), 2_000_000_000)
        assert await store.replace_row(table, "k" * 2048, largest) is largest
        with pytest.raises(StoreError, match=table):
            await store.replace_row(table, "", VersionedRow(1, b"abc"))

    told(url, story)


def test_the_newest_row_stays_in_whatever_order_they_come(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.put_newest(
            table, [("a", timed(5)), (LONG_KEY, timed(-5)), ("b", timed(7)), ("b", timed(6))]
        )
        await store.put_newest(table, [("a", timed(4)), (LONG_KEY, timed(-4))])
        assert await store.get_rows(table, ["a", "b", LONG_KEY]) == [timed(5), timed(7), timed(-4)]
        await store.put_newest(table, [("a", timed(5, 1)), ("a", timed(5, 2)), ("b", timed(2**62))])
        assert await store.get_rows(table, ["a", "b"]) == [timed(5, 2), timed(2**62)]
        await store.put_newest(table, [])

    told(url, story)


def test_a_plain_row_gives_way_to_any_timed_one(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.put_rows(table, [("a", timed(9))])
        await store.put_newest(table, [("a", timed(3))])
        assert await store.get_rows(table, ["a"]) == [timed(3)]
        with pytest.raises(StoreError, match=table):
            await store.put_newest(table, [("a", b"short")])
        await store.delete_rows(table, ["a"])
        await store.put_newest(table, [("a", timed(1))])
        assert await store.get_rows(table, ["a"]) == [timed(1)]

    told(url, story)


def test_a_scan_gives_every_row_once_in_disjoint_parts(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.put_rows(await with_table(store, "views2"), [("other", b"abc")])
        rows = {f"k{number}": row_of(str(number), 999) for number in range(1200)}
        await store.put_rows(table, list(rows.items()))
        await store.replace_row(table, LONG_KEY, VersionedRow(1, b"abc", b"ids", 2_000_000_000))
        rows[LONG_KEY] = b"abc"
        for parts in (1, 3):
            found = [
                pair
                for part in range(parts)
                async for page in store.scan_rows(table, part, parts)
                for pair in page
            ]
            assert len(found) == len(rows)
            assert dict(found) == rows

    told(url, story)


def test_expired_rows_are_swept_where_the_store_keeps_them(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.enable_expiry(table)
        await store.enable_expiry(table)
        far_s = 4_000_000_000
        for key, expires_s in (("never", 0), ("a", far_s), (LONG_KEY, far_s), ("later", far_s + 1)):
            await store.replace_row(table, key, VersionedRow(1, b"abc", b"", expires_s))
        assert await store.sweep(table, far_s - 1) == 0
        swept = await store.sweep(table, far_s)
        left = await store.get_versioned(table, ["never", "a", LONG_KEY, "later"])
        assert swept in {0, 2}
        assert [row is None for row in left] == [False, swept == 2, swept == 2, False]

    told(url, story)


def test_a_reader_sees_what_was_replaced(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store, "view.stream")
        one = ReadGroup(0, (table,))
        for version in (1, 2):
            await store.replace_row(
                table, "a", VersionedRow(version, bytes([version] * 3), b"ids", 2_000_000_000)
            )
            reads = [key_read(one, "a"), key_read(one, "b")]
            await fetched(store, reads)
            assert [rows_in(read) for read in reads] == [[bytes([version] * 3)], [None]]

    told(url, story)


def test_a_missing_table_or_another_key_is_named(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        numbered = store.table_prefix + "numbered"
        await store.create_table(TableSpec(numbered, KeyAttribute("id", "N")))
        for table in (store.table_prefix + "missing", numbered):
            with pytest.raises(StoreError, match=table):
                await store.get_versioned(table, ["a"])
            with pytest.raises(StoreError, match=table):
                await store.replace_row(table, "a", VersionedRow(1, b"abc"))
            with pytest.raises(StoreError, match=table):
                await store.put_newest(table, [("a", timed(1))])
        missing = store.table_prefix + "missing"
        with pytest.raises(StoreError, match=missing):
            await store.enable_expiry(missing)
        with pytest.raises(StoreError, match=missing):
            await store.sweep(missing, 1)
        with pytest.raises(StoreError, match=missing):
            async for _ in store.scan_rows(missing):
                pass

    told(url, story)
