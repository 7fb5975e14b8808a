"""One soak from its beginning to its report.

Invariants:
1. Faults begin after all streams have begun, and end before they do: at the end every stream has had a calm
   in which nothing may fail.
2. Totals are compared for equality when all writers have ended.
"""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perf.load.processes import read_tree
from perf.soak import world as worlds
from perf.soak.account import Account
from perf.soak.disturb import Killer, PauseWatch, Reloader
from perf.soak.lanes import Lanes
from perf.soak.ledger import Ledger, TotalsQuestion, Writer, totals_now
from perf.soak.matrix import CALM, GROUPS, Phase, schedule
from perf.soak.vectors import NARROW, WIDE, Question, Service
from perf.soak.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from perf.progress import Progress
    from perf.soak.world import World

_FIRST_CALM_S = 1.0
_FINAL_TRIES = 50
_PHASE_EDGE_S = 0.05


@dataclass(frozen=True)
class SoakOptions:
    """How long, how much and what goes wrong."""

    seconds: float = 60.0
    faults: tuple[str, ...] = GROUPS
    phase_s: float = 3.0
    calm_s: float = 2.0
    # After the last fault: a breaker asks every 5 s at most whether the store is back.
    last_calm_s: float = 8.0
    kill_every_s: float | None = None
    reload_every_s: float | None = None
    workers: int = 2
    entities: int = 1_000_000
    # Requests per second of each stream; 0 for none of it.
    vectors_per_s: float = 40.0
    new_connections_per_s: float = 20.0
    batches_per_s: float = 1.0
    batch_rows: int = 100
    totals_per_s: float = 1.0
    # Writers of pushed events, the pause of each between two requests, events of a request, and all events.
    writers: int = 4
    write_every_s: float = 0.5
    write_events: int = 10
    events: int = 1 << 60
    event_keys: int = 200
    sample_every_s: float = 2.0
    # Longer than the product's 500 and 2,000: a busy machine's pauses aren't what is looked for.
    store_timeout_ms: int = 1_500
    server_timeout_ms: int = 5_000
    seed: int = 1


def soak(options: SoakOptions, bar: Progress) -> dict[str, Any]:
    """Run a soak; give its report.

    Raises:
        ChildError: a process did not come up, or the server did not end as it should.
    """
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--store-timeout-ms", str(options.store_timeout_ms)]
        flags += ["--server-timeout-ms", str(options.server_timeout_ms)]
        with worlds.running(Path(folder), options.workers, flags) as world:
            report = asyncio.run(Soak(options, world, bar).run())
        log = (Path(folder) / "server.log").read_text(errors="replace")
    report["log"] = _log_summary(log)
    return report


class Soak:
    """The state of one run."""

    def __init__(self, options: SoakOptions, world: World, bar: Progress) -> None:
        self._options = options
        self._world = world
        self._bar = bar
        self._account = Account()
        self._random = random.Random(options.seed)
        self._ledger = Ledger(options.event_keys)
        self._watch = Watch(world.server_pid)
        self._killer = Killer(world.server_pid, world.server_port, self._account, options.seed)
        self._reloader = Reloader(world.server_pid, world.log)
        watched = [world.server_pid, world.stand_in.pid, world.to_store.pid, world.to_server.pid]
        self._pauses = PauseWatch([*watched, os.getpid()], self._account)
        self._done = asyncio.Event()
        self._phases: list[dict[str, Any]] = []
        self._began_s = 0.0
        self._final_tries = _FINAL_TRIES

    async def run(self) -> dict[str, Any]:
        """Load, disturb, judge; give the report."""
        options = self._options
        self._began_s = time.time()
        load_before = os.getloadavg()[0]
        cpu_before = self._cpu_s()
        streams = self._streams()
        for stream in streams:
            await stream.start()
        loop = asyncio.get_running_loop()
        writers = [loop.create_task(work) for work in self._writers()]
        always = [loop.create_task(self._sample()), loop.create_task(self._pauses.run())]
        killing = _begun(self._killer.run, options.kill_every_s)
        reloading = _begun(self._reloader.run, options.reload_every_s)
        await self._calm(_FIRST_CALM_S)
        await self._disturb(writers, [*always, *killing, *reloading])
        for task in killing:
            task.cancel()
        self._reloader.stop()
        await asyncio.gather(*reloading)
        await self._calm(options.last_calm_s)
        for stream in streams:
            await stream.stop()
        self._done.set()
        await asyncio.gather(*writers)
        for task in always:
            task.cancel()
        lost = await self._final_totals()
        cpu_s = {name: after - cpu_before[name] for name, after in self._cpu_s().items()}
        return self._report(streams, lost, cpu_s, load_before)

    async def _disturb(self, writers: list[asyncio.Task[None]], others: list[asyncio.Task[None]]) -> None:
        options = self._options
        until_s = time.monotonic() + options.seconds
        for phase in schedule(options.faults, options.phase_s, options.seed):
            if time.monotonic() >= until_s or (writers and all(task.done() for task in writers)):
                return
            for task in (*others, *writers):
                if task.done() and not task.cancelled():
                    task.result()
            if phase is CALM:
                await self._calm(options.phase_s)
                continue
            await self._enter(phase)
            await self._calm(options.calm_s)

    async def _enter(self, phase: Phase) -> None:
        account = self._account
        now_s = time.time()
        entry = {"name": phase.name, "from_s": now_s - self._began_s}
        span = account.begin(phase.name, phase.explains, phase.grace_s, now_s)
        account.phase = phase.name
        controls = phase.stand_in, phase.to_store, phase.to_server, phase.clock_ahead_s
        await asyncio.to_thread(self._world.disturb, *controls)
        await self._wait(phase.seconds, phase.name)
        await asyncio.to_thread(
            self._world.disturb, CALM.stand_in, CALM.to_store, CALM.to_server, CALM.clock_ahead_s
        )
        span.end_s = time.time() + _PHASE_EDGE_S
        account.phase = f"after {phase.name}"
        self._phases.append({**entry, "to_s": time.time() - self._began_s})

    async def _calm(self, seconds: float) -> None:
        await self._wait(seconds, "calm")
        self._account.phase = "calm"

    async def _wait(self, seconds: float, what: str) -> None:
        await asyncio.sleep(seconds)
        self._bar.advance(seconds, what)

    async def _sample(self) -> None:
        while True:
            self._watch.sample()
            await asyncio.sleep(self._options.sample_every_s)

    def _streams(self) -> list[Lanes]:
        options, account, port = self._options, self._account, self._world.to_server.port
        wanted = (
            ("vectors", self._lenient, options.vectors_per_s, 8, True),
            ("new connections", self._narrow, options.new_connections_per_s, 8, False),
            ("batches", self._batch, options.batches_per_s, 4, True),
            ("totals", lambda: TotalsQuestion(self._ledger), options.totals_per_s, 2, True),
        )
        return [
            Lanes(name, ask, account, port, connections=connections, rate_per_s=rate, keeps_connections=keeps)
            for name, ask, rate, connections, keeps in wanted
            if rate
        ]

    def _entity(self) -> int:
        return self._random.randrange(self._options.entities)

    def _lenient(self) -> Question:
        if self._random.random() < 0.5:
            return Question(WIDE, (self._entity(),), is_batch=False)
        budget_ms = self._random.choice((None, 400, 800))
        return Question(WIDE, (self._entity(),), is_batch=False, is_lenient=True, budget_ms=budget_ms)

    def _narrow(self) -> Question:
        return Question(NARROW, (self._entity(),), is_batch=False)

    def _batch(self, service: Service = WIDE) -> Question:
        rows = self._options.batch_rows
        entities = tuple(self._random.sample(range(self._options.entities), rows))
        return Question(service, entities, is_batch=True)

    def _writers(self) -> list[Any]:
        options = self._options
        base_s = self._began_s - 4 * 3600
        return [
            Writer(
                number,
                self._ledger,
                self._account,
                self._world.to_server.port,
                options.write_events,
                base_s,
                options.seed,
            ).run(self._done, options.write_every_s, options.events)
            for number in range(options.writers)
        ]

    async def _final_totals(self) -> dict[str, int]:
        """Read all totals past the proxies, until it succeeds, and hold them against the ledger."""
        ledger = self._ledger
        found = None
        while found is None:
            try:
                found = await totals_now(self._world.server_port, ledger)
            except (OSError, EOFError):
                self._final_tries -= 1
                if not self._final_tries:
                    raise
                await asyncio.sleep(0.2)
        difference = found - ledger.acknowledged
        return {
            "lost": int(-np.minimum(difference[0], 0).sum()),
            "doubled": int(np.maximum(difference[0], 0).sum()),
            "wrong_sums": int((difference[1] != 0).sum()),
        }

    def _cpu_s(self) -> dict[str, float]:
        world = self._world
        roots = {"server": world.server_pid, "stand-in": world.stand_in.pid, "load": os.getpid()}
        roots |= {"proxy to the store": world.to_store.pid, "proxy to the server": world.to_server.pid}
        found = {}
        for name, pid in roots.items():
            readings = read_tree(pid)[: 1 if name == "load" else None]
            found[name] = sum(reading.cpu_ns for reading in readings) / 1e9
        return found

    def _report(
        self, streams: list[Lanes], lost: dict[str, int], cpu_s: dict[str, float], load_before: float
    ) -> dict[str, Any]:
        account, ledger = self._account, self._ledger
        return {
            "options": asdict(self._options),
            "seconds": round(time.time() - self._began_s, 1),
            "requests": sum(account.counts.values()),
            "reads": account.reads,
            "wrong": account.wrong_count,
            "unexplained": account.unexplained_count,
            "only_by_pauses": account.paused_count,
            "pauses": [self._pauses.pauses, round(self._pauses.paused_s, 1)],
            "wrong_shown": account.wrong,
            "unexplained_shown": account.unexplained,
            "ingest": {
                "events": int(ledger.acknowledged[0].sum()),
                "requests": ledger.requests,
                "repeats": ledger.repeats,
                **lost,
            },
            "killed": self._killer.killed,
            "reloads": self._reloader.reloads,
            "failed_reloads": self._reloader.failed,
            "phases": self._phases,
            "by_phase": account.by_phase(),
            "by_stream": account.by_stream(),
            "latency_ms": {stream.name: stream.latency_ms() for stream in streams},
            "workers": self._watch.report(),
            "samples": [asdict(each) for each in self._watch.samples.values()],
            # What ended meanwhile, such as killed workers, is left out.
            "cpu_s": {name: round(each, 2) for name, each in cpu_s.items()},
            "load_average_before": round(load_before, 2),
        }


def _begun(
    work: Callable[[float], Coroutine[Any, Any, None]], every_s: float | None
) -> list[asyncio.Task[None]]:
    return [] if every_s is None else [asyncio.get_running_loop().create_task(work(every_s))]


def _log_summary(log: str) -> dict[str, int]:
    """Count the kinds of lines of the server's log, for what nobody looked for."""
    words = ("Traceback", "was silent", "died (exit", "could not start", "doesn't answer", "answers again")
    found = Counter({word: log.count(word) for word in words})
    return {word: count for word, count in found.items() if count}
