"""The server under measurement: `fastserve serve` as an operator starts it, with one worker.

It must not know what is measured.

Invariants:
1. `running` gives a server that said it is ready, and stops it with SIGTERM, as an orchestrator would.
2. It runs with the product's defaults; only addresses, the clock and the credentials are set.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from perf.data import CLOCK
from perf.load.child import ROOT, ChildError
from perf.load.free_port import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_READY_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 10.0
_LOOK_EVERY_S = 0.05
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "perf",
    "AWS_SECRET_ACCESS_KEY": "perf",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def command(
    repo: Path, store_url: str, port: int, more: Sequence[str] = (), *, workers: int = 1
) -> list[str]:
    """Give the command line that starts the server."""
    return [
        *(sys.executable, "-m", "fastserve", "serve"),
        *("--repo", str(repo), "--store", store_url),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", str(workers), "--clock", CLOCK),
        *more,
    ]


@contextlib.contextmanager
def running(
    repo: Path, store_url: str, more: Sequence[str] = (), *, workers: int = 1, ca_bundle: str | None = None
) -> Iterator[tuple[int, int]]:
    """Run a server over a feature repo and a store, trusting its certificate; give its pid and port.

    Raises:
        ChildError: it ended, or was not ready in time.
    """
    port = free_port()
    more_environment = {"AWS_CA_BUNDLE": ca_bundle} if ca_bundle else {}
    arguments = command(repo, store_url, port, more, workers=workers)
    with listening(
        arguments, port, "/readyz", cwd=ROOT, environment={**environment(), **more_environment}
    ) as pid:
        yield pid, port


def environment() -> dict[str, str]:
    """Give the environment that the server runs in: this one, with made-up credentials."""
    return {**os.environ, **_ENVIRONMENT}


@contextlib.contextmanager
def listening(
    arguments: Sequence[str],
    port: int,
    ready_path: str,
    *,
    cwd: Path,
    environment: dict[str, str],
    timeout_s: float = _READY_TIMEOUT_S,
) -> Iterator[int]:
    """Run a server until it says at a path that it is ready, and on; give its pid.

    Raises:
        ChildError: it ended, or was not ready in time.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            arguments, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            await_ready(process, port, ready_path, timeout_s)
            yield process.pid
        except ChildError as error:
            log.seek(0)
            raise ChildError(f"{error}; it wrote:\n{log.read().decode(errors='replace')}") from None
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def await_ready(
    process: subprocess.Popen[bytes], port: int, path: str, timeout_s: float = _READY_TIMEOUT_S
) -> None:
    """Wait until a server says at a path that it is ready.

    Raises:
        ChildError: it ended, or was not ready in time.
    """
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        if process.poll() is not None:
            raise ChildError(f"the server ended with {process.returncode} before it was ready")
        if _is_ready(port, path):
            return
        time.sleep(_LOOK_EVERY_S)
    raise ChildError(f"the server was not ready after {timeout_s:g} s")


def _is_ready(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
