"""Tests of `fastserve.serving.admission`: a loop and a store that are late as the test says."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.serving.admission import (
    BATCH_SHARE,
    CALM_AFTER_S,
    CALM_EVERY_S,
    CLOSE_EVERY_S,
    CROWD_S,
    ROWS_MIN,
    ROWS_START,
    STANDING_S,
    TRY_AFTER_S,
    TRY_IN_ANY_CASE_S,
    TURN_S,
    WINDOW_S,
    Admission,
)

WAIT_S = 0.025


class Loop:
    """A loop that takes so long for a turn, sampled as the admission asks for it."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.now_s = 50.0
        self.delay_s = CALM_EVERY_S

    def run(self, duration_s: float, turn_s: float = 0.0, line_s: float = 0.0, *, in_flight: int = 0) -> None:
        """Let time pass; each turn a request comes while ``in_flight`` are there."""
        end_s = self.now_s + duration_s
        while self.now_s < end_s:
            passed_s = max(turn_s, self.delay_s)
            self.now_s += passed_s
            self.admission.refusal(in_flight, is_batch=False)
            self.delay_s = self.admission.on_sample(self.now_s, passed_s - self.delay_s, turn_s, line_s, None)


@pytest.fixture
def admission() -> Admission:
    return Admission(1000, WAIT_S)


def rows_admitted(admission: Admission, *, is_batch: bool = False) -> int:
    return next(rows for rows in range(2000) if admission.refusal(rows, is_batch=is_batch) is not None)


def test_a_calm_worker_admits_up_to_the_operators_limit_and_says_so(admission: Admission) -> None:
    assert admission.limit == 1000
    assert admission.refusal(999, is_batch=False) is None
    refusal = admission.refusal(1000, is_batch=False)
    assert refusal is not None
    assert refusal.status == 429
    assert "at most 1000 vectors" in orjson.loads(refusal.body)["message"]
    assert admission.refused == 1


def test_a_burst_is_no_overload(admission: Admission) -> None:
    loop = Loop(admission)
    for _ in range(20):
        loop.run(STANDING_S * 0.8, turn_s=0.06)
        loop.run(CALM_EVERY_S)
        assert not admission.is_shedding
    assert admission.limit == 1000


def test_a_calm_loop_is_sampled_seldom_and_a_late_one_each_turn(admission: Admission) -> None:
    assert admission.on_sample(1.0, 0.001, 0.1, 0.0, None) == CALM_EVERY_S
    assert admission.on_sample(1.1, 0.02, 0.1, 0.0, None) == CLOSE_EVERY_S
    assert admission.on_sample(1.2, 0.001, 0.1, 0.0, None) == CALM_EVERY_S


def test_a_loop_that_is_late_for_want_of_a_cpu_does_not_shed(admission: Admission) -> None:
    for turn in range(100):
        admission.on_sample(turn * 0.08, 0.08, 0.01, 0.0, None)
    assert not admission.is_shedding


@pytest.mark.parametrize("turn_s, line_s", [(0.08, 0.0), (0.0, 0.03)])
def test_a_wait_that_stands_makes_the_worker_shed(admission: Admission, turn_s: float, line_s: float) -> None:
    loop = Loop(admission)
    loop.run(STANDING_S + 3 * 0.08, turn_s, line_s)
    assert admission.is_shedding
    assert admission.limit <= ROWS_START
    refusal = admission.refusal(admission.limit, is_batch=False)
    assert refusal is not None
    assert refusal.status == 503
    assert "Overloaded" in orjson.loads(refusal.body)["message"]


def test_the_limit_follows_the_turns_of_the_loop(admission: Admission) -> None:
    loop = Loop(admission)
    loop.run(1.0, turn_s=0.08, in_flight=100)
    assert admission.limit == ROWS_MIN
    loop.run(0.5, turn_s=TURN_S * 0.8, in_flight=1000)
    grown = admission.limit
    assert 3 * ROWS_MIN < grown < 1000
    loop.run(3 * WINDOW_S, turn_s=TURN_S * 2, in_flight=1000)
    assert admission.limit < grown * 0.75


def test_a_limit_that_is_not_reached_stays(admission: Admission) -> None:
    loop = Loop(admission)
    loop.run(0.5, turn_s=0.08)
    before = admission.limit
    loop.run(CALM_AFTER_S / 2, turn_s=TURN_S * 0.8)
    assert admission.limit == before
    assert admission.is_shedding


def test_it_ends_when_nothing_has_been_shed_for_a_while(admission: Admission) -> None:
    loop = Loop(admission)
    loop.run(1.0, turn_s=0.08, in_flight=1000)
    loop.run(CALM_AFTER_S + 3 * WINDOW_S)
    assert not admission.is_shedding
    assert admission.limit == 1000
    assert loop.delay_s == CALM_EVERY_S


def test_clients_that_hammer_do_not_keep_it_going_once_they_can_be_answered(admission: Admission) -> None:
    loop = Loop(admission)
    loop.run(1.0, turn_s=0.08, in_flight=1000)
    loop.run(TRY_IN_ANY_CASE_S, turn_s=TURN_S, in_flight=1000)
    assert not admission.is_shedding
    loop.run(1.0, turn_s=0.08, in_flight=1000)
    assert admission.is_shedding


def test_what_was_kept_out_and_is_back_at_once_is_no_burst(admission: Admission) -> None:
    loop = Loop(admission)
    loop.run(1.0, turn_s=0.08, in_flight=1000)
    loop.run(TRY_IN_ANY_CASE_S, turn_s=TURN_S, in_flight=1000)
    assert not admission.is_shedding
    loop.run(0.01, turn_s=WAIT_S)
    assert not admission.is_shedding
    loop.run(0.01, turn_s=0.08)
    assert admission.is_shedding


def test_a_large_batch_in_flight_does_not_keep_it_going(admission: Admission) -> None:
    loop = Loop(admission)
    loop.run(1.0, turn_s=0.08, in_flight=1000)
    admission.hold(99)
    loop.run(TRY_AFTER_S + 0.1, turn_s=TURN_S * 0.9)
    assert not admission.is_shedding
    assert admission.limit == 1000 - 99


def test_tries_beside_large_batches_grow_rare_while_they_fail(admission: Admission) -> None:
    loop, began_s, lengths_s = Loop(admission), 0.0, list[float]()
    while len(lengths_s) < 4:
        was_shedding = admission.is_shedding
        admission.hold(99)
        loop.run(0.001, turn_s=1.01 * TURN_S if was_shedding else 0.08)
        admission.hold(-99)
        if admission.is_shedding and not was_shedding:
            began_s = loop.now_s
        elif was_shedding and not admission.is_shedding:
            lengths_s.append(loop.now_s - began_s)
    assert [round(length_s) for length_s in lengths_s] == [3, 12, 48, 60]


def test_it_begins_anew_where_it_ended(admission: Admission) -> None:
    loop = Loop(admission)
    loop.run(1.0, turn_s=0.08, in_flight=1000)
    loop.run(2 * CALM_AFTER_S)
    loop.run(STANDING_S + 2 * 0.08, turn_s=0.08)
    assert admission.is_shedding
    assert admission.limit == ROWS_MIN


def test_batch_may_fill_a_share_and_live_the_rest() -> None:
    admission = Admission(100, WAIT_S, has_priorities=True)
    assert admission.limit == 100 * BATCH_SHARE
    assert rows_admitted(admission, is_batch=True) == 100 * BATCH_SHARE
    assert rows_admitted(admission) == 100


def test_rows_that_are_held_count(admission: Admission) -> None:
    admission.hold(400)
    assert (admission.limit, rows_admitted(admission)) == (600, 600)
    admission.hold(-400)
    assert admission.limit == 1000


@given(st.lists(st.tuples(st.floats(0, 0.2), st.floats(0, 0.2), st.integers(0, 2000)), max_size=300))
def test_the_limit_stays_between_its_bounds(samples: list[tuple[float, float, int]]) -> None:
    admission = Admission(1000, WAIT_S)
    now_s = 0.0
    for late_s, line_s, in_flight in samples:
        now_s += late_s + CLOSE_EVERY_S
        assert admission.on_sample(now_s, late_s, late_s, line_s, None) in {CALM_EVERY_S, CLOSE_EVERY_S}
        refused = admission.refusal(in_flight, is_batch=False) is not None
        assert refused is (in_flight >= admission.limit)
        assert ROWS_MIN <= admission.limit <= 1000


def test_a_crowd_keeps_it_going_and_a_refusal_now_and_then_does_not(admission: Admission) -> None:
    loop = Loop(admission)
    loop.run(1.0, turn_s=0.08, in_flight=1000)
    loop.run(4 * TRY_AFTER_S, turn_s=TURN_S, in_flight=1000)
    assert admission.is_shedding
    end_s = loop.now_s + 2 * CROWD_S + TRY_AFTER_S
    while loop.now_s < end_s and admission.is_shedding:
        loop.run(0.001, turn_s=TURN_S, in_flight=1000)
        loop.run(CALM_AFTER_S / 5, turn_s=TURN_S)
    assert not admission.is_shedding
