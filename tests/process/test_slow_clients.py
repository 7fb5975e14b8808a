"""Clients that send or read slowly, without end or too much: what a real server does, and what they cost it.

With `-s` the costs are printed.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.server.test_floods import FLOODS, SEGMENT_BYTES, segments
from tests.support.server_process import Connection, Server, eventually, serving

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# The goals are 50 ms and 1 MiB. A machine whose caches others fill needs more for the same.
CPU_S = 0.1
RSS_BYTES = 1024 * 1024
PLACES = ["field_value", "trailer", "chunk_extension", "empty_lines"]
STARTS = [
    b"GET /echo HT",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nX: ",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
]


@dataclass
class Cost:
    cpu_s: float
    rss_bytes: int

    def __sub__(self, before: Cost) -> Cost:
        return Cost(self.cpu_s - before.cpu_s, self.rss_bytes - before.rss_bytes)


def cost(pid: int) -> Cost:
    """Return what a process has taken so far, to the nanosecond, as the scheduler counts it."""
    cpu_ns = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    return Cost(cpu_ns / 1e9, int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES)


def send_all(connection: Connection, pieces: Iterator[bytes]) -> None:
    """Send until all is sent or the server has had enough."""
    connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with suppress(OSError):
        for piece in pieces:
            connection.send(piece)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(header_timeout_s=1.0, write_timeout_s=1.0, body_rate_bytes_per_s=1_000_000) as running:
        yield running


def test_64_mib_without_an_end_are_refused_at_the_limit_and_cost_little(server: Server) -> None:
    (worker,) = server.workers()
    server.connect().ask("/echo", b"warm")
    before = cost(worker)
    senders = []
    connections = {place: server.connect() for place in PLACES}
    for place, connection in connections.items():
        pieces = segments(FLOODS[place], SEGMENT_BYTES)
        senders.append(threading.Thread(target=send_all, args=(connection, pieces)))
        senders[-1].start()
    for place, connection in connections.items():
        assert connection.read().status == FLOODS[place].status
    for sender in senders:
        sender.join()
    taken = cost(worker) - before
    assert server.connect().ask("/echo", b"after").body == b"after"
    each_ms, each_kib = taken.cpu_s / len(PLACES) * 1000, taken.rss_bytes / len(PLACES) / 1024
    print(f"of each 64 MiB: {each_ms:.1f} ms CPU, {each_kib:.0f} KiB RSS")
    assert taken.cpu_s < CPU_S * len(PLACES)
    assert taken.rss_bytes < RSS_BYTES * len(PLACES)


def test_clients_that_stop_in_a_request_are_told_so_and_disturb_nobody(server: Server) -> None:
    slow = [server.connect() for _ in range(200)]
    for connection, start in zip(slow, STARTS * 40, strict=True):
        connection.send(start)
    assert server.connect().ask("/echo", b"meanwhile").body == b"meanwhile"
    for connection in slow:
        statuses = [connection.read().status]
        if statuses == [100]:
            statuses.append(connection.read().status)
        assert statuses[-1] == 408
        assert connection.is_closed_by_server()


def test_a_client_that_reads_nothing_is_cut_and_holds_no_more_than_it_may(server: Server) -> None:
    (worker,) = server.workers()
    body = bytes(1_000_000)
    request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    before = cost(worker)
    connection = server.connect()
    is_cut = threading.Event()

    def send() -> None:
        send_all(connection, iter([request] * 200))
        is_cut.set()

    sender = threading.Thread(target=send)
    sender.start()
    assert server.connect().ask("/echo", b"meanwhile").body == b"meanwhile"
    eventually(is_cut.is_set)
    sender.join()
    # Two bodies and their answers, and what one segment held: not the two hundred that were sent.
    assert (cost(worker) - before).rss_bytes < 20_000_000


def test_a_flood_of_pipelined_requests_is_read_as_fast_as_it_is_answered(server: Server) -> None:
    (worker,) = server.workers()
    before = cost(worker)
    connection = server.connect()
    count = 20_000
    requests = b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n" * count
    sender = threading.Thread(target=send_all, args=(connection, iter([requests])))
    sender.start()
    answers = b""
    while answers.count(b"HTTP/1.1 200 OK\r\n") < count:
        answers += connection.socket.recv(1 << 20)
    sender.join()
    assert (cost(worker) - before).rss_bytes < 8_000_000
