"""When to try again: full-jitter delays that stay inside a deadline, and a budget over all calls.

Pure: the clock and the randomness are arguments.

1. A delay never reaches the deadline: after it, at least ``room_s`` is left for the try.
2. A budget grants at most ``capacity`` retries plus a tenth of the successes, so a dead store isn't drowned
   by the retries of its clients: from the 1,000th call on it has seen at most 1.1 times the calls.

Full jitter: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

RETRY_COST = 1.0
GIVE_BACK = 0.1
# Three times the calls that a pool's connections can have under way when all of them break. The SDKs' 500 let
# a store that has just died see five times as many.
CAPACITY = 100.0
# Half of DynamoDB's single reads take 3 to 4 ms: a try with less time than this is wasted.
ROOM_S = 0.004


@dataclass(frozen=True, slots=True)
class Backoff:
    """The n-th delay is uniform over [0, min(cap, base * 2^n))."""

    base_s: float
    cap_s: float


# A fault that a moment cures (a reset, a 500): a read has tens of milliseconds, so the first try comes soon.
TRANSIENT = Backoff(base_s=0.005, cap_s=0.25)
# The store asked for less: DynamoDB's capacity is counted per second.
THROTTLED = Backoff(base_s=0.025, cap_s=1.0)


def delays(
    backoff: Backoff,
    deadline_s: float,
    clock: Callable[[], float],
    uniform: Callable[[], float],
    room_s: float = ROOM_S,
) -> Iterator[float]:
    """Give the delays, in seconds, before the second, third, … try, while there is room for one.

    ``deadline_s`` is on the scale of ``clock``; ``uniform`` draws from [0, 1).  The clock is read when a
    delay is asked for, so the time that the try before it took counts.
    """
    ceiling_s = backoff.base_s
    while (left_s := deadline_s - clock() - room_s) > 0:
        yield min(ceiling_s, left_s) * uniform()
        ceiling_s = min(ceiling_s * 2, backoff.cap_s)


class RetryBudget:
    """Counts what retries may still cost: each takes 1, each success gives 0.1 back."""

    __slots__ = ("_capacity", "tokens")

    def __init__(self, capacity: float = CAPACITY) -> None:
        self._capacity = capacity
        self.tokens = capacity

    def take(self) -> bool:
        """Pay for one retry; False when the budget is spent."""
        if self.tokens < RETRY_COST:
            return False
        self.tokens -= RETRY_COST
        return True

    def give_back(self) -> None:
        """Note a success."""
        tokens = self.tokens
        if tokens < self._capacity:
            self.tokens = min(tokens + GIVE_BACK, self._capacity)
