"""`python -m perf scenario1` and `scenario2`: measure, keep the figures, draw them, say them.

Invariants:
1. JSON, HTML and PNG tell of one run; they stand beside each other under one name.
2. It ends with 1 when an answer failed or was wrong, under `--strict` also when a promise doesn't hold.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perf.environment import describe_environment
from perf.kept import keep_result
from perf.load.cpus import can_keep_awake
from perf.scenario import on_redis
from perf.scenario.definition import BUNDLED, PERCENTILES, SCENARIOS
from perf.scenario.figures import STALL_MS, problems_of, scenario_figures
from perf.scenario.measure import QUICK, ScenarioOptions, run_scenario
from perf.scenario.page import render_page

if TYPE_CHECKING:
    import argparse

RESULTS = Path(__file__).resolve().parents[1] / "results"


def add_command(commands: Any, name: str) -> None:
    """Declare the command of one scenario."""
    default = ScenarioOptions()
    command = commands.add_parser(name, help=SCENARIOS[name].title)
    command.add_argument("--json", metavar="FILE", type=Path, help=f"default: {name}.json of the results")
    command.add_argument(
        "--store",
        choices=("dynamodb", "redis"),
        default="dynamodb",
        help="the stand-in for DynamoDB, or a redis-server of this machine",
    )
    if name in BUNDLED:
        command.add_argument("--bundled", action="store_true", help="with the views of a service in one item")
    command.add_argument("--duration-s", type=float, default=default.duration_s, help="of each quoted load")
    command.add_argument("--rounds", type=int, default=default.rounds, help="of each service alone")
    command.add_argument("--workers", type=int, default=default.workers)
    command.add_argument("--key-law", choices=("uniform", "zipf"), default=default.key_law)
    command.add_argument("--let-cpus-sleep", action="store_true", help="don't keep them awake meanwhile")
    command.add_argument("--quick", action="store_true", help="seconds, not to be quoted")
    command.add_argument("--strict", action="store_true", help="end with 1 when a promise doesn't hold")
    command.set_defaults(run=run, scenario=name)


def run(options: argparse.Namespace) -> int:
    """Run the scenario that the arguments name; give the exit status."""
    bundled = getattr(options, "bundled", False)
    scenario = (BUNDLED if bundled else SCENARIOS)[options.scenario]
    kept = options.json or RESULTS / f"{scenario.name}{'-bundled' if bundled else ''}.json"
    chosen = {
        "workers": options.workers,
        "key_law": options.key_law,
        "keep_awake": not options.let_cpus_sleep and can_keep_awake(),
    }
    longer = {} if options.quick else {"duration_s": options.duration_s, "rounds": options.rounds}
    settings = replace(QUICK if options.quick else ScenarioOptions(), **chosen, **longer)
    if options.store == "redis":
        if bundled:
            raise SystemExit("--bundled: expected the stand-in for DynamoDB, got --store redis")
        path = options.json or RESULTS / f"{scenario.name}-redis.json"
        status, promises = on_redis.run(scenario, settings, path)
        return 1 if status or (options.strict and not all(entry["holds"] for entry in promises)) else 0
    load_before, started_s = round(os.getloadavg()[0], 2), time.monotonic()
    measured = run_scenario(scenario, settings)
    document = {
        **scenario_figures(scenario, measured),
        "options": asdict(settings),
        "took_s": time.monotonic() - started_s,
        "load_average_before": load_before,
        **describe_environment(),
    }
    print(summarize(document))
    keep(document, kept)
    problems = problems_of(document)
    for problem in problems:
        print(problem, file=sys.stderr)
    broken = options.strict and not all(entry["holds"] for entry in document["promises"])
    return 1 if problems or broken else 0


def keep(document: dict[str, Any], path: Path) -> None:
    """Write the figures, their picture and their page beside each other; figures alone without matplotlib."""
    keep_result(document, path)
    try:
        from perf.scenario.picture import draw_scenario
        from perf.style import save
    except ModuleNotFoundError as error:
        print(f"no picture and no page: {error}; `make test` installs what draws them", file=sys.stderr)
        return

    picture = path.with_suffix(".png")
    save(draw_scenario(document), picture)
    path.with_suffix(".html").write_text(render_page(document, picture.read_bytes()), encoding="utf-8")


def summarize(document: dict[str, Any]) -> str:
    """Say the figures in a table for the terminal."""
    form = "{:<16}{:>9}{:>10}" + "{:>9}" * 4 + "{:>11}{:>11}{:>9}{:>8}"
    head = ["", "FS-QPS", "DDB-QPS", *(f"{name} ms" for name in PERCENTILES), "p50 above", "p99 above"]
    lines = [form.format(*head, "CPU us", "errors")]
    for service in document["services"]:
        above = [f"{service['above_store_ms'][name]:.2f}" for name in ("p50", "p99")]
        lines.append(form.format(service["name"], *_traffic(service), *above, *_cost(service)))
    overall = {**document["overall"], "cpu_us_per_request": document["mix_cpu_us"]}
    lines.append(form.format("all", *_traffic(overall), "", "", *_cost(overall)))
    article = [f"{document['article']['overall'][name]:g}" for name in PERCENTILES]
    lines.append(form.format("the article", "", "", *article, "", "", "", ""))
    scaled = document["extrapolation"]
    extrapolated = (
        f"\nextrapolated, not measured: {scaled['fs_qps']:,} FS-QPS at {document['mix_cpu_us']:.1f} us "
        f"would take {scaled['cores']:.1f} cores of the server"
    )
    loads, promises = map(_load_line, document["loads"]), map(_promise_line, document["promises"])
    return "\n".join([*lines, extrapolated, *loads, "", *promises])


def _load_line(load: dict[str, Any]) -> str:
    overall, stalls = load["overall"], load["stalls"]
    return (
        f"{load['name']}: {overall['fs_qps']:,.0f} FS-QPS, p50 {overall['p50_ms']:.2f} ms, "
        f"p99 {overall['p99_ms']:.2f} ms, {stalls[f'over_{STALL_MS}_ms']} of {stalls['probes']} probes "
        f"over {STALL_MS} ms (longest {stalls['longest_ms']:.1f} ms), "
        f"the server at work in {stalls[f'server_worked_over_{STALL_MS}_ms']}"
    )


def _promise_line(entry: dict[str, Any]) -> str:
    verdict = "holds        " if entry["holds"] else "DOES NOT HOLD"
    return f"{verdict}  {entry['what']}: {entry['measured']:.2f}, at most {entry['limit']:g}"


def _traffic(entry: dict[str, Any]) -> list[str]:
    latencies = [f"{entry[f'{name}_ms']:.2f}" for name in PERCENTILES]
    return [f"{entry['fs_qps']:,.0f}", f"{entry['ddb_qps']:,.0f}", *latencies]


def _cost(entry: dict[str, Any]) -> list[str]:
    return [f"{entry['cpu_us_per_request']:.1f}", str(entry["errors"])]
