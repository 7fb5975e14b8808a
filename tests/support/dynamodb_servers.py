"""Real DynamoDB servers for tests: moto's, and the dynoxide binary, which checks requests more strictly.

Import the fixtures into a conftest or a test module. A server is started when the first test asks for it and
ended with the session; each test has table names of its own, by prefix.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from perf.load.free_port import free_port

__all__ = ["DYNAMODB_URLS", "aws_environment", "dynoxide_endpoint", "dynoxide_of_import", "moto_endpoint"]

ROOT = Path(__file__).resolve().parent.parent.parent
DYNOXIDE = Path(os.environ.get("FASTSERVE_DYNOXIDE", ROOT / ".tools" / "dynoxide" / "dynoxide"))
REGION = "us-east-1"
_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """Give the URL of a moto server."""
    with _started(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], r"http://127\.\S+:\d+"
    ) as url:
        yield url


@pytest.fixture(scope="session")
def dynoxide_endpoint() -> Iterator[str]:
    """Give the URL of a dynoxide server."""
    if not DYNOXIDE.exists():
        pytest.skip(f"no dynoxide binary at {DYNOXIDE}; set FASTSERVE_DYNOXIDE")
    command = [str(DYNOXIDE), "--port", str(free_port())]
    with _started(command, r"http://127\.\S+:\d+") as url:
        yield url


@contextmanager
def dynoxide_of_import(source: Path, tables: Sequence[Mapping[str, Any]], scratch: Path) -> Iterator[str]:
    """Import what lies in ``source/<table>/data`` and serve it; give the server's URL.

    ``tables`` are as CreateTable takes them.
    """
    if not DYNOXIDE.exists():
        pytest.skip(f"no dynoxide binary at {DYNOXIDE}; set FASTSERVE_DYNOXIDE")
    schema, database = scratch / "schema.json", scratch / "imported.db"
    schema.write_text(json.dumps([{"Table": table} for table in tables]), encoding="utf-8")
    command = [str(DYNOXIDE), "import", "--source", str(source), "--schema", str(schema)]
    subprocess.run([*command, "--output", str(database)], check=True, capture_output=True, timeout=60)
    command = [str(DYNOXIDE), "--db-path", str(database), "--port", str(free_port())]
    with _started(command, r"http://127\.\S+:\d+") as url:
        yield url


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let botocore find made-up credentials and nothing else."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def store_url(endpoint: str) -> str:
    """Return a store's URL under which there are no tables yet."""
    return f"dynamodb://{REGION}?endpoint={endpoint}&prefix=t{os.getpid()}-{next(_NUMBERS)}."


def _moto_url(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue("aws_environment")
    return store_url(request.getfixturevalue("moto_endpoint"))


def _dynoxide_url(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue("aws_environment")
    return store_url(request.getfixturevalue("dynoxide_endpoint"))


DYNAMODB_URLS = {"moto": _moto_url, "dynoxide": _dynoxide_url}


@contextmanager
def _started(command: list[str], ready: str) -> Iterator[str]:
    """Run a server; give the text that ``ready`` matches in what it prints once it listens."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            printed = []
            for line in process.stdout:
                printed.append(line)
                if match := re.search(ready, line):
                    # moto logs every request: a pipe that nobody reads would stop it.
                    threading.Thread(target=_drain, args=(process.stdout,), daemon=True).start()
                    yield match.group()
                    break
            else:
                pytest.fail(f"{command[0]} ended before it listened: {''.join(printed)}")
        finally:
            process.terminate()
            process.wait(timeout=20)


def _drain(output: IO[str]) -> None:
    with contextlib.suppress(ValueError):  # closed while the test session ends
        for _ in output:
            pass
