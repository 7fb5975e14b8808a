"""What never ends, in each place of a message that has no end of its own: refused at the limit, for little.

64 MiB come in the pieces that a network makes of them, or byte by byte. `tests/process/test_slow_clients.py`
looks at the process that this is done to.
"""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from itertools import chain, cycle, islice
from time import process_time
from typing import NamedTuple

import pytest

from fastserve.server.options import ServerOptions
from fastserve.server.protocol import LINGER_READS
from fastserve.wire.http1 import HttpLimits
from tests.support.http_connection import NOW_S, Client, echoing

FLOOD_BYTES = 64 * 1024 * 1024
SEGMENT_BYTES = 1460
# The goal is 50 ms and 1 MiB on a machine of its own; this one has other tenants.
CPU_S = 0.05
MEMORY_BYTES = 1024 * 1024
OPTIONS = ServerOptions(limits=HttpLimits(body_bytes=100_000))
HEAD = b"POST /p HTTP/1.1\r\nHost: a.example\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


class Flood(NamedTuple):
    """What comes first, what follows for ever, and what the server says to it."""

    start: bytes
    endless: bytes
    status: int


FLOODS = {
    "empty_lines": Flood(b"", b"\r\n", 400),
    "method": Flood(b"", b"A", 414),
    "target": Flood(b"GET /", b"a", 414),
    "field_name": Flood(HEAD, b"a", 431),
    "field_value": Flood(HEAD + b"X: ", b"a", 431),
    "fields": Flood(HEAD, b"X: a\r\n", 431),
    "empty_fields": Flood(HEAD, b"a:\r\n", 431),
    "white_space": Flood(HEAD + b"X:", b" ", 431),
    "chunk_size": Flood(CHUNKED, b"0", 400),
    "chunk_extension": Flood(CHUNKED + b"5;", b"a", 400),
    "chunk_extensions": Flood(CHUNKED, b"1;a=b\r\nx\r\n", 400),
    "chunks_of_one_byte": Flood(CHUNKED, b"1\r\nx\r\n", 400),
    "trailer": Flood(CHUNKED + b"0\r\nX: ", b"a", 431),
    "trailers": Flood(CHUNKED + b"0\r\n", b"X: a\r\n", 431),
    "body": Flood(HEAD + b"Content-Length: 67108864\r\n\r\n", b"x", 413),
    "chunks": Flood(CHUNKED, b"400\r\n" + bytes(1024) + b"\r\n", 413),
}


def segments(flood: Flood, size: int) -> Iterator[bytes]:
    """Cut the flood up; its pieces are made beforehand, so that they cost the measurement nothing."""
    unit = flood.endless * max(1, 256 * 1024 // len(flood.endless))
    stream = [unit[at : at + size] for at in range(0, len(unit), size)]
    return chain([flood.start], islice(cycle(stream), FLOOD_BYTES // size))


def drip(client: Client, flood: Flood, size: int) -> int:
    """Send as long as it is read; return how many bytes were."""
    sent = 0
    for segment in segments(flood, size):
        if not client.transport.reads or client.transport.is_closed:
            break
        client.protocol.data_received(segment)
        sent += len(segment)
    return sent


@pytest.mark.parametrize("size", [1, SEGMENT_BYTES, 256 * 1024])
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_refused_at_its_limit(name: str, size: int) -> None:
    flood = FLOODS[name]
    client = echoing(OPTIONS)
    drip(client, flood, size)
    (answer,) = client.answers()
    assert (answer.status, answer.headers["connection"]) == (flood.status, "close")
    assert json.loads(answer.body)["code"]
    assert client.exchanges == []
    assert client.transport.is_shut


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_costs_little_time_and_memory(name: str) -> None:
    flood = FLOODS[name]
    taken_s = []
    for _ in range(3):  # the least: what others do to the machine is no cost of ours
        client = echoing(OPTIONS)
        start_s = process_time()
        drip(client, flood, SEGMENT_BYTES)
        taken_s.append(process_time() - start_s)
    assert min(taken_s) < CPU_S
    tracemalloc.start()
    try:
        client = echoing(OPTIONS)
        drip(client, flood, SEGMENT_BYTES)
        assert tracemalloc.get_traced_memory()[1] < MEMORY_BYTES
    finally:
        tracemalloc.stop()


def test_what_comes_after_the_refusal_is_read_in_few_pieces() -> None:
    client = echoing()
    client.send(b"BREW / HTTP/1.1\r\n\r\n")
    for second in (0.5, 1.0, 1.5):
        for _ in range(LINGER_READS):
            assert client.transport.reads
            client.send(b"x")
        assert not client.transport.reads
        client.shared.on_tick(NOW_S + second, 0)
    assert client.transport.reads
    assert not client.transport.is_aborted
