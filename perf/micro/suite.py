"""The hot path's cases in one place, under pyperf: `python -m perf.micro.suite [-o FILE]` (pyperf's options).

Knows the other files of this folder, and nothing of how they are counted.

Invariants:
1. A case has one name for good: two commits are compared by it.
2. A case that can't be made from a commit's code is told by its name, and fails nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any

Case = Callable[[], object]
# Module -> how its cases are made, imported one by one: an older commit may lack what one of them measures.
_FILES = ("decode", "coalescer", "client_wire", "batch_get", "evaluate", "request")
REQUEST_SERVICES = ("fs_1x10", "fs_5x100", "fs_50x100", "jaccard_python")
_CLIENTS = 16


def all_cases() -> Iterator[tuple[str, Case | None]]:
    """Give all cases by name; None where one can't be made."""
    for name in _FILES:
        try:
            module = importlib.import_module(f"perf.micro.{name}")
            yield from _cases_of(name, module)
        except (ImportError, AttributeError, TypeError, KeyError) as error:
            print(f"{name}: can't be made here: {error!r}", flush=True)
            yield name, None


def _cases_of(name: str, module: Any) -> Iterator[tuple[str, Case]]:
    if name == "evaluate":
        for title, _, case in module.cases(("fs_1x10", "fs_5x100")):
            yield title, case
    elif name == "request":
        for service in REQUEST_SERVICES:
            bench = module.Bench(service, _CLIENTS)
            yield f"request: {service}, {_CLIENTS} clients", bench.turn
    else:
        yield from module.cases()


def main() -> None:
    """Measure all under pyperf."""
    import pyperf

    runner = pyperf.Runner()
    for name, case in all_cases():
        if case is not None:
            runner.bench_func(name, case)


if __name__ == "__main__":
    main()
