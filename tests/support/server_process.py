"""Starts a server as a process of its own and stops it, whatever happens; raw clients for it.

`serving` runs the echo server, `feature_server.serving_features` the whole of `fastserve serve`; `running`
is what both are made of, for any other command that prints to stderr and ends on SIGTERM.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.http_connection import Answer, read_answers

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0


class Server:
    """A running server and what it has said so far. Its stderr is read all the while, so it never waits."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.said = ""
        self.host = ""
        self.port = 0
        self._connections: list[Connection] = []
        self._heard = threading.Condition()
        self._has_ended = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        fd = self.process.stderr.fileno()
        with suppress(OSError):
            while data := os.read(fd, 65536):
                with self._heard:
                    self.said += data.decode()
                    self._heard.notify_all()
        with self._heard:
            self._has_ended = True
            self._heard.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until the server has said this."""
        found: re.Match[str] | None = None

        def is_said() -> bool:
            nonlocal found
            found = re.search(pattern, self.said)
            return found is not None or self._has_ended

        with self._heard:
            in_time = self._heard.wait_for(is_said, PATIENCE_S)
        assert found is not None, f"{'ended' if in_time else 'silent'} without: {pattern}\n{self.said}"
        return found

    def wait_until_listening(self) -> None:
        """Wait for the line that says where it listens, and remember that."""
        ready = self.wait_for(r"listening on https?://(?:\[(.+)\]|(.+)):(\d+) with \d+ workers?\n")
        self.host, self.port = ready[1] or ready[2], int(ready[3])

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait(PATIENCE_S)
        self._listener.join(PATIENCE_S)
        return code

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def workers(self) -> list[int]:
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def connect(self) -> Connection:
        connection = Connection(socket.create_connection((self.host, self.port), PATIENCE_S))
        self._connections.append(connection)
        return connection

    def connect_tls(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> Connection:
        """Connect and shake hands; the connection's socket is then an `ssl.SSLSocket`."""
        plain = socket.create_connection((self.host, self.port), PATIENCE_S)
        try:
            connection = Connection(context.wrap_socket(plain, server_hostname=self.host, session=session))
        except BaseException:
            plain.close()
            raise
        self._connections.append(connection)
        return connection

    def connect_admin(self) -> Connection:
        """Connect to the admin listener, whose address the server has said."""
        found = self.wait_for(r"admin pages on http://(.+):(\d+)\n")
        connection = Connection(socket.create_connection((found[1], int(found[2])), PATIENCE_S))
        self._connections.append(connection)
        return connection

    def disconnect(self) -> None:
        for connection in self._connections:
            connection.close()


class Connection:
    """A client that knows what it sends and reads one answer at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._received = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self) -> Answer:
        while b"\r\n\r\n" not in self._received:
            self._receive()
        head, rest = self._received.split(b"\r\n\r\n", 1)
        length = int((re.search(rb"Content-Length: (\d+)", head) or [b"", b"0"])[1])
        while len(rest) < length:
            self._receive()
            head, rest = self._received.split(b"\r\n\r\n", 1)
        self._received = rest[length:]
        return read_answers(head + b"\r\n\r\n" + rest[:length])[0]

    def _receive(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self._received += data

    def ask(self, target: str, body: bytes = b"", fields: str = "") -> Answer:
        """Post and read the answer; ``fields`` are further lines of the head, each with its end."""
        head = f"POST {target} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
        self.send(head.encode() + body)
        return self.read()

    def get(self, target: str) -> Answer:
        self.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        return self.read()

    def is_closed_by_server(self) -> bool:
        return self.socket.recv(1) == b""

    def close(self) -> None:
        self.socket.close()


@contextmanager
def serving(**settings: object) -> Iterator[Server]:
    """Run the echo server until the end of the block; it is ready when the block begins."""
    with starting(**settings) as server:
        server.wait_until_listening()
        yield server


@contextmanager
def starting(**settings: object) -> Iterator[Server]:
    """Run the echo server until the end of the block, without waiting for it."""
    with running([sys.executable, "-m", "tests.support.echo_server", json.dumps(settings)]) as server:
        yield server


@contextmanager
def running(
    command: Sequence[str], environ: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Iterator[Server]:
    """Run a command until the end of the block; nothing of it or of its workers is left then."""
    with subprocess.Popen(command, cwd=cwd, env=environ, stderr=subprocess.PIPE) as process:
        server = Server(process)
        try:
            yield server
        finally:
            server.disconnect()
            workers = server.workers() if process.poll() is None else []
            process.kill()
            for worker in workers:
                kill(worker)
            server.wait()


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until it is so."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline_s
        select.select([], [], [], 0.01)
