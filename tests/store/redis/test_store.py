"""What belongs to Redis alone: how it is reached, what it must not do, what lies in it, how it lets go."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import redis

from fastserve.errors import DefinitionError, StoreError
from fastserve.plan.reads import ReadGroup
from fastserve.store.interface import OnlineStore, TableSpec, VersionedRow
from fastserve.store.url import open_store
from perf.load.free_port import free_port
from tests.store.test_contract import fetched, key_read, rows_in
from tests.support.redis_servers import redis_cluster_started, redis_started
from tests.support.server_process import ROOT

Story = Callable[[OnlineStore], Awaitable[None]]


def told(url: str, story: Story) -> None:
    async def whole() -> None:
        store = await open_store(url)
        try:
            await story(store)
        finally:
            await store.close()

    asyncio.run(whole())


async def write_and_read(store: OnlineStore) -> None:
    table = store.table_prefix + "views"
    await store.create_table(TableSpec(table))
    await store.put_rows(table, [("a", b"aaa")])
    read = key_read(ReadGroup(0, (table,)), "a")
    await fetched(store, [read])
    assert rows_in(read) == [b"aaa"]


@pytest.mark.parametrize("from_file", [False, True], ids=["variable", "file"])
def test_credentials_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, from_file: bool
) -> None:
    with redis_started(tmp_path, ("--requirepass", "hunter2")) as server:
        url = f"redis://127.0.0.1:{server.port}/2"
        with pytest.raises(StoreError, match="NOAUTH Authentication required"):
            told(url, write_and_read)
        monkeypatch.setenv("REDIS_PASSWORD", "wrong-secret")
        with pytest.raises(StoreError) as caught:
            told(url, write_and_read)
        assert "wrong-secret" not in caught.value.message
        monkeypatch.setenv("REDIS_USERNAME", "default")
        if from_file:
            (tmp_path / "password").write_text("hunter2\n", encoding="utf-8")
            monkeypatch.delenv("REDIS_PASSWORD")
            monkeypatch.setenv("REDIS_PASSWORD_FILE", str(tmp_path / "password"))
        else:
            monkeypatch.setenv("REDIS_PASSWORD", "hunter2")
        told(url, write_and_read)


def test_each_server_may_have_credentials_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "of-the-other")
    with redis_started(tmp_path, ("--requirepass", "hunter2")) as server:
        url = f"redis://127.0.0.1:{server.port}?credentials=HOT_1"
        with pytest.raises(
            DefinitionError, match="credentials: expected HOT_1_PASSWORD or HOT_1_PASSWORD_FILE in the env"
        ):
            told(url, write_and_read)
        monkeypatch.setenv("HOT_1_PASSWORD", "hunter2")
        told(url, write_and_read)


def tls_options(folder: Path) -> tuple[int, tuple[str, ...]]:
    """Return a free port for TLS, and what has a server in that folder speak it, by a new certificate."""
    subprocess.run(
        shlex.split(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
            " -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout key.pem -out cert.pem"
        ),
        cwd=folder,
        check=True,
        capture_output=True,
    )
    port = free_port()
    files = ("--tls-cert-file", "cert.pem", "--tls-key-file", "key.pem", "--tls-auth-clients", "no")
    return port, ("--tls-port", str(port), *files)


def test_tls_is_spoken_and_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port, options = tls_options(tmp_path)
    with redis_started(tmp_path, options):
        url = f"rediss://127.0.0.1:{port}"
        with pytest.raises(StoreError, match="certificate verify failed"):
            told(url, write_and_read)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        told(url, write_and_read)


def test_a_cluster_speaks_tls_on_the_ports_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, options = tls_options(tmp_path)
    bus = ("--tls-cluster", "yes", "--tls-ca-cert-file", "cert.pem")
    with redis_cluster_started([tmp_path], (*options, *bus)):
        url = f"rediss+cluster://127.0.0.1:{port}"
        with pytest.raises(StoreError, match="certificate verify failed"):
            told(url, write_and_read)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        told(url, write_and_read)


def test_a_server_that_drops_rows_when_it_is_full_is_refused(tmp_path: Path) -> None:
    full = ("--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru")
    with redis_started(tmp_path, full) as server:
        url = f"redis://127.0.0.1:{server.port}"
        with pytest.raises(StoreError, match="expected maxmemory-policy noeviction, got volatile-lru"):
            told(url, write_and_read)
        told(url + "?eviction=allow", write_and_read)


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
def test_a_server_that_is_not_there_is_named_at_once(scheme: str) -> None:
    port = free_port()
    with pytest.raises(StoreError, match=f"opening 127.0.0.1:{port}: can't connect to") as caught:
        told(f"{scheme}://127.0.0.1:{port}", write_and_read)
    assert caught.value.retryable


def test_what_lies_in_redis_can_be_read_by_anybody(tmp_path: Path) -> None:
    with redis_started(tmp_path) as server:

        async def story(store: OnlineStore) -> None:
            await store.create_table(TableSpec("prod.shop.user"))
            await store.put_rows("prod.shop.user", [("u1", b"\x01row")])
            versioned = VersionedRow(1, b"\x01row", b"ids", 4_000_000_000)
            await store.replace_row("prod.shop.user", "u2", versioned)
            await store.put_newest("prod.shop.user", [("u3", bytes(24))])
            await store.put_rows("prod.shop.user", [("u3", bytes(24))])

        told(f"redis://127.0.0.1:{server.port}?prefix=prod.", story)
        with server.client() as client:
            assert sorted(client.keys("prod.*")) == [
                b"prod.shop.user:table",
                b"prod.shop.user{u1}",
                b"prod.shop.user{u2}",
                b"prod.shop.user{u2}#",
                b"prod.shop.user{u3}",
            ]
            assert client.get("prod.shop.user{u1}") == b"\x01row"
            assert client.expiretime("prod.shop.user{u2}") == 4_000_000_000
            assert client.expiretime("prod.shop.user{u2}#") == 4_000_000_000
            assert client.ttl("prod.shop.user{u1}") == -1


def test_a_row_that_is_put_over_one_with_an_end_has_none(tmp_path: Path) -> None:
    with redis_started(tmp_path) as server:

        async def story(store: OnlineStore) -> None:
            await store.create_table(TableSpec("views"))
            for write in (store.put_rows, store.put_newest):
                row = VersionedRow(1, bytes(24), b"ids", 4_000_000_000)
                await store.delete_rows("views", ["a"])
                await store.replace_row("views", "a", row)
                await write("views", [("a", bytes(24))])
                assert await store.get_versioned("views", ["a"]) == [VersionedRow(0, bytes(24))]
            row = VersionedRow(1, bytes(24), b"ids", 1)
            await store.replace_row("views", "gone", row)
            assert await store.get_rows("views", ["gone"]) == [None]

        told(f"redis://127.0.0.1:{server.port}", story)
        with server.client() as client:
            assert client.ttl("views{a}") == -1
            assert client.ttl("views{a}#") == -1


def test_a_write_that_finds_no_room_is_an_error_that_names_the_table(tmp_path: Path) -> None:
    with redis_started(tmp_path, ("--maxmemory", "3mb")) as server:

        async def story(store: OnlineStore) -> None:
            await store.create_table(TableSpec("views"))
            rows = [(str(number), bytes(300_000)) for number in range(40)]
            with pytest.raises(StoreError, match=r"table views: .*maxmemory"):
                await store.put_rows("views", rows)

        told(f"redis://127.0.0.1:{server.port}", story)


def test_a_script_s_write_is_not_repeated_into_another_version(tmp_path: Path) -> None:
    """The server is restarted under writers: each row is written once, whatever tries it took."""
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with redis_started(tmp_path, options) as server:

        async def story(store: OnlineStore) -> None:
            await store.create_table(TableSpec("views"))

            async def count_up(key: str) -> None:
                for number in range(1, 31):
                    row = VersionedRow(number, key.encode(), bytes([number]))
                    assert await store.replace_row("views", key, row) is row

            writing = asyncio.gather(*[count_up(f"k{number}") for number in range(8)])
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            await writing
            rows = await store.get_versioned("views", [f"k{number}" for number in range(8)])
            assert [row and row.version for row in rows] == [30] * 8

        told(f"redis://127.0.0.1:{server.port}", story)


def documented_rights() -> tuple[list[str], list[str]]:
    """Return the rules of the ACL that docs/stores.md gives, and those that a cluster needs too."""
    text = (ROOT / "docs" / "stores.md").read_text(encoding="utf-8")
    rules = text.partition("ACL SETUSER fastserve on >PASSWORD ")[2].partition("\n\n")[0].split()
    more = text.partition("… and for a cluster: ")[2].partition("\n\n")[0].split()
    assert len(rules) > 10
    assert len(more) > 2
    return rules, more


async def whole_life(store: OnlineStore) -> None:
    """Do everything that a store does."""
    await write_and_read(store)
    table = store.table_prefix + "views"
    row = VersionedRow(1, bytes(24), b"ids", 4_000_000_000)
    assert await store.replace_row(table, "b", row) is row
    assert await store.get_versioned(table, ["b"]) == [row]
    await store.put_newest(table, [("c", bytes(24))])
    found = [pair async for page in store.scan_rows(table) for pair in page]
    assert sorted(key for key, _ in found) == ["a", "b", "c"]
    await store.delete_rows(table, ["a", "b", "c"])
    assert await store.get_rows(table, ["a", "b", "c"]) == [None, None, None]


def test_the_documented_rights_are_enough(
    tmp_path: Path, redis_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules, more = documented_rights()
    rights = ("reset", "on", ">hunter2", *rules)
    host, port = redis_cluster.split(":")
    with redis_started(tmp_path) as server, redis.Redis(host=host, port=int(port)) as first:
        masters = [int(master[1]) for _, _, master, *_ in first.execute_command("CLUSTER SLOTS")]
        for each in (server.port, *masters):
            with redis.Redis(port=each) as client:
                client.execute_command(
                    "ACL", "SETUSER", "fastserve", *rights, *(more if each in masters else ())
                )
        monkeypatch.setenv("REDIS_USERNAME", "fastserve")
        monkeypatch.setenv("REDIS_PASSWORD", "hunter2")
        told(f"redis://127.0.0.1:{server.port}?prefix=prod.", whole_life)
        told(f"redis+cluster://{redis_cluster}?prefix=prod.", whole_life)
