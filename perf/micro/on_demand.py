"""What on-demand views cost beside their own code: inputs made, results checked, encoded and answered.

Each service's evaluation is measured from the columns of a batch to the JSON of its vectors, for 1, 16 and
1,000 requests, and so is its function alone, over inputs that were made before. Budgets: 3 us over the
function itself for a request of a busy server's batch, and 3 us in all per row of 1,000 in mode numpy with a
function that NumPy computes.

Run as `python -m perf.micro.on_demand`. Figures are CPU microseconds per request, the least of several
rounds.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns, process_time_ns
from typing import Any

import orjson

from fastserve.api.encode_on_demand import VectorEncoder
from fastserve.plan.service import ServicePlan
from fastserve.serving.columns import Columns, Computed
from fastserve.serving.engine import make_batch
from fastserve.serving.on_demand import OnDemandEvaluator, Surroundings
from fastserve.serving.on_demand_call import compile_call
from fastserve.serving.on_demand_sources import compile_source
from fastserve.serving.requests import ServiceRuntime, VectorRequest
from fastserve.serving.transport import RAW_ROWS
from fastserve.serving.vectors import VectorEvaluator
from perf.data import CLOCK_NS, POOL_ROWS, encode_rows, service_plan
from perf.on_demand import AMOUNT, stored_places

ROUNDS = 15
ROUND_NS = 20_000_000
SERVICES = (
    "trivial_python",
    "trivial_numpy",
    "jaccard_python",
    "jaccard_numpy",
    "jaccard_sent_python",
    "jaccard_sent_numpy",
)


class Bench:
    """One service's evaluation over a batch of single requests."""

    def __init__(self, service: str, lines: int) -> None:
        self.plan = service_plan(service)
        self.lines = lines
        self.evaluator = OnDemandEvaluator(self.plan, Surroundings(perf_counter_ns))
        self.encoder = VectorEncoder(self.plan)
        rows = VectorEvaluator(self.plan, RAW_ROWS)
        runtime = ServiceRuntime(self.plan, rows, self.evaluator)
        stored = [encode_rows(place.view) for place in self.plan.places]
        self.columns: Columns = runtime.columns(
            [[pool[(line + at) % POOL_ROWS] for at, pool in enumerate(stored)] for line in range(lines)],
            CLOCK_NS,
            None,
        )
        self.contexts = [_context(self.plan) for _ in range(lines)]
        self.requests = [
            (
                VectorRequest(runtime, _Nobody(), 0.0, zero_counts=False, budget=False, contexts=[context]),
                0,
                1,
            )
            for context in self.contexts
        ]

    def whole(self) -> None:
        """Compute and encode everything."""
        batch = make_batch(self.evaluator.count, self.columns, self.requests, CLOCK_NS)
        self.evaluator.evaluate(batch, _done)
        self.columns.computed = Computed(batch.results, batch.errors, batch.late, 0.0)
        for line in range(self.lines):
            self.encoder.encode(self.columns, line)

    def function_alone(self) -> Callable[[], None]:
        """Return what calls the view's function as often, over inputs made before."""
        (view,) = self.plan.on_demand
        batch = make_batch(1, self.columns, self.requests, CLOCK_NS)
        sources = [compile_source(self.plan, binding) for binding in view.sources]
        function: Any = view.view.function
        call = compile_call(view.view)
        if call is not None and call.is_vectorized:
            arrays = [source.arrays(batch, None) for source in sources]
            return lambda: function(*arrays)
        rows = list(zip(*[source.rows(batch) for source in sources], strict=True))

        def each() -> None:
            for row in rows:
                function(*row)

        return each


class _Nobody:
    """An owner that is never told anything."""

    def on_columns(self, columns: Columns, first: int, last: int) -> None: ...

    def on_timeout(self) -> None: ...

    def on_failure(self, error: Exception) -> None: ...


def _done(error: Exception | None) -> None:
    if error is not None:
        raise error


def _context(plan: ServicePlan) -> list[Any]:
    if not plan.context_fields:
        return []
    if len(plan.context_fields) == 1:
        return [AMOUNT]
    return [list(stored_places(0)), list(stored_places(1))]


def cpu_us(work: Callable[[], object], lines: int) -> float:
    """Return the least CPU per line."""
    work()
    best = float("inf")
    for _ in range(ROUNDS):
        count = 0
        start_ns = process_time_ns()
        while (spent_ns := process_time_ns() - start_ns) < ROUND_NS / lines**0.5:
            for _ in range(10):
                work()
            count += 10
        best = min(best, spent_ns / count / lines)
    return best / 1000


def main() -> None:
    """Print the figures."""
    print(f"{'service':20} {'requests':>8} {'whole us':>9} {'function':>9} {'rest':>7}")
    for service in SERVICES:
        for lines in (1, 16, 1_000):
            bench = Bench(service, lines)
            bench.whole()
            orjson.loads(bench.encoder.encode(bench.columns, 0))
            whole_us, function_us = cpu_us(bench.whole, lines), cpu_us(bench.function_alone(), lines)
            print(f"{service:20} {lines:8} {whole_us:9.2f} {function_us:9.2f} {whole_us - function_us:7.2f}")


if __name__ == "__main__":
    main()
