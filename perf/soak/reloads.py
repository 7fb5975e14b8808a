"""`python -m perf reloads`: SIGHUP again and again under clients that never stop; not one answer may be lost.

Half of the clients keep their connections until an answer says that it is the last one, the others open one
for each request. All are closed loops, straight at the server: no fault is on, and nothing is explained.

Invariants:
1. It goes on until there were as many reloads and as many requests as asked for.
2. It ends with 1 when any answer failed or was wrong.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from perf.environment import describe_environment
from perf.progress import Progress
from perf.soak import world as worlds
from perf.soak.account import Account
from perf.soak.disturb import Reloader
from perf.soak.lanes import Lanes
from perf.soak.vectors import NARROW, Question

if TYPE_CHECKING:
    import argparse

_ENTITIES = 1_000_000
_SETTLE_S = 1.0
_LOOK_EVERY_S = 0.25


def add_command(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("reloads", help="reload under clients that never stop")
    command.add_argument("--reloads", type=int, default=20)
    command.add_argument("--requests", type=int, default=1_000_000)
    command.add_argument("--clients", type=int, default=32)
    command.add_argument("--workers", type=int, default=2)
    command.add_argument("--json", metavar="FILE", type=Path)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, keep and say; give the exit status."""
    report = measure(arguments.reloads, arguments.requests, arguments.clients, arguments.workers)
    document = {**report, **describe_environment()}
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    failed = document["wrong"] or document["failed"]
    if failed:
        print(f"{failed} requests failed or were wrong", file=sys.stderr)
    return 1 if failed else 0


def measure(reloads: int, requests: int, clients: int, workers: int) -> dict[str, Any]:
    """Reload so often, at least, under so many clients and requests.

    Raises:
        ChildError: a process did not come up, or the server did not end as it should.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        worlds.running(Path(folder), workers) as world,
        Progress("reloads", requests) as bar,
    ):
        return asyncio.run(_under_load(world, bar, reloads, requests, clients))


async def _under_load(
    world: worlds.World, bar: Progress, reloads: int, requests: int, clients: int
) -> dict[str, Any]:
    account, chance = Account(), random.Random(1)
    load_before = os.getloadavg()[0]

    def ask() -> Question:
        return Question(NARROW, (chance.randrange(_ENTITIES),), is_batch=False)

    streams = [
        Lanes(name, ask, account, world.server_port, connections=clients // 2, keeps_connections=keeps)
        for name, keeps in (("kept connections", True), ("new connections", False))
    ]
    began_s = time.monotonic()
    for stream in streams:
        await stream.start()
    reloader = Reloader(world.server_pid, world.log)
    shown = 0
    while reloader.reloads < reloads or sum(stream.begun for stream in streams) < requests:
        await asyncio.sleep(_SETTLE_S)
        # Spread over the run: the next one when as large a part of the requests has been made.
        due = requests * reloader.reloads / reloads
        while (begun := sum(stream.begun for stream in streams)) < due and begun < requests:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_EVERY_S)
        await reloader.reload()
        bar.advance(begun - shown, f"{reloader.reloads} reloads")
        shown = begun
    await asyncio.sleep(_SETTLE_S)
    for stream in streams:
        await stream.stop()
    by_stream = account.by_stream()
    return {
        "reloads": reloader.reloads,
        "clients": clients,
        "seconds": round(time.monotonic() - began_s, 1),
        "requests": sum(sum(counts.values()) for counts in by_stream.values()),
        "by_stream": by_stream,
        "failed": account.unexplained_count,
        "wrong": account.wrong_count,
        "shown": [*account.wrong, *account.unexplained],
        "latency_ms": {stream.name: stream.latency_ms() for stream in streams},
        "load_average_before": round(load_before, 2),
    }
