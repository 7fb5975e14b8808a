"""What pushed records cost: events per second, CPU per event, time per request, write units per event.

One worker of `fastserve serve` takes POST /ingest from clients in a closed loop, into the local store and
into the stand-in, with 1, 10 and 100 records a request. Each record is of a random one of many keys, as
events of many users are. Time per request is measured with one client, so that it isn't the time in a line;
the rest with several.

Invariants
1. Every request has records of its own and is answered 200 before it counts.
2. Write units are those that the stand-in counted, DynamoDB's law; the local store has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from fastserve.ingest.apply import execute, plan_apply
from fastserve.sdk.repo import load_repo
from fastserve.store.url import open_store
from perf import server
from perf.data import CLOCK
from perf.load import standin_client
from perf.load.child import ROOT
from perf.load.processes import read_tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REPO = ROOT / "perf" / "repos" / "ingest"
BATCHES = (1, 10, 100)
STORES = ("local", "stand-in")
SPREAD_S = 3_600
"""Events are of the last hour: a dozen tiles."""
TECTON_P50_MS = 55.0
TECTON_P99_MS = (108.0, 165.0)
"""Published by Tecton for one record a request, over DynamoDB: another machine, network and load."""
_ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "perf", "AWS_SECRET_ACCESS_KEY": "perf"}


@dataclass(frozen=True)
class IngestOptions:
    """How long and how hard ingest is loaded."""

    duration_s: float = 4.0
    warmup_s: float = 1.0
    clients: int = 16
    entities: int = 10_000
    rounds: int = 3
    seed: int = 1


def measure_ingest(options: IngestOptions) -> list[dict[str, Any]]:
    """Measure every store with every batch size, in turns; give the rounds with the median CPU."""
    rounds: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for number in range(options.rounds):
        cases = [(store, batch) for store in STORES for batch in BATCHES]
        for store, batch in cases if number % 2 == 0 else cases[::-1]:
            rounds.setdefault((store, batch), []).append(_measure_one(store, batch, options, number))
    return [_median(reports) for reports in rounds.values()]


def _median(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    ordered = sorted(reports, key=lambda report: float(report["cpu_us_per_event"]))
    every = [report["cpu_us_per_event"] for report in reports]
    return ordered[len(ordered) // 2] | {"rounds_cpu_us_per_event": every}


def _measure_one(store: str, batch: int, options: IngestOptions, number: int) -> dict[str, Any]:
    with _store(store) as (url, stand_in):
        asyncio.run(_apply(url))
        with server.running(REPO, url) as (pid, port):
            load = _Load(port, pid, batch, options, seed=options.seed * 1_000 + number)
            report = asyncio.run(load.run(stand_in))
    return {"store": store, "batch": batch, **report}


@contextlib.contextmanager
def _store(kind: str) -> Iterator[tuple[str, standin_client.StandInAddress | None]]:
    os.environ.update(_ENVIRONMENT)
    if kind == "local":
        with tempfile.TemporaryDirectory() as folder:
            yield f"local:{folder}/store", None
        return
    with standin_client.running() as stand_in:
        yield stand_in.store_url(), stand_in


async def _apply(url: str) -> None:
    store = await open_store(url)
    try:
        await execute(await plan_apply(load_repo(REPO), store), store)
    finally:
        await store.close()


class _Load:
    """Clients in a closed loop against one server."""

    def __init__(self, port: int, pid: int, batch: int, options: IngestOptions, seed: int) -> None:
        self._port = port
        self._pid = pid
        self._batch = batch
        self._options = options
        self._chance = random.Random(seed)
        now = datetime.fromisoformat(CLOCK).astimezone(UTC)
        self._now_s = now.timestamp()

    async def run(self, stand_in: standin_client.StandInAddress | None) -> dict[str, Any]:
        options = self._options
        await self._loaded(options.clients, options.warmup_s)
        if stand_in is not None:
            await asyncio.to_thread(stand_in.control, reset=True)
        before_ns, began = self._cpu_ns(), time.perf_counter()
        requests = len(await self._loaded(options.clients, options.duration_s))
        elapsed_s, cpu_ns = time.perf_counter() - began, self._cpu_ns() - before_ns
        counters = None if stand_in is None else await asyncio.to_thread(stand_in.counters)
        alone_ms = np.array(await self._loaded(1, options.duration_s / 2)) * 1e3
        events = requests * self._batch
        units = None if counters is None else round(counters["write_units"] / events, 3)
        calls = None if counters is None else round(sum(counters["calls"].values()) / events, 3)
        return {
            "events_per_s": round(events / elapsed_s),
            "cpu_us_per_event": round(cpu_ns / events / 1e3, 1),
            "alone_p50_ms": round(float(np.percentile(alone_ms, 50)), 2),
            "alone_p99_ms": round(float(np.percentile(alone_ms, 99)), 2),
            "write_units_per_event": units,
            "store_calls_per_event": calls,
            "requests": requests,
        }

    def _cpu_ns(self) -> int:
        return sum(reading.cpu_ns for reading in read_tree(self._pid))

    async def _loaded(self, clients: int, duration_s: float) -> list[float]:
        """Keep so many clients busy for a while; give the seconds of each request."""
        until_s = time.perf_counter() + duration_s
        times = await asyncio.gather(*[self._client(until_s) for _ in range(clients)])
        return [one for each in times for one in each]

    async def _client(self, until_s: float) -> list[float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        times = []
        try:
            while time.perf_counter() < until_s:
                request = self._request()
                sent_s = time.perf_counter()
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
                times.append(time.perf_counter() - sent_s)
                if not head.startswith(b"HTTP/1.1 200"):
                    raise RuntimeError(f"expected 200, got {head[:64]!r}")
        finally:
            writer.close()
        return times

    def _request(self) -> bytes:
        chance = self._chance
        records = [
            {
                "record": {
                    "user_id": f"user-{chance.randrange(self._options.entities)}",
                    "at": datetime.fromtimestamp(self._now_s - chance.random() * SPREAD_S, UTC).isoformat(),
                    "amount": round(chance.random() * 100, 2),
                }
            }
            for _ in range(self._batch)
        ]
        body = orjson.dumps({"records": {"payments": records}})
        return b"POST /ingest HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def format_ingest(measured: Sequence[dict[str, Any]]) -> str:
    """Lay the figures out as a table, Tecton's published ones below."""
    columns = {
        "store": "store",
        "batch": "records/request",
        "events_per_s": "events/s",
        "cpu_us_per_event": "CPU us/event",
        "alone_p50_ms": "p50 ms, 1 client",
        "alone_p99_ms": "p99 ms, 1 client",
        "write_units_per_event": "write units/event",
        "store_calls_per_event": "store calls/event",
    }
    rows = [list(columns.values())]
    rows += [["–" if one[name] is None else str(one[name]) for name in columns] for one in measured]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    low, high = TECTON_P99_MS
    lines.append(
        f"Tecton's published ingest, 1 record a request: p50 {TECTON_P50_MS:g} ms, "
        f"p99 {low:g} to {high:g} ms\n"
        "(DynamoDB over a network; the stand-in is in this machine and adds no latency)"
    )
    return "\n".join(lines)


def draw_ingest(result: dict[str, Any], picture: Path) -> None:
    """Draw CPU per event and time per request by batch size."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.use("agg")
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    cpu, times = figure.subplots(1, 2)
    colors = {"local": "#1f5fa8", "stand-in": "#e0912f"}
    for number, store in enumerate(STORES):
        found = [one for one in result["ingest"] if one["store"] == store]
        places = [place + (number - 0.5) * 0.36 for place in range(len(found))]
        bars = cpu.bar(places, [o["cpu_us_per_event"] for o in found], 0.33, color=colors[store], label=store)
        cpu.bar_label(bars, fmt="%.0f", fontsize=8, padding=2)
        bars = times.bar(places, [o["alone_p50_ms"] for o in found], 0.33, color=colors[store], label=store)
        times.bar_label(bars, fmt="%.1f", fontsize=8, padding=2)
    times.hlines([TECTON_P50_MS], [-0.4], [0.4], colors="#7a4fa3", linewidth=2, label="Tecton, published p50")
    times.set_yscale("log")
    times.set_ylim(top=400)  # room for the legend
    for panel, title in ((cpu, "CPU per event (µs)"), (times, "p50 of a request, one client (ms)")):
        panel.set_title(title, fontsize=11)
        panel.set_xticks(range(len(BATCHES)), [str(batch) for batch in BATCHES])
        panel.set_xlabel("records in a request")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
    machine = result["machine"]
    figure.suptitle(f"{machine['cpu']}, {machine['cpus']} CPUs, {result['date'][:10]}", fontsize=10)
    figure.savefig(picture, dpi=130)
