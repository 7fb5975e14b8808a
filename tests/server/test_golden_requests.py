"""The corpus of raw requests, each fed whole, byte by byte, in other pieces, and with more behind it."""

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
