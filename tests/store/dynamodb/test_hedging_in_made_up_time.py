"""What hedged reads do to the tail, in made-up time: the machine that this runs on has no part in it.

The hedger and its law are the real ones; loop, connections and store are played. Timers go off at whole
milliseconds, as uvloop's do. Calls take 4 ms, hardly any more than 8, and one in a hundred ten times as long.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil
from random import Random
from typing import Any

from fastserve.store.dynamodb.call import Try
from fastserve.store.dynamodb.connection import Call
from fastserve.store.dynamodb.hedging import Hedger
from fastserve.wire.client_http import Answer
from fastserve.wire.hedging import HedgeLaw
from perf.load.latency_law import LatencyLaw

CALM_MS = {0.01: 2.5, 50.0: 4.0, 95.0: 5.0, 99.99: 8.0}
LANES = 24
LEARNED = 4_000
READS = 20_000
OK = Answer(200, b"", b"", b"", keep_alive=True)


class Handle:
    def __init__(self, work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.work, self.arguments = work, arguments
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class MadeUpLoop:
    """The part of an event loop that the hedger uses."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, Handle]] = []
        self._number = itertools.count()

    def time(self) -> float:
        return self.now_s

    def call_exactly(self, delay_s: float, work: Callable[..., object], *arguments: Any) -> Handle:
        handle = Handle(work, arguments)
        heapq.heappush(self._due, (self.now_s + delay_s, next(self._number), handle))
        return handle

    def call_later(self, delay_s: float, work: Callable[..., object], *arguments: Any) -> Handle:
        return self.call_exactly(ceil(delay_s * 1_000) / 1_000, work, *arguments)

    def call_soon(self, work: Callable[..., object], *arguments: Any) -> Handle:
        return self.call_exactly(0.0, work, *arguments)

    def run(self) -> None:
        while self._due:
            self.now_s, _, handle = heapq.heappop(self._due)
            if not handle.is_cancelled:
                handle.work(*handle.arguments)


@dataclass(eq=False)
class Line:
    """A connection."""

    call: Call | None = None
    sent_s: float = 0.0


@dataclass
class Store:
    """The pool and the service behind it."""

    loop: MadeUpLoop
    chance: Random
    slow_share: float = 0.01
    slow_by_s: float = 0.036
    factor: float = 1.0
    connections: list[Line] = field(default_factory=lambda: [Line() for _ in range(32)])
    answered: int = 0
    calls: int = 0
    is_watched: bool = True
    hedger: Hedger | None = None

    def __post_init__(self) -> None:
        self._law = LatencyLaw(CALM_MS, seed=3)

    @property
    def has_room(self) -> bool:
        return any(line.call is None for line in self.connections)

    def request(self, call: Call) -> None:
        line = next(line for line in self.connections if line.call is None)
        line.call, line.sent_s = call, self.loop.time()
        self.calls += 1
        took_s = self._law.draw_s() * self.factor
        if self.chance.random() < self.slow_share:
            took_s += self.slow_by_s
        self.loop.call_exactly(took_s, self._answer, line)

    def _answer(self, line: Line) -> None:
        call, line.call = line.call, None
        self.answered += 1
        assert call is not None
        call.on_answer(OK)


class Read(Try):
    """A read whose answer is taken as it is."""

    __slots__ = ("_done",)

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self.payload = b""
        self.timeout_s = self.deadline_s = 5.0
        self.resent = False

    @property
    def is_read(self) -> bool:
        return True

    def on_answer(self, answer: object) -> None:
        self._done()


def latencies_s(*, is_hedged: bool, seed: int = 1, factor_after: float = 1.0) -> tuple[list[float], Store]:
    """Make reads, so many at a time; return how long they took, and the store with its count of calls."""
    loop = MadeUpLoop()
    store = Store(loop, Random(seed))
    if is_hedged:
        store.hedger = Hedger(store, HedgeLaw(0.005), loop)  # type: ignore[arg-type]
        store.hedger.watch()
    taken: list[float] = []
    left = LEARNED + READS

    def begin() -> None:
        nonlocal left
        if not left:
            store.is_watched = False
            return
        left -= 1
        if left == READS:
            store.factor = factor_after
        began_s = loop.time()

        def done() -> None:
            taken.append(loop.time() - began_s)
            begin()

        store.request(Read(done))

    for _ in range(LANES):
        begin()
    loop.run()
    return taken[LEARNED:], store


def quantile(taken: list[float], share: float) -> float:
    return sorted(taken)[int(len(taken) * share)]


def test_the_last_thousandth_takes_less_than_half_for_three_calls_more_in_a_hundred() -> None:
    plain, _ = latencies_s(is_hedged=False)
    hedged, store = latencies_s(is_hedged=True)
    ratio = quantile(hedged, 0.999) / quantile(plain, 0.999)
    assert ratio < 0.5, ratio
    assert store.calls <= 1.03 * (LEARNED + READS)
    more = store.calls / (LEARNED + READS) - 1
    both_ms = [round(1e3 * quantile(taken, 0.999), 1) for taken in (plain, hedged)]
    print(f"p99.9 {both_ms} ms, {more:.2%} more calls")


def test_no_copies_go_out_while_all_calls_are_slow() -> None:
    _, store = latencies_s(is_hedged=True, factor_after=10.0)
    assert store.hedger is not None
    assert store.hedger.law.all_slow
    assert store.calls <= 1.008 * (LEARNED + READS)
