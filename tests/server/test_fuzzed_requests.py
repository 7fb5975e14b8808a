"""Requests that were damaged in every way: each is answered in order or refused, and nothing breaks.

The whole way from bytes to answer, without a socket, one worker for all. For longer, with that many examples:
`FUZZ_EXAMPLES=1000000 pytest tests/server/test_fuzzed_requests.py`.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastserve.server.protocol import LINGER_S
from tests.server.application_world import V1, V2, ApplicationWorld
from tests.support.http_connection import NOW_S, Client

CORPUS = Path(__file__).parents[1] / "golden" / "requests"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
# Of 5xx only what tells a client that its method or version is none of ours.
EXPECTED = frozenset({200, 400, 404, 405, 408, 413, 414, 417, 431, 501, 505})
LONG_BYTES = 2000
HANGS_S = 30.0
STATUS_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z' -]+\r\n")
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


def request(target: str, body: bytes, *fields: bytes) -> bytes:
    head = [f"POST {target} HTTP/1.1".encode(), b"Host: a", *fields, b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*head, b"", body])


def ours() -> list[bytes]:
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
    corpus = [path.read_bytes() for path in sorted(CORPUS.glob("*/*.http"))]
    return [*ours() * 8, *(raw for raw in corpus if len(raw) < LONG_BYTES)]


@cache
def worker() -> ApplicationWorld:
    return ApplicationWorld()


@cache
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@pytest.fixture(scope="module", autouse=True)
def _loop_is_closed() -> Iterator[None]:
    yield
    loop().close()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a few requests in a row, and bytes of them replaced, taken away, doubled, moved."""
    raw = bytearray(b"".join(draw(st.lists(st.sampled_from(seeds()), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(raw)))
        size = draw(st.integers(0, 40))
        match draw(st.integers(0, 4)):
            case 0:
                raw[at:at] = draw(st.sampled_from(TOKENS))
            case 1:
                raw[at : at + size] = b""
            case 2:
                raw[at:at] = raw[at : at + size] * draw(st.integers(1, 30))
            case 3:
                raw[at : at + size] = draw(st.binary(max_size=12))
            case _:
                raw[at:at] = raw[draw(st.integers(0, len(raw))) :][: size * 4]
    return bytes(raw)


def statuses_of(received: bytes) -> list[int]:
    """Return the statuses of all answers by their lines: to HEAD no body is sent."""
    return [int(status) for status in STATUS_LINE.findall(received)]


async def converse(world: ApplicationWorld, client: Client, raw: bytes, size: int) -> None:
    """Send what there is, in segments, and let the store answer until no more is asked of it."""
    for at in range(0, len(raw), size):
        client.send(raw[at : at + size])
        world.turn()
    while True:
        asked = len(client.exchanges)
        world.store.answer()
        world.turn()
        await asyncio.sleep(0)  # a pipeline that was full reads on in the loop's next turn
        if len(client.exchanges) == asked and all(exchange.is_answered for exchange in client.exchanges):
            break
    client.protocol.eof_received()


@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(damaged(), st.integers(1, 400))
def test_damaged_requests_are_answered_or_refused_and_never_break_anything(raw: bytes, size: int) -> None:
    world = worker()
    client = Client(world.application)
    loop().run_until_complete(asyncio.wait_for(converse(world, client, raw, size), HANGS_S))
    statuses = [status for status in statuses_of(client.received) if status != 100]
    assert set(statuses) <= EXPECTED, client.received
    # One answer for each request that came in whole, and at most one more, for what was none.
    assert all(exchange.is_answered for exchange in client.exchanges)
    assert len(statuses) - len(client.exchanges) >= 0
    assert world.application.admission.limit == 10_000
    for second in (2 * LINGER_S, client.options.idle_timeout_s + LINGER_S + 1):
        client.shared.on_tick(NOW_S + second, 0)
    assert client.transport.is_closed or client.transport.is_shut
    assert world.ask("GET", "/healthz").status == 200
