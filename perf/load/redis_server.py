"""A real redis-server for measurements: of its own process, on a free port, in memory alone.

Knows nothing of loads. It needs Debian's package redis-server.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perf.load.child import ChildError
from perf.load.free_port import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_READY_TIMEOUT_S = 10.0
_LOOK_EVERY_S = 0.01


@dataclass(frozen=True)
class RedisAddress:
    """Where a server listens and which process it is."""

    port: int
    pid: int

    def store_url(self, prefix: str = "") -> str:
        """Give the address as fastserve's store URL."""
        return f"redis://127.0.0.1:{self.port}" + (f"?prefix={prefix}" if prefix else "")


@contextlib.contextmanager
def running() -> Iterator[RedisAddress]:
    """Start a server and stop it at the end.

    Raises:
        ChildError: it isn't installed, or doesn't come up.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        place = ("--port", str(port), "--bind", "127.0.0.1", "--dir", folder)
        command = ["redis-server", *place, "--save", "", "--appendonly", "no", "--loglevel", "warning"]
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        except FileNotFoundError:
            raise ChildError("no redis-server; install Debian's package of that name") from None
        try:
            _await_ready(process, port)
            yield RedisAddress(port, process.pid)
        finally:
            process.terminate()
            process.wait()


def _await_ready(process: subprocess.Popen[bytes], port: int) -> None:
    until_s = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < until_s and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(_LOOK_EVERY_S)
    raise ChildError("redis-server was not ready in time")
