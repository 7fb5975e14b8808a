"""Requests whose rows are there: evaluated at once, unless the loop's turn has been long already.

Evaluating is most of a request's work, and at once it costs least. But where much has come while the process
had no CPU, or was held up by one long piece of work, all of that would be worked off in one turn: refusals,
health checks and new requests would wait for the whole of it. So in a long turn requests wait for the next
ones, and the loop reads and writes between them (docs/decisions/0013-turns-that-give-way.md). It knows no
loop and no clock: they are arguments.

Invariants
1. Each request is handed on once, those of a service in the order in which they were added.
2. Nothing is evaluated before what waits.
3. One evaluation takes `AT_ONCE` lines at most, of what has waited `MAX_TOGETHER`, or one request of more
   lines, of which the engine puts off what is beyond the processor's cache: that is in no share. After it
   the clock is looked at.
4. An evaluation that fails keeps nobody behind it waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from fastserve.serving.requests import ServiceRuntime, VectorRequest

LONG_TURN_S = 0.004
"""So long requests are evaluated at once, counted from a turn's first evaluation; also each turn's share
where reading goes first. A turn of a loop that keeps up mostly takes less than 1 ms in all; while requests
are shed 1.7 ms are aimed at (`serving.admission.TURN_S`)."""
WAITING_SHARE_S = 0.002
"""So much of a turn goes to what has waited, and the rest to what comes."""
MAX_TOGETHER = 16
"""More at once cost no less for each. Of vectors of many features fewer are taken (`lines_at_once`): eleven
of 5,000 features, which take 1.5 ms."""
AT_ONCE = 64
"""So many vectors of a few features take half a millisecond; of many, fewer are taken for the
processor's cache."""

Evaluate = Callable[[ServiceRuntime, list[VectorRequest]], None]


class Turns:
    """The loop's turns: ``call_next`` calls a function once, after what has come in this turn was read.

    A function that such a call passes to it runs in the next turn. ``clock_s`` goes on during turns;
    ``cpu_s`` is the CPU that the loop has taken.
    """

    __slots__ = ("call_next", "clock_s", "cpu_s")

    def __init__(
        self,
        call_next: Callable[[Callable[[], None]], object],
        clock_s: Callable[[], float],
        cpu_s: Callable[[], float],
    ) -> None:
        self.call_next = call_next
        self.clock_s = clock_s
        self.cpu_s = cpu_s


class ReadyRequests:
    """Takes requests, and hands them on by services to ``evaluate``.

    It tells requests of their failures itself; what it raises all the same goes to the caller.
    """

    __slots__ = ("_evaluate", "_is_turn_begun", "_last", "_turns", "_until_s", "_waiting", "reads_first")

    def __init__(self, turns: Turns, evaluate: Evaluate) -> None:
        self._turns = turns
        self._evaluate = evaluate
        self._is_turn_begun = False  # something became ready in this turn while nothing waited
        self._until_s = 0.0
        self._waiting: deque[tuple[float, ServiceRuntime, list[VectorRequest]]] = deque()
        self._last: tuple[float, list[VectorRequest]] | None = None  # behind those, not yet by services
        self.reads_first = False
        """Evaluate at each turn's end, after what has come was read, so that refusals wait for no evaluation
        of their own turn. Only while requests are shed: calls to the store get smaller by it, which costs
        CPU."""

    def wait_s(self) -> float:
        """Return how long what is evaluated next has waited, not counting when the loop had no CPU."""
        if self._waiting:
            return self._turns.cpu_s() - self._waiting[0][0]
        return 0.0 if self._last is None else self._turns.cpu_s() - self._last[0]

    def add(self, requests: list[VectorRequest]) -> None:
        """Take requests, all of whose reads are settled."""
        if self._last is not None:
            self._last[1].extend(requests)
            return
        now_s = self._turns.clock_s()
        if not self._is_turn_begun and not self._waiting:
            self._is_turn_begun = True
            self._until_s = now_s if self.reads_first else now_s + LONG_TURN_S
            self._turns.call_next(self._on_turn_end)
        if now_s >= self._until_s or self._waiting:
            self._last = (self._turns.cpu_s(), [*requests])
            return
        if len(requests) == 1:  # nobody stands behind it
            self._evaluate(requests[0].runtime, requests)
            return
        self._line_up(0.0, requests, AT_ONCE)
        try:
            self._evaluate_waiting(self._until_s)
        finally:
            rest = [request for _, _, group in self._waiting for request in group]
            if rest:  # they wait from now on; what never waits needn't have the CPU's clock read
                self._waiting.clear()
                self._line_up(self._turns.cpu_s(), rest, MAX_TOGETHER)

    def _line_up(self, since_s: float, requests: list[VectorRequest], limit: int) -> None:
        """Let requests wait, in groups of ``limit`` lines at most."""
        for runtime, of_service in by_service(requests):
            most = min(runtime.lines_at_once, limit)
            self._waiting += [(since_s, runtime, group) for group in groups(of_service, most)]

    def _on_turn_end(self) -> None:
        """Evaluate what has waited since an earlier turn, for its share of this one."""
        was_begun, self._is_turn_begun = self._is_turn_begun, False
        try:
            if self.reads_first:
                self._evaluate_waiting(self._turns.clock_s() + LONG_TURN_S)
            elif not was_begun:
                self._evaluate_waiting(self._turns.clock_s() + WAITING_SHARE_S)
        finally:  # whatever fails, or nobody would call again, and all requests would wait for ever
            if self._waiting or self._last is not None:
                self._turns.call_next(self._on_turn_end)

    def _evaluate_waiting(self, until_s: float) -> None:
        """Evaluate one group at least."""
        while self._waiting or self._last is not None:
            if not self._waiting and self._last is not None:
                since_s, ready = self._last
                self._last = None
                self._line_up(since_s, ready, MAX_TOGETHER)
            _, runtime, group = self._waiting[0]
            try:
                self._evaluate(runtime, group)
            finally:
                # Not before: an answer may let a client's next request be taken, whose rows are there.
                self._waiting.popleft()
            if self._turns.clock_s() >= until_s:
                return


def by_service(requests: list[VectorRequest]) -> Iterator[tuple[ServiceRuntime, list[VectorRequest]]]:
    """Return the requests by service, in their order."""
    found: dict[ServiceRuntime, list[VectorRequest]] = {}
    for request in requests:
        if request.runtime in found:
            found[request.runtime].append(request)
        else:
            found[request.runtime] = [request]
    return iter(found.items())


def groups(requests: list[VectorRequest], limit: int) -> list[list[VectorRequest]]:
    """Return the requests in groups of ``limit`` lines at most; longer requests alone."""
    found: list[list[VectorRequest]] = []
    room = 0
    for request in requests:
        if not found or request.lines > room:
            found.append([])
            room = limit
        found[-1].append(request)
        room -= request.lines
    return found
