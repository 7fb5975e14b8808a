"""What a faulty store does to reads: `python -m perf.store_faults [--reads N] [--only …]`.

The stand-in DynamoDB answers by a law; the store's own client reads single keys, a few at a time, first some
without hedged reads, then as many with them, and so on. For both: quantiles of the reads' latency as the
caller sees it, and the calls that the stand-in counted. The breaker is always on. On a shared machine a
process may get no CPU for 100 ms: reads in which this one got none for 20 ms are left out, and counted (`held
up`); `--stretch 10` makes the store's times long beside what is left of that.
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
from perf.load.latency_law import DYNAMODB_MS
from perf.load.standin_client import StandInAddress, running

if TYPE_CHECKING:
    from collections.abc import Sequence

TABLE = "view"
GROUP = ReadGroup(0, (TABLE,))
LANES = 24
FLOOR_S = 0.005
LEARNING_READS = 8_000
READS_A_TURN = 1_200
HELD_UP_S = 0.02
# A caller that is refused comes again, but not in the same turn.
FAILED_PAUSE_S = 0.005
SHOWN = ("p50", "p95", "p99", "p99.9", "max")
# Half of the calls take 4 ms, hardly any more than 8.
CALM_MS = {"0.01": 2.5, "50": 4.0, "95": 5.0, "99.99": 8.0}
NO_FAULTS: dict[str, object] = {}

Controls = dict[str, object]


def scenarios(stretch: float) -> dict[str, tuple[Controls, Controls]]:
    """Return the stand-in's state before and during the measured part, all times stretched."""
    calm: Controls = {"latency_ms": stretched(CALM_MS, stretch), "faults": NO_FAULTS}
    one_in_a_hundred = {"stall_share": 0.01, "stall_ms": 36.0 * stretch}
    published = {str(percent): ms for percent, ms in DYNAMODB_MS.items()}
    return {
        "calm": (calm, {}),
        "1 % x 10": ({**calm, "faults": one_in_a_hundred}, {}),
        "published": ({**calm, "latency_ms": stretched(published, stretch)}, {}),
        "all x 10": (calm, {"latency_ms": stretched(CALM_MS, 10 * stretch)}),
        "all fail": (calm, {"faults": {"server_error_share": 1.0}}),
        "all hang": (calm, {"faults": {"stall_share": 1.0, "stall_ms": 60_000.0}}),
    }


def stretched(law_ms: dict[str, float], stretch: float) -> dict[str, float]:
    """Return a law of latencies whose times are so many times as long."""
    return {percent: ms * stretch for percent, ms in law_ms.items()}


class Pulse:
    """Notices when this process was held up."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.pauses = 0
        self._loop = loop
        self._last_s = time.perf_counter()
        self._beat()

    def _beat(self) -> None:
        now_s = time.perf_counter()
        self.pauses += now_s - self._last_s > HELD_UP_S
        self._last_s = now_s
        self._loop.call_later(0.002, self._beat)


class Lanes:
    """Reads single keys over one store, ``LANES`` at a time, and keeps how long each took."""

    def __init__(self, store: Any, loop: asyncio.AbstractEventLoop, pulse: Pulse) -> None:
        self.held_up = 0
        self._pulse = pulse
        self.latencies = Histogram()
        self.failed = 0
        self.calls = 0  # that the stand-in has counted
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
            pauses = self._pulse.pauses
            self._reader.fetch([read])
            await done
            if self._pulse.pauses == pauses:
                self.latencies.record(int((time.perf_counter() - start_s) * 1e9))
            else:
                self.held_up += 1
            if read.error is not None:
                self.failed += 1
                await asyncio.sleep(FAILED_PAUSE_S)


async def measure(
    address: StandInAddress, scenario: str, before: Controls, during: Controls, reads: int
) -> None:
    """Make reads without hedging and with it, a few of each by turns, and print a line for each."""
    loop = asyncio.get_running_loop()
    address.control(**before)
    stores = [await open_store(address.store_url(), hedge_floor_s=floor_s) for floor_s in (0.0, FLOOR_S)]
    try:
        pulse = Pulse(loop)
        both = [Lanes(store, loop, pulse) for store in stores]
        for lanes in both:
            await lanes.run(LEARNING_READS)  # the law learns what is usual
            lanes.latencies, lanes.calls, lanes.held_up = Histogram(), 0, 0
        address.control(**during)
        for _ in range(reads // READS_A_TURN):
            for lanes in both:
                address.control(reset=True)
                await lanes.run(READS_A_TURN)
                lanes.calls += address.counters()["calls"].get("BatchGetItem", 0)
    finally:
        for store in stores:
            await store.close()
    for kind, lanes in zip(("plain", "hedged"), both, strict=True):
        summary = lanes.latencies.summary_ms()
        quantiles = "".join([f"{summary[name]:8.1f}" for name in SHOWN])
        calls = 100 * lanes.calls / (lanes.latencies.count + lanes.held_up)
        print(
            f"{scenario:<14}{kind:<7}{quantiles}{calls:9.2f}{lanes.failed:8d}{lanes.held_up:9d}", flush=True
        )


async def main_of(address: StandInAddress, only: Sequence[str], reads: int, stretch: float) -> None:
    """Measure one scenario after the other."""
    address.prepare(TABLE, [b64encode(bytes(range(255)) * 4).decode()])
    print(f"{reads} reads each, {LANES} at a time, times x {stretch:g}; latencies in ms, calls per 100 reads")
    print(f"{'':<21}" + "".join([f"{name:>8}" for name in SHOWN]) + "    calls  failed  held up")
    for scenario, (before, during) in scenarios(stretch).items():
        if scenario in only:
            await measure(address, scenario, before, during, reads)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m perf.store_faults", description=__doc__)
    parser.add_argument("--reads", type=int, default=40_000)
    parser.add_argument("--only", choices=list(scenarios(1)), action="append")
    parser.add_argument(
        "--stretch", type=float, default=1.0, help="times of the stand-in, so many times as long"
    )
    options = parser.parse_args()
    os.environ.update(AWS_ACCESS_KEY_ID="AKIDEXAMPLE", AWS_SECRET_ACCESS_KEY="secret")
    with running() as address:
        uvloop.run(main_of(address, options.only or list(scenarios(1)), options.reads, options.stretch))


if __name__ == "__main__":
    main()
