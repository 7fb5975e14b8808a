"""Tests of `perf.load.clear_cpus`: threads of this test's own, since others run beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from perf.load import clear_cpus
from perf.load.clear_cpus import ClearedCpus, all_threads

SLEEP = [sys.executable, "-c", "import sys; sys.stdin.read()"]
ALL = frozenset(os.sched_getaffinity(0))
LAST = frozenset({max(ALL)})

pytestmark = pytest.mark.skipif(len(ALL) == 1, reason="one CPU can't be kept for a server")


def test_what_runs_leaves_and_may_come_back() -> None:
    with (
        subprocess.Popen(SLEEP, stdin=subprocess.PIPE) as process,
        subprocess.Popen(SLEEP, stdin=subprocess.PIPE) as later,
    ):
        threads = [process.pid]
        cleared = ClearedCpus(LAST, lambda: threads, Path("/dev/null/none"))
        cleared.clear()
        assert cleared.moved == 1
        assert os.sched_getaffinity(process.pid) == ALL - LAST
        # What the moved one starts inherits where it may run.
        os.sched_setaffinity(later.pid, ALL - LAST)
        threads.append(later.pid)
        cleared.put_back()
        assert os.sched_getaffinity(process.pid) == os.sched_getaffinity(later.pid) == ALL


@pytest.mark.parametrize("cpus", [LAST, ALL - LAST])
def test_what_has_its_place_stays_there(cpus: frozenset[int]) -> None:
    with (
        subprocess.Popen(SLEEP, stdin=subprocess.PIPE) as pinned,
        subprocess.Popen(SLEEP, stdin=subprocess.PIPE) as free,
    ):
        os.sched_setaffinity(pinned.pid, cpus)
        cleared = ClearedCpus(LAST, lambda: [pinned.pid, free.pid], Path("/dev/null/none"))
        cleared.clear()
        assert cleared.moved == 1
        assert os.sched_getaffinity(pinned.pid) == cpus
        cleared.put_back()
        assert os.sched_getaffinity(pinned.pid) == cpus
        assert os.sched_getaffinity(free.pid) == ALL


def test_what_has_ended_is_no_failure() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    cleared = ClearedCpus(LAST, lambda: [process.pid], Path("/dev/null/none"))
    cleared.clear()
    cleared.put_back()
    assert cleared.moved == 0


@pytest.mark.parametrize(
    "before, cpus, meanwhile",
    [
        ("3\n", {1}, "1"),
        ("00000001,00000003\n", {32}, "3"),
        ("0000001f,00000003\n", {0}, "0000001f,00000002"),
    ],
)
def test_the_kernels_work_leaves_too(before: str, cpus: set[int], meanwhile: str, tmp_path: Path) -> None:
    mask = tmp_path / "cpumask"
    mask.write_text(before)
    cleared = ClearedCpus(cpus, list, mask)
    cleared.clear()
    assert mask.read_text() == meanwhile
    cleared.put_back()
    assert mask.read_text() == before


def test_work_that_could_go_nowhere_else_stays(tmp_path: Path) -> None:
    mask = tmp_path / "cpumask"
    mask.write_text("2\n")
    cleared = ClearedCpus({1}, list, mask)
    cleared.clear()
    cleared.put_back()
    assert mask.read_text() == "2\n"


def test_a_mask_without_these_cpus_is_not_touched(tmp_path: Path) -> None:
    mask = tmp_path / "cpumask"
    mask.write_text("1\n")
    mask.chmod(0o444)
    os.utime(mask, ns=(0, 0))
    cleared = ClearedCpus({1}, list, mask)
    cleared.clear()
    cleared.put_back()
    assert mask.stat().st_mtime_ns == 0


def test_all_threads_are_told_of() -> None:
    ends = threading.Event()
    thread = threading.Thread(target=ends.wait)
    thread.start()
    try:
        assert {os.getpid(), 1, thread.native_id} <= set(all_threads())
    finally:
        ends.set()
        thread.join()


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"])
def test_the_process_ends_with_its_standard_input_and_by_no_signal_to_its_group(name: str) -> None:
    """Without a CPU to clear: another one would have other tests leave it."""
    command = [sys.executable, "-m", "perf.load.clear_cpus"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        process.send_signal(signal.Signals[name])
        process.stdin.write("still there")
        process.stdin.close()
        assert process.wait(10) == 0


def test_what_has_left_comes_back_also_where_nobody_reads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mask = tmp_path / "cpumask"
    mask.write_text("3\n")
    monkeypatch.setattr(clear_cpus, "WORK_QUEUES", mask)
    monkeypatch.setattr(clear_cpus, "all_threads", list)
    monkeypatch.setattr(sys, "argv", ["clear_cpus", "1"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process goes on

    def gone(*_: object, **__: object) -> None:
        assert mask.read_text() == "1"
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", gone)
    with pytest.raises(BrokenPipeError):
        clear_cpus.main()
    assert mask.read_text() == "3\n"
