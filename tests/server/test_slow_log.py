"""Slow requests in the log: which, how many, and what they say."""

from __future__ import annotations

from typing import Any

import pytest

from fastserve.server.exchange import Exchange
from fastserve.server.metrics import MeasuredEvaluator
from fastserve.server.metrics_table import SERVICE_CELLS
from fastserve.server.slow_log import LINES_PER_S, Quota, SlowMeter, TimedAnswer, TimedWeighedAnswer
from fastserve.wire.http1 import RequestHead
from tests.server.application_world import KEYS, VALUES, ApplicationWorld, Connection

HEAD = RequestHead("POST", "/", "", 0, False, True, False, False, None, None, None, None)


class Told(Connection):
    """A connection that tells the meter of its exchange, as the protocol does."""

    def send_answer(self, exchange: Exchange, status: int, *rest: Any) -> None:
        if exchange.meter is not None:
            exchange.meter(exchange, status)
        super().send_answer(exchange, status, *rest)


@pytest.fixture
def slow(world: ApplicationWorld, monkeypatch: pytest.MonkeyPatch) -> ApplicationWorld:
    """A world in which every request is slow."""
    monkeypatch.setattr("tests.server.application_world.Connection", Told)
    for runtime in world.engine.services.values():
        runtime.evaluator = MeasuredEvaluator(runtime.evaluator, [0] * SERVICE_CELLS, 1)
    quota = Quota(lambda: 0.5)
    meters = {name: SlowMeter(name, 0.0, quota) for name in world.engine.services}
    world.application.measure(meters, TimedAnswer, TimedWeighedAnswer)
    return world


def fields(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [getattr(record, "fields") for record in caplog.records]  # noqa: B009 - mypy knows no extras


def test_a_slow_request_is_told_with_where_its_time_went(
    slow: ApplicationWorld, caplog: pytest.LogCaptureFixture
) -> None:
    assert slow.features("fraud:v2", KEYS).json["result"]["features"] == VALUES
    (told,) = fields(caplog)
    assert (told["service"], told["status"], told["vectors"], told["keys"]) == ("fraud:v2", 200, 1, 3)
    assert told["evaluate_ms"] > 0
    assert told["encode_ms"] > 0
    assert caplog.messages[0].startswith("slow request for fraud:v2: status 200 after ")
    assert "1 vectors, 3 keys; reads " in caplog.messages[0]
    assert "u1" not in caplog.text  # what was asked for is nobody's business


def test_a_batch_is_told_as_one(slow: ApplicationWorld, caplog: pytest.LogCaptureFixture) -> None:
    answer = slow.batch("plain", [{"user_id": f"u{number}"} for number in range(100)])
    assert len(answer.json["result"]) == 100
    (told,) = fields(caplog)
    assert (told["vectors"], told["keys"]) == (100, 100)


def test_what_was_refused_before_its_rows_came_says_so(
    slow: ApplicationWorld, caplog: pytest.LogCaptureFixture
) -> None:
    slow.features("plain", {"shop_id": "secret"})
    assert fields(caplog)[0].keys() == {"service", "status", "took_ms"}
    assert caplog.messages[0].endswith("ms, answered without rows")


def test_fast_ones_are_not_told_and_others_are_counted_first(caplog: pytest.LogCaptureFixture) -> None:
    counted: list[int] = []
    meter = SlowMeter("s", 3600.0, Quota(), lambda _, status: counted.append(status))
    exchange = Exchange(Connection(), HEAD, b"", 0.0)
    exchange.received_s = float("inf")
    meter(exchange, 200)
    assert counted == [200]
    assert not caplog.records


def test_lines_are_rationed_and_the_next_one_says_how_many_were_left_out() -> None:
    now_s = 10.0
    quota = Quota(lambda: now_s)
    assert [quota.take() for _ in range(LINES_PER_S + 3)] == [0] * LINES_PER_S + [None] * 3
    now_s = 11.0
    assert [quota.take(), quota.take()] == [3, 0]
