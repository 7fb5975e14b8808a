from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fastserve.cli.child import run_in_child
from fastserve.errors import DefinitionError, InvariantError, RequestError, StoreError


def test_the_work_is_done_in_another_process(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def work() -> None:
        file.write_text(str(os.getpid()), encoding="utf-8")

    run_in_child(work)
    assert int(file.read_text(encoding="utf-8")) != os.getpid()


def test_errors_come_back_as_they_were() -> None:
    def fails(error: BaseException) -> None:
        raise error

    with pytest.raises(DefinitionError, match=r"^two\nlines$"):
        run_in_child(lambda: fails(DefinitionError("two\nlines")))
    with pytest.raises(StoreError, match=r"^gone$"):
        run_in_child(lambda: fails(StoreError("gone")))
    with pytest.raises(StoreError, match=r"^other$"):
        run_in_child(lambda: fails(RequestError(503, "other")))
    with pytest.raises(KeyboardInterrupt):
        run_in_child(lambda: fails(KeyboardInterrupt()))


def test_what_nobody_foresaw_is_an_invariant_s_and_has_its_traceback(
    capfd: pytest.CaptureFixture[str],
) -> None:
    nothing: dict[str, None] = {}
    with pytest.raises(InvariantError, match="the traceback above"):
        run_in_child(lambda: nothing["here"])
    assert "KeyError" in capfd.readouterr().err


def test_a_child_that_is_killed_is_told_of() -> None:
    with pytest.raises(InvariantError, match="without a word"):
        run_in_child(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_no_child_stays_behind() -> None:
    before = children()
    run_in_child(lambda: None)
    assert children() == before


def children() -> set[str]:
    """Return the pids of this process's children; fixtures of other tests may keep some."""
    return {
        pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
    }
