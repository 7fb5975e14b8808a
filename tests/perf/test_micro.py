from __future__ import annotations

from pathlib import Path

import pytest

from perf.load.child import ChildError
from perf.micro import check
from perf.micro.instructions import _total
from perf.micro.suite import all_cases


def test_every_case_runs_and_has_a_name_of_its_own() -> None:
    names = []
    for name, case in all_cases():
        assert case is not None, name
        case()
        names.append(name)

    assert len(names) == len(set(names)) > 12


def test_what_got_slower_comes_first() -> None:
    before = {"same": 1_000.0, "slower": 1_000.0, "faster": 1_000.0, "gone": 1.0}
    after = {"same": 1_001.0, "slower": 1_100.0, "faster": 900.0, "new": 1.0}

    lines, worst = check.compare(before, after)

    assert [line.split()[0] for line in lines] == ["slower", "same", "faster", "new", "gone"]
    assert worst == pytest.approx(0.1)


def test_a_commit_that_git_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match="BASE: expected a commit, got 'no-such-commit'"):
        check.unpack_base("no-such-commit", tmp_path)


def test_a_count_is_read_out_of_what_callgrind_writes(tmp_path: Path) -> None:
    (tmp_path / "out.2").write_text("version: 1\nevents: Ir\nfn=(1) f\n1 5\n\ntotals: 12345\n")
    (tmp_path / "out.3").write_text("version: 1\n")

    assert _total(tmp_path / "out", 2) == 12_345
    with pytest.raises(ChildError, match="no total into part 3"):
        _total(tmp_path / "out", 3)
