"""`python -m perf.blocking_view`: what an on-demand view that stands still costs the requests for others.

One worker. Good clients ask for an on-demand view in Python at a steady rate: alone, beside callers of an
isolated view that never returns (so that helper processes are killed at its limit and replaced), and alone
again.

Invariants:
1. It ends with 1 when a good client's request failed or was wrong, when their p99 beside the callers is above
   `TIMES` that of before and more than `SLACK_MS` above it, or when a caller saw anything but 504.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

from perf import server
from perf.data import SHAPES, prepare_service, request_stream
from perf.load import standin_client
from perf.load.child import run_load
from perf.load.load_plan import LoadPlan

GOOD = "jaccard_python"
BODY = json.dumps({"params": {"featureServiceName": "standstill", "requestContextMap": {"amount": 12.5}}})
PATH = "/api/v1/feature-service/get-features"
RATE_PER_S = 500.0
GOOD_CLIENTS = 16
CALLERS = 8
TIMES = 2.0
SLACK_MS = 2.0


def measure(seconds: float, warmup_s: float = 1.0) -> tuple[dict[str, dict[str, Any]], Counter[int]]:
    """Give what good clients saw before, during and after, and the callers' statuses.

    Raises:
        ChildError: a process did not come up, or failed.
    """
    found: dict[str, dict[str, Any]] = {}
    with standin_client.running() as stand_in:
        prepare_service(stand_in, GOOD)
        with server.running(SHAPES[GOOD].repo_path, stand_in.store_url()) as (_, port):
            found["before"] = _good_clients(port, seconds, warmup_s)
            ended = Event()
            with ThreadPoolExecutor(CALLERS) as pool:
                calls = [pool.submit(_call_until, port, ended) for _ in range(CALLERS)]
                try:
                    found["during"] = _good_clients(port, seconds, warmup_s)
                finally:
                    ended.set()
                statuses: Counter[int] = sum((call.result() for call in calls), Counter())
            found["after"] = _good_clients(port, seconds, warmup_s)
    return found, statuses


def _call_until(port: int, ended: Event) -> Counter[int]:
    """Ask for the view that stands still, again and again; give how often each status came."""
    statuses: Counter[int] = Counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    while not ended.is_set():
        connection.request("POST", PATH, BODY)
        response = connection.getresponse()
        response.read()
        statuses[response.status] += 1
    connection.close()
    return statuses


def _good_clients(port: int, seconds: float, warmup_s: float) -> dict[str, Any]:
    stream = request_stream(
        GOOD, connections=GOOD_CLIENTS, entities=10_000, key_law="uniform", rate_per_s=RATE_PER_S
    )
    report = run_load(LoadPlan(port, (stream,), warmup_s=warmup_s, duration_s=seconds))
    figures: dict[str, Any] = report["streams"][0]
    return {name: figures[name] for name in ("latency_ms", "errors", "wrong", "problems")}


def is_undisturbed(before: dict[str, Any], during: dict[str, Any]) -> bool:
    """Whether what good clients saw meets the first invariant."""
    before_ms, during_ms = before["latency_ms"]["p99"], during["latency_ms"]["p99"]
    is_fast = during_ms <= max(TIMES * before_ms, before_ms + SLACK_MS)
    return is_fast and not during["errors"] and not during["wrong"]


def main() -> int:
    """Measure and print; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m perf.blocking_view", description=__doc__)
    parser.add_argument("--seconds", type=float, default=15.0, help="for each stretch")
    parser.add_argument("--json", action="store_true", help="print all figures")
    options = parser.parse_args()
    found, statuses = measure(options.seconds)
    if options.json:
        print(json.dumps({"good_clients": found, "callers": dict(statuses)}, indent=2))
    for stretch, figures in found.items():
        latency, errors, wrong = figures["latency_ms"], figures["errors"], figures["wrong"]
        print(
            f"{stretch:7} {latency['count']:6} requests, {errors} errors, {wrong} wrong, "
            f"p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms"
        )
    print(f"callers of the view that stands still, answers by status: {dict(statuses)}")
    is_good = is_undisturbed(found["before"], found["during"]) and set(statuses) == {504}
    if not is_good:
        print("over the goal: good clients were disturbed, or callers saw something else than 504")
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
