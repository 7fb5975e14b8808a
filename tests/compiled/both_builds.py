"""The compiled build beside the pure one: the same answers, to the byte, whatever is asked.

Run in a compiled tree, by `make test-compiled`; the checkout, where nothing is compiled, doesn't collect it.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from fastserve.compiled import is_compiled

ROOT = Path(__file__).resolve().parents[2]
REQUESTS = os.environ.get("FUZZ_EXAMPLES", "1000")


def answers(tree: Path, build: str, seed: int) -> list[str]:
    """Return what the package in a tree answers to the requests of a seed."""
    command = [sys.executable, "-m", "tests.compiled.answers", REQUESTS, str(seed)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[0] == build
    return done.stdout.splitlines()


def test_what_runs_here_is_compiled() -> None:
    assert is_compiled()
    libraries = [path for path in (ROOT / "fastserve").rglob("*.so") if path.suffix == ".so"]
    assert libraries
    for path in libraries:
        name = path.name.removesuffix(next(each for each in EXTENSION_SUFFIXES if path.name.endswith(each)))
        module = ".".join([*path.relative_to(ROOT).parent.parts, name])
        assert importlib.import_module(module).__file__ == str(path)
        assert path.with_name(f"{name}.py").exists() or path.with_name(f"{name}.c").exists()


def test_both_builds_answer_damaged_requests_alike(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "fastserve", tmp_path / "fastserve", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    for seed in (1, 2):
        compiled = answers(ROOT, "compiled", seed)
        pure = answers(tmp_path, "pure", seed)
        assert len(compiled) == int(REQUESTS)
        different = [pair for pair in zip(pure, compiled, strict=True) if pair[0] != pair[1]]
        assert not different, different[0]
