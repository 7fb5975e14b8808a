"""One service over two stores, from `check` to `serve`: local beside Redis, or DynamoDB; then one is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import orjson
import pytest

from fastserve.cli import main
from fastserve.ingest.registry import Registry
from fastserve.store.interface import OnlineStore
from fastserve.tiles.times import format_time
from perf.load import standin_client
from tests.support.feature_server import (
    GET_FEATURES,
    ask,
    clean_environ,
    features,
    serving_features,
    starting_features,
    with_store,
)
from tests.support.http_connection import Answer
from tests.support.prometheus_text import read_metrics
from tests.support.redis_servers import RedisServer, redis_started
from tests.support.server_process import Connection, Server, eventually

REPO = """
from datetime import timedelta
from fastserve import *

user = Entity("user", Field("user_id", String))
people = FileSource("people", path="people.csv", timestamp_field="at")
pushes = PushSource(
    "pushes", [Field("user_id", String), Field("at", Timestamp), Field("cents", Int64)], timestamp_field="at"
)
profile = FeatureView("profile", user, people, [Attribute("age", Int64)])
risk = FeatureView("risk", user, people, [Attribute("score", Float64)], store="hot")
spend = FeatureView(
    "spend", user, pushes,
    [Aggregate(Field("cents", Int64), "sum", TimeWindow(timedelta(days=7)), name="cents")],
    aggregation_interval=timedelta(minutes=5), store="hot",
)
FeatureService("both", [profile, risk, spend])
FeatureService("calm", [profile])
FeatureService("risky", [risk])
"""
PEOPLE = "user_id,age,score,at\nu1,41,0.5,2026-01-01T00:00:00Z\nu2,17,0.25,2026-01-01T00:00:00Z\n"
HOUR_NS = 3_600 * 10**9


class Stores(NamedTuple):
    """A repo, and the URLs of its two stores."""

    repo: Path
    main: str
    hot: str

    @property
    def flags(self) -> tuple[str, ...]:
        return ("--repo", str(self.repo), "--store", self.main, "--store", f"hot={self.hot}")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    (folder / "defs.py").write_text(REPO)
    (folder / "people.csv").write_text(PEOPLE)
    return folder


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_started(tmp_path, ("--appendonly", "yes", "--appendfsync", "always")) as server:
        yield server


@pytest.fixture(params=["redis", "dynamodb"])
def stores(request: pytest.FixtureRequest, repo: Path, tmp_path: Path) -> Iterator[Stores]:
    main_url = f"local:{tmp_path / 'store'}?sync=off"
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis")
        yield Stores(repo, main_url, f"redis://127.0.0.1:{server.port}?prefix=hot.")
    else:
        with standin_client.running() as stand_in:
            yield Stores(repo, main_url, f"{stand_in.store_url()}&prefix=hot.")


def fastserve(*arguments: str, code: int = 0) -> None:
    with patch.dict("os.environ", clean_environ(), clear=True):
        assert main(arguments, {}) == code


def push(connection: Connection, user: str, cents: int, age_ns: int = 0) -> None:
    record = {"record": {"user_id": user, "at": format_time(time.time_ns() - age_ns), "cents": cents}}
    answer = connection.ask("/ingest", orjson.dumps({"records": {"pushes": [record]}}))
    assert answer.status == 200, answer.body


def vector(server: Server, user: str, service: str = "both") -> Any:
    connection = server.connect()
    answer = features(ask(connection, service, {"user_id": user}))
    connection.close()
    return answer


def ask_in_a_hurry(connection: Connection, service: str, join_keys: dict[str, str]) -> Answer:
    """Ask for one vector, to be answered within a tenth of a second."""
    body = orjson.dumps({"params": {"featureServiceName": service, "joinKeyMap": join_keys}})
    return connection.ask(GET_FEATURES, body, "X-Request-Timeout-Ms: 100\r\n")


def serving(stores: Stores, *flags: str) -> Any:
    return serving_features(
        stores.repo, stores.main, "--store", f"hot={stores.hot}", "--workers", "1", *flags
    )


def by_store(server: Server, metric: str) -> dict[str, float]:
    """Return a metric's number for each store."""
    connection = server.connect_admin()
    found = read_metrics(connection.get("/metrics").body.decode())[f"fastserve_store_{metric}"]
    connection.close()
    return {dict(labels)["store"]: number for (_, labels), number in found.samples.items()}


def test_one_service_reads_two_stores(stores: Stores, capsys: pytest.CaptureFixture[str]) -> None:
    fastserve("check", *stores.flags, code=2)
    fastserve("apply", "--yes", *stores.flags)
    assert "table hot.default.risk: to be created in store 'hot'" in capsys.readouterr().out
    fastserve("check", *stores.flags)
    assert f"{stores.main} and {stores.hot} fit." in capsys.readouterr().out
    fastserve("materialize", "--all", *stores.flags)
    with serving(stores) as server:
        connection = server.connect()
        assert vector(server, "u1") == ["41", 0.5, None]
        push(connection, "u1", 7, 4 * HOUR_NS)
        assert vector(server, "u1") == ["41", 0.5, "7"]
        fastserve("compact", "spend", *stores.flags)
        push(connection, "u1", 5)
        assert vector(server, "u1") == ["41", 0.5, "12"]
        assert vector(server, "u2") == ["17", 0.25, None]
        assert vector(server, "nobody") == [None, None, None]
        assert vector(server, "u1", "risky") == [0.5]
    fastserve("explain", "both", *stores.flags)
    assert "hot.default.risk" in capsys.readouterr().out

    async def tables(store: OnlineStore) -> list[str]:
        names = [
            "default.fastserve",
            "default.profile",
            "default.risk",
            "hot.default.risk",
            "hot.default.spend",
        ]
        names += ["hot.default.spend.stream", "hot.default.fastserve"]
        found = await store.describe_tables(names)
        return [name for name in names if found[name] is not None]

    assert with_store(stores.main, tables) == ["default.fastserve", "default.profile"]
    assert with_store(stores.hot, tables) == [
        "hot.default.risk",
        "hot.default.spend",
        "hot.default.spend.stream",
    ]


def test_a_view_whose_store_is_not_configured_stops_every_command(
    repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--repo", str(repo), "--store", f"local:{tmp_path / 'store'}")
    for command in (
        ("check",),
        ("apply", "--yes"),
        ("materialize", "--all"),
        ("explain", "calm"),
        ("serve",),
    ):
        fastserve(*command, *flags, code=2)
        said = capsys.readouterr().err
        assert "view 'risk': store: expected one that is configured (none), got 'hot'; set it by" in said
        assert "--store hot=URL, in FASTSERVE_STORES or in [stores] of fastserve.toml" in said


def test_a_store_that_goes_fails_only_the_services_that_read_it(
    redis: RedisServer, repo: Path, tmp_path: Path
) -> None:
    stores = Stores(repo, f"local:{tmp_path / 'store'}?sync=off", f"redis://127.0.0.1:{redis.port}")
    fastserve("apply", "--yes", *stores.flags)
    fastserve("materialize", "--all", *stores.flags)
    with serving(stores, "--admin-port", "0") as server:
        assert vector(server, "u1", "risky") == [0.5]
        redis.stop()
        connection = server.connect()
        for _ in range(3):
            assert ask_in_a_hurry(connection, "risky", {"user_id": "u1"}).status in {503, 504}
            assert vector(server, "u1", "calm") == ["41"]
        eventually(lambda: by_store(server, "failed_reads_total") == {"main": 0, "hot": 3})
        assert by_store(server, "keys_total") == {"main": 3, "hot": 4}
        assert by_store(server, "keys_in_flight") == {"main": 0, "hot": 0}
        redis.start()
        eventually(lambda: ask(connection, "risky", {"user_id": "u1"}).status == 200)
        assert vector(server, "u1") == ["41", 0.5, None]
    redis.stop()
    environ = {"FASTSERVE_STORES": f"hot={stores.hot}"}
    with starting_features(repo, stores.main, "--workers", "1", environ=environ) as server:
        server.wait_for("store 'hot' can't be opened")
        server.wait_until_listening()
        connection = server.connect()
        assert vector(server, "u1", "calm") == ["41"]
        answer = ask(connection, "both", {"user_id": "u1"})
        assert (answer.status, b"store 'hot' can't be opened" in answer.body) == (503, True)
        redis.start()
        eventually(lambda: ask(connection, "both", {"user_id": "u1"}).status == 200)
        assert vector(server, "u1") == ["41", 0.5, None]


def test_a_view_that_moves_to_another_store_has_nothing_there_until_it_is_made_again(
    redis: RedisServer, repo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stores = Stores(repo, f"local:{tmp_path / 'store'}?sync=off", f"redis://127.0.0.1:{redis.port}")
    fastserve("apply", "--yes", *stores.flags)
    fastserve("materialize", "--all", *stores.flags)
    definitions = REPO.replace('[Attribute("age", Int64)])', '[Attribute("age", Int64)], store="hot")')
    (repo / "defs.py").write_text(definitions)
    capsys.readouterr()
    fastserve("apply", "--yes", *stores.flags)
    said = capsys.readouterr().out
    assert "table default.profile: to be created in store 'hot'" in said
    assert (
        "view profile: changed: the store changed from the main one to 'hot', which has none of the old "
        "one's rows; must be materialized again"
    ) in said
    fastserve("materialize", "--status", *stores.flags)
    with serving(stores) as server:
        assert vector(server, "u1", "calm") == [None]
    fastserve("materialize", "profile", *stores.flags)
    with serving(stores) as server:
        assert vector(server, "u1", "calm") == ["41"]


def test_a_store_that_came_back_empty_is_filled_anew(redis: RedisServer, repo: Path, tmp_path: Path) -> None:
    stores = Stores(repo, f"local:{tmp_path / 'store'}?sync=off", f"redis://127.0.0.1:{redis.port}")
    fastserve("apply", "--yes", *stores.flags)
    fastserve("materialize", "risk", *stores.flags)

    def done(expected: bool) -> None:
        async def look(store: OnlineStore) -> None:
            assert ((await Registry(store, "default").materialized(["risk"]))["risk"] is not None) is expected

        with_store(stores.main, look)

    done(True)
    client = redis.client()
    client.flushall()
    client.close()
    fastserve("materialize", "risk", *stores.flags, code=2)  # there are no tables

    async def created_ns(store: OnlineStore) -> list[int]:
        definitions = await Registry(store, "default").definitions(["risk", "spend", "profile"])
        return [definition["created_ns"] for definition in definitions.values() if definition]

    before = with_store(stores.main, created_ns)
    fastserve("apply", "--yes", *stores.flags)
    after = with_store(stores.main, created_ns)
    # What is pushed counts from now on, where it is kept; what lies elsewhere is as it was.
    assert [new > old for new, old in zip(after, before, strict=True)] == [True, True, False]
    done(False)
    fastserve("materialize", "risk", *stores.flags)
    done(True)
    with serving(stores) as server:
        assert vector(server, "u1", "risky") == [0.5]
