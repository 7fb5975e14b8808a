"""A scenario on Redis: the same services and shares as on the stand-in, out of a real redis-server.

Latencies are those of a server on this machine: there is no law of another store's in them. What Redis was
asked is what it counts itself. It holds all keys that are asked for, and memory bounds how many those are, so
fewer entities than on the stand-in: more requests of one moment ask for the same key.

Invariants:
1. Saturation is found first; the rates of the open loops follow from it.
2. It ends with 1 when an answer failed or was wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from redis import Redis

from perf import server
from perf.data import SHAPES, request_stream, service_plan
from perf.environment import describe_environment
from perf.kept import keep_result
from perf.load import redis_server
from perf.load.child import run_load
from perf.load.cpus import kept_awake
from perf.load.load_plan import LoadPlan, Stream
from perf.on_redis import fill
from perf.scenario.measure import probe_stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from perf.load.redis_server import RedisAddress
    from perf.scenario.definition import Scenario
    from perf.scenario.measure import ScenarioOptions

Report = dict[str, Any]
ENTITIES = 1_000
"""65 tables of them are 60 MB."""
OVER_MS = 10


@dataclass(frozen=True)
class Setting:
    """The processes of a run."""

    scenario: Scenario
    options: ScenarioOptions
    redis: RedisAddress
    pid: int
    port: int

    def stream(self, service: str, **load: Any) -> Stream:
        return request_stream(service, entities=self.options.entities, key_law=self.options.key_law, **load)

    def load(self, streams: tuple[Stream, ...], duration_s: float, warmup_s: float, **more: Any) -> Report:
        """Load the server; give the generator's report, and what Redis was asked meanwhile."""
        before = _asked(self.redis)
        watch = {"server": self.pid, "redis": self.redis.pid}
        plan = LoadPlan(self.port, streams, warmup_s=warmup_s, duration_s=duration_s, watch=watch, **more)
        report = run_load(plan)
        calls, keys = (after - was for after, was in zip(_asked(self.redis), before, strict=True))
        return {**report, "keys_per_call": keys / max(1, calls)}


def run(scenario: Scenario, options: ScenarioOptions, path: Path) -> tuple[int, list[dict[str, Any]]]:
    """Measure a scenario on Redis, keep the figures and say them; give the exit status and the promises."""
    load_before, started_s = round(os.getloadavg()[0], 2), time.monotonic()
    settings = replace(options, entities=min(options.entities, ENTITIES), alone=False)
    figures = scenario_figures(scenario, settings)
    document = {
        **figures,
        "options": asdict(settings),
        "took_s": time.monotonic() - started_s,
        "load_average_before": load_before,
        **describe_environment(),
    }
    keep_result(document, path)
    print(summarize(document))
    for problem in document["problems"]:
        print(problem, file=sys.stderr)
    return 1 if document["problems"] else 0, document["promises"]


def scenario_figures(scenario: Scenario, options: ScenarioOptions) -> dict[str, Any]:
    """Measure: each service alone, the mix to saturation, then at rates below it.

    Raises:
        ChildError: a process did not come up.
    """
    with running(scenario, options) as setting:
        reports = {
            service: [
                setting.load(
                    (setting.stream(service, connections=options.clients),),
                    options.alone_s,
                    options.alone_warmup_s,
                    seed=options.seed + number,
                )
                for number in range(options.rounds)
            ]
            for service in scenario.services
        }
        mixed = tuple(setting.stream(service, share=share) for service, share in scenario.shares.items())
        saturation = setting.load(
            mixed, options.saturation_s, options.warmup_s, mix_connections=options.mix_clients
        )
        loads = [(share, _open_loop(setting, share * saturation["fs_qps"])) for share in options.loads]
    alone = {service: _alone_figures(service, found) for service, found in reports.items()}
    mix_cpu_us = sum(share * alone[service]["cpu_us"] for service, share in scenario.shares.items())
    everything = [report for found in reports.values() for report in found]
    everything += [saturation, *(report for _, report in loads)]
    return {
        "scenario": scenario.name,
        "store": "redis",
        "alone": alone,
        "mix_cpu_us": mix_cpu_us,
        "promises": [_promise("CPU per request of the mix, us", scenario.mix_budget_us, mix_cpu_us)],
        "saturation": _figures(saturation),
        "loads": [{"share": share, **_figures(report)} for share, report in loads],
        "problems": problems_of(everything),
    }


@contextlib.contextmanager
def running(scenario: Scenario, options: ScenarioOptions) -> Iterator[Setting]:
    """Start Redis with all rows, and a server over it.

    Raises:
        ChildError: a process did not come up.
    """
    (repo,) = {SHAPES[service].repo_path for service in scenario.services}
    with contextlib.ExitStack() as stack:
        if options.keep_awake:
            stack.enter_context(kept_awake())
        redis = stack.enter_context(redis_server.running())
        for service in scenario.services:
            asyncio.run(fill(redis.store_url(), service, options.entities))
        started = server.running(repo, redis.store_url(), workers=options.workers)
        pid, port = stack.enter_context(started)
        yield Setting(scenario, options, redis, pid, port)


def _open_loop(setting: Setting, rate_per_s: float) -> Report:
    options = setting.options
    streams = [
        setting.stream(service, rate_per_s=rate_per_s * part, connections=options.open_connections)
        for service, part in setting.scenario.shares.items()
    ]
    return setting.load((*streams, probe_stream()), options.duration_s, options.warmup_s)


def _asked(redis: RedisAddress) -> tuple[int, int]:
    """Give how many reads Redis has answered so far, and how many keys they were for."""
    with contextlib.closing(Redis(port=redis.port)) as client:
        calls: Any = client.info("commandstats")
        keys: Any = client.info("stats")
    return calls.get("cmdstat_mget", {}).get("calls", 0), keys["keyspace_hits"] + keys["keyspace_misses"]


def _alone_figures(service: str, reports: list[Report]) -> dict[str, Any]:
    plan = service_plan(service)
    return {
        "keys": plan.key_count,
        "features": len(plan.outputs),
        "cpu_us": median(_cpu_us(report) for report in reports),
        "rounds_cpu_us": [_cpu_us(report) for report in reports],
        "redis_cpu_us": median(_cpu_us(report, "redis") for report in reports),
        "fs_qps": median(report["fs_qps"] for report in reports),
        "keys_per_call": median(report["keys_per_call"] for report in reports),
    }


def _figures(report: Report) -> dict[str, Any]:
    latency = report["all_latency_ms"]
    found = {
        "fs_qps": report["fs_qps"],
        "cpu_us_per_request": _cpu_us(report),
        "redis_cpu_us": _cpu_us(report, "redis"),
        "keys_per_call": report["keys_per_call"],
        **{f"{name}_ms": latency[name] for name in ("p50", "p90", "p95", "p99", "p99.9")},
    }
    if report.get("probes"):
        (probe,) = report["probes"]
        found["probes"] = probe["latency_ms"]["count"]
        found[f"probes_over_{OVER_MS}_ms"] = probe["over_10_ms"]
        found[f"server_worked_over_{OVER_MS}_ms"] = probe["server_worked_over_10_ms"]
    return found


def _cpu_us(report: Report, process: str = "server") -> float:
    return float(report["processes"][process]["cpu_us_per_request"])


def problems_of(reports: list[Report]) -> list[str]:
    """Tell what failed or was wrong, wherever it was."""
    return [
        f"{stream['name']}: {stream['errors']} errors, {stream['wrong']} wrong: {stream['problems']}"
        for report in reports
        for stream in report["streams"]
        if stream["errors"] or stream["wrong"]
    ]


def _promise(what: str, limit: float, measured: float) -> dict[str, Any]:
    return {"what": what, "limit": limit, "measured": measured, "holds": measured <= limit}


def summarize(document: dict[str, Any]) -> str:
    """Say the figures in a table for the terminal."""
    form = "{:<20}{:>9}{:>9}{:>10}{:>11}{:>9}{:>9}{:>9}"
    lines = [form.format("", "FS-QPS", "CPU us", "Redis us", "keys/call", "p50 ms", "p95 ms", "p99 ms")]
    for service, one in document["alone"].items():
        costs = [f"{one['cpu_us']:.1f}", f"{one['redis_cpu_us']:.1f}", f"{one['keys_per_call']:.0f}"]
        lines.append(form.format(f"{service} alone", f"{one['fs_qps']:,.0f}", *costs, "", "", ""))
    rows = [("all, to saturation", document["saturation"])]
    rows += [(f"all, {load['share']:.0%} of it", load) for load in document["loads"]]
    for name, one in rows:
        costs = [
            f"{one['cpu_us_per_request']:.1f}",
            f"{one['redis_cpu_us']:.1f}",
            f"{one['keys_per_call']:.0f}",
        ]
        times = [f"{one[f'{percentile}_ms']:.2f}" for percentile in ("p50", "p95", "p99")]
        lines.append(form.format(name, f"{one['fs_qps']:,.0f}", *costs, *times))
    for entry in document["promises"]:
        verdict = "holds        " if entry["holds"] else "DOES NOT HOLD"
        lines.append(f"{verdict}  {entry['what']}: {entry['measured']:.2f}, at most {entry['limit']:g}")
    return "\n".join(lines)
