"""The one listening socket, and how the workers that inherit it share its connections evenly.

It knows nothing of HTTP: an accepted socket goes to a protocol factory.

All workers wait on one queue (with a queue each, SO_REUSEPORT, a worker that closes resets what is queued).
Whichever turns first would take all, so a worker first looks at the connection counts in shared memory:
1. it takes connections only until it has more than `SLACK` above the least loaded other worker that is alive;
2. one that has more steps back for a millisecond, in which a worker with less will take them;
3. what is still there after that it takes all the same, twice as many each time, so that the whole
   queue is taken within about ten milliseconds even when all other workers are busy or stuck.

Invariants:
1. No connection waits for balance longer than a few milliseconds.
2. A worker's count is right at the moment of accepting, so that its next decision knows of the last.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from time import monotonic_ns

from fastserve.errors import DefinitionError
from fastserve.server.options import ServerOptions
from fastserve.server.shared_memory import Cell, Row, State

log = logging.getLogger("fastserve.server")

# 1 would spread 64 connections over 4 workers as 16 each but take a turn of every worker for each connection.
SLACK = 2
STEP_BACK_S = 0.001
# A worker that hasn't beaten for so long (it beats twice a second) is stuck: nobody steps back for it.
STUCK_S = 2.0
# Out of file descriptors or memory: the connections wait in the kernel meanwhile.
STARVED_S = 0.1
STARVED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def bind_listener(options: ServerOptions) -> socket.socket:
    """Return the listening socket, non-blocking; accepted sockets inherit TCP_NODELAY from it.

    Raises:
        DefinitionError: when the address can't be listened on.
    """
    try:
        found = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(options, error) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(options.backlog)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _cannot_listen(options, error) from None
    return listener


def _cannot_listen(options: ServerOptions, error: OSError) -> DefinitionError:
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        reason = "the port is in use by another process; stop that one or choose another port"
    return DefinitionError(f"can't listen on {_url(options.host, options.port)}: {reason}")


def listener_url(listener: socket.socket) -> str:
    """Return the URL that the socket listens on, with the real port."""
    host, port = listener.getsockname()[:2]
    return _url(host, port)


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Acceptor:
    """Takes one worker's share of the connections."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        rows: Sequence[Row],
        index: int,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._factory = factory
        self._row = rows[index]
        self._others = [row for number, row in enumerate(rows) if number != index]
        self._opening: set[asyncio.Task[object]] = set()
        self._patience = 1  # how many to take if nobody else does
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def start(self) -> None:
        """Begin to accept."""
        self._loop.add_reader(self._listener.fileno(), self._on_readable)

    def close(self) -> None:
        """Accept no more; what is queued is left to the other workers."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    @property
    def is_opening(self) -> bool:
        """Whether an accepted socket hasn't come to its protocol yet."""
        return bool(self._opening)

    def on_closed(self) -> None:
        """Be told that an accepted connection has ended."""
        self._row[Cell.CONNECTIONS] -= 1

    def _share(self) -> int:
        """Return how many connections this worker may take before it is another's turn."""
        now_ns = monotonic_ns()
        counts = [
            row[Cell.CONNECTIONS]
            for row in self._others
            if row[Cell.STATE] == State.READY and row.silence_s(now_ns) < STUCK_S
        ]
        least = min(counts, default=self._row[Cell.CONNECTIONS])
        return least + SLACK - self._row[Cell.CONNECTIONS]

    def _on_readable(self) -> None:
        share = self._share()
        if share <= 0:
            self._pause(STEP_BACK_S, self._after_step_back)
        elif self._accept(share) < share:
            self._patience = 1

    def _after_step_back(self) -> None:
        self._timer = None
        wanted = max(self._share(), self._patience)
        if self._accept(wanted) == wanted:
            self._patience *= 2
        else:
            self._patience = 1
        if self._timer is None:
            self.start()

    def _pause(self, delay_s: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._timer = self._loop.call_later(delay_s, then)

    def _accept(self, limit: int) -> int:
        """Accept up to ``limit`` connections and return how many there were."""
        for taken in range(limit):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return taken
            except OSError as error:
                if error.errno in STARVED:
                    log.warning("can't accept connections: %s", error.strerror)
                    self._pause(STARVED_S, self._after_step_back)
                    return taken
                continue  # that client left while it was queued
            self._open(connection)
        return limit

    def _open(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._row[Cell.CONNECTIONS] += 1
        self._row[Cell.ACCEPTED] += 1
        task: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(self._factory, connection)
        )
        self._opening.add(task)
        task.add_done_callback(self._on_opened)

    def _on_opened(self, task: asyncio.Task[object]) -> None:
        self._opening.discard(task)
        if task.cancelled() or task.exception() is not None:
            self.on_closed()
