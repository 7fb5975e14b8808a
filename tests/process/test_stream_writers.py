"""Eight writers push to a server whose workers are killed, while rows land and readers read: all is exact.

What is asked of every read: it sees at least what was acknowledged before it began, and at most what had been
sent when it ended, whatever rows landed, workers died and requests came twice meanwhile.
"""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from perf.load import standin_client
from tests.support.feature_server import (
    GET_FEATURES_BATCH,
    clean_environ,
    command,
    serving_features,
)
from tests.support.server_process import Connection, Server, eventually, kill
from tests.support.stream_load import RETRIED, Ledger, Load, Totals, key_name, writing

MINUTE_NS = 60 * 10**9
KILL_EVERY_S = 1.5
READ_EVERY_S = 0.1
READERS = 2
TRIES = 20
LATENCY_MS = {"1": 3, "99": 15}
FAULTS = {
    "operations": ["PutItem", "BatchGetItem", "GetItem"],
    **{
        f"{fault}_share": 0.02
        for fault in ("throttle", "server_error", "drop_connection", "cut_answer", "wrong_crc")
    },
}
REPO = """
from datetime import timedelta
from fastserve import *

user = Entity("user", Field("user_id", String))
schema = [
    Field("user_id", String), Field("at", Timestamp), Field("units", Int64), Field("amount", Float64)
]
history = FileSource("history", "history/*.parquet", timestamp_field="at")
both = PushSource("both", schema, batch_source=history, timestamp_field="at")
alone = PushSource("alone", schema, timestamp_field="at")
windows = [("recent", TimeWindow(timedelta(hours=3))), ("ever", LifetimeWindow())]
features = [
    Aggregate(Field(column, dtype), function, window, name=f"{label}_{measure}")
    for label, window in windows
    for measure, column, dtype, function in [
        ("count", "units", Int64, "count"),
        ("units", "units", Int64, "sum"),
        ("amount", "amount", Float64, "sum"),
    ]
]
spend = FeatureView("spend", user, both, features, aggregation_interval=timedelta(minutes=1))
pushed = FeatureView("pushed", user, alone, features, aggregation_interval=timedelta(minutes=1))
services = [FeatureService(view.name, [view]) for view in (spend, pushed)]
"""
FEATURES = [f"{label}_{measure}" for label in ("recent", "ever") for measure in ("count", "units", "amount")]


class World:
    """A repo, a store and a running server, and what is asked of them."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.repo = folder / "repo"
        (self.repo / "history").mkdir(parents=True)
        (self.repo / "defs.py").write_text(REPO)
        self.run("apply", "--yes")

    def run(self, *arguments: str) -> str:
        """Run a command of the command line to its end."""
        where = ["--repo", str(self.repo), "--store", self.url]
        done = subprocess.run(
            command(arguments[0], *arguments[1:], *where),
            env=clean_environ(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.stdout.decode(), done.stderr.decode())
        return done.stdout.decode() + done.stderr.decode()

    def land(self, load: Load, phases: int) -> None:
        """Let rows land that hold all events of the first phases; those before lie in files already."""
        events = list(load.phase(phases - 1)) if phases else []
        table = pa.table(
            {
                "user_id": pa.array([key_name(event.key) for event in events], pa.string()),
                "at": pa.array([event.time_ns for event in events], pa.timestamp("ns", "UTC")),
                "units": pa.array([event.units for event in events], pa.int64()),
                "amount": pa.array([event.eighths / 8 for event in events], pa.float64()),
            }
        )
        pq.write_table(table, self.repo / "history" / f"{phases}.parquet")
        self.run("materialize", "spend", "--until", self.until(load, phases))

    def until(self, load: Load, phases: int) -> str:
        """Return the time at which the first phases end."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(load.phase_start_ns(phases) // 10**9))


@contextmanager
def in_background(work: Callable[[threading.Event], None], count: int = 1) -> Iterator[None]:
    """Do something again and again until the end of the block, which its failure fails."""
    done, failures = threading.Event(), []

    def run() -> None:
        try:
            work(done)
        except BaseException as error:  # noqa: BLE001 - it is raised where the test waits
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def killing(server: Server, chance: random.Random, killed: list[int]) -> Callable[[threading.Event], None]:
    """Return what kills workers that serve, one at a time."""

    def work(done: threading.Event) -> None:
        known: dict[int, float] = {}
        while not done.wait(0.1):
            now_s = time.monotonic()
            known = {pid: known.get(pid, now_s) for pid in server.workers()}
            old = [pid for pid, since_s in known.items() if now_s - since_s > KILL_EVERY_S]
            if len(old) == 2:
                killed.append(chance.choice(old))
                kill(killed[-1])

    return work


class Reader:
    """Reads all keys and holds them against the ledger."""

    def __init__(self, server: Server, load: Load, ledger: Ledger, service: str) -> None:
        self._server, self._load, self._ledger = server, load, ledger
        self._service = service
        self.reads = 0
        rows = [{"joinKeyMap": {"user_id": key_name(key)}} for key in range(load.keys)]
        params = {
            "workspaceName": load.workspace,
            "featureServiceName": service,
            "requestData": rows,
            "metadataOptions": {"includeNames": True},
        }
        self._body = orjson.dumps({"params": params})

    def work(self, done: threading.Event) -> None:
        """Read until it is done."""
        connection: Connection | None = None
        while not done.wait(READ_EVERY_S):
            try:
                connection = connection or self._server.connect()
                self.check(connection)
            except OSError:  # its worker was killed
                connection = None

    def check(self, connection: Connection) -> None:
        """Read all keys once."""
        least = self._ledger.acknowledged()
        found = self.read(connection)
        most = self._ledger.sent()
        if found is None:
            return
        for label, totals in found.items():
            wrong = np.argwhere((totals < least) | (totals > most))
            assert not len(wrong), (label, *((totals[m, k], least[m, k], most[m, k]) for m, k in wrong[:3]))
        assert np.array_equal(found["recent"], found["ever"])
        self.reads += 1

    def read_for_certain(self, connection: Connection) -> dict[str, Totals]:
        """Read until the store doesn't fail."""
        for _ in range(TRIES):
            if found := self.read(connection):
                return found
        raise AssertionError(f"the store failed {TRIES} times")

    def read(self, connection: Connection) -> dict[str, Totals] | None:
        """Return what all keys have, by window; None when the store fails or the server is on its way out."""
        answer = connection.ask(GET_FEATURES_BATCH, self._body)
        if answer.status in RETRIED:
            return None
        assert answer.status == 200, answer.body[:500]
        document = orjson.loads(answer.body)
        names = [feature["name"].split(".")[1] for feature in document["metadata"]["features"]]
        rows = [dict(zip(names, row["features"], strict=True)) for row in document["result"]]
        return {label: _totals(rows, label) for label in ("recent", "ever")}


def _totals(rows: list[dict[str, Any]], label: str) -> Totals:
    return np.array(
        [
            [int(row[f"{label}_count"] or 0) for row in rows],
            [int(row[f"{label}_units"] or 0) for row in rows],
            [int((row[f"{label}_amount"] or 0.0) * 8) for row in rows],
        ],
        np.int64,
    )


def make_load(folder: Path, source: str, **sizes: int) -> Load:
    """Return a load whose last events are of a minute ago; the server isn't known yet."""
    phase_ns, phases = 10 * MINUTE_NS, sizes.pop("phases", 4)
    now_ns = time.time_ns() // MINUTE_NS * MINUTE_NS
    base_ns = now_ns - phases * phase_ns - MINUTE_NS
    return Load("", 0, source, "default", folder, base_ns, phase_ns, phases=phases, **sizes)


def run_load(
    server: Server, load: Load, service: str, between: Callable[[int], None], readers: int = READERS
) -> None:
    """Let the writers write, workers die and readers read; ``between`` is called as each phase is written."""
    killed: list[int] = []
    chance = random.Random(load.seed)
    load = replace(load, host=server.host, port=server.port)
    with writing(load) as (barrier, ledger, writers):
        reader = Reader(server, load, ledger, service)
        barrier.wait()  # all writers have started, and begin
        with in_background(killing(server, chance, killed)), in_background(reader.work, readers):
            for phase in range(load.phases):
                between(phase)
                barrier.wait()
        for writer in writers:
            writer.join()
            assert writer.exitcode == 0
        eventually(lambda: len(server.workers()) == 2)
        totals = load.totals()
        assert np.array_equal(ledger.acknowledged(), totals)
        for _ in range(4):  # of either worker
            found = reader.read_for_certain(server.connect())
            assert np.array_equal(found["recent"], totals)
            assert np.array_equal(found["ever"], totals)
    print(f"{load.events:,} events, {len(killed)} workers killed, {reader.reads} reads of {load.keys} keys")
    assert len(killed) >= 2
    assert reader.reads >= 5


def test_nothing_is_lost_or_doubled_while_workers_die_and_rows_land(tmp_path: Path) -> None:
    world = World(tmp_path, f"local:{tmp_path / 'store'}?sync=off")
    load = make_load(tmp_path, "both")
    assert load.events >= 200_000
    world.land(load, 0)
    with serving_features(world.repo, world.url, "--workers", "2") as server:

        def land(phase: int) -> None:
            if phase:
                world.land(load, phase)

        run_load(server, load, "spend", land)
        world.land(load, load.phases)
        found = Reader(server, load, Ledger(load), "spend").read_for_certain(server.connect())
        assert np.array_equal(found["ever"], load.totals())


def test_nothing_is_lost_or_doubled_on_dynamodb_while_rows_land(tmp_path: Path) -> None:
    with standin_client.running() as stand_in:
        world = World(tmp_path, stand_in.store_url())
        load = make_load(tmp_path, "both", phases=3, requests=20, batch=20, keys=12)
        world.land(load, 0)
        stand_in.control(latency_ms=LATENCY_MS)
        with serving_features(world.repo, world.url, "--workers", "2") as server:

            def land(phase: int) -> None:
                if phase:
                    world.land(load, phase)

            run_load(server, load, "spend", land, readers=8)


def test_nothing_is_lost_or_doubled_on_a_failing_dynamodb_that_is_compacted(tmp_path: Path) -> None:
    with standin_client.running() as stand_in:
        world = World(tmp_path, stand_in.store_url())
        load = make_load(tmp_path, "alone", phases=3, requests=20, batch=20, keys=12)
        with serving_features(world.repo, world.url, "--workers", "2") as server:
            stand_in.control(latency_ms=LATENCY_MS, faults=FAULTS)

            def compact(phase: int) -> None:
                if phase:
                    world.run("compact", "pushed", "--until", world.until(load, phase))

            run_load(server, load, "pushed", compact, readers=4)
            counters = stand_in.counters()
            assert counters["errors"] > 10, counters
