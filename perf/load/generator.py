"""The load generator as a process: a plan as JSON on standard input, a report as JSON on standard output.

Closed loop: each connection sends its next request as soon as its answer is whole, which shows saturation.
Open loop: requests have their times, kept whatever the answers do; a latency counts from the intended
start, so waiting for a free connection is part of it (no coordinated omission). A mix is closed, over streams
in fixed shares. Several streams run at once, each with its rate.

Invariants:
1. Only what was intended to start within the measured time is counted, and all of that is: answered,
   failed, or unanswered when the run ended.
2. Costs and counters are read at the start and the end of the measured time, from inside this process.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import uvloop

from perf.load.histogram import Histogram
from perf.load.load_plan import LoadPlan
from perf.load.mix import Mix
from perf.load.precise_timer import PreciseTimer
from perf.load.processes import Reading, read_tree
from perf.load.standin_client import StandInAddress
from perf.load.stream_load import STALL_NS, StreamLoad, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

_WATCH_EVERY_S = 0.1
_DRAIN_MAX_S = 5.0
_DRAIN_EVERY_S = 0.01


class Arrivals:
    """The open loop of one stream: arrivals at their times, whatever the answers do."""

    def __init__(self, load: StreamLoad, timer: PreciseTimer, seed: int) -> None:
        rate_per_s = load.stream.rate_per_s
        assert rate_per_s is not None
        self._load = load
        self._timer = timer
        self._gap_s = 1.0 / rate_per_s
        gaps = np.full(1 << 16, self._gap_s)
        if load.stream.arrivals == "poisson":
            gaps = np.random.default_rng(seed).exponential(self._gap_s, 1 << 16)
        self._gaps_ns: list[int] = (gaps * 1e9).astype(np.int64).tolist()
        self._next = 0
        self._due_ns = time.monotonic_ns()

    def run(self) -> None:
        """Send all that is due and wake again for the next."""
        load, gaps = self._load, self._gaps_ns
        if load.stopped:
            return
        now_ns = time.monotonic_ns()
        while self._due_ns <= now_ns:
            load.lateness.record(now_ns - self._due_ns)
            load.arrive(self._due_ns)
            self._due_ns += gaps[self._next]
            self._next = (self._next + 1) & 0xFFFF
        self._timer.call_at(self._due_ns / 1e9, self.run)


class Costs:
    """Readings of all watched processes and of the stand-in at one moment, from which it may count anew."""

    def __init__(self, plan: LoadPlan, *, reset: bool = False) -> None:
        watched = {**plan.watch, "generator": os.getpid()}
        self.readings = {
            name: {entry.pid: entry for entry in read_tree(pid)} for name, pid in watched.items()
        }
        self.stand_in: dict[str, Any] = {}
        if plan.stand_in_port is not None:
            address = StandInAddress(plan.stand_in_port, 0)
            self.stand_in = address.control(reset=True) if reset else address.counters()


async def run_plan(plan: LoadPlan) -> dict[str, Any]:
    """Run a plan and report it.

    Raises:
        OSError: the server can't be connected to.
    """
    loop = asyncio.get_running_loop()
    window = Window()
    timer = PreciseTimer(loop)
    loads = [StreamLoad(stream, plan, window, plan.seed + at) for at, stream in enumerate(plan.streams)]
    mixed = [load for load in loads if load.stream.share is not None]
    mix = Mix(mixed, plan, window) if mixed else None
    loops: list[StreamLoad | Mix] = [*loads, *([mix] if mix else [])]
    for loop_of_load in loops:
        await loop_of_load.open()
    if mix:
        mix.start()
    for at, load in enumerate(loads):
        if load.stream.share is not None:
            continue
        if load.stream.rate_per_s is None:
            load.start_closed()
        else:
            Arrivals(load, timer, plan.seed + 1_000 + at).run()
    watcher = loop.create_task(_watch(loops))
    await asyncio.sleep(plan.warmup_s)
    before = Costs(plan, reset=True)
    window.start_ns = time.monotonic_ns()
    await asyncio.sleep(plan.duration_s)
    window.end_ns = time.monotonic_ns()
    after = Costs(plan)
    await _drain(loops)
    watcher.cancel()
    if mix:
        mix.stop()
    unanswered = [load.stop() for load in loads]
    timer.close()
    return _report(plan, window, loads, unanswered, before, after)


async def _watch(loads: Sequence[StreamLoad | Mix]) -> None:
    while True:
        await asyncio.sleep(_WATCH_EVERY_S)
        for load in loads:
            load.give_up_overdue(time.monotonic_ns())


async def _drain(loads: Sequence[StreamLoad | Mix]) -> None:
    # Looked at now and then rather than signalled: the answer's way stays free of it.
    for _ in range(round(_DRAIN_MAX_S / _DRAIN_EVERY_S)):
        if not any(load.outstanding() for load in loads):
            return
        await asyncio.sleep(_DRAIN_EVERY_S)


def _report(
    plan: LoadPlan,
    window: Window,
    loads: list[StreamLoad],
    unanswered: list[int],
    before: Costs,
    after: Costs,
) -> dict[str, Any]:
    measured_s = (window.end_ns - window.start_ns) / 1e9
    streams = [
        (load, _stream_report(load, left, measured_s)) for load, left in zip(loads, unanswered, strict=True)
    ]
    counted = [load for load in loads if not load.stream.is_probe]
    requests = sum(load.latency.count for load in counted)
    return {
        "measured_s": measured_s,
        "requests": requests,
        "fs_qps": requests / measured_s,
        "streams": [report for load, report in streams if not load.stream.is_probe],
        "probes": [report for load, report in streams if load.stream.is_probe],
        "all_latency_ms": _together(counted).summary_ms(),
        "processes": {
            name: _cost(readings, after.readings[name], requests)
            for name, readings in before.readings.items()
        },
        "store": _store_report(before.stand_in, after.stand_in, measured_s, requests),
        "plan": {"warmup_s": plan.warmup_s, "duration_s": plan.duration_s, "seed": plan.seed},
    }


def _together(loads: Sequence[StreamLoad]) -> Histogram:
    total = Histogram()
    for load in loads:
        total.add(load.latency)
    return total


def _stream_report(load: StreamLoad, unanswered: int, measured_s: float) -> dict[str, Any]:
    return {
        "name": load.stream.name,
        "fs_qps": load.latency.count / measured_s,
        "rate_per_s": load.stream.rate_per_s,
        "connections": load.stream.connections,
        "latency_ms": load.latency.summary_ms(),
        "latency_buckets_ms": load.latency.buckets_ms(),
        "over_10_ms": load.latency.count_over(STALL_NS),
        "server_worked_over_10_ms": load.worked,
        "unjudged_over_10_ms": load.unjudged,
        "generator_late_over_10_ms": load.lateness.count_over(STALL_NS),
        "generator_late_max_ms": load.lateness.max_ns / 1e6,
        "answered": load.answered,
        "refused_ms": load.refused.summary_ms(),
        "errors": load.errors + unanswered,
        "lost": load.lost,
        "unanswered": unanswered,
        "verified": load.verified,
        "wrong": load.wrong,
        "problems": load.problems,
        "response_bytes": load.response_bytes,
    }


def _cost(before: dict[int, Reading], after: dict[int, Reading], requests: int) -> dict[str, Any]:
    both = [(before[pid], after[pid]) for pid in before if pid in after]
    cpu_ns = sum(late.cpu_ns - early.cpu_ns for early, late in both)
    system_ns = sum(late.system_ns - early.system_ns for early, late in both)
    user_ns = sum(late.user_ns - early.user_ns for early, late in both)
    return {
        "processes": len(both),
        "cpu_s": cpu_ns / 1e9,
        "cpu_us_per_request": cpu_ns / 1e3 / requests if requests else 0.0,
        # Ready to run, and the machine ran something else.
        "waited_for_cpu_s": sum(late.waited_ns - early.waited_ns for early, late in both) / 1e9,
        "system_share": system_ns / (system_ns + user_ns) if system_ns + user_ns else 0.0,
        "rss_mib": max((late.rss_bytes for _, late in both), default=0) / 2**20,
        "rss_mib_total": sum(late.rss_bytes for _, late in both) / 2**20,
    }


def _store_report(
    before: dict[str, Any], after: dict[str, Any], measured_s: float, requests: int
) -> dict[str, Any]:
    if not before:
        return {}
    keys = after["keys"] - before["keys"]
    calls = sum(after["calls"].values()) - sum(before["calls"].values())
    return {
        "ddb_qps": keys / measured_s,
        "calls_per_s": calls / measured_s,
        "keys_per_request": keys / requests if requests else 0.0,
        "keys_per_call": keys / calls if calls else 0.0,
        "bytes_out_per_request": (after["bytes_out"] - before["bytes_out"]) / requests if requests else 0.0,
        "connections": after["connections"],
        "errors": after["errors"] - before["errors"],
        "unprocessed_keys": after["unprocessed_keys"] - before["unprocessed_keys"],
        "keys_by_table": after["keys_by_table"],
        "call_ms": after["call_ms"],
        "call_buckets_ms": after["call_buckets_ms"],
    }


def main() -> None:
    """Read a plan, run it, print the report."""
    plan = LoadPlan.from_json(orjson.loads(sys.stdin.buffer.read()))
    # Nothing here makes cycles while it runs; a collection would be seen as the server's latency.
    gc.disable()
    sys.stdout.buffer.write(orjson.dumps(uvloop.run(run_plan(plan))))


if __name__ == "__main__":
    main()
