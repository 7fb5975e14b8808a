"""The parts of a soak that judge: explanations, the schedule, the ledger, growth, the clock."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orjson
import pytest

from perf.load.stepped_clock import SteppedClock
from perf.soak.account import LOST, PAUSE, RIGHT, WRONG, Account
from perf.soak.ledger import Ledger, TotalsQuestion
from perf.soak.matrix import CALM, GROUPS, MATRIX, schedule
from perf.soak.watch import Samples, _growth

STORE = frozenset({"503"})


def test_a_failure_is_explained_by_a_fault_that_was_on_meanwhile_or_just_before() -> None:
    account = Account()
    span = account.begin("down", STORE, 2.0, 100.0)
    assert account.causes("503", 101.0, 101.5)
    assert account.causes("503", 99.0, 100.0)
    assert not account.causes("503", 98.0, 99.9)
    span.end_s = 105.0
    assert account.causes("503", 106.9, 107.5)
    assert not account.causes("503", 107.1, 107.5)
    assert not account.causes(LOST, 101.0, 101.5)


def test_what_only_a_pause_of_the_machine_explains_is_counted_apart() -> None:
    account = Account()
    account.begin(PAUSE, STORE, 1.0, 100.0).end_s = 100.5
    account.note("a", "503", "", 100.2, 100.3)
    account.begin("down", STORE, 1.0, 101.0)
    account.note("a", "503", "", 101.2, 101.3)
    assert (account.unexplained_count, account.paused_count) == (0, 1)


def test_what_is_wrong_has_no_explanation() -> None:
    account = Account()
    account.begin("all", frozenset({"503", WRONG, "500"}), 2.0, 100.0)
    account.note("a", RIGHT, "", 100.0, 100.1, 52)
    account.note("a", "503", "", 100.0, 100.1)
    account.note("a", WRONG, "values of another row", 100.0, 100.1)
    account.note("a", "500", "", 100.0, 100.1)
    assert (account.reads, account.wrong_count, account.unexplained_count) == (52, 1, 1)
    assert account.wrong[0]["detail"] == "values of another row"
    assert account.by_stream() == {"a": {RIGHT: 1, "503": 1, WRONG: 1, "500": 1}}


def test_a_schedule_has_each_fault_alone_and_then_mixtures_of_different_groups() -> None:
    phases = list(itertools.islice(schedule(GROUPS, 3.0, 1), 100))
    alone, mixed = phases[: len(MATRIX)], phases[len(MATRIX) :]
    assert {phase.name for phase in alone} == {fault.name for fault in MATRIX}
    assert all(len(phase.faults) == 1 for phase in alone)
    assert {len(phase.faults) for phase in mixed} == {1, 2, 3}
    assert all(len({fault.group for fault in phase.faults}) == len(phase.faults) for phase in mixed)
    assert next(schedule((), 3.0, 1)) is CALM
    assert all(fault.group == "clock" for fault in next(schedule(("clock",), 3.0, 1)).faults)


def test_totals_lie_between_what_was_acknowledged_and_what_was_sent() -> None:
    ledger = Ledger(2)
    ledger.enter(ledger.sent, [(0, 1, 10), (1, 1, 5)])
    ledger.enter(ledger.acknowledged, [(0, 1, 10)])
    question = TotalsQuestion(ledger)

    def judged(*rows: list[str | None]) -> str:
        body = orjson.dumps({"result": [{"features": row} for row in rows]})
        return question.judge(body, 0.0, 0.0)[0]

    assert judged(["1", "10"], ["1", "5"]) == RIGHT
    assert judged(["1", "10"], [None, None]) == RIGHT
    assert judged([None, None], ["1", "5"]) == WRONG
    assert judged(["2", "20"], ["1", "5"]) == WRONG


def test_growth_is_told_of_workers_that_lived_long_enough() -> None:
    times = [float(at) for at in range(0, 3_600, 60)]
    steady = Samples(times, [100 + at / 3_600 for at in times], [50.0] * 60, [20] * 60)
    report = _growth(0, steady, 3_600)
    assert report["rss_mib_per_h"] == pytest.approx(1.0, abs=0.01)
    assert (report["private_mib_per_h"], report["descriptors_halves"]) == (0.0, [20.0, 20.0])
    young = Samples(times[:10], [100.0] * 10, [50.0] * 10, [20] * 10)
    assert "rss_mib_per_h" not in _growth(1, young, 3_600)


def test_a_process_follows_a_clock_that_is_stepped(tmp_path: Path) -> None:
    clock = SteppedClock(tmp_path / "clock")
    code = (
        "import sys, time; from pathlib import Path; from perf.load.stepped_clock import follow; "
        "follow(Path(sys.argv[1])); "
        "[print(time.time(), time.time_ns() / 1e9, flush=True) for _ in sys.stdin]"
    )
    command = [sys.executable, "-c", code, str(clock.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for ahead_s in (0.0, 1_000.0, -500.0):
            clock.step(ahead_s)
            process.stdin.write("\n")
            process.stdin.flush()
            told = np.array([float(word) for word in process.stdout.readline().split()])
            assert np.abs(told - time.time() - ahead_s).max() < 5
        process.stdin.close()
