"""A server over Redis: pushed over HTTP, read by every worker, compacted; a restart that nobody notices."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from fastserve.cli import main
from fastserve.store.interface import Item
from fastserve.tiles.times import format_time
from tests.support.feature_server import (
    apply_and_put,
    ask,
    features,
    serving_features,
    with_store,
)
from tests.support.pushed_views import PUSHED_VIEWS
from tests.support.redis_servers import RedisServer, redis_started
from tests.support.server_process import Connection, Server

REPO = f"""{PUSHED_VIEWS}
profile = FeatureView(
    "profile", user, FileSource("people", path="people.csv", timestamp_field="at"),
    [Attribute("age", Int64)], row_format=AttributesFormat(partition_key="pk"), table="people",
)
service = FeatureService("spending", [spend, latest, profile])
"""
PEOPLE: list[Item] = [{"pk": "u1", "age": 41}, {"pk": "u2", "age": 17}]
HOUR_NS = 3_600 * 10**9


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "defs.py").write_text(REPO)
    return folder


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_started(tmp_path, ("--appendonly", "yes", "--appendfsync", "always")) as server:
        yield server


def fastserve(*arguments: str) -> None:
    assert main(arguments, {}) == 0


def set_up(repo: Path, url: str) -> None:
    apply_and_put(repo, url, {})
    with_store(url, lambda store: store.put_items("people", PEOPLE))


def push(connection: Connection, *users: str, cents: int = 5, age_ns: int = 0) -> None:
    at = format_time(time.time_ns() - age_ns)
    records = [{"record": {"user_id": user, "at": at, "cents": cents, "shop": f"s{cents}"}} for user in users]
    answer = connection.ask("/ingest", orjson.dumps({"records": {"pushes": records}}))
    assert answer.status == 200, answer.body


def vectors(server: Server, user: str) -> list[Any]:
    """Return a vector as several connections, and with them all workers, have it: one and the same."""
    found = [features(ask(server.connect(), "spending", {"user_id": user})) for _ in range(4)]
    assert all(one == found[0] for one in found)
    vector: list[Any] = found[0]
    return vector


def check_a_day(server: Server, repo: Path, url: str) -> None:
    connection = server.connect()
    compact = ("compact", "spend", "--repo", str(repo), "--store", url)
    push(connection, "u1", "u2", cents=7, age_ns=4 * HOUR_NS)
    fastserve(*compact)
    assert vectors(server, "u1") == ["s7", "41", "7", "1"]
    for cents, total in ((2, "9"), (3, "12")):
        push(connection, "u1", cents=cents)
        assert vectors(server, "u1")[::2] == [f"s{cents}", total]
    expected = [["s3", "41", "12", "3"], ["s7", "17", "7", "1"], [None, None, None, None]]
    assert [vectors(server, user) for user in ("u1", "u2", "u3")] == expected
    fastserve(*compact)
    assert [vectors(server, user) for user in ("u1", "u2", "u3")] == expected
    push(connection, "u2", cents=4)
    assert vectors(server, "u2") == ["s4", "17", "11", "2"]


def test_a_cluster_serves_what_was_pushed_and_compacted(redis_cluster: str, repo: Path) -> None:
    url = f"redis+cluster://{redis_cluster}?prefix=day."
    set_up(repo, url)
    with serving_features(repo, url, "--workers", "2") as server:
        check_a_day(server, repo, url)


def test_a_redis_that_restarts_is_not_noticed(alone: RedisServer, repo: Path) -> None:
    url = f"redis://127.0.0.1:{alone.port}/3?prefix=day."
    set_up(repo, url)
    with serving_features(repo, url, "--workers", "2", "--server-timeout-ms", "20000") as server:
        check_a_day(server, repo, url)
        expected = vectors(server, "u1")
        statuses: list[int] = []
        stop = threading.Event()

        def read_on() -> None:
            connection = server.connect()
            while not stop.is_set():
                answer = ask(connection, "spending", {"user_id": "u1"})
                assert features(answer) == expected
                statuses.append(answer.status)

        readers = [threading.Thread(target=read_on) for _ in range(3)]
        for reader in readers:
            reader.start()
        for _ in range(2):
            seen = len(statuses)
            alone.stop()
            alone.start()
            while len(statuses) < seen + 20:
                assert any(reader.is_alive() for reader in readers)
        stop.set()
        for reader in readers:
            reader.join(20)
        push(server.connect(), "u1", cents=1)
        assert vectors(server, "u1") == ["s1", "41", "13", "4"]
        assert set(statuses) == {200}
