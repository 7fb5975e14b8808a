"""One worker process: an event loop, an application, its connections, from its fork to its exit.

It doesn't know what the application does, nor how many times it was started before.

Invariants:
1. It accepts nothing before the application's `start` has returned, and nothing after SIGTERM.
2. It ends by itself: 0 after a drain, `BOOT_FAILED` when the application can't start. It drains when the
   arbiter is gone, of which the end of a pipe tells that only the arbiter holds open.
3. What lives when it becomes ready is kept from the garbage collector for good (`gc.freeze`).
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import time
from typing import Protocol

import uvloop

from fastserve.errors import DefinitionError, FastserveError
from fastserve.server.admin_listener import AdminListener
from fastserve.server.connections import TICK_S, Connections
from fastserve.server.exchange import Application
from fastserve.server.listener import Acceptor, Tls, listen, listener_url
from fastserve.server.log_format import tell
from fastserve.server.options import ServerOptions
from fastserve.server.protocol import protocol_factory
from fastserve.server.shared_memory import Cell, SharedMemory, State

BOOT_FAILED = 3
DRAIN_TICK_S = 0.05
# Measured: a full collection over 900,000 containers takes 91 ms, after `gc.freeze` nothing; left are those
# of the requests in flight. Looking at 10,000 new ones takes at most 0.25 ms, at 50,000 4.9 ms; the default
# looks 14 times as often and pauses as long. No request makes a cycle, so collecting late loses nothing.
GC_THRESHOLDS = (10_000, 10, 10)


class WorkerState:
    """Whether this worker should get traffic, for `/readyz`; and the counters of the whole server."""

    def __init__(self, memory: SharedMemory, index: int) -> None:
        self.memory = memory
        self.index = index

    @property
    def is_ready(self) -> bool:
        """True from the end of the warm-up until the whole server drains.

        A worker that drains because another takes its place is no reason to send traffic elsewhere.
        """
        if self.memory.arbiter[Cell.STATE] == State.DRAINING:
            return False
        return any(row[Cell.STATE] == State.READY for row in self.memory.workers)

    def totals(self) -> dict[str, int]:
        """Return the counters of all workers together."""
        return self.memory.totals()


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What an application learns about the process that it is started in."""

    index: int
    options: ServerOptions
    state: WorkerState
    serving_url: str = ""
    """Where clients reach this server on its own machine, with the real port."""


class Service(Protocol):
    """An application and its life in one worker."""

    @property
    def application(self) -> Application:
        """What answers exchanges, from the end of `start` to the beginning of `stop`."""

    @property
    def admin(self) -> Application | None:
        """What answers exchanges of the admin listener; as long as `application`."""

    async def start(self) -> None:
        """Open what the application needs; the worker is ready when this returns.

        If it raises, or is cancelled, it has closed what it had opened.
        """

    async def stop(self) -> None:
        """Close it again, after the last answer."""


Boot = Callable[[WorkerContext], Service]

BeforeLoop = Callable[[Sequence[int]], None]
"""Called in each worker before it has a loop, for what must be forked then; given the server's open files,
which a child of the worker must not keep."""


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a worker gets from the arbiter through the fork."""

    options: ServerOptions
    boot: Boot
    listener: socket.socket
    memory: SharedMemory
    lifeline_fd: int  # reads as ended when the arbiter is gone
    wake_fd: int  # a byte written here wakes the arbiter
    before_loop: BeforeLoop | None = None
    admin: socket.socket | None = None
    tls: ssl.SSLContext | None = None

    @property
    def fds(self) -> tuple[int, ...]:
        """The files that belong to the server alone."""
        admin = () if self.admin is None else (self.admin.fileno(),)
        return (self.listener.fileno(), self.lifeline_fd, self.wake_fd, *admin)


def run_worker(inheritance: Inheritance, index: int) -> int:
    """Run worker number ``index`` until it is told to stop; return its exit code."""
    faulthandler.enable()  # the arbiter aborts a silent worker: this shows where it was stuck
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal sends it to all; the arbiter decides
    if inheritance.before_loop is not None:
        inheritance.before_loop(inheritance.fds)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop.run_until_complete(Worker(inheritance, index, loop).run())


class Worker:
    """The life of one worker."""

    def __init__(self, inheritance: Inheritance, index: int, loop: asyncio.AbstractEventLoop) -> None:
        self._inherited = inheritance
        self._options = inheritance.options
        self._index = index
        self._row = inheritance.memory.workers[index]
        self._loop = loop
        self._stopping = asyncio.Event()
        self._is_last_call = False  # whether all workers end, not only this one
        self._admin: AdminListener | None = None

    async def run(self) -> int:
        """Start, serve, drain; return the exit code."""
        self._loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        self._loop.add_reader(self._inherited.lifeline_fd, self._on_lifeline)
        service = await self._boot()
        if service is None:
            return 0 if self._stopping.is_set() else BOOT_FAILED
        connections = Connections(service.application, self._options, self._loop.time(), int(time()))
        try:
            acceptor = self._open(connections)
            self._admin = open_admin(self._loop, self._inherited, service.admin)
        except DefinitionError as error:
            self._tell_boot_error(error)
            await service.stop()
            return BOOT_FAILED
        try:
            while not self._stopping.is_set():
                await self._tick(connections, TICK_S)
            await self._drain(connections, acceptor)
        finally:
            self._publish(connections)
            await service.stop()
        return 0

    async def _boot(self) -> Service | None:
        """Return the started application, or nothing when it can't start or isn't to any more."""
        inherited = self._inherited
        scheme = "http" if inherited.tls is None else "https"
        context = WorkerContext(
            self._index,
            self._options,
            WorkerState(inherited.memory, self._index),
            listener_url(inherited.listener, scheme),
        )
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            service = self._inherited.boot(context)
            starting = asyncio.ensure_future(service.start())
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})  # it closes what it has opened
                return None
            starting.result()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is why the worker can't start
            self._tell_boot_error(error)
            return None
        finally:
            stopping.cancel()
        return service

    def _tell_boot_error(self, error: Exception) -> None:
        if not isinstance(error, FastserveError):
            sys.excepthook(type(error), error, error.__traceback__)  # nobody foresaw it: show where
        tell(f"worker {self._index} can't start: {type(error).__name__}: {error}")

    def _open(self, connections: Connections) -> Acceptor:
        context = self._inherited.tls
        acceptor = Acceptor(
            self._loop,
            self._inherited.listener,
            protocol_factory(connections),
            self._inherited.memory.workers,
            self._index,
            None if context is None else Tls(context, self._options.header_timeout_s),
        )
        connections.on_closed = acceptor.on_closed
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        # Before the arbiter is told, which tells others where to connect.
        listen(self._inherited.listener, self._options)
        if self._inherited.admin is not None:
            listen(self._inherited.admin, self._options)
        self._row.beat()
        self._row[Cell.STATE] = State.READY
        acceptor.start()
        os.write(self._inherited.wake_fd, b"\0")
        return acceptor

    def _on_lifeline(self) -> None:
        self._is_last_call = True
        self._loop.remove_reader(self._inherited.lifeline_fd)
        self._stopping.set()

    async def _tick(self, connections: Connections, wait_s: float) -> None:
        """Do what is done a few times a second, then wait for the next time or the signal to stop."""
        self._row.beat()
        connections.on_tick(self._loop.time(), int(time()))
        if self._admin is not None:
            self._admin.on_tick(self._loop.time(), int(time()))
        self._publish(connections)
        if self._stopping.is_set():
            await asyncio.sleep(wait_s)
            return
        try:
            async with asyncio.timeout(wait_s):
                await self._stopping.wait()
        except TimeoutError:
            pass

    def _publish(self, connections: Connections) -> None:
        row = self._row
        row[Cell.ANSWERS] = connections.answers
        row[Cell.CLIENT_ERRORS] = connections.client_errors
        row[Cell.SERVER_ERRORS] = connections.server_errors

    async def _drain(self, connections: Connections, acceptor: Acceptor) -> None:
        """Let the connections finish, at most for the shutdown timeout."""
        self._is_last_call |= self._inherited.memory.arbiter[Cell.STATE] == State.DRAINING
        self._row[Cell.STATE] = State.DRAINING
        acceptor.close(takes_queued=self._is_last_call)
        started_s = self._loop.time()
        connections.drain(started_s)
        if self._admin is not None:
            self._admin.drain(started_s, accepts=self._is_last_call)
        while connections.open or acceptor.is_opening:
            if self._loop.time() - started_s > self._options.shutdown_timeout_s:
                connections.abort()
                await asyncio.sleep(0)
                break
            await self._tick(connections, DRAIN_TICK_S)
        if self._admin is not None:
            await self._admin.close()


def open_admin(
    loop: asyncio.AbstractEventLoop, inherited: Inheritance, application: Application | None
) -> AdminListener | None:
    """Return this worker's part of the admin listener, where there is one and something to answer with."""
    if inherited.admin is None or application is None:
        return None
    return AdminListener(loop, inherited.admin, application, inherited.options)
