"""Writers as processes of their own, which push events to a server that is being killed under them.

What a writer sends is a function of its number, so a test knows every event without being told. Writers
resend what isn't answered, as public clients do; every other writer names its requests, those of the rest are
known by their records. Some answers they never wait for, and some requests they send once more after they
were answered.

Invariants
1. An event is entered as sent before its bytes leave, and as acknowledged after the answer has come.
2. A writer ends only when all of its requests were acknowledged.
3. Events of a phase lie in its span of time, and a phase begins when all writers have ended the one before.
"""

from __future__ import annotations

import http.client
import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

PATIENCE_S = 60.0
ANSWER_WITHIN_S = 10.0
UNREAD_SHARE = 0.04
AGAIN_SHARE = 0.04
RETRIED = frozenset({429, 500, 502, 503, 504})
MEASURES = ("count", "units", "eighths")

Totals = npt.NDArray[np.int64]


class PushedEvent(NamedTuple):
    """One event: all of its numbers are above zero, so that sums only grow."""

    key: int
    time_ns: int
    units: int
    eighths: int

    @property
    def record(self) -> dict[str, object]:
        """The event as it is pushed."""
        return {
            "user_id": key_name(self.key),
            "at": time_text(self.time_ns),
            "units": self.units,
            "amount": self.eighths / 8,
        }


@dataclass(frozen=True, slots=True)
class Load:
    """Who writes what, and where the ledger of it lies."""

    host: str
    port: int
    source: str
    workspace: str
    folder: Path
    base_ns: int
    phase_ns: int
    writers: int = 8
    phases: int = 4
    requests: int = 63
    batch: int = 100
    keys: int = 24
    seed: int = 0

    @property
    def events(self) -> int:
        """How many events all writers send."""
        return self.writers * self.phases * self.requests * self.batch

    def phase_start_ns(self, phase: int) -> int:
        """Return the time at which a phase's events begin."""
        return self.base_ns + phase * self.phase_ns

    def request(self, writer: int, phase: int, number: int) -> list[PushedEvent]:
        """Return the events of one request."""
        chance = random.Random(f"{self.seed}/{writer}/{phase}/{number}")
        start_ns = self.phase_start_ns(phase)
        return [
            PushedEvent(
                min(chance.randrange(self.keys), chance.randrange(self.keys)),
                start_ns + chance.randrange(self.phase_ns),
                chance.randrange(1, 2**40),
                chance.randrange(1, 2**20),
            )
            for _ in range(self.batch)
        ]

    def phase(self, phase: int) -> Iterator[PushedEvent]:
        """Return all events of a phase."""
        for writer in range(self.writers):
            for number in range(self.requests):
                yield from self.request(writer, phase, number)

    def totals(self) -> Totals:
        """Return what every key must come to in the end: a line of keys for each of `MEASURES`."""
        totals = np.zeros((len(MEASURES), self.keys), np.int64)
        for phase in range(self.phases):
            for event in self.phase(phase):
                totals[:, event.key] += (1, event.units, event.eighths)
        return totals


def key_name(key: int) -> str:
    """Return a key as it is pushed."""
    return f"user-{key}"


def time_text(time_ns: int) -> str:
    """Return a time with all of its nanoseconds."""
    seconds, rest = divmod(time_ns, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09}Z"


class Ledger:
    """What was sent and what was acknowledged so far, in a file that all processes have in memory."""

    def __init__(self, load: Load) -> None:
        path = load.folder / "ledger"
        shape = (2, load.writers, len(MEASURES), load.keys)
        self._entries = np.memmap(path, np.int64, "r+" if path.exists() else "w+", shape=shape)

    def enter(self, *, acknowledged: bool, writer: int, events: list[PushedEvent]) -> None:
        """Enter events of a request; a writer enters each of its requests once in both columns."""
        added = np.zeros(self._entries.shape[2:], np.int64)
        for event in events:
            added[:, event.key] += (1, event.units, event.eighths)
        self._entries[int(acknowledged), writer] += added

    def sent(self) -> Totals:
        """Return what may have arrived by now."""
        return self._total(0)

    def acknowledged(self) -> Totals:
        """Return what must have arrived by now."""
        return self._total(1)

    def _total(self, column: int) -> Totals:
        total: Totals = np.array(self._entries[column]).sum(axis=0)
        return total


@contextmanager
def writing(load: Load) -> Iterator[tuple[Barrier, Ledger, list[multiprocessing.process.BaseProcess]]]:
    """Run the writers; each phase begins when the caller waits at the barrier as well."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(load.writers + 1, timeout=PATIENCE_S)
    ledger = Ledger(load)
    writers: list[multiprocessing.process.BaseProcess] = [
        context.Process(target=write, args=(load, number, barrier), daemon=True)
        for number in range(load.writers)
    ]
    for writer in writers:
        writer.start()
    try:
        yield barrier, ledger, writers
    finally:
        for writer in writers:
            writer.kill()
            writer.join()


def write(load: Load, writer: int, barrier: Barrier) -> None:
    """Send everything that one writer has to send; runs in a process of its own."""
    ledger = Ledger(load)
    client = _Client(load, writer, random.Random(f"{load.seed}/{writer}"))
    try:
        for phase in range(load.phases):
            barrier.wait()
            for number in range(load.requests):
                events = load.request(writer, phase, number)
                ledger.enter(acknowledged=False, writer=writer, events=events)
                client.push(f"{load.seed}-{writer}-{phase}-{number}", events)
                ledger.enter(acknowledged=True, writer=writer, events=events)
        barrier.wait()
    except BaseException:
        barrier.abort()  # or all others wait for this one
        raise


class _Client:
    """One writer's connection, which it opens again whenever it is lost."""

    def __init__(self, load: Load, writer: int, chance: random.Random) -> None:
        self._load = load
        self._names_requests = writer % 2 == 0
        self._chance = chance
        self._connection: http.client.HTTPConnection | None = None
        self._failures: Counter[str] = Counter()

    def push(self, identity: str, events: list[PushedEvent]) -> None:
        """Send a request until it is acknowledged, and now and then once more."""
        document = {
            "workspace_name": self._load.workspace,
            "dry_run": False,
            "records": {self._load.source: [{"record": event.record} for event in events]},
        }
        body = orjson.dumps(document)
        deadline_s = time.monotonic() + PATIENCE_S
        while not self._is_acknowledged(identity, body):
            assert time.monotonic() < deadline_s, f"{identity} was never acknowledged: {self._failures}"
            time.sleep(self._chance.uniform(0, 0.1))
        self._failures.clear()
        if self._chance.random() < AGAIN_SHARE:
            self._is_acknowledged(identity, body)

    def _is_acknowledged(self, identity: str, body: bytes) -> bool:
        try:
            connection = self._connection or http.client.HTTPConnection(
                self._load.host, self._load.port, timeout=ANSWER_WITHIN_S
            )
            self._connection = connection
            headers = {"Content-Type": "application/json"}
            if self._names_requests:
                headers["Idempotency-Key"] = identity
            connection.request("POST", "/ingest", body, headers)
            if self._chance.random() < UNREAD_SHARE:
                self._give_up()
                return False
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._failures[repr(error)] += 1
            self._give_up()
            return False
        if answer.status in RETRIED:
            self._failures[f"{answer.status} {content[:200]!r}"] += 1
            return False
        assert answer.status == http.HTTPStatus.OK, (answer.status, content[:500])
        return True

    def _give_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
