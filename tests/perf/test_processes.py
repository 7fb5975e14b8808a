from __future__ import annotations

import os
import time

from perf.load.child import module_process
from perf.load.processes import process_tree, read_process, read_tree


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
