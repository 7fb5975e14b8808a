"""One request's way: keys, coalesced reads, evaluation together with whoever is ready at the same time.

The engine knows no HTTP: it is given join-key texts and hands over `Columns`. It knows no store and no loop:
fetch, schedule and clocks are arguments.

Invariants
1. A request is finished exactly once: evaluated, failed or timed out. What comes later for it is dropped.
2. Requests of one service that became ready by one answer of the store are evaluated together, as many at
   once as the processor's cache holds; long ones give way to the loop every `MAX_LINES_AT_ONCE` lines.
3. One request's failure, deadline or size never changes another's result.
4. All lines of a request are evaluated at one moment of the request clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fastserve.plan.service import WorkspacePlan
from fastserve.serving.coalescer import GAVE_UP, Coalescer, KeyRead, Reader
from fastserve.serving.requests import ServiceRuntime, VectorRequest
from fastserve.serving.transcode import OldLayouts
from fastserve.serving.transport import RowTransport
from fastserve.serving.vector_rows import Transcode
from fastserve.serving.vectors import VectorEvaluator

MAX_LINES_AT_ONCE = 32
"""Lines evaluated in one go: 32 vectors of 5,000 features keep the loop for about 5 ms."""


class Engine:
    """All services of a workspace over one store.

    ``clock_ns`` is the request clock (wall time or fixed), ``schedule`` calls a function at the end of the
    loop's turn.
    """

    def __init__(
        self,
        plan: WorkspacePlan,
        transport: RowTransport,
        *,
        schedule: Callable[[Callable[[], None]], object],
        clock_ns: Callable[[], int],
        old_layouts: OldLayouts | None = None,
        transcode_item: Transcode | None = None,
    ) -> None:
        self.services: Mapping[str, ServiceRuntime] = {
            name: ServiceRuntime(service, VectorEvaluator(service, transport, old_layouts, transcode_item))
            for name, service in plan.services.items()
        }
        self._group_count = len(plan.groups)
        self._schedule = schedule
        self._clock_ns = clock_ns
        self._in_flight: dict[VectorRequest, None] = {}
        self.coalescer: Coalescer

    def attach(self, make_reader: Callable[[Callable[[Sequence[KeyRead]], None]], Reader]) -> None:
        """Connect the store's hot side: ``make_reader`` is given the function to settle reads with."""

        def settle(reads: Sequence[KeyRead]) -> None:
            self.coalescer.settle(reads)

        reader = make_reader(settle)
        self.coalescer = Coalescer(
            self._group_count, reader.max_keys, reader.fetch, self._schedule, self._on_ready
        )

    @property
    def in_flight(self) -> int:
        """How many requests are not finished."""
        return len(self._in_flight)

    def submit(self, request: VectorRequest, texts: Sequence[Sequence[str]], now_s: float) -> None:
        """Ask for the rows of a request.

        ``texts`` are the key texts of the join keys of each line, in the plan's order.
        """
        builders = request.runtime.key_builders
        request.started_s = now_s
        request.lines = len(texts)
        request.waiting = len(texts) * len(builders)
        self._in_flight[request] = None
        read = self.coalescer.read
        deadline_s = request.deadline_s
        append = request.reads.append
        for line in texts:
            for group, key in builders:
                append(read(group, key(line), request, deadline_s))

    def _on_ready(self, waiters: list[VectorRequest]) -> None:
        by_service: dict[ServiceRuntime, list[VectorRequest]] = {}
        for request in waiters:
            del self._in_flight[request]
            if request.runtime in by_service:
                by_service[request.runtime].append(request)
            else:
                by_service[request.runtime] = [request]
        for runtime, requests in by_service.items():
            self._evaluate(runtime, requests)

    def _evaluate(self, runtime: ServiceRuntime, requests: list[VectorRequest]) -> None:
        now_ns = self._clock_ns()
        limit = runtime.lines_at_once
        together: list[VectorRequest] = []
        lines = 0
        for request in requests:
            if request.lines > limit:
                self._evaluate_long(request, 0, now_ns)
                continue
            lines += request.lines
            if lines > limit:
                self._evaluate_together(runtime, together, now_ns)
                together, lines = [], request.lines
            together.append(request)
        if together:
            self._evaluate_together(runtime, together, now_ns)

    def _evaluate_together(self, runtime: ServiceRuntime, requests: list[VectorRequest], now_ns: int) -> None:
        try:
            lines = [
                runtime.rows(request.reads, line) for request in requests for line in range(request.lines)
            ]
            zero_counts = None
            for request in requests:
                if request.zero_counts:
                    zero_counts = [z for each in requests for z in each.zero_counts_of(0, each.lines)]
                    break
            columns = runtime.evaluator.evaluate(lines, now_ns, zero_counts)
        except Exception as error:  # noqa: BLE001 - its owner tells; requests beside it get their answers
            self._on_failure(runtime, requests, now_ns, error)
            return
        first = 0
        for request in requests:
            last = first + request.lines
            request.owner.on_columns(columns, first, last)
            request.release()
            first = last

    def _on_failure(
        self, runtime: ServiceRuntime, requests: list[VectorRequest], now_ns: int, error: Exception
    ) -> None:
        """Find the request that can't be evaluated by taking each alone."""
        if len(requests) > 1:
            for request in requests:
                self._evaluate_together(runtime, [request], now_ns)
            return
        requests[0].owner.on_failure(error)
        requests[0].release()

    def _evaluate_long(self, request: VectorRequest, first: int, now_ns: int) -> None:
        """Evaluate a request with more lines than are evaluated at once, from line ``first`` on."""
        runtime = request.runtime
        pause = min(first + MAX_LINES_AT_ONCE, request.lines)
        try:
            while first < pause:
                last = min(first + runtime.lines_at_once, pause)
                lines = [runtime.rows(request.reads, line) for line in range(first, last)]
                zero_counts = request.zero_counts_of(first, last) if request.zero_counts else None
                columns = runtime.evaluator.evaluate(lines, now_ns, zero_counts)
                request.owner.on_columns(columns, 0, last - first)
                first = last
        except Exception as error:  # noqa: BLE001 - as above
            request.owner.on_failure(error)
            first = request.lines
        if first < request.lines:
            self._schedule(lambda: self._evaluate_long(request, first, now_ns))
        else:
            request.release()

    def expire(self, now_s: float) -> None:
        """Finish the requests whose server deadline has passed.

        Requests are in flight in the order of their arrival, and all have the same server timeout.
        """
        late = []
        for request in self._in_flight:
            if request.budget:
                continue
            if request.deadline_s > now_s:
                break
            late.append(request)
        for request in late:
            self.give_up(request)

    def give_up(self, request: VectorRequest) -> None:
        """End the wait of a request, if it still waits.

        By its budget it is answered with what has come, else it has timed out.
        """
        if self._in_flight.pop(request, self) is self:
            return  # finished before
        request.waiting = GAVE_UP
        if request.budget:
            self._evaluate(request.runtime, [request])
        else:
            request.owner.on_timeout()
            request.release()
