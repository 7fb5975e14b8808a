"""Tests of `perf.load.cpus`: real processes on the CPUs that there are."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import perf.load.cpus
from perf.load.child import ChildError
from perf.load.cpus import can_keep_awake, kept_apart, kept_awake

SLEEP = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def test_a_server_has_cpus_that_nothing_else_of_the_harness_runs_on() -> None:
    all_cpus = os.sched_getaffinity(0)
    workers = len(all_cpus) // 2
    with kept_apart(workers, alone=False) as give_cpus:
        rest = os.sched_getaffinity(0)
        with subprocess.Popen(SLEEP, stdin=subprocess.PIPE) as process:
            give_cpus(process.pid)
            own = os.sched_getaffinity(process.pid)
    assert os.sched_getaffinity(0) == all_cpus
    if workers:
        assert len(own) == workers
        assert own | rest == all_cpus
        assert not own & rest


def test_with_too_few_cpus_all_share_them() -> None:
    all_cpus = os.sched_getaffinity(0)
    with kept_apart(len(all_cpus), alone=True) as give_cpus:
        give_cpus(os.getpid())
        assert os.sched_getaffinity(0) == all_cpus


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="one CPU can't be kept for a server")
def test_all_others_leave_the_cpus_that_the_server_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    cleared = []

    def clear(cpus: set[int]) -> contextlib.AbstractContextManager[None]:
        cleared.append(cpus)
        return contextlib.nullcontext()

    monkeypatch.setattr(perf.load.cpus, "_cleared", clear)
    with kept_apart(1, alone=True) as give_cpus, subprocess.Popen(SLEEP, stdin=subprocess.PIPE) as process:
        give_cpus(process.pid)
        assert cleared == [os.sched_getaffinity(process.pid)]


def test_a_process_that_clears_none_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/true")
    with pytest.raises(ChildError, match="expected how many threads it moved, got ''"):
        perf.load.cpus._cleared({1}).__enter__()


def test_a_process_that_has_ended_is_no_failure() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with kept_apart(1, alone=False) as give_cpus:
        give_cpus(process.pid)


def test_cpus_are_kept_awake_by_a_limit_of_no_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "limit"
    monkeypatch.setattr(perf.load.cpus, "LATENCY_LIMIT", limit)
    assert not can_keep_awake()
    with kept_awake():
        assert not limit.exists()

    limit.touch()
    assert can_keep_awake()
    with kept_awake():
        assert limit.read_bytes() == struct.pack("i", 0)
        assert limit in open_files()
    assert limit not in open_files()


def test_where_the_machine_refuses_cpus_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf.load.cpus, "LATENCY_LIMIT", Path("/dev/full"))
    assert not can_keep_awake()
    with kept_awake():
        pass


def open_files() -> list[Path]:
    return [entry.resolve() for entry in Path("/proc/self/fd").iterdir()]
