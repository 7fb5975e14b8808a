"""Takes the body out of a chunked message (RFC 9112 section 7.1), in whatever pieces it comes.

It knows no socket and no clock. httptools could read chunks, but doesn't say where in the bytes the message
ended, and after an ignored upgrade it wouldn't read them at all; a test holds this decoder against it.

Invariants:
1. Strict: a size is 1 to 16 hexadecimal digits at the line's start, lines end in CRLF, nothing is repaired.
2. Memory is bounded by the body limit, time by the bytes received: extensions, framing and trailers are
   counted and capped.
3. Trailers are checked for their form and dropped: none of them has a meaning here.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from fastserve.errors import RequestError, shown
from fastserve.wire.http1 import CRLF, HttpLimits, body_too_large

# A size with its extensions, each a name and perhaps a value. RFC 9112 section 7.1.1 allows white space
# around semicolon and equals sign, which is worth nothing but to one who wants two readers to differ. So is
# a semicolon with nothing behind it, which httptools refuses, too. Quoted text ends before the line does.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;%b(?:=(?:%b|%b))?)*" % (_TOKEN, _TOKEN, _QUOTED))
_TRAILER = re.compile(rb"%b:[\t -~\x80-\xff]*" % _TOKEN)
SIZE_LINE_BYTES = 256
# Framing may take this many bytes and as many more as the body has: a legitimate sender stays far below,
# while chunks of one byte, 6 bytes each on the wire and a turn of the loop, are refused early.
FRAMING_ALLOWANCE_BYTES = 16 * 1024


class ChunkedBody:
    """One message's body as it comes in; ``is_complete`` once its last trailer has been read."""

    __slots__ = (
        "_body",
        "_framing_bytes",
        "_limits",
        "_read",
        "_remaining_bytes",
        "_trailer_bytes",
        "is_complete",
    )

    def __init__(self, limits: HttpLimits) -> None:
        self.is_complete = False
        self._limits = limits
        self._body = bytearray()
        self._remaining_bytes = 0
        self._framing_bytes = 0
        self._trailer_bytes = 0
        # A reader takes the data and a position, and returns the position after what it took or -1 to wait
        # for more. Not a bound method, which would make a cycle for the garbage collector.
        self._read: Callable[[ChunkedBody, bytes, int], int] = ChunkedBody._read_size

    @property
    def body(self) -> bytes:
        """What has been decoded so far."""
        return bytes(self._body)

    def feed(self, data: bytes, start: int = 0) -> int:
        """Take what can be taken from ``data[start:]`` and return the position after it.

        The caller hands what was not taken in again, with what came after it.

        Raises:
            RequestError: 400 for what isn't chunked coding, 413 for a body over the limit.
        """
        position = start
        while not self.is_complete:
            taken = self._read(self, data, position)
            if taken < 0:
                break
            position = taken
        return position

    def _read_size(self, data: bytes, start: int) -> int:
        end = _line_end(data, start, SIZE_LINE_BYTES, "chunk size")
        if end < 0:
            return -1
        match = _SIZE_LINE.fullmatch(data, start, end)
        if match is None:
            raise RequestError(400, f"expected a chunk size in hexadecimal, got {shown(data[start:end])}")
        size = int(match[1], 16)
        if size > self._limits.body_bytes - len(self._body):
            raise body_too_large(self._limits)
        self._framing_bytes += end - start + 4
        if self._framing_bytes > FRAMING_ALLOWANCE_BYTES + len(self._body) + size:
            raise RequestError(400, "expected larger chunks: their framing is longer than the body")
        self._remaining_bytes = size
        self._read = ChunkedBody._read_data if size else ChunkedBody._read_trailer
        return end + 2

    def _read_data(self, data: bytes, start: int) -> int:
        end = min(start + self._remaining_bytes, len(data))
        if end == start:
            return -1
        self._body += data[start:end]
        self._remaining_bytes -= end - start
        if not self._remaining_bytes:
            self._read = ChunkedBody._read_data_end
        return end

    def _read_data_end(self, data: bytes, start: int) -> int:
        found = data[start : start + 2]
        if found == CRLF:
            self._read = ChunkedBody._read_size
            return start + 2
        if CRLF.startswith(found):
            return -1
        raise RequestError(400, f"expected CRLF after a chunk's data, got {shown(found)}")

    def _read_trailer(self, data: bytes, start: int) -> int:
        end = _line_end(data, start, self._limits.trailer_bytes, "trailer")
        if end < 0:
            return -1
        if end == start:
            self.is_complete = True
        elif not _TRAILER.fullmatch(data, start, end):
            raise RequestError(400, f"expected a trailer field, got {shown(data[start:end])}")
        self._trailer_bytes += end - start + 2
        if self._trailer_bytes > self._limits.trailer_bytes:
            raise RequestError(
                431, f"expected at most {self._limits.trailer_bytes} bytes of trailers, got more"
            )
        return end + 2


def _line_end(data: bytes, start: int, limit_bytes: int, what: str) -> int:
    end = data.find(CRLF, start, start + limit_bytes + 2)
    if end < 0 and len(data) - start > limit_bytes + 1:
        status = 431 if what == "trailer" else 400
        raise RequestError(status, f"expected a {what} line of at most {limit_bytes} bytes, got more")
    return end
