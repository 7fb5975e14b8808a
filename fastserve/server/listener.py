"""The one listening socket, and how the workers that inherit it share its connections evenly.

It knows nothing of HTTP: an accepted socket goes to a protocol factory.

All workers wait on one queue (with a queue each, SO_REUSEPORT, a worker that closes resets what is queued).
Whichever turns first would take all, so a worker first looks at the connection counts in shared memory:
1. it takes connections only until it has `SLACK` more than the least loaded other worker that is alive;
2. one that has more steps back, for two milliseconds per connection above, in which a worker with less will
   take what is there, unless a long turn of its loop keeps it;
3. after that it takes one all the same, and steps back again; when that has gone on for `PATIENCE_S`, it
   takes twice as many each time, two milliseconds apart.

Measured, 64 connections on 4 workers, 2 cores, least and most: one after another 14 and 18, first answer
after 0.2 ms (median) and 1 ms (longest); opened all at once 13 and 18, longest 15 ms (one worker alone: 4
to 10); with one worker kept in turns of 5 ms 11 and 18, longest 20 to 60 ms, most of it that worker's own
turns. Stepping back for 1 ms whatever the distance, and then taking twice as many each time, gave 5 and 29.

Invariants:
1. Nobody can connect before a worker is ready to take connections.
2. No connection waits for balance much longer than `PATIENCE_S`, and at all only while the least loaded
   worker is in a turn of its loop.
3. A worker's count is right at the moment of accepting, so that its next decision knows of the last.
4. A client that could connect is answered: `let_nobody_connect` comes before the last look into the queue, by
   the time of a handshake.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic_ns
from typing import Any

from fastserve.errors import DefinitionError
from fastserve.server.options import ServerOptions
from fastserve.server.shared_memory import Cell, Row, State
from fastserve.server.tls import FailedHandshakes

log = logging.getLogger("fastserve.server")

# 1 would spread 64 connections over 4 workers as 16 each but take a turn of every worker for each connection.
SLACK = 2
SLACK_PART = 4  # and a quarter of what the least loaded one has
STEP_BACK_S = 0.002
MAX_STEP_BACK_S = 0.02
PATIENCE_S = 0.05
QUEUE_MAX = 65_535  # the kernel's own limit for a backlog is below
# A worker that hasn't beaten for so long (it beats twice a second) is stuck: nobody steps back for it.
STUCK_S = 2.0
# Out of file descriptors or memory: the connections wait in the kernel meanwhile.
STARVED_S = 0.1
# So long a TLS connection that we close waits for the client to close it too.
TLS_SHUTDOWN_S = 2.0
# So long after nobody can begin to connect, who had begun may come to the queue: a packet is on its way.
HANDSHAKE_S = 0.05
STARVED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# linux/filter.h: the kernel runs this program on each segment for the listening socket, from its TCP header
# on, and drops what it returns 0 for. An instruction is code, jump if true, jump if false, operand.
_SO_ATTACH_FILTER = 26
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte of the flags
    (0x45, 0, 1, 0x02),  # is SYN among them?
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFF_FFFF),
)


def bind_listener(options: ServerOptions) -> socket.socket:
    """Return the socket to listen on, bound and non-blocking; accepted ones inherit TCP_NODELAY from it.

    It refuses connections until the first worker listens on it: a proxy then asks another server, where it
    would wait for the whole start if the connection were queued.

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
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _cannot_listen(options, error) from None
    return listener


def listen(listener: socket.socket, options: ServerOptions) -> None:
    """Let clients connect; every worker may do it, the first one's counts.

    Raises:
        DefinitionError: another process that had bound the address as well was faster.
    """
    try:
        listener.listen(options.backlog)
    except OSError as error:
        raise _cannot_listen(options, error) from None


def let_nobody_connect(listener: socket.socket) -> None:
    """Have the kernel drop what asks for a connection; who has one already, or nearly, comes to the queue.

    The kernel resets what is queued when a listener is closed, and between a last look into the queue and
    that there is always time for one more. Whoever asks in this time asks again after a second, finds nobody,
    and is refused: a proxy then takes another server, as it can't for a request that may have been read.
    """
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in _DROP_SYN))
    described = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
    except OSError as error:  # a sandbox may forbid it
        log.info("connections that come in the last moment may be reset: %s", error.strerror)


def bind_admin(options: ServerOptions) -> socket.socket | None:
    """Return the admin listener as `bind_listener` does, None where none is wanted.

    Raises:
        DefinitionError: when the address can't be listened on.
    """
    if options.admin_port is None:
        return None
    return bind_listener(replace(options, host=options.admin_host, port=options.admin_port))


def _cannot_listen(options: ServerOptions, error: OSError) -> DefinitionError:
    reason = error.strerror or str(error)
    if error.errno == errno.EADDRINUSE:
        reason = "the port is in use by another process; stop that one or choose another port"
    return DefinitionError(f"can't listen on {_url(options.host, options.port)}: {reason}")


def listener_url(listener: socket.socket, scheme: str = "http") -> str:
    """Return the URL that the socket listens on, with the real port."""
    host, port = listener.getsockname()[:2]
    return _url(host, port, scheme)


def _url(host: str, port: int, scheme: str = "http") -> str:
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@dataclass(frozen=True, slots=True)
class Tls:
    """What an acceptor needs to shake hands: the context, and for how long a client may try."""

    context: ssl.SSLContext
    handshake_timeout_s: float


class Acceptor:
    """Takes one worker's share of the connections."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        rows: Sequence[Row],
        index: int,
        tls: Tls | None = None,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._factory = factory
        self._row = rows[index]
        self._others = [row for number, row in enumerate(rows) if number != index]
        self._opening: set[asyncio.Task[object]] = set()
        # Since when connections wait that another worker should take, and how many to take then.
        self._waiting_since_s: float | None = None
        self._impatience = 1
        self._stepped_forward_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._failed = FailedHandshakes()
        self._tls: dict[str, Any] = {}
        if tls is not None:
            self._tls = {
                "ssl": tls.context,
                "ssl_handshake_timeout": tls.handshake_timeout_s,
                "ssl_shutdown_timeout": TLS_SHUTDOWN_S,
            }

    def start(self) -> None:
        """Begin to accept."""
        self._loop.add_reader(self._listener.fileno(), self._on_readable)

    def close(self, *, takes_queued: bool) -> None:
        """Accept no more; what is queued is left to the other workers, or taken when they end as well.

        With ``takes_queued`` nobody can begin to connect from here on, to any worker; who had begun is waited
        for.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if not takes_queued:
            self._close_listener()
            return
        let_nobody_connect(self._listener)
        self._accept_all()
        self._loop.call_later(HANDSHAKE_S, self._look_last)

    def _accept_all(self) -> None:
        """Take what is queued, and what comes to the queue from here on."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.add_reader(self._listener.fileno(), self._accept, QUEUE_MAX)
        self._accept(QUEUE_MAX)

    def _look_last(self) -> None:
        self._accept(QUEUE_MAX)
        self._close_listener()

    def _close_listener(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    @property
    def is_opening(self) -> bool:
        """Whether a connection may still come: to the queue, or as an accepted socket to its protocol."""
        return bool(self._opening) or (self._is_closed and self._listener.fileno() >= 0)

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
        return least + SLACK + least // SLACK_PART - self._row[Cell.CONNECTIONS]

    def _on_readable(self) -> None:
        share = self._share()
        if share > 0:
            self._accept(share)
            return
        now_s = self._loop.time()
        if self._waiting_since_s is None or now_s - self._stepped_forward_s > STEP_BACK_S:
            self._waiting_since_s = now_s  # there was none waiting when it looked last
            self._impatience = 1
        delay_s = STEP_BACK_S * (1 - share) if self._impatience == 1 else STEP_BACK_S
        self._pause(min(delay_s, MAX_STEP_BACK_S))

    def _after_step_back(self) -> None:
        self._timer = None
        self._stepped_forward_s = self._loop.time()
        if self._waiting_since_s is not None and self._stepped_forward_s - self._waiting_since_s > PATIENCE_S:
            self._impatience *= 2
        self._accept(max(self._share(), self._impatience))
        if self._timer is None:
            self.start()

    def _pause(self, delay_s: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._timer = self._loop.call_later(delay_s, self._after_step_back)

    def _accept(self, limit: int) -> None:
        """Accept up to ``limit`` connections."""
        for _ in range(limit):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                self._waiting_since_s = None
                return
            except OSError as error:
                if error.errno in STARVED:
                    log.warning("can't accept connections: %s", error.strerror)
                    self._pause(STARVED_S)
                    return
                continue  # that client left while it was queued
            self._open(connection)

    def _open(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._row[Cell.CONNECTIONS] += 1
        self._row[Cell.ACCEPTED] += 1
        task: asyncio.Task[object] = self._loop.create_task(
            self._loop.connect_accepted_socket(self._factory, connection, **self._tls)
        )
        self._opening.add(task)
        task.add_done_callback(self._on_opened)

    def _on_opened(self, task: asyncio.Task[object]) -> None:
        self._opening.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and self._tls:
            self._failed.add(error)
        if task.cancelled() or error is not None:
            self.on_closed()
