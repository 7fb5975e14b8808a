from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.errors import RequestError
from fastserve.wire.http1 import HttpLimits
from fastserve.wire.http1_chunked import ChunkedBody

LIMITS = HttpLimits(body_bytes=1000, trailer_bytes=100)


def decode(data: bytes, limits: HttpLimits = LIMITS, size: int = 1 << 20) -> tuple[bytes, int, bool]:
    """Feed ``data`` in pieces; return the body, how much was taken, and whether it is complete."""
    decoder = ChunkedBody(limits)
    taken, waiting = 0, b""
    for at in range(0, len(data), size):
        waiting += data[at : at + size]
        position = decoder.feed(waiting)
        taken += position
        waiting = waiting[position:]
    return decoder.body, taken, decoder.is_complete


@st.composite
def chunked(draw: st.DrawFn) -> tuple[bytes, bytes]:
    chunks = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=8))
    extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b c"']))
    trailers = draw(st.sampled_from([b"", b"A: b\r\n", b"A:\r\nB: \xe9\r\n"]))
    coded = b"".join([b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks])
    return coded + b"0\r\n" + trailers + b"\r\n", b"".join(chunks)


@given(chunked(), st.integers(1, 50))
def test_a_body_is_the_same_in_whatever_pieces_it_comes(message: tuple[bytes, bytes], size: int) -> None:
    data, body = message
    assert decode(data, size=size) == (body, len(data), True)
    assert decode(data + b"GET / HTTP/1.1\r\n\r\n") == (body, len(data), True)
    assert not decode(data[:-1], size=size)[2]


class Collected:
    def __init__(self) -> None:
        self.body = b""
        self.completed = 0

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.completed += 1


def by_httptools(data: bytes) -> tuple[bytes, bool] | None:
    collected = Collected()
    parser = httptools.HttpRequestParser(collected)
    try:
        parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    except httptools.HttpParserError:
        return None
    return collected.body, collected.completed == 1


@given(chunked(), st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=3)), max_size=2))
def test_what_we_take_httptools_takes_and_reads_alike(
    message: tuple[bytes, bytes], changes: list[tuple[int, bytes]]
) -> None:
    data = message[0]
    for at, replacement in changes:
        data = data[:at] + replacement + data[at + 1 :]
    try:
        body, taken, is_complete = decode(data)
    except RequestError:
        return
    if is_complete:
        assert by_httptools(data[:taken]) == (body, True)


@pytest.mark.parametrize(
    "data, status, message",
    [
        (b"x\r\n", 400, "expected a chunk size in hexadecimal, got b'x'"),
        (b"1\r\nab\r\n", 400, "expected CRLF after a chunk's data, got b'b\\r'"),
        (b"3e9\r\n", 413, "expected a body of at most 1000 bytes, got more"),
        (b"1;" + b"a" * 300, 400, "expected a chunk size line of at most 256 bytes, got more"),
        (b"0\r\nA b\r\n\r\n", 400, "expected a trailer field, got b'A b'"),
        (b"0\r\n" + b"A: b\r\n" * 20 + b"\r\n", 431, "expected at most 100 bytes of trailers, got more"),
        (b"0\r\nA: " + b"b" * 200, 431, "expected a trailer line of at most 100 bytes, got more"),
    ],
    ids=["size", "longer", "over the limit", "extension", "trailer", "trailers", "long trailer"],
)
def test_what_is_not_chunked_coding_is_refused(data: bytes, status: int, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        decode(data)
    assert (caught.value.status, str(caught.value)) == (status, message)


def test_chunks_of_one_byte_are_refused_before_they_cost_much() -> None:
    with pytest.raises(RequestError, match="their framing is longer than the body"):
        decode(b"1\r\na\r\n" * 10_000, HttpLimits())


@pytest.mark.parametrize(
    "extension", [b";", b";;a", b";a;", b";=b", b";a=", b'; a="b"', b';a="b', b';a=b"c"']
)
def test_an_extension_without_a_name_or_with_half_a_value_is_refused(extension: bytes) -> None:
    with pytest.raises(RequestError, match=r"^expected a chunk size in hexadecimal, got b'1;"):
        decode(b"1%b\r\na\r\n0\r\n\r\n" % extension)
