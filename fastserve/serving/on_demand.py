"""The on-demand views of one service, evaluated over the lines of a batch after its rows have been read.

Views run in the plan's order. In mode ``python`` the function is called once per line, in the modes ``numpy``
and ``pandas`` once for all lines; a call that fails there is repeated over halves until the lines that fail
are alone. A view that is isolated runs elsewhere (`Helpers`), and evaluation goes on when its results have
come. Clock, helpers and log are arguments.

Invariants
1. A line's failure is its own: a `RequestError` in `Batch.errors`; the other lines get their values.
2. `evaluate` tells that it is done exactly once, before it returns where no view is isolated.
3. The author's code is called with objects that nothing else holds, and whatever it raises stays here.
4. Code that ran inline can't be stopped: its time limit is looked at when it has returned, and what came late
   is refused with 504. A loop that stays blocked is the arbiter's to end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from fastserve.errors import InvariantError, RequestError
from fastserve.plan.on_demand import OnDemandPlan
from fastserve.plan.service import ServicePlan
from fastserve.sdk.on_demand import OnDemandFeatureView
from fastserve.serving.on_demand_batch import Batch
from fastserve.serving.on_demand_call import (
    Line,
    ViewCall,
    compile_call,
    over_time,
    refusal,
    refusal_of,
)
from fastserve.serving.on_demand_sources import Row, Source, compile_source
from fastserve.serving.on_demand_times import OnDemandTimes, Recorder

NO_LIMIT_NS = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Job:
    """One call for a helper: a view's name, the inputs (`ViewCall`), and how many lines they are of.

    ``lines`` is None in mode python. ``moment`` is the request's time. The call may take ``limit_s`` (None:
    as long as there is time) and must be over at ``deadline_s`` of the loop's clock.
    """

    view: str
    lines: int | None
    sources: Sequence[Any]
    moment: datetime
    limit_s: float | None
    deadline_s: float


@dataclass(frozen=True, slots=True)
class Done:
    """A call's checked values: one line's, or each line's."""

    values: list[Any]
    took_ns: int


@dataclass(frozen=True, slots=True)
class Raised:
    """A call's exception: its class's name, its text, and how it came about."""

    kind: str
    text: str
    traceback: str
    took_ns: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """A call that was ended: by the view's limit, its deadline, or because its helper died (``reason``)."""

    reason: str | None
    is_limit: bool

    @property
    def is_the_view_s(self) -> bool:
        """Whether the view's code is to blame, and not that the request's time is over."""
        return self.is_limit or self.reason is not None


Outcome = Done | Raised | Stopped


class Helpers(Protocol):
    """Processes that run isolated views."""

    def submit(self, job: Job, on_done: Callable[[Outcome], None]) -> None:
        """Run a call; ``on_done`` is told once, not before this returns."""


Complain = Callable[[str, BaseException | str], None]
"""Told of a view's exception, or its traceback, for the log."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What evaluation needs of the process around it."""

    clock_ns: Callable[[], int]
    """Measures how long calls take; where it stands, nothing does."""
    complain: Complain = lambda _view, _error: None
    helpers: Helpers | None = None
    times: OnDemandTimes | None = None


class OnDemandEvaluator:
    """Computes the on-demand views of one service."""

    def __init__(self, plan: ServicePlan, surroundings: Surroundings) -> None:
        times = surroundings.times or OnDemandTimes([view.name for view in plan.on_demand])
        self._clock_ns = surroundings.clock_ns
        self._views = [
            _compiled(plan, number, view, surroundings, times.recorder(view.name))
            for number, view in enumerate(plan.on_demand)
        ]
        self.is_immediate = not any(isinstance(view, IsolatedView) for view in self._views)
        """Whether `evaluate` is done when it returns."""

    @property
    def count(self) -> int:
        """How many views there are."""
        return len(self._views)

    def evaluate(self, batch: Batch, done: Callable[[Exception | None], None]) -> None:
        """Compute all views of a batch.

        ``done`` is called when its results and errors are there, or with what nobody foresaw.
        """
        self._go_on(batch, 0, done)

    def _go_on(self, batch: Batch, number: int, done: Callable[[Exception | None], None]) -> None:
        """Compute the views from ``number`` on, up to one that runs elsewhere."""
        unforeseen = None
        try:
            for position, view in enumerate(self._views[number:] if number else self._views, number):
                if isinstance(view, InlineView):
                    view.run(batch)
                elif view.start(batch, lambda: self._go_on(batch, position + 1, done)):  # noqa: B023 - returns
                    return
        except Exception as error:  # noqa: BLE001 - not the author's, whose are caught where they are called
            unforeseen = error
        done(unforeseen)


def _compiled(
    plan: ServicePlan, number: int, view: OnDemandPlan, surroundings: Surroundings, recorder: Recorder
) -> InlineView | IsolatedView:
    parts = ViewParts(plan, number, view, surroundings, recorder)
    if view.view.isolation == "process" and parts.call is not None:
        if surroundings.helpers is None:
            raise InvariantError(f"view {view.name} is isolated, and there are no helpers")
        return IsolatedView(parts, parts.call, surroundings.helpers)
    return InlineView(parts, surroundings.clock_ns)


class ViewParts:
    """What an inline and an isolated view have in common."""

    __slots__ = (
        "attributes",
        "calculations",
        "call",
        "complain",
        "limit_ns",
        "name",
        "number",
        "order",
        "recorder",
        "sources",
    )

    def __init__(
        self,
        plan: ServicePlan,
        number: int,
        view: OnDemandPlan,
        surroundings: Surroundings,
        recorder: Recorder,
    ) -> None:
        defined: OnDemandFeatureView[..., Any] = view.view
        limit = defined.time_limit
        self.number = number
        self.name = view.name
        self.sources: list[Source] = [compile_source(plan, binding) for binding in view.sources]
        self.call: ViewCall | None = compile_call(defined)
        self.calculations = [each.evaluate for each in defined.calculations]
        self.complain = surroundings.complain
        self.recorder = recorder
        self.limit_ns = NO_LIMIT_NS if limit is None else round(limit.total_seconds() * 1e9)
        calculated = [each.field.name for each in defined.calculations]
        names = [*(field.name for field in defined.function_fields), *calculated]
        self.order = [names.index(name) for name in defined.feature_names]

    def rows(self, batch: Batch) -> list[tuple[Row, ...]]:
        """Return the sources' dicts, line by line."""
        return list(zip(*[source.rows(batch) for source in self.sources]))  # noqa: B905 - costs as much

    def arrays(self, batch: Batch, lines: Sequence[int]) -> list[Any]:
        """Return the sources' arrays over these lines."""
        chosen = None if len(lines) == batch.lines else lines
        return [source.arrays(batch, chosen) for source in self.sources]

    def fail(self, batch: Batch, line: int, error: BaseException) -> None:
        """Refuse a line because of what the view's code raised."""
        self.recorder.fail()
        batch.fail(line, refusal_of(self.name, error))
        self.complain(self.name, error)

    def fail_over_time(self, batch: Batch, lines: Sequence[int], took_ns: int) -> None:
        """Refuse lines whose call took longer than it may."""
        error = over_time(self.name, self.limit_ns / 1e9, took_ns / 1e9)
        for line in lines:
            self.recorder.fail()
            batch.fail(line, error)
        self.complain(self.name, error)

    def calculate(self, batch: Batch, rows: Sequence[tuple[Row, ...]]) -> list[Line]:
        """Return each line's calculations; of a line that fails nothing."""
        now = batch.moment.request_timestamp
        results: list[Line] = [[]] * batch.lines
        for line in batch.active():
            try:
                results[line] = [evaluate(rows[line], now) for evaluate in self.calculations]
            except Exception as error:  # noqa: BLE001 - a sum beyond int64, a square root of less than 0
                self.fail(batch, line, error)
        return results

    def merged(self, attributes: Sequence[Line], calculated: Sequence[Line]) -> list[Line]:
        """Return each line's values in the order of the view's fields."""
        order = self.order
        merged: list[Line] = []
        for values, others in zip(attributes, calculated, strict=True):
            both = [*values, *others]
            merged.append([both[place] for place in order] if len(both) == len(order) else [])
        return merged


class InlineView:
    """A view that runs in the worker."""

    def __init__(self, parts: ViewParts, clock_ns: Callable[[], int]) -> None:
        self._parts = parts
        self._clock_ns = clock_ns

    def run(self, batch: Batch) -> None:
        """Compute the view for all lines that haven't failed."""
        parts = self._parts
        calculated = parts.calculate(batch, parts.rows(batch)) if parts.calculations else None
        call = parts.call
        if call is None:
            results: list[Line] = [[]] * batch.lines
        elif call.is_vectorized:
            results = self._run_together(batch, call)
        else:
            results = self._run_each(batch, call)
        batch.keep(parts.number, results if calculated is None else parts.merged(results, calculated))

    def _run_each(self, batch: Batch, call: ViewCall) -> list[Line]:
        parts, clock_ns = self._parts, self._clock_ns
        caller = call.line_caller(batch.moment if call.takes_context else None)
        rows = parts.rows(batch)
        limit_ns, skips = parts.limit_ns, batch.skips()
        results: list[Line] = []
        calls = sum_ns = max_ns = 0
        for line, sources in enumerate(rows):
            values: Line = []
            if skips is None or line not in skips:
                error = None
                start_ns = clock_ns()
                try:
                    values = caller(*sources)
                except BaseException as raised:  # noqa: BLE001 - SystemExit, too, is the author's
                    error = raised
                took_ns = clock_ns() - start_ns
                calls += 1
                sum_ns += took_ns
                if took_ns > max_ns:  # noqa: PLR1730 - a call less
                    max_ns = took_ns
                if error is not None:
                    parts.fail(batch, line, error)
                elif took_ns > limit_ns:
                    parts.fail_over_time(batch, [line], took_ns)
                    values = []
            results.append(values)
        parts.recorder.add(calls, calls, sum_ns, max_ns)
        return results

    def _run_together(self, batch: Batch, call: ViewCall) -> list[Line]:
        results: list[Line] = [[]] * batch.lines
        lines = batch.active()
        if lines:
            caller = call.batch_caller(batch.moment if call.takes_context else None)
            self._run_lines(batch, caller, lines, results)
        return results

    def _run_lines(
        self,
        batch: Batch,
        caller: Callable[[int, Sequence[Any]], list[Line]],
        lines: Sequence[int],
        results: list[Line],
    ) -> None:
        parts = self._parts
        sources = parts.arrays(batch, lines)
        error = None
        start_ns = self._clock_ns()
        try:
            values = caller(len(lines), sources)
        except BaseException as raised:  # noqa: BLE001 - as above
            error, values = raised, []
        took_ns = self._clock_ns() - start_ns
        parts.recorder.add(1, len(lines), took_ns, took_ns)
        if took_ns > parts.limit_ns:
            parts.fail_over_time(batch, lines, took_ns)
        elif error is None:
            for line, line_values in zip(lines, values, strict=True):
                results[line] = line_values
        elif len(lines) == 1:
            parts.fail(batch, lines[0], error)
        else:
            half = len(lines) // 2
            self._run_lines(batch, caller, lines[:half], results)
            self._run_lines(batch, caller, lines[half:], results)


class IsolatedView:
    """A view that runs in helper processes."""

    def __init__(self, parts: ViewParts, call: ViewCall, helpers: Helpers) -> None:
        self._parts = parts
        self._call = call
        self._helpers = helpers

    def start(self, batch: Batch, done: Callable[[], None]) -> bool:
        """Send the view's calls off; return whether there are any, of which ``done`` tells the end."""
        parts = self._parts
        rows = parts.rows(batch) if parts.calculations or not self._call.is_vectorized else []
        calculated = parts.calculate(batch, rows) if parts.calculations else None
        run = _IsolatedRun(parts, self._helpers, batch, calculated, done)
        lines = batch.active()
        if not lines:
            run.finish()
            return False
        if self._call.is_vectorized:
            run.submit_together(lines)
        else:
            for line in lines:
                run.submit_line(line, rows[line])
        return True


class _IsolatedRun:
    """One view's calls for one batch, until the last has come back."""

    __slots__ = ("_batch", "_calculated", "_done", "_helpers", "_open", "_parts", "_results")

    def __init__(
        self,
        parts: ViewParts,
        helpers: Helpers,
        batch: Batch,
        calculated: list[Line] | None,
        done: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._helpers = helpers
        self._batch = batch
        self._calculated = calculated
        self._done = done
        self._results: list[Line] = [[]] * batch.lines
        self._open = 0

    def submit_line(self, line: int, sources: Sequence[Row]) -> None:
        """Send the call of one line."""
        self._submit([line], None, sources)

    def submit_together(self, lines: Sequence[int]) -> None:
        """Send one call for many lines."""
        self._submit(lines, len(lines), self._parts.arrays(self._batch, lines))

    def _submit(self, lines: Sequence[int], count: int | None, sources: Sequence[Any]) -> None:
        parts, batch = self._parts, self._batch
        self._open += 1
        limit_s = None if parts.limit_ns == NO_LIMIT_NS else parts.limit_ns / 1e9
        deadline_s = max(batch.patience[line][0] for line in lines)
        job = Job(parts.name, count, sources, batch.moment.request_timestamp, limit_s, deadline_s)
        self._helpers.submit(job, lambda outcome: self._take(lines, count, outcome))

    def _take(self, lines: Sequence[int], count: int | None, outcome: Outcome) -> None:
        parts = self._parts
        if not isinstance(outcome, Stopped):
            parts.recorder.add(1, len(lines), outcome.took_ns, outcome.took_ns)
        if isinstance(outcome, Done):
            values = outcome.values if count is not None else [outcome.values]
            for line, line_values in zip(lines, values, strict=True):
                self._results[line] = line_values
        elif isinstance(outcome, Raised) and len(lines) > 1:
            half = len(lines) // 2
            self.submit_together(lines[:half])
            self.submit_together(lines[half:])
        elif len(lines) > 1 and isinstance(outcome, Stopped) and outcome.is_the_view_s:
            for line in lines:  # each alone: halving would lose a helper and a limit's time for every half
                self.submit_together([line])
        else:
            self._fail(lines, outcome)
        self._open -= 1
        if not self._open:
            self.finish()
            self._done()

    def _fail(self, lines: Sequence[int], outcome: Raised | Stopped) -> None:
        parts, batch = self._parts, self._batch
        error = _refusal(parts, outcome)
        is_late = isinstance(outcome, Stopped) and not outcome.is_limit and outcome.reason is None
        for line in lines:
            if is_late and batch.patience[line][1]:
                batch.late[line] = {parts.number}
            else:
                batch.fail(line, error)
            parts.recorder.fail()
        parts.complain(parts.name, outcome.traceback if isinstance(outcome, Raised) else error)

    def finish(self) -> None:
        """Put the results where other views and the answer find them."""
        calculated = self._calculated
        results = self._results if calculated is None else self._parts.merged(self._results, calculated)
        self._batch.keep(self._parts.number, results)


def _refusal(parts: ViewParts, outcome: Raised | Stopped) -> RequestError:
    if isinstance(outcome, Raised):
        return refusal(parts.name, outcome.kind, outcome.text)
    if outcome.is_limit:
        return over_time(parts.name, parts.limit_ns / 1e9)
    if outcome.reason is not None:
        return RequestError(503, f"On-demand view `{parts.name}`: {outcome.reason}")
    return RequestError(504, f"On-demand view `{parts.name}` was not computed within the request's time")
