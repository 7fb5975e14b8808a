"""`python -m perf sweep`: how a request's cost grows with one thing at a time, from features to workers.

All points take turns in every round, so that a machine that slows down does so for all of them.

Invariants:
1. A point's figure is the median round's; the rounds are kept beside it.
2. It ends with 1 when an answer failed or was wrong.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perf import server
from perf.data import REPOS, SWEEP, prepare_service, request_stream, service_plan
from perf.environment import describe_environment
from perf.kept import keep_result
from perf.load import standin_client
from perf.load.child import run_load
from perf.load.load_plan import LoadPlan
from perf.progress import Progress
from perf.sweep.points import AXES, POINTS, Point

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

Report = dict[str, Any]
RESULT = Path(__file__).resolve().parents[1] / "results" / "sweep.json"
_AROUND_S = 1.2


def add_command(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("sweep", help="see how cost grows with one thing at a time")
    command.add_argument("--json", metavar="FILE", type=Path, default=RESULT)
    command.add_argument("--axis", choices=[axis.name for axis in AXES], action="append", help="only this")
    command.add_argument("--duration-s", type=float, default=1.2)
    command.add_argument("--warmup-s", type=float, default=0.4)
    command.add_argument("--rounds", type=int, default=2)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, keep and draw; give the exit status."""
    points = [point for point in POINTS if not options.axis or point.axis in options.axis]
    load_before, started_s = round(os.getloadavg()[0], 2), time.monotonic()
    measured = measure_points(points, options.rounds, options.duration_s, options.warmup_s)
    document = {
        "sweep": [_figures(point, reports) for point, reports in zip(points, measured, strict=True)],
        "options": {name: getattr(options, name) for name in ("rounds", "duration_s", "warmup_s")},
        "took_s": time.monotonic() - started_s,
        "load_average_before": load_before,
        **describe_environment(),
    }
    keep_result(document, options.json)
    from perf.style import save
    from perf.sweep.picture import draw_sweep

    save(draw_sweep(document), options.json.with_suffix(".png"))
    print(summarize(document))
    failed = [entry for entry in document["sweep"] if entry["errors"] or entry["wrong"]]
    for entry in failed:
        print(f"{entry['axis']} {entry['value']}: {entry['problems']}", file=sys.stderr)
    return 1 if failed else 0


def measure_points(
    points: Sequence[Point], rounds: int, duration_s: float, warmup_s: float
) -> list[list[Report]]:
    """Load every point in every round; give the generator's reports by point.

    Raises:
        ChildError: a process did not come up.
    """
    found: list[list[Report]] = [[] for _ in points]
    planned_s = rounds * len(points) * (duration_s + warmup_s + _AROUND_S)
    with standin_client.running() as stand_in, contextlib.ExitStack() as stack:
        for service in {point.service for point in points}:
            prepare_service(stand_in, service)
        servers = {
            workers: stack.enter_context(server.running(REPOS / SWEEP, stand_in.store_url(), workers=workers))
            for workers in {point.workers for point in points}
        }
        bar = stack.enter_context(Progress("sweep", planned_s))
        for number in range(rounds):
            order = list(enumerate(points))
            for place, point in order if number % 2 == 0 else reversed(order):
                pid, port = servers[point.workers]
                load = {"connections": point.clients, "entities": point.entities}
                plan = LoadPlan(
                    port,
                    (request_stream(point.service, **load),),
                    warmup_s=warmup_s,
                    duration_s=duration_s,
                    seed=1 + number,
                    watch={"server": pid, "stand_in": stand_in.pid},
                    stand_in_port=stand_in.port,
                )
                found[place].append(run_load(plan))
                bar.advance(duration_s + warmup_s + _AROUND_S, point.axis)
    return found


def _figures(point: Point, reports: Sequence[Report]) -> dict[str, Any]:
    report = sorted(reports, key=_cpu_us)[len(reports) // 2]
    streams = [stream for entry in reports for stream in entry["streams"]]
    (stream,) = report["streams"]
    return {
        **asdict(point),
        "cpu_us_per_request": _cpu_us(report),
        "rounds_cpu_us": [_cpu_us(entry) for entry in reports],
        "fs_qps": report["fs_qps"],
        "ddb_qps": report["store"]["ddb_qps"],
        "keys_per_request": report["store"]["keys_per_request"],
        "keys_per_call": report["store"]["keys_per_call"],
        # Of the keys that requests asked for; the rest were another request's, too.
        "distinct_share": report["store"]["keys_per_request"] / service_plan(point.service).key_count,
        "p50_ms": stream["latency_ms"]["p50"],
        "p99_ms": stream["latency_ms"]["p99"],
        "response_bytes": stream["response_bytes"],
        **{name: sum(entry[name] for entry in streams) for name in ("errors", "verified", "wrong")},
        "problems": [problem for entry in streams for problem in entry["problems"]],
    }


def _cpu_us(report: Report) -> float:
    return float(report["processes"]["server"]["cpu_us_per_request"])


def summarize(document: dict[str, Any]) -> str:
    """Say the figures in a table for the terminal."""
    form = "{:<10}{:>9}{:>10}{:>16}{:>10}{:>11}{:>11}{:>9}"
    lines = [form.format("axis", "value", "CPU us", "rounds us", "FS-QPS", "keys/req", "keys/call", "p99 ms")]
    for entry in document["sweep"]:
        rounds = f"{min(entry['rounds_cpu_us']):.1f}-{max(entry['rounds_cpu_us']):.1f}"
        figures = [f"{entry['cpu_us_per_request']:.1f}", rounds, f"{entry['fs_qps']:.0f}"]
        figures += [
            f"{entry['keys_per_request']:.2f}",
            f"{entry['keys_per_call']:.1f}",
            f"{entry['p99_ms']:.2f}",
        ]
        lines.append(form.format(entry["axis"], f"{entry['value']:g}", *figures))
    return "\n".join(lines)
