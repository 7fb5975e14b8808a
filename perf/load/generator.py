"""The load generator as a process: a plan as JSON on standard input, a report as JSON on standard output.

Closed loop: each connection sends its next request as soon as its answer is whole, which shows saturation.
Open loop: requests have their times, kept whatever the answers do; a latency counts from the intended
start, so waiting for a free connection is part of it (no coordinated omission). It must not know how
vectors are computed: values are verified through a callback that the plan names.

Invariants:
1. Only what was intended to start within the measured time is counted, and all of that is: answered,
   failed, or unanswered when the run ended.
2. Costs and counters are read at the start and the end of the measured time, from inside this process.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import uvloop

from perf.load.client_connection import ClientConnection, connect
from perf.load.histogram import Histogram
from perf.load.key_laws import draw_entities, entity_key, partner_key
from perf.load.load_plan import LoadPlan, Stream
from perf.load.precise_timer import PreciseTimer
from perf.load.processes import Reading, read_tree
from perf.load.standin_client import StandInAddress

if TYPE_CHECKING:
    from collections.abc import Callable

_PROBLEMS_MAX = 5
_OK = 200
_REFUSED = frozenset({429, 503})
_WATCH_EVERY_S = 0.1
_DRAIN_MAX_S = 5.0
_DRAIN_EVERY_S = 0.01


class Window:
    """The measured time; empty until it is set."""

    def __init__(self) -> None:
        self.start_ns = 1 << 62
        self.end_ns = 1 << 62

    def holds(self, moment_ns: int) -> bool:
        """Tell whether a moment is measured."""
        return self.start_ns <= moment_ns < self.end_ns


class StreamLoad:
    """One stream's requests, connections and counts."""

    def __init__(self, stream: Stream, plan: LoadPlan, window: Window, seed: int) -> None:
        self.stream = stream
        self._plan = plan
        self._window = window
        self.latency = Histogram()
        self.refused = Histogram()
        self.answered = self.errors = self.lost = self.verified = self.wrong = 0
        self.response_bytes = 0
        self.problems: list[str] = []
        self.connections: list[ClientConnection] = []
        self.free: deque[ClientConnection] = deque()
        self.waiting: deque[int] = deque()
        self.stopped = False
        self._reconnects: set[asyncio.Task[None]] = set()
        self._verify = _load_verify(stream)
        self._until_verified = stream.verify_every
        self._requests = _requests(stream, plan, seed)
        self._next = 0

    async def open(self) -> None:
        """Open all connections. Raises OSError."""
        for _ in range(self.stream.connections):
            connection = await connect(self._plan.host, self._plan.port, self)
            self.connections.append(connection)
            self.free.append(connection)

    def start_closed(self) -> None:
        """Let every connection send, and send again."""
        while self.free:
            self._send(self.free.popleft(), time.monotonic_ns())

    def arrive(self, intended_ns: int) -> None:
        """Take one arrival of the open loop."""
        if self.free:
            self._send(self.free.popleft(), intended_ns)
        else:
            self.waiting.append(intended_ns)

    def _send(self, connection: ClientConnection, intended_ns: int) -> None:
        position = self._next
        self._next = position + 1 if position + 1 < len(self._requests) else 0
        connection.key, request = self._requests[position]
        connection.intended_ns = intended_ns
        connection.sent_ns = time.monotonic_ns()
        keep_body = False
        if self._verify is not None:
            self._until_verified -= 1
            if self._until_verified <= 0:
                keep_body = True
                self._until_verified = self.stream.verify_every
        connection.send(request, keep_body=keep_body)

    def on_answer(self, connection: ClientConnection, status: int, body: bytes | None) -> None:
        """Count an answer and send the next request."""
        now_ns = time.monotonic_ns()
        if status in _REFUSED and self.stream.may_refuse:
            if self._window.holds(connection.intended_ns):
                # What this process lets wait is no refusal's time.
                self.refused.record(now_ns - connection.sent_ns)
        elif self._window.holds(connection.intended_ns):
            self.latency.record(now_ns - connection.intended_ns)
            if status == _OK:
                self.answered += 1
            else:
                self._fail(f"status {status}")
        if body is not None:
            self._check(connection.key, status, body)
        if self.stopped:
            return
        if self.stream.rate_per_s is None:
            self._send(connection, time.monotonic_ns())
        elif self.waiting:
            self._send(connection, self.waiting.popleft())
        else:
            self.free.append(connection)

    def on_loss(self, connection: ClientConnection) -> None:
        """Count a loss and open another connection."""
        if self.stopped:
            return
        if connection.busy and self._window.holds(connection.intended_ns):
            self.lost += 1
            self._fail("connection lost before the answer")
        if connection in self.free:
            self.free.remove(connection)
        self.connections.remove(connection)
        task = asyncio.get_running_loop().create_task(self._reopen())
        self._reconnects.add(task)
        task.add_done_callback(self._reconnects.discard)

    async def _reopen(self) -> None:
        try:
            connection = await connect(self._plan.host, self._plan.port, self)
        except OSError as error:
            self._fail(f"cannot connect: {error}")
            await asyncio.sleep(_WATCH_EVERY_S)
            if not self.stopped:
                await self._reopen()
            return
        self.connections.append(connection)
        if self.stream.rate_per_s is None:
            self._send(connection, time.monotonic_ns())
        elif self.waiting:
            self._send(connection, self.waiting.popleft())
        else:
            self.free.append(connection)

    def give_up_overdue(self, now_ns: int) -> None:
        """Abort what has been under way for longer than the plan's timeout."""
        limit_ns = now_ns - int(self._plan.timeout_s * 1e9)
        for connection in list(self.connections):
            if connection.busy and connection.sent_ns < limit_ns:
                connection.abort()

    def stop(self) -> int:
        """Close all connections; give how many measured requests are unanswered."""
        self.stopped = True
        unanswered = sum(1 for moment_ns in self.waiting if self._window.holds(moment_ns))
        for connection in self.connections:
            unanswered += connection.busy and self._window.holds(connection.intended_ns)
            connection.close()
        for task in self._reconnects:
            task.cancel()
        return unanswered

    def outstanding(self) -> bool:
        """Tell whether something measured is still without its answer."""
        busy = any(entry.busy and self._window.holds(entry.intended_ns) for entry in self.connections)
        return busy or any(self._window.holds(moment_ns) for moment_ns in self.waiting)

    def _check(self, key: str, status: int, body: bytes) -> None:
        self.response_bytes = len(body)
        if self._verify is None or status != _OK:
            return
        problem = self._verify(key, body)
        self.verified += 1
        if problem is not None:
            self.wrong += 1
            self._note(f"{key}: {problem}")

    def _fail(self, problem: str) -> None:
        self.errors += 1
        self._note(problem)

    def _note(self, problem: str) -> None:
        if len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(problem)


def _requests(stream: Stream, plan: LoadPlan, seed: int) -> list[tuple[str, bytes]]:
    """Make the requests beforehand: sending one is then one write."""
    extra = "".join(f"{name}: {value}\r\n" for name, value in stream.headers.items())
    length = len(f"{stream.head}{_key_part(stream, entity_key(0))}{stream.tail}".encode())
    start = (
        f"POST {stream.path} HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\nContent-Type: application/json\r\n"
        f"{extra}Content-Length: {length}\r\n\r\n{stream.head}"
    ).encode()
    tail = stream.tail.encode()
    drawn = draw_entities(stream.key_law, stream.entities, seed, stream.zipf_exponent).tolist()
    names = {index: entity_key(index) for index in set(drawn)}
    made = {index: (name, start + _key_part(stream, name).encode() + tail) for index, name in names.items()}
    return [made[index] for index in drawn]


def _key_part(stream: Stream, key: str) -> str:
    return key if stream.middle is None else f"{key}{stream.middle}{partner_key(key)}"


def _load_verify(stream: Stream) -> Callable[[str, bytes], str | None] | None:
    if stream.verify is None:
        return None
    module, _, name = stream.verify.partition(":")
    make = getattr(importlib.import_module(module), name)
    made: Callable[[str, bytes], str | None] = make(stream.verify_with)
    return made


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
            load.arrive(self._due_ns)
            self._due_ns += gaps[self._next]
            self._next = (self._next + 1) & 0xFFFF
        self._timer.call_at(self._due_ns / 1e9, self.run)


class Costs:
    """Readings of all watched processes and of the stand-in at one moment."""

    def __init__(self, plan: LoadPlan) -> None:
        watched = {**plan.watch, "generator": os.getpid()}
        self.readings = {
            name: {entry.pid: entry for entry in read_tree(pid)} for name, pid in watched.items()
        }
        self.stand_in: dict[str, Any] = {}
        if plan.stand_in_port is not None:
            self.stand_in = StandInAddress(plan.stand_in_port, 0).counters()


async def run_plan(plan: LoadPlan) -> dict[str, Any]:
    """Run a plan and report it.

    Raises:
        OSError: the server can't be connected to.
    """
    loop = asyncio.get_running_loop()
    window = Window()
    timer = PreciseTimer(loop)
    loads = [StreamLoad(stream, plan, window, plan.seed + at) for at, stream in enumerate(plan.streams)]
    for load in loads:
        await load.open()
    for at, load in enumerate(loads):
        if load.stream.rate_per_s is None:
            load.start_closed()
        else:
            Arrivals(load, timer, plan.seed + 1_000 + at).run()
    watcher = loop.create_task(_watch(loads))
    await asyncio.sleep(plan.warmup_s)
    before = Costs(plan)
    window.start_ns = time.monotonic_ns()
    await asyncio.sleep(plan.duration_s)
    window.end_ns = time.monotonic_ns()
    after = Costs(plan)
    await _drain(loads)
    watcher.cancel()
    unanswered = [load.stop() for load in loads]
    timer.close()
    return _report(plan, window, loads, unanswered, before, after)


async def _watch(loads: list[StreamLoad]) -> None:
    while True:
        await asyncio.sleep(_WATCH_EVERY_S)
        for load in loads:
            load.give_up_overdue(time.monotonic_ns())


async def _drain(loads: list[StreamLoad]) -> None:
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
    requests = sum(load.latency.count for load in loads)
    return {
        "measured_s": measured_s,
        "requests": requests,
        "fs_qps": requests / measured_s,
        "streams": [
            _stream_report(load, left, measured_s) for load, left in zip(loads, unanswered, strict=True)
        ],
        "processes": {
            name: _cost(readings, after.readings[name], requests)
            for name, readings in before.readings.items()
        },
        "store": _store_report(before.stand_in, after.stand_in, measured_s, requests),
        "plan": {"warmup_s": plan.warmup_s, "duration_s": plan.duration_s, "seed": plan.seed},
    }


def _stream_report(load: StreamLoad, unanswered: int, measured_s: float) -> dict[str, Any]:
    return {
        "name": load.stream.name,
        "fs_qps": load.latency.count / measured_s,
        "rate_per_s": load.stream.rate_per_s,
        "connections": load.stream.connections,
        "latency_ms": load.latency.summary_ms(),
        "latency_buckets_ms": load.latency.buckets_ms(),
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
        "call_ms": after["call_ms"],
    }


def main() -> None:
    """Read a plan, run it, print the report."""
    plan = LoadPlan.from_json(orjson.loads(sys.stdin.buffer.read()))
    # Nothing here makes cycles while it runs; a collection would be seen as the server's latency.
    gc.disable()
    sys.stdout.buffer.write(orjson.dumps(uvloop.run(run_plan(plan))))


if __name__ == "__main__":
    main()
