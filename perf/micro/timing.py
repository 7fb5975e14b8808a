"""CPU time of one small function: the least of several rounds, what a busy machine disturbs least."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time_ns

ROUNDS = 9
ROUND_NS = 20_000_000


def least_us(function: Callable[[], object]) -> float:
    """Return the CPU microseconds that a call of ``function`` takes at least."""
    function()
    start = process_time_ns()
    function()
    calls = max(1, ROUND_NS // max(1, process_time_ns() - start))
    best = float("inf")
    for _ in range(ROUNDS):
        start = process_time_ns()
        for _ in range(calls):
            function()
        best = min(best, (process_time_ns() - start) / calls)
    return best / 1000


def show(what: str, function: Callable[[], object], per: int = 1, unit: str = "us") -> None:
    """Print what a call takes, divided by ``per``."""
    figure = least_us(function) / per * (1000 if unit.startswith("ns") else 1)
    print(f"{what:58} {figure:9.2f} {unit}")
