"""Reads the heads of HTTP/1.1 requests.

It knows no socket, no clock and no path: bytes in, a `RequestHead` out or a `RequestError` raised. httptools
judges the grammar (without its lenient flags); this module adds what it doesn't check: sizes, Host, version,
Transfer-Encoding, Connection, methods.

Invariants:
1. `parse_head` is given one whole head, from the first byte of the request line to the empty line, never a
   piece and never what follows. So a name or a value comes whole, dripping bytes can't make the parser
   quadratic, and its ideas about bodies, upgrades and what comes after `Connection: close` (RFC 9112 sections
   6, 7 and 9.6; RFC 9110 section 7.8) never take effect: framing is decided here, once.
2. It is a pure function of its arguments: what it returned for a head holds for the same bytes again.

Measured (CPython 3.11, httptools 0.9, a head of eight fields): a fresh parser costs 0.2 us, a parse with
`on_header` 1.3 us, without it 0.8 us; but reading the fields afterwards, by a regular expression or by
splitting, costs 1.0 to 1.3 us. So the callback is the cheapest way to the fields.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

import httptools

from fastserve.errors import RequestError, shown
from fastserve.wire.accept import asks_for_msgpack

CRLF = b"\r\n"
HEAD_END = b"\r\n\r\n"
ALLOWED = "GET, HEAD, POST"
METHODS = frozenset({"GET", "HEAD", "POST"})
# Methods that are known but that no path here has (405, RFC 9110 section 15.5.6); all others are 501.
KNOWN_METHODS = frozenset({"CONNECT", "DELETE", "OPTIONS", "PATCH", "PUT", "TRACE"})


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one request may take, counted in raw bytes."""

    request_line_bytes: int = 8 * 1024  # RFC 9112 section 3 asks for 8000 at least
    header_bytes: int = 32 * 1024
    header_fields: int = 100
    body_bytes: int = 8 * 1024 * 1024  # a batch of 1,000 rows with 8 KiB of request context each
    trailer_bytes: int = 8 * 1024


@dataclass(slots=True)
class RequestHead:
    """What the server and its application need of one request's head. Never changed once it is made.

    ``content_length`` is 0 when there is no body or its length isn't known (`is_chunked`). ``refusal`` is set
    when the request is well framed but won't be served, so that the connection can go on after the answer.
    """

    method: str
    path: str
    query: str
    content_length: int
    is_chunked: bool
    keeps_alive: bool
    is_http10: bool
    expects_continue: bool
    authorization: bytes | None
    content_type: bytes | None
    accept: bytes | None
    request_timeout_ms: bytes | None
    refusal: RequestError | None = None
    idempotency_key: bytes | None = None
    host: bytes | None = None
    traceparent: bytes | None = None
    is_plain: bool = field(init=False)  # nothing but the body's length decides how to read and to answer it
    asks_for_msgpack: bool = field(init=False)

    def __post_init__(self) -> None:
        is_special = self.is_chunked or self.expects_continue or self.is_http10 or self.refusal is not None
        self.is_plain = self.keeps_alive and self.method != "HEAD" and not is_special
        self.asks_for_msgpack = asks_for_msgpack(self.accept)


# The fields that mean something here. Several of a list are joined by commas; several of the others would
# hide which one counts, and are refused (RFC 9110 section 5.3).
# Of traceparent there is one; several are made into what can't be one, for it never fails a request.
_LISTS = frozenset({b"accept", b"connection", b"traceparent"})
_SINGLETONS = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"idempotency-key",
        b"transfer-encoding",
        b"x-request-timeout-ms",
    }
)
# By name, also as most clients spell it, which saves a call.
_KNOWN = {name: name for name in _LISTS | _SINGLETONS} | {name.title(): name for name in _LISTS | _SINGLETONS}
# Where a proxy makes each head new (a trace id), its parts still repeat. These many of them are kept, at most
# 2 MiB, and save 1 us of 4.
_KEPT = 256

# RFC 9112 section 3: token, one space, target, one space, version. `#` is in no form of target (section 3.2).
_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!\"$-~]+) ([A-Z]+)/(\d)\.(\d)")
_VERSIONS = frozenset({b"HTTP/1.0", b"HTTP/1.1"})
_TOKEN_BYTES = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_ABSOLUTE_TARGET = re.compile(r"https?://[^/?@]+(/[^?]*)?(\?.*)?", re.IGNORECASE)
# RFC 3986 section 3.2.2 with an optional port; an http URI's host isn't empty (RFC 9110 section 4.2.1).
_HOST = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]+|\[[0-9A-Fa-f:.]+\])(?::\d{0,5})?")


class _Fields:
    """Collects from httptools the fields that mean something here, by name in lower case."""

    __slots__ = ("completed", "fields", "twice")

    def __init__(self) -> None:
        self.fields: dict[bytes, bytes] = {}
        self.twice = b""
        self.completed = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        # Collecting all in C (`dict.setdefault` as the callback) and choosing afterwards was measured to cost
        # more: the second loop is dearer than the calls.
        key = _KNOWN.get(name) or _KNOWN.get(name.lower())
        if key is None:
            return
        if key not in self.fields:
            self.fields[key] = value.rstrip(b" \t")
        elif key in _LISTS:
            self.fields[key] += b"," + value.rstrip(b" \t")
        else:
            self.twice = key

    def on_headers_complete(self) -> None:
        self.completed += 1


def check_partial_head(received: bytes | bytearray, limits: HttpLimits) -> None:
    """Judge a head whose end hasn't come yet.

    Raises:
        RequestError: when no further bytes can make it acceptable: 400, 414 or 431.
    """
    if received and received[0] not in _TOKEN_BYTES and received != b"\r":
        # No method begins so; the greeting of TLS does, and would be waited on until the timeout.
        raise RequestError(400, f"expected an HTTP request line, got {shown(bytes(received[:64]))}")
    line_end = received.find(CRLF, 0, limits.request_line_bytes + 2)
    if line_end < 0:
        if len(received) > limits.request_line_bytes + 1:
            raise _line_too_long(limits)
    elif len(received) - line_end - 3 > limits.header_bytes:
        raise _headers_too_large(limits)


def parse_head(raw: bytes, limits: HttpLimits) -> RequestHead:
    """Read one request head, its last four bytes being the empty line that ends it.

    Raises:
        RequestError: 400, 413, 414, 417, 431, 501 or 505; the connection can't go on, since where this
            message ends is not certain.
    """
    line_end = raw.find(CRLF)
    _check_sizes(raw, line_end, limits)
    method, path, query, is_http10 = _read_request_line(raw[:line_end])
    fields = _read_fields(raw)
    _check_host(fields.get(b"host"), is_http10)
    is_chunked = b"transfer-encoding" in fields and _check_transfer_encoding(fields, is_http10)
    return RequestHead(
        method,
        path,
        query,
        _read_content_length(fields.get(b"content-length"), limits),
        is_chunked,
        _keeps_alive(fields.get(b"connection"), is_http10),
        is_http10,
        b"expect" in fields and _expects_continue(fields[b"expect"], is_http10),
        fields.get(b"authorization"),
        fields.get(b"content-type"),
        fields.get(b"accept"),
        fields.get(b"x-request-timeout-ms"),
        None if method in METHODS else _refused_method(method),
        fields.get(b"idempotency-key"),
        fields.get(b"host"),
        fields.get(b"traceparent"),
    )


def _check_sizes(raw: bytes, line_end: int, limits: HttpLimits) -> None:
    if line_end > limits.request_line_bytes:
        raise _line_too_long(limits)
    if len(raw) - line_end - 4 > limits.header_bytes:
        raise _headers_too_large(limits)
    count = raw.count(CRLF) - 2
    if count > limits.header_fields:
        raise RequestError(431, f"expected at most {limits.header_fields} header fields, got {count}")


@lru_cache(_KEPT)
def _read_request_line(line: bytes) -> tuple[str, str, str, bool]:
    """Return method, path, query and whether it is HTTP/1.0."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise RequestError(400, f"expected a request line METHOD TARGET HTTP/1.1, got {shown(line)}")
    method = match[1].decode("ascii")
    version = line[match.start(3) :]
    if version not in _VERSIONS:
        raise RequestError(505, f"expected HTTP/1.1 or HTTP/1.0, got {shown(version)}")
    if method not in METHODS and (method not in KNOWN_METHODS or method == "CONNECT"):
        raise _refused_method(method)  # what would follow on this connection is not certain to be HTTP
    path, query = _split_target(match[2].decode("ascii"), method)
    return method, path, query, version == b"HTTP/1.0"


def _read_fields(raw: bytes) -> dict[bytes, bytes]:
    collected = _Fields()
    try:
        httptools.HttpRequestParser(collected).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # RFC 9110 section 7.8: an upgrade may be ignored, and is
    except httptools.HttpParserError as error:
        # Its "invalid Transfer-Encoding" comes after the last field, and is told better by our own check.
        if not collected.completed:
            raise RequestError(400, f"malformed request head: {error}") from None
    if collected.completed != 1:
        raise RequestError(400, "malformed request head: it ends before its empty line")
    if collected.twice:
        raise RequestError(400, f"expected one {collected.twice.decode()} header, got more")
    return collected.fields


@lru_cache(_KEPT)
def _check_host(host: bytes | None, is_http10: bool) -> None:
    if host is None:
        if not is_http10:
            raise RequestError(400, "expected a Host header, got none")  # RFC 9112 section 3.2
    elif not _HOST.fullmatch(host):
        raise RequestError(400, f"expected a host name and port in the Host header, got {shown(host)}")


def _check_transfer_encoding(fields: dict[bytes, bytes], is_http10: bool) -> bool:
    if is_http10 or b"content-length" in fields:
        # RFC 9112 section 6.1: the sign of a request smuggled through something that reads it otherwise.
        raise RequestError(400, "Transfer-Encoding is not accepted with HTTP/1.0 or beside Content-Length")
    coding = fields[b"transfer-encoding"]
    if coding.lower() != b"chunked":
        raise RequestError(501, f"expected Transfer-Encoding chunked, got {shown(coding)}")
    return True


def _read_content_length(value: bytes | None, limits: HttpLimits) -> int:
    if value is None:
        return 0
    if not value.isdigit():  # for bytes these are 0 to 9 and nothing else
        raise RequestError(400, f"expected decimal digits in Content-Length, got {shown(value)}")
    length = int(value) if len(value) < 20 else limits.body_bytes + 1
    if length > limits.body_bytes:
        raise body_too_large(limits)
    return length


@lru_cache(_KEPT)
def _keeps_alive(connection: bytes | None, is_http10: bool) -> bool:
    if connection is None:
        return not is_http10
    tokens = {token.strip() for token in connection.lower().split(b",")}
    return b"close" not in tokens and (not is_http10 or b"keep-alive" in tokens)


def _expects_continue(expect: bytes, is_http10: bool) -> bool:
    if is_http10:  # RFC 9110 section 10.1.1: from HTTP/1.0 it is ignored
        return False
    if expect.lower() != b"100-continue":
        raise RequestError(417, f"expected 100-continue in Expect, got {shown(expect)}")
    return True


def _split_target(target: str, method: str) -> tuple[str, str]:
    if target[0] != "/":
        absolute = _ABSOLUTE_TARGET.fullmatch(target)
        if absolute is not None:  # RFC 9112 section 3.2.2: every server must take it
            return absolute[1] or "/", (absolute[2] or "")[1:]
        if target != "*" or method != "OPTIONS":
            raise RequestError(400, f"expected a request target that starts with /, got {shown(target)}")
    path, _, query = target.partition("?")
    return path, query


def _refused_method(method: str) -> RequestError:
    if method in KNOWN_METHODS:
        return RequestError(405, f"method {method} is not allowed, expected one of {ALLOWED}")
    return RequestError(501, f"unknown method {shown(method)}, expected one of {ALLOWED}")


def _line_too_long(limits: HttpLimits) -> RequestError:
    return RequestError(
        414, f"expected a request line of at most {limits.request_line_bytes} bytes, got more"
    )


def _headers_too_large(limits: HttpLimits) -> RequestError:
    return RequestError(431, f"expected at most {limits.header_bytes} bytes of headers, got more")


def body_too_large(limits: HttpLimits) -> RequestError:
    """Return the error of a body over the limit, however its length came to be known."""
    return RequestError(413, f"expected a body of at most {limits.body_bytes} bytes, got more")
