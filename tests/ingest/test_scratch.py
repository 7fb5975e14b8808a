from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastserve.errors import DefinitionError
from fastserve.ingest.scratch import LOCK, PREFIX, scratch_folder

OWNER = """
import sys
from fastserve.ingest.scratch import scratch_folder
with scratch_folder(sys.argv[1]) as folder:
    (folder / "large").write_bytes(b"x" * 1000)
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path: Path) -> subprocess.Popen[str]:
    """Start a process that owns a folder until its input ends."""
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def folder_of(owner: subprocess.Popen[str]) -> Path:
    assert owner.stdout is not None
    return Path(owner.stdout.readline().strip())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_folder_goes_with_its_block_also_after_an_error(tmp_path: Path) -> None:
    with scratch_folder(tmp_path) as folder:
        assert folder.name.startswith(PREFIX)
        (folder / "sub").mkdir()
        assert names(tmp_path) == {folder.name}
    assert names(tmp_path) == set()
    with pytest.raises(KeyboardInterrupt), scratch_folder(tmp_path):
        raise KeyboardInterrupt
    assert names(tmp_path) == set()


def test_what_a_killed_process_left_is_removed_and_a_living_one_s_is_not(
    tmp_path: Path, owner: subprocess.Popen[str]
) -> None:
    with owner:
        left = folder_of(owner)
        with scratch_folder(tmp_path) as own:
            assert names(tmp_path) == {left.name, own.name}
            with scratch_folder(tmp_path) as second:
                assert names(tmp_path) == {left.name, own.name, second.name}
        assert names(left) == {LOCK, "large"}
        owner.kill()
        owner.wait(20)
        assert names(left) == {LOCK, "large"}
        with scratch_folder(tmp_path) as own:
            assert names(tmp_path) == {own.name}


def test_folders_of_others_are_let_be(tmp_path: Path) -> None:
    (tmp_path / "fastserve-notes").mkdir()
    (tmp_path / "fastserve-file").write_text("")
    (tmp_path / "else").mkdir()
    with scratch_folder(tmp_path):
        pass
    assert names(tmp_path) == {"fastserve-notes", "fastserve-file", "else"}


def test_a_place_that_is_none_is_an_error(tmp_path: Path) -> None:
    wrong = "temporary files: expected a folder to write in .*, got: No such file or directory"
    with pytest.raises(DefinitionError, match=wrong), scratch_folder(tmp_path / "nowhere"):
        pass
