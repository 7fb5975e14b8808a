"""`python -m perf.trees SERVICE… --tree [PYTHON:]DIR …`: checkouts, builds, interpreters side by side.

One server runs from each tree, which is a checkout (a worktree of an older commit) or a compiled build of one
(`make compiled`), under this interpreter or one of its own. All read the same rows from one stand-in, take
their turns in every round, and every other round goes backwards: the ratios hold on a busy machine too.

Invariants
1. A tree serves its own feature repos, so that one whose definitions are written otherwise can be compared.
2. Every tree's answers are checked against values computed from the stored numbers; it ends with 1 for one
   that is wrong or failed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from perf import server
from perf.data import SHAPES, prepare_service
from perf.environment import describe_environment
from perf.kept import keep_result
from perf.load import standin_client
from perf.load.child import ROOT
from perf.load.free_port import free_port
from perf.run import FLOOR, Contender, RunOptions, load_in_turns, service_figures, start_floors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

FORM = "{:<20}{:<40}{:>8}{:>8}{:>8}{:>8}{:>11}{:>8}{:>7}"


class Tree(NamedTuple):
    """A folder that holds the package and perf's feature repos, and what runs it."""

    label: str
    python: str
    folder: Path


def tree(text: str) -> Tree:
    """Read a tree as the command line has it.

    Raises:
        argparse.ArgumentTypeError: there is no package in it, or no such interpreter.
    """
    python, _, folder = text.rpartition(":")
    path = Path(folder).resolve()
    if not (path / "fastserve" / "__init__.py").exists():
        raise argparse.ArgumentTypeError(f"expected a folder with the package fastserve, got {folder!r}")
    if python and not os.access(python, os.X_OK):
        raise argparse.ArgumentTypeError(f"expected an interpreter before the colon, got {python!r}")
    return Tree(text, os.path.abspath(python) if python else sys.executable, path)  # noqa: PTH100 - a venv's is a link


def measure(services: Sequence[str], trees: Sequence[Tree], options: RunOptions) -> list[dict[str, Any]]:
    """Give the figures of each service in each tree, in their order, the floor's behind them if asked for.

    Raises:
        ChildError: a process did not come up.
    """
    with standin_client.running() as stand_in, contextlib.ExitStack() as stack:
        contenders: list[Contender] = []
        for service in services:
            prepare_service(stand_in, service)
            contenders += [
                Contender(
                    each.label, service, *stack.enter_context(_running(each, service, stand_in.store_url()))
                )
                for each in trees
            ]
            if options.with_floor:
                contenders += [each for each in start_floors(service, stand_in, stack) if each.kind == FLOOR]
        stand_in.control(latency_ms=options.latency_ms)
        rounds = load_in_turns(contenders, options, stand_in)
    return [
        {"tree": kind, **service_figures(service, reports)} for (kind, service), reports in rounds.items()
    ]


@contextlib.contextmanager
def _running(tree: Tree, service: str, store_url: str) -> Iterator[tuple[int, int]]:
    port = free_port()
    repo = tree.folder / (SHAPES[service].repo_path).relative_to(ROOT)
    arguments = [tree.python, *server.command(repo, store_url, port)[1:]]
    with server.listening(
        arguments, port, "/readyz", cwd=tree.folder, environment=server.environment()
    ) as pid:
        yield pid, port


def lines(measured: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Give the table: a line a service and tree, with its ratio to the service's first tree."""
    yield FORM.format("", "tree", "CPU us", "least", "most", "x first", "keys/call", "errors", "wrong")
    first: dict[str, float] = {}
    for figures in measured:
        cpu_us, rounds_us = figures["cpu_us_per_request"], figures["rounds_cpu_us"]
        times = cpu_us / first.setdefault(figures["name"], cpu_us)
        spread = [f"{value:.1f}" for value in (cpu_us, min(rounds_us), max(rounds_us))]
        counts = (figures["errors"], figures["wrong"])
        yield FORM.format(
            figures["name"],
            figures["tree"][-39:],
            *spread,
            f"{times:.2f}",
            f"{figures['keys_per_call']:.1f}",
            *counts,
        )


def main() -> int:
    """Measure and print; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m perf.trees", description=__doc__)
    parser.add_argument("services", nargs="+", choices=list(SHAPES), metavar="SERVICE")
    parser.add_argument("--tree", type=tree, action="append", required=True, metavar="[PYTHON:]DIR")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--duration-s", type=float, default=2.0)
    parser.add_argument("--warmup-s", type=float, default=0.5)
    parser.add_argument("--floor", action="store_true", help="perf.floor takes a turn, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    asked = parser.parse_args()
    if len({each.label for each in asked.tree}) < len(asked.tree):
        parser.error("--tree: expected each tree once, got one twice; name it otherwise, such as ./.")
    load_before = round(os.getloadavg()[0], 2)
    options = RunOptions(
        asked.duration_s, asked.warmup_s, asked.rounds, with_floor=asked.floor, with_bare=False
    )
    measured = measure(asked.services, asked.tree, options)
    for line in lines(measured):
        print(line)
    if asked.json:
        document = {"services": measured, "load_average_before": load_before, **describe_environment()}
        keep_result(document, asked.json)
    return 1 if any(figures["errors"] or figures["wrong"] for figures in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
