"""One request's way: keys, coalesced reads, evaluation together with whoever is ready at the same time.

The engine knows no HTTP: it is given join-key texts and hands over `Columns`. It knows no store and no loop:
fetch, schedule and
clocks are arguments.

Invariants
1. A request is finished exactly once: evaluated, failed or timed out. What comes later for it is dropped.
2. Requests of one service that became ready by one answer of the store are evaluated in one call, whatever
   their number of lines
   up to `MAX_LINES_AT_ONCE`; longer ones give way to the loop between parts.
3. One request's failure, deadline or size never changes another's result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from fastserve.plan.keys import ordinary_key
from fastserve.plan.service import Read, ServicePlan, WorkspacePlan
from fastserve.plan.views import ViewPlan
from fastserve.serving.coalescer import GAVE_UP, Coalescer, KeyRead, Reader, Waiter
from fastserve.serving.columns import Columns
from fastserve.serving.transcode import OldLayouts
from fastserve.serving.transport import RowTransport
from fastserve.serving.vectors import VectorEvaluator

MAX_LINES_AT_ONCE = 32
"""Lines evaluated in one go: 32 vectors of 5,000 features keep the loop for about 8 ms."""


class Finish(Protocol):
    """What a request's owner is told, once."""

    def on_columns(self, columns: Columns, first: int, last: int) -> None:
        """Lines ``first`` to ``last`` of ``columns`` are the request's next lines, in order; called once or,
        for long batches, part by part.
        """

    def on_timeout(self) -> None:
        """The deadline came before the rows."""


class VectorRequest:
    """The reads of one request: ``lines`` vectors of one service.

    ``reads`` holds ``lines`` times the service's reads, line by line. ``budget`` tells that the deadline is
    the caller's latency
    budget: what has come by then is answered.
    """

    __slots__ = (
        "budget",
        "deadline_s",
        "lines",
        "owner",
        "reads",
        "runtime",
        "started_s",
        "waiting",
        "zero_counts",
    )

    def __init__(
        self, runtime: ServiceRuntime, owner: Finish, deadline_s: float, *, zero_counts: bool, budget: bool
    ) -> None:
        self.runtime = runtime
        self.owner = owner
        self.deadline_s = deadline_s
        self.zero_counts = zero_counts
        self.budget = budget
        self.lines = 1
        self.waiting = 0
        self.started_s = 0.0
        self.reads: list[KeyRead] = []

    def release(self) -> None:
        """Let go of rows and owner: both hold the request, and a vector's rows are too large to wait for the
        garbage collector.
        """
        self.reads = []
        del self.owner

    def places_without_rows(self) -> dict[tuple[int, int], KeyRead]:
        """Return the reads that failed or have not come, by (line, place) of each row that they lack."""
        plan = self.runtime.plan
        count = len(plan.reads)
        lacking: dict[tuple[int, int], KeyRead] = {}
        for position, read in enumerate(self.reads):
            if read.error is not None or not read.settled:
                line, number = divmod(position, count)
                lacking.update({(line, place.number): read for place in plan.places if place.read == number})
        return lacking


class ServiceRuntime:
    """One service, ready to serve: its plan, its evaluator, its key builders."""

    __slots__ = ("_empty", "evaluator", "key_builders", "plan", "single_read")

    def __init__(self, plan: ServicePlan, evaluator: VectorEvaluator) -> None:
        self.plan = plan
        self.evaluator = evaluator
        self.key_builders = [(read.group, _key_builder(read)) for read in plan.reads]
        self.single_read = len(plan.reads) == 1
        self._empty = [[None] * read.group.size for read in plan.reads]

    def rows(self, reads: Sequence[KeyRead], line: int) -> list[Any]:
        """Return the rows of one line in place order; None for what is absent, failed or has not come."""
        if self.single_read:
            read = reads[line]
            return read.rows if read.settled and read.error is None else self._empty[0]
        count = len(self._empty)
        rows: list[Any] = []
        for number in range(count):
            read = reads[line * count + number]
            rows += read.rows if read.settled and read.error is None else self._empty[number]
        return rows


def _key_builder(read: Read) -> Callable[[Sequence[str]], str]:
    keys = read.keys
    if not read.group.own_items:
        attributes = read.group.key_attributes
        return lambda texts: ordinary_key(attributes, [texts[key] for key in keys])
    if len(keys) == 1:
        only = keys[0]
        return lambda texts: texts[only]
    return lambda texts: "|".join([texts[key] for key in keys])


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
        transcode_item: Callable[[ViewPlan, Any], bytes] | None = None,
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
        reader = make_reader(lambda reads: self.coalescer.settle(reads))
        self.coalescer = Coalescer(
            self._group_count, reader.max_keys, reader.fetch, self._schedule, self._on_ready
        )

    @property
    def in_flight(self) -> int:
        """How many requests are not finished."""
        return len(self._in_flight)

    def submit(self, request: VectorRequest, texts: Sequence[Sequence[str]], now_s: float) -> None:
        """Ask for the rows of a request; ``texts`` are the key texts of the join keys of each line, in the
        plan's order.
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

    def _on_ready(self, waiters: list[Waiter]) -> None:
        by_service: dict[ServiceRuntime, list[VectorRequest]] = {}
        for request in waiters:
            assert isinstance(request, VectorRequest)
            del self._in_flight[request]
            if request.lines > MAX_LINES_AT_ONCE:
                self._evaluate_part(request, 0)
            elif request.runtime in by_service:
                by_service[request.runtime].append(request)
            else:
                by_service[request.runtime] = [request]
        for runtime, requests in by_service.items():
            self._evaluate(runtime, requests)

    def _evaluate(self, runtime: ServiceRuntime, requests: list[VectorRequest]) -> None:
        lines = [runtime.rows(request.reads, line) for request in requests for line in range(request.lines)]
        zero_counts = None
        for request in requests:
            if request.zero_counts:
                zero_counts = [request.zero_counts for request in requests for _ in range(request.lines)]
                break
        columns = runtime.evaluator.evaluate(lines, self._clock_ns(), zero_counts)
        first = 0
        for request in requests:
            last = first + request.lines
            request.owner.on_columns(columns, first, last)
            request.release()
            first = last

    def _evaluate_part(self, request: VectorRequest, first: int) -> None:
        last = min(first + MAX_LINES_AT_ONCE, request.lines)
        runtime = request.runtime
        lines = [runtime.rows(request.reads, line) for line in range(first, last)]
        zero_counts = [True] * len(lines) if request.zero_counts else None
        columns = runtime.evaluator.evaluate(lines, self._clock_ns(), zero_counts)
        request.owner.on_columns(columns, 0, last - first)
        if last < request.lines:
            self._schedule(lambda: self._evaluate_part(request, last))
        else:
            request.release()

    def expire(self, now_s: float) -> None:
        """Finish the requests whose server deadline has passed; requests are in flight in the order of their
        arrival.
        """
        for request in list(self._in_flight):
            if request.budget:
                continue
            if request.deadline_s > now_s:
                break
            self.give_up(request)

    def give_up(self, request: VectorRequest) -> None:
        """End the wait of a request: by its budget it is answered with what has come, else it has timed
        out.
        """
        if self._in_flight.pop(request, self) is self:
            return  # finished before
        request.waiting = GAVE_UP
        if not request.budget:
            request.owner.on_timeout()
            request.release()
        elif request.lines > MAX_LINES_AT_ONCE:
            self._evaluate_part(request, 0)
        else:
            self._evaluate(request.runtime, [request])
