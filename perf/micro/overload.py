"""What a worker answers when more is asked than it can do, on the clock of its own CPU.

`perf.overload` asks a real server; on a machine where other processes have the CPUs it shows those. Here the
whole way from bytes to answer runs without sockets, and time passes as this thread's CPU does: a turn takes
what its work takes, a refusal leaves as soon as it is written, answers when the turn ends, and the store
answers after `STORE_S`. What sockets would cost is added per request. Turns never give way here: all that is
ready is evaluated in its turn.

Run as `python -m perf.micro.overload [--service fs_50x100] [--rounds 6]`.
"""

from __future__ import annotations

import argparse
import heapq
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from time import thread_time
from unittest.mock import patch

from fastserve.serving.admission import CALM_EVERY_S
from fastserve.serving.coalescer import KeyRead
from perf.data import SHAPES
from perf.micro.request import Bench, FakeTransport

STORE_S = 0.005
# One read and one write of a connection, as `fastserve.server.protocol` found them, and the loop's own turn.
SOCKET_S = 6.5e-6
TURN_S = 20e-6
CONNECTIONS = 2048
PEAK_CLIENTS = 64  # half of them wait for the store
BEGIN_S = 1.2
END_S = 1.6
GOODPUT = 0.9
REFUSED_S = 0.005


@dataclass
class Phase:
    """What clients saw for a while."""

    seconds: float
    answered_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    errors: int = 0

    @property
    def goodput(self) -> float:
        """Answers per second."""
        return len(self.answered_s) / self.seconds

    def add(self, other: Phase) -> None:
        """Take in what was seen at another time."""
        self.seconds += other.seconds
        self.answered_s += other.answered_s
        self.refused_s += other.refused_s
        self.errors += other.errors

    def row(self, name: str) -> str:
        """Return the phase as a line of a table."""
        ok, no = self.answered_s, self.refused_s
        return (
            f"| {name} | {self.goodput:.0f} | {len(no) / self.seconds:.0f} | {self.errors} "
            f"| {percentile_ms(ok, 0.5):.1f}, {percentile_ms(ok, 0.99):.1f} "
            f"| {percentile_ms(no, 0.5):.1f}, {percentile_ms(no, 0.99):.1f} |"
        )


def percentile_ms(times_s: Sequence[float], share: float) -> float:
    """Return a percentile; 0 of nothing."""
    return sorted(times_s)[int(len(times_s) * share)] * 1000 if times_s else 0.0


class Worker:
    """A worker's hot path, its clients, its loop and its store in the time of its CPU."""

    def __init__(self, service: str) -> None:
        self.bench = Bench(service, CONNECTIONS)
        self.admission = self.bench.application.admission
        self._ready = self.bench.application.engine.ready
        self.now_s = 10.0
        self._chance = Random(1)
        self._free = list(range(CONNECTIONS))
        self._asked: dict[int, float] = {}
        self._due_s = self.now_s + CALM_EVERY_S
        self._busy_s = 0.0
        self._calls: list[tuple[float, int, bytes, Sequence[KeyRead]]] = []
        self._call_number = 0

    def run(self, seconds: float, rate_per_s: float) -> Phase:
        """Let requests come at random moments, whatever becomes of them."""
        phase = Phase(seconds)
        end_s = self.now_s + seconds
        next_s = self.now_s + self._chance.expovariate(rate_per_s)
        while self.now_s < end_s:
            arrived: list[float] = []
            while next_s <= self.now_s and len(arrived) < len(self._free):
                arrived.append(next_s)
                next_s += self._chance.expovariate(rate_per_s)
            if not self._turn(arrived, phase):
                self._sleep(next_s)
        return phase

    def run_closed(self, seconds: float, clients: int) -> Phase:
        """Let clients ask again as soon as they are answered."""
        phase = Phase(seconds)
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            if not self._turn([self.now_s] * (clients - len(self._asked)), phase):
                self._sleep(end_s)
        while self._asked:
            if not self._turn([], Phase(1)):
                self._sleep(end_s + 10)
        return phase

    def _sleep(self, until_s: float) -> None:
        self.now_s = max(self.now_s, min([until_s, self._due_s, *(call[0] for call in self._calls[:1])]))

    def _turn(self, arrived: Sequence[float], phase: Phase) -> bool:
        bench, now_s = self.bench, self.now_s
        start_s = thread_time()
        if now_s >= self._due_s:
            oldest_s = min(self._asked.values(), default=None)
            late_s = now_s - self._due_s
            self._due_s = now_s + self.admission.on_sample(now_s, late_s, self._busy_s, 0.0, oldest_s)
            self._ready.reads_first = self.admission.is_shedding
            self._busy_s = 0.0
        refused = 0
        for count, at_s in enumerate(arrived, 1):
            number = self._free.pop()
            self._asked[number] = at_s
            bench.protocols[number].data_received(bench.requests[number])
            if bench.transports[number].last:
                self._take(number, phase, now_s + thread_time() - start_s + SOCKET_S * count)
                refused += 1
        had_work = bool(arrived)
        while self._calls and self._calls[0][0] <= now_s:
            _, _, answer, reads = heapq.heappop(self._calls)
            bench.reader.settle(answer, reads)
            had_work = True
        flushes = bench.take_flushes()
        had_work |= bool(flushes)
        for flush in flushes:
            flush()
        cost_s = thread_time() - start_s - bench.reader.take_canning_s() + TURN_S
        answers = [number for number in self._asked if bench.transports[number].last]
        cost_s += SOCKET_S * (len(arrived) + refused + len(answers)) / 2
        self._busy_s += cost_s
        self.now_s += cost_s
        for answer, reads in bench.reader.take_waiting():
            self._call_number += 1
            due_s = self.now_s + STORE_S * self._chance.uniform(0.7, 1.6)
            heapq.heappush(self._calls, (due_s, self._call_number, answer, reads))
        for number in answers:
            self._take(number, phase, self.now_s)
        return had_work

    def _take(self, number: int, phase: Phase, left_s: float) -> None:
        transport: FakeTransport = self.bench.transports[number]
        took_s = left_s - self._asked.pop(number)
        if transport.last.startswith(b"HTTP/1.1 200"):
            phase.answered_s.append(took_s)
        elif transport.last.startswith((b"HTTP/1.1 429", b"HTTP/1.1 503")):
            phase.refused_s.append(took_s)
        else:
            phase.errors += 1
        transport.last = b""
        self._free.append(number)


def run_round(worker: Worker, phases: dict[str, Phase]) -> None:
    """Add a while of each load to what was seen of it."""
    peak = worker.run_closed(0.5, PEAK_CLIENTS)
    phases["peak"].add(peak)
    phases["0.8 x"].add(worker.run(0.3, 0.8 * peak.goodput))
    worker.run(BEGIN_S, 2 * peak.goodput)
    phases["2 x"].add(worker.run(1.0, 2 * peak.goodput))
    phases["3 x"].add(worker.run(0.5, 3 * peak.goodput))
    worker.run(END_S, 0.5 * peak.goodput)
    phases["0.8 x after"].add(worker.run(0.3, 0.8 * peak.goodput))


def main() -> int:
    """Print the phases; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m perf.micro.overload", description=__doc__)
    parser.add_argument("--service", choices=list(SHAPES), default="fs_50x100")
    parser.add_argument("--rounds", type=int, default=6, help="each some seconds of this thread's CPU")
    options = parser.parse_args()
    worker = Worker(options.service)
    phases = {name: Phase(0) for name in ("peak", "0.8 x", "2 x", "3 x", "0.8 x after")}
    with patch("fastserve.server.protocol.monotonic", lambda: worker.now_s):
        worker.run_closed(0.5, PEAK_CLIENTS)
        for _ in range(options.rounds):  # by turns, since the CPU's speed is others' business too
            run_round(worker, phases)
    print("| load | goodput/s | refused/s | errors | p50, p99 ms | refused p50, p99 ms |")
    print("|---|---|---|---|---|---|")
    for name, phase in phases.items():
        print(phase.row(name))
    share = phases["2 x"].goodput / phases["peak"].goodput
    print(f"goodput at twice the peak: {share:.0%} of it")
    is_good = share >= GOODPUT and percentile_ms(phases["2 x"].refused_s, 0.99) <= REFUSED_S * 1000
    return 0 if is_good and not phases["0.8 x after"].refused_s else 1


if __name__ == "__main__":
    sys.exit(main())
