"""Tests of `perf.load.cpus`: real processes on the CPUs that there are."""

from __future__ import annotations

import os
import subprocess
import sys

from perf.load.cpus import kept_apart

SLEEP = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def test_a_server_has_cpus_that_nothing_else_of_the_harness_runs_on() -> None:
    all_cpus = os.sched_getaffinity(0)
    workers = len(all_cpus) // 2
    with kept_apart(workers) as give_cpus:
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
    with kept_apart(len(all_cpus)) as give_cpus:
        give_cpus(os.getpid())
        assert os.sched_getaffinity(0) == all_cpus


def test_a_process_that_has_ended_is_no_failure() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with kept_apart(1) as give_cpus:
        give_cpus(process.pid)
