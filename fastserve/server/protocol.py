"""One HTTP/1.1 connection on uvloop: bytes come in, exchanges go to the application, answers go out in order.

It knows nothing of paths or features. The grammar is `fastserve.wire.http1`'s; what connections share, and
the sweep that watches their times, are `fastserve.server.connections`'.

Invariants:
1. Answers leave in the order of their requests, whatever order they are given in.
2. What a connection can make us hold is bounded: one head, one body, `max_pipelined` exchanges and one
   segment beyond; answers that aren't read up to `write_buffer_bytes`.
3. After an answer that says `Connection: close` nothing is read as a request. The connection lingers: our
   side is shut, what still comes is thrown away until the client has closed, so that no reset overtakes the
   answer (RFC 9112 section 9.6).
4. On the common path (a request of a known head in one segment or in two, nothing outstanding) there is no
   task, future, timer or log call: one `find`, one look-up, one `Exchange`, one `write`.

Measured with 16 keep-alive connections on one worker, an answer of 200 bytes, CPU per request in all: an
`asyncio.Protocol` that parses nothing 6.5 us, the same as a `BufferedProtocol` 7.1 us (two calls instead of
one, and the copy to `bytes` is ours then), writing to the socket instead of the transport 6.6 us, httptools
with all its callbacks 8.1 us. With this protocol: 8.3 us for a GET, 8.5 us for a POST of a known head. Since
uvloop 0.23 a transport that has nothing unsent writes at once, so that an answer leaves before the turn ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Final, cast

from fastserve.errors import RequestError
from fastserve.server.connections import Connections
from fastserve.server.exchange import Exchange, Headers
from fastserve.wire.http1 import ALLOWED, CRLF, HEAD_END, RequestHead, check_partial_head
from fastserve.wire.http1_answer import CLOSE, CONTINUE, JSON, KEEP_ALIVE, KEEP_ALIVE_HTTP10
from fastserve.wire.http1_chunked import ChunkedBody

log = logging.getLogger("fastserve.server")

# What makes a connection other than common, as bits of one number: the common path tests them all at once.
CORKED: Final = 1  # answers are collected, to be written together
STALLED: Final = 2  # too many unanswered requests: what has come waits unread
WRITE_PAUSED: Final = 4  # the client reads slowly
OWES_CONTINUE: Final = 8  # a 100 Continue waits for the answers before it
CLOSING: Final = 16  # no further request will be read
LINGERING: Final = 32  # answered and shut; waiting for the client to close
LOST: Final = 64
IN_BODY: Final = 128  # a head has been read, its body hasn't: what comes is no head, whatever it looks like

LINGER_S: Final = 2.0
LINGER_BYTES: Final = 64 * 1024 * 1024
# What still comes in small pieces is read so many times per sweep: it collects in the kernel meanwhile. Each
# read costs 8 us, so that 64 MiB in pieces of 1,460 bytes would take a third of a second.
LINGER_READS: Final = 256
# Above the answer of 50 views with 100 features each (about 100 KiB): pausing costs two calls and a turn.
WRITE_HIGH_BYTES: Final = 512 * 1024

# The head of a request that couldn't be read.
UNREADABLE = RequestHead("", "", "", 0, False, False, False, False, None, None, None, None)


def protocol_factory(shared: Connections) -> Callable[[], asyncio.Protocol]:
    """Return what makes a new connection's protocol."""
    return lambda: cast("asyncio.Protocol", HttpProtocol(shared))


class HttpProtocol:
    """The server's side of one connection: an `asyncio.Protocol` by its methods.

    It doesn't inherit from it, for a compiled class can't have a base that isn't.
    """

    __slots__ = (
        # the connection
        "_flags",
        "_handshake_s",
        "_pending",
        "_shared",
        "_transport",
        # the message being read
        "_chunks",
        "_head",
        "_needed_bytes",
        "_partial",
        # for the sweep
        "_phase_bytes",
        "_phase_start_s",
        "_unsent_bytes",
        "_unsent_since_s",
        # answers of one burst
        "_cork",
        # the end
        "_discards",
    )

    _transport: asyncio.Transport

    def __init__(self, shared: Connections) -> None:
        self._shared = shared
        self._flags = 0
        self._pending: deque[Exchange] = deque()
        self._partial: bytearray | None = None
        self._needed_bytes = 0
        self._head: RequestHead | None = None
        self._chunks: ChunkedBody | None = None
        self._cork: list[bytes] = []
        self._discards = 0
        self._phase_start_s = shared.now_s
        self._handshake_s = 0.0
        self._phase_bytes = 0
        self._unsent_bytes = 0
        self._unsent_since_s = 0.0

    # --- the transport's calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; with TLS the handshake lies between this and the protocol's making."""
        self._handshake_s = self._shared.now_s - self._phase_start_s
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self._shared.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: whoever still works on an answer is told that nobody waits for it."""
        self._flags |= CLOSING | LOST
        self._partial = None
        for exchange in self._pending:
            exchange.on_gone()
        self._pending.clear()
        self._shared.open.discard(self)
        self._shared.on_closed()

    def data_received(self, data: bytes) -> None:
        """Take a segment."""
        if self._partial is None and not self._pending:
            if not self._flags:
                end = data.find(HEAD_END) + 4
                head = self._shared.plain_head(data[:end])
                if head is not None:
                    if len(data) - end == head.content_length:
                        self._dispatch(head, data[end:])
                        return
                    if len(data) == end:
                        self._begin_body(head)
                        return
            elif self._flags == IN_BODY:
                head = self._head
                if head is not None and head.is_plain and len(data) == head.content_length:
                    self._flags = 0
                    self._head = None
                    self._dispatch(head, data)
                    return
        self._receive(data)

    def eof_received(self) -> bool:
        """Answer what a client asked before it closed its side, then close ours."""
        if self._flags & LINGERING:
            return False
        if self._partial is not None or self._flags & IN_BODY:
            self._refuse(RequestError(400, "the connection was closed before the request's end"))
            return self._transport.can_write_eof()  # TLS has no half that stays open here
        self._flags |= CLOSING
        return bool(self._pending) and self._transport.can_write_eof()

    def pause_writing(self) -> None:
        """Take no more requests from a client that doesn't read its answers."""
        self._flags |= WRITE_PAUSED
        self._unsent_bytes = self._transport.get_write_buffer_size()
        self._unsent_since_s = self._shared.now_s
        self._pause_reading()

    def resume_writing(self) -> None:
        """Go on with a client that has read its answers."""
        self._flags &= ~WRITE_PAUSED
        self._resume_reading()

    # --- reading ---

    def _receive(self, data: bytes) -> None:
        if self._flags & CLOSING:
            self._discard(len(data))
            return
        partial = self._partial
        if partial is None:
            self._parse(data)
            return
        searched = max(0, len(partial) - 3)
        partial += data
        if self._flags & STALLED:
            return
        if self._head is None and partial.find(HEAD_END, searched) < 0 and not partial.startswith(CRLF):
            self._check_partial_head(partial)
        elif len(partial) >= self._needed_bytes:
            self._partial = None
            self._parse(bytes(partial))

    def _parse(self, data: bytes) -> None:
        """Take all whole messages of ``data``, keep the rest, write at once what was answered meanwhile."""
        self._flags |= CORKED
        position = 0
        self._needed_bytes = 0
        try:
            while position < len(data) and not self._flags & CLOSING:
                if self._is_full():
                    self._stall()
                    break
                taken = self._take(data, position)
                if taken < 0:
                    break
                position = taken
        except RequestError as error:
            self._refuse(error)
        if position < len(data) and not self._flags & CLOSING:
            self._keep(data, position)
        self._uncork()

    def _take(self, data: bytes, position: int) -> int:
        """Take a head, a body or some chunks; return the position after it, or -1 to wait for more."""
        if self._head is None:
            return self._take_head(data, position)
        if self._chunks is None:
            return self._take_body(self._head, data, position)
        return self._take_chunks(self._head, self._chunks, data, position)

    def _take_head(self, data: bytes, position: int) -> int:
        if data.startswith(CRLF, position):
            return self._skip_empty_line(position)
        end = data.find(HEAD_END, position) + 4
        if end < 4:
            check_partial_head(data[position:], self._shared.limits)
            return -1
        head = self._shared.parse_head(data[position:end])
        self._phase_bytes = 0
        if head.is_chunked:
            self._chunks = ChunkedBody(self._shared.limits)
        elif not head.content_length:
            self._accept(head, b"")
            return end
        self._begin_body(head)
        if head.expects_continue and end == len(data):
            self._send_continue()
        return end

    def _begin_body(self, head: RequestHead) -> None:
        self._head = head
        self._flags |= IN_BODY
        self._phase_bytes = 0
        self._phase_start_s = self._shared.now_s

    def _skip_empty_line(self, position: int) -> int:
        # RFC 9112 section 2.2: at least one before the request line is to be ignored. They count towards it.
        self._phase_bytes += 2
        if self._phase_bytes > self._shared.limits.request_line_bytes:
            raise RequestError(400, "expected a request line, got empty lines")
        return position + 2

    def _take_body(self, head: RequestHead, data: bytes, position: int) -> int:
        end = position + head.content_length
        if end > len(data):
            self._needed_bytes = head.content_length
            return -1
        self._accept(head, data[position:end])
        return end

    def _take_chunks(self, head: RequestHead, chunks: ChunkedBody, data: bytes, position: int) -> int:
        end = chunks.feed(data, position)
        self._phase_bytes += end - position
        if chunks.is_complete:
            self._accept(head, chunks.body)
            return end
        return end if end > position else -1

    def _keep(self, data: bytes, position: int) -> None:
        if self._head is None and not self._pending:
            # The time for the first head begins with the handshake, or a client could take it twice.
            self._phase_start_s = self._shared.now_s - self._handshake_s
            self._handshake_s = 0.0
        self._partial = bytearray(memoryview(data)[position:])

    def _check_partial_head(self, partial: bytearray) -> None:
        try:
            check_partial_head(partial, self._shared.limits)
        except RequestError as error:
            self._refuse(error)

    def _send_continue(self) -> None:
        self._flags |= OWES_CONTINUE
        if not self._pending:
            self._pay_continue()

    def _pay_continue(self) -> None:
        self._flags &= ~OWES_CONTINUE
        if self._partial is None:  # else its body is coming without
            self._write(CONTINUE)

    def _is_full(self) -> bool:
        return bool(self._flags & WRITE_PAUSED) or len(self._pending) >= self._shared.options.max_pipelined

    def _stall(self) -> None:
        self._flags |= STALLED
        self._pause_reading()

    def _unstall(self) -> None:
        if self._flags & (LOST | CLOSING) or not self._flags & STALLED or self._is_full():
            return
        self._flags &= ~STALLED
        partial, self._partial = self._partial, None
        if partial is not None:
            self._parse(bytes(partial))
        self._resume_reading()

    def _pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._flags & STALLED:
            asyncio.get_running_loop().call_soon(self._unstall)
        elif not self._flags & WRITE_PAUSED and not self._transport.is_closing():
            self._transport.resume_reading()

    # --- exchanges ---

    def _accept(self, head: RequestHead, body: bytes) -> None:
        """Hand over a request that has come in whole, off the common path."""
        self._head = None
        self._chunks = None
        self._phase_bytes = 0
        self._flags &= ~(IN_BODY | OWES_CONTINUE)
        if not head.keeps_alive:
            self._flags |= CLOSING
        if head.refusal is None:
            self._dispatch(head, body)
            return
        exchange = Exchange(self, head, body, monotonic())
        self._pending.append(exchange)
        allow = [(b"Allow", ALLOWED.encode())] if head.refusal.status == 405 else []
        exchange.respond_error(head.refusal.status, head.refusal.message, allow)

    def _dispatch(self, head: RequestHead, body: bytes) -> None:
        # Not the loop's time, which has milliseconds only; the clock is the same.
        exchange = Exchange(self, head, body, monotonic())
        self._pending.append(exchange)
        try:
            self._shared.application(exchange)
        except Exception:
            log.exception("the application failed on %s %s", exchange.method, exchange.path[:64])
            if not exchange.is_answered:
                exchange.respond_error(500, "internal error")

    def _refuse(self, error: RequestError) -> None:
        """Answer what can't be read as a request; nothing after it can be either."""
        self._flags = (self._flags | CLOSING) & ~(IN_BODY | OWES_CONTINUE)
        self._partial = None
        self._head = None
        self._chunks = None
        exchange = Exchange(self, UNREADABLE, b"", monotonic())
        self._pending.append(exchange)
        exchange.respond_error(error.status, error.message)

    # --- answering ---

    def send_answer(
        self, exchange: Exchange, status: int, body: bytes, content_type: bytes, headers: Headers
    ) -> None:
        """Send the answer of ``exchange`` when those before it have been sent.

        Raises:
            InvariantError: as `AnswerHeads.answer`.
        """
        shared = self._shared
        shared.answers += 1
        if exchange.meter is not None:
            exchange.meter(exchange, status)
        if (
            status == 200
            and content_type is JSON
            and not headers
            and exchange.head.is_plain
            and not shared.is_draining
        ):
            data = b"%b%d\r\n\r\n%b" % (shared.heads.json_ok, len(body), body)
        else:
            data = self._encode(exchange, status, body, content_type, headers)
        if self._flags or len(self._pending) != 1:
            self._settle(exchange, data)
            return
        self._pending.clear()
        self._phase_start_s = shared.now_s
        self._transport.write(data)

    def send_json(self, exchange: Exchange, parts: Sequence[bytes]) -> None:
        """Send a plain answer that comes in parts, put together with its head by one copy."""
        shared = self._shared
        if not exchange.head.is_plain or shared.is_draining:
            self.send_answer(exchange, 200, b"".join(parts), JSON, ())
            return
        shared.answers += 1
        if exchange.meter is not None:
            exchange.meter(exchange, 200)
        data = b"".join((shared.heads.json_ok, b"%d\r\n\r\n" % sum(map(len, parts)), *parts))
        if self._flags or len(self._pending) != 1:
            self._settle(exchange, data)
            return
        self._pending.clear()
        self._phase_start_s = shared.now_s
        self._transport.write(data)

    def _encode(
        self, exchange: Exchange, status: int, body: bytes, content_type: bytes, headers: Headers
    ) -> bytes:
        shared = self._shared
        shared.count_error(status)
        head = exchange.head
        connection = KEEP_ALIVE_HTTP10 if head.is_http10 else KEEP_ALIVE
        if not head.keeps_alive:
            connection = CLOSE
        elif shared.is_draining and self._is_last(exchange):
            self._flags |= CLOSING
            connection = CLOSE
        has_body = head.method != "HEAD"
        return shared.heads.answer(status, body, content_type, connection, headers, has_body=has_body)

    def _is_last(self, exchange: Exchange) -> bool:
        return self._pending[-1] is exchange and self._partial is None and self._head is None

    def _settle(self, exchange: Exchange, data: bytes) -> None:
        """Send an answer off the common path, with those that have waited for it."""
        pending = self._pending
        exchange.answer = data
        if pending[0] is not exchange:
            self._check_held()
            return
        ready = []
        while pending and pending[0].answer is not None:
            ready.append(pending.popleft().answer or b"")
        self._write(ready[0] if len(ready) == 1 else b"".join(ready))
        if not self._flags & CORKED:
            self._after_answers()

    def _check_held(self) -> None:
        held_bytes = sum([len(exchange.answer) for exchange in self._pending if exchange.answer is not None])
        if held_bytes > self._shared.options.write_buffer_bytes:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._flags & CORKED:
            self._cork.append(data)
            return
        self._transport.write(data)
        if self._flags & WRITE_PAUSED:
            unsent_bytes = self._transport.get_write_buffer_size()
            if unsent_bytes > self._shared.options.write_buffer_bytes:
                self._transport.abort()

    def _uncork(self) -> None:
        self._flags &= ~CORKED
        if self._cork:
            cork, self._cork = self._cork, []
            self._write(cork[0] if len(cork) == 1 else b"".join(cork))
            self._after_answers()
        elif self._flags & CLOSING:
            self._after_answers()

    def _after_answers(self) -> None:
        """Do what has waited for answers to be sent."""
        if self._flags & STALLED:
            self._resume_reading()
        if self._pending:
            return
        if self._partial is None:
            self._phase_start_s = self._shared.now_s
        if self._flags & CLOSING:
            self._linger()
        elif self._flags & OWES_CONTINUE:
            self._pay_continue()

    # --- ending ---

    def _linger(self) -> None:
        if self._flags & (LINGERING | LOST):
            return
        self._flags |= LINGERING
        self._partial = None
        self._phase_bytes = 0
        if not self._transport.is_closing():
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self._transport.resume_reading()
            if not self._transport.can_write_eof():
                self._transport.close()  # TLS: says so, and reads on until the client does

    def _discard(self, size_bytes: int) -> None:
        self._phase_bytes += size_bytes
        self._discards += 1
        if self._phase_bytes > LINGER_BYTES:
            self._transport.abort()
        elif self._discards % LINGER_READS == 0:
            self._pause_reading()

    def abort(self) -> None:
        """Cut the connection, whatever it is doing."""
        self._transport.abort()

    def on_sweep(self, now_s: float) -> None:
        """Look whether a timeout has passed; called every tick."""
        options = self._shared.options
        phase_s = now_s - self._phase_start_s
        if self._flags & LINGERING:
            if phase_s > LINGER_S:
                self._transport.abort()
            elif not self._transport.is_closing():
                self._transport.resume_reading()
        elif self._flags & WRITE_PAUSED:
            self._sweep_unsent(now_s)
        elif self._pending:
            pass  # the application's deadline watches over those
        elif self._head is not None:
            received_bytes = self._phase_bytes + len(self._partial or b"")
            is_slow = received_bytes < phase_s * options.body_rate_bytes_per_s
            if is_slow and phase_s > options.header_timeout_s:
                self._refuse(
                    RequestError(408, f"expected a body of at least {options.body_rate_bytes_per_s} bytes/s")
                )
        elif self._partial is not None:
            if phase_s > options.header_timeout_s:
                self._refuse(
                    RequestError(408, f"expected a request head within {options.header_timeout_s:g} s")
                )
        else:
            self._sweep_idle(now_s, phase_s)

    def _sweep_idle(self, now_s: float, phase_s: float) -> None:
        limit_s = self._shared.options.idle_timeout_s
        if self._shared.is_draining:
            phase_s = min(phase_s, now_s - self._shared.drain_start_s)
            limit_s = self._shared.options.drain_grace_s
        if phase_s <= limit_s:
            return
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # it hasn't read its last answer in all that time
        else:
            self._transport.close()

    def _sweep_unsent(self, now_s: float) -> None:
        unsent_bytes = self._transport.get_write_buffer_size()
        if unsent_bytes < self._unsent_bytes:
            self._unsent_bytes = unsent_bytes
            self._unsent_since_s = now_s
        elif now_s - self._unsent_since_s > self._shared.options.write_timeout_s:
            self._transport.abort()
