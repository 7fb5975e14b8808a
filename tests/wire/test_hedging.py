"""Which calls get a second copy: the slow ones, as far as the budget goes, and none while all are slow."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from fastserve.wire.hedging import BURST, SHARE, VERY_SLOW, HedgeLaw

FLOOR_S = 0.002
CALLS_PER_S = 1000


class Calls:
    """Calls by some law of latencies, at an even rate; the clock is the count of calls."""

    def __init__(self) -> None:
        self.law = HedgeLaw(FLOOR_S)
        self.made = 0
        self.copied_late = 0

    def make(self, calls: int, latency_s: Callable[[], float]) -> int:
        """Make calls; return how many copies went out for them."""
        before = self.law.copies
        for _ in range(calls):
            self.made += 1
            took_s = latency_s()
            if took_s > self.law.after_s:
                self.law.note_slow()
                if took_s > VERY_SLOW * self.law.after_s:
                    self.law.note_very_slow()
                    self.copied_late += not self.law.take() and self.law.take(again=True)
                else:
                    self.law.take()
            if self.made % 10 == 0:
                self.law.observe(self.made, self.made / CALLS_PER_S)
        return self.law.copies - before


@pytest.fixture
def calls() -> Calls:
    return Calls()


def usual(chance: random.Random, factor: float = 1.0) -> Callable[[], float]:
    """Return latencies around 4 ms with one in a hundred ten times slower."""
    return lambda: factor * chance.lognormvariate(-5.5, 0.25) * (10 if chance.random() < 0.01 else 1)


def test_the_slowest_of_a_hundred_are_copied_and_hardly_any_other(calls: Calls) -> None:
    latency_s = usual(random.Random(1))
    calls.make(30_000, latency_s)
    drawn = [latency_s() for _ in range(10_000)]
    slow = sum(took_s > calls.law.after_s for took_s in drawn)
    assert 150 < slow < 700
    assert 0.006 < calls.law.after_s < 0.015


def test_copies_stay_within_their_share_of_the_calls(calls: Calls) -> None:
    chance = random.Random(2)
    copies = calls.make(50_000, usual(chance))
    assert 250 < copies <= SHARE * 50_000
    # Half as slow again, which calls for many copies until it is usual.
    copies = calls.make(5_000, usual(chance, 1.5))
    assert copies <= SHARE * 5_000 + BURST


def test_what_is_left_of_the_budget_is_for_calls_that_grow_older_still(calls: Calls) -> None:
    chance = random.Random(8)
    calls.make(20_000, usual(chance))
    latencies_s = [usual(chance)() for _ in range(20_000)]
    oldest = sum(took_s > VERY_SLOW * calls.law.after_s for took_s in latencies_s)
    calls.copied_late = 0
    drawn = iter(latencies_s)
    copies = calls.make(20_000, lambda: next(drawn))
    assert SHARE * 20_000 * 0.8 < copies <= SHARE * 20_000 + BURST
    assert calls.copied_late > 0.2 * oldest  # and the others at once


def test_when_all_calls_are_slow_no_copies_go_out(calls: Calls) -> None:
    chance = random.Random(3)
    calls.make(20_000, usual(chance))
    assert calls.make(2_000, usual(chance, 10)) <= SHARE * 2_000
    assert calls.law.all_slow
    assert calls.make(60_000, usual(chance, 10)) == 0  # a minute


def test_when_calls_are_fast_again_copies_go_out_again(calls: Calls) -> None:
    chance = random.Random(4)
    calls.make(20_000, usual(chance))
    before_s = calls.law.after_s
    calls.make(30_000, usual(chance, 10))
    assert calls.make(10_000, usual(chance)) > 50
    assert calls.law.after_s < 1.5 * before_s


def test_no_copy_goes_out_before_it_is_known_what_is_slow(calls: Calls) -> None:
    assert calls.make(400, lambda: 1.0) == 0
    chance = random.Random(5)
    calls.make(30_000, usual(chance, 20))  # a store far away, from the beginning
    assert not calls.law.all_slow
    assert calls.make(10_000, usual(chance, 20)) > 50


def test_the_age_never_falls_below_the_floor(calls: Calls) -> None:
    assert calls.make(50_000, lambda: FLOOR_S * 0.99) == 0
    assert calls.law.after_s == FLOOR_S


def test_a_long_pause_does_not_count_as_slow_time(calls: Calls) -> None:
    chance = random.Random(6)
    calls.make(20_000, usual(chance))
    calls.make(5_000, usual(chance, 10))
    before_s = calls.law.after_s
    for _ in range(1000):
        calls.law.note_slow()
        calls.law.note_very_slow()
    calls.law.observe(calls.made + 1000, calls.made / CALLS_PER_S + 86_400)
    assert calls.law.all_slow
    assert calls.law.after_s < 1.05 * before_s
