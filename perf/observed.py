"""What it costs a server to be looked at: metrics, logs of three kinds, traces; CPU per request.

Run as `python -m perf.observed [--service NAME …]`. Servers with and without stand beside each other over one
stand-in store and are loaded in turns; the server with metrics is scraped once a second, as Prometheus would.

Invariants
1. What is compared was measured in one run, round by round, by one generator with the same keys; a figure is
   the median of the rounds' differences, which stand beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from perf import server
from perf.data import SHAPES, prepare_service, request_stream
from perf.environment import describe_environment
from perf.kept import keep_result
from perf.load import standin_client
from perf.load.child import run_load
from perf.load.free_port import free_port
from perf.load.load_plan import LoadPlan

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SERVICES = ("fs_1x10", "fs_5x100")
BARE, DEFAULTS, SLOW = "bare", "metrics, JSON log", "and slow requests"
KEPT, TRACED = "and a feature log", "and traces, 1 %"
SCRAPE_EVERY_S = 1.0


def variants(admin_port: int, folder: str) -> dict[str, list[str]]:
    """Give the flags of each server, which has those of the one before, too; ``folder`` is a feature log's.

    The ports of admin listeners follow each other.
    """
    looked_at = ["--log-format", "json", "--admin-port"]
    slow = ["--slow-request-ms", "1000"]
    kept = [*slow, "--feature-log", folder]
    # Nothing listens there: what a trace costs the loop is the same, and is dropped by the thread.
    traced = ["--trace-endpoint", f"http://127.0.0.1:{free_port()}"]
    return {
        BARE: [],
        DEFAULTS: [*looked_at, str(admin_port)],
        SLOW: [*looked_at, "0", *slow],
        KEPT: [*looked_at, "0", *kept],
        TRACED: [*looked_at, "0", *kept, *traced],
    }


@contextlib.contextmanager
def scraped(port: int) -> Iterator[None]:
    """Ask for /metrics once a second until the end of the block."""
    is_over = threading.Event()

    def scrape() -> None:
        while not is_over.wait(SCRAPE_EVERY_S):
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            with contextlib.suppress(OSError, HTTPException), contextlib.closing(connection):
                connection.request("GET", "/metrics")
                connection.getresponse().read()

    thread = threading.Thread(target=scrape, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def measure(service: str, options: argparse.Namespace) -> dict[str, Any]:
    """Load a service on each server in turns.

    Raises:
        ChildError: a process did not come up.
    """
    admin_port = free_port()
    costs: dict[str, list[float]] = {}
    bad = 0
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory())
        stand_in = stack.enter_context(standin_client.running())
        prepare_service(stand_in, service)
        repo = SHAPES[service].repo_path
        servers = {
            name: stack.enter_context(server.running(repo, stand_in.store_url(), flags))
            for name, flags in variants(admin_port, folder).items()
        }
        stack.enter_context(scraped(admin_port))
        for number in range(options.rounds):
            for name in list(servers) if number % 2 == 0 else reversed(servers):
                pid, port = servers[name]
                stream = request_stream(service, connections=options.clients)
                plan = LoadPlan(
                    port,
                    (stream,),
                    warmup_s=options.warmup_s,
                    duration_s=options.duration_s,
                    seed=number,
                    watch={"server": pid},
                )
                report = run_load(plan)
                costs.setdefault(name, []).append(report["processes"]["server"]["cpu_us_per_request"])
                bad += sum(stream["errors"] + stream["wrong"] for stream in report["streams"])
    return {"service": service, "bad": bad, "servers": figures(costs)}


def figures(costs: Mapping[str, list[float]]) -> dict[str, Any]:
    """Give each server's cost, and what it is above the bare one's in the same round."""
    return {
        name: {
            "cpu_us_per_request": median(rounds),
            "added_us": median(more - bare for more, bare in zip(rounds, costs[BARE], strict=True)),
            "rounds_cpu_us": rounds,
        }
        for name, rounds in costs.items()
    }


def main() -> int:
    """Measure and print; 1 when an answer failed or was wrong."""
    parser = argparse.ArgumentParser(prog="python -m perf.observed", description=__doc__)
    parser.add_argument("--service", action="append", choices=list(SHAPES), help="may be repeated")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--duration-s", type=float, default=2.0)
    parser.add_argument("--warmup-s", type=float, default=0.5)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    options = parser.parse_args()
    load_before, started_s = round(os.getloadavg()[0], 2), time.monotonic()
    form = "{:<12}{:<20}{:>10}{:>10}   {}"
    print(form.format("", "", "CPU us", "added us", "rounds"))
    measured = []
    for service in options.service or SERVICES:
        found = measure(service, options)
        measured.append(found)
        for name, one in found["servers"].items():
            rounds = " ".join(f"{cost:.1f}" for cost in one["rounds_cpu_us"])
            costs = [f"{one['cpu_us_per_request']:.1f}", f"{one['added_us']:+.1f}"]
            print(form.format(service, name, *costs, rounds), flush=True)
    if options.json:
        run = {key: value for key, value in vars(options).items() if key != "json"}
        document = {"services": measured, "options": run, "load_average_before": load_before}
        document |= {"took_s": time.monotonic() - started_s, **describe_environment()}
        keep_result(document, options.json)
    return 1 if any(found["bad"] for found in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
