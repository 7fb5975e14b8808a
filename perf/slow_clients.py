"""`python -m perf.slow_clients`: what clients that crawl cost the others, by slowhttptest in its four modes.

One worker, a few good clients at a steady rate; beside them so many connections that send heads, bodies or
ranges slowly or read slowly. Needs Debian's slowhttptest, and a limit of open files above the connections.

Invariants:
1. It ends with 1 when a good client's request failed, or their p99 is above twice that of the idle server.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from typing import Any

from perf import server
from perf.data import SHAPES, prepare_service, request_stream
from perf.load import standin_client
from perf.load.child import run_load
from perf.load.load_plan import LoadPlan

SERVICE = "fs_1x10"
PATH = "/api/v1/feature-service/get-features"
MODES = {
    "slow heads": ["-H", "-i", "1", "-x", "24"],
    "slow bodies": ["-B", "-i", "1", "-s", "8192", "-x", "10"],
    "ranges": ["-R", "-a", "10", "-b", "3000"],
    "slow reading": ["-X", "-n", "1", "-z", "32", "-w", "10", "-y", "20"],
}
RATE_PER_S = 200.0
GOOD_CLIENTS = 8
BEGIN_S = 3.0


def measure(connections: int, seconds: float) -> dict[str, dict[str, Any]]:
    """Give what good clients saw, idle and beside each mode.

    Raises:
        ChildError: a process did not come up, or failed.
        FileNotFoundError: slowhttptest isn't installed.
    """
    program = shutil.which("slowhttptest") or "/usr/bin/slowhttptest"
    found = {}
    with standin_client.running() as stand_in:
        prepare_service(stand_in, SERVICE)
        with server.running(SHAPES[SERVICE].repo_path, stand_in.store_url()) as (_, port):
            found["idle"] = _good_clients(port, seconds)
            for mode, flags in MODES.items():
                attack = [program, *flags, "-c", str(connections), "-r", str(connections // 2)]
                attack += ["-l", str(int(seconds + 2 * BEGIN_S)), "-p", "3"]
                attack += ["-u", f"http://127.0.0.1:{port}{PATH}"]
                with subprocess.Popen(
                    attack, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                ) as process:
                    time.sleep(BEGIN_S)  # until its connections stand
                    found[mode] = _good_clients(port, seconds)
                    process.terminate()
    return found


def _good_clients(port: int, seconds: float) -> dict[str, Any]:
    stream = request_stream(
        SERVICE, connections=GOOD_CLIENTS, entities=100_000, key_law="uniform", rate_per_s=RATE_PER_S
    )
    report = run_load(LoadPlan(port, (stream,), warmup_s=1.0, duration_s=seconds))
    figures: dict[str, Any] = report["streams"][0]
    return {name: figures[name] for name in ("latency_ms", "errors", "wrong", "problems")}


def main() -> int:
    """Measure and print; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m perf.slow_clients", description=__doc__)
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=15.0, help="for each mode")
    parser.add_argument("--json", action="store_true", help="print all figures")
    options = parser.parse_args()
    found = measure(options.connections, options.seconds)
    if options.json:
        print(json.dumps(found, indent=2))
    idle_ms = found["idle"]["latency_ms"]["p99"]
    status = 0
    for mode, figures in found.items():
        latency = figures["latency_ms"]
        is_good = not figures["errors"] and not figures["wrong"] and latency["p99"] <= 2 * idle_ms
        status = status if is_good else 1
        print(
            f"{mode:14} {latency['count']:6} requests, {figures['errors']} errors, "
            f"p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms{'' if is_good else '  over the goal'}"
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
