"""Frames HTTP/1.1 answers out of a receive buffer, one outstanding request at a time.

Knows no socket: the owner of the buffer says how much of it is filled.  Answers of the usual shape (one
Content-Length, no Transfer-Encoding) that came whole are taken with a few searches; all others go through a
general reading of the head, which refuses what two readers could understand differently (RFC 9112, sections
6.1 and 6.3).

1. `AnswerParser.parse` gives an answer exactly when its last byte has come, however the bytes were cut.
2. Bytes behind an answer belong to nobody: the answer is good, the connection isn't (`keep_alive` is False).
3. `Answer.body` may be a view on the receive buffer: it is read before the buffer is filled again.
4. A malformed or oversized answer is a `WireError`, after which the connection is closed.
"""

from __future__ import annotations

from collections.abc import Iterator

from fastserve.errors import FastserveError, shown

# A head of DynamoDB has about 300 bytes; its error answers carry no more.
MAX_HEAD_BYTES = 16 * 1024
# BatchGetItem stops at 16 MB of items, which JSON and base64 blow up by half at most, escapes by more.
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_CHUNK_LINE_BYTES = 256
MAX_LENGTH_DIGITS = 10
MAX_INTERIM_ANSWERS = 4
# How a line begins that goes on with the value of the one before it.
FOLDS = (b" ", b"\t")
KEPT = b"\r\nconnection: keep-alive\r\n"

_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")
_HEXADECIMAL = frozenset(b"0123456789abcdefABCDEF")


class WireError(FastserveError):
    """The other side broke HTTP/1.1's framing, or a limit of ours."""


class Answer:
    """One complete answer.

    ``lower_head`` is the head in lower case, which names and numbers survive; `header` reads values from it.
    """

    __slots__ = ("status", "head", "lower_head", "body", "keep_alive")

    def __init__(
        self, status: int, head: bytes, lower_head: bytes, body: memoryview | bytes, *, keep_alive: bool
    ) -> None:
        self.status = status
        self.head = head
        self.lower_head = lower_head
        self.body = body
        self.keep_alive = keep_alive

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a header, whose name is given in lower case, or None."""
        at = self.lower_head.find(b"\r\n" + name + b":")
        if at < 0:
            return None
        start = at + len(name) + 3
        return self.head[start : self.head.find(b"\r\n", start)].strip(b" \t")


class AnswerParser:
    """Reads the answers of one connection, one after the other.

    The owner keeps all bytes of the current answer at the beginning of its buffer and calls `parse` after
    each read.  ``wanted_bytes`` is how large the buffer must get for the whole answer, 0 while unknown.
    """

    __slots__ = (
        "_max_body_bytes",
        "wanted_bytes",
        "_head_start",
        "_scanned",
        "_interim",
        "_status",
        "_head",
        "_lower_head",
        "_keep_alive",
        "_body_start",
        "_chunks",
    )

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._max_body_bytes = max_body_bytes
        self.reset()

    def reset(self) -> None:
        """Forget the current answer: the next byte in the buffer begins one."""
        self.wanted_bytes = 0
        self._head_start = 0
        self._scanned = 0  # no empty line begins before this position
        self._interim = 0
        self._body_start = 0
        self._chunks: ChunkedBody | None = None

    def parse(self, buffer: bytearray, filled: int) -> Answer | None:
        """Return the answer if its last byte is among the first ``filled`` of the buffer, else None.

        Raises:
            WireError: these bytes can't be the beginning of an answer that we accept.

        """
        if self._body_start == 0:
            if self._scanned == 0 and filled <= self._max_body_bytes:
                answer = whole_answer(buffer, filled)
                if answer is not None:
                    return answer
            if not self._parse_head(buffer, filled):
                return None
        if self._chunks is not None:
            end = self._chunks.advance(buffer, filled)
            return None if end < 0 else self._finish(b"".join(self._chunks.pieces), clean=filled == end)
        end = self.wanted_bytes
        if filled < end:
            return None
        body = memoryview(buffer)[self._body_start : end]
        return self._finish(body, clean=filled == end)

    def _finish(self, body: memoryview | bytes, *, clean: bool) -> Answer:
        answer = Answer(
            self._status, self._head, self._lower_head, body, keep_alive=self._keep_alive and clean
        )
        self.reset()
        return answer

    def _parse_head(self, buffer: bytearray, filled: int) -> bool:
        """Return whether the head of the final answer is there; take what it says if so."""
        while self._cut_head(buffer, filled):
            if self._status >= 200:
                self._lower_head = self._head.lower()
                self._read_head()
                return True
            # 100 Continue and its kind: an answer is still to come (RFC 9110, section 15.2).
            self._interim += 1
            if self._status == 101 or self._interim > MAX_INTERIM_ANSWERS:
                raise WireError(f"expected an answer, got an interim one, status {self._status}")
            self._head_start = self._scanned = self._body_start
            self._body_start = 0
        return False

    def _cut_head(self, buffer: bytearray, filled: int) -> bool:
        start = self._head_start
        end = buffer.find(b"\r\n\r\n", self._scanned, min(filled, start + MAX_HEAD_BYTES))
        if end < 0:
            if filled >= start + MAX_HEAD_BYTES:
                raise WireError(f"expected an answer's head of at most {MAX_HEAD_BYTES} bytes, got more")
            self._scanned = max(start, filled - 3)
            return False
        self._head = bytes(memoryview(buffer)[start : end + 2])
        self._body_start = end + 4
        self._status = _status(self._head)
        return True

    def _read_head(self) -> None:
        lengths: set[bytes] = set()
        codings: list[bytes] = []
        self._keep_alive = self._lower_head.startswith(b"http/1.1")
        for name, value in _fields(self._lower_head):
            if name == b"content-length":
                lengths.update(part.strip() for part in value.split(b","))
            elif name == b"transfer-encoding":
                codings.append(value)
            elif name == b"connection" and b"close" in [token.strip() for token in value.split(b",")]:
                self._keep_alive = False
        if codings:
            self._begin_chunks(codings, lengths)
        elif self._status in {204, 304}:
            self.wanted_bytes = self._body_start
        elif len(lengths) == 1:
            self._take_length(lengths.pop())
        else:
            # Without a length the end of the connection would be the end of the body: cut off looks complete.
            raise WireError(f"expected one Content-Length in the answer, got {len(lengths)}")

    def _take_length(self, text: bytes) -> None:
        if not text.isdigit() or len(text) > MAX_LENGTH_DIGITS:
            raise WireError(f"expected Content-Length to be a number, got {shown(text)}")
        length = int(text)
        if length > self._max_body_bytes:
            raise WireError(f"expected an answer of at most {self._max_body_bytes} bytes, got {length}")
        self.wanted_bytes = self._body_start + length

    def _begin_chunks(self, codings: list[bytes], lengths: set[bytes]) -> None:
        if codings != [b"chunked"]:
            raise WireError(f"expected Transfer-Encoding to be chunked, got {shown(b', '.join(codings))}")
        if lengths:
            raise WireError("expected Transfer-Encoding or Content-Length in the answer, got both")
        if not self._lower_head.startswith(b"http/1.1"):
            raise WireError("expected no Transfer-Encoding in an answer of HTTP/1.0, got one")
        self._chunks = ChunkedBody(self._body_start, self._max_body_bytes)


def whole_answer(buffer: bytearray, filled: int) -> Answer | None:
    """Return the answer if the filled part of the buffer is one of the usual shape, no more and no less.

    The usual shape is status 200, one Content-Length that is exactly what follows the head, no
    Transfer-Encoding, and no Connection but keep-alive.  None says nothing: `AnswerParser` then looks closer.
    """
    end = buffer.find(b"\r\n\r\n", 0, min(filled, MAX_HEAD_BYTES))
    head = bytes(buffer[: end + 2])
    if end < 0 or not head.startswith(b"HTTP/1.1 200 "):
        return None
    lower = head.lower()
    length = b"\r\ncontent-length: %d\r\n" % (filled - end - 4)
    at = lower.find(length)
    if at < 0 or lower.count(b"\r\ncontent-length") != 1 or b"\r\ntransfer-encoding" in lower:
        return None
    if lower.startswith(FOLDS, at + len(length)):
        return None
    at = lower.find(b"\r\nconnection")
    if at >= 0 and (not lower.startswith(KEPT, at) or lower.startswith(FOLDS, at + len(KEPT))):
        return None
    return Answer(200, head, lower, memoryview(buffer)[end + 4 : filled], keep_alive=True)


class ChunkedBody:
    """Takes a chunked body (RFC 9112, section 7.1) out of the buffer that holds all of it.

    DynamoDB sends Content-Length; proxies and emulators may not, so this is written to be right, not fast.
    """

    __slots__ = ("_start", "_at", "_max_body_bytes", "_size_bytes", "_in_trailer", "_trailer_bytes", "pieces")

    def __init__(self, start: int, max_body_bytes: int) -> None:
        self._start = self._at = start
        self._max_body_bytes = max_body_bytes
        self._size_bytes = 0
        self._in_trailer = False
        self._trailer_bytes = 0
        self.pieces: list[bytes] = []

    def advance(self, buffer: bytearray, filled: int) -> int:
        """Take all complete chunks; return the position behind the body once it has ended, else -1."""
        if filled - self._start > 2 * (self._max_body_bytes + MAX_HEAD_BYTES):
            raise WireError("expected the framing of a chunked body to be smaller than the body, got more")
        while not self._in_trailer:
            line_end = self._line_end(buffer, filled)
            if line_end < 0:
                return -1
            size = _chunk_size(bytes(buffer[self._at : line_end]))
            if self._size_bytes + size > self._max_body_bytes:
                raise WireError(f"expected an answer of at most {self._max_body_bytes} bytes, got more")
            if size == 0:
                self._in_trailer = True
                self._at = line_end + 2
                break
            end = line_end + 2 + size
            if filled < end + 2:
                return -1
            if buffer[end : end + 2] != b"\r\n":
                raise WireError("expected a line end behind a chunk, got data")
            self.pieces.append(bytes(buffer[line_end + 2 : end]))
            self._size_bytes += size
            self._at = end + 2
        return self._skip_trailer(buffer, filled)

    def _skip_trailer(self, buffer: bytearray, filled: int) -> int:
        while (line_end := self._line_end(buffer, filled)) >= 0:
            empty = line_end == self._at
            self._trailer_bytes += line_end + 2 - self._at
            if self._trailer_bytes > MAX_HEAD_BYTES:
                raise WireError(f"expected trailers of at most {MAX_HEAD_BYTES} bytes, got more")
            self._at = line_end + 2
            if empty:
                return self._at
        return -1

    def _line_end(self, buffer: bytearray, filled: int) -> int:
        end = buffer.find(b"\r\n", self._at, min(filled, self._at + MAX_CHUNK_LINE_BYTES))
        if end < 0 and filled >= self._at + MAX_CHUNK_LINE_BYTES:
            raise WireError(f"expected chunked lines of at most {MAX_CHUNK_LINE_BYTES} bytes, got more")
        return end


def _status(head: bytes) -> int:
    """Read the status of a head's first line, `HTTP/1.x NNN …`."""
    if head[:7] != b"HTTP/1." or head[7:9] not in {b"1 ", b"0 "} or not head[9:12].isdigit():
        raise WireError(f"expected an answer of HTTP/1.1, got {shown(head)}")
    if head[12:13] not in {b" ", b"\r"}:
        raise WireError(f"expected a status of three digits, got {shown(head)}")
    return int(head[9:12])


def _fields(lower_head: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Give the header fields of a head, names and values in lower case."""
    for line in lower_head.split(b"\r\n")[1:-1]:
        name, colon, value = line.partition(b":")
        if not colon or not name or not _TOKEN.issuperset(name):
            raise WireError(f"expected a header field, got {shown(line)}")
        yield name, value.strip(b" \t")


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].rstrip(b" \t")
    if not digits or len(digits) > MAX_LENGTH_DIGITS or not _HEXADECIMAL.issuperset(digits):
        raise WireError(f"expected the size of a chunk, got {shown(line)}")
    return int(digits, 16)
