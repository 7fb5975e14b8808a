"""nginx with the project's own configuration on free ports, before servers that the caller starts.

The files are those of `deploy/nginx` with addresses and the folder for temporary files put in; all else is
run as it stands there. Knows nothing of fastserve.

Invariants:
1. `running` has an nginx that answers, with a certificate of its own, and leaves no process behind.
2. A line of the configuration that is to be replaced and isn't there is an error.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import ssl
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perf.load.child import ROOT, ChildError
from perf.load.free_port import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONFIGURATION = ROOT / "deploy" / "nginx"
# Debian has it where only root's PATH leads.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
_START_TIMEOUT_S = 10.0
_STOP_TIMEOUT_S = 5.0
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Nginx:
    """A running nginx: the port that takes TLS, and the one that tells of nginx itself."""

    port: int
    health_port: int
    pid: int
    folder: Path

    @property
    def certificate(self) -> Path:
        """Give the certificate's file, which a client has to trust."""
        return self.folder / "tls" / "tls.crt"

    def client_context(self) -> ssl.SSLContext:
        """Give what a client needs that verifies the certificate."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def log(self) -> str:
        """Give what nginx has logged; requests come a second late."""
        return (self.folder / "access.log").read_text() + (self.folder / "error.log").read_text()


def executable() -> str | None:
    """Find nginx, None where it isn't installed."""
    return shutil.which("nginx", path=_PATH)


def make_certificate(folder: Path) -> None:
    """Make a key and a certificate for localhost, signed by itself.

    Raises:
        CalledProcessError: openssl failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *(
                "-days",
                "30",
                "-subj",
                "/CN=localhost",
                "-addext",
                "subjectAltName=DNS:localhost,IP:127.0.0.1",
            ),
            *("-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")),
        ],
        check=True,
        capture_output=True,
    )


def render(folder: Path, servers: Sequence[str], port: int, health_port: int) -> None:
    """Write the configuration for two servers, each ``host:port``, into a folder.

    Raises:
        ValueError: the configuration isn't what it was.
    """
    first, second = servers
    shutil.copytree(CONFIGURATION, folder, dirs_exist_ok=True)
    (folder / "tmp").mkdir(exist_ok=True)
    _replace(folder / "nginx.conf", {"/tmp/nginx/": f"{folder}/tmp/", "/dev/stdout": f"{folder}/access.log"})
    _replace(
        folder / "conf.d" / "fastserve.conf",
        {
            "server fastserve-1:8080": f"server {first}",
            "server fastserve-2:8080": f"server {second}",
            "listen 8080;": f"listen 127.0.0.1:{health_port};",
            "listen 8443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        },
    )


def _replace(file: Path, texts: dict[str, str]) -> None:
    content = file.read_text(encoding="utf-8")
    for old, new in texts.items():
        if old not in content:
            raise ValueError(f"{file.name}: expected {old!r} in it")
        content = content.replace(old, new)
    file.write_text(content, encoding="utf-8")


@contextlib.contextmanager
def running(folder: Path, servers: Sequence[str]) -> Iterator[Nginx]:
    """Run nginx in a folder, before two servers, until the end of the block.

    Raises:
        ChildError: it isn't installed, refuses the configuration, or was not ready in time.
    """
    program = executable()
    if program is None:
        raise ChildError("nginx isn't installed")
    port, health_port = free_port(), free_port()
    make_certificate(folder / "tls")
    render(folder, servers, port, health_port)
    error_log = folder / "error.log"
    # Debian's nginx would have its workers run as www-data, who can't enter a folder of root's.
    user = " user root;" if os.getuid() == 0 else ""
    arguments = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", f"daemon off;{user}"]
    with error_log.open("wb") as log:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _await_ready(process, folder / "tmp" / "nginx.pid", error_log)
        yield Nginx(port, health_port, process.pid, folder)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(process: subprocess.Popen[bytes], pid_file: Path, error_log: Path) -> None:
    """Wait for the file that nginx writes once it listens."""
    until_s = time.monotonic() + _START_TIMEOUT_S
    while not (pid_file.is_file() and pid_file.read_text().strip()):
        if process.poll() is not None or time.monotonic() > until_s:
            raise ChildError(f"nginx didn't start; it wrote:\n{error_log.read_text(errors='replace')}")
        time.sleep(_LOOK_EVERY_S)
