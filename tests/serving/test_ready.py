from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.serving.ready import AT_ONCE, LONG_TURN_S, MAX_TOGETHER, WAITING_SHARE_S, ReadyRequests, Turns


@dataclass(eq=False)
class Service:
    lines_at_once: int = 64


@dataclass(eq=False)
class Request:
    runtime: Service
    lines: int = 1


USERS = Service()
CARDS = Service()


def request(runtime: Service = USERS, lines: int = 1) -> Any:
    return Request(runtime, lines)


class Loop:
    """A loop's turns in made-up time; each evaluation takes ``cost_s`` a line."""

    def __init__(self, cost_s: float) -> None:
        self.now_s = 10.0
        self.held_up_s = 0.0
        self.groups: list[list[Any]] = []
        self.failing: list[Any] = []
        self.after: dict[int, list[Any]] = {}  # what becomes ready by the answers of a group
        self._cost_s = cost_s
        self._next: list[Any] = []
        turns = Turns(self._next.append, lambda: self.now_s, lambda: self.now_s - self.held_up_s)
        self.ready = ReadyRequests(turns, self._evaluate)

    def _evaluate(self, runtime: Any, requests: list[Any]) -> None:
        assert {id(request.runtime) for request in requests} == {id(runtime)}
        self.groups.append(requests)
        if requests == self.failing:
            raise ArithmeticError
        self.now_s += self._cost_s * sum(request.lines for request in requests)
        if len(self.groups) in self.after:
            self.ready.add(self.after[len(self.groups)])

    def end_turn(self) -> None:
        """Run what was to be called; what it asks for is called a turn later."""
        called, self._next[:] = self._next[:], []
        assert len(called) <= 1
        for function in called:
            function()

    @property
    def is_idle(self) -> bool:
        return not self._next

    @property
    def evaluated(self) -> list[Any]:
        return [request for group in self.groups for request in group]


def test_ready_requests_are_evaluated_at_once_by_services() -> None:
    loop = Loop(cost_s=0.0001)
    first, second, third = request(), request(CARDS), request()

    loop.ready.add([first, second, third])

    assert loop.groups == [[first, third], [second]]
    assert loop.ready.wait_s() == 0.0
    loop.end_turn()
    assert loop.is_idle


def test_in_a_long_turn_they_wait_until_the_loop_has_looked_for_what_has_come() -> None:
    loop = Loop(cost_s=LONG_TURN_S)
    first, second, third = request(), request(), request()
    loop.ready.add([first])
    loop.ready.add([second])
    loop.ready.add([third])
    assert loop.groups == [[first]]

    loop.end_turn()
    assert loop.groups == [[first]]

    loop.end_turn()
    assert loop.groups == [[first], [second, third]]
    assert loop.is_idle


def test_what_waits_gets_its_share_of_each_turn_and_what_comes_stands_behind_it() -> None:
    loop = Loop(cost_s=1.01 * WAITING_SHARE_S / MAX_TOGETHER)
    long = request(lines=2 * MAX_TOGETHER)
    many = [request() for _ in range(2 * MAX_TOGETHER + 1)]
    late = request(CARDS)
    loop.ready.add([long])
    loop.ready.add(many)
    loop.end_turn()
    loop.ready.add([late])

    turns = []
    while not loop.is_idle:
        before = len(loop.evaluated)
        loop.end_turn()
        turns.append(loop.evaluated[before:])

    assert turns == [many[:MAX_TOGETHER], many[MAX_TOGETHER:-1], [many[-1], late]]


def test_a_request_of_many_lines_is_evaluated_alone() -> None:
    loop = Loop(cost_s=1.0)
    small, long, other = request(), request(lines=1000), request()
    loop.ready.add([request()])
    loop.ready.add([small, long, other])
    for _ in range(4):
        loop.end_turn()

    assert loop.groups[1:] == [[small], [long], [other]]


def test_what_becomes_ready_by_an_answer_stands_behind_what_waits() -> None:
    loop = Loop(cost_s=1.0)
    second, third, fourth = request(), request(CARDS), request()
    loop.after = {2: [fourth]}
    loop.ready.add([request()])
    loop.ready.add([second, third])
    for _ in range(4):
        loop.end_turn()

    assert loop.evaluated[1:] == [second, third, fourth]
    assert loop.is_idle


def test_where_reading_goes_first_they_are_evaluated_at_the_turn_s_end() -> None:
    loop = Loop(cost_s=LONG_TURN_S)
    loop.ready.reads_first = True
    first, second = request(), request(CARDS)
    loop.ready.add([first, second])
    assert not loop.groups

    loop.end_turn()
    assert loop.groups == [[first]]

    loop.ready.reads_first = False
    loop.end_turn()
    assert loop.groups == [[first], [second]]
    assert loop.is_idle


def test_a_group_that_fails_keeps_nobody_behind_it_waiting() -> None:
    loop = Loop(cost_s=1.0)
    first, second, third = request(), request(CARDS), request()
    loop.ready.add([first])
    loop.failing = [second]
    loop.ready.add([second, third])
    loop.end_turn()
    with pytest.raises(ArithmeticError):
        loop.end_turn()
    loop.end_turn()

    assert loop.groups == [[first], [second], [third]]
    assert loop.is_idle


def test_what_one_answer_makes_ready_is_cut_too() -> None:
    loop = Loop(cost_s=LONG_TURN_S / AT_ONCE)
    hot = [request() for _ in range(3 * AT_ONCE)]
    loop.ready.add(hot)
    assert loop.evaluated == hot[:AT_ONCE]
    assert loop.ready.wait_s() == 0.0

    loop.now_s += 0.25
    assert loop.ready.wait_s() == 0.25
    while not loop.is_idle:
        loop.end_turn()
    assert loop.evaluated == hot
    assert {len(group) for group in loop.groups[1:]} == {MAX_TOGETHER}


def test_a_group_that_fails_at_once_keeps_nobody_behind_it_waiting() -> None:
    loop = Loop(cost_s=0.0)
    first, second = request(), request(CARDS)
    loop.failing = [first]
    with pytest.raises(ArithmeticError):
        loop.ready.add([first, second])
    assert loop.ready.wait_s() == 0.0
    loop.end_turn()
    loop.end_turn()

    assert loop.groups == [[first], [second]]
    assert loop.is_idle


def test_how_long_they_wait_is_counted_while_the_loop_has_a_cpu() -> None:
    loop = Loop(cost_s=1.0)
    loop.ready.add([request()])
    loop.now_s += 2.0
    loop.ready.add([request(lines=MAX_TOGETHER), request()])
    assert loop.ready.wait_s() == 0.0

    loop.now_s += 0.25
    loop.held_up_s += 0.125
    assert loop.ready.wait_s() == 0.125

    loop.end_turn()
    loop.end_turn()
    assert loop.ready.wait_s() == 0.125 + MAX_TOGETHER

    loop.end_turn()
    assert loop.ready.wait_s() == 0.0


@given(
    st.lists(
        st.one_of(
            st.none(),
            st.booleans(),
            st.lists(st.tuples(st.sampled_from([USERS, CARDS]), st.integers(1, 40)), min_size=1, max_size=6),
        ),
        max_size=30,
    ),
    st.floats(0.0, 0.005),
    st.dictionaries(st.integers(1, 10), st.lists(st.sampled_from([USERS, CARDS]), min_size=1, max_size=3)),
)
def test_each_request_is_evaluated_once_in_the_order_of_its_service(
    steps: list[list[tuple[Any, int]] | bool | None],
    cost_s: float,
    after: dict[int, list[Any]],
) -> None:
    loop = Loop(cost_s)
    loop.after = {number: [request(runtime) for runtime in runtimes] for number, runtimes in after.items()}
    added: list[Any] = []
    for step in steps:
        if step is None:
            loop.end_turn()
        elif isinstance(step, bool):
            loop.ready.reads_first = step
        else:
            some = [request(*each) for each in step]
            added += some
            loop.ready.add(some)
    while not loop.is_idle:
        loop.end_turn()

    evaluated = loop.evaluated
    assert len(evaluated) == len({id(each) for each in evaluated})
    by_answers = [
        each for number, ready in loop.after.items() if number <= len(loop.groups) for each in ready
    ]
    assert {id(each) for each in evaluated} == {id(each) for each in added + by_answers}
    for runtime in (USERS, CARDS):
        own = [each for each in evaluated if each.runtime is runtime and each in added]
        assert own == [each for each in added if each.runtime is runtime]
    assert loop.ready.wait_s() == 0.0
