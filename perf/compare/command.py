"""`python -m perf compare`: fastserve, the floor and what a user would run instead, in one run.

All take turns in every round, with the same generator over the same stand-in.

Invariants:
1. Ratios are of medians of the same rounds; the rounds are kept beside them.
2. It ends with 1 when an answer failed or was wrong, under `--strict` also when a promise doesn't hold.
3. Figures that others published are lines, and say whose they are.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perf.compare.contenders import FASTAPI, FASTSERVE, FEAST, FLOOR, NAMES, SERVICES, TLS, Contender, start
from perf.compare.fastapi.server import ENVIRONMENT as FASTAPI_ENVIRONMENT
from perf.compare.feast.environment import feast_version
from perf.data import service_plan
from perf.environment import describe_environment
from perf.kept import keep_result
from perf.load import standin_client
from perf.load.child import run_load
from perf.load.load_plan import LoadPlan
from perf.progress import Progress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

Report = dict[str, Any]
RESULT = Path(__file__).resolve().parents[1] / "results" / "compare.json"
# RonDB's REST server: 104.5 million row look-ups a second on 36 machines of 16 CPUs, as published.
RONDB_LOOKUPS_PER_CPU_S = 181_000
# What was promised: times less CPU than Feast, times the floor at most, times the CPU under TLS at most.
FEAST_TIMES = {"lookups_1x10": 75, "lookups_5x100": 250, "lookups_50x100": 600}
FLOOR_TIMES = {"lookups_1x10": 1.6}
TLS_TIMES = 1.25
_AROUND_S = 1.3


def add_command(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("compare", help="measure what a user would run instead, in the same rounds")
    command.add_argument("--json", metavar="FILE", type=Path, default=RESULT)
    command.add_argument("--duration-s", type=float, default=1.5, help="of a turn")
    command.add_argument("--warmup-s", type=float, default=0.5)
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--without", choices=list(NAMES), action="append", default=[], help="leave out")
    command.add_argument("--strict", action="store_true", help="end with 1 when a promise doesn't hold")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, keep, draw and say; give the exit status."""
    kinds = [kind for kind in NAMES if kind not in options.without]
    load_before, started_s = round(os.getloadavg()[0], 2), time.monotonic()
    compared = compare(kinds, options.rounds, options.duration_s, options.warmup_s)
    document = {
        "compared": compared,
        "promises": promises_of(compared),
        "published": {"RonDB, row look-ups per CPU and second": RONDB_LOOKUPS_PER_CPU_S},
        "peers": {FEAST: feast_version(), FASTAPI: FASTAPI_ENVIRONMENT.version},
        "options": {name: getattr(options, name) for name in ("rounds", "duration_s", "warmup_s")},
        "took_s": time.monotonic() - started_s,
        "load_average_before": load_before,
        **describe_environment(),
    }
    keep_result(document, options.json)
    from perf.compare.picture import draw_comparison
    from perf.style import save

    save(draw_comparison(document), options.json.with_suffix(".png"))
    print(summarize(document))
    failed = [entry for entry in compared if entry["errors"] or entry["wrong"]]
    for entry in failed:
        print(f"{entry['kind']}, {entry['service']}: {entry['problems']}", file=sys.stderr)
    broken = options.strict and not all(entry["holds"] for entry in document["promises"])
    return 1 if failed or broken else 0


def compare(
    kinds: Sequence[str],
    rounds: int,
    duration_s: float,
    warmup_s: float,
    services: Sequence[str] = SERVICES,
) -> list[dict[str, Any]]:
    """Measure kinds of servers over all shapes in turns; give the figures of each.

    Raises:
        ChildError: a process did not come up, or an environment can't be made.
    """
    with standin_client.running(tls=TLS in kinds) as stand_in, contextlib.ExitStack() as stack:
        contenders = list(start(stand_in, services, kinds, stack))
        reports: list[list[Report]] = [[] for _ in contenders]
        planned_s = rounds * sum(_turn_s(entry, duration_s, warmup_s) for entry in contenders)
        bar = stack.enter_context(Progress("compare", planned_s))
        for number in range(rounds):
            order = list(enumerate(contenders))
            for place, contender in order if number % 2 == 0 else reversed(order):
                plan = LoadPlan(
                    contender.port,
                    (contender.stream(),),
                    warmup_s=warmup_s,
                    duration_s=duration_s * contender.turn,
                    timeout_s=30.0,
                    seed=1 + number,
                    watch={"server": contender.pid, "stand_in": stand_in.pid},
                    stand_in_port=stand_in.port,
                )
                reports[place].append(run_load(plan))
                bar.advance(_turn_s(contender, duration_s, warmup_s), f"{contender.kind} {contender.service}")
    return _with_ratios([_figures(entry, found) for entry, found in zip(contenders, reports, strict=True)])


def _turn_s(contender: Contender, duration_s: float, warmup_s: float) -> float:
    return duration_s * contender.turn + warmup_s + _AROUND_S


def _figures(contender: Contender, reports: Sequence[Report]) -> dict[str, Any]:
    report = sorted(reports, key=_cpu_us)[len(reports) // 2]
    streams = [stream for entry in reports for stream in entry["streams"]]
    (stream,) = report["streams"]
    cpu_us, keys = _cpu_us(report), service_plan(contender.service).key_count
    return {
        "kind": contender.kind,
        "name": NAMES[contender.kind],
        "service": contender.service,
        "cpu_us_per_request": cpu_us,
        "rounds_cpu_us": [_cpu_us(entry) for entry in reports],
        "lookups_per_cpu_s": keys * 1e6 / cpu_us,
        "clients": contender.clients,
        "fs_qps": report["fs_qps"],
        "p50_ms": stream["latency_ms"]["p50"],
        "p99_ms": stream["latency_ms"]["p99"],
        "rss_mib": report["processes"]["server"]["rss_mib_total"],
        "requests": report["requests"],
        **{name: sum(entry[name] for entry in streams) for name in ("errors", "verified", "wrong")},
        "problems": [problem for entry in streams for problem in entry["problems"]],
    }


def _with_ratios(compared: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ours = {entry["service"]: entry for entry in compared if entry["kind"] == FASTSERVE}
    for entry in compared:
        if entry["service"] in ours:
            entry["x_fastserve"] = _ratio(entry, ours[entry["service"]])
    return compared


def _ratio(entry: dict[str, Any], other: dict[str, Any]) -> float:
    return float(entry["cpu_us_per_request"] / other["cpu_us_per_request"])


def _cpu_us(report: Report) -> float:
    return float(report["processes"]["server"]["cpu_us_per_request"])


def promises_of(compared: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hold ratios against what was promised, where both sides were measured."""
    found = {(entry["kind"], entry["service"]): entry for entry in compared}
    promises = []
    for service in SERVICES:
        ours = found.get((FASTSERVE, service))
        if ours is None:
            continue
        if (FEAST, service) in found:
            times, what = _ratio(found[FEAST, service], ours), f"Feast's CPU by ours, {service}"
            promises.append(_promise(what, times, at_least=FEAST_TIMES[service]))
        if (FLOOR, service) in found and service in FLOOR_TIMES:
            times, what = _ratio(ours, found[FLOOR, service]), f"our CPU by the floor's, {service}"
            promises.append(_promise(what, times, at_most=FLOOR_TIMES[service]))
        if (TLS, service) in found:
            times, what = _ratio(found[TLS, service], ours), f"our CPU under TLS by that without, {service}"
            promises.append(_promise(what, times, at_most=TLS_TIMES))
    return promises


def _promise(
    what: str, measured: float, *, at_least: float | None = None, at_most: float | None = None
) -> dict[str, Any]:
    if at_least is not None:
        bound, limit, holds = "at least", at_least, measured >= at_least
    else:
        assert at_most is not None
        bound, limit, holds = "at most", at_most, measured <= at_most
    return {"what": what, "bound": bound, "limit": limit, "measured": measured, "holds": holds}


def summarize(document: dict[str, Any]) -> str:
    """Say the figures in a table for the terminal."""
    form = "{:<16}{:<30}{:>11}{:>20}{:>9}{:>14}{:>10}{:>10}{:>9}{:>15}"
    head = ["service", "server", "CPU us", "rounds us", "x ours", "look-ups/CPU", "FS-QPS", "p99 ms"]
    lines = [form.format(*head, "RSS MiB", "wrong/checked")]
    for entry in document["compared"]:
        rounds = f"{min(entry['rounds_cpu_us']):,.1f}-{max(entry['rounds_cpu_us']):,.1f}"
        ratio = f"{entry['x_fastserve']:.2f}" if "x_fastserve" in entry else "–"
        figures = [f"{entry['cpu_us_per_request']:,.1f}", rounds, ratio, f"{entry['lookups_per_cpu_s']:,.0f}"]
        figures += [f"{entry['fs_qps']:,.0f}", f"{entry['p99_ms']:,.2f}", f"{entry['rss_mib']:.0f}"]
        checked = f"{entry['wrong']}/{entry['verified']}"
        lines.append(form.format(entry["service"], entry["name"], *figures, checked))
    published = (
        f"RonDB published {RONDB_LOOKUPS_PER_CPU_S:,} row look-ups per CPU and second, on its own machines"
    )
    return "\n".join([*lines, "", published, *map(_promise_line, document["promises"])])


def _promise_line(entry: dict[str, Any]) -> str:
    verdict = "holds        " if entry["holds"] else "DOES NOT HOLD"
    return f"{verdict}  {entry['what']}: {entry['measured']:.2f}, {entry['bound']} {entry['limit']:g}"
