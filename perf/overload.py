"""`python -m perf.overload`: what a worker still answers, and how fast, when more is asked than it can do.

Peak, then twice the peak's rate, then three times, then 0.8 times again, all against one server that goes on.
The server knows nothing of it. Rates are kept by an open loop with so many connections that none is waited
for; a refusal's time counts from the sending of its request, an answer's from its intended start.

Invariants:
1. Goodput is answers 200 in the measured time, whose values are checked as elsewhere. Refusals are 429 and
   503; everything else is an error.
2. It ends with 1 when a goal isn't reached or an answer is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perf import server
from perf.data import SHAPES, prepare_service, request_stream
from perf.environment import describe_environment
from perf.kept import keep_result
from perf.load import standin_client
from perf.load.child import run_load
from perf.load.cpus import can_keep_awake, kept_apart, kept_awake
from perf.load.load_plan import LoadPlan

if TYPE_CHECKING:
    from collections.abc import Callable

Report = dict[str, Any]

CONNECTIONS = 2_048
# As docs/operating.md has it for a service that promises 100 ms.
PROMISES_100_MS = ("--overload-wait-ms", "50")
PEAK_CLIENTS = 16
RECOVERY_S = 5.0
GOODPUT = 0.9
REFUSED_P99_MS = 5.0


@dataclass(frozen=True)
class OverloadOptions:
    """What is loaded, and for how long at twice the peak; half of it at three times.

    On a machine shared with others a peak of four seconds differs from the next one by a tenth and more: it
    has to be measured for long, too.
    """

    service: str = "fs_50x100"
    seconds: float = 60.0
    peak_s: float = 20.0
    calm_s: float = 8.0


def measure_overload(options: OverloadOptions) -> Report:
    """Load one worker with more than it can do.

    Raises:
        ChildError: a process did not come up, or failed.
    """
    with kept_apart(workers=1, alone=True) as give_cpus, kept_awake(), standin_client.running() as stand_in:
        prepare_service(stand_in, options.service)
        repo, store_url = SHAPES[options.service].repo_path, stand_in.store_url()
        with server.running(repo, store_url, PROMISES_100_MS) as (pid, port):
            give_cpus(pid)

            def load(rate_per_s: float | None, duration_s: float, warmup_s: float = 2.0) -> Report:
                clients = PEAK_CLIENTS if rate_per_s is None else CONNECTIONS
                stream = request_stream(
                    options.service,
                    connections=clients,
                    entities=100_000,
                    key_law="uniform",
                    rate_per_s=rate_per_s,
                    may_refuse=True,
                )
                plan = LoadPlan(
                    port, (stream,), warmup_s=warmup_s, duration_s=duration_s, watch={"server": pid}
                )
                return _figures(run_load(plan))

            return _phases(load, options)


def _phases(load: Callable[..., Report], options: OverloadOptions) -> Report:
    peaks = [load(None, options.peak_s)]
    peak_qps = peaks[0]["goodput_qps"]
    before = load(0.8 * peak_qps, options.calm_s)
    twice = load(2 * peak_qps, options.seconds)
    # The machine's other tenants come and go: the peak is what it was on both sides.
    peaks.append(load(None, options.peak_s))
    thrice = load(3 * peak_qps, options.seconds / 2)
    # Counted from the end of the overload: connecting anew is part of the five seconds.
    after = load(0.8 * peak_qps, options.calm_s, RECOVERY_S)
    measured = {"peak_qps": sum(peak["goodput_qps"] for peak in peaks) / 2, "peaks": peaks}
    phases = {"before": before, "twice": twice, "thrice": thrice, "after": after}
    return {**measured, **phases, "goodput_of_peak": twice["goodput_qps"] / measured["peak_qps"]}


def _figures(report: Report) -> Report:
    (stream,) = report["streams"]
    return {
        "goodput_qps": stream["answered"] / report["measured_s"],
        "refused_qps": stream["refused_ms"]["count"] / report["measured_s"],
        "errors": stream["errors"],
        "wrong": stream["wrong"],
        "problems": stream["problems"],
        "answered_ms": stream["latency_ms"],
        "refused_ms": stream["refused_ms"],
        "server_cores": report["processes"]["server"]["cpu_s"] / report["measured_s"],
        "load_average": round(os.getloadavg()[0], 2),
    }


def missed(measured: Report) -> list[str]:
    """Return the goals that weren't reached, each in a line."""
    after, before, twice = measured["after"], measured["before"], measured["twice"]
    found = [
        f"{name}: {phase['errors']} errors, {phase['wrong']} wrong: {', '.join(phase['problems'])}"
        for name, phase in measured.items()
        if isinstance(phase, dict) and (phase["errors"] or phase["wrong"])
    ]
    if measured["goodput_of_peak"] < GOODPUT:
        found.append(f"goodput at twice the peak is {measured['goodput_of_peak']:.0%} of it")
    if twice["refused_ms"]["p99"] > REFUSED_P99_MS:
        found.append(f"the p99 of refusals at twice the peak is {twice['refused_ms']['p99']:.1f} ms")
    if after["refused_ms"]["count"] > before["refused_ms"]["count"]:
        found.append(f"{after['refused_ms']['count']} refusals {RECOVERY_S:g} s after the overload")
    if after["answered_ms"]["p50"] > 2 * before["answered_ms"]["p50"] + 1:
        found.append(f"answers take {after['answered_ms']['p50']:.1f} ms after the overload")
    return found


def format_overload(measured: Report) -> str:
    """Return the phases as a table."""
    peaks = {f"peak {at}": peak for at, peak in enumerate(measured["peaks"], 1)}
    phases = {**peaks, **{name: measured[name] for name in ("before", "twice", "thrice", "after")}}
    lines = [
        "| load | goodput/s | refused/s | errors | p50, p99 ms | refused p50, p99 ms | cores | load avg |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name, phase in phases.items():
        ok, refused = phase["answered_ms"], phase["refused_ms"]
        lines.append(
            f"| {name} | {phase['goodput_qps']:.0f} | {phase['refused_qps']:.0f} | {phase['errors']} "
            f"| {ok['p50']:.1f}, {ok['p99']:.1f} | {refused['p50']:.1f}, {refused['p99']:.1f} "
            f"| {phase['server_cores']:.2f} | {phase['load_average']} |"
        )
    return "\n".join([*lines, f"goodput at twice the peak: {measured['goodput_of_peak']:.0%} of it"])


def main() -> int:
    """Measure and print; give the exit status."""
    default = OverloadOptions()
    parser = argparse.ArgumentParser(prog="python -m perf.overload", description=__doc__)
    parser.add_argument("--service", choices=list(SHAPES), default=default.service)
    parser.add_argument("--seconds", type=float, default=default.seconds, help="at twice the peak")
    parser.add_argument("--peak-s", type=float, default=default.peak_s, help="for each of the two peaks")
    parser.add_argument("--calm-s", type=float, default=default.calm_s, help="for each 0.8 times of it")
    parser.add_argument("--json", metavar="FILE", help="keep the figures")
    options = parser.parse_args()
    asked = OverloadOptions(options.service, options.seconds, options.peak_s, options.calm_s)
    measured = measure_overload(asked)
    print(format_overload(measured))
    if options.json:
        document = {
            "overload": measured,
            "keep_awake": can_keep_awake(),
            "alone": True,
            **describe_environment(),
        }
        keep_result(document, Path(options.json))
    problems = missed(measured)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
