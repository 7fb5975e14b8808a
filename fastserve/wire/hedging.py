"""When a slow read gets a second copy: how slow is slow, how many copies may go out, and when none does.

Pure: the clock and the count of answers are arguments. Whoever watches the calls (`store.dynamodb.hedging`)
tells the law of those that became slow, so that a call that is answered in time costs nothing here.

The age from which a call is slow is a quantile of the recent calls, found without keeping any of them: per
window the share of calls that grew older than it is counted, and the age is moved until that share is right.

Invariants
1. Copies are at most `SHARE` of the answers, over any stretch, and `BURST` more.
2. The age is never below the floor.
3. While many calls take more than twice the age, no copy goes out: the store is slow as a whole, and copies
   would only be load. The age then creeps, so that it takes a quarter of an hour to call ten times slower the
   usual.

The Tail at Scale (Dean and Barroso, 2013) sends copies after the p95 and reports 1,800 ms of p99.9 down to
74 for 2 % more calls. After the p95 up to 5 % of the calls ask for a copy, which is more than the budget;
most of them are about to be answered. So the last `RESERVE` copies of the budget are for calls that ask a
second time, having grown older since.
"""

from __future__ import annotations

SHARE = 0.028
BURST = 10.0
RESERVE = 5.0
# The share of calls that are to be slow.
SLOW_MAX = 0.05
SLOW_MIN = 0.03
LEARNED = 0.1
# Of calls that take more than twice as long as what is slow; a host among three that is in trouble isn't all.
ALL_SLOW = 0.35
WINDOW_CALLS = 100
WINDOW_S = 0.5
CEILING_S = 10.0
UP, DOWN, LEARN = 1.1, 0.97, 1.5
CREEP_PER_S = 1.0026  # ten times in a quarter of an hour
VERY_SLOW = 2.0


class HedgeLaw:
    """The state of one endpoint's calls. ``after_s`` is the age from which a call is slow."""

    __slots__ = (
        "_answered",
        "_first_answered",
        "_floor_s",
        "_learned",
        "_since_s",
        "_slow",
        "_tokens",
        "_very_slow",
        "after_s",
        "all_slow",
        "copies",
        "won",
    )

    def __init__(self, floor_s: float) -> None:
        self._floor_s = floor_s
        self.after_s = floor_s
        self.all_slow = False
        self.copies = 0
        self.won = 0  # copies whose answer came first
        self._learned = False
        self._tokens = 0.0
        self._answered = 0
        self._first_answered = 0
        self._since_s: float | None = None
        self._slow = 0
        self._very_slow = 0

    def note_slow(self) -> None:
        """Count a call that has become older than ``after_s``."""
        self._slow += 1

    def note_very_slow(self) -> None:
        """Count one that has become `VERY_SLOW` times as old."""
        self._very_slow += 1

    def take(self, *, again: bool = False) -> bool:
        """Pay for one copy; False when none may go out. ``again`` tells that the call has asked before."""
        if self.all_slow or not self._learned or self._tokens < (1.0 if again else RESERVE + 1.0):
            return False
        self._tokens -= 1.0
        self.copies += 1
        return True

    def observe(self, answered: int, now_s: float) -> None:
        """Take in how many calls have been answered since the beginning."""
        self._tokens = min(BURST, self._tokens + SHARE * (answered - self._answered))
        self._answered = answered
        if self._since_s is None:
            self._since_s = now_s
        calls = answered - self._first_answered
        elapsed_s = now_s - self._since_s
        if calls < WINDOW_CALLS or elapsed_s < WINDOW_S:
            return
        self._adjust(self._slow / calls, self._very_slow / calls, elapsed_s)
        self._slow = self._very_slow = 0
        self._first_answered = answered
        self._since_s = now_s

    def _adjust(self, slow: float, very_slow: float, elapsed_s: float) -> None:
        if not self._learned:
            self._learned = slow <= LEARNED
            factor = 1.0 if self._learned else LEARN
        else:
            self.all_slow = very_slow > ALL_SLOW
            if self.all_slow:
                # A pause between calls is no time in which the store was slow.
                factor = CREEP_PER_S ** min(elapsed_s, 10 * WINDOW_S)
            elif slow > SLOW_MAX:
                factor = UP
            else:
                factor = DOWN if slow < SLOW_MIN else 1.0
        self.after_s = min(CEILING_S, max(self._floor_s, self.after_s * factor))
