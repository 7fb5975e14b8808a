"""`import fastserve` gives the SDK's names, and is light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import fastserve

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"numpy", "pyarrow", "uvloop", "httptools", "orjson", "duckdb", "aiobotocore", "asyncio", "pandas"}


def modules_after(statement: str) -> set[str]:
    code = f"{statement}; import sys, json; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert modules_after("import fastserve") & HEAVY == set()


def test_loading_a_repo_imports_nothing_heavy() -> None:
    repo = Path(__file__).parent / "typed_repo"
    load = f"from fastserve.sdk.repo import load_repo; load_repo({str(repo)!r})"
    assert modules_after(load) & HEAVY == set()


def test_every_public_name_is_there_and_in_order() -> None:
    assert all(hasattr(fastserve, name) for name in fastserve.__all__)
    assert list(fastserve.__all__) == sorted(fastserve.__all__)
