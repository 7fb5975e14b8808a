"""Builds the heads of HTTP/1.1 answers: status lines at import, the rest once per second.

It knows no socket and no clock: whoever uses it says what time it is.

Invariants:
1. Every answer carries Date and, unless its status has no body, Content-Length (RFC 9110 sections 6.6.1
   and 8.6).
2. Nothing that a client sent gets into a head: header values come from tables, and two lines for one are
   refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from http import HTTPStatus

import orjson

from fastserve.errors import GRPC_CODES, GRPC_UNKNOWN, InvariantError, shown

JSON = b"application/json"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus
}
# RFC 9110 section 8.6: these have no body, and no Content-Length that would speak of one.
BODILESS = frozenset({204, 304})
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# What follows the length in an answer's head, by what happens to the connection.
KEEP_ALIVE = b""
KEEP_ALIVE_HTTP10 = b"Connection: keep-alive\r\n"
CLOSE = b"Connection: close\r\n"


def http_date(epoch_s: int) -> bytes:
    """Return ``epoch_s`` as the fixed-length date of RFC 9110 section 5.6.7, whatever the locale is."""
    at = datetime.fromtimestamp(epoch_s, UTC)
    date = f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at.year}"
    return f"{date} {at.hour:02}:{at.minute:02}:{at.second:02} GMT".encode()


class AnswerHeads:
    """The heads of answers up to the number after ``Content-Length:``, once per second and kind of answer."""

    __slots__ = ("_date", "_prefixes", "json_ok")

    def __init__(self, epoch_s: int) -> None:
        self._prefixes: dict[tuple[int, bytes], bytes] = {}
        self.set_time(epoch_s)

    def set_time(self, epoch_s: int) -> None:
        """Make the answers from here on carry this second's Date."""
        self._date = http_date(epoch_s)
        self._prefixes.clear()
        self.json_ok = self.prefix(200, JSON)

    def prefix(self, status: int, content_type: bytes) -> bytes:
        """Return the head that needs only a length and what ends it.

        Raises:
            InvariantError: for a status that HTTP doesn't have or a content type that isn't one line.
        """
        prefix = self._prefixes.get((status, content_type))
        if prefix is None:
            if status not in STATUS_LINES or b"\n" in content_type or b"\r" in content_type:
                got = f"{status} {shown(content_type)}"
                raise InvariantError(f"expected an HTTP status and a content type, got {got}")
            head = b"%bContent-Type: %b\r\nDate: %b\r\nContent-Length: "
            prefix = head % (STATUS_LINES[status], content_type, self._date)
            self._prefixes[status, content_type] = prefix
        return prefix

    def answer(
        self,
        status: int,
        body: bytes,
        content_type: bytes = JSON,
        connection: bytes = KEEP_ALIVE,
        headers: Iterable[tuple[bytes, bytes]] = (),
        *,
        has_body: bool = True,
    ) -> bytes:
        """Return a whole answer of any kind; the common one is put together by the connection itself.

        ``has_body`` is false for HEAD, whose answer tells the length of a body that it doesn't carry.

        Raises:
            InvariantError: for a header that isn't one line, or a status that HTTP doesn't have.
        """
        extra = b"".join([_field(name, value) for name, value in headers])
        if status in BODILESS:
            date = b"Date: %b\r\n" % self._date
            return b"%b%b%b%b\r\n" % (STATUS_LINES[status], date, extra, connection)
        head = b"%b%d\r\n%b%b\r\n" % (self.prefix(status, content_type), len(body), extra, connection)
        return head + body if has_body else head


def _field(name: bytes, value: bytes) -> bytes:
    field = b"%b: %b\r\n" % (name, value)
    if field.count(b"\n") != 1 or field.count(b"\r") != 1:
        raise InvariantError(f"expected a header field of one line, got {shown(field)}")
    return field


def error_body(status: int, message: str) -> bytes:
    """Return the JSON that every error answer carries; what has no UTF-8 (a lone surrogate) is escaped."""
    text = message if message.isascii() else message.encode("utf-8", "backslashreplace").decode()
    return orjson.dumps({"error": text, "message": text, "code": GRPC_CODES.get(status, GRPC_UNKNOWN)})
