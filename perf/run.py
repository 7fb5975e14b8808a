"""Measured services: stand-in, servers and generator started, loaded in turns, read and stopped.

Everything that is to be compared takes its turn in every round: fastserve, the bare server and the floors, so
that a machine that slows down does so for all of them. It must not know what the figures are held against on
paper, only how they are made.

Invariants:
1. What is compared was measured in one run, in the same rounds, by the same generator with the same keys.
2. A round's figures all come from one measured time. Of several rounds the one with the median CPU is
   given, and the CPU of all of them in the order of the rounds.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perf import server
from perf.compare.feast import server as feast
from perf.compare.feast.environment import feast_version
from perf.data import SHAPES, answer_bytes, prepare_service, request_stream, service_plan
from perf.load import standin_client
from perf.load.child import module_process, run_load
from perf.load.load_plan import LoadPlan, Stream
from perf.load.standin_client import StandInAddress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Report = dict[str, Any]
# The reports of all rounds by kind and service.
Rounds = dict[tuple[str, str], list[Report]]

FASTSERVE, BARE, FEAST, FLOOR, CLIENT_FLOOR = "fastserve", "bare", "feast", "all_bytes", "client_bytes"


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
    with_bare: bool = True
    # Beside the one service that Feast is asked for, too.
    with_feast: bool = False
    seed: int = 1

    @property
    def is_reference(self) -> bool:
        """Tell whether this is the load under which the budgets and the reference machine's figures hold."""
        load = (self.clients, self.entities, self.key_law, self.rate_per_s, self.latency_ms)
        return load == (16, 100_000, "uniform", None, None)


@dataclass(frozen=True)
class Contender:
    """A process that takes a turn in every round, and the service that it answers."""

    kind: str
    service: str
    pid: int
    port: int


def measure_service(service: str, options: RunOptions) -> Report:
    """Measure one service, with its floors and the bare server.

    Raises:
        ChildError: a process did not come up.
    """
    return measure_services([service], options)[0]


def measure_services(services: Sequence[str], options: RunOptions) -> list[Report]:
    """Measure services in turns, round by round, with their floors and their bare servers.

    Raises:
        ChildError: a process did not come up.
    """
    with standin_client.running() as stand_in, contextlib.ExitStack() as stack:
        contenders = list(_start(services, options, stand_in, stack))
        stand_in.control(latency_ms=options.latency_ms)
        rounds = load_in_turns(contenders, options, stand_in)
    return [_report(service, rounds) for service in services]


def measure_floors_alone(service: str, options: RunOptions) -> Report:
    """Measure a service's floors without a server: also what stand-in and generator cost and can sustain.

    Raises:
        ChildError: a process did not come up.
    """
    with standin_client.running() as stand_in, contextlib.ExitStack() as stack:
        prepare_service(stand_in, service)
        contenders = list(start_floors(service, stand_in, stack))
        rounds = load_in_turns(contenders, options, stand_in)
    return {"name": service, "floor": _floor_figures(service, rounds)}


def _start(
    services: Sequence[str], options: RunOptions, stand_in: StandInAddress, stack: contextlib.ExitStack
) -> Iterator[Contender]:
    bare_services = {SHAPES[service].bare_service: None for service in services} if options.with_bare else {}
    for service in {**dict.fromkeys(services), **bare_services}:
        prepare_service(stand_in, service)
    for service in services:
        running = server.running(SHAPES[service].repo_path, stand_in.store_url())
        yield Contender(FASTSERVE, service, *stack.enter_context(running))
        if options.with_floor:
            yield from start_floors(service, stand_in, stack)
    for service in bare_services:
        arguments = bare_arguments(service, stand_in.port)
        running = module_process("perf.bare", arguments)
        yield Contender(BARE, service, *stack.enter_context(running))
    if options.with_feast and feast.SERVICE in services:
        yield Contender(FEAST, feast.SERVICE, *stack.enter_context(feast.running()))


def start_floors(service: str, stand_in: StandInAddress, stack: contextlib.ExitStack) -> Iterator[Contender]:
    """Start the least for the same bytes: towards the client alone, and with the store's."""
    size = ["--answer-bytes", str(answer_bytes(service))]
    store = ["--store-port", str(stand_in.port), "--tables", _tables(service)]
    for kind, more in ((CLIENT_FLOOR, []), (FLOOR, store)):
        yield Contender(kind, service, *stack.enter_context(module_process("perf.floor", size + more)))


def bare_arguments(service: str, store_port: int) -> list[str]:
    """Tell `perf.bare` which tables and which words of their rows make a service's vector."""
    layouts = {place.view.layout.columns: place.view.layout for place in service_plan(service).places}
    (layout,) = layouts.values()
    numbers = {
        "--store-port": store_port,
        "--row-words": layout.fixed_words,
        "--first-word": layout.columns[0].word,
        "--features": len(layout.columns),
    }
    texts = [text for name, number in numbers.items() for text in (name, str(number))]
    return ["--tables", _tables(service), *texts]


def _tables(service: str) -> str:
    return ",".join(place.view.table for place in service_plan(service).places)


def load_in_turns(contenders: Sequence[Contender], options: RunOptions, stand_in: StandInAddress) -> Rounds:
    """Load each in every round; every other round goes backwards, so that nothing is always first."""
    rounds: Rounds = {(contender.kind, contender.service): [] for contender in contenders}
    for number in range(options.rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            stand_in.control(reset=True)
            report = _load(contender, options, stand_in, number)
            rounds[contender.kind, contender.service].append(report)
    return rounds


def _load(contender: Contender, options: RunOptions, stand_in: StandInAddress, number: int) -> Report:
    plan = LoadPlan(
        contender.port,
        (_stream_of(contender, options),),
        warmup_s=options.warmup_s,
        duration_s=options.duration_s,
        seed=options.seed + number,
        watch={"server": contender.pid, "stand_in": stand_in.pid},
        stand_in_port=stand_in.port,
    )
    return run_load(plan)


def _stream_of(contender: Contender, options: RunOptions) -> Stream:
    load: dict[str, Any] = {
        "connections": options.clients,
        "entities": options.entities,
        "key_law": options.key_law,
        "rate_per_s": options.rate_per_s,
    }
    if contender.kind == FEAST:
        return feast.request_stream(**load)
    if contender.kind in {FLOOR, CLIENT_FLOOR}:
        load["verify"] = None
    return request_stream(contender.service, **load)


def _report(service: str, rounds: Rounds) -> Report:
    bare_service = SHAPES[service].bare_service
    report = service_figures(service, rounds[FASTSERVE, service])
    if (BARE, bare_service) in rounds:
        report["bare"] = service_figures(bare_service, rounds[BARE, bare_service])
    if (FLOOR, service) in rounds:
        report["floor"] = _floor_figures(service, rounds)
    if (FEAST, service) in rounds:
        report["feast"] = _feast_figures(report, rounds[FEAST, service])
    return report


def _feast_figures(ours: Report, rounds: Sequence[Report]) -> Report:
    """Give Feast's figures with the ratio to ours: of the medians, and of each round by itself."""
    found = service_figures("feast", rounds)
    pairs = zip(found["rounds_cpu_us"], ours["rounds_cpu_us"], strict=True)
    return {
        **found,
        "version": feast_version(),
        "x_fastserve": found["cpu_us_per_request"] / ours["cpu_us_per_request"],
        "rounds_x_fastserve": [theirs_us / ours_us for theirs_us, ours_us in pairs],
    }


def _floor_figures(service: str, rounds: Rounds) -> dict[str, Report]:
    return {kind: _floor_of(rounds[kind, service]) for kind in (CLIENT_FLOOR, FLOOR)}


def _floor_of(reports: Sequence[Report]) -> Report:
    report = _median_round(reports)
    return {
        "cpu_us_per_request": _server_cpu_us(report),
        "rounds_cpu_us": [_server_cpu_us(entry) for entry in reports],
        "fs_qps": report["fs_qps"],
        "keys_per_call": report["store"]["keys_per_call"],
        "stand_in_cpu_us": report["processes"]["stand_in"]["cpu_us_per_request"],
        "generator_cpu_us": report["processes"]["generator"]["cpu_us_per_request"],
    }


def _median_round(rounds: Sequence[Report]) -> Report:
    return sorted(rounds, key=_server_cpu_us)[len(rounds) // 2]


def _server_cpu_us(report: Report) -> float:
    return float(report["processes"]["server"]["cpu_us_per_request"])


def _stream(report: Report) -> Report:
    (stream,) = report["streams"]
    found: Report = stream
    return found


def service_figures(service: str, rounds: Sequence[Report]) -> Report:
    """Give the median round's figures under the names that results are kept by."""
    report = _median_round(rounds)
    stream = _stream(report)
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
        **{name: sum(_stream(entry)[name] for entry in rounds) for name in ("errors", "verified", "wrong")},
        "problems": [problem for entry in rounds for problem in _stream(entry)["problems"]],
        "cpu_us_per_request": _server_cpu_us(report),
        "rounds_cpu_us": [_server_cpu_us(entry) for entry in rounds],
        "system_share": processes["server"]["system_share"],
        "rss_mib": processes["server"]["rss_mib"],
        "stand_in_cpu_us": processes["stand_in"]["cpu_us_per_request"],
        "generator_cpu_us": processes["generator"]["cpu_us_per_request"],
        "store_call_ms": store["call_ms"],
        "load_average": round(os.getloadavg()[0], 2),
    }
