"""The sample of vectors: what is kept, and what becomes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from fastserve.server import feast_handler
from fastserve.server.exchange import Exchange
from fastserve.server.feature_log import FeatureLog
from fastserve.wire.accept import MSGPACK
from fastserve.wire.http1 import RequestHead
from fastserve.wire.msgpack import pack
from tests.server.application_world import Connection

BODY = b'{\n  "params": 1\n}'


def answered(exchange: Exchange) -> None:
    if exchange.body == b"bad":
        exchange.respond_error(400, "no")
    elif exchange.path.startswith("/packed"):
        exchange.respond(200, pack({"result": {"features": [5, float("nan"), 0.5]}}), MSGPACK)
    elif exchange.path.endswith("-batch"):
        exchange.respond(200, b'{"result":[]}')
    else:
        exchange.respond_json(b'{"result":', b"[1.5]}")


def ask(log: FeatureLog, path: str, body: bytes = BODY) -> Connection:
    connection = Connection()
    head = RequestHead("POST", path, "", len(body), False, True, False, False, None, None, None, None)
    log(Exchange(connection, head, body, 0.0))
    return connection


def written(
    folder: Path, work: Callable[[FeatureLog], None], every: int = 1, drawn: float = 0.0
) -> list[Any]:
    async def whole() -> None:
        log = FeatureLog(answered, folder, every, lambda: drawn, asyncio.get_running_loop())
        log.start()
        work(log)
        await log.close()

    asyncio.run(whole())
    return [orjson.loads(line) for file in folder.glob("*") for line in file.read_bytes().splitlines()]


def test_requests_for_features_are_kept_with_what_they_were_answered(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "log"

    def work(log: FeatureLog) -> None:
        assert ask(log, "/api/v1/feature-service/get-features").answers[0].json == {"result": [1.5]}
        assert ask(log, "/api/v2/x/get-features-batch").answers[0].json == {"result": []}
        ask(log, "/api/v1/feature-service/metadata")
        assert ask(log, "/api/v1/feature-service/get-features", b"bad").answers[0].status == 400

    lines = written(folder, work)
    assert [(line["path"][-5:], line["request"], line["answer"]) for line in lines] == [
        ("tures", {"params": 1}, {"result": [1.5]}),
        ("batch", {"params": 1}, {"result": []}),
    ]
    assert all(line["time_ns"] > 10**18 for line in lines)
    (file,) = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_request_that_can_not_be_written_costs_no_other_its_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def work(log: FeatureLog) -> None:
        ask(log, "/get-features")
        ask(log, "/get-features", b"[" * 300 + b"]" * 300)  # orjson reads 1,024 levels and writes 254
        ask(log, "/get-features")

    assert len(written(tmp_path, work)) == 2
    assert "feature log: 1 vectors left out: " in caplog.text


def test_requests_on_feast_s_path_are_kept_as_well(tmp_path: Path) -> None:
    (line,) = written(tmp_path, lambda log: void(ask(log, feast_handler.PATH)))
    assert (line["path"], line["answer"]) == ("/get-online-features", {"result": [1.5]})


def test_packed_answers_are_kept_as_the_json_that_they_stand_for(tmp_path: Path) -> None:
    (line,) = written(tmp_path, lambda log: void(ask(log, "/packed/get-features")))
    assert line["answer"] == {"result": {"features": ["5", "NaN", 0.5]}}


@pytest.mark.parametrize("drawn, kept", [(0.0, 1), (0.0999, 1), (0.1, 0), (0.99, 0)])
def test_one_in_so_many_is_kept(tmp_path: Path, drawn: float, kept: int) -> None:
    assert len(written(tmp_path, lambda log: void(ask(log, "/get-features")), 10, drawn)) == kept


def test_a_client_that_left_is_not_waited_for(tmp_path: Path) -> None:
    def work(log: FeatureLog) -> None:
        exchange = Exchange(
            Connection(),
            RequestHead("POST", "/get-features", "", 0, False, True, False, False, None, None, None, None),
            BODY,
            0.0,
        )
        exchange.on_gone()
        log(exchange)

    assert written(tmp_path, work) == []


def test_what_is_too_much_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastserve.server.feature_log.HELD_BYTES", 100)
    with caplog.at_level(logging.WARNING):
        lines = written(tmp_path, lambda log: void(*[ask(log, "/get-features") for _ in range(10)]))
    assert len(lines) == 3
    assert caplog.messages == ["feature log: 7 vectors left out, more than can be written"]


def test_a_folder_that_cannot_be_written_is_said_and_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        written(tmp_path / "file" / "log", lambda log: void(ask(log, "/get-features")))
    assert caplog.messages[0].startswith("feature log: 1 vectors left out: ")


def test_a_long_file_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastserve.server.feature_log.FILE_BYTES", 10)

    def work(log: FeatureLog) -> None:
        for data in (b"{}\n", b'{"longer":1}\n', b"{}\n"):
            log._append(data)

    written(tmp_path, work)
    sizes = sorted(file.stat().st_size for file in tmp_path.iterdir())
    assert sizes == [3, 16]


def void(*_: object) -> None:
    """Take anything, return nothing."""
