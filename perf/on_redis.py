"""The same services on Redis and on the stand-in DynamoDB, in turns: CPU per request, latencies.

Run as `python -m perf.on_redis [--service NAME …]`; it starts a redis-server and fills it with rows of as
many entities as are asked for (`--entities`), each of the pool that the stand-in answers from. One answer in
500 is compared with values computed one by one, on both. `--feast` gives Feast's server over the same
redis-server turns of its own, for look-ups: its rows are the same numbers under the same keys, written by
Feast, and one answer in ten is compared.

Invariants
1. What is compared was measured in one run, round by round, by one generator with the same keys.
2. Redis holds all keys that are asked for: no read is cheap because it finds nothing.
3. Feast's CPU is divided by that of fastserve on Redis in the same round; all rounds' ratios are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from fastserve.store.interface import TableSpec
from fastserve.store.url import open_store
from perf import server
from perf.compare.contenders import FEAST, FEAST_TURNS
from perf.compare.feast import redis_lookups as feast
from perf.compare.feast.environment import feast_version
from perf.data import POOL_ROWS, SHAPES, encode_rows, prepare_service, request_stream, service_plan
from perf.environment import describe_environment
from perf.kept import keep_result
from perf.load import redis_server, standin_client
from perf.load.child import run_load
from perf.load.key_laws import entity_key, partner_key
from perf.load.load_plan import LoadPlan
from perf.load.tables import row_index

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perf.load.load_plan import Stream

SERVICES = ("fs_1x10", "fs_5x100", "fs_10x100", "fs_50x100")
REDIS, DYNAMODB = "redis", "dynamodb"


@dataclass(frozen=True)
class Contender:
    """A server, its store, and its turn: how it is asked, and for how long in proportion."""

    name: str
    pid: int
    port: int
    store_pid: int
    stream: Stream
    turn: float = 1.0


async def fill(url: str, service: str, entities: int) -> None:
    """Write the rows of a service's tables for all entities."""
    plan = service_plan(service)
    keys = [entity_key(number) for number in range(entities)]
    if len({read.keys for read in plan.reads}) > 1:  # a second entity beside each
        keys = list(dict.fromkeys([*keys, *map(partner_key, keys)]))
    store = await open_store(url)
    try:
        for view in {place.view.table: place.view for place in plan.places}.values():
            pool = encode_rows(view)
            await store.create_table(TableSpec(view.table))
            await store.put_rows(view.table, [(key, pool[row_index(key, POOL_ROWS)]) for key in keys])
    finally:
        await store.close()


def measure(service: str, options: argparse.Namespace) -> dict[str, Any]:
    """Load a service on both stores in turns, and Feast if it is asked for.

    Raises:
        ChildError: a process did not come up, or Feast can't be installed.
    """
    with contextlib.ExitStack() as stack:
        contenders = list(start(service, options, stack))
        rounds: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in contenders}
        for number in range(options.rounds):
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                plan = LoadPlan(
                    contender.port,
                    (contender.stream,),
                    warmup_s=options.warmup_s,
                    duration_s=options.duration_s * contender.turn,
                    timeout_s=30.0,
                    seed=number,
                    watch={"server": contender.pid, "store": contender.store_pid},
                )
                rounds[contender.name].append(run_load(plan))
    found = {name: figures(reports) for name, reports in rounds.items()}
    if FEAST in found:
        found[FEAST] |= ratios(found[FEAST], found[REDIS])
    return {"service": service, **found}


def start(service: str, options: argparse.Namespace, stack: contextlib.ExitStack) -> Iterator[Contender]:
    """Start the stores with their rows, and the servers over them.

    Raises:
        ChildError: a process did not come up, or Feast can't be installed.
    """
    stand_in = stack.enter_context(standin_client.running())
    redis = stack.enter_context(redis_server.running())
    prepare_service(stand_in, service)
    asyncio.run(fill(redis.store_url(), service, options.entities))
    stream = request_stream(service, entities=options.entities, connections=options.clients)
    for name, store in ((REDIS, redis), (DYNAMODB, stand_in)):
        pid, port = stack.enter_context(server.running(SHAPES[service].repo_path, store.store_url()))
        yield Contender(name, pid, port, store.pid, stream)
    if options.feast:
        keys = [entity_key(number) for number in range(options.entities)]
        pid, port = stack.enter_context(feast.running(service, redis, keys))
        turn, clients = FEAST_TURNS[service]
        stream = feast.request_stream(service, entities=options.entities, connections=clients)
        yield Contender(FEAST, pid, port, redis.pid, stream, turn)


def ratios(theirs: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Divide their CPU by ours, round by round."""
    rounds = [
        their_us / our_us
        for their_us, our_us in zip(theirs["rounds_cpu_us"], ours["rounds_cpu_us"], strict=True)
    ]
    return {"x_fastserve": median(rounds), "rounds_x_fastserve": rounds}


def figures(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Give the medians of the rounds."""
    streams = [report["streams"][0] for report in reports]
    costs = [report["processes"]["server"]["cpu_us_per_request"] for report in reports]
    return {
        "cpu_us_per_request": median(costs),
        "rounds_cpu_us": costs,
        "store_cpu_us": median(report["processes"]["store"]["cpu_us_per_request"] for report in reports),
        "fs_qps": median(report["fs_qps"] for report in reports),
        **{f"{name}_ms": median(stream["latency_ms"][name] for stream in streams) for name in ("p50", "p99")},
        **{name: sum(stream[name] for stream in streams) for name in ("errors", "verified", "wrong")},
    }


def main() -> int:
    """Measure and print; 1 when an answer failed or was wrong."""
    parser = argparse.ArgumentParser(prog="python -m perf.on_redis", description=__doc__)
    parser.add_argument("--service", action="append", choices=list(SHAPES), help="may be repeated")
    parser.add_argument("--feast", action="store_true", help="measure Feast on Redis, too (needs PyPI once)")
    parser.add_argument("--entities", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration-s", type=float, default=3.0)
    parser.add_argument("--warmup-s", type=float, default=1.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    options = parser.parse_args()
    services = options.service or (FEAST_TURNS if options.feast else SERVICES)
    if options.feast and not set(services) <= set(FEAST_TURNS):
        parser.error(f"--feast is measured with {', '.join(FEAST_TURNS)} only")
    load_before = round(os.getloadavg()[0], 2)
    form = "{:<16}{:<10}{:>10}{:>11}{:>9}{:>9}{:>9}{:>8}{:>15}"
    print(form.format("", "", "CPU us", "store us", "FS-QPS", "p50 ms", "p99 ms", "errors", "wrong/checked"))
    measured = []
    for service in services:
        found = measure(service, options)
        measured.append(found)
        for name in contenders_of(found):
            one = found[name]
            costs = [f"{one[key]:.1f}" for key in ("cpu_us_per_request", "store_cpu_us")]
            times = [f"{one[key]:.2f}" for key in ("p50_ms", "p99_ms")]
            checked = f"{one['wrong']}/{one['verified']}"
            line = form.format(service, name, *costs, f"{one['fs_qps']:,.0f}", *times, one["errors"], checked)
            print(line, flush=True)
        if FEAST in found:
            by_round = " ".join(f"{ratio:.1f}" for ratio in found[FEAST]["rounds_x_fastserve"])
            print(f"{service:<16}Feast's CPU by fastserve's on Redis, by round: {by_round}", flush=True)
    if options.json:
        run = {key: value for key, value in vars(options).items() if key != "json"}
        document = {"services": measured, "options": run, "load_average_before": load_before}
        document |= {"feast": feast_version()} if options.feast else {}
        document |= describe_environment()
        keep_result(document, options.json)
    bad = [
        found
        for found in measured
        for name in contenders_of(found)
        if found[name]["errors"] or found[name]["wrong"]
    ]
    return 1 if bad else 0


def contenders_of(found: dict[str, Any]) -> list[str]:
    """Name who was measured for a service."""
    return [name for name in (REDIS, DYNAMODB, FEAST) if name in found]


if __name__ == "__main__":
    sys.exit(main())
