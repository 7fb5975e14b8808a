"""Requests that were damaged at random, by the million: `python -m tests.support.fuzzing --requests 1000000`.

In process, the whole way from bytes to answer without a socket; and over sockets, to `fastserve serve` with
a local store, where pushes are written for real. Two kinds of damage: to bytes of whole messages, of the
golden corpus and of ours; and to the JSON of well-formed ones, whose heads are left alone, so that each must
get exactly one answer.

Invariants:
1. A seed gives the same requests again; what breaks something is told with its bytes.
2. Statuses other than `EXPECTED` end the run, and so do a missing answer, an answer too many, a worker that
   has died or a traceback in its log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import orjson
from tqdm import tqdm

from fastserve.ingest.apply import execute, plan_apply
from fastserve.sdk.repo import load_repo
from fastserve.server.protocol import LINGER_S
from perf.soak.world import REPO
from tests.server.application_world import V1, V2, ApplicationWorld
from tests.support.feature_server import serving_features, with_store
from tests.support.http_connection import NOW_S, Client
from tests.support.server_process import Server

CORPUS = Path(__file__).parents[1] / "golden" / "requests"
# Of 5xx only what tells a client that its method or version is none of ours.
EXPECTED = frozenset({200, 400, 404, 405, 408, 413, 414, 417, 431, 501, 505})
LONG_BYTES = 2000
HANGS_S = 30.0
STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z' -]+\r\n")
LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n")
TOKENS = [
    *(b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b"\t", b":", b",", b";", b"0\r\n\r\n", b"#", b"%00"),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Content-Length: -1\r\n", b"Host: b\r\n"),
    *(
        b"Connection: close\r\n",
        b"Expect: 100-continue\r\n",
        b"Upgrade: h2c\r\n",
        b"X-Request-Timeout-Ms: 5\r\n",
    ),
    *(b"HTTP/1.0", b"HTTP/2.0", b"\xff", "é".encode(), b"{", b"}", b"[", b'"', b"null", b"1e999", b"-0"),
    *(b"18446744073709551616", b"NaN", b'"\\ud800"', b"[" * 200),
]
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**40),
    *(0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        " ",
        "0",
        "-1",
        "NaN",
        "Infinity",
        "1e400",
        "9" * 400,
        "\0",
        "\ud800",
        "é" * 70,
        "a" * 5_000,
        "null",
    ),
    *("2026-01-01T00:00:00Z", "0001-01-01T00:00:00", "9999-12-31T23:59:59.999999999Z", "2026-02-30", "now"),
    *([], {}, [[]], {"": ""}, [None] * 50, {"a": {"b": {"c": []}}}),
    *("user00000001", "wide", "narrow", "plain", "fraud:v2", "perf", "w", "__class__", "user_id"),
]
# Stands for a list in a list in a list, too many for what writes JSON here.
DEEP = "so deep"
SOCKETS = 16
BYTES_SHARE = 0.3


def request(target: str, body: bytes, *fields: bytes) -> bytes:
    """Return the bytes of a POST."""
    head = [f"POST {target} HTTP/1.1".encode(), b"Host: a", *fields, b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*head, b"", body])


def ours() -> list[bytes]:
    """Return requests of each of our kinds, whole and right."""
    keys = {"user_id": "u1"}
    one = {
        "params": {
            "featureServiceName": "plain",
            "joinKeyMap": keys,
            "metadataOptions": {"includeNames": True},
        }
    }
    rows = {"params": {"featureServiceName": "plain", "requestData": [{"joinKeyMap": keys}] * 3}}
    chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    body = orjson.dumps(one)
    return [
        request(V1 + "get-features", body),
        request(V1 + "get-features", body, b"Connection: close", b"X-Request-Timeout-Ms: 20"),
        request(V1 + "get-features-batch", orjson.dumps(rows), b"Authorization: Tecton-key fs_x"),
        request(V2 + "plain/get-features", orjson.dumps({"params": {"joinKeyMap": keys}})),
        request(V1 + "metadata", b'{"params":{"featureServiceName":"plain"}}'),
        f"POST {V1}get-features HTTP/1.1\r\nHost: a\r\n".encode() + chunked % (len(body), body),
        b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    ]


@cache
def seeds() -> list[bytes]:
    """Return what is damaged: ours, and the corpus but for what is long."""
    corpus = [path.read_bytes() for path in sorted(CORPUS.glob("*/*.http"))]
    return [*ours() * 8, *(raw for raw in corpus if len(raw) < LONG_BYTES)]


def documents(service: str, keys: dict[str, Any], workspace: str) -> list[tuple[str, dict[str, Any]]]:
    """Return targets and bodies of every kind for one server's definitions."""
    options = {
        "latencyBudgetMs": 200,
        "coerceNullCountsToZero": True,
        "ignoreExtraRequestContextFields": True,
        "readFromCache": True,
        "writeToCache": True,
        "aggregationLeadingEdge": "AGGREGATION_MODE_WALL_CLOCK_TIME",
    }
    asked = [
        "Names",
        "DataTypes",
        "EffectiveTimes",
        "SloInfo",
        "ServingStatus",
        "FeatureDescriptions",
        "FeatureTags",
    ]
    named = {"workspaceName": workspace, "featureServiceName": service}
    more = {
        "allowPartialResults": True,
        "metadataOptions": {f"include{name}": True for name in asked},
        "requestOptions": options,
    }
    snake = {"workspace_name": workspace, "feature_service_name": service, "join_key_map": keys}
    record = {"user_id": "u1", "at": "2026-01-02T00:25:06Z", "units": 1}
    pushed = {"workspace_name": workspace, "dry_run": False, "records": {"events": [{"record": record}] * 2}}
    return [
        (V1 + "get-features", {"params": {**named, "joinKeyMap": keys}}),
        (V1 + "get-features", {"params": {**named, "joinKeyMap": keys, "requestContextMap": {}, **more}}),
        (V1 + "get-features", {"params": snake}),
        (V1 + "get-features-batch", {"params": {**named, "requestData": [{"joinKeyMap": keys}] * 3, **more}}),
        (V1 + "get-features-batch", {"params": {**snake, "request_data": [{"join_key_map": keys}]}}),
        (V1 + "metadata", {"params": named}),
        ("/ingest", pushed),
    ]


class Mutator:
    """Draws damaged requests."""

    def __init__(self, seed: int, templates: list[tuple[str, dict[str, Any]]]) -> None:
        self._random = random.Random(seed)
        self._templates = [(target, json.dumps(body)) for target, body in templates]

    def raw(self) -> bytes:
        """Return a few requests in a row, with bytes of them replaced, taken away, doubled, moved."""
        chance = self._random
        raw = bytearray(b"".join(chance.choices(seeds(), k=chance.randint(1, 3))))
        for _ in range(chance.randint(0, 4)):
            at = chance.randint(0, len(raw))
            size = chance.randint(0, 40)
            match chance.randrange(5):
                case 0:
                    raw[at:at] = chance.choice(TOKENS)
                case 1:
                    raw[at : at + size] = b""
                case 2:
                    raw[at:at] = raw[at : at + size] * chance.randint(1, 30)
                case 3:
                    raw[at : at + size] = chance.randbytes(chance.randint(0, 12))
                case _:
                    raw[at:at] = raw[chance.randint(0, len(raw)) :][: size * 4]
        return bytes(raw)

    def segments(self, raw: bytes) -> list[bytes]:
        """Cut a message into pieces of one size."""
        size = self._random.choice((1, 7, 50, 400, 1 << 20)) if len(raw) < LONG_BYTES else 1 << 20
        return [raw[at : at + size] for at in range(0, len(raw), size)]

    def well_formed(self) -> bytes:
        """Return one request whose head is right, and whose JSON isn't what it was."""
        chance = self._random
        target, text = chance.choice(self._templates)
        document = json.loads(text)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            document = self._changed(document)
        body = self._written(document)
        if chance.random() < 0.1:
            body = bytearray(body)
            at = chance.randint(0, len(body))
            body[at : at + chance.randint(0, 3)] = chance.choice(TOKENS)
        fields = [b"X-Request-Timeout-Ms: 1000"] if chance.random() < 0.05 else []
        return request(target, bytes(body), *fields)

    def _written(self, document: Any) -> bytes | bytearray:
        text = json.dumps(document, ensure_ascii=self._random.random() < 0.8)
        depth = self._random.choice((10, 200, 1_023, 1_024, 5_000))
        text = text.replace(f'"{DEEP}"', "[" * depth + "]" * depth)
        return text.encode(errors="surrogatepass")

    def _changed(self, document: Any) -> Any:
        """Change one place of a document, the root now and then."""
        chance = self._random
        places = list(_places(document))
        if not places or chance.random() < 0.02:
            return self._odd(document)
        holder, key = chance.choice(places)
        match chance.randrange(6):
            case 0 | 1 | 2:
                holder[key] = self._odd(holder[key])
            case 3 if isinstance(holder, dict):
                holder[self._name(key)] = holder.pop(key)
            case 3 | 4:
                del holder[key]
            case _ if isinstance(holder, list):
                holder[key:key] = holder[key : key + 1] * chance.choice((1, 2, 40))
            case _:
                holder[self._name(key)] = holder[key]
        return document

    def _odd(self, value: Any) -> Any:
        chance = self._random
        match chance.randrange(8):
            case 0:
                return [value]
            case 1:
                return {"": value}
            case 2 if isinstance(value, str):
                at = chance.randint(0, len(value))
                return (
                    value[:at] + chance.choice(("\0", "é", "\u202e", '"', "\\", "\ud800", " ")) + value[at:]
                )
            case 3:
                return DEEP if chance.random() < 0.3 else str(value)
            case _:
                return deepcopy(chance.choice(ODD))

    def _name(self, key: str) -> str:
        chance = self._random
        snake = re.sub("([A-Z])", lambda found: f"_{found[1].lower()}", key)
        return chance.choice((snake, key.upper(), key + "x", "", key[:-1], "é", "a" * 200))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield value, key
            yield from _places(inner)
    elif isinstance(value, list):
        for at, inner in enumerate(value[:4]):
            yield value, at
            yield from _places(inner)


def statuses_of(received: bytes) -> list[int]:
    """Return the statuses of all answers by their lines: to HEAD no body is sent."""
    return [int(status) for status in STATUS_LINE.findall(received)]


@dataclass
class Tally:
    """What came of how many requests."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Take in another's."""
        self.requests += other.requests
        self.statuses += other.statuses


async def converse(world: ApplicationWorld, client: Client, segments: list[bytes]) -> None:
    """Send what there is, in segments, and let the store answer until no more is asked of it."""
    for segment in segments:
        client.send(segment)
        world.turn()
    while True:
        asked = len(client.exchanges)
        world.store.answer()
        world.turn()
        await asyncio.sleep(0)  # a pipeline that was full reads on in the loop's next turn
        if len(client.exchanges) == asked and all(exchange.is_answered for exchange in client.exchanges):
            break
    client.protocol.eof_received()


async def ask_in_process(
    world: ApplicationWorld, segments: list[bytes], *, is_well_formed: bool
) -> list[int]:
    """Send one client's bytes, look at all that must be so, and return the statuses."""
    client = Client(world.application)
    await asyncio.wait_for(converse(world, client, segments), HANGS_S)
    statuses = [status for status in statuses_of(client.received) if status != 100]
    assert set(statuses) <= EXPECTED, client.received
    # One answer for each request that came in whole, and at most one more, for what was none.
    assert all(exchange.is_answered for exchange in client.exchanges)
    assert len(statuses) - len(client.exchanges) >= 0
    assert len(statuses) == 1 or not is_well_formed, client.received
    for second in (2 * LINGER_S, client.options.idle_timeout_s + LINGER_S + 1):
        client.shared.on_tick(NOW_S + second, 0)
    assert client.transport.is_closed or client.transport.is_shut
    return statuses


def fuzz_in_process(count: int, seed: int, progress: Callable[[int], object] = lambda _: None) -> Tally:
    """Send so many damaged requests to one worker's application.

    Raises:
        AssertionError: with the bytes that broke something.
    """
    mutator = Mutator(seed, documents("plain", {"user_id": "u1"}, "w"))
    chance = random.Random(seed)
    world = ApplicationWorld()
    tally = Tally()

    async def whole() -> None:
        while tally.requests < count:
            is_well_formed = chance.random() >= BYTES_SHARE
            raw = mutator.well_formed() if is_well_formed else mutator.raw()
            segments = [raw] if is_well_formed else mutator.segments(raw)
            try:
                statuses = await ask_in_process(world, segments, is_well_formed=is_well_formed)
            except BaseException as error:
                raise AssertionError(f"seed {seed}, request {tally.requests}: {error!r}\n{raw!r}") from error
            tally.requests += 1
            tally.statuses.update(statuses)
            if tally.requests % 1_000 == 0:
                assert world.ask("GET", "/healthz").status == 200
                progress(1_000)

    asyncio.run(whole())
    assert world.application.admission.limit == 10_000
    return tally


class _Socket:
    """One client of a running server."""

    def __init__(self, server: Server, seed: int) -> None:
        self._server = server
        self._mutator = Mutator(seed, documents("narrow", {"user_id": "user00000001"}, "perf"))
        self._chance = random.Random(seed)
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.tally = Tally()

    async def run(self, count: int, progress: Callable[[int], object]) -> None:
        """Send so many requests."""
        for _ in range(count):
            is_well_formed = self._chance.random() >= BYTES_SHARE
            raw = self._mutator.well_formed() if is_well_formed else self._mutator.raw()
            try:
                async with asyncio.timeout(HANGS_S):
                    statuses = await (self._ask(raw) if is_well_formed else self._throw(raw))
            except Exception as error:
                raise AssertionError(f"{error!r}\n{raw!r}") from error
            assert set(statuses) <= EXPECTED, (statuses, raw)
            self.tally.requests += 1
            self.tally.statuses.update(statuses)
            progress(1)
        if self._ends is not None:
            self._ends[1].transport.abort()

    async def _ask(self, raw: bytes) -> list[int]:
        """Send a well-formed request over the kept connection, and read its one answer."""
        if self._ends is None:
            self._ends = await asyncio.open_connection(self._server.host, self._server.port)
        reader, writer = self._ends
        writer.write(raw)
        head = await reader.readuntil(b"\r\n\r\n")
        found = LENGTH.search(head)
        assert found is not None, head
        await reader.readexactly(int(found[1]))
        if b"\r\nConnection: close\r\n" in head:
            assert await reader.read() == b""
            writer.transport.abort()
            self._ends = None
        return statuses_of(head)

    async def _throw(self, raw: bytes) -> list[int]:
        """Send bytes over a connection of their own, end it, and read until the server has ended it too."""
        reader, writer = await asyncio.open_connection(self._server.host, self._server.port)
        received = b""
        try:
            writer.write(raw)
            writer.write_eof()
            while data := await reader.read(1 << 16):
                received += data
        except ConnectionError:
            pass  # a server may cut off who sends on after an error
        finally:
            writer.transport.abort()
        return [status for status in statuses_of(received) if status != 100]


def fuzz_over_sockets(count: int, seed: int, progress: Callable[[int], object] = lambda _: None) -> Tally:
    """Send so many damaged requests to a server with two workers and a local store.

    Raises:
        AssertionError: an answer was missing, none of those expected, a worker died or wrote a traceback.
    """
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        url = f"local:{folder}/store?sync=off"
        with_store(url, _apply)
        with serving_features(REPO, url, "--workers", "2") as server:
            before = sorted(server.workers())

            async def whole() -> None:
                clients = [_Socket(server, seed * 1_000 + number) for number in range(SOCKETS)]
                await asyncio.gather(*[client.run(count // SOCKETS, progress) for client in clients])
                for client in clients:
                    tally.add(client.tally)

            asyncio.run(whole())
            assert sorted(server.workers()) == before, "a worker died"
            assert server.stop() == 0
            assert "Traceback" not in server.said, server.said[:4_000]
    return tally


async def _apply(store: Any) -> None:
    await execute(await plan_apply(load_repo(REPO), store), store)


def _in_process_job(job: tuple[int, int]) -> Tally:
    return fuzz_in_process(*job)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.fuzzing", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000, help="in process")
    parser.add_argument("--sockets", type=int, default=100_000, help="over sockets, after that")
    parser.add_argument("--jobs", type=int, default=1, help="processes for the first part")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began_s = time.monotonic()
    total = Tally()
    parts = max(options.jobs, options.requests // 50_000)
    jobs = [(options.requests // parts, options.seed * 10_000 + part) for part in range(parts)]
    pool = multiprocessing.get_context("spawn").Pool(options.jobs)
    with pool, tqdm(total=options.requests, desc="in process", unit="req") as bar:
        for tally in pool.imap_unordered(_in_process_job, jobs):
            total.add(tally)
            bar.update(tally.requests)
    print(f"in process: {total.requests:,} requests, {dict(sorted(total.statuses.items()))}")
    if options.sockets:
        with tqdm(total=options.sockets, desc="over sockets", unit="req") as bar:
            tally = fuzz_over_sockets(options.sockets, options.seed, bar.update)
        print(f"over sockets: {tally.requests:,} requests, {dict(sorted(tally.statuses.items()))}")
    print(f"{time.monotonic() - began_s:.0f} s; nothing broke")


if __name__ == "__main__":
    main()
