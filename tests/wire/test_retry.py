"""Delays stay inside the deadline and spread over the whole of their range; the budget counts."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from fastserve.wire.retry import THROTTLED, TRANSIENT, Backoff, RetryBudget, delays


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    waits = delays(Backoff(0.01, 0.05), 1000.0, Clock(), lambda: 0.5)
    assert list(islice(waits, 5)) == [0.005, 0.01, 0.02, 0.025, 0.025]


def test_no_delay_is_given_once_the_deadline_has_no_room_for_a_try() -> None:
    clock = Clock()
    waits = delays(TRANSIENT, 100.0105, clock, lambda: 0.0)
    assert next(waits) == 0.0
    clock.now_s = 100.0066
    assert list(waits) == []


@given(
    st.floats(0.0, 2.0),
    st.lists(st.floats(0.0, 0.999), min_size=1, max_size=50),
    st.lists(st.floats(0.0, 0.1), min_size=1, max_size=50),
    st.sampled_from([TRANSIENT, THROTTLED]),
)
def test_waiting_as_told_never_passes_the_deadline(
    budget_s: float, draws: list[float], tries_s: list[float], backoff: Backoff
) -> None:
    clock = Clock()
    deadline_s = clock.now_s + budget_s
    drawn = iter(draws * 10)
    tries = iter(tries_s * 10)
    for delay_s in islice(delays(backoff, deadline_s, clock, lambda: next(drawn)), 10):
        assert 0.0 <= delay_s <= backoff.cap_s
        clock.now_s += delay_s
        assert clock.now_s < deadline_s
        clock.now_s += next(tries)


def test_a_full_budget_pays_for_its_capacity_and_no_more() -> None:
    budget = RetryBudget(3.0)
    assert [budget.take() for _ in range(5)] == [True, True, True, False, False]


def test_ten_successes_pay_for_one_retry() -> None:
    budget = RetryBudget(1.0)
    assert budget.take()
    for _ in range(9):
        budget.give_back()
        assert not budget.take()
    budget.give_back()
    budget.give_back()
    assert budget.take()


def test_successes_fill_the_budget_to_its_capacity_only() -> None:
    budget = RetryBudget(2.0)
    for _ in range(1000):
        budget.give_back()
    assert [budget.take() for _ in range(3)] == [True, True, False]
