"""The hot side against real servers that stop, start, lose their data, refuse, move slots."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from fastserve.errors import StoreError
from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.counts import Counting
from fastserve.store.interface import OnlineStore, TableSpec
from fastserve.store.redis import layout
from fastserve.store.redis.reader import GroupKeys
from fastserve.store.url import open_store
from tests.support.redis_servers import redis_cluster_started, redis_started, unused

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


class Hot:
    """A store with one reader, asked as the coalescer asks it."""

    def __init__(self, store: OnlineStore) -> None:
        self.store = store
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self.reader = store.reader(self._settle)

    def _settle(self, reads: Sequence[KeyRead]) -> None:
        for read in reads:
            self._waiting.pop(id(read)).set_result(None)

    async def read(
        self, group: ReadGroup, keys: Sequence[str], within_s: float = 10.0, beside: Sequence[KeyRead] = ()
    ) -> list[KeyRead]:
        """Read keys of a group, and reads of others with them."""
        loop = asyncio.get_running_loop()
        reads = [KeyRead(group, key, loop.time() + within_s) for key in keys]
        batch = [*reads, *beside]
        settled = [loop.create_future() for _ in batch]
        self._waiting.update((id(read), future) for read, future in zip(batch, settled, strict=True))
        self.reader.fetch(batch)
        async with asyncio.timeout(30):
            await asyncio.gather(*settled)
        return reads


def told(url: str, story: Callable[[Hot, str], Awaitable[None]]) -> None:
    """Run a story with a store that has one table, ``views``, with rows a and b."""

    async def whole() -> None:
        store = await open_store(url, read_timeout_s=0.3)
        try:
            table = store.table_prefix + "views"
            await store.create_table(TableSpec(table))
            await store.put_rows(table, [("a", b"aaa"), ("b", b"bbb")])
            await story(Hot(store), table)
        finally:
            await store.close()

    asyncio.run(whole())


def rows_of(reads: Sequence[KeyRead]) -> list[Any]:
    assert [read.error for read in reads] == [None] * len(reads)
    return [read.rows for read in reads]


@pytest.mark.parametrize("key", [b"a", b"u1|x", b"k" * 1000])
def test_the_keys_of_a_group_are_parts_of_a_command(key: bytes) -> None:
    keys = GroupKeys(ReadGroup(0, ("abc", "abcd.stream")))
    places = [layout.row_key(table, key) for table in (b"abc", b"abcd.stream")]
    assert keys.parts(key) == b"".join(b"$%d\r\n%b\r\n" % (len(place), place) for place in places)
    assert keys.parts(key) == keys.parts(key)


def test_all_keys_of_a_batch_are_asked_for_at_once(tmp_path: Path) -> None:
    with redis_started(tmp_path) as server, server.client() as other:

        async def story(hot: Hot, table: str) -> None:
            await hot.store.create_table(TableSpec("more"))
            await hot.store.put_rows("more", [(f"k{number}", b"mmm") for number in range(300)])
            here, there = ReadGroup(0, (table,)), ReadGroup(1, ("more",))
            for group in (here, there):
                rows_of(await hot.read(group, ["a"]))  # from here on the tables are known
            other.config_resetstat()
            reads = [KeyRead(here, key, asyncio.get_running_loop().time() + 5) for key in ("a", "b")]
            found = await hot.read(there, [f"k{number}" for number in range(300)], beside=reads)
            assert rows_of(found) == [[b"mmm"]] * 300
            assert rows_of(reads) == [[b"aaa"], [b"bbb"]]
            assert calls_of(other) == {"mget": 1}

        told(f"redis://127.0.0.1:{server.port}", story)


def calls_of(client: Any) -> dict[str, int]:
    """Return how often a server ran each command since its statistics were begun anew, but for ours here."""
    found = client.info("commandstats")
    names = {name.removeprefix("cmdstat_"): each["calls"] for name, each in found.items()}
    return {name: calls for name, calls in names.items() if not name.startswith(("config", "info", "client"))}


def test_a_restart_is_not_noticed(tmp_path: Path) -> None:
    with redis_started(tmp_path, DURABLE) as server:

        async def story(hot: Hot, table: str) -> None:
            group = ReadGroup(0, (table,))
            assert rows_of(await hot.read(group, ["a", "b", "c"])) == [[b"aaa"], [b"bbb"], [None]]
            server.stop()
            reading = asyncio.create_task(hot.read(group, ["a", "b"]))
            writing = asyncio.create_task(hot.store.put_rows(table, [("c", b"ccc")]))
            await asyncio.to_thread(server.start)
            assert rows_of(await reading) == [[b"aaa"], [b"bbb"]]
            await writing
            assert rows_of(await hot.read(group, ["c"])) == [[b"ccc"]]

        told(f"redis://127.0.0.1:{server.port}", story)


def test_a_server_that_came_back_empty_is_an_error_that_names_the_table(tmp_path: Path) -> None:
    with redis_started(tmp_path) as server:

        async def story(hot: Hot, table: str) -> None:
            group = ReadGroup(0, (table,))
            rows_of(await hot.read(group, ["a"]))
            server.stop()
            await asyncio.to_thread(server.start)
            (read,) = await hot.read(group, ["a"])
            assert isinstance(read.error, StoreError)
            assert read.error.message == "Redis: table 'views': there is no such table"

        told(f"redis://127.0.0.1:{server.port}", story)


def test_a_server_that_stays_away_fails_reads_by_their_deadline_and_names_the_table(tmp_path: Path) -> None:
    with redis_started(tmp_path) as server:

        async def story(hot: Hot, table: str) -> None:
            group = ReadGroup(0, (table,))
            rows_of(await hot.read(group, ["a"]))
            server.stop()
            began_s = time.monotonic()
            (read,) = await hot.read(group, ["a"], within_s=0.5)
            assert time.monotonic() - began_s < 2
            assert isinstance(read.error, StoreError)
            assert read.error.retryable
            assert "views" in read.error.message

        told(f"redis://127.0.0.1:{server.port}", story)


def test_a_server_that_stands_still_costs_a_try_and_not_the_read(tmp_path: Path) -> None:
    with redis_started(tmp_path) as server:

        async def story(hot: Hot, table: str) -> None:
            group = ReadGroup(0, (table,))
            rows_of(await hot.read(group, ["a"]))
            other = server.client()
            # Holds all commands of clients back for longer than a try may take.
            other.client_pause(600, all=True)
            assert rows_of(await hot.read(group, ["a"], within_s=5)) == [[b"aaa"]]
            other.client_pause(600, all=True)
            (read,) = await hot.read(group, ["a"], within_s=0.2)
            assert isinstance(read.error, StoreError)
            assert read.error.timed_out
            assert isinstance(hot.store, Counting)
            assert hot.store.counts.timeouts >= 2
            assert hot.store.counts.retries >= 1
            assert hot.store.counts.failures == 1
            other.close()

        told(f"redis://127.0.0.1:{server.port}", story)


def test_a_table_that_may_not_be_read_fails_only_its_own_reads(tmp_path: Path) -> None:
    with redis_started(tmp_path) as server:

        async def story(hot: Hot, table: str) -> None:
            await hot.store.create_table(TableSpec("secrets"))
            await hot.store.put_rows("secrets", [("a", b"sss")])
            open_group, closed_group = ReadGroup(0, (table,)), ReadGroup(1, ("secrets",))
            rows_of(await hot.read(open_group, ["a"]))
            rows_of(await hot.read(closed_group, ["a"]))
            with server.client() as other:
                rules = ("reset", "on", "nopass", "+@all", "~views*", "~*:table")
                other.execute_command("ACL", "SETUSER", "default", *rules)
            loop = asyncio.get_running_loop()
            reads = [KeyRead(group, "a", loop.time() + 5) for group in (open_group, closed_group)]
            futures = [loop.create_future() for _ in reads]
            hot._waiting.update((id(read), future) for read, future in zip(reads, futures, strict=True))
            hot.reader.fetch(reads)
            await asyncio.gather(*futures)
            assert reads[0].rows == [b"aaa"]
            assert reads[0].error is None
            assert isinstance(reads[1].error, StoreError)
            assert "secrets" in reads[1].error.message
            assert not reads[1].error.retryable

        told(f"redis://127.0.0.1:{server.port}", story)


class Cluster:
    """The masters of a cluster and their slots, as the cluster tells them."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        with redis.Redis(host=host, port=int(port)) as first:
            self.ports = [int(master[1]) for _, _, master, *_ in _slots(first)]
        self.clients: dict[int, Any] = {port: redis.Redis(port=port) for port in self.ports}
        self.ids = {
            port: client.execute_command("CLUSTER MYID").decode() for port, client in self.clients.items()
        }

    def alone_in_slots(self, keys: Sequence[str]) -> list[str]:
        """Return those of the keys beside which no other test has left anything in their slots."""
        count = "CLUSTER COUNTKEYSINSLOT"
        slots = {key: layout.slot_of(key.encode()) for key in keys}
        held = {
            key: sum(client.execute_command(count, slot) for client in self.clients.values())
            for key, slot in slots.items()
        }
        return [key for key in keys if held[key] == 1]

    def begin_move(self, table: str, key: str) -> Callable[[], None]:
        """Move a key to another node; return what moves its slot after it."""
        slot = layout.slot_of(key.encode())
        owner = next(
            int(master[1])
            for first, last, master, *_ in _slots(self.clients[self.ports[0]])
            if first <= slot <= last
        )
        target = next(port for port in self.ports if port != owner)
        self.clients[target].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", self.ids[owner])
        self.clients[owner].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", self.ids[target])
        place = layout.row_key(table.encode(), key.encode())
        self.clients[owner].execute_command("MIGRATE", "127.0.0.1", target, place, 0, 5000)

        def end() -> None:
            for port in (target, owner, *self.ports):
                self.clients[port].execute_command("CLUSTER SETSLOT", slot, "NODE", self.ids[target])

        return end

    def close(self) -> None:
        for client in self.clients.values():
            client.close()


def _slots(client: Any) -> list[Any]:
    answer: list[Any] = client.execute_command("CLUSTER SLOTS")
    return answer


@pytest.fixture
def cluster(redis_cluster: str) -> Iterator[Cluster]:
    cluster = Cluster(redis_cluster)
    yield cluster
    cluster.close()


def test_each_node_of_a_cluster_is_asked_for_its_own_slots_alone(
    redis_cluster: str, cluster: Cluster
) -> None:
    keys = [f"own-{number}" for number in range(60)]

    async def story(hot: Hot, table: str) -> None:
        await hot.store.put_rows(table, [(key, key.encode()) for key in keys])
        group = ReadGroup(0, (table,))
        rows_of(await hot.read(group, ["own-0"]))
        for client in cluster.clients.values():
            client.config_resetstat()
        assert rows_of(await hot.read(group, keys)) == [[key.encode()] for key in keys]
        asked = [calls_of(client).get("mget", 0) for client in cluster.clients.values()]
        assert (min(asked) > 0, sum(asked)) == (True, len(keys))
        assert [client.info("errorstats") for client in cluster.clients.values()] == [{}] * len(asked)

    told(unused(f"redis+cluster://{redis_cluster}"), story)


def test_reads_of_a_cluster_follow_slots_that_move(redis_cluster: str, cluster: Cluster) -> None:
    keys = [f"mover-{number}" for number in range(60)]
    expected = [[key.encode()] for key in keys]

    async def story(hot: Hot, table: str) -> None:
        await hot.store.put_rows(table, [(key, key.encode()) for key in keys])
        group = ReadGroup(0, (table,))
        assert rows_of(await hot.read(group, keys)) == expected
        for key in cluster.alone_in_slots(keys)[:3]:
            end = cluster.begin_move(table, key)
            # The old owner answers ASK for the key that has gone, and serves the others as before.
            for _ in range(2):
                assert rows_of(await hot.read(group, keys)) == expected
            end()
            assert rows_of(await hot.read(group, keys)) == expected  # MOVED, once
            assert await hot.store.get_rows(table, keys) == [row for (row,) in expected]

    told(unused(f"redis+cluster://{redis_cluster}"), story)


def test_a_node_that_is_away_holds_up_only_its_own_keys(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
    # A node that comes back waits for as long as this before it serves.
    options = ("--cluster-node-timeout", "500", "--cluster-require-full-coverage", "no")
    with redis_cluster_started(folders, (*DURABLE, *options)) as servers:
        away = servers[1]
        keys = [f"user-{number}" for number in range(60)]
        end = 2 * layout.SLOTS // 3
        lost = [key for key in keys if layout.SLOTS // 3 < layout.slot_of(key.encode()) < end - 1]
        kept = [key for key in keys if not layout.SLOTS // 3 - 1 <= layout.slot_of(key.encode()) <= end]

        async def story(hot: Hot, table: str) -> None:
            await hot.store.put_rows(table, [(key, key.encode()) for key in keys])
            group = ReadGroup(0, (table,))
            rows_of(await hot.read(group, keys))
            away.stop()
            waiting = asyncio.create_task(hot.read(group, keys, within_s=20))
            for _ in range(3):
                await asyncio.sleep(0)
                reads = await hot.read(group, kept, within_s=20)
                assert rows_of(reads) == [[key.encode()] for key in kept]
            assert not waiting.done()
            (late,) = await hot.read(group, lost[:1], within_s=0.1)
            assert isinstance(late.error, StoreError)
            assert "connect" in late.error.message
            await asyncio.to_thread(away.start)
            assert rows_of(await waiting) == [[key.encode()] for key in keys]

        told(f"redis+cluster://127.0.0.1:{servers[0].port}", story)


def test_closing_fails_what_waits(tmp_path: Path) -> None:
    with redis_started(tmp_path) as server:

        async def story(hot: Hot, table: str) -> None:
            with server.client() as other:
                other.client_pause(300, all=True)
            reading = asyncio.create_task(hot.read(ReadGroup(0, (table,)), ["a"]))
            await asyncio.sleep(0)
            await hot.store.close()
            (read,) = await reading
            assert isinstance(read.error, StoreError)

        told(f"redis://127.0.0.1:{server.port}", story)
