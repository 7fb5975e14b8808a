"""`python -m perf.rolling_restart`: two instances behind nginx with TLS, restarted in turns under load.

What is counted is what clients see: answers that aren't 200, broken connections, wrong values. An instance is
restarted as an orchestrator does it: SIGTERM, wait for its end, start it on the same port, wait for
`/readyz`. Nothing tells nginx beforehand.

Invariants:
1. Every answer's vector is compared with what the stored numbers say.
2. A client asks its next request once the last one is answered, over one connection as long as it lasts.
3. It ends with 1 if a request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from perf.data import PATH as TARGET
from perf.data import SHAPES, expected_features, prepare_service, request_parts
from perf.load import nginx, standin_client
from perf.load.child import ROOT
from perf.load.free_port import free_port
from perf.server import command, environment, listening

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = "lookups_1x100"
KEYS = 64
_ANSWER_TIMEOUT_S = 20.0


@dataclass
class Outcome:
    """What the clients saw."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    connections: int = 0
    restarts: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Tell whether every request was answered rightly."""
        return not self.failures and set(self.statuses) == {200}

    def to_json(self) -> dict[str, object]:
        """Give the figures."""
        ranked = sorted(self.latencies_ms)
        at = {f"p{share}_ms": round(ranked[int(len(ranked) * share / 100)], 1) for share in (50, 99)}
        return {
            "restarts": self.restarts,
            "requests": sum(self.statuses.values()) + len(self.failures),
            "statuses": dict(self.statuses),
            "failures": len(self.failures),
            "connections": self.connections,
            **at,
            "max_ms": round(ranked[-1], 1),
        }


class Instances:
    """Two servers on ports of their own."""

    def __init__(self, store_url: str, repo: Path) -> None:
        self._ports = (free_port(), free_port())
        self._commands = [command(repo, store_url, port) for port in self._ports]
        self._running: list[contextlib.ExitStack] = []

    @property
    def addresses(self) -> list[str]:
        """Give where they listen."""
        return [f"127.0.0.1:{port}" for port in self._ports]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run both until the end of the block."""
        with contextlib.ExitStack() as everything, ThreadPoolExecutor() as threads:
            self._running = [everything.enter_context(contextlib.ExitStack()) for _ in self._ports]
            list(threads.map(self.start, range(len(self._ports))))
            yield

    def start(self, number: int) -> None:
        """Start one and wait until it is ready."""
        port = self._ports[number]
        process = listening(self._commands[number], port, "/readyz", cwd=ROOT, environment=environment())
        self._running[number].enter_context(process)

    def restart(self, number: int) -> None:
        """Stop one with SIGTERM, wait for its end, start it again."""
        self._running[number].close()
        self.start(number)


class Client:
    """One connection after the other, one request after the other."""

    def __init__(
        self, outcome: Outcome, proxy: nginx.Nginx, number: int, keep_alive: int, pause_s: float
    ) -> None:
        self._outcome = outcome
        self._proxy = proxy
        self._number = number
        self._keep_alive = keep_alive
        self._pause_s = pause_s
        self._context = proxy.client_context()
        head, _, tail = request_parts(SERVICE)
        self._bodies = [(f"{head}user{key:08d}{tail}".encode(), f"user{key:08d}") for key in range(KEYS)]
        self._expected: dict[str, bytes] = {}

    async def run(self, done: asyncio.Event) -> None:
        """Ask until it is done."""
        asked = self._number
        while not done.is_set():
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self._proxy.port, ssl=self._context, server_hostname="localhost"
                )
            except OSError as error:
                self._outcome.failures.append(f"connect: {error!r}")
                continue
            self._outcome.connections += 1
            try:
                for _ in range(self._keep_alive):
                    asked += 1
                    await asyncio.wait_for(self._ask(reader, writer, asked), _ANSWER_TIMEOUT_S)
                    if done.is_set():
                        break
                    await asyncio.sleep(self._pause_s)
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                self._outcome.failures.append(repr(error)[:300])
            finally:
                writer.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: int) -> None:
        body, key = self._bodies[asked % KEYS]
        head = f"POST {TARGET} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        began_s = time.monotonic()
        writer.write(head.encode() + body)
        answer_head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(answer_head.partition("content-length:")[2].partition("\r\n")[0])
        answer = await reader.readexactly(length)
        self._outcome.latencies_ms.append((time.monotonic() - began_s) * 1000)
        status = int(answer_head.split(" ", 2)[1])
        self._outcome.statuses[status] += 1
        if status == 200 and answer != self._expectation(key):
            raise ValueError(f"wrong values for {key}: {answer[:100]!r}")

    def _expectation(self, key: str) -> bytes:
        if key not in self._expected:
            features = expected_features(SERVICE, key)
            self._expected[key] = orjson.dumps({"result": {"features": features}})
        return self._expected[key]


def write_repo(folder: Path) -> Path:
    """Write a repo of the one service, which starts sooner than that of all the look-ups.

    Raises:
        ValueError: the look-ups' repo isn't what it was.
    """
    source = SHAPES[SERVICE].repo_path
    kept, found, _ = (source / "services.py").read_text(encoding="utf-8").partition("lookups_5x100 =")
    if not found:
        raise ValueError("services.py: expected lookups_5x100 after lookups_1x100")
    folder.mkdir()
    (folder / "services.py").write_text(kept, encoding="utf-8")
    shutil.copy(source / "fastserve.toml", folder)
    return folder


def measure(restarts: int, clients: int, folder: Path, pause_s: float = 0.0) -> Outcome:
    """Restart both instances in turns, ``restarts`` times in all, under the load of so many clients.

    A client waits for ``pause_s`` between an answer and its next request.
    """
    outcome = Outcome()
    with standin_client.running() as stand_in:
        prepare_service(stand_in, SERVICE)
        instances = Instances(stand_in.store_url(), write_repo(folder / "repo"))
        with instances.running(), nginx.running(folder / "nginx", instances.addresses) as proxy:
            asyncio.run(_under_load(outcome, instances, proxy, restarts, clients, pause_s))
    return outcome


async def _under_load(
    outcome: Outcome, instances: Instances, proxy: nginx.Nginx, restarts: int, clients: int, pause_s: float
) -> None:
    done = asyncio.Event()
    # Every fourth client opens a new connection for every request; nginx's own to the servers live on.
    askers = [
        asyncio.create_task(Client(outcome, proxy, number, 10**9 if number % 4 else 1, pause_s).run(done))
        for number in range(clients)
    ]
    for number in range(restarts):
        await asyncio.to_thread(instances.restart, number % 2)
        outcome.restarts += 1
    await asyncio.sleep(0.2)
    done.set()
    await asyncio.gather(*askers)


def main() -> int:
    """Measure and print; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m perf.rolling_restart", description=__doc__)
    parser.add_argument("--restarts", type=int, default=20, help="of both instances together")
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = measure(options.restarts, options.clients, Path(folder))
    print(orjson.dumps(outcome.to_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode())
    for failure in outcome.failures[:10]:
        print(failure, file=sys.stderr)
    return 0 if outcome.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
