"""One HTTP request and its one answer, as the application sees them.

It knows neither sockets nor bytes on the wire: the connection it belongs to does.

Invariants:
1. It is answered exactly once, now or later, in any order among its connection's exchanges.
2. Once the client has gone its answer is dropped in silence, and `gone` is true.
3. It holds its connection only until one of the two, so that nothing is left for the garbage collector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from fastserve.errors import InvariantError
from fastserve.wire.http1 import RequestHead
from fastserve.wire.http1_answer import JSON, error_body

Headers = Iterable[tuple[bytes, bytes]]


class Answering(Protocol):
    """What an exchange needs of its connection."""

    def send_answer(
        self, exchange: Exchange, status: int, body: bytes, content_type: bytes, headers: Headers
    ) -> None:
        """Send the answer of ``exchange`` when its turn has come."""

    def send_json(self, exchange: Exchange, parts: Sequence[bytes]) -> None:
        """Send ``parts`` as one JSON answer of ``exchange``, status 200, when its turn has come."""


class Exchange:
    """A request that came in whole, to be answered by `respond`."""

    __slots__ = (
        "_connection",
        "answer",
        "body",
        "gone",
        "head",
        "is_answered",
        "meter",
        "method",
        "path",
        "received_s",
    )

    def __init__(self, connection: Answering, head: RequestHead, body: bytes, received_s: float) -> None:
        self.method = head.method
        self.path = head.path
        self.body = body
        self.received_s = received_s
        self.head = head
        self.is_answered = False
        self.gone = False
        self.meter: Meter | None = None  # whoever routes it sets what is to be told of its answer
        self.answer: bytes | None = None  # the connection's: bytes that wait for the answers before them
        self._connection: Answering | None = connection

    @property
    def query(self) -> str:
        """What follows the target's `?`, as it came."""
        return self.head.query

    @property
    def authorization(self) -> bytes | None:
        """The Authorization header's value."""
        return self.head.authorization

    @property
    def host(self) -> bytes | None:
        """The Host header's value."""
        return self.head.host

    @property
    def content_type(self) -> bytes | None:
        """The Content-Type header's value."""
        return self.head.content_type

    @property
    def accept(self) -> bytes | None:
        """The Accept header's value, several joined by commas."""
        return self.head.accept

    @property
    def request_timeout_ms(self) -> bytes | None:
        """The X-Request-Timeout-Ms header's value as it came."""
        return self.head.request_timeout_ms

    @property
    def idempotency_key(self) -> bytes | None:
        """The Idempotency-Key header's value as it came."""
        return self.head.idempotency_key

    def respond(
        self, status: int, body: bytes, content_type: bytes = JSON, extra_headers: Headers = ()
    ) -> None:
        """Answer; to HEAD the body is not sent, but its length is.

        Raises:
            InvariantError: when it has been answered already, or when a header isn't one line.
        """
        if self.is_answered:
            raise InvariantError(f"{self.method} {self.path[:64]} is answered twice")
        connection = self._connection
        if connection is not None:
            connection.send_answer(self, status, body, content_type, extra_headers)
            self._connection = None
        self.is_answered = True

    def respond_json(self, *parts: bytes) -> None:
        """Answer 200 with JSON in parts, which are put together once, with the head.

        A vector of 5,000 features has 90 KB: each copy of it takes some 7 us.

        Raises:
            InvariantError: when it has been answered already.
        """
        if self.is_answered:
            raise InvariantError(f"{self.method} {self.path[:64]} is answered twice")
        connection = self._connection
        if connection is not None:
            connection.send_json(self, parts)
            self._connection = None
        self.is_answered = True

    def respond_error(self, status: int, message: str, extra_headers: Headers = ()) -> None:
        """Answer with the JSON that every error carries.

        Raises:
            InvariantError: as `respond`.
        """
        self.respond(status, error_body(status, message), JSON, extra_headers)

    @property
    def answering(self) -> Answering | None:
        """What takes the answer: the connection, or what `tap` put before it; None once all is over."""
        return self._connection

    def tap(self, around: Callable[[Answering], Answering]) -> None:
        """Let what ``around`` makes of the connection take the answer in its place."""
        if self._connection is not None:
            self._connection = around(self._connection)

    def on_gone(self) -> None:
        """Be told that the client has left: nobody will read an answer."""
        self.gone = True
        self._connection = None


Application = Callable[[Exchange], None]

Meter = Callable[[Exchange, int], None]
"""Is told an answer's status when its bytes are on the way; must not raise."""
