"""Starts the server as a process of its own and stops it, whatever happens; raw clients for it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.http_connection import Answer, read_answers

ROOT = Path(__file__).parents[2]
PATIENCE_S = 30.0


class Server:
    """A running server and what it has said so far."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.said = ""
        self.host = ""
        self.port = 0
        self._connections: list[Connection] = []

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read what the server says until it has said this."""
        deadline_s = time.monotonic() + PATIENCE_S
        assert self.process.stderr is not None
        fd = self.process.stderr.fileno()
        while not (found := re.search(pattern, self.said)):
            remaining_s = deadline_s - time.monotonic()
            assert remaining_s > 0, f"not said: {pattern}\n{self.said}"
            if select.select([fd], [], [], remaining_s)[0]:
                data = os.read(fd, 65536)
                assert data, f"ended without saying: {pattern}\n{self.said}"
                self.said += data.decode()
        return found

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        assert self.process.stderr is not None
        code = self.process.wait(PATIENCE_S)
        self.said += self.process.stderr.read().decode()
        return code

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

    def ask(self, target: str, body: bytes = b"") -> Answer:
        head = f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
        self.send(head.encode() + body)
        return self.read()

    def is_closed_by_server(self) -> bool:
        return self.socket.recv(1) == b""

    def close(self) -> None:
        self.socket.close()


@contextmanager
def serving(**settings: object) -> Iterator[Server]:
    """Run the echo server until the end of the block; it is ready when the block begins."""
    with starting(**settings) as server:
        ready = server.wait_for(r"listening on http://(?:\[(.+)\]|(.+)):(\d+) with \d+ workers?\n")
        server.host, server.port = ready[1] or ready[2], int(ready[3])
        yield server


@contextmanager
def starting(**settings: object) -> Iterator[Server]:
    """Run the echo server until the end of the block, without waiting for it."""
    command = [sys.executable, "-m", "tests.support.echo_server", json.dumps(settings)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        server = Server(process)
        try:
            yield server
        finally:
            server.disconnect()
            workers = server.workers() if process.poll() is None else []
            process.kill()
            for worker in workers:
                kill(worker)


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
