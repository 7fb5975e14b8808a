"""Answers come out the same however their bytes were cut; what can be read in two ways is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.wire.client_http import MAX_HEAD_BYTES, Answer, AnswerParser, WireError

HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: Server\r\nDate: Tue, 11 Mar 2025 10:00:00 GMT\r\n"
    b"Content-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\nConnection: keep-alive\r\n"
    b"x-amzn-RequestId: ABCDEF\r\nx-amz-crc32: 2745614147\r\n\r\n"
)
BODY = b'{"Responses":{},"UnprocessedKeys":{}}'
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

# name: bytes, status, body, keep_alive
GOOD: dict[str, tuple[bytes, int, bytes, bool]] = {
    "usual": (HEAD % len(BODY) + BODY, 200, BODY, True),
    "empty body": (HEAD % 0, 200, b"", True),
    "no connection header": (b"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\nab", 400, b"ab", True),
    "lower case names": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab", 200, b"ab", True),
    "no space": (b"HTTP/1.1 200 OK\r\nContent-Length:2\r\n\r\nab", 200, b"ab", True),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nab", 200, b"ab", True),
    "spaces": (b"HTTP/1.1 200 OK\r\nContent-Length: \t 2 \r\n\r\nab", 200, b"ab", True),
    "leading zeros": (b"HTTP/1.1 200 OK\r\nContent-Length: 002\r\n\r\nab", 200, b"ab", True),
    "equal lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nab",
        200,
        b"ab",
        True,
    ),
    "list of lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab", 200, b"ab", True),
    "close": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab", 200, b"ab", False),
    "any close": (
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, Close\r\nContent-Length: 2\r\n\r\nab",
        200,
        b"ab",
        False,
    ),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", 200, b"ab", False),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "chunked": (CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 200, b"abcde", True),
    "chunk extension": (CHUNKED + b'3;a="b"\r\nabc\r\n000 \r\n\r\n', 200, b"abc", True),
    "trailers": (
        CHUNKED + b"A\r\n0123456789\r\n0\r\nExpires: never\r\nX: y\r\n\r\n",
        200,
        b"0123456789",
        True,
    ),
    "line ends in a chunk": (CHUNKED + b"4\r\n\r\n\r\n\r\n0\r\n\r\n", 200, b"\r\n\r\n", True),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD % 2 + b"ab", 200, b"ab", True),
    "hints": (
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + HEAD % 2 + b"ab",
        200,
        b"ab",
        True,
    ),
}
OK = b"HTTP/1.1 200 OK\r\n"
BAD: dict[str, tuple[bytes, str]] = {
    "not HTTP": (b"SSH-2.0-OpenSSH\r\n\r\n", "expected an answer of HTTP/1.1, got b'SSH-2.0-OpenSSH\\r\\n'"),
    "HTTP/2": (b"HTTP/2.0 200 OK\r\n\r\n", "expected an answer of HTTP/1.1, got b'HTTP/2.0 200 OK\\r\\n'"),
    "four digits": (
        b"HTTP/1.1 2000 OK\r\n\r\n",
        "expected a status of three digits, got b'HTTP/1.1 2000 OK\\r\\n'",
    ),
    "no length": (OK + b"\r\n", "expected one Content-Length in the answer, got 0"),
    "two lengths": (
        OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n",
        "expected one Content-Length in the answer, got 2",
    ),
    "signed length": (
        OK + b"Content-Length: +2\r\n\r\n",
        "expected Content-Length to be a number, got b'+2'",
    ),
    "negative": (OK + b"Content-Length: -2\r\n\r\n", "expected Content-Length to be a number, got b'-2'"),
    "no digits": (OK + b"Content-Length: \r\n\r\n", "expected Content-Length to be a number, got b''"),
    "many digits": (
        OK + b"Content-Length: 12345678901\r\n\r\n",
        "expected Content-Length to be a number, got b'12345678901'",
    ),
    "folded": (
        OK + b"Content-Length: 2\r\n 3\r\n\r\n",
        "expected a header field, got b' 3'",
    ),
    "folded connection": (
        OK + b"Content-Length: 0\r\nConnection: keep-alive\r\n\t, close\r\n\r\n",
        "expected a header field, got b'\\t, close'",
    ),
    "space before colon": (
        OK + b"Content-Length : 2\r\n\r\n",
        "expected a header field, got b'content-length : 2'",
    ),
    "too large": (OK + b"Content-Length: 1001\r\n\r\n", "expected an answer of at most 1000 bytes, got 1001"),
    "both": (
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "expected Transfer-Encoding or Content-Length in the answer, got both",
    ),
    "gzip": (
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        "expected Transfer-Encoding to be chunked, got b'gzip, chunked'",
    ),
    "chunked on 1.0": (
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "expected no Transfer-Encoding in an answer of HTTP/1.0, got one",
    ),
    "switching": (
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "expected an answer, got an interim one, status 101",
    ),
    "endless interim": (
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5,
        "expected an answer, got an interim one, status 100",
    ),
    "chunk size": (CHUNKED + b"0x3\r\n", "expected the size of a chunk, got b'0x3'"),
    "no chunk size": (CHUNKED + b"\r\n", "expected the size of a chunk, got b''"),
    "negative chunk": (CHUNKED + b"-3\r\n", "expected the size of a chunk, got b'-3'"),
    "long chunk": (CHUNKED + b"2\r\nabc\r\n", "expected a line end behind a chunk, got data"),
    "large chunks": (
        CHUNKED + b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\n",
        "expected an answer of at most 1000 bytes, got more",
    ),
    "long extension": (CHUNKED + b"1;" + b"x" * 300, "expected chunked lines of at most 256 bytes, got more"),
    "endless head": (
        OK + b"X: " + b"y" * MAX_HEAD_BYTES,
        f"expected an answer's head of at most {MAX_HEAD_BYTES} bytes, got more",
    ),
    "long head": (
        OK + b"X: " + b"y" * MAX_HEAD_BYTES + b"\r\nContent-Length: 0\r\n\r\n",
        f"expected an answer's head of at most {MAX_HEAD_BYTES} bytes, got more",
    ),
    "endless trailers": (
        CHUNKED + b"0\r\n" + (b"a: " + b"b" * 150 + b"\r\n") * 200,
        f"expected trailers of at most {MAX_HEAD_BYTES} bytes, got more",
    ),
}


def feed(parser: AnswerParser, raw: bytes, cuts: list[int]) -> tuple[Answer | None, int]:
    """Feed ``raw`` cut at these positions; return the answer and how many bytes had come."""
    buffer = bytearray(len(raw) + 100)
    for cut in sorted({*cuts, len(raw)}):
        buffer[:cut] = raw[:cut]
        answer = parser.parse(buffer, cut)
        if answer is not None:
            return answer, cut
    return None, len(raw)


def assert_answer(name: str, answer: Answer | None) -> None:
    _, status, body, keep_alive = GOOD[name]
    assert answer is not None
    assert (answer.status, bytes(answer.body), answer.keep_alive) == (status, body, keep_alive)


@pytest.mark.parametrize("name", GOOD)
def test_an_answer_comes_out_whole(name: str) -> None:
    assert_answer(name, feed(AnswerParser(1000), GOOD[name][0], [])[0])


@pytest.mark.parametrize("name", GOOD)
def test_an_answer_comes_out_at_its_last_byte_when_fed_byte_by_byte(name: str) -> None:
    raw = GOOD[name][0]
    answer, at = feed(AnswerParser(1000), raw, list(range(1, len(raw))))
    assert_answer(name, answer)
    assert at == len(raw)


@given(st.data())
def test_an_answer_comes_out_the_same_however_it_is_cut(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(GOOD)))
    raw = GOOD[name][0]
    cuts = data.draw(st.lists(st.integers(1, len(raw)), max_size=10))
    assert_answer(name, feed(AnswerParser(1000), raw, cuts)[0])


@pytest.mark.parametrize("name", GOOD)
def test_data_behind_an_answer_ends_the_connection_but_not_the_answer(name: str) -> None:
    raw, status, body, _ = GOOD[name]
    answer, _ = feed(AnswerParser(1000), raw + b"HTTP/1.1 200", [])
    assert answer is not None
    assert (answer.status, bytes(answer.body), answer.keep_alive) == (status, body, False)


@pytest.mark.parametrize("name", GOOD)
def test_a_parser_reads_one_answer_after_the_other(name: str) -> None:
    parser = AnswerParser(1000)
    for _ in range(2):
        assert_answer(name, feed(parser, GOOD[name][0], [5, 20])[0])


@pytest.mark.parametrize("name", GOOD)
def test_a_cut_off_answer_is_none(name: str) -> None:
    raw = GOOD[name][0]
    for cut in range(len(raw)):
        assert feed(AnswerParser(1000), raw[:cut], [])[0] is None


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_is_refused_whole(name: str) -> None:
    raw, message = BAD[name]
    with pytest.raises(WireError) as caught:
        feed(AnswerParser(1000), raw, [])
    assert str(caught.value) == message


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_is_refused_byte_by_byte(name: str) -> None:
    raw, message = BAD[name]
    with pytest.raises(WireError) as caught:
        feed(AnswerParser(1000), raw, list(range(1, len(raw))))
    assert str(caught.value) == message


def test_the_parser_says_how_large_the_whole_answer_is_as_soon_as_it_knows() -> None:
    parser = AnswerParser()
    head = HEAD % 50_000
    assert feed(parser, head[:-1], [])[0] is None
    assert parser.wanted_bytes == 0
    assert feed(parser, head + b"x", [])[0] is None
    assert parser.wanted_bytes == len(head) + 50_000


def test_headers_are_found_by_their_lower_case_names() -> None:
    answer, _ = feed(AnswerParser(), HEAD % 0, [])
    assert answer is not None
    assert answer.header(b"date") == b"Tue, 11 Mar 2025 10:00:00 GMT"
    assert answer.header(b"x-amzn-requestid") == b"ABCDEF"
    assert answer.header(b"x-amz-crc32") == b"2745614147"
    assert answer.header(b"server") == b"Server"
    assert answer.header(b"amz-crc32") is None


def test_a_chunked_body_of_mostly_framing_is_refused() -> None:
    raw = CHUNKED + b"1;%b\r\nx\r\n" % (b"e" * 200) * 600
    with pytest.raises(WireError) as caught:
        feed(AnswerParser(1000), raw, [])
    assert str(caught.value) == "expected the framing of a chunked body to be smaller than the body, got more"
