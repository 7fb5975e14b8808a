"""What a faulty store does to reads: `python -m perf.store_faults [--reads N] [--rounds N]`.

The stand-in DynamoDB answers by a law; the store's own client reads single keys from a few lanes at once, by
turns without hedged reads and with them. Per run: quantiles of the reads' latency as the caller sees it, and
the calls that the stand-in counted beyond one per read.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from base64 import b64encode
from typing import TYPE_CHECKING, Any

import uvloop

from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.url import open_store
from perf.load.histogram import Histogram
from perf.load.standin_client import StandInAddress, running

if TYPE_CHECKING:
    from collections.abc import Sequence

TABLE = "view"
GROUP = ReadGroup(0, (TABLE,))
LANES = 8
FLOOR_S = 0.005
# Calls of 4 ms, a few up to 8.
CALM_MS = {"0.01": 2.5, "50": 4.0, "95": 5.0, "99.99": 8.0}
SLOW_MS = {percent: 10 * ms for percent, ms in CALM_MS.items()}
NO_FAULTS: dict[str, object] = {}
ONE_IN_A_HUNDRED: dict[str, object] = {"stall_share": 0.01, "stall_ms": 36.0}
LEARNING_READS = 8_000
SHOWN = ("p50", "p95", "p99", "p99.9", "max")

# The stand-in before and during the measured part.
SCENARIOS: dict[str, tuple[dict[str, object], dict[str, object]]] = {
    "calm": ({"latency_ms": CALM_MS, "faults": NO_FAULTS}, {}),
    "1 % x 10": ({"latency_ms": CALM_MS, "faults": ONE_IN_A_HUNDRED}, {}),
    "published law": ({"latency_ms": "dynamodb", "faults": NO_FAULTS}, {}),
    "all x 10": ({"latency_ms": CALM_MS, "faults": NO_FAULTS}, {"latency_ms": SLOW_MS}),
}


class Lanes:
    """Reads single keys over one store, ``LANES`` at a time, and keeps how long each took."""

    def __init__(self, store: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.latencies = Histogram()
        self.failed = 0
        self._loop = loop
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._reader = store.reader(self._settle)

    def _settle(self, reads: Sequence[KeyRead]) -> None:
        for read in reads:
            self._waiting.pop(id(read)).set_result(None)

    async def run(self, reads: int) -> None:
        """Make so many reads."""
        await asyncio.gather(*[self._lane(lane, reads // LANES) for lane in range(LANES)])

    async def _lane(self, lane: int, reads: int) -> None:
        loop = self._loop
        for number in range(reads):
            read = KeyRead(GROUP, f"key-{lane}-{number}", loop.time() + 5.0)
            done = self._waiting[id(read)] = loop.create_future()
            start_s = time.perf_counter()
            self._reader.fetch([read])
            await done
            self.latencies.record(int((time.perf_counter() - start_s) * 1e9))
            self.failed += read.error is not None


async def measure(address: StandInAddress, scenario: str, reads: int, *, hedged: bool) -> None:
    """Make a run and print its line."""
    before, during = SCENARIOS[scenario]
    loop = asyncio.get_running_loop()
    address.control(**before)
    store: Any = await open_store(address.store_url(), hedge_floor_s=FLOOR_S if hedged else 0.0)
    try:
        lanes = Lanes(store, loop)
        await lanes.run(LEARNING_READS)  # the law learns what is usual
        address.control(reset=True, **during)
        lanes.latencies = Histogram()
        await lanes.run(reads)
        calls = address.counters()["calls"]["BatchGetItem"]
    finally:
        await store.close()
    made = reads // LANES * LANES
    summary = lanes.latencies.summary_ms()
    quantiles = "".join([f"{summary[name]:8.1f}" for name in SHOWN])
    kind = "hedged" if hedged else "plain"
    print(
        f"{scenario:<14}{kind:<7}{quantiles}{100 * (calls - made) / made:11.2f}{lanes.failed:8d}", flush=True
    )


async def main_of(address: StandInAddress, reads: int, rounds: int) -> None:
    """Make all runs, plain and hedged by turns."""
    address.prepare(TABLE, [b64encode(bytes(range(255)) * 4).decode()])
    print(f"{reads} reads each, {LANES} at a time; ms, extra calls in %")
    print(f"{'':<21}" + "".join([f"{name:>8}" for name in SHOWN]) + "    extra %  failed")
    for scenario in SCENARIOS:
        for _ in range(rounds):
            for hedged in (False, True):
                await measure(address, scenario, reads, hedged=hedged)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m perf.store_faults", description=__doc__)
    parser.add_argument("--reads", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    os.environ.update(AWS_ACCESS_KEY_ID="AKIDEXAMPLE", AWS_SECRET_ACCESS_KEY="secret")
    with running() as address:
        uvloop.run(main_of(address, options.reads, options.rounds))


if __name__ == "__main__":
    main()
