"""Tests of `fastserve.server.loop_probe`: a real loop that is kept busy, a line of calls by its counts."""

from __future__ import annotations

import asyncio
import time

from fastserve.server.loop_probe import HasLine, LineWatch, LoopProbe
from fastserve.serving.admission import Admission
from fastserve.serving.ready import ReadyRequests, Turns


class Store:
    line = (0, 0)


class Kept(Admission):
    """Keeps what it is told."""

    __slots__ = ("busy_s", "late_s", "line_s")

    def on_sample(
        self, now_s: float, late_s: float, busy_s: float, line_s: float, oldest_s: float | None
    ) -> float:
        self.late_s, self.busy_s, self.line_s = late_s, busy_s, line_s
        return super().on_sample(now_s, late_s, busy_s, line_s, oldest_s)


def ready_requests() -> ReadyRequests:
    return ReadyRequests(Turns(list[object]().append, time.monotonic, time.thread_time), lambda *_: None)


def test_a_loop_that_is_held_up_is_late_and_has_worked_only_if_it_did() -> None:
    async def scene(work_s: float) -> tuple[float, float]:
        admission = Kept()
        sampled = asyncio.Event()
        loop = asyncio.get_running_loop()
        probe = LoopProbe(loop, admission, object(), (), ready_requests(), sampled.set)
        probe.start()
        end_s = time.thread_time() + work_s
        while time.thread_time() < end_s:
            pass
        time.sleep(0.06 - work_s)  # noqa: ASYNC251 - a loop that has no CPU
        await sampled.wait()
        probe.stop()
        return admission.late_s, admission.busy_s

    late_s, busy_s = asyncio.run(scene(0.06))
    assert late_s > 0.03
    assert busy_s > 0.05
    late_s, busy_s = asyncio.run(scene(0.0))
    assert late_s > 0.03
    assert busy_s < 0.03


def test_no_sample_is_taken_after_the_end() -> None:
    async def scene() -> int:
        times: list[float] = []
        loop = asyncio.get_running_loop()
        first = asyncio.Event()

        def every_time() -> None:
            times.append(loop.time())
            first.set()

        probe = LoopProbe(loop, Admission(), object(), (), ready_requests(), every_time)
        probe.start()
        await first.wait()
        probe.stop()
        probe.stop()
        count = len(times)
        later = asyncio.Event()
        loop.call_later(0.05, later.set)
        await later.wait()
        return len(times) - count

    assert asyncio.run(scene()) == 0


def test_a_line_has_waited_since_its_last_call_was_seen_in_it() -> None:
    store = Store()
    assert isinstance(store, HasLine)
    watch = LineWatch(store)
    assert watch.wait_s(1.0) == 0
    store.line = (5, 3)
    assert watch.wait_s(1.1) == 0
    store.line = (9, 5)  # four came, two left: the last of the three seen before still waits
    assert watch.wait_s(1.3) == 1.3 - 1.1
    store.line = (12, 6)  # it has left; nobody who stands there now was seen before, so it is as it was
    assert watch.wait_s(1.4) == 1.3 - 1.1
    store.line = (12, 1)
    assert watch.wait_s(1.5) == 1.3 - 1.1
    assert watch.wait_s(1.7) == 1.7 - 1.4
    store.line = (13, 1)  # and if those before waited less, it is that
    assert watch.wait_s(1.8) == 1.7 - 1.4
    store.line = (14, 1)
    assert watch.wait_s(1.9) == 0
    store.line = (14, 0)
    assert watch.wait_s(1.6) == 0


def test_a_store_without_a_line_has_none() -> None:
    assert not isinstance(object(), HasLine)


class Shedding(Admission):
    """Begins to shed at its second sample."""

    def on_sample(
        self, now_s: float, late_s: float, busy_s: float, line_s: float, oldest_s: float | None
    ) -> float:
        self.is_shedding = self.refused > 0
        self.refused += 1
        return 0.001


def test_reading_goes_first_while_some_are_shed() -> None:
    async def scene() -> list[bool]:
        ready = ready_requests()
        seen: list[bool] = []
        done = asyncio.Event()

        def every_time() -> None:
            seen.append(ready.reads_first)
            if len(seen) == 2:
                done.set()

        probe = LoopProbe(asyncio.get_running_loop(), Shedding(), object(), (), ready, every_time)
        probe.start()
        await done.wait()
        probe.stop()
        return seen[:2]

    assert asyncio.run(scene()) == [False, True]


class LongLine(ReadyRequests):
    """Requests that have waited for seven seconds."""

    def wait_s(self) -> float:
        return 7.0


def test_requests_that_wait_for_their_turn_are_a_line() -> None:
    async def scene() -> float:
        admission, sampled = Kept(), asyncio.Event()
        turns = Turns(list[object]().append, time.monotonic, time.thread_time)
        ready = LongLine(turns, lambda *_: None)
        probe = LoopProbe(asyncio.get_running_loop(), admission, object(), (), ready, sampled.set)
        probe.start()
        await sampled.wait()
        probe.stop()
        return admission.line_s

    assert asyncio.run(scene()) == 7.0
