"""The log's two formats: what a line holds, whatever was logged."""

from __future__ import annotations

import logging
import sys

import orjson
import pytest

from fastserve.server.log_format import (
    MAX_LINE_CHARACTERS,
    MAX_MESSAGE_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    JsonFormatter,
    TextFormatter,
    redacted,
    tell,
)


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("fastserve.x", logging.WARNING, "f.py", 1, message, arguments, None)
    made.__dict__.update(extra)
    return made


def test_a_json_line_is_an_object() -> None:
    line = JsonFormatter().format(record("%s came", "x", created=0.5, process=7, fields={"took_ms": 1.5}))
    assert orjson.loads(line) == {
        "time": "1970-01-01T00:00:00.500+00:00",
        "level": "warning",
        "logger": "fastserve.x",
        "pid": 7,
        "message": "x came",
        "took_ms": 1.5,
    }


@pytest.mark.parametrize("nasty", ["a\nb", "a\r\n{}", "\x00\x1b[31m", "\ud800", 'a"b\\', "é€😀", "\u2028"])
def test_input_of_any_kind_stays_in_its_line(nasty: str) -> None:
    line = JsonFormatter().format(record("got %s", nasty, fields={"name": object(), "level": "no"}))
    assert len(line.splitlines()) == 1 or nasty == "\u2028"
    assert "\n" not in line
    assert "\x1b" not in line
    read = orjson.loads(line)
    assert read["message"].startswith("got ")
    assert read["level"] == "warning"  # no field takes the place of what every line has


def test_a_line_has_an_end() -> None:
    try:
        raise ValueError("x" * 1_000_000)
    except ValueError:
        made = record("y" * 1_000_000)
        made.exc_info = sys.exc_info()
    line = JsonFormatter().format(made)
    assert len(line) < MAX_LINE_CHARACTERS
    read = orjson.loads(line)
    assert len(read["message"]) == MAX_MESSAGE_CHARACTERS
    assert read["error"] == "ValueError"
    assert read["traceback"].startswith("…")


def test_megabytes_are_cut_in_the_text_too_before_secrets_are_looked_for() -> None:
    try:
        raise ValueError("x" * 30_000_000)
    except ValueError:
        made = record("y" * 30_000_000)
        made.exc_info = sys.exc_info()
    text = TextFormatter().format(made)
    assert len(text) < 2 * MAX_TEXT_CHARACTERS + 100
    assert "yyy…\n…xxx" in text


@pytest.mark.parametrize(
    "text, secret",
    [
        ("Authorization: Bearer abc.def-123", "abc"),
        ("'Authorization': b'AWS4-HMAC-SHA256 Credential=AKIA/x, Signature=f00'", "AKIA"),
        ("authorization=Tecton-key 0123456789abcdef", "0123"),
        ("X-Amz-Security-Token: FwoGZXIvYXdzE", "Fwo"),
        ('{"secret_access_key": "wJalrXUtnFEMI"}', "wJal"),
        ("aws_session_token = 'abcdef'", "abcdef"),
        ("password=hunter2&x=1", "hunter2"),
        ("the key fs_0123456789abcdefghijkl was shown", "0123"),
    ],
)
def test_secrets_are_left_out_of_both_formats(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in JsonFormatter().format(record(text))
    assert secret not in TextFormatter().format(record(text))


def test_other_text_is_left_as_it_is() -> None:
    text = "read 3 API keys; a request to /api/v1/feature-service/get-features failed; token bucket: 5"
    assert redacted(text) == text


def test_the_operator_is_told_in_bare_lines_where_nothing_else_was_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell("listening")
    assert capsys.readouterr().err == "listening\n"
