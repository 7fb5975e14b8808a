"""What a request costs without a socket: HTTP in, coalescing, BatchGetItem out and in, evaluation, HTTP out.

Everything of the hot path runs but the sockets and the store's connection (framing, signature:
`perf.micro.dynamodb_client`). So many requests as ``--clients`` says come in one turn of the loop, as from
that many busy clients.

Run as `python -m perf.micro.request [SERVICE …] [--clients 16] [--profile] [--metrics] [--accept TYPE]`.
Figures are CPU microseconds per request, the least of several rounds. With ``--metrics`` each round without
metrics is followed by one with them, in another instance of all of it; the second figure is what they add.
With ``--traces SHARE`` so does a third, of metrics and traces of this share, which are thrown away.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import process_time_ns, thread_time
from typing import Any

import orjson

from fastserve.server.application import FeatureApplication
from fastserve.server.connections import Connections
from fastserve.server.exchange import Application
from fastserve.server.metrics import MeasuredEvaluator, make_meter
from fastserve.server.metrics_memory import MetricsMemory
from fastserve.server.options import ServerOptions
from fastserve.server.protocol import HttpProtocol
from fastserve.server.tracing import (
    TracedAnswer,
    TracedWeighedAnswer,
    TracingApplication,
    traced_reader,
)
from fastserve.serving.coalescer import KeyRead
from fastserve.serving.engine import Engine
from fastserve.serving.transport import BASE64_ROWS
from fastserve.store.dynamodb.batch_get import BatchGetCodec
from perf.data import ARTICLE, CLOCK_NS, PATH, SHAPES, request_parts, row_texts, workspace_plan
from perf.load.key_laws import entity_key, partner_key
from perf.load.tables import row_index

MAX_KEYS = 100
ANSWERS = 256
ROUNDS = 9
TURNS = 40


class FakeTransport(asyncio.Transport):
    """Takes what is written and keeps the last of it."""

    last: Any = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.last = data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Ready:
    """A worker that is always ready."""

    is_ready = True


class CannedReader:
    """Builds every call as the DynamoDB reader does, and fills it with an answer that was made before."""

    max_keys = MAX_KEYS

    def __init__(self, texts: dict[str, list[Any]], settle: Callable[[Sequence[KeyRead]], None]) -> None:
        self._codec = BatchGetCodec()
        self._texts = texts
        self._settle = settle
        self._answers: dict[bytes, bytes] = {}
        self._canning_s = 0.0
        self.waiting: list[tuple[bytes, Sequence[KeyRead]]] = []

    def fetch(self, reads: Sequence[KeyRead]) -> None:
        body = self._codec.body(reads)
        if body not in self._answers:
            start_s = thread_time()
            if len(self._answers) >= ANSWERS:
                self._answers.clear()
            self._answers[body] = self._answer(body)
            self._canning_s += thread_time() - start_s
        self.waiting.append((self._answers[body], reads))

    def _answer(self, body: bytes) -> bytes:
        asked = orjson.loads(body)["RequestItems"]
        rows = {
            table: [
                {
                    "k": key["k"],
                    "v": {"B": self._texts[table][row_index(key["k"]["S"], len(self._texts[table]))]},
                }
                for key in entry["Keys"]
            ]
            for table, entry in asked.items()
        }
        return orjson.dumps({"Responses": rows, "UnprocessedKeys": {}})

    def take_waiting(self) -> list[tuple[bytes, Sequence[KeyRead]]]:
        waiting, self.waiting = self.waiting, []
        return waiting

    def take_canning_s(self) -> float:
        """Return the CPU that went into making answers, which is the store's."""
        canning_s, self._canning_s = self._canning_s, 0.0
        return canning_s

    def settle(self, answer: bytes, reads: Sequence[KeyRead]) -> None:
        self._codec.fill(answer, reads)
        self._settle(reads)

    def answer_all(self) -> None:
        for answer, reads in self.take_waiting():
            self.settle(answer, reads)


class Bench:
    """A worker's hot path over a canned store, and the clients in front of it."""

    def __init__(
        self,
        service: str,
        clients: int,
        *,
        metered: bool = False,
        accept: str = "",
        traced: float | None = None,
    ) -> None:
        plan = workspace_plan(SHAPES[service].repo_path)
        # An engine makes all services ready; the others would only cost time.
        plan = replace(plan, services={service: plan.services[service]})
        texts = {place.view.table: row_texts(place.view) for place in plan.services[service].places}
        self._flushes: list[Callable[[], None]] = []
        engine = Engine(plan, BASE64_ROWS, schedule=self._flushes.append, clock_ns=lambda: CLOCK_NS)

        def make_reader(settle: Callable[[Sequence[KeyRead]], None]) -> CannedReader:
            return self._reader(texts, settle)

        engine.attach(make_reader if traced is None else traced_reader(make_reader))
        self.application = FeatureApplication(plan.workspace, engine, Ready(), lambda: 0.0, lambda *_: None)
        if metered or traced is not None:
            measure(engine, self.application, traced=traced is not None)
        asked: Application = self.application
        if traced is not None:
            asked = TracingApplication(asked, traced, random.random, lambda _trace: None)
        shared = Connections(asked, ServerOptions(), 0.0, 0)
        self.transports = [FakeTransport() for _ in range(clients)]
        self.protocols = [HttpProtocol(shared) for _ in range(clients)]
        for protocol, transport in zip(self.protocols, self.transports, strict=True):
            protocol.connection_made(transport)
        self.requests = [self._request(service, entity_key(number), accept) for number in range(clients)]

    def _reader(
        self, texts: dict[str, list[Any]], settle: Callable[[Sequence[KeyRead]], None]
    ) -> CannedReader:
        self.reader = CannedReader(texts, settle)
        return self.reader

    @staticmethod
    def _request(service: str, key: str, accept: str) -> bytes:
        head, middle, tail = request_parts(service)
        text = f"{head}{key}{tail}" if middle is None else f"{head}{key}{middle}{partner_key(key)}{tail}"
        body = text.encode()
        head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: {len(body)}\r\n"
        if accept:
            head += f"Accept: {accept}\r\n"
        return f"{head}\r\n".encode() + body

    def turn(self) -> None:
        """Let every client ask once and be answered."""
        for protocol, request in zip(self.protocols, self.requests, strict=True):
            protocol.data_received(request)
        for flush in self._flushes:
            flush()
        self._flushes.clear()
        self.reader.answer_all()

    def take_flushes(self) -> list[Callable[[], None]]:
        """Return what the engine has put off to the end of the turn."""
        flushes = self._flushes[:]
        self._flushes.clear()
        return flushes

    def round_us(self) -> float:
        """Return the CPU per request of one round."""
        start = process_time_ns()
        for _ in range(TURNS):
            self.turn()
        return (process_time_ns() - start) / TURNS / len(self.requests) / 1000

    def cpu_us(self) -> float:
        """Return the least CPU per request."""
        return min(self.round_us() for _ in range(ROUNDS))


def measure(engine: Engine, application: FeatureApplication, *, traced: bool = False) -> None:
    """Count into shared memory, as a worker with an admin listener does."""
    memory = MetricsMemory(1)
    memory.declare(engine.services, (), ())
    cells = memory.services.row(0)
    for name, runtime in engine.services.items():
        runtime.evaluator = MeasuredEvaluator(runtime.evaluator, cells[name], len(runtime.plan.places))
    meters = {name: make_meter(cells[name]) for name in engine.services}
    if traced:
        application.measure(meters, TracedAnswer, TracedWeighedAnswer)
    else:
        application.measure(meters)


def added_us(plain: Bench, more: Bench) -> float:
    """Return what is added to the CPU per request: both by turns, the least of each."""
    more.turn()
    rounds = [(plain.round_us(), more.round_us()) for _ in range(3 * ROUNDS)]
    return min(after for _, after in rounds) - min(before for before, _ in rounds)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("services", nargs="*", default=[shape.service for shape in ARTICLE])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--metrics", action="store_true")
    parser.add_argument("--traces", type=float, metavar="SHARE", help="from 0 to 1")
    parser.add_argument("--accept", default="", help="such as application/msgpack")
    options = parser.parse_args()
    for service in options.services:
        bench = Bench(service, options.clients, accept=options.accept)
        for _ in range(10):
            bench.turn()
        if not bytes(bench.transports[0].last).startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{service}: unexpected answer {bytes(bench.transports[0].last)[:200]!r}")
        added = ""
        if options.metrics:
            metered = Bench(service, options.clients, metered=True)
            added = f"   metrics {added_us(bench, metered):+6.2f} us"
        if options.traces is not None:
            traced = Bench(service, options.clients, traced=options.traces)
            added += f"   metrics and traces {added_us(bench, traced):+6.2f} us"
        print(f"{service:16} {bench.cpu_us():8.2f} us{added}")
        if options.profile:
            profile = cProfile.Profile()
            profile.enable()
            for _ in range(TURNS * 5):
                bench.turn()
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    main()
