"""Items of bundles, as `fastserve.store.interface` promises them of all stores: an attribute for each row."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from fastserve.errors import StoreError
from fastserve.plan.reads import ReadGroup
from fastserve.store.interface import MAX_ROW_BYTES, KeyAttribute, OnlineStore, TableSpec
from fastserve.tiles.layout import NO_ROW
from tests.store.test_conditions import STORES, timed
from tests.store.test_contract import (
    ODD_KEYS,
    fetched,
    group,
    key_read,
    opened,
    row_of,
    rows_in,
    told,
    with_table,
)
from tests.support.dynamodb_servers import (  # noqa: F401 - pytest finds fixtures by their names here
    aws_environment,
    dynoxide_endpoint,
    moto_endpoint,
)
from tests.support.standin import stand_in  # noqa: F401 - likewise

A, B, C = "v:a", "v:b", "v:ccc"
LONG_KEY = "k" * 1500


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest) -> str:
    return STORES[request.param](request)


def bundle(table: str, *attributes: str, index: int = 0, projected: bool = False) -> ReadGroup:
    return ReadGroup(index, (table,), attributes=attributes, projected=projected)


async def read(store: OnlineStore, one: ReadGroup, keys: Sequence[str]) -> list[list[bytes | None]]:
    """Return the rows of keys as the hot side gives them."""
    reads = [key_read(one, key) for key in keys]
    await fetched(store, reads)
    return [rows_in(each) for each in reads]


@pytest.mark.parametrize("key", ["a", LONG_KEY], ids=["short", "long"])
def test_a_row_is_written_beside_the_others_of_its_item(url: str, key: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        assert await store.put_bundled(table, A, [(key, row_of("a"))]) == []
        assert await store.put_bundled(table, B, [(key, row_of("b", 99)), ("other", row_of("o"))]) == []
        assert await store.get_bundled(table, A, [key, "other", "none"]) == [row_of("a"), None, None]
        assert await store.get_bundled(table, B, [key, key]) == [row_of("b", 99)] * 2
        await store.put_bundled(table, A, [(key, row_of("longer", 3000))])
        assert await store.get_bundled(table, A, [key]) == [row_of("longer", 3000)]
        assert await store.get_bundled(table, B, [key]) == [row_of("b", 99)]
        assert await store.get_bundled(table, C, [key]) == [None]

    told(url, story)


@pytest.mark.parametrize("projected", [False, True])
def test_one_read_gives_all_rows_of_an_item_and_none_for_those_that_lack(url: str, projected: bool) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.put_bundled(table, A, [("x", row_of("xa")), ("y", row_of("ya")), (LONG_KEY, row_of("l"))])
        await store.put_bundled(table, C, [("x", row_of("xc", 300)), ("z", row_of("zc"))])
        await store.put_bundled(table, "v:unread", [("x", row_of("n")), ("w", row_of("n"))])
        one = bundle(table, A, B, C, projected=projected)
        assert await read(store, one, ["z", "x", "none", "y", "w", LONG_KEY]) == [
            [None, None, row_of("zc")],
            [row_of("xa"), None, row_of("xc", 300)],
            [None, None, None],
            [row_of("ya"), None, None],
            [None, None, None],
            [row_of("l"), None, None],
        ]
        other = bundle(table, C, index=1)
        assert await read(store, other, ["x", "y"]) == [[row_of("xc", 300)], [None]]

    told(url, story)


def test_bundles_and_tables_are_read_beside_each_other(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        shared, one, two = [await with_table(store, name) for name in ("shared", "one", "two")]
        keys = [f"k{number}" for number in range(130)]
        await store.put_rows(one, [(key, row_of("1" + key)) for key in keys])
        await store.put_rows(two, [(key, row_of("2" + key)) for key in keys[::3]])
        await store.put_bundled(shared, A, [(key, row_of("a" + key)) for key in keys[::2]])
        await store.put_bundled(shared, B, [(key, row_of("b" + key)) for key in keys])
        groups = [group(0, one, two), bundle(shared, A, B, index=1)]
        reads = [key_read(each, key) for key in keys for each in groups]
        random.Random(3).shuffle(reads)
        await fetched(store, reads)
        for each in reads:
            key, number = each.key, int(each.key[1:])
            if each.group.attributes:
                assert rows_in(each) == [None if number % 2 else row_of("a" + key), row_of("b" + key)]
            else:
                assert rows_in(each) == [row_of("1" + key), None if number % 3 else row_of("2" + key)]

    told(url, story)


def test_odd_keys_have_items_of_their_own(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.put_bundled(table, A, [(key, row_of(key)) for key in ODD_KEYS])
        assert await store.get_bundled(table, A, ODD_KEYS) == [row_of(key) for key in ODD_KEYS]
        assert await read(store, bundle(table, A), ODD_KEYS) == [[row_of(key)] for key in ODD_KEYS]

    told(url, story)


def test_of_several_rows_for_one_key_the_last_one_stays(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.put_bundled(table, A, [("a", b"one"), ("b", b"bbb"), ("a", b"two")])
        assert await store.get_bundled(table, A, ["a", "b"]) == [b"two", b"bbb"]

    told(url, story)


def test_jobs_of_several_views_at_once_lose_nothing_of_each_other(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        keys = [f"k{number}" for number in range(40)]
        attributes = [f"v:view{number}" for number in range(6)]
        async with opened(url) as other:

            async def job(number: int, attribute: str) -> None:
                for version in ("first", "second"):
                    rows = [(key, row_of(version + attribute + key)) for key in keys]
                    random.Random(number).shuffle(rows)
                    await (other if number % 2 else store).put_bundled(table, attribute, rows)

            await asyncio.gather(*[job(number, attribute) for number, attribute in enumerate(attributes)])
        assert await read(store, bundle(table, *attributes), keys) == [
            [row_of("second" + attribute + key) for attribute in attributes] for key in keys
        ]

    told(url, story)


def test_the_newest_row_stays_in_each_attribute_by_itself(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        times = [-(2**62), -5, -1, 0, 3, 2**32, 2**62]
        for attribute, order in ((A, times), (B, times[::-1])):
            for number, time_ns in enumerate(order):
                await store.put_bundled(table, attribute, [("k", timed(time_ns, number))], newest=True)
        assert await store.get_bundled(table, A, ["k"]) == [timed(2**62, 6)]
        assert await store.get_bundled(table, B, ["k"]) == [timed(2**62, 0)]
        await store.put_bundled(table, B, [("k", timed(2**62, 9))], newest=True)
        await store.put_bundled(table, A, [("k", timed(4, 1)), ("m", timed(2)), ("m", timed(1))], newest=True)
        assert await store.get_bundled(table, B, ["k", "m"]) == [timed(2**62, 9), None]
        assert await store.get_bundled(table, A, ["k", "m"]) == [timed(2**62, 6), timed(2)]

    told(url, story)


def test_a_row_that_a_job_wrote_follows_any_and_gives_way_to_any(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.put_bundled(table, A, [("k", timed(100))], newest=True)
        await store.put_bundled(table, A, [("k", timed(7, 1))])
        assert await store.get_bundled(table, A, ["k"]) == [timed(7, 1)]
        await store.put_bundled(table, A, [("k", timed(3, 2))], newest=True)
        assert await store.get_bundled(table, A, ["k"]) == [timed(3, 2)]
        assert await read(store, bundle(table, A, A + ":"), ["k"]) == [[timed(3, 2), None]]

    told(url, story)


def test_a_deleted_row_leaves_the_others_of_its_item(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        for attribute in (A, B):
            await store.put_bundled(table, attribute, [(key, timed(9)) for key in ("x", "y")], newest=True)
        await store.delete_bundled(table, A, ["x", "never there", "x"])
        await store.delete_bundled(table, B, ["y"])
        await store.delete_bundled(table, A, ["y"])
        assert await read(store, bundle(table, A, B), ["x", "y", "never there"]) == [
            [None, timed(9)],
            [None, None],
            [None, None],
        ]
        await store.put_bundled(table, A, [("x", timed(1)), ("y", timed(1))], newest=True)
        assert await store.get_bundled(table, A, ["x", "y"]) == [timed(1), timed(1)]

    told(url, story)


def test_a_row_for_which_an_item_has_no_room_is_told_and_the_rest_is_written(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        for attribute in (A, B, C):
            await store.put_bundled(table, attribute, [("full", row_of(attribute, 60_000))])
        rows = [("x", row_of("x", 250_000)), ("full", row_of("d", 250_000)), ("y", row_of("y"))]
        assert await store.put_bundled(table, "v:d", rows) == ["full"]
        assert await store.put_bundled(table, "v:d", [("full", bytes(250_000))], newest=True) == ["full"]
        assert await store.get_bundled(table, "v:d", ["x", "full", "y"]) == [rows[0][1], None, rows[2][1]]
        assert await store.get_bundled(table, A, ["full"]) == [row_of(A, 60_000)]

    told(url, story)


def test_of_several_rows_for_one_key_only_the_one_that_stays_needs_room(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.put_bundled(table, B, [("x", row_of("b", 200_000))])
        large, small = row_of("large", 250_000), row_of("small")
        assert await store.put_bundled(table, A, [("x", large), ("x", small)]) == []
        assert await store.get_bundled(table, A, ["x"]) == [small]
        assert await store.put_bundled(table, A, [("x", row_of("other")), ("x", large)]) == ["x"]
        assert await store.get_bundled(table, A, ["x"]) == [small]
        newest = [("x", timed(2) + bytes(250_000)), ("x", timed(1))]
        assert await store.put_bundled(table, A, newest, newest=True) == ["x"]
        assert await store.get_bundled(table, A, ["x"]) == [small]

    told(url, story)


def test_rows_that_fill_an_item_find_room_in_every_store(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        length = MAX_ROW_BYTES // 4 - len(A)
        for number in range(4):
            rows = [(LONG_KEY, row_of(str(number), length))]
            assert await store.put_bundled(table, f"v:{number}", rows, newest=True) == []
        (found,) = await read(store, bundle(table, *[f"v:{number}" for number in range(4)]), [LONG_KEY])
        assert found == [row_of(str(number), length) for number in range(4)]

    told(url, story)


def test_what_says_that_a_row_had_no_room_finds_room_and_takes_none(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        half = MAX_ROW_BYTES // 2
        await store.put_bundled(table, A, [("x", row_of("a", half - len(A)))])
        assert await store.put_bundled(table, C, [("x", NO_ROW)]) == []
        assert await store.put_bundled(table, B, [("x", row_of("b", half - len(B)))]) == []
        assert await store.put_bundled(table, "v:d", [("x", NO_ROW), ("y", NO_ROW)]) == []
        assert await store.put_bundled(table, C, [("x", row_of("c", 20_000))]) == ["x"]
        one = bundle(table, A, C, "v:d")
        assert await read(store, one, ["x", "y"]) == [
            [row_of("a", half - len(A)), NO_ROW, NO_ROW],
            [None, None, NO_ROW],
        ]
        await store.put_bundled(table, A, [("x", row_of("less"))])
        assert await store.put_bundled(table, C, [("x", row_of("c", 20_000))]) == []
        await store.delete_bundled(table, "v:d", ["x", "y"])
        assert await read(store, one, ["x", "y"]) == [[row_of("less"), row_of("c", 20_000), None], [None] * 3]

    told(url, story)


def test_rows_and_keys_that_not_every_store_can_have_are_refused_before_any_is_written(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        missing = store.table_prefix + "missing"
        other = store.table_prefix + "items"
        await store.create_table(TableSpec(other, KeyAttribute("id", "N")))
        for name, wrong, newest in (
            (table, ("", b"abc"), False),
            (table, ("x" * 2049, b"abc"), False),
            (table, ("a", bytes(MAX_ROW_BYTES + 1)), False),
            (table, ("a", b"short"), True),
            (missing, ("a", b"abc"), False),
            (other, ("1", b"abc"), False),
        ):
            with pytest.raises(StoreError, match=name):
                await store.put_bundled(name, A, [("fine", timed(1)), wrong], newest=newest)
        with pytest.raises(StoreError, match=missing):
            await store.get_bundled(missing, A, ["a"])
        with pytest.raises(StoreError, match=missing):
            await store.delete_bundled(missing, A, ["a"])
        assert await store.get_bundled(table, A, ["fine"]) == [None]

    told(url, story)


def test_rows_of_a_bundle_outlive_the_process(url: str) -> None:
    async def write(store: OnlineStore) -> None:
        await store.put_bundled(await with_table(store), A, [("a", b"abc")])

    async def look(store: OnlineStore) -> None:
        table = store.table_prefix + "views"
        assert await store.get_bundled(table, A, ["a"]) == [b"abc"]
        await store.put_bundled(table, B, [])
        assert await read(store, bundle(table, A, B), ["a"]) == [[b"abc", None]]

    told(url, write)
    told(url, look)
