"""A TCP proxy that does to bytes what networks do: `python -m perf.load.fault_proxy --target HOST:PORT`.

It may stand before a store or before a server, and knows nothing of what passes. As a process it prints its
port, takes one JSON object per line on standard input (`Faults.from_json`), answers each with a line of its
counters, and ends with its input.

Invariants:
1. Without faults every byte passes, in order and at once, and each side's end is the other's.
2. Faults are looked at for each piece that passes: they can be switched while connections last. What was held
   passes when the holding ends, as after a partition; what a black hole swallowed is gone, and that
   connection gives no more.
3. All draws come from one seed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import struct
import subprocess
import sys
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import orjson
import uvloop

from perf.load.child import ROOT, ChildError, stop

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK_BYTES = 1 << 16
_QUEUE_MAX = 64


@dataclass(frozen=True)
class LineFaults:
    """What happens in one direction; shares are of the pieces that pass."""

    latency_ms: float = 0.0
    jitter_ms: float = 0.0
    bytes_per_s: float = 0.0
    # Pieces of 1 to so many bytes, each a write of its own.
    slice_bytes: int = 0
    stall_share: float = 0.0
    stall_ms: float = 1_000.0
    reset_share: float = 0.0
    # So many bytes pass on a connection; then it is closed, wherever in a message that is.
    limit_bytes: int = 0
    blackhole: bool = False


@dataclass(frozen=True)
class Faults:
    """What happens to connections: `up` goes to the target, `down` comes from it."""

    up: LineFaults = field(default_factory=LineFaults)
    down: LineFaults = field(default_factory=LineFaults)
    # Nothing passes, and new connections aren't made, until this ends.
    hold: bool = False
    # New connections are reset.
    refuse: bool = False

    @classmethod
    def from_json(cls, wanted: dict[str, Any]) -> Faults:
        """Read what `to_json` gives, or a part of it.

        Raises:
            ValueError: an unknown name.
        """
        lines = {name: _line(wanted.get(name, {})) for name in ("up", "down")}
        unknown = set(wanted) - {entry.name for entry in fields(cls)}
        if unknown:
            raise ValueError(f"unknown faults: {sorted(unknown)}")
        return cls(**lines, hold=wanted.get("hold", False), refuse=wanted.get("refuse", False))

    def to_json(self) -> dict[str, Any]:
        """Give the faults as JSON data."""
        return asdict(self)


def _line(wanted: dict[str, Any]) -> LineFaults:
    unknown = set(wanted) - {entry.name for entry in fields(LineFaults)}
    if unknown:
        raise ValueError(f"unknown faults of a line: {sorted(unknown)}")
    return LineFaults(**wanted)


NO_FAULTS = Faults()
_CALM = LineFaults()


class FaultProxy:
    """Listens on 127.0.0.1 and connects to one target. ``faults`` may be set at any time."""

    def __init__(self, host: str, port: int, seed: int = 1) -> None:
        self._target = host, port
        self._random = random.Random(seed)
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._free = asyncio.Event()
        self._free.set()
        self.faults_now = NO_FAULTS
        self.counts = dict.fromkeys(("connections", "resets", "cut", "stalls", "swallowed_bytes"), 0)

    @property
    def faults(self) -> Faults:
        """What happens to connections now."""
        return self.faults_now

    @faults.setter
    def faults(self, wanted: Faults) -> None:
        self.faults_now = wanted
        if wanted.hold:
            self._free.clear()
        else:
            self._free.set()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self, port: int = 0) -> None:
        """Begin to listen. Raises OSError."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", port, backlog=1_024)

    async def close(self) -> None:
        """Cut everything."""
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def draw(self, share: float) -> bool:
        """Tell whether what happens in such a share happens now."""
        return bool(share) and self._random.random() < share

    def piece(self, most: int) -> int:
        """Draw the length of a piece."""
        return self._random.randint(1, most)

    def jitter_s(self, faults: LineFaults) -> float:
        """Draw how late a piece is."""
        return (faults.latency_ms + faults.jitter_ms * self._random.random()) / 1_000

    async def passage(self) -> None:
        """Wait until nothing is held."""
        await self._free.wait()

    @property
    def is_held(self) -> bool:
        """Whether nothing passes."""
        return not self._free.is_set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counts["connections"] += 1
        if self.faults_now.refuse:
            self.counts["resets"] += 1
            _reset(writer)
            return
        await self.passage()
        try:
            target_reader, target_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        link = Link(self, (reader, writer), (target_reader, target_writer))
        self._links.add(link)
        task = asyncio.get_running_loop().create_task(link.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._links.discard(link))


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    """One client's connection and the one to the target."""

    def __init__(self, proxy: FaultProxy, client: Ends, target: Ends) -> None:
        self._proxy = proxy
        self._writers = (client[1], target[1])
        self._lines = [
            Line(proxy, self, client[0], target[1], is_up=True),
            Line(proxy, self, target[0], client[1], is_up=False),
        ]
        self.is_dead = False

    async def run(self) -> None:
        """Let bytes pass until both sides have ended or one is lost."""
        try:
            await asyncio.gather(*[line.run() for line in self._lines])
        except (OSError, asyncio.IncompleteReadError):
            self.reset()
        finally:
            self.cut()

    def cut(self) -> None:
        """Close both sides."""
        for writer in self._writers:
            writer.close()

    def reset(self) -> None:
        """Close both sides with RST."""
        for writer in self._writers:
            _reset(writer)


class Line:
    """One direction of a connection."""

    def __init__(
        self,
        proxy: FaultProxy,
        link: Link,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        is_up: bool,
    ) -> None:
        self._proxy = proxy
        self._link = link
        self._reader = reader
        self._writer = writer
        self._is_up = is_up
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUE_MAX)
        self._pending = 0
        self._passed_bytes = 0

    @property
    def _faults(self) -> LineFaults:
        faults = self._proxy.faults_now
        return faults.up if self._is_up else faults.down

    async def run(self) -> None:
        """Let bytes pass until they end."""
        writing = asyncio.create_task(self._write())
        try:
            await self._read()
            await writing
        finally:
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await writing

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await self._reader.read(_CHUNK_BYTES):
            faults = self._faults
            if faults.blackhole:
                self._link.is_dead = True
            if self._link.is_dead:
                self._proxy.counts["swallowed_bytes"] += len(data)
                continue
            if faults == _CALM and not self._pending and not self._proxy.is_held:
                self._passed_bytes += len(data)
                self._writer.write(data)
                await self._writer.drain()
                continue
            self._pending += 1
            await self._queue.put((loop.time() + self._proxy.jitter_s(faults), data))
        self._pending += 1
        await self._queue.put((0.0, b""))

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, data = await self._queue.get()
            delay_s = due_s - loop.time()
            if delay_s > 0:
                await asyncio.sleep(delay_s)
            await self._proxy.passage()
            if not data:
                break
            await self._pass_on(data)
            self._pending -= 1
        if self._writer.can_write_eof() and not self._link.is_dead:
            self._writer.write_eof()

    async def _pass_on(self, data: bytes) -> None:
        faults, counts = self._faults, self._proxy.counts
        if self._proxy.draw(faults.stall_share):
            counts["stalls"] += 1
            await asyncio.sleep(faults.stall_ms / 1_000)
        if self._proxy.draw(faults.reset_share):
            counts["resets"] += 1
            raise ConnectionResetError("as was asked for")
        room = faults.limit_bytes - self._passed_bytes if faults.limit_bytes else len(data)
        is_over = room < len(data)
        data = data[: max(0, room)]
        self._passed_bytes += len(data)
        for piece in self._pieces(data, faults.slice_bytes):
            self._writer.write(piece)
            await self._writer.drain()
            if faults.bytes_per_s:
                await asyncio.sleep(len(piece) / faults.bytes_per_s)
            elif faults.slice_bytes:
                await asyncio.sleep(0)  # a turn of the loop between them, or they are one write
        if is_over:
            counts["cut"] += 1
            self._link.cut()
            raise ConnectionAbortedError("as was asked for")

    def _pieces(self, data: bytes, most: int) -> Iterator[bytes]:
        if not most:
            yield data
            return
        at = 0
        while at < len(data):
            size = self._proxy.piece(most)
            yield data[at : at + size]
            at += size


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and not writer.is_closing():
        # Lingering for no time sends RST in place of FIN (socket(7)).
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class ProxyProcess:
    """A proxy in a process of its own, as seen by who started it. Blocking."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line.isdigit():
            raise ChildError(f"the proxy printed {line[:64]!r} instead of its port")
        self.port = int(line)
        self.pid = process.pid

    def set(self, faults: Faults) -> dict[str, int]:
        """Switch to other faults; give the counters so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(orjson.dumps(faults.to_json()).decode() + "\n")
        self._process.stdin.flush()
        counts: dict[str, int] = orjson.loads(self._process.stdout.readline())
        return counts


@contextlib.contextmanager
def running(host: str, port: int, seed: int = 1) -> Iterator[ProxyProcess]:
    """Run a proxy before a target until the end of the block.

    Raises:
        ChildError: it did not come up.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "perf.load.fault_proxy", "--target", f"{host}:{port}", "--seed", str(seed)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield ProxyProcess(process)
    finally:
        stop(process)


async def _serve(host: str, port: int, seed: int) -> None:
    proxy = FaultProxy(host, port, seed)
    await proxy.start()
    print(proxy.port, flush=True)
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        proxy.faults = Faults.from_json(orjson.loads(line))
        print(orjson.dumps(proxy.counts).decode(), flush=True)
    await proxy.close()


def main() -> None:
    """Stand between until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m perf.load.fault_proxy", description=__doc__)
    parser.add_argument("--target", required=True, metavar="HOST:PORT")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    host, _, port = options.target.rpartition(":")
    uvloop.run(_serve(host, int(port), options.seed))


if __name__ == "__main__":
    main()
