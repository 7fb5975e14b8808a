"""Every command of the pages on deploying and capacity that needs no cluster does what it says there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.fresh_copy import copy_checkout
from tests.support.readme import Command, Session, commands
from tests.support.server_process import ROOT


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("clone") / "fastserve")


@pytest.mark.parametrize("page", ["deploying.md", "capacity.md"])
def test_every_command_works(checkout: Path, tmp_path: Path, page: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FASTSERVE_", "AWS_"))}
    path = f"{checkout / '.venv' / 'bin'}{os.pathsep}{kept['PATH']}"
    (tmp_path / "empty").mkdir()
    shell = Session(tmp_path / "empty", checkout, {**kept, "PATH": path}, tmp_path / "server.log")
    found = commands((ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert len(found) > 2
    try:
        shell.run(Command(0, "git clone https://example.org/fastserve", ()))
        shell.run(Command(0, "cd fastserve", ()))
        for command in found:
            shell.run(command)
    finally:
        shell.close()
