from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.errors import RequestError
from fastserve.wire.http1 import HttpLimits, RequestHead, check_partial_head, parse_head

LIMITS = HttpLimits()


def head(line: bytes = b"GET / HTTP/1.1", *fields: bytes) -> bytes:
    return b"\r\n".join([line, b"Host: a", *fields, b"", b""])


def refused(raw: bytes, limits: HttpLimits = LIMITS) -> RequestError:
    with pytest.raises(RequestError) as caught:
        parse_head(raw, limits)
    return caught.value


def test_a_head_gives_what_the_application_asks_for() -> None:
    raw = head(
        b"POST /a?b=c HTTP/1.1",
        b"authorization: Tecton-key x",
        b"CONTENT-TYPE: application/json",
        b"Accept: a/b",
        b"Accept: c/d",
        b"X-Request-Timeout-Ms: 200",
        b"Content-Length: 12",
        b"Other: y",
    )
    expected = RequestHead(
        "POST",
        "/a",
        "b=c",
        12,
        False,
        True,
        False,
        False,
        b"Tecton-key x",
        b"application/json",
        b"a/b,c/d",
        b"200",
        host=b"a",
    )
    assert parse_head(raw, LIMITS) == expected


@pytest.mark.parametrize(
    "field, value, expected",
    [
        (b"Connection", b"keep-alive, close", {"keeps_alive": False}),
        (b"Connection", b"CLOSE", {"keeps_alive": False}),
        (b"Connection", b"closed", {"keeps_alive": True}),
        (b"Connection", b",,close ,", {"keeps_alive": False}),
        (b"Expect", b"100-Continue", {"expects_continue": True}),
        (b"Transfer-Encoding", b"CHUNKED", {"is_chunked": True}),
        (b"Upgrade", b"h2c", {"is_plain": True}),
    ],
)
def test_a_field_decides_how_to_go_on(field: bytes, value: bytes, expected: dict[str, Any]) -> None:
    read = parse_head(head(b"POST / HTTP/1.1", field + b": " + value), LIMITS)
    assert {name: getattr(read, name) for name in expected} == expected


@pytest.mark.parametrize("line", [b"HEAD / HTTP/1.1", b"GET / HTTP/1.0", b"PATCH / HTTP/1.1"])
def test_only_what_is_read_and_answered_in_the_common_way_is_plain(line: bytes) -> None:
    assert not parse_head(head(line), LIMITS).is_plain
    assert parse_head(head(), LIMITS).is_plain


def test_a_known_method_that_no_path_has_is_refused_but_framed() -> None:
    read = parse_head(head(b"DELETE /a HTTP/1.1", b"Content-Length: 3"), LIMITS)
    assert read.content_length == 3
    assert read.refusal is not None
    assert (read.refusal.status, str(read.refusal)) == (
        405,
        "method DELETE is not allowed, expected one of GET, HEAD, POST",
    )


def test_sizes_are_allowed_up_to_their_limits_and_no_further() -> None:
    limits = HttpLimits(request_line_bytes=20, header_bytes=40, header_fields=3, body_bytes=5)
    assert parse_head(head(b"GET /aaaaaa HTTP/1.1"), limits).path == "/aaaaaa"
    assert refused(head(b"GET /aaaaaaa HTTP/1.1"), limits).status == 414
    assert parse_head(head(b"GET / HTTP/1.1", b"B: " + b"b" * 26), limits).path == "/"
    assert refused(head(b"GET / HTTP/1.1", b"B: " + b"b" * 27), limits).status == 431
    assert parse_head(head(b"GET / HTTP/1.1", b"B:", b"C:"), limits).path == "/"
    assert refused(head(b"GET / HTTP/1.1", b"B:", b"C:", b"D:"), limits).status == 431
    assert parse_head(head(b"GET / HTTP/1.1", b"Content-Length: 5"), limits).content_length == 5
    assert refused(head(b"GET / HTTP/1.1", b"Content-Length: 6"), limits).status == 413


@given(st.integers(0, 60), st.integers(0, 60))
def test_a_head_that_is_accepted_whole_is_never_refused_by_halves(line_bytes: int, field_bytes: int) -> None:
    limits = HttpLimits(request_line_bytes=40, header_bytes=40)
    raw = head(b"GET /%b HTTP/1.1" % (b"a" * line_bytes), b"B: %b" % (b"b" * field_bytes))
    whole = 0
    try:
        parse_head(raw, limits)
    except RequestError as error:
        whole = error.status
    by_halves = 0
    for end in range(len(raw)):
        try:
            check_partial_head(raw[:end], limits)
        except RequestError as error:
            by_halves = by_halves or error.status
    assert by_halves in {0, whole}


def test_no_message_echoes_more_than_a_line_of_input() -> None:
    for raw in (
        head(b"GET /" + b"a" * 4000),
        head(b"A" * 4000 + b" / HTTP/1.1"),
        head(b"GET / HTTP/1.1", b"Expect: " + b"e" * 4000),
    ):
        assert len(str(refused(raw))) < 160


@given(st.binary(max_size=200))
def test_junk_is_refused_and_never_breaks_the_reader(junk: bytes) -> None:
    raw = b"GET / HTTP/1.1\r\nHost: a\r\n" + junk + b"\r\n\r\n"
    raw = raw[: raw.find(b"\r\n\r\n") + 4]
    status = 200
    try:
        parse_head(raw, LIMITS)
    except RequestError as error:
        status = error.status
    assert status in {200, 400, 413, 417, 431, 501}
