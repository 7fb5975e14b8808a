"""Tests of `fastserve keys`: a file of keys made, shown and cut down on the command line."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from fastserve.cli import main


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "secrets" / "keys.json"


def keys(path: Path, *arguments: str) -> int:
    return main(["keys", *arguments, "--api-keys", str(path)], {})


def test_a_key_is_printed_once_and_only_its_hash_is_kept(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert keys(path, "create", "checkout", "--for", "prod", "--days", "30") == 0
    secret = capsys.readouterr().out.strip()
    assert re.fullmatch(r"fs_[A-Za-z0-9_-]{43}", secret)
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys(path, "list") == 0
    shown = capsys.readouterr().out
    assert secret not in shown
    assert re.search(r"checkout +read +prod", shown)


def test_a_key_s_priority_is_kept_and_shown(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys(path, "create", "nightly", "--priority", "batch") == 0
    assert keys(path, "create", "checkout") == 0
    assert keys(path, "list") == 0
    shown = capsys.readouterr().out
    assert re.search(r"nightly .*\bbatch\b", shown)
    assert re.search(r"checkout .*\blive\b", shown)


def test_a_client_has_two_keys_at_most_and_revoking_makes_room(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [keys(path, "create", "web") for _ in range(2)] == [0, 0]
    assert keys(path, "create", "other", "--scope", "ingest", "--scope", "read") == 0
    capsys.readouterr()
    assert keys(path, "create", "web") == 2
    listed = capsys.readouterr().err
    first = re.findall(r"[0-9a-f]{12}", listed)[0]
    assert keys(path, "revoke", first) == 0
    assert keys(path, "create", "web") == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["create", "a b"], "client: expected 1 to 64 letters"),
        (["revoke", "none"], "expected a file of keys, got No such file"),
        (["list"], "`fastserve keys create` makes one"),
    ],
)
def test_what_can_t_be_done_is_said(
    path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert keys(path, *arguments) == 2
    assert message in capsys.readouterr().err


def test_a_broken_file_stays_as_it_is(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.parent.mkdir()
    path.write_text("{")
    assert keys(path, "create", "web") == 2
    assert path.read_text() == "{"
    assert "expected JSON" in capsys.readouterr().err


def test_the_file_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "list"], {}) == 2
    assert "--api-keys FILE" in capsys.readouterr().err
