"""One measured service: stand-in, server and generator started, loaded, read and stopped; then the floor.

It must not know what the figures are held against on paper, only how they are made.

Invariants:
1. Server and floor are measured in one run on one machine with the same generator: their ratio is what
   counts.
2. A round's figures all come from one measured time. Of several rounds the one with the median CPU is
   given.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from perf import server
from perf.data import SHAPES, answer_bytes, prepare_service, request_stream, service_plan
from perf.load import standin_client
from perf.load.child import module_process, run_load
from perf.load.load_plan import LoadPlan
from perf.load.standin_client import StandInAddress

Report = dict[str, Any]


@dataclass(frozen=True)
class RunOptions:
    """How long and how hard a service is loaded."""

    duration_s: float = 5.0
    warmup_s: float = 2.0
    rounds: int = 3
    clients: int = 16
    entities: int = 100_000
    key_law: str = "uniform"
    rate_per_s: float | None = None
    latency_ms: str | None = None
    with_floor: bool = True
    seed: int = 1


def measure_service(service: str, options: RunOptions) -> Report:
    """Measure one service, and its floors.

    Raises:
        ChildError: a process did not come up.
    """
    with standin_client.running() as stand_in:
        prepare_service(stand_in, service)
        stand_in.control(latency_ms=options.latency_ms)
        with server.running(SHAPES[service].repo_path, stand_in.store_url()) as (pid, port):
            rounds = [
                _load(service, options, stand_in, pid, port, number) for number in range(options.rounds)
            ]
        report = _figures(service, _median_round(rounds))
        report["rounds_cpu_us"] = sorted(_server_cpu_us(entry) for entry in rounds)
        if options.with_floor:
            report["floor"] = measure_floors(service, report["response_bytes"], options, stand_in)
    return report


def measure_floors(
    service: str, answer_bytes: int, options: RunOptions, stand_in: StandInAddress
) -> dict[str, Report]:
    """Measure the least for the same bytes: towards the client alone, and with the store's."""
    tables = ",".join(place.view.table for place in service_plan(service).places)
    store = ["--store-port", str(stand_in.port), "--tables", tables]
    floors = {}
    for name, more in (("client_bytes", []), ("all_bytes", store)):
        with module_process("perf.floor", ["--answer-bytes", str(answer_bytes), *more]) as (pid, port):
            report = _load(service, options, stand_in, pid, port, 0, verified=False)
        floors[name] = {
            "cpu_us_per_request": _server_cpu_us(report),
            "fs_qps": report["fs_qps"],
            "keys_per_call": report["store"]["keys_per_call"],
            "stand_in_cpu_us": report["processes"]["stand_in"]["cpu_us_per_request"],
            "generator_cpu_us": report["processes"]["generator"]["cpu_us_per_request"],
        }
    return floors


def measure_floors_alone(service: str, options: RunOptions) -> Report:
    """Measure a service's floors without a server: also what stand-in and generator cost and can sustain.

    Raises:
        ChildError: a process did not come up.
    """
    with standin_client.running() as stand_in:
        prepare_service(stand_in, service)
        return {"name": service, "floor": measure_floors(service, answer_bytes(service), options, stand_in)}


def _load(
    service: str,
    options: RunOptions,
    stand_in: StandInAddress,
    pid: int,
    port: int,
    number: int,
    *,
    verified: bool = True,
) -> Report:
    stream = request_stream(
        service,
        connections=options.clients,
        entities=options.entities,
        key_law=options.key_law,
        rate_per_s=options.rate_per_s,
        **({} if verified else {"verify": None}),
    )
    plan = LoadPlan(
        port,
        (stream,),
        warmup_s=options.warmup_s,
        duration_s=options.duration_s,
        seed=options.seed + number,
        watch={"server": pid, "stand_in": stand_in.pid},
        stand_in_port=stand_in.port,
    )
    return run_load(plan)


def _median_round(rounds: list[Report]) -> Report:
    return sorted(rounds, key=_server_cpu_us)[len(rounds) // 2]


def _server_cpu_us(report: Report) -> float:
    return float(report["processes"]["server"]["cpu_us_per_request"])


def _figures(service: str, report: Report) -> Report:
    """Give one round's figures under the names that results are kept by."""
    (stream,) = report["streams"]
    processes, store, latency = report["processes"], report["store"], stream["latency_ms"]
    return {
        "name": service,
        "fs_qps": report["fs_qps"],
        "ddb_qps": store["ddb_qps"],
        "calls_per_s": store["calls_per_s"],
        "keys_per_call": store["keys_per_call"],
        "keys_per_request": store["keys_per_request"],
        "store_bytes_per_request": store["bytes_out_per_request"],
        "response_bytes": stream["response_bytes"],
        **{f"{name.replace('.', '')}_ms": value for name, value in latency.items() if name != "count"},
        "requests": latency["count"],
        "errors": stream["errors"],
        "verified": stream["verified"],
        "wrong": stream["wrong"],
        "problems": stream["problems"],
        "cpu_us_per_request": processes["server"]["cpu_us_per_request"],
        "system_share": processes["server"]["system_share"],
        "rss_mib": processes["server"]["rss_mib"],
        "stand_in_cpu_us": processes["stand_in"]["cpu_us_per_request"],
        "generator_cpu_us": processes["generator"]["cpu_us_per_request"],
        "store_call_ms": store["call_ms"],
        "load_average": round(os.getloadavg()[0], 2),
    }
