"""Real Redis servers for tests: one alone, and a cluster of three masters, all on free ports of 127.0.0.1.

Import the fixtures into a conftest or a test module. A server is started when the first test asks for it and
ended with the session; each test has table names of its own, by prefix.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
import redis

from perf.load.free_port import free_port

__all__ = [
    "REDIS_URLS",
    "RedisServer",
    "redis_cluster",
    "redis_cluster_started",
    "redis_server",
    "redis_started",
    "require_redis",
]

MASTERS = 3
SLOTS = 16_384
JOIN_TIMEOUT_S = 20.0
_NUMBERS = itertools.count()


class RedisServer:
    """A server of a test's own, which may be stopped and started again on the same port."""

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.port = free_port()
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start, and return when connections are taken."""
        folder = ("--dir", str(self._folder), "--daemonize", "no", "--bind", "127.0.0.1")
        command = ["redis-server", "--port", str(self.port), *folder, "--save", "", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._process.stdout is not None
        printed = []
        for line in self._process.stdout:
            printed.append(line)
            if "Ready to accept connections" in line:
                threading.Thread(target=_drain, args=(self._process.stdout,), daemon=True).start()
                return
        pytest.fail(f"redis-server ended before it listened: {''.join(printed)}")

    def stop(self) -> None:
        """End it as an operator would."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=20)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def client(self) -> Any:
        """Return a redis.Redis for the test's own questions."""
        return redis.Redis(port=self.port)


@contextmanager
def redis_started(folder: Path, options: Sequence[str] = ()) -> Iterator[RedisServer]:
    """Run a server of a test's own."""
    require_redis()
    server = RedisServer(folder, options)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give HOST:PORT of a server."""
    with redis_started(tmp_path_factory.mktemp("redis")) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give HOST:PORT of one of the three masters of a cluster."""
    with redis_cluster_started([tmp_path_factory.mktemp("redis") for _ in range(MASTERS)]) as servers:
        yield f"127.0.0.1:{servers[0].port}"


@contextmanager
def redis_cluster_started(
    folders: Sequence[Path], options: Sequence[str] = ()
) -> Iterator[list[RedisServer]]:
    """Run a cluster of masters, one for each folder; each has its even share of the slots, in their order."""
    with ExitStack() as stack:
        servers = []
        for folder in folders:
            own = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
            servers.append(stack.enter_context(redis_started(folder, (*own, *options))))
        _join(servers)
        yield servers


def require_redis() -> None:
    """Skip the test where there is no redis-server."""
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server; install Debian's package of that name")


def _join(servers: Sequence[RedisServer]) -> None:
    """Make a cluster of empty servers, each with its share of the slots; return when it serves."""
    clients = [server.client() for server in servers]
    for number, client in enumerate(clients):
        first, end = number * SLOTS // len(clients), (number + 1) * SLOTS // len(clients)
        client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
    ports = [_ports(client) for client in clients]
    for port, bus in ports[1:]:
        clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus)
    deadline_s = time.monotonic() + JOIN_TIMEOUT_S
    for client in clients:
        while b"cluster_state:ok" not in _cluster_info(client) or _known(client) < len(clients):
            assert time.monotonic() < deadline_s, "the cluster did not come together"
            time.sleep(0.02)  # it gossips ten times a second, and tells nobody when it is done
        client.close()


def _ports(client: Any) -> tuple[str, str]:
    port = str(client.connection_pool.connection_kwargs["port"])
    reply = client.execute_command("CONFIG", "GET", "cluster-port")
    bus = reply[b"cluster-port"] if isinstance(reply, dict) else reply[1]
    return port, bus.decode() if isinstance(bus, bytes) else str(bus)


def _cluster_info(client: Any) -> bytes:
    reply = client.execute_command("CLUSTER", "INFO")
    text = "\n".join(f"{k}:{v}" for k, v in reply.items()) if isinstance(reply, dict) else reply
    return text if isinstance(text, bytes) else str(text).encode()


def _known(client: Any) -> int:
    slots = client.execute_command("CLUSTER", "SLOTS")
    return len(slots)


def unused(url: str) -> str:
    """Return a store's URL under which there are no tables yet."""
    return f"{url}?prefix=t{os.getpid()}-{next(_NUMBERS)}."


def _alone_url(request: pytest.FixtureRequest) -> str:
    return unused(f"redis://{request.getfixturevalue('redis_server')}/1")


def _cluster_url(request: pytest.FixtureRequest) -> str:
    return unused(f"redis+cluster://{request.getfixturevalue('redis_cluster')}")


REDIS_URLS: Mapping[str, Callable[[pytest.FixtureRequest], str]] = {
    "redis": _alone_url,
    "redis-cluster": _cluster_url,
}


def _drain(output: IO[str]) -> None:
    with contextlib.suppress(ValueError):  # closed while the test session ends
        for _ in output:
            pass
