"""When a worker has served enough."""

from __future__ import annotations

import os

from fastserve.server.options import ServerOptions
from fastserve.server.recycling import MIB, Limits, draw_limits, rss_bytes


def test_without_limits_no_worker_is_replaced() -> None:
    limits = draw_limits(ServerOptions())
    assert limits == Limits(None, None)
    assert limits.reason(10**12, os.getpid()) == ""


def test_limits_of_requests_differ_and_stay_within_a_tenth_below() -> None:
    drawn = {draw_limits(ServerOptions(max_requests=1000)).requests for _ in range(200)}
    assert len(drawn) > 20
    assert all(requests is not None and 900 <= requests <= 1000 for requests in drawn)
    assert draw_limits(ServerOptions(max_requests=1)).requests == 1


def test_a_worker_is_replaced_from_its_limit_on() -> None:
    limits = Limits(100, None)
    assert limits.reason(99, 1) == ""
    assert limits.reason(100, 1) == "it has answered 100 requests"


def test_memory_is_what_the_system_says_of_the_process() -> None:
    held_bytes = rss_bytes(os.getpid())
    assert 5 * MIB < held_bytes < 10_000 * MIB
    assert Limits(None, held_bytes // 2).reason(0, os.getpid()).startswith("it holds ")
    assert Limits(None, held_bytes * 2).reason(0, os.getpid()) == ""
    assert rss_bytes(2**22 + 1) == 0  # above what a pid can be
