"""HAProxy, as Debian has it, before one server, its connections to that one shared by all clients."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONFIGURATION = """
global
    maxconn 1000
defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend clients
    bind 127.0.0.1:{port}
    default_backend servers
backend servers
    http-reuse always
    server one 127.0.0.1:{server_port}
"""
START_S = 10.0


def executable() -> str | None:
    """Find HAProxy, which Debian has where only root's PATH leads; None where it isn't installed."""
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")


@contextmanager
def running(folder: Path, server_port: int, port: int) -> Iterator[None]:
    """Run HAProxy on ``port`` until the end of the block."""
    program = executable()
    assert program is not None
    file = folder / "haproxy.cfg"
    file.write_text(CONFIGURATION.format(port=port, server_port=server_port))
    with subprocess.Popen([program, "-db", "-q", "-f", str(file)], stderr=subprocess.PIPE) as process:
        try:
            _wait_until_listening(process, port)
            yield
        finally:
            process.kill()


def _wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    until_s = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until_s:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"HAProxy didn't start, code {process.poll()}")
