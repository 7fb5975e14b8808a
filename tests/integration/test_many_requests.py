"""Ten thousand requests at once over keys that overlap, while the store misbehaves: each gets its own values.

Every value is a function of view, entity key and feature, so a value that belongs to another request, another
view or another feature can't pass for the right one. Whether a key has a row at all is such a function, too.
"""

from __future__ import annotations

import asyncio
import random
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from fastserve.ingest.apply import execute, plan_apply
from fastserve.ingest.materialize import materialize
from fastserve.sdk.repo import load_repo
from fastserve.store.interface import OnlineStore
from perf.load import standin_client
from perf.load.standin_client import StandInAddress
from tests.support.feature_server import (
    GET_FEATURES,
    GET_FEATURES_BATCH,
    Row,
    apply_and_put,
    serving_features,
    with_store,
)
from tests.support.server_process import Server

REQUESTS = 10_000
CONNECTIONS = 700  # so that none has more under way than the server takes of one, which is 16
USERS = 1_500
SHOPS = 300
UNKNOWN_USERS = 200  # asked for, and without a row in any view
CLOCK = "2026-01-03T00:00:00Z"
CLOCK_NS = int(datetime(2026, 1, 3, tzinfo=UTC).timestamp()) * 10**9

DEFINITIONS = """
from datetime import timedelta

import fastserve as fs

user = fs.Entity("user", fs.Field("user_id", fs.String))
shop = fs.Entity("shop", fs.Field("shop_id", fs.Int64))
events = fs.FileSource("events", path="events.csv", timestamp_field="at")

def attributes(name, entities):
    return fs.FeatureView(
        name,
        entities=entities,
        source=events,
        features=[
            fs.Attribute("number", fs.Int64),
            fs.Attribute("text", fs.String),
            fs.Attribute("share", fs.Float64),
        ],
    )

profile, device, habits = (attributes(name, user) for name in ("profile", "device", "habits"))
stock, prices = (attributes(name, shop) for name in ("stock", "prices"))
visits = attributes("visits", [user, shop])
spending = fs.FeatureView(
    "spending",
    entities=user,
    source=events,
    aggregation_interval=timedelta(hours=1),
    features=[
        fs.Aggregate(fs.Field("amount", fs.Int64), function, timedelta(days=7))
        for function in ("count", "sum")
    ],
)
payee = profile[["text"]].with_name("payee").with_join_key_map({"user_id": "payee_id"})
fs.FeatureService("users", features=[profile, spending])
fs.FeatureService("users:all", features=[profile, device, habits, spending])
fs.FeatureService("shops", features=[stock, prices])
fs.FeatureService("visits", features=[profile, stock, visits, spending])
fs.FeatureService("payments", features=[profile, payee, visits, prices])
"""
SERVICES: Mapping[str, Sequence[tuple[str, str, str]]] = {
    # by service: name of the reference, view, join keys; in the order of the answer
    "users": [("profile", "profile", "user"), ("spending", "spending", "user")],
    "users:all": [(name, name, "user") for name in ("device", "habits", "profile", "spending")],
    "shops": [(name, name, "shop") for name in ("prices", "stock")],
    "visits": [
        ("profile", "profile", "user"),
        ("spending", "spending", "user"),
        ("stock", "stock", "shop"),
        ("visits", "visits", "both"),
    ],
    "payments": [
        ("payee", "profile", "payee"),
        ("prices", "prices", "shop"),
        ("profile", "profile", "user"),
        ("visits", "visits", "both"),
    ],
}
ATTRIBUTE_VIEWS = {
    "profile": "user",
    "device": "user",
    "habits": "user",
    "stock": "shop",
    "prices": "shop",
    "visits": "both",
}


def code(*parts: object) -> int:
    return zlib.crc32("/".join(map(str, parts)).encode())


def has_row(view: str, *key: object) -> bool:
    return code("row", view, *key) % 10 != 0


def values(view: str, *key: object) -> dict[str, Any]:
    """Return what a row says, by feature; each names view, key and feature."""
    return {
        "number": code(view, *key, "number") << 30 | 1,
        "text": "/".join(map(str, (view, *key, '"é'))),
        "share": code(view, *key, "share") / 7,
    }


class Asked(NamedTuple):
    """One request: a service and its entity."""

    service: str
    user: str
    payee: str
    shop: int

    def key(self, kind: str) -> tuple[object, ...]:
        return {
            "user": (self.user,),
            "payee": (self.payee,),
            "shop": (self.shop,),
            "both": (self.user, self.shop),
        }[kind]

    @property
    def join_keys(self) -> dict[str, Any]:
        kinds = {kind for _, _, kind in SERVICES[self.service]}
        keys: dict[str, Any] = {}
        if kinds & {"user", "both"}:
            keys["user_id"] = self.user
        if "payee" in kinds:
            keys["payee_id"] = self.payee
        if kinds & {"shop", "both"}:
            keys["shop_id"] = self.shop
        return keys

    def expected(self) -> list[Any]:
        vector: list[Any] = []
        for name, view, kind in SERVICES[self.service]:
            key = self.key(kind)
            vector += expected_of(name, view, key)
        return vector


def exists(view: str, key: tuple[object, ...]) -> bool:
    return key in ENTITIES["user" if view == "spending" else ATTRIBUTE_VIEWS[view]] and has_row(view, *key)


def expected_of(name: str, view: str, key: tuple[object, ...]) -> list[Any]:
    if view == "spending":
        return ["1", str(amount(key[0]))] if exists(view, key) else [None, None]
    row = values(view, *key)
    vector = [str(row["number"]), row["share"], row["text"]] if exists(view, key) else [None] * 3
    return vector[2:] if name == "payee" else vector


def amount(user: object) -> int:
    return code("amount", user) << 20


def entities(kind: str) -> list[tuple[object, ...]]:
    users: list[tuple[object, ...]] = [(f"u{number}",) for number in range(USERS)]
    if kind == "user":
        return users
    if kind == "shop":
        return [(number,) for number in range(SHOPS)]
    return [(f"u{number}", shop) for number in range(0, USERS, 3) for shop in range(0, SHOPS, 60)]


ENTITIES = {kind: dict.fromkeys(entities(kind)) for kind in ("user", "shop", "both")}


class Running(NamedTuple):
    """A server over a stand-in that holds all rows."""

    server: Server
    stand_in: StandInAddress


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("many")
    (folder / "definitions.py").write_text(DEFINITIONS, encoding="utf-8")
    events = [
        f"u{number},{amount(f'u{number}')},2026-01-0{1 + number % 2}T0{number % 9}:30:00Z\n"
        for number in range(USERS)
        if has_row("spending", f"u{number}")
    ]
    (folder / "events.csv").write_text("user_id,amount,at\n" + "".join(events), encoding="utf-8")
    rows = {
        view: [Row(key, values(view, *key)) for key in ENTITIES[kind] if has_row(view, *key)]
        for view, kind in ATTRIBUTE_VIEWS.items()
    }
    with standin_client.running() as stand_in:
        apply_and_put(folder, stand_in.store_url(), rows)
        materialize_spending(folder, stand_in.store_url())
        # All of them are to be answered, however long that takes: none is refused for the others' sake.
        patience = ["--server-timeout-ms", "60000", "--overload-wait-ms", "60000"]
        flags = ["--workers", "1", *patience, "--clock", CLOCK]
        with serving_features(folder, stand_in.store_url(), *flags) as server:
            yield Running(server, stand_in)
            assert server.stop() == 0
            assert "Traceback" not in server.said


def materialize_spending(folder: Path, url: str) -> None:
    async def work(store: OnlineStore) -> None:
        repo = load_repo(folder)
        await execute(await plan_apply(repo, store), store)
        await materialize(repo, ["spending"], store, until_ns=CLOCK_NS, progress=False, parallel=1)

    with_store(url, work)


def some_requests(count: int, chance: random.Random) -> list[Asked]:
    """Draw requests; some users are asked for far more often than others."""
    users = [f"u{number}" for number in range(USERS)] + [f"unknown{n}" for n in range(UNKNOWN_USERS)]
    chance.shuffle(users)
    weights = [1 / (rank + 10) for rank in range(len(users))]
    shops = chance.choices(range(SHOPS + 20), k=count)
    return [
        Asked(service, user, payee, shop - shop % 60 if chance.random() < 0.5 else shop)
        for service, user, payee, shop in zip(
            chance.choices(list(SERVICES), k=count),
            chance.choices(users, weights, k=count),
            chance.choices(users, weights, k=count),
            shops,
            strict=True,
        )
    ]


def raw(asked: Asked) -> bytes:
    body = orjson.dumps({"params": {"featureServiceName": asked.service, "joinKeyMap": asked.join_keys}})
    return b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (
        GET_FEATURES.encode(),
        len(body),
        body,
    )


async def ask_all(server: Server, requests: Sequence[Asked], connections: int) -> list[tuple[int, bytes]]:
    """Send all requests at once, pipelined over the connections; return status and body of each."""
    answers: list[tuple[int, bytes]] = [(0, b"")] * len(requests)

    async def ask_some(first: int) -> None:
        reader, writer = await asyncio.open_connection(server.host, server.port)
        places = range(first, len(requests), connections)
        writer.write(b"".join(raw(requests[place]) for place in places))
        for place in places:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
            answers[place] = int(head[9:12]), await reader.readexactly(length)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*map(ask_some, range(connections)))
    return answers


def assert_own_values(requests: Sequence[Asked], answers: Sequence[tuple[int, bytes]]) -> None:
    failures = [body for status, body in answers if status != 200]
    assert failures[:3] == []
    wrong = [
        (asked, got, asked.expected())
        for asked, (_, body) in zip(requests, answers, strict=True)
        if (got := orjson.loads(body)["result"]["features"]) != asked.expected()
    ]
    assert wrong[:3] == []
    assert len(failures) + len(wrong) == 0


FAULTS = {
    "a calm store": {},
    "a store that shuffles, leaves out and drops": {
        "shuffle": True,
        "unprocessed_share": 0.3,
        "drop_connection_share": 0.05,
    },
    "a store that does all it can": {
        "shuffle": True,
        "unprocessed_share": 0.3,
        "drop_connection_share": 0.03,
        "cut_answer_share": 0.02,
        "wrong_crc_share": 0.02,
        "server_error_share": 0.02,
        "throttle_share": 0.02,
    },
}


@pytest.mark.parametrize("faults", FAULTS)
def test_ten_thousand_requests_at_once_get_exactly_their_own_values(running: Running, faults: str) -> None:
    server, stand_in = running
    requests = some_requests(REQUESTS, random.Random(faults))
    stand_in.control(faults=FAULTS[faults], latency_ms={"1": 20, "99": 60}, reset=True)
    started_s = time.monotonic()
    answers = asyncio.run(ask_all(server, requests, CONNECTIONS))
    took_s = time.monotonic() - started_s
    counters = stand_in.control(faults={}, latency_ms=None)
    assert_own_values(requests, answers)
    wanted = sum(len(SERVICES[asked.service]) for asked in requests)
    read = counters["keys"] - counters["unprocessed_keys"]
    print(f"{took_s:.1f} s, {wanted} rows wanted, {read} keys read, {counters}")
    distinct = {(view, asked.key(kind)) for asked in requests for _, view, kind in SERVICES[asked.service]}
    assert len(distinct) <= read < wanted * 0.6
    if FAULTS[faults]:
        assert counters["unprocessed_keys"] > 0.2 * counters["keys"]
        assert counters["connections_total"] > 10  # new ones, for the dropped


def test_requests_that_wait_for_the_same_keys_share_one_read(running: Running) -> None:
    """The store is slow enough for all requests to have come before its first answer."""
    server, stand_in = running
    asked = Asked("users:all", "u3", "", 0)
    stand_in.control(latency_ms={"1": 400, "99": 400}, reset=True)
    requests = [asked] * 500 + [Asked("users", "u3", "", 0)] * 500
    answers = asyncio.run(ask_all(server, requests, 100))
    counters = stand_in.control(latency_ms=None)
    assert_own_values(requests, answers)
    assert counters["keys"] == 4, counters


def test_rows_of_a_batch_that_share_keys_are_read_once(running: Running) -> None:
    server, stand_in = running
    chance = random.Random(4)
    rows = [
        Asked("visits", f"u{chance.randrange(30)}", "", chance.randrange(0, 300, 60)) for _ in range(1000)
    ]
    body = orjson.dumps(
        {
            "params": {
                "feature_service_name": "visits",
                "request_data": [{"join_key_map": asked.join_keys} for asked in rows],
            }
        }
    )
    stand_in.control(reset=True)
    answer = server.connect().ask(GET_FEATURES_BATCH, body)
    counters = stand_in.counters()
    got = [row["features"] for row in orjson.loads(answer.body)["result"]]
    assert got == [asked.expected() for asked in rows]
    distinct = {(view, asked.key(kind)) for asked in rows for _, view, kind in SERVICES["visits"]}
    assert counters["keys"] == len(distinct)
    assert counters["calls"] == {"BatchGetItem": -(-len(distinct) // 100)}


def test_a_key_that_was_answered_is_read_again_by_the_next_request(running: Running) -> None:
    """Nothing is kept: what was written between two requests is seen by the second one."""
    server, stand_in = running
    connection = server.connect()
    stand_in.control(reset=True)
    for asked in [Asked("users", "u5", "", 0)] * 5:
        connection.send(raw(asked))
        assert orjson.loads(connection.read().body)["result"]["features"] == asked.expected()
    assert stand_in.counters()["keys"] == 10
