"""`python -m perf stalls`: a mix at half of its saturation for ten minutes, for what is rare: stalls, growth.

Invariants:
1. Memory is told at the start and at the end; probes of /healthz run all the time.
2. It ends with 1 when an answer failed or was wrong.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perf.environment import describe_environment
from perf.kept import keep_result
from perf.load.cpus import can_keep_awake
from perf.load.processes import read_tree
from perf.progress import Progress
from perf.scenario.definition import SCENARIOS
from perf.scenario.figures import QUOTED_SHARE, STALL_MS, load_figures
from perf.scenario.measure import LAW, ScenarioOptions, load_mix, running, saturate

if TYPE_CHECKING:
    import argparse

RESULT = Path(__file__).resolve().parents[1] / "results" / "stalls.json"


def add_command(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("stalls", help="load a scenario's mix for minutes and watch for stalls")
    command.add_argument("--scenario", choices=list(SCENARIOS), default="scenario1")
    command.add_argument("--minutes", type=float, default=10.0)
    command.add_argument("--json", metavar="FILE", type=Path, default=RESULT)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, keep and say; give the exit status."""
    scenario = SCENARIOS[options.scenario]
    settings = replace(ScenarioOptions(), duration_s=options.minutes * 60, keep_awake=can_keep_awake())
    load_before = round(os.getloadavg()[0], 2)
    planned_s = settings.duration_s + settings.saturation_s + 2 * settings.warmup_s + 3
    with running(scenario, settings) as setting, Progress("stalls", planned_s) as bar:
        rate_per_s = QUOTED_SHARE * saturate(setting, LAW, bar)["fs_qps"]
        rss_before = _rss_mib(setting.server_pid)
        report = load_mix(setting, LAW, rate_per_s, QUOTED_SHARE, bar)
        rss_after = _rss_mib(setting.server_pid)
    figures = load_figures(scenario, LAW, QUOTED_SHARE, report)
    document = {
        **figures,
        "scenario": scenario.name,
        "rss_mib_before_and_after": [rss_before, rss_after],
        "keep_awake": settings.keep_awake,
        "alone": settings.alone,
        "load_average_before": load_before,
        **describe_environment(),
    }
    keep_result(document, options.json)
    print(_summary(document))
    problems = [problem for service in figures["services"] for problem in service["problems"]]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _summary(document: dict[str, Any]) -> str:
    stalls, overall = document["stalls"], document["overall"]
    before, after = document["rss_mib_before_and_after"]
    return (
        f"{overall['fs_qps']:,.0f} FS-QPS for {document['seconds']:.0f} s: p50 {overall['p50_ms']:.2f} ms, "
        f"p99 {overall['p99_ms']:.2f} ms, {overall['errors']} errors\n"
        f"{stalls[f'over_{STALL_MS}_ms']} of {stalls['probes']} probes over {STALL_MS} ms, the longest "
        f"{stalls['longest_ms']:.1f} ms; in {stalls[f'server_worked_over_{STALL_MS}_ms']} of them the server "
        f"worked for over {STALL_MS} ms; the generator itself was late "
        f"{stalls[f'generator_over_{STALL_MS}_ms']} times\n"
        f"the server waited for a CPU {stalls['server_waited_for_cpu_share']:.1%} of the time; memory "
        f"{before:.0f} MiB before, {after:.0f} MiB after"
    )


def _rss_mib(pid: int) -> float:
    return sum(reading.rss_bytes for reading in read_tree(pid)) / 2**20
