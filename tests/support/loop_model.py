"""A worker's event loop in made-up time: what `Admission` does to goodput and refusals, whatever the machine.

Each turn it reads what has come since the last one began, refuses or admits, then answers what the store
has brought, for `LONG_TURN_S` at most as while requests are shed, and takes as long as all of that costs.
Refusals leave as they are written; answers leave when the turn ends, as if all were written last.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from fastserve.serving.admission import CALM_EVERY_S, Admission
from fastserve.serving.ready import LONG_TURN_S


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds of one request: taken in, answered, or refused; and how long the store takes.

    They are those of `perf` for 50 views of 100 features, where refusing costs about 15 us.
    """

    intake_s: float = 40e-6
    answer_s: float = 300e-6
    refuse_s: float = 15e-6
    turn_s: float = 30e-6
    store_s: float = 0.005

    @property
    def peak_per_s(self) -> float:
        return 1 / (self.intake_s + self.answer_s)


@dataclass
class Seen:
    """What clients saw."""

    answered_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)


class LoopModel:
    """One worker; requests come at a rate, or from clients that ask again when they are answered."""

    def __init__(self, admission: Admission, costs: Costs | None = None, seed: int = 1) -> None:
        self.admission = admission
        self.costs = costs or Costs()
        self._chance = Random(seed)
        self.now_s = 10.0
        self._in_flight = 0
        self._store: list[tuple[float, float]] = []  # when the rows come, and when the request came
        self._ready: deque[tuple[float, float]] = deque()  # those whose rows have come, the same
        self._due_s = self.now_s + CALM_EVERY_S
        self._busy_s = 0.0

    def run(self, duration_s: float, rate_per_s: float) -> Seen:
        """Let requests come for a while, at random moments; return what they saw."""
        seen = Seen()
        end_s = self.now_s + duration_s
        next_s = self.now_s + self._chance.expovariate(rate_per_s)
        while self.now_s < end_s:
            arrived = []
            while next_s <= self.now_s:
                arrived.append(next_s)
                next_s += self._chance.expovariate(rate_per_s)
            if not self._turn(arrived, seen):
                events = [next_s, self._due_s, *(when for when, _ in self._store[:1])]
                self.now_s = max(self.now_s, min(events))
        return seen

    def run_closed(self, duration_s: float, clients: int) -> Seen:
        """Let clients ask again as soon as they are answered or refused."""
        seen = Seen()
        end_s = self.now_s + duration_s
        asking = clients
        while self.now_s < end_s:
            before = len(seen.answered_s) + len(seen.refused_s)
            if not self._turn([self.now_s] * asking, seen):
                self.now_s = max(self.now_s, min([self._due_s, *(when for when, _ in self._store[:1])]))
            asking = len(seen.answered_s) + len(seen.refused_s) - before
        return seen

    def _turn(self, arrived: Sequence[float], seen: Seen) -> bool:
        """Do what there is to do; return whether there was anything."""
        start_s = self.now_s
        if start_s >= self._due_s:
            oldest_s = min([at_s for _, at_s in (*self._store, *self._ready)], default=None)
            late_s = start_s - self._due_s
            line_s = start_s - self._ready[0][0] if self._ready else 0.0
            delay_s = self.admission.on_sample(start_s, late_s, self._busy_s, line_s, oldest_s)
            self._due_s = start_s + delay_s
            self._busy_s = 0.0
        costs = self.costs
        cost_s = costs.turn_s
        for at_s in arrived:
            if (
                self._in_flight >= self.admission.limit
                and self.admission.refusal(self._in_flight, is_batch=False) is not None
            ):
                cost_s += costs.refuse_s
                seen.refused_s.append(start_s + cost_s - at_s)
                continue
            self._in_flight += 1
            cost_s += costs.intake_s
            heapq.heappush(self._store, (start_s + costs.store_s * self._chance.uniform(0.7, 1.6), at_s))
        while self._store and self._store[0][0] <= start_s:
            self._ready.append(heapq.heappop(self._store))
        answered = []
        until_s = cost_s + LONG_TURN_S
        while self._ready and cost_s < until_s:
            answered.append(self._ready.popleft()[1])
            self._in_flight -= 1
            cost_s += costs.answer_s
        self.now_s += cost_s
        self._busy_s += cost_s
        seen.answered_s += [self.now_s - at_s for at_s in answered]
        return bool(arrived or answered)
