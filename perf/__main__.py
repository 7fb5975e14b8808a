"""`python -m perf`: measure one service, all, the scenarios, the peers, or see whether measuring works.

Reads argv, prints tables, writes JSON; knows no load and no server itself.

Invariants:
1. It ends with 1 when an answer failed or was wrong; a budget that is exceeded is said, and ends with 1 under
   `--strict` only, since machines differ. The measured figure decides, not the one at the machine factor.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perf import server
from perf.compare import command as compare_command
from perf.compare.feast.server import SERVICE as FEAST_SERVICE
from perf.data import ARTICLE, ON_DEMAND, SHAPES, prepare_service
from perf.environment import describe_environment
from perf.ingest import IngestOptions, draw_ingest, format_ingest, measure_ingest
from perf.kept import keep_result
from perf.load import standin_client
from perf.reference import hold_against_reference
from perf.report import format_floors, format_footnotes, format_table, has_failed, over_budget
from perf.run import RunOptions, measure_floors_alone, measure_service, measure_services
from perf.scenario import command as scenario_command
from perf.scenario import soak as stalls_command
from perf.scenario.definition import SCENARIOS
from perf.soak import command as soak_command
from perf.soak import reloads as reloads_command
from perf.sweep import command as sweep_command

if TYPE_CHECKING:
    from collections.abc import Sequence

_SMOKE = RunOptions(duration_s=1.0, warmup_s=0.5, rounds=1, with_bare=False)


def main() -> int:
    """Run the command of argv; give the exit status."""
    options = _parser().parse_args()
    status: int = options.run(options)
    return status


def _run(options: argparse.Namespace) -> int:
    return _measure([[options.service]], _run_options(options), options)


def _table(options: argparse.Namespace) -> int:
    # Each of the article's services goes through its rounds with the look-ups that have as many views.
    shapes = [shape for shape in SHAPES.values() if shape.repo == ON_DEMAND] if options.on_demand else ARTICLE
    pairs = [[shape.bare_service, shape.service] for shape in shapes]
    return _measure(pairs, _run_options(options), options)


def _floor(options: argparse.Namespace) -> int:
    more = [shape for shape in SHAPES.values() if shape.repo == "lookups"] if options.lookups else []
    services = [shape.service for shape in (*ARTICLE, *more)]
    print(format_floors([measure_floors_alone(service, _run_options(options)) for service in services]))
    return 0


def _smoke(_options: argparse.Namespace) -> int:
    """Measure for a moment and insist that figures come out: they are not to be quoted."""
    services = [measure_service(service, _SMOKE) for service in ("fs_1x10", "fs_50x100")]
    print(format_table(services))
    missing = [
        f"{figures['name']}: no {name}"
        for figures in services
        for name in (
            "fs_qps",
            "ddb_qps",
            "cpu_us_per_request",
            "rss_mib",
            "verified",
            "p99_ms",
            "response_bytes",
        )
        if not figures[name]
    ]
    return _complain([*missing, *(line for line in over_budget(services) if "errors" in line)])


def _stand(options: argparse.Namespace) -> int:
    """Keep a stand-in with a service's rows up, for a server under a profiler."""
    shape = SHAPES[options.service]
    with standin_client.running() as stand_in:
        prepare_service(stand_in, shape.service)
        print(shlex.join(server.command(shape.repo_path, stand_in.store_url(), 8_080)))
        print(
            "with AWS_ACCESS_KEY_ID=perf AWS_SECRET_ACCESS_KEY=perf; the stand-in ends with the input",
            flush=True,
        )
        sys.stdin.read()
    return 0


def _ingest(options: argparse.Namespace) -> int:
    load_before = round(os.getloadavg()[0], 2)
    run = IngestOptions(options.duration_s, options.warmup_s, options.clients, rounds=options.rounds)
    measured = measure_ingest(run)
    print(format_ingest(measured))
    document = {"ingest": measured, "options": run.__dict__, "load_average_before": load_before}
    document |= describe_environment()
    if options.json:
        keep_result(document, Path(options.json))
    if options.picture:
        draw_ingest(document, Path(options.picture))
    return 0


def _measure(groups: Sequence[list[str]], run: RunOptions, options: argparse.Namespace) -> int:
    if run.with_feast and not any(FEAST_SERVICE in services for services in groups):
        return _complain([f"--feast: Feast is measured beside {FEAST_SERVICE} only, not among these"])
    measured: list[dict[str, Any]] = []
    # What others made of the machine beforehand: later its load is mostly the measurement's own.
    load_before = round(os.getloadavg()[0], 2)
    for services in groups:
        measured += measure_services(services, run)
        print(f"{', '.join(services)} …", file=sys.stderr)
    for figures in measured:
        figures["reference"] = hold_against_reference(figures, same_load=run.is_reference)
    print(format_table(measured), format_footnotes(measured), sep="\n\n")
    if options.json:
        document = {"services": measured, "options": run.__dict__, "load_average_before": load_before}
        document |= describe_environment()
        keep_result(document, Path(options.json))
    status = _complain(over_budget(measured))
    return status if options.strict or has_failed(measured) else 0


def _complain(problems: list[str]) -> int:
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _run_options(options: argparse.Namespace) -> RunOptions:
    return RunOptions(
        duration_s=options.duration_s,
        warmup_s=options.warmup_s,
        rounds=options.rounds,
        clients=options.clients,
        key_law=options.key_law,
        rate_per_s=options.rate,
        latency_ms=options.latency,
        with_floor=not options.no_floor,
        with_bare=not options.no_bare,
        with_feast=options.feast,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="measure one service")
    run.add_argument("--service", required=True, choices=list(SHAPES))
    run.set_defaults(run=_run)
    table = commands.add_parser(
        "table", help="measure the article's four shapes and the look-ups beside them"
    )
    table.add_argument("--on-demand", action="store_true", help="the on-demand views instead")
    table.set_defaults(run=_table)
    floor = commands.add_parser("floor", help="measure the floors alone, without a server")
    floor.add_argument("--lookups", action="store_true", help="and the shapes without aggregates")
    floor.set_defaults(run=_floor)
    for command in (run, table, floor):
        _add_load_options(command)
    ingest = commands.add_parser("ingest", help="measure pushed records")
    default = IngestOptions()
    ingest.add_argument("--json", metavar="FILE", help="keep the figures")
    ingest.add_argument("--picture", metavar="FILE", help="draw them")
    ingest.add_argument("--duration-s", type=float, default=default.duration_s)
    ingest.add_argument("--warmup-s", type=float, default=default.warmup_s)
    ingest.add_argument("--rounds", type=int, default=default.rounds, help="the median is given")
    ingest.add_argument("--clients", type=int, default=default.clients, help="keep-alive connections")
    ingest.set_defaults(run=_ingest)
    for name in SCENARIOS:
        scenario_command.add_command(commands, name)
    stalls_command.add_command(commands)
    soak_command.add_command(commands)
    reloads_command.add_command(commands)
    sweep_command.add_command(commands)
    compare_command.add_command(commands)
    commands.add_parser("smoke", help="see in seconds that figures come out").set_defaults(run=_smoke)
    stand = commands.add_parser("stand", help="keep a stand-in with a service's rows up")
    stand.add_argument("--service", required=True, choices=list(SHAPES))
    stand.set_defaults(run=_stand)
    return parser


def _add_load_options(command: argparse.ArgumentParser) -> None:
    default = RunOptions()
    command.add_argument("--json", metavar="FILE", help="keep the figures")
    command.add_argument("--duration-s", type=float, default=default.duration_s)
    command.add_argument("--warmup-s", type=float, default=default.warmup_s)
    command.add_argument("--rounds", type=int, default=default.rounds, help="the median is given")
    command.add_argument("--clients", type=int, default=default.clients, help="keep-alive connections")
    command.add_argument("--key-law", choices=("uniform", "zipf"), default=default.key_law)
    command.add_argument("--rate", type=float, help="requests per second, open loop; without it closed")
    command.add_argument("--latency", choices=("dynamodb",), help="let the stand-in's calls take time")
    command.add_argument("--no-floor", action="store_true", help="don't measure the floors")
    command.add_argument("--no-bare", action="store_true", help="don't measure the bare server")
    command.add_argument(
        "--feast", action="store_true", help=f"measure Feast beside {FEAST_SERVICE}; installs it apart"
    )
    command.add_argument("--strict", action="store_true", help="end with 1 when a budget is exceeded")


if __name__ == "__main__":
    sys.exit(main())
