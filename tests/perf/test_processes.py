from __future__ import annotations

import os
import subprocess
import time

from perf.load.child import module_process
from perf.load.processes import WorkClock, process_tree, read_process, read_tree


def test_cpu_that_is_used_is_counted() -> None:
    before = read_process(os.getpid())
    until_s = time.process_time() + 0.05
    while time.process_time() < until_s:
        pass
    after = read_process(os.getpid())

    assert 40_000_000 < after.cpu_ns - before.cpu_ns < 1_000_000_000
    assert after.rss_bytes > 1_000_000


def test_a_tree_holds_the_children() -> None:
    with module_process("perf.floor", ["--answer-bytes", "1"]) as (pid, _):
        assert pid in process_tree(os.getpid())
        assert {os.getpid(), pid} <= {reading.pid for reading in read_tree(os.getpid())}


def test_the_work_of_a_process_is_told_at_once_and_nothing_of_one_that_ended() -> None:
    clock = WorkClock(os.getpid())
    before_ns = clock.read_ns()
    until_s = time.thread_time() + 0.02
    while time.thread_time() < until_s:
        pass
    after_ns = clock.read_ns()
    assert before_ns is not None
    assert after_ns is not None
    assert after_ns - before_ns >= 20_000_000
    with subprocess.Popen(["sleep", "60"]) as process:
        of_it = WorkClock(process.pid)
        assert of_it.read_ns() is not None
        process.kill()
        process.wait()
    assert of_it.read_ns() is None
