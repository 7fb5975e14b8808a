"""One request's way: keys, coalesced reads, evaluation together with whoever is ready at the same time.

The engine knows no HTTP: it is given join-key texts and hands over `Columns`. It knows no store and no loop:
fetch, schedule and clocks are arguments.

Invariants
1. A request is finished exactly once: evaluated, failed or timed out. What comes later for it is dropped.
2. Requests of one service that became ready by one answer of the store are evaluated together, as many at
   once as the processor's cache holds, in groups that `serving.ready` makes. In a long turn of the loop they
   wait there; requests of many lines give way every `MAX_LINES_AT_ONCE`.
3. One request's failure, deadline or size never changes another's result.
4. All lines of a request are evaluated at one moment of the request clock: that at which its evaluation
   begins, or where it reads blocks the last before it that these blocks serve.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from fastserve.errors import RequestError
from fastserve.plan.service import ServicePlan, WorkspacePlan
from fastserve.plan.stores import MAIN_STORE
from fastserve.serving.absent_rows import AbsentRows
from fastserve.serving.blocks import OldShapes
from fastserve.serving.caching import CachingCoalescer
from fastserve.serving.coalescer import GAVE_UP, Coalescer, KeyRead
from fastserve.serving.columns import Columns, Computed
from fastserve.serving.heads import Watermarks
from fastserve.serving.on_demand import OnDemandEvaluator, Surroundings
from fastserve.serving.on_demand_batch import Batch
from fastserve.serving.ready import ReadyRequests, Turns
from fastserve.serving.requests import Evaluator, ServiceRuntime, VectorRequest, make_runtime
from fastserve.serving.row_cache import RowCache
from fastserve.serving.stores import (
    MIXED_ROWS,
    DecodingEvaluator,
    MakeReader,
    StoreCoalescers,
    StoreTransports,
)
from fastserve.serving.transcode import OldLayouts
from fastserve.serving.transport import RowTransport
from fastserve.serving.vector_rows import Transcode
from fastserve.serving.vectors import VectorEvaluator

MAX_LINES_AT_ONCE = 32
"""Lines evaluated in one go: 32 vectors of 5,000 features keep the loop for about 5 ms."""


class Engine:
    """All services of a workspace over its stores, mostly one.

    ``transport`` is the form of the main store's rows, or of all stores'. ``clock_ns`` is the request clock
    (wall time or fixed), ``schedule`` calls a function at the end of the loop's turn, and ``turns`` tells how
    long turns last; without it none is long. ``surroundings`` are what on-demand views need of the process.
    ``watermarks`` hold until when each streamed view's events are in rows; whoever knows it sets it there.
    ``on_computing`` is told by how many more or fewer requests on-demand views are being evaluated.
    """

    def __init__(
        self,
        plan: WorkspacePlan,
        transport: RowTransport | StoreTransports,
        *,
        schedule: Callable[[Callable[[], None]], object],
        clock_ns: Callable[[], int],
        turns: Turns | None = None,
        old_layouts: OldLayouts | None = None,
        transcode_item: Transcode | None = None,
        surroundings: Surroundings | None = None,
        old_shapes: OldShapes | None = None,
    ) -> None:
        self.watermarks = Watermarks()
        around = surroundings or Surroundings(lambda: 0)
        self.transports = StoreTransports(transport) if isinstance(transport, RowTransport) else transport

        def evaluator(service: ServicePlan) -> Evaluator:
            form = self.transports.of(service.stores)
            made = VectorEvaluator(service, form, old_layouts, transcode_item, self.watermarks, old_shapes)
            return DecodingEvaluator(made) if form is MIXED_ROWS else made

        self.services: Mapping[str, ServiceRuntime] = {
            name: make_runtime(
                service,
                evaluator(service),
                OnDemandEvaluator(service, around) if service.on_demand else None,
            )
            for name, service in plan.services.items()
        }
        self._timer_ns = around.clock_ns
        self._absent = AbsentRows(plan, self.watermarks, clock_ns, self._timer_ns)
        self.ready = ReadyRequests(turns or Turns(schedule, _no_time, _no_time), self._evaluate_ready)
        self._unread: list[VectorRequest] = []
        self._computing = 0
        self.on_computing: Callable[[int], None] = _ignore
        self._plan_groups = plan.groups
        self._has_pushed = any(group.pushed for group in plan.groups)
        self._has_bundles = any(group.attributes for group in plan.groups)
        self._schedule = schedule
        self._clock_ns = clock_ns
        self._in_flight: dict[VectorRequest, None] = {}
        self.coalescer: Coalescer | StoreCoalescers
        self.coalescers: Mapping[str, Coalescer] = {}

    def attach(
        self,
        make_reader: MakeReader,
        cache: RowCache | None = None,
        named: Mapping[str, MakeReader] = MappingProxyType({}),
    ) -> None:
        """Connect the main store's hot side, and those of the named ones that services read.

        ``cache`` keeps the rows of views that have a ``cache_ttl``.
        """
        main = self._coalescer(make_reader, cache)
        others = {name: self._coalescer(make, cache) for name, make in named.items()}
        self.coalescers = {MAIN_STORE: main, **others}
        self.coalescer = StoreCoalescers(self._plan_groups, self.coalescers) if others else main

    def _coalescer(self, make_reader: MakeReader, cache: RowCache | None) -> Coalescer:
        """Return a store's coalescer; all have the cache, or a request would miss it by its last read."""

        def settle(reads: Sequence[KeyRead]) -> None:
            coalescer.settle(reads)

        reader = make_reader(settle)
        parts = (len(self._plan_groups), reader.max_keys, reader.fetch, self._schedule, self.ready.add)
        coalescer: Coalescer
        if cache is not None and any(group.cache is not None for group in self._plan_groups):
            coalescer = CachingCoalescer(
                *parts,
                cache,
                self._timer_ns,
                self._absent,
                has_pushed=self._has_pushed,
                has_bundles=self._has_bundles,
            )
        else:
            coalescer = Coalescer(*parts, has_pushed=self._has_pushed, has_bundles=self._has_bundles)
        return coalescer

    @property
    def waiting(self) -> Collection[VectorRequest]:
        """The requests that wait for their rows, or with them for their turn, as they are at any time."""
        return self._in_flight

    @property
    def in_flight(self) -> int:
        """How many requests are not finished."""
        return len(self._in_flight) + self._computing

    def submit(self, request: VectorRequest, texts: Sequence[Sequence[str]], now_s: float) -> None:
        """Ask for the rows of a request.

        ``texts`` are the key texts of the join keys of each line, in the plan's order.
        """
        builders = request.runtime.key_builders
        request.started_s = now_s
        request.lines = len(texts)
        request.waiting = len(texts) * len(builders)
        self._in_flight[request] = None
        if not builders:
            self._submit_unread(request)
            return
        clock = request.runtime.block_clock
        if clock is not None:
            clock.set(self._clock_ns())
            request.blocks_span_ns = (clock.start_ns, clock.end_ns - 1)
        read = self.coalescer.read
        deadline_s = request.deadline_s
        append = request.reads.append
        for line in texts:
            for group, key in builders:
                append(read(group, key(line), request, deadline_s))

    def _submit_unread(self, request: VectorRequest) -> None:
        """Take a request that reads nothing: it is evaluated with those of the same turn."""
        self._unread.append(request)
        if len(self._unread) == 1:
            self._schedule(self._flush_unread)

    def _flush_unread(self) -> None:
        unread, self._unread = self._unread, []
        self.ready.add(unread)

    def _evaluate_ready(self, runtime: ServiceRuntime, ready: list[VectorRequest]) -> None:
        """Evaluate requests of one service, less those that were given up while they waited for it."""
        requests = [request for request in ready if self._in_flight.pop(request, self) is None]
        if not requests:
            return
        if runtime.block_clock is None:
            self._evaluate(runtime, requests, self._clock_ns())
        else:
            self._evaluate_streamed(runtime, requests)

    def _evaluate_streamed(self, runtime: ServiceRuntime, requests: list[VectorRequest]) -> None:
        """Evaluate requests that read blocks, each at a moment that its blocks serve."""
        now_ns = self._clock_ns()
        by_moment: dict[int, list[VectorRequest]] = {}
        for request in requests:
            first_ns, last_ns = request.blocks_span_ns
            by_moment.setdefault(min(max(now_ns, first_ns), last_ns), []).append(request)
        for moment_ns, together in by_moment.items():
            self._evaluate(runtime, together, moment_ns)

    def _evaluate(self, runtime: ServiceRuntime, requests: list[VectorRequest], now_ns: int) -> None:
        if requests[0].lines > runtime.lines_at_once:  # it comes alone (`serving.ready`)
            self._evaluate_long(requests[0], 0, now_ns)
        else:
            self._evaluate_together(runtime, requests, now_ns)

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
            columns = runtime.columns(lines, now_ns, zero_counts)
        except Exception as error:  # noqa: BLE001 - its owner tells; requests beside it get their answers
            self._on_failure(runtime, requests, now_ns, error)
            return
        if runtime.on_demand is None:
            self._deliver(requests, columns)
        else:
            lines_of = [(request, 0, request.lines) for request in requests]
            self._compute(
                runtime.on_demand, columns, lines_of, now_ns, lambda: self._deliver(requests, columns)
            )

    def _deliver(self, requests: Sequence[VectorRequest], columns: Columns) -> None:
        first = 0
        for request in requests:
            last = first + request.lines
            _tell(request, columns, first, last)
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
        if runtime.on_demand is not None:
            self._compute_long(runtime.on_demand, request, first, now_ns)
            return
        pause = min(first + MAX_LINES_AT_ONCE, request.lines)
        try:
            while first < pause:
                last = min(first + runtime.lines_at_once, pause)
                lines = [runtime.rows(request.reads, line) for line in range(first, last)]
                zero_counts = request.zero_counts_of(first, last) if request.zero_counts else None
                columns = runtime.columns(lines, now_ns, zero_counts)
                _tell(request, columns, 0, last - first)
                first = last
        except Exception as error:  # noqa: BLE001 - as above
            request.owner.on_failure(error)
            first = request.lines
        if first < request.lines:
            self._schedule(lambda: self._evaluate_long(request, first, now_ns))
        else:
            request.release()

    # --- on-demand views --------------------------------------------------------------------------------

    def _compute_long(
        self, on_demand: OnDemandEvaluator, request: VectorRequest, first: int, now_ns: int
    ) -> None:
        """As `_evaluate_long`, with on-demand views: the next lines follow when these are done."""
        runtime = request.runtime
        last = min(first + runtime.lines_at_once, request.lines)
        try:
            lines = [runtime.rows(request.reads, line) for line in range(first, last)]
            zero_counts = request.zero_counts_of(first, last) if request.zero_counts else None
            columns = runtime.columns(lines, now_ns, zero_counts)
        except Exception as error:  # noqa: BLE001 - as above
            request.owner.on_failure(error)
            request.release()
            return

        def deliver() -> None:
            _tell(request, columns, 0, last - first)
            if last < request.lines:
                self._schedule(lambda: self._compute_long(on_demand, request, last, now_ns))
            else:
                request.release()

        self._compute(on_demand, columns, [(request, first, last)], now_ns, deliver)

    def _compute(
        self,
        on_demand: OnDemandEvaluator,
        columns: Columns,
        lines_of: Sequence[tuple[VectorRequest, int, int]],
        now_ns: int,
        deliver: Callable[[], None],
    ) -> None:
        """Evaluate the on-demand views over columns which hold these lines of these requests."""
        batch = make_batch(on_demand.count, columns, lines_of, now_ns)
        start_ns = self._timer_ns()
        self._computing += len(lines_of)
        self.on_computing(len(lines_of))

        def on_done(error: Exception | None) -> None:
            self._computing -= len(lines_of)
            self.on_computing(-len(lines_of))
            wait_s = (self._timer_ns() - start_ns) / 1e9
            columns.computed = Computed(batch.results, batch.errors, batch.late, wait_s)
            if error is None:
                deliver()
                return
            for request, _, _ in lines_of:
                request.owner.on_failure(error)
                request.release()

        on_demand.evaluate(batch, on_done)

    def expire(self, now_s: float) -> None:
        """Finish the requests whose server deadline has passed.

        Requests are in flight in the order of their arrival, and all have the same server timeout; one whose
        caller set a shorter one is given up by a timer of its own.
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

        By its budget it is answered with what has come, else it has timed out; but where a cache still knows
        all that hasn't come, it is answered with that.
        """
        if self._in_flight.pop(request, self) is self:
            return  # finished before
        request.waiting = GAVE_UP
        if self.coalescer.substitute(request) or request.budget:
            self._evaluate_streamed(request.runtime, [request])
        else:
            request.owner.on_timeout()
            request.release()


def _ignore(_requests: int) -> None:
    pass


def _no_time() -> float:
    return 0.0


REFUSED = RequestError(503, "a row that the caller can't do without couldn't be read")
"""Stands for what the request's owner will tell in its own words."""


def make_batch(
    views: int, columns: Columns, lines_of: Sequence[tuple[VectorRequest, int, int]], now_ns: int
) -> Batch:
    """Return the lines of some requests as on-demand views take them."""
    contexts: list[Sequence[object]] = []
    patience: list[tuple[float, bool]] = []
    refused: dict[int, RequestError] = {}
    unreadable = {line for line, _ in columns.report.unreadable}
    for request, first, last in lines_of:
        before = len(patience)
        contexts += request.contexts[first:last]
        patience += [(request.deadline_s, request.budget)] * (last - first)
        if request.is_refused:
            refused.update(dict.fromkeys(range(before, len(patience)), REFUSED))
        elif unreadable and not request.partial:
            own = unreadable.intersection(range(before, len(patience)))
            refused.update(dict.fromkeys(own, REFUSED))
    return Batch(columns, contexts, patience, now_ns, views, refused)


def _tell(request: VectorRequest, columns: Columns, first: int, last: int) -> None:
    """Hand a request its lines; an owner that fails at them fails alone."""
    try:
        request.owner.on_columns(columns, first, last)
    except Exception as error:  # noqa: BLE001 - the owner tells; requests beside it get their answers
        request.owner.on_failure(error)
