from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fastserve.cli import explain
from fastserve.errors import DefinitionError, DefinitionErrors, InvariantError, StoreError
from tests.cli.conftest import Run

ROOT = Path(__file__).resolve().parent.parent.parent
COMMANDS = ("serve", "demo", "apply", "materialize", "explain", "get", "check", "test-view")

Fails = Callable[[argparse.Namespace, Mapping[str, str]], int]


def raising(error: BaseException) -> Fails:
    def fails(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
        raise error

    return fails


def test_help_names_every_command(run: Run) -> None:
    ran = run("--help")
    assert ran.code == 0
    assert all(f"    {command}" in ran.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    ran = run(command, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"usage: fastserve {command}")


def test_no_command_and_an_unknown_one_are_usage_errors(run: Run) -> None:
    assert run().code == 2
    assert run("swerve").code == 2
    assert "--repo" not in run("explain", "x", "--rep", ".").out  # no flag is guessed


def test_an_unknown_flag_is_told_with_the_usage_of_its_command(run: Run) -> None:
    ran = run("get", "fraud", "user_id=u1", "--port", "8090")
    assert ran.code == 2
    assert ran.err.startswith("usage: fastserve get [-h] [--url URL]")
    assert ran.err.endswith("fastserve get: error: unrecognized arguments: --port 8090\n")


def test_the_version_is_the_package_s(run: Run) -> None:
    assert run("--version").out in {"fastserve 0.1.0\n", "fastserve 0.1.0, inner loops compiled\n"}


@pytest.mark.parametrize(
    "error, code, text",
    [
        (DefinitionError("repo: expected x, got y"), 2, "fastserve: error: repo: expected x, got y\n"),
        (
            DefinitionErrors([DefinitionError("a"), DefinitionError("b")]),
            2,
            "fastserve: error: 2 errors in the feature repo:\n  a\n  b\n",
        ),
        (StoreError("table t: gone"), 1, "fastserve: error: table t: gone\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_of_ours_is_one_text_without_a_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, text: str
) -> None:
    monkeypatch.setattr(explain, "run", raising(error))
    ran = run("explain", "x")
    assert (ran.code, ran.out, ran.err) == (code, "", text)


@pytest.mark.parametrize("error", [InvariantError("impossible"), RuntimeError("nobody thought of it")])
def test_an_error_that_nobody_foresaw_has_a_traceback_and_a_code_of_its_own(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(explain, "run", raising(error))
    ran = run("explain", "x")
    assert ran.code == 70
    assert "Traceback" in ran.err
    assert str(error) in ran.err


def test_a_reader_that_leaves_early_is_no_error(shop: str) -> None:
    command = f"{sys.executable} -m fastserve explain fraud:v2 --repo {shop} | true; exit ${{PIPESTATUS[0]}}"
    environ = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    ran = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True, check=False)
    assert ran.stderr == ""


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    heavy = ["numpy", "duckdb", "pyarrow", "uvloop", "asyncio", "aiobotocore", "orjson", "lmdb"]
    code = (
        "import sys, time\n"
        "from fastserve.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules], time.process_time(), file=sys.stderr)\n"
    )
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    imported, _, seconds = ran.stderr.rpartition(" ")
    assert imported == "[]"
    assert float(seconds) < 0.3
