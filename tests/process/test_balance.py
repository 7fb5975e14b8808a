"""Connections spread evenly over workers that share one listener, and don't wait for it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.server_process import Connection, Server, serving

CONNECTIONS = 64
PID = b"GET /pid HTTP/1.1\r\nHost: a\r\n\r\n"


@contextmanager
def one_worker_busy(server: Server, turn_ms: int) -> Iterator[None]:
    """Keep one worker in turns of its loop that long, one after another."""
    connection = server.connect()
    done = threading.Event()

    def keep_asking() -> None:
        while not done.is_set():
            connection.ask(f"/busy?{turn_ms}")

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def open_all(server: Server) -> tuple[list[int], float]:
    """Open the connections at once; return how many each worker has, least first, and the longest wait."""
    started_s = time.monotonic()
    connections: list[Connection] = []
    for _ in range(CONNECTIONS):
        connections.append(server.connect())
        connections[-1].send(PID)
    workers = Counter(connection.read().body for connection in connections)
    longest_s = time.monotonic() - started_s
    counts = sorted(workers.values())
    return [0] * (len(server.workers()) - len(counts)) + counts, longest_s


def open_one_by_one(server: Server) -> tuple[list[int], float]:
    """Open one connection after the other; return the same."""
    workers: Counter[bytes] = Counter()
    longest_s = 0.0
    for _ in range(CONNECTIONS):
        started_s = time.monotonic()
        workers[server.connect().ask("/pid").body] += 1
        longest_s = max(longest_s, time.monotonic() - started_s)
    counts = sorted(workers.values())
    return [0] * (len(server.workers()) - len(counts)) + counts, longest_s


@pytest.mark.parametrize("opening", [open_all, open_one_by_one])
@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("turn_ms", [0, 3])
def test_the_least_loaded_worker_has_at_least_half_of_the_most_loaded(
    opening: Callable[[Server], tuple[list[int], float]], workers: int, turn_ms: int
) -> None:
    with serving(workers=workers) as server:
        if turn_ms:
            with one_worker_busy(server, turn_ms):
                counts, longest_s = opening(server)
        else:
            counts, longest_s = opening(server)
    assert sum(counts) == CONNECTIONS
    assert counts[0] * 2 >= counts[-1], counts
    assert longest_s < 0.5  # tens of milliseconds; the rest is for the machine's other tenants


def test_connections_are_taken_while_all_other_workers_are_stuck() -> None:
    with serving(workers=2, heartbeat_timeout_s=60) as server:
        server.connect().send(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
        server.wait_for("hanging")
        counts, longest_s = open_all(server)
    assert counts == [0, CONNECTIONS]
    assert longest_s < 1


def test_connections_spread_again_after_some_have_closed() -> None:
    with serving(workers=2) as server:
        first: dict[bytes, list[Connection]] = {}
        for _ in range(32):
            connection = server.connect()
            first.setdefault(connection.ask("/pid").body, []).append(connection)
        left, stayed = first
        for connection in first[left]:
            connection.close()
        counts: Counter[bytes] = Counter({stayed: len(first[stayed])})
        for _ in range(32):
            counts[server.connect().ask("/pid").body] += 1
    assert min(counts.values()) * 2 >= max(counts.values()), counts
