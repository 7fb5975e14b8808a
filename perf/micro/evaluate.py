"""Rows to answers: the columns of a batch out of base64 rows, and a vector's JSON out of the columns.

Run as `python -m perf.micro.evaluate [SERVICE …]`. Figures are CPU microseconds per request.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from fastserve.api.encode import FeaturesEncoder
from fastserve.serving.transport import BASE64_ROWS
from fastserve.serving.vectors import VectorEvaluator
from perf.data import ARTICLE, CLOCK_NS, POOL_ROWS, row_texts, service_plan
from perf.micro.timing import show

SERVICES = tuple(shape.service for shape in ARTICLE)


def cases(services: Sequence[str] = SERVICES) -> Iterator[tuple[str, int, Callable[[], object]]]:
    """Give what is measured, by its name, and how many requests are in it."""
    for service in services:
        plan = service_plan(service)
        texts = [row_texts(place.view) for place in plan.places]
        # As many as share a call of 100 keys.
        requests = max(1, min(16, 100 // plan.key_count))
        lines = [[pool[line % POOL_ROWS] for pool in texts] for line in range(requests)]
        evaluator, encoder = VectorEvaluator(plan, BASE64_ROWS), FeaturesEncoder(plan)
        columns = evaluator.evaluate(lines, CLOCK_NS)
        yield f"evaluate: {service}", requests, partial(evaluator.evaluate, lines, CLOCK_NS)
        yield f"encode: {service}", 1, partial(encoder.encode, columns, 0)


def main() -> None:
    """Print the figures."""
    for name, requests, case in cases(sys.argv[1:] or SERVICES):
        show(f"{name}, {requests} together", case, requests)


if __name__ == "__main__":
    main()
