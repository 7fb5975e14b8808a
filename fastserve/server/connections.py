"""What all connections of one worker share: application, clocks, known heads, counts, the periodic sweep.

It doesn't know how a connection reads or writes.

Invariants:
1. No timer belongs to a request or a connection: one sweep per worker looks at all connections, so a timeout
   is late by up to one tick (`TICK_S`).
2. A known head is one that `parse_head` accepted, plain, and the same to the byte; there are at most
   `KNOWN_HEADS` of at most `KNOWN_HEAD_BYTES`.

Known heads: a keep-alive client repeats its head to the byte but for Content-Length. Finding such a head
costs 0.4 us, parsing a new one of eight fields, checking and remembering it 5.5 us
(perf/micro/http_protocol.py); where each head is new (a proxy adds a trace id), that is what is paid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fastserve.errors import RequestError
from fastserve.server.exchange import Application
from fastserve.server.options import ServerOptions
from fastserve.wire.http1 import HEAD_END, RequestHead, parse_head
from fastserve.wire.http1_answer import AnswerHeads

TICK_S = 0.5
KNOWN_HEADS = 512
KNOWN_HEAD_BYTES = 2048


class Connection(Protocol):
    """What the sweep needs of a connection."""

    def on_sweep(self, now_s: float) -> None:
        """Look whether a timeout has passed."""

    def abort(self) -> None:
        """Cut the connection, whatever it is doing."""


def _ignore() -> None:
    pass


class Connections:
    """The open connections of one worker and what they have in common."""

    __slots__ = (
        "answers",
        "application",
        "client_errors",
        "drain_start_s",
        "heads",
        "is_draining",
        "known_heads",
        "limits",
        "now_s",
        "on_closed",
        "open",
        "options",
        "server_errors",
    )

    def __init__(self, application: Application, options: ServerOptions, now_s: float, epoch_s: int) -> None:
        self.application = application
        self.options = options
        self.limits = options.limits
        self.open: set[Connection] = set()
        self.on_closed: Callable[[], None] = _ignore
        self.known_heads: dict[bytes, RequestHead] = {}
        self.heads = AnswerHeads(epoch_s)
        self.now_s = now_s  # the loop's clock, as of the last tick
        self.is_draining = False
        self.drain_start_s = 0.0
        self.answers = 0
        self.client_errors = 0
        self.server_errors = 0

    def plain_head(self, raw: bytes) -> RequestHead | None:
        """Return the head that these bytes are when it is a plain one."""
        head = self.known_heads.get(raw)
        if head is not None or not raw.endswith(HEAD_END):
            return head
        try:
            head = self.parse_head(raw)
        except RequestError:
            return None  # it is read again where errors are told, which need not be fast
        return head if head.is_plain else None

    def parse_head(self, raw: bytes) -> RequestHead:
        """Return the head that these bytes are, remembering it.

        Raises:
            RequestError: as `fastserve.wire.http1.parse_head`.
        """
        head = self.known_heads.get(raw)
        if head is not None:
            return head
        head = parse_head(raw, self.limits)
        if head.is_plain and len(raw) <= KNOWN_HEAD_BYTES:
            if len(self.known_heads) >= KNOWN_HEADS:
                self.known_heads.clear()  # those that repeat are back soon; an order would cost every hit
            self.known_heads[raw] = head
        return head

    def count_error(self, status: int) -> None:
        """Count an answer that isn't a success."""
        if status >= 500:
            self.server_errors += 1
        elif status >= 400:
            self.client_errors += 1

    def on_tick(self, now_s: float, epoch_s: int) -> None:
        """Take the time and sweep."""
        self.now_s = now_s
        self.heads.set_time(epoch_s)
        for connection in list(self.open):
            connection.on_sweep(now_s)

    def drain(self, now_s: float) -> None:
        """Let every connection go after its next answer, or when it has been idle for the grace."""
        self.is_draining = True
        self.drain_start_s = now_s

    def abort(self) -> None:
        """Cut what is still open."""
        for connection in list(self.open):
            connection.abort()
