from __future__ import annotations

import email.utils
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.errors import InvariantError
from fastserve.wire.http1_answer import CLOSE, STATUS_LINES, AnswerHeads, error_body, http_date

DATE = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
HEADS = AnswerHeads(784111777)


@given(st.integers(0, 4_000_000_000))
def test_dates_are_those_of_the_standard_library(epoch_s: int) -> None:
    assert http_date(epoch_s).decode() == email.utils.formatdate(epoch_s, usegmt=True)


def test_an_answer_carries_type_date_and_length() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + DATE
    assert HEADS.answer(200, b"{}") == head + b"Content-Length: 2\r\n\r\n{}"
    assert HEADS.json_ok == head + b"Content-Length: "


def test_the_answer_to_head_tells_the_length_of_the_body_it_leaves_out() -> None:
    assert HEADS.answer(200, b"{}", has_body=False).endswith(b"Content-Length: 2\r\n\r\n")


def test_an_answer_without_content_has_no_length() -> None:
    assert HEADS.answer(204, b"", connection=CLOSE) == (
        b"HTTP/1.1 204 No Content\r\n" + DATE + b"Connection: close\r\n\r\n"
    )


def test_further_headers_come_before_the_end_of_the_head() -> None:
    answer = HEADS.answer(429, b"", b"text/plain", CLOSE, [(b"Retry-After", b"1")])
    assert answer == (
        b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\n"
        + DATE
        + b"Content-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize("value", [b"a\r\nB: c", b"a\nB: c", b"a\rB: c"])
def test_a_header_of_two_lines_is_our_error(value: bytes) -> None:
    with pytest.raises(InvariantError, match="expected a header field of one line"):
        HEADS.answer(200, b"", headers=[(b"A", value)])
    with pytest.raises(InvariantError, match="expected an HTTP status and a content type"):
        HEADS.answer(200, b"", value)


def test_a_status_that_http_does_not_have_is_our_error() -> None:
    with pytest.raises(InvariantError, match="got 299"):
        HEADS.answer(299, b"")


def test_the_date_follows_the_time_it_is_given() -> None:
    heads = AnswerHeads(0)
    heads.set_time(784111777)
    assert DATE in heads.json_ok
    assert DATE in heads.answer(404, b"")


def test_there_is_a_status_line_for_every_status_an_error_can_have() -> None:
    for status in (400, 401, 403, 404, 405, 408, 413, 414, 417, 429, 431, 500, 501, 503, 504, 505):
        assert STATUS_LINES[status].startswith(b"HTTP/1.1 %d " % status)
        body = json.loads(error_body(status, "text"))
        assert body == {"error": "text", "message": "text", "code": body["code"]}
        assert isinstance(body["code"], int)


def test_an_error_with_a_lone_surrogate_is_escaped_and_not_lost() -> None:
    body = json.loads(error_body(400, "bad \ud800 ü"))
    assert body == {"error": "bad \\ud800 ü", "message": "bad \\ud800 ü", "code": 3}
