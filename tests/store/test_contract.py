"""One suite against all stores: what `fastserve.store.interface` promises, each promise a test.

A store takes part by one line in `STORES`: a function that takes the test and returns a URL under which
nothing lies yet.
"""

from __future__ import annotations

import asyncio
import random
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from fastserve.errors import StoreError
from fastserve.plan.keys import item_key
from fastserve.plan.reads import PACKED_KEY, ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.interface import (
    MAX_KEY_BYTES,
    MAX_ROW_BYTES,
    AttributeValue,
    Item,
    KeyAttribute,
    OnlineStore,
    TableSpec,
)
from fastserve.store.url import open_store
from tests.support.dynamodb_servers import (  # noqa: F401 - pytest finds fixtures by their names here
    DYNAMODB_URLS,
    aws_environment,
    dynoxide_endpoint,
    moto_endpoint,
)
from tests.support.redis_servers import REDIS_URLS

Story: TypeAlias = Callable[[OnlineStore], Awaitable[None]]


def local_url(request: pytest.FixtureRequest) -> str:
    folder: Path = request.getfixturevalue("tmp_path")
    return f"local:{folder}/store"


STORES: Mapping[str, Callable[[pytest.FixtureRequest], str]] = {
    "local": local_url,
    **DYNAMODB_URLS,
    **REDIS_URLS,
}


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest) -> str:
    return STORES[request.param](request)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[OnlineStore]:
    store = await open_store(url)
    try:
        yield store
    finally:
        await store.close()


def told(url: str, story: Story) -> None:
    """Run a story with an open store in a loop of its own."""

    async def whole() -> None:
        async with opened(url) as store:
            await story(store)

    asyncio.run(whole())


async def with_table(store: OnlineStore, name: str = "views") -> str:
    table = store.table_prefix + name
    await store.create_table(TableSpec(table))
    return table


def row_of(key: str, length: int = 24) -> bytes:
    """Return a row that only this key can have."""
    return random.Random(key).randbytes(length)


def group(index: int, *tables: str) -> ReadGroup:
    return ReadGroup(index, tables)


async def fetched(store: OnlineStore, reads: Sequence[KeyRead]) -> None:
    """Have the store's reader settle all reads, in batches as the coalescer would make them."""
    settled: list[KeyRead] = []
    done = asyncio.Event()

    def settle(batch: Sequence[KeyRead]) -> None:
        settled.extend(batch)
        if len(settled) >= len(reads):
            done.set()

    reader = store.reader(settle)
    batch: list[KeyRead] = []
    for read in reads:
        if sum(other.group.size for other in batch) + read.group.size > reader.max_keys:
            reader.fetch(batch)
            batch = []
        batch.append(read)
    if batch:
        reader.fetch(batch)
        async with asyncio.timeout(30):
            await done.wait()
    assert sorted(map(id, settled)) == sorted(map(id, reads)), "a read is settled exactly once"


def key_read(group: ReadGroup, key: str) -> KeyRead:
    return KeyRead(group, key, asyncio.get_running_loop().time() + 20)


def rows_in(read: KeyRead) -> list[bytes | None]:
    """Return a read's rows as bytes, from whichever form the store gives."""
    assert read.error is None, read.error
    return [b64decode(row, validate=True) if isinstance(row, str) else row for row in read.rows]


def test_a_table_that_does_not_exist_is_described_as_none(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        missing = store.table_prefix + "missing"
        assert await store.describe_tables([missing, table]) == {missing: None, table: TableSpec(table)}
        assert await store.describe_tables([]) == {}

    told(url, story)


def test_a_table_is_described_as_it_was_created(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        prefix = store.table_prefix
        specs = [
            TableSpec(prefix + "packed"),
            TableSpec(prefix + "numbered", KeyAttribute("id", "N")),
            TableSpec(prefix + "sorted.by-time_1", KeyAttribute("user id"), KeyAttribute("time", "N")),
        ]
        for spec in specs:
            await store.create_table(spec)
        assert await store.describe_tables([spec.name for spec in specs]) == {
            spec.name: spec for spec in specs
        }

    told(url, story)


def test_creating_a_table_again_changes_nothing(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.put_rows(table, [("a", b"abc")])
        await with_table(store)
        await asyncio.gather(*[with_table(store) for _ in range(4)])
        assert await store.get_rows(table, ["a"]) == [b"abc"]

    told(url, story)


def test_creating_a_table_with_another_key_is_refused(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        for other in (
            TableSpec(table, KeyAttribute("k", "N")),
            TableSpec(table, KeyAttribute("key")),
            TableSpec(table, KeyAttribute("k"), KeyAttribute("s")),
        ):
            with pytest.raises(StoreError, match=table):
                await store.create_table(other)
        assert await store.describe_tables([table]) == {table: TableSpec(table)}

    told(url, story)


@pytest.mark.parametrize("name", ["", "ab", "a b c", "täble", "a/b", "x" * 256])
def test_a_table_name_that_not_every_store_can_have_is_refused(url: str, name: str) -> None:
    async def story(store: OnlineStore) -> None:
        with pytest.raises(StoreError):
            await store.create_table(TableSpec(name))

    told(url, story)


def test_writing_and_reading_nothing_is_fine(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.put_rows(table, [])
        await store.delete_rows(table, [])
        await store.put_items(table, [])
        assert await store.get_rows(table, []) == []
        assert await store.get_items(table, []) == []

    told(url, story)


def test_a_thousand_rows_come_back_as_written(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        keys = [f"user-{number}" for number in range(1000)]
        await store.put_rows(table, [(key, row_of(key)) for key in keys])
        asked = random.Random(1).sample(keys, 1000)
        assert await store.get_rows(table, asked) == [row_of(key) for key in asked]

    told(url, story)


def test_rows_of_all_lengths_come_back_as_written(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        lengths = [16, 17, 18, 1000, 2035, 2400, 4080, 4096, 65_535, 65_536, 100_000, 300_000, MAX_ROW_BYTES]
        rows = [(f"of-{length}", row_of("x", length)) for length in lengths]
        await store.put_rows(table, rows)
        assert await store.get_rows(table, [key for key, _ in rows]) == [row for _, row in rows]

    told(url, story)


def test_twenty_megabytes_in_one_call_come_back_as_written(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        rows = [(f"big-{number}", row_of(str(number), 380_000)) for number in range(55)]
        await store.put_rows(table, rows)
        assert await store.get_rows(table, [key for key, _ in rows]) == [row for _, row in rows]

    told(url, story)


ODD_KEYS = [
    "a",
    "0",
    " ",
    "|",
    "\\",
    "\\e",
    "\\0|\\0",
    "a|b",
    "a\\|b",
    'say "hi"',
    "it's",
    "line\nbreak",
    "tab\tand\rreturn",
    "\x00",
    "\x00\x01\x1f\x7f\x80",
    " leading and trailing ",
    "é",
    "e\u0301",
    "ключ",
    "鍵",
    "\u2028\u2029",
    "\ufeff",
    "\uffff",
    "🦜",
    "\U0010ffff",
    '{"k":{"S":"x"}}',
    "</script>&amp;",
    "%41",
    "-1",
    "1",
    "1.0",
    "true",
    "null",
]


def test_keys_of_every_class_of_characters_stay_apart(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.put_rows(table, [(key, row_of(key)) for key in ODD_KEYS])
        assert await store.get_rows(table, ODD_KEYS) == [row_of(key) for key in ODD_KEYS]
        reads = [key_read(group(0, table), key) for key in ODD_KEYS]
        await fetched(store, reads)
        assert [rows_in(read) for read in reads] == [[row_of(key)] for key in ODD_KEYS]

    told(url, story)


def test_keys_of_all_lengths_stay_apart(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        keys = ["x" * length for length in (1, 2, 10, 100, 250, 500, *range(502, 516), 999, 1000, 2047, 2048)]
        keys += ["鍵" * 169, "鍵" * 170, "鍵" * 171, "🦜" * 500, "y" * 1000, "x" * 999 + "y"]
        assert max(len(key.encode()) for key in keys) == MAX_KEY_BYTES
        await store.put_rows(table, [(key, row_of(key)) for key in keys])
        assert await store.get_rows(table, keys) == [row_of(key) for key in keys]
        reads = [key_read(group(0, table), key) for key in [*keys, "x" * 998, "z" * 1000]]
        await fetched(store, reads)
        assert [rows_in(read) for read in reads] == [[row_of(key)] for key in keys] + [[None], [None]]
        await store.delete_rows(table, ["x" * 2048])
        assert await store.get_rows(table, ["x" * 2048, "x" * 2047]) == [None, row_of("x" * 2047)]

    told(url, story)


@pytest.mark.parametrize("key", ["", "x" * (MAX_KEY_BYTES + 1), "鍵" * 683, "\ud800"], ids=ascii)
def test_a_key_that_not_every_store_can_have_is_refused(url: str, key: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        with pytest.raises(StoreError, match=table):
            await store.put_rows(table, [(key, b"abc")])
        with pytest.raises(StoreError, match=table):
            await store.get_rows(table, [key])
        with pytest.raises(StoreError, match=table):
            await store.delete_rows(table, [key])

    told(url, story)


def test_a_row_that_not_every_store_can_have_is_refused(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        with pytest.raises(StoreError, match=table):
            await store.put_rows(table, [("a", bytes(MAX_ROW_BYTES + 1))])
        assert await store.get_rows(table, ["a"]) == [None]

    told(url, story)


def test_the_last_write_of_a_key_stays(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.put_rows(table, [("a", b"old"), ("b", b"bbb"), ("a", row_of("longer", 3000))])
        assert await store.get_rows(table, ["a", "b"]) == [row_of("longer", 3000), b"bbb"]
        await store.put_rows(table, [("a", b"new")])
        assert await store.get_rows(table, ["a", "b"]) == [b"new", b"bbb"]

    told(url, story)


def test_the_last_of_many_rows_for_one_key_stays(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.put_rows(table, [("a", number.to_bytes(3, "big")) for number in range(60)])
        assert await store.get_rows(table, ["a"]) == [(59).to_bytes(3, "big")]

    told(url, story)


def test_a_deleted_row_is_absent_and_its_neighbours_are_not(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.put_rows(table, [(key, row_of(key)) for key in ("a", "b", "c")])
        await store.delete_rows(table, ["b", "never there", "b"])
        assert await store.get_rows(table, ["a", "b", "c"]) == [row_of("a"), None, row_of("c")]
        await store.put_rows(table, [("b", b"again!")])
        assert await store.get_rows(table, ["b"]) == [b"again!"]

    told(url, story)


def test_rows_come_in_the_order_asked_with_repetitions_and_absent_ones(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        await store.put_rows(table, [(f"k{number}", row_of(f"k{number}")) for number in range(150)])
        asked = [f"k{random.Random(seed).randrange(300)}" for seed in range(400)]
        expected = [row_of(key) if int(key[1:]) < 150 else None for key in asked]
        assert await store.get_rows(table, asked) == expected

    told(url, story)


def test_one_key_has_a_row_of_its_own_in_each_table(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        tables = [await with_table(store, name) for name in ("views", "views2", "view")]
        for table in tables:
            await store.put_rows(table, [("key", row_of(table))])
        await store.delete_rows(tables[2], ["key"])
        assert [await store.get_rows(table, ["key"]) for table in tables] == [
            [row_of(tables[0])],
            [row_of(tables[1])],
            [None],
        ]

    told(url, story)


def test_concurrent_writers_and_readers_get_what_is_theirs(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)

        async def one(number: int) -> None:
            keys = [f"{number}:{part}" for part in range(40)]
            for version in ("first", "second"):
                await store.put_rows(table, [(key, row_of(version + key)) for key in keys])
                assert await store.get_rows(table, keys) == [row_of(version + key) for key in keys]
            reads = [key_read(group(0, table), key) for key in keys]
            await fetched(store, reads)
            assert [rows_in(read) for read in reads] == [[row_of("second" + key)] for key in keys]

        await asyncio.gather(*[one(number) for number in range(8)])

    told(url, story)


def test_a_second_opening_sees_what_the_first_wrote(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        async with opened(url) as other:
            table = await with_table(store)
            assert await other.describe_tables([table]) == {table: TableSpec(table)}
            await store.put_rows(table, [("a", b"one")])
            assert await other.get_rows(table, ["a"]) == [b"one"]
            await other.put_rows(table, [("a", b"two")])
            assert await store.get_rows(table, ["a"]) == [b"two"]
        assert await store.get_rows(table, ["a"]) == [b"two"]

    told(url, story)


def test_rows_are_there_after_closing_and_opening(url: str) -> None:
    async def write(store: OnlineStore) -> None:
        await store.put_rows(await with_table(store), [("a", b"abc")])

    async def read(store: OnlineStore) -> None:
        assert await store.get_rows(store.table_prefix + "views", ["a"]) == [b"abc"]

    told(url, write)
    told(url, read)


def test_a_reader_fills_many_reads_over_many_tables(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        tables = [await with_table(store, f"table{number}") for number in range(7)]
        keys = [f"k{number}" for number in range(60)]
        for number, table in enumerate(tables):
            there = [key for key in keys if int(key[1:]) % (number + 1) == 0]
            await store.put_rows(table, [(key, row_of(table + key, 99)) for key in there])
        groups = [group(0, *tables[:4]), group(1, tables[4]), group(2, *tables[5:])]
        reads = [key_read(one, key) for key in keys for one in groups]
        random.Random(2).shuffle(reads)
        await fetched(store, reads)
        for read in reads:
            number = int(read.key[1:])
            assert rows_in(read) == [
                row_of(table + read.key, 99) if number % (tables.index(table) + 1) == 0 else None
                for table in read.group.tables
            ]

    told(url, story)


def test_a_reader_sees_what_was_written_before_each_fetch(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        one = group(0, table)
        for version in range(5):
            before = key_read(one, "a")
            await fetched(store, [before])
            assert rows_in(before) == [None if version == 0 else bytes([version - 1] * 3)]
            await store.put_rows(table, [("a", bytes([version] * 3))])

    told(url, story)


def test_a_reader_fills_large_rows(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        keys = [f"big{number}" for number in range(60)]
        await store.put_rows(table, [(key, row_of(key, 380_001)) for key in keys])
        reads = [key_read(group(0, table), key) for key in keys]
        await fetched(store, reads)
        assert [rows_in(read) for read in reads] == [[row_of(key, 380_001)] for key in keys]

    told(url, story)


def test_a_table_that_does_not_exist_fails_only_the_reads_of_it(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        missing = store.table_prefix + "missing"
        await store.put_rows(table, [("a", b"abc")])
        groups = [group(0, table), group(1, missing), group(2, table + "2", missing)]
        await with_table(store, "views2")
        reads = [key_read(one, key) for key in ("a", "b") for one in groups]
        await fetched(store, reads)
        assert rows_in(reads[0]) == [b"abc"]
        assert rows_in(reads[3]) == [None]
        for read in (reads[1], reads[2], reads[4], reads[5]):
            assert isinstance(read.error, StoreError)
            assert missing in str(read.error)

    told(url, story)


def test_a_table_that_was_created_after_a_failed_read_is_read(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        one = group(0, store.table_prefix + "views")
        early = key_read(one, "a")
        await fetched(store, [early])
        assert early.error is not None
        await store.put_rows(await with_table(store), [("a", b"abc")])
        late = key_read(one, "a")
        await fetched(store, [late])
        assert rows_in(late) == [b"abc"]

    told(url, story)


def test_a_table_that_does_not_exist_is_named_by_every_method(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        missing = store.table_prefix + "missing"
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: store.put_rows(missing, [("a", b"abc")]),
            lambda: store.get_rows(missing, ["a"]),
            lambda: store.delete_rows(missing, ["a"]),
            lambda: store.put_items(missing, [{"k": "a"}]),
            lambda: store.get_items(missing, [{"k": "a"}]),
        ]
        for call in calls:
            with pytest.raises(StoreError, match=missing):
                await call()

    told(url, story)


def test_packed_rows_are_not_written_to_a_table_with_another_key(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = store.table_prefix + "items"
        await store.create_table(TableSpec(table, KeyAttribute("id", "N")))
        with pytest.raises(StoreError, match=table):
            await store.put_rows(table, [("1", b"abc")])
        with pytest.raises(StoreError, match=table):
            await store.get_rows(table, ["1"])
        read = key_read(group(0, table), "1")
        await fetched(store, [read])
        assert isinstance(read.error, StoreError)
        assert table in str(read.error)

    told(url, story)


def test_items_come_back_as_written_in_the_order_asked(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = store.table_prefix + "items"
        await store.create_table(TableSpec(table, KeyAttribute("user"), KeyAttribute("day", "N")))
        values: dict[str, AttributeValue] = {
            "null": None,
            "yes": True,
            "no": False,
            "int": -(2**63),
            "zero": 0,
            "float": 0.1,
            "tiny": 1.5e-100,
            "text": 'é "|\\\n 🦜',
            "bytes": bytes(range(256)),
            "list": [1, "two", None, [3.5], {"deep": [True]}],
            "map": {"a": 1, "b": {"c": b"d"}},
            "empty list": [],
            "empty map": {},
            "strange name |\\": 1,
        }
        items: list[Item] = [{"user": "u|1", "day": day, "n": day, **values} for day in (-1, 0, 20_000)]
        items.append({"user": "u", "day": 1})
        await store.put_items(table, items)
        keys: list[Item] = [{"user": "u|1", "day": day} for day in (0, 20_000, 7, -1, 0)]
        keys.append({"user": "u", "day": 1})
        got = await store.get_items(table, keys)
        assert got == [items[1], items[2], None, items[0], items[1], items[3]]
        assert got[0] is not None
        assert [type(got[0][name]) for name in ("yes", "int", "text", "bytes")] == [bool, int, str, bytes]

    told(url, story)


def test_an_item_is_replaced_whole(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = store.table_prefix + "items"
        await store.create_table(TableSpec(table, KeyAttribute("id", "N")))
        await store.put_items(table, [{"id": 1, "a": 1, "b": 2}, {"id": 2}])
        await store.put_items(table, [{"id": 1, "b": 3}])
        assert await store.get_items(table, [{"id": 2}, {"id": 1}]) == [{"id": 2}, {"id": 1, "b": 3}]

    told(url, story)


def test_three_hundred_items_come_back(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = store.table_prefix + "items"
        await store.create_table(TableSpec(table, KeyAttribute("id", "N")))
        items: list[Item] = [{"id": number, "text": "x" * number} for number in range(300)]
        await store.put_items(table, items)
        assert await store.get_items(table, [{"id": item["id"]} for item in items]) == items

    told(url, story)


@pytest.mark.parametrize(
    "item",
    [
        {"day": 1},
        {"user": "u"},
        {"user": 1, "day": 1},
        {"user": "u", "day": "1"},
        {"user": "u", "day": True},
        {"user": "", "day": 1},
        {"user": "u", "day": 1, "x": float("nan")},
        {"user": "u", "day": 1, "x": float("inf")},
        {"user": "u", "day": 1, "x": [{"y": float("-inf")}]},
        {"user": "u", "day": 1, "x": 10**38},
        {"user": "u", "day": 1, "x": 1e200},
        {"user": "u", "day": 1, "x": object()},
        {"user": "u", "day": 1, "x": "y" * 420_000},
    ],
    ids=lambda item: ascii(item)[:40],
)
def test_an_item_that_not_every_store_can_have_is_refused(url: str, item: Item) -> None:
    async def story(store: OnlineStore) -> None:
        table = store.table_prefix + "items"
        await store.create_table(TableSpec(table, KeyAttribute("user"), KeyAttribute("day", "N")))
        with pytest.raises(StoreError, match=table):
            await store.put_items(table, [item])
        assert await store.get_items(table, [{"user": "u", "day": 1}]) == [None]

    told(url, story)


def test_a_reader_finds_items_by_the_key_of_their_table(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = store.table_prefix + "items"
        attributes = (("user", "S"), ("day", "N"))
        await store.create_table(TableSpec(table, KeyAttribute("user"), KeyAttribute("day", "N")))
        await store.put_items(table, [{"user": "u|1", "day": 3, "n": 5}])
        items = ReadGroup(0, (table,), attributes, own_items=False)
        packed = ReadGroup(1, (table,), PACKED_KEY)
        there = key_read(items, item_key(attributes, ["u|1", "3"]))
        absent = key_read(items, item_key(attributes, ["u|1", "4"]))
        wrong = key_read(packed, "u|1")
        await fetched(store, [there, absent, wrong])
        assert there.error is None
        assert there.rows == [{"user": {"S": "u|1"}, "day": {"N": "3"}, "n": {"N": "5"}}]
        assert absent.error is None
        assert absent.rows == [None]
        assert isinstance(wrong.error, StoreError)
        assert table in str(wrong.error)

    told(url, story)


def test_closing_twice_is_once_and_nothing_works_after_it(url: str) -> None:
    async def story(store: OnlineStore) -> None:
        table = await with_table(store)
        settled: list[KeyRead] = []
        reader = store.reader(settled.extend)
        await store.close()
        await store.close()
        with pytest.raises(StoreError):
            await store.get_rows(table, ["a"])
        with pytest.raises(StoreError):
            await store.put_rows(table, [("a", b"abc")])
        read = key_read(group(0, table), "a")
        reader.fetch([read])
        await asyncio.sleep(0)
        assert settled == [read]
        assert isinstance(read.error, StoreError)

    told(url, story)
