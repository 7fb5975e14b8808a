"""A connection against a server that the test plays: answers come when and how the test says."""

from __future__ import annotations

import asyncio
from typing import Any

import hiredis
import pytest

from fastserve.store.redis.failures import CLOSED, TIMED_OUT, Failure, Kind
from fastserve.store.redis.link import Call, Link, Outcome


class FakeTransport(asyncio.Transport):
    """Keeps what is written; says that it was cut."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.cuts = 0

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        self.cuts += 1


class Scene:
    """A link with a clock of the test's own."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.lost: list[Link] = []
        self.transport = FakeTransport()
        self.link = Link(lambda: self.now_s, self.lost.append)
        self.link.connection_made(self.transport)
        self.outcomes: dict[str, list[Outcome]] = {}

    def call(self, name: str, replies: int = 1, deadline_s: float = 1e9) -> None:
        told: list[Outcome] = self.outcomes.setdefault(name, [])
        self.link.send(Call(name.encode(), replies, deadline_s, told.append))


def test_replies_go_to_calls_in_their_order() -> None:
    scene = Scene()
    scene.call("one")
    scene.call("two", replies=3)
    scene.call("three")
    assert scene.transport.written == b"onetwothree"
    stream = b"*2\r\n$3\r\nabc\r\n$-1\r\n+a\r\n-ERR b\r\n:3\r\n$0\r\n\r\n"
    for at in range(len(stream)):  # byte by byte
        scene.link.data_received(stream[at : at + 1])
    assert scene.outcomes["one"] == [[[b"abc", None]]]
    ((first, second, third),) = [outcome for outcome in scene.outcomes["two"] if isinstance(outcome, list)]
    assert (first, third) == (b"a", 3)
    assert isinstance(second, hiredis.ReplyError)
    assert scene.outcomes["three"] == [[b""]]
    assert not scene.link.busy


def test_many_replies_in_one_piece_are_taken() -> None:
    scene = Scene()
    for number in range(50):
        scene.call(str(number))
    scene.link.data_received(b"".join(b":%d\r\n" % number for number in range(50)))
    assert [scene.outcomes[str(number)] for number in range(50)] == [[[number]] for number in range(50)]


@pytest.mark.parametrize("data", [b"+what\r\n", b"?\r\n"], ids=["unasked", "no reply"])
def test_bytes_that_make_no_sense_cut_the_connection(data: bytes) -> None:
    scene = Scene()
    if data == b"?\r\n":
        scene.call("one")
    scene.link.data_received(data)
    assert scene.transport.cuts == 1
    assert scene.lost == [scene.link]
    for outcomes in scene.outcomes.values():
        (failure,) = outcomes
        assert isinstance(failure, Failure)
        assert failure.kind is Kind.TRANSIENT


def test_a_lost_connection_fails_what_has_no_answer_and_only_once() -> None:
    scene = Scene()
    scene.call("one")
    scene.call("two", replies=2)
    scene.link.data_received(b":1\r\n:2\r\n")
    scene.link.connection_lost(ConnectionResetError("reset"))
    scene.link.cut(CLOSED)
    assert scene.outcomes["one"] == [[1]]
    assert scene.outcomes["two"] == [Failure(Kind.TRANSIENT, "connection lost: reset")]
    assert scene.lost == [scene.link]
    scene.call("late")
    assert scene.outcomes["late"] == [Failure(Kind.TRANSIENT, "connection lost")]


def test_a_call_past_its_deadline_keeps_its_place_and_the_next_gets_its_own_reply() -> None:
    scene = Scene()
    scene.call("hasty", deadline_s=100.2)
    scene.call("patient")
    scene.now_s = 100.3
    scene.link.look(scene.now_s, timeout_s=0.5)
    assert scene.outcomes == {"hasty": [TIMED_OUT], "patient": []}
    scene.link.data_received(b"+first\r\n+second\r\n")
    assert scene.outcomes == {"hasty": [TIMED_OUT], "patient": [[b"second"]]}


def test_silence_cuts_the_connection_and_a_slow_answer_does_not() -> None:
    scene = Scene()
    scene.call("large")
    scene.link.data_received(b"$10\r\n01")
    for _ in range(4):
        scene.now_s += 0.4
        scene.link.look(scene.now_s, timeout_s=0.5)
        scene.link.data_received(b"23")
    scene.link.data_received(b"\r\n")
    assert scene.outcomes["large"] == [[b"0123232323"]]
    scene.now_s += 60
    scene.link.look(scene.now_s, timeout_s=0.5)
    assert scene.transport.cuts == 0  # idle isn't silent
    scene.call("unheard")
    scene.now_s += 0.6
    scene.link.look(scene.now_s, timeout_s=0.5)
    assert scene.transport.cuts == 1
    assert scene.outcomes["unheard"] == [TIMED_OUT]
