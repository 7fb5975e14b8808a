"""Pushes as the server answers them: statuses, shapes, one answer each."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from fastserve.api.ingest import IngestRequest, RecordError, request_id
from fastserve.errors import RequestError, StoreError
from fastserve.ingest.stream import BadRecordsError
from fastserve.server import ingest_handler
from fastserve.server.exchange import Exchange, Headers
from fastserve.server.ingest_handler import IngestHandler
from fastserve.wire.http1 import HttpLimits, parse_head

BODY = orjson.dumps({"records": {"s": [{"record": {"a": 1}}]}})


class ScriptedIngestor:
    """Stands for an `Ingestor`: gives one outcome, when it may."""

    def __init__(self, outcome: dict[str, int] | Exception) -> None:
        self.workspace = "prod"
        self.outcome = outcome
        self.asked: list[IngestRequest] = []
        self.may = asyncio.Event()
        self.may.set()
        self.closed = False

    async def ingest(self, request: IngestRequest) -> dict[str, int]:
        self.asked.append(request)
        await self.may.wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def close(self) -> None:
        self.closed = True


class Connection:
    """Keeps the answers of an exchange."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = []

    def send_answer(
        self, exchange: Exchange, status: int, body: bytes, content_type: bytes, headers: Headers
    ) -> None:
        self.answers.append((status, orjson.loads(body)))

    def send_json(self, exchange: Exchange, parts: Any) -> None:
        raise AssertionError


def exchange(connection: Connection, body: bytes = BODY, headers: bytes = b"") -> Exchange:
    raw = b"POST /ingest HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n" % (headers, len(body))
    return Exchange(connection, parse_head(raw, HttpLimits()), body, 0.0)


def answered(outcome: dict[str, int] | Exception, body: bytes = BODY) -> tuple[int, Any]:
    async def story() -> tuple[int, Any]:
        connection = Connection()
        handler = IngestHandler(ScriptedIngestor(outcome))  # type: ignore[arg-type]
        handler(exchange(connection, body))
        await handler.close()
        (answer,) = connection.answers
        return answer

    return asyncio.run(story())


def test_counts_are_answered_after_the_write() -> None:
    status, answer = answered({"v": 3})
    assert status == 200
    assert answer["workspaceName"] == "prod"
    assert answer["ingestMetrics"]["featureViewIngestMetrics"] == [
        {"featureViewName": "v", "onlineRecordIngestCount": "3"}
    ]


@pytest.mark.parametrize(
    "outcome, status, code",
    [
        (StoreError("down", retryable=True), 503, 14),
        (StoreError("slower", throttled=True), 429, 8),
        (StoreError("late", timed_out=True), 504, 4),
        (ZeroDivisionError(), 500, 13),
    ],
)
def test_what_fails_has_a_status_that_clients_send_again_for(
    outcome: Exception, status: int, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    got, answer = answered(outcome)
    assert (got, answer["code"]) == (status, code)
    assert answer["error"] == answer["message"]
    assert (status == 500) == bool(caplog.records)


def test_bad_records_are_listed() -> None:
    errors = [RecordError("v", "s", 4, "Kind", "wrong")]
    status, answer = answered(BadRecordsError(errors))
    assert status == 400
    assert answer["recordErrors"][0]["errorMessage"] == "records.s[4]: wrong"


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"records":1}'])
def test_a_wrong_body_is_refused_in_the_apis_shape(body: bytes) -> None:
    status, answer = answered({}, body)
    assert status == 400
    assert answer["requestError"]["errorType"] == "RequestValidationError"
    assert (
        answered(RequestError(400, "unknown source"))[1]["requestError"]["errorMessage"] == "unknown source"
    )


def test_the_idempotency_key_is_the_requests_id() -> None:
    async def story() -> None:
        ingestor = ScriptedIngestor({})
        handler = IngestHandler(ingestor)  # type: ignore[arg-type]
        handler(exchange(Connection(), headers=b"Idempotency-Key: abc\r\n"))
        await handler.close()
        assert ingestor.asked[0].id == request_id("abc")
        assert ingestor.closed

    asyncio.run(story())


def test_more_requests_than_a_worker_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        monkeypatch.setattr(ingest_handler, "MAX_IN_FLIGHT", 2)
        ingestor = ScriptedIngestor({})
        ingestor.may.clear()
        handler = IngestHandler(ingestor)  # type: ignore[arg-type]
        connection = Connection()
        handler(exchange(connection))
        handler(exchange(connection))
        with pytest.raises(RequestError, match="at most 2 ingest requests") as refused:
            handler(exchange(connection))
        assert refused.value.status == 429
        ingestor.may.set()
        await handler.close()
        assert [status for status, _ in connection.answers] == [200, 200]

    asyncio.run(story())


def test_a_client_that_has_left_stops_nothing() -> None:
    async def story() -> None:
        ingestor = ScriptedIngestor({"v": 1})
        connection = Connection()
        handler = IngestHandler(ingestor)  # type: ignore[arg-type]
        left = exchange(connection)
        handler(left)
        left.on_gone()
        await handler.close()
        assert len(ingestor.asked) == 1
        assert connection.answers == []

    asyncio.run(story())
