"""The corpus of raw requests: fed whole, in pieces, cut in two or ended at every byte, with more behind it.

Beside each stands what is expected: of a valid one the exchanges, the answers' statuses and whether the
connection is closed after them; of an invalid one the status, after which the connection always is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_connection import GET, Client, echoing

CORPUS = Path(__file__).parents[1] / "golden" / "requests"
VALID = sorted((CORPUS / "valid").glob("*.http"), key=lambda path: path.name)
INVALID = sorted((CORPUS / "invalid").glob("*.http"), key=lambda path: path.name)


# The long ones are long by repetition: of those both ends, and a few places between.
CUT_WHOLLY_BYTES = 2000
CUT_ENDS_BYTES = 60


def cuts(raw: bytes) -> Iterable[int]:
    """Return where a message is cut: between any two of its bytes."""
    size = len(raw)
    if size <= CUT_WHOLLY_BYTES:
        return range(1, size)
    between = range(CUT_ENDS_BYTES, size - CUT_ENDS_BYTES, size // 8)
    return [*range(1, CUT_ENDS_BYTES), *between, *range(size - CUT_ENDS_BYTES, size)]


def expected(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return read


def seen(client: Client) -> list[dict[str, str]]:
    return [
        {
            "method": exchange.method,
            "path": exchange.path,
            "query": exchange.query,
            "body": exchange.body.decode(),
        }
        for exchange in client.exchanges
    ]


def pieces(raw: bytes, size: int) -> Iterable[bytes]:
    return (raw[at : at + size] for at in range(0, len(raw), size))


def statuses(client: Client) -> list[int]:
    # Only the corpus's HEAD has an answer without its body, and it is the only one of its connection.
    methods = [exchange.method for exchange in client.exchanges]
    return [answer.status for answer in client.answers(methods)]


@pytest.mark.parametrize("size", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_request_means_the_same_in_whatever_pieces_it_comes(path: Path, size: int) -> None:
    wanted = expected(path)
    client = echoing()
    client.send(*pieces(path.read_bytes(), size))
    assert seen(client) == wanted["exchanges"]
    assert statuses(client) == wanted["statuses"]
    assert client.transport.is_shut is wanted["closes"]


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_what_follows_a_valid_request_is_the_next_one_unless_it_asked_to_close(path: Path, size: int) -> None:
    wanted = expected(path)
    client = echoing()
    client.send(*pieces(path.read_bytes() + GET, size))
    after = [] if wanted["closes"] else [{"method": "GET", "path": "/next", "query": "", "body": ""}]
    assert seen(client) == wanted["exchanges"] + after


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_known_head_is_read_as_it_was_the_first_time(path: Path) -> None:
    wanted = expected(path)
    if wanted["closes"]:
        return
    client = echoing()
    client.send(path.read_bytes(), path.read_bytes())
    client.send(*pieces(path.read_bytes(), 5))
    assert seen(client) == wanted["exchanges"] * 3


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_request_is_refused_and_nothing_after_it_is_read(path: Path, size: int) -> None:
    wanted = expected(path)
    client = echoing()
    client.send(*pieces(path.read_bytes() + GET * 3, size))
    assert client.exchanges == []
    (answer,) = client.answers()
    error = json.loads(answer.body)
    assert (answer.status, answer.headers["connection"]) == (wanted["status"], "close")
    assert error["error"] == error["message"]
    assert error["message"] == (wanted["message"] or error["message"])
    assert client.transport.is_shut


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_what_came_before_an_invalid_request_is_answered_first(path: Path) -> None:
    client = echoing()
    client.send(GET + path.read_bytes())
    assert [answer.status for answer in client.answers()] == [200, expected(path)["status"]]


def test_there_are_enough_of_them() -> None:
    assert len(VALID) + len(INVALID) >= 150


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_request_may_be_cut_in_two_at_any_byte(path: Path) -> None:
    wanted = expected(path)
    raw = path.read_bytes()
    for cut in cuts(raw):
        client = echoing()
        client.send(raw[:cut], raw[cut:])
        assert seen(client) == wanted["exchanges"], cut
        assert statuses(client) == wanted["statuses"], cut
        assert client.transport.is_shut is wanted["closes"], cut


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_request_is_refused_wherever_it_is_cut_in_two(path: Path) -> None:
    wanted = expected(path)
    raw = path.read_bytes()
    for cut in cuts(raw):
        client = echoing()
        client.send(raw[:cut], raw[cut:] + GET)
        assert client.exchanges == [], cut
        assert statuses(client) == [wanted["status"]], cut
        assert client.transport.is_shut, cut


@pytest.mark.parametrize("path", VALID + INVALID, ids=lambda path: path.stem)
def test_a_request_that_ends_too_soon_is_no_request_and_gets_one_answer(path: Path) -> None:
    wanted = expected(path)
    raw = path.read_bytes()
    for cut in cuts(raw):
        client = echoing()
        client.send(raw[:cut])
        answered = statuses(client)
        is_over = client.transport.is_shut
        client.protocol.eof_received()
        complete = wanted.get("exchanges", [])[: len(client.exchanges)]
        assert seen(client) == complete, cut
        # What had come whole is answered, as ever; of what hadn't, one answer says so.
        assert statuses(client)[: len(answered)] == answered, cut
        after = statuses(client)[len(answered) :]
        assert after in ([], [400]), cut
        assert not (is_over and after), cut
