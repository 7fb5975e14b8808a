"""One connection, without a socket: bytes go in through its buffer, cut in every way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from fastserve.errors import InvariantError
from fastserve.store.dynamodb.connection import TIMED_OUT, Call, Connection
from fastserve.wire.client_http import Answer
from fastserve.wire.ddb_errors import Failure

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Recorder:
    """Owner, transport and call in one: writes down what happens, in order."""

    payload = b"request"
    timeout_s = 1.0
    deadline_s = 0.0
    resent = False

    def __init__(self) -> None:
        self.log: list[str] = []
        self.resends = False
        self.connection = Connection(self)
        self.connection.connection_made(cast("asyncio.Transport", self))

    @property
    def on_answer(self) -> Callable[[Answer | Failure], None]:
        return self._take

    def _take(self, outcome: Answer | Failure) -> None:
        if isinstance(outcome, Failure):
            self.log.append(outcome.name)
        else:
            self.log.append(bytes(outcome.body).decode())

    def on_free(self, connection: Connection) -> None:
        assert connection.call is None
        self.log.append("free")

    def on_lost(self, connection: Connection) -> None:
        self.log.append("lost")

    def maybe_resend(self, call: Call) -> bool:
        self.log.append("resend?")
        return self.resends

    def write(self, data: bytes) -> None:
        self.log.append(data.decode())

    def abort(self) -> None:
        self.log.append("abort")

    def close(self) -> None:
        self.log.append("close")

    def feed(self, data: bytes) -> None:
        while data:
            buffer = self.connection.get_buffer(-1)
            size = min(len(buffer), len(data))
            buffer[:size] = data[:size]
            self.connection.buffer_updated(size)
            data = data[size:]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_an_answer_frees_the_connection_before_it_is_told(recorder: Recorder) -> None:
    recorder.connection.send(recorder, 0.0)
    recorder.feed(ANSWER)
    assert recorder.log == ["request", "free", "hello"]


@pytest.mark.parametrize("step", [1, 2, 7])
def test_answers_cut_in_pieces_come_out_one_after_the_other(recorder: Recorder, step: int) -> None:
    for _ in range(3):
        recorder.connection.send(recorder, 0.0)
        for start in range(0, len(ANSWER), step):
            recorder.feed(ANSWER[start : start + step])
    assert recorder.log == ["request", "free", "hello"] * 3


def test_a_second_call_before_the_answer_is_our_own_fault(recorder: Recorder) -> None:
    recorder.connection.send(recorder, 0.0)
    with pytest.raises(InvariantError):
        recorder.connection.send(recorder, 0.0)


def test_data_without_a_call_cuts_the_connection(recorder: Recorder) -> None:
    recorder.feed(b"HTTP/1.1 408 Request Timeout\r\n")
    assert recorder.log == ["lost", "abort"]


def test_data_behind_an_answer_closes_the_connection_and_keeps_the_answer(recorder: Recorder) -> None:
    recorder.connection.send(recorder, 0.0)
    recorder.feed(ANSWER + b"H")
    assert recorder.log == ["request", "lost", "close", "hello"]


def test_a_malformed_answer_cuts_the_connection_and_fails_the_call(recorder: Recorder) -> None:
    recorder.connection.send(recorder, 0.0)
    recorder.feed(b"HTTP/1.1 200 OK\r\n\r\n")
    assert recorder.log == ["request", "lost", "abort", "malformed answer"]


def test_a_call_is_late_unless_more_of_its_answer_has_come(recorder: Recorder) -> None:
    connection = recorder.connection
    assert not connection.is_late(1000.0)
    recorder.deadline_s = 103.0
    connection.send(recorder, 100.0)
    assert not connection.is_late(100.9)
    recorder.feed(ANSWER[:5])
    assert not connection.is_late(101.0)
    assert not connection.is_late(101.9)
    recorder.feed(ANSWER[5:9])
    assert not connection.is_late(102.0)
    recorder.feed(ANSWER[9:12])
    assert connection.is_late(103.0), "the deadline is the end"


def test_a_call_is_late_when_its_answer_stops_half_way(recorder: Recorder) -> None:
    recorder.deadline_s = 200.0
    recorder.connection.send(recorder, 100.0)
    recorder.feed(ANSWER[:5])
    assert not recorder.connection.is_late(101.0)
    assert recorder.connection.is_late(102.0)


def test_a_cut_call_has_one_outcome_even_if_the_answer_comes(recorder: Recorder) -> None:
    recorder.connection.send(recorder, 0.0)
    recorder.connection.cut(TIMED_OUT)
    recorder.feed(ANSWER)
    recorder.connection.connection_lost(None)
    assert recorder.log == ["request", "lost", "abort", "timeout", "abort"]


def test_a_loss_fails_the_first_call_of_a_connection(recorder: Recorder) -> None:
    recorder.connection.send(recorder, 0.0)
    recorder.connection.connection_lost(ConnectionResetError("reset"))
    assert recorder.log == ["request", "lost", "connection lost"]


@pytest.mark.parametrize("resends", [True, False])
def test_a_loss_after_an_answer_is_for_the_owner_to_decide(recorder: Recorder, resends: bool) -> None:
    recorder.resends = resends
    recorder.connection.send(recorder, 0.0)
    recorder.feed(ANSWER)
    recorder.connection.send(recorder, 0.0)
    recorder.log.clear()
    recorder.connection.connection_lost(None)
    assert recorder.log == ["lost", "resend?", *([] if resends else ["connection lost"])]


def test_a_loss_in_the_midst_of_an_answer_fails_the_call(recorder: Recorder) -> None:
    recorder.resends = True
    recorder.connection.send(recorder, 0.0)
    recorder.feed(ANSWER)
    recorder.connection.send(recorder, 0.0)
    recorder.feed(ANSWER[:5])
    recorder.log.clear()
    recorder.connection.connection_lost(None)
    assert recorder.log == ["lost", "connection lost"]


def test_the_end_of_an_idle_connection_takes_it_out_of_use_at_once(recorder: Recorder) -> None:
    recorder.connection.eof_received()
    assert recorder.log == ["lost"]
    recorder.connection.connection_lost(None)
    assert recorder.log == ["lost"]


def test_an_answer_larger_than_the_buffer_comes_out_whole(recorder: Recorder) -> None:
    body = bytes(range(32, 127)) * 10_000
    for _ in range(2):
        recorder.log.clear()
        recorder.connection.send(recorder, 0.0)
        recorder.feed(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert recorder.log == ["request", "free", body.decode()]


def test_a_chunked_answer_larger_than_the_buffer_comes_out_whole(recorder: Recorder) -> None:
    body = bytes(range(32, 127)) * 2_000
    recorder.connection.send(recorder, 0.0)
    recorder.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    recorder.feed(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    assert recorder.log == ["request", "free", body.decode()]
