"""When a store counts as dead, and when it is asked again: closed, open, half-open.

Pure: the clock, the randomness and the count of good answers are arguments. A closed circuit is told of
failures alone, so that answers cost nothing here.

    closed ----- FAILURES in a row, over STREAK_S at least ----> open
    open ------- its pause is over and a call comes -----------> half-open: that call is a probe
    half-open -- PROBES good probes, one after the other ------> closed
    half-open -- a probe fails --------------------------------> open, for twice as long

Invariants
1. One good answer between failures keeps the circuit closed: it is for a store that is gone. What fails in
   part is the business of retries.
2. While it isn't closed, at most one call is on its way.
"""

from __future__ import annotations

from collections.abc import Callable

FAILURES = 10
# A server that restarts breaks all connections at once; that is over in less.
STREAK_S = 0.25
# What the time between two failures counts for at most: when our own process was held up for a second, then
# calls that had their answers waiting fail together, and that second says nothing about the store.
STEP_MAX_S = 0.1
PROBES = 3
PAUSE_S = 0.25
PAUSE_MAX_S = 5.0


class Circuit:
    """The state of one endpoint."""

    __slots__ = (
        "_good",
        "_good_probes",
        "_pause_s",
        "_lasted_s",
        "_last_s",
        "_streak",
        "_uniform",
        "_until_s",
        "is_probed",
    )

    def __init__(self, uniform: Callable[[], float]) -> None:
        self._uniform = uniform
        self._streak = 0
        self._lasted_s = 0.0
        self._last_s = 0.0
        self._good = -1
        self._pause_s = PAUSE_S
        self._until_s: float | None = None  # None: closed
        self._good_probes = 0
        self.is_probed = False

    @property
    def is_closed(self) -> bool:
        """Whether calls go through."""
        return self._until_s is None

    def on_failure(self, good: int, now_s: float) -> bool:
        """Take in a failure, and how many good answers there have been so far. True if that opens it."""
        if not self.is_closed:
            return False
        if good != self._good:
            self._good = good
            self._streak = 0
            self._lasted_s = 0.0
            self._last_s = now_s
        self._streak += 1
        self._lasted_s += min(now_s - self._last_s, STEP_MAX_S)
        self._last_s = now_s
        if self._streak < FAILURES or self._lasted_s < STREAK_S:
            return False
        self._open(PAUSE_S, now_s)
        return True

    def may_probe(self, now_s: float) -> bool:
        """Say whether a call may go through an open circuit; it then has to be followed by an `on_probe`."""
        if self._until_s is None or self.is_probed or now_s < self._until_s:
            return False
        self.is_probed = True
        return True

    def on_probe(self, went_well: bool | None, now_s: float) -> bool:
        """Take in a probe's outcome, None if it says nothing about the store. True if that closes it."""
        self.is_probed = False
        if went_well is None:
            return False
        if not went_well:
            self._open(min(2 * self._pause_s, PAUSE_MAX_S), now_s)
            return False
        self._good_probes += 1
        if self._good_probes < PROBES:
            return False
        self._until_s = None
        self._good = -1
        return True

    def _open(self, pause_s: float, now_s: float) -> None:
        self._pause_s = pause_s
        self._good_probes = 0
        # Spread, so that the workers of a fleet don't ask in step.
        self._until_s = now_s + pause_s * (0.5 + 0.5 * self._uniform())
