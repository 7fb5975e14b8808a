"""Runs a scenario: each service alone, the mix to saturation, then the mix at rates below it.

Alone and in a closed loop, as the budgets have it, a service's CPU is its own; beside others it can't be told
whose a shared call was. Latencies come from open loops, all services at once, each with its part of the rate.
It must not know what figures are made of the reports.

Invariants:
1. Saturation is found first, with and without the latency law; the rates follow from it.
2. All of a run has one server, one stand-in and the same keys; a server is stopped by what started it.
3. Probes of /healthz run beside every open loop and are in no request count.
4. Server and floors have a CPU for each worker to themselves; stand-in and generator share the others, with
   what else the machine runs. CPUs are kept awake, unless options say otherwise.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from perf import server
from perf.data import SHAPES, answer_bytes, prepare_service, request_stream, service_plan
from perf.load import standin_client
from perf.load.child import module_process, run_load
from perf.load.cpus import kept_apart, kept_awake
from perf.load.load_plan import LoadPlan, Stream
from perf.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from perf.load.standin_client import StandInAddress
    from perf.scenario.definition import Scenario

Report = dict[str, Any]
PROBE_EVERY_S = 0.005
LAW = "dynamodb"
FASTSERVE, FLOOR, CLIENT_FLOOR = "fastserve", "floor", "client_floor"
# What a generator takes to start, to connect and to drain, for the progress bar's sake.
_AROUND_S = 1.6


@dataclass(frozen=True)
class ScenarioOptions:
    """How long a scenario is measured; all of it together stays under five minutes."""

    # At the rates that are quoted.
    duration_s: float = 12.0
    # At the rates that only make the curve.
    curve_s: float = 4.0
    saturation_s: float = 6.0
    warmup_s: float = 2.0
    alone_s: float = 1.5
    alone_warmup_s: float = 0.5
    rounds: int = 3
    clients: int = 16
    # Towards saturation: enough to keep one worker busy while calls to the store take their time.
    mix_clients: int = 32
    mix_clients_with_law: int = 192
    # Of each service in an open loop: more than are ever under way at once.
    open_connections: int = 256
    # No point that only makes the curve is begun later, and no further round of a service alone: on a machine
    # that is slow to start processes the run has to end, too.
    curve_until_s: float = 240.0
    alone_until_s: float = 80.0
    loads: tuple[float, ...] = (0.5, 0.8)
    curve: tuple[float, ...] = (0.2, 0.65, 0.95)
    entities: int = 100_000
    key_law: str = "uniform"
    workers: int = 1
    seed: int = 1
    keep_awake: bool = True
    # Asked for: nothing else of the machine on the server's CPUs, as far as it lets us.
    alone: bool = True


QUICK = ScenarioOptions(
    duration_s=1.0,
    curve_s=0.5,
    saturation_s=0.6,
    warmup_s=0.3,
    alone_s=0.4,
    alone_warmup_s=0.2,
    rounds=1,
    curve=(),
    alone=False,
)


@dataclass(frozen=True)
class Setting:
    """The processes of a run."""

    scenario: Scenario
    options: ScenarioOptions
    stand_in: StandInAddress
    server_pid: int
    server_port: int
    # (kind, service) -> pid and port of the floors.
    floors: dict[tuple[str, str], tuple[int, int]]


def run_scenario(scenario: Scenario, options: ScenarioOptions) -> dict[str, Any]:
    """Measure a scenario; give the reports of the generator by what they are about.

    Raises:
        ChildError: a process did not come up.
    """
    started_s = time.monotonic()
    with running(scenario, options) as setting, Progress(scenario.name, planned_s(scenario, options)) as bar:
        alone = _alone(setting, bar)
        saturation = {law or "none": saturate(setting, law, bar) for law in (None, LAW)}
        loads = []
        for share, is_quoted in [(share, True) for share in options.loads] + [
            (share, False) for share in options.curve
        ]:
            for law in (None, LAW):
                if is_quoted or time.monotonic() - started_s < options.curve_until_s:
                    rate_per_s = share * saturation[law or "none"]["fs_qps"]
                    report = load_mix(setting, law, rate_per_s, share, bar)
                    loads.append({"law": law, "share": share, "report": report})
        loads.sort(key=lambda load: (load["law"] or "", load["share"]))
    return {"alone": alone, "saturation": saturation, "loads": loads}


def planned_s(scenario: Scenario, options: ScenarioOptions) -> float:
    """Say how long it should take, without the processes' start."""
    alone = 3 * len(scenario.services) * options.rounds
    points = len(options.loads) * options.duration_s + len(options.curve) * options.curve_s
    count = len(options.loads) + len(options.curve)
    return (
        alone * (options.alone_s + options.alone_warmup_s + _AROUND_S)
        + 2 * (options.saturation_s + options.warmup_s + _AROUND_S)
        + 2 * (points + count * (options.warmup_s + _AROUND_S))
    )


@contextlib.contextmanager
def running(scenario: Scenario, options: ScenarioOptions) -> Iterator[Setting]:
    """Start stand-in, server and floors over a scenario's services.

    Raises:
        ChildError: a process did not come up.
    """
    (repo,) = {SHAPES[service].repo_path for service in scenario.services}
    with contextlib.ExitStack() as stack:
        give_cpus = stack.enter_context(kept_apart(options.workers, alone=options.alone))
        if options.keep_awake:
            stack.enter_context(kept_awake())
        stand_in = stack.enter_context(standin_client.running())
        for service in scenario.services:
            prepare_service(stand_in, service)
        floors = {}
        for service in scenario.services:
            size = ["--answer-bytes", str(answer_bytes(service))]
            tables = ",".join(place.view.table for place in service_plan(service).places)
            store = ["--store-port", str(stand_in.port), "--tables", tables]
            for kind, more in ((CLIENT_FLOOR, []), (FLOOR, store)):
                started = module_process("perf.floor", size + more)
                floors[kind, service] = stack.enter_context(started)
                give_cpus(floors[kind, service][0])
        started_server = server.running(repo, stand_in.store_url(), workers=options.workers)
        pid, port = stack.enter_context(started_server)
        give_cpus(pid)
        yield Setting(scenario, options, stand_in, pid, port, floors)


def _alone(setting: Setting, bar: Progress) -> dict[str, dict[str, list[Report]]]:
    """Load each service by itself in turns with its floors: service -> kind -> the rounds' reports."""
    options = setting.options
    setting.stand_in.control(latency_ms=None)
    found: dict[str, dict[str, list[Report]]] = {service: {} for service in setting.scenario.services}
    took_s = options.alone_s + options.alone_warmup_s + _AROUND_S
    until_s = time.monotonic() + options.alone_until_s
    for number in range(options.rounds):
        if number and time.monotonic() > until_s:
            break
        for service in setting.scenario.services:
            own = {FASTSERVE: (setting.server_pid, setting.server_port)}
            floors = {kind: place for (kind, name), place in setting.floors.items() if name == service}
            for kind, (pid, port) in {**own, **floors}.items():
                stream = _stream(setting, service, connections=options.clients)
                stream = stream if kind == FASTSERVE else replace(stream, verify=None)
                plan = LoadPlan(
                    port,
                    (stream,),
                    warmup_s=options.alone_warmup_s,
                    duration_s=options.alone_s,
                    seed=options.seed + number,
                    watch={"server": pid, "stand_in": setting.stand_in.pid},
                    stand_in_port=setting.stand_in.port,
                )
                found[service].setdefault(kind, []).append(run_load(plan))
                bar.advance(took_s, f"{service} alone")
    return found


def saturate(setting: Setting, law: str | None, bar: Progress) -> Report:
    """Load the mix in a closed loop, as fast as it goes."""
    options = setting.options
    streams = tuple(
        _stream(setting, service, share=share) for service, share in setting.scenario.shares.items()
    )
    report = _run(
        setting,
        law,
        streams,
        options.saturation_s,
        mix_connections=options.mix_clients_with_law if law else options.mix_clients,
    )
    bar.advance(options.saturation_s + options.warmup_s + _AROUND_S, "to saturation")
    return report


def load_mix(setting: Setting, law: str | None, rate_per_s: float, share: float, bar: Progress) -> Report:
    """Load all services at once, each with its part of a rate, whatever the answers do."""
    options = setting.options
    duration_s = options.duration_s if share in options.loads else options.curve_s
    streams = [
        _stream(setting, service, rate_per_s=rate_per_s * part, connections=options.open_connections)
        for service, part in setting.scenario.shares.items()
    ]
    report = _run(setting, law, (*streams, probe_stream()), duration_s)
    bar.advance(duration_s + options.warmup_s + _AROUND_S, f"{share:.0%} of it")
    return report


def _run(
    setting: Setting, law: str | None, streams: tuple[Stream, ...], duration_s: float, **more: Any
) -> Report:
    setting.stand_in.control(latency_ms=law)
    return run_load(
        LoadPlan(
            setting.server_port,
            streams,
            warmup_s=setting.options.warmup_s,
            duration_s=duration_s,
            seed=setting.options.seed,
            watch={"server": setting.server_pid, "stand_in": setting.stand_in.pid},
            stand_in_port=setting.stand_in.port,
            **more,
        )
    )


def probe_stream() -> Stream:
    """Make the probes: a GET of what answers without a store, so often that no stall is missed."""
    return Stream(
        "probe",
        "/healthz",
        "",
        "",
        method="GET",
        rate_per_s=1 / PROBE_EVERY_S,
        arrivals="fixed",
        connections=8,
        is_probe=True,
    )


def _stream(setting: Setting, service: str, **load: Any) -> Stream:
    options = setting.options
    return request_stream(service, entities=options.entities, key_law=options.key_law, **load)
