"""The caller's own timeout, X-Request-Timeout-Ms: it shortens the server's and reaches every read."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from fastserve.errors import StoreError
from tests.server.application_world import KEYS, V1, VALUES, ApplicationWorld, Connection, is_refused


def sent(
    world: ApplicationWorld, timeout_ms: bytes, action: str = "get-features", **params: Any
) -> Connection:
    """Send a request with the header; its reads are with the store when this returns."""
    keys = {"joinKeyMap": KEYS} if action == "get-features" else {"requestData": [{"joinKeyMap": KEYS}]}
    body = orjson.dumps({"params": {"featureServiceName": "fraud:v2", **keys, **params}})
    connection = world.send("POST", V1 + action, body, timeout_ms=timeout_ms)
    world.turn()
    return connection


@pytest.mark.parametrize("action", ["get-features", "get-features-batch"])
def test_after_the_callers_timeout_a_request_is_refused_and_late_rows_are_dropped(
    world: ApplicationWorld, action: str
) -> None:
    connection = sent(world, b"40", action)
    world.wait(0.039)
    assert connection.answers == []
    world.wait(0.001)
    (refused,) = connection.answers
    is_refused(refused, 504, 4, "No answer within the request's timeout of 0.04 s")
    world.store.answer()
    world.wait(5)
    assert connection.answers == [refused]


def test_rows_that_come_within_the_callers_timeout_are_answered(world: ApplicationWorld) -> None:
    connection = sent(world, b"40.5")
    world.store.answer()
    world.wait(0.1)
    (answer,) = connection.answers
    assert answer.json == {"result": {"features": VALUES}}


@pytest.mark.parametrize(
    "timeout_ms, budget_ms, left_s",
    [
        (b"40", None, 0.04),
        (b"40", 15, 0.015),
        (b"15", 40, 0.015),
        (b"60000", None, 2.0),
        (b"60000", 15, 0.015),
    ],
)
def test_the_earliest_of_the_deadlines_is_the_reads_own(
    world: ApplicationWorld, timeout_ms: bytes, budget_ms: int | None, left_s: float
) -> None:
    sent(world, timeout_ms, requestOptions={"latencyBudgetMs": budget_ms})
    assert {read.deadline_s for batch in world.store.batches for read in batch} == {world.now_s + left_s}


def test_a_budget_within_the_timeout_answers_with_what_has_come(world: ApplicationWorld) -> None:
    connection = sent(world, b"40", requestOptions={"latencyBudgetMs": 20})
    world.store.answer("7")
    world.wait(0.02)
    (answer,) = connection.answers
    assert answer.json == {"result": {"features": [None, None, "55", None, None]}}


def test_one_callers_timeout_shortens_no_others(world: ApplicationWorld) -> None:
    hasty, patient = sent(world, b"10"), sent(world, b"1000")
    world.wait(0.01)
    assert hasty.answers[0].status == 504
    world.store.answer()
    world.turn()
    assert patient.answers[0].json == {"result": {"features": VALUES}}


def test_a_read_that_fails_because_the_callers_time_is_over_is_told_as_late(world: ApplicationWorld) -> None:
    world.store.failing["u1"] = StoreError("no answer in time", timed_out=True)
    connection = sent(world, b"40")
    world.now_s += 0.039
    world.store.answer()
    world.turn()
    is_refused(connection.answers[0], 504, 4, "No answer within the request's timeout of 0.04 s")


@pytest.mark.parametrize(
    "value",
    [b"", b"0", b"0.0", b"-5", b"+5", b"1e3", b"nan", b"soon", b"5ms", b"5,5", b"\xb2", b"9" * 40, b" 5"],
)
@pytest.mark.parametrize("action", ["get-features", "get-features-batch"])
def test_what_is_no_number_of_milliseconds_is_refused_by_name(
    world: ApplicationWorld, action: str, value: bytes
) -> None:
    connection = sent(world, value, action)
    (answer,) = connection.answers
    assert answer.status == 400
    assert answer.json["message"].startswith(
        "Header `x-request-timeout-ms`: expected a number of milliseconds above 0, got string "
    )
    assert world.store.batches == []
