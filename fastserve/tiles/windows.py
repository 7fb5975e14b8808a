"""Time windows cut into a core and tail tiles.

A window of length w asked at t covers [floor(t - w, hop), t). A compacted row written at ``as_of`` must
answer every t from ``as_of`` until ``as_of + horizon``. What stays inside the window all that time is summed
up in one *core*; what drops out of it as time passes lies in *tail* tiles of one hop each:

    floor(as_of - w, hop)                                            as_of
    |-- tail 0 --|-- tail 1 --|-- … --|---------- core ----------------|
                 ^ the window's start moves over the tails, a hop at a time

At t the first ``(floor(t - w, hop) - floor(as_of - w, hop)) / hop`` tails have dropped out. A window shorter
than the horizon has no core: it is all tails. Nothing is ever subtracted, so minimum, maximum and sketches
work as sums do.

All times are integers in nanoseconds since the epoch; intervals are half-open.

Invariants
1. The number of slots of a window depends on (w, hop, interval, horizon) alone, never on ``as_of``: rows of a
   view have one layout.
2. Core and tails are disjoint and together cover [floor(as_of - w, hop), as_of).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS

CLOCK_SKEW_NS = 60 * SECOND_NS
"""A request clock this much behind a row's as_of is taken for the row's as_of: hosts' clocks differ."""


def floor_to(time_ns: int, step_ns: int) -> int:
    """Return the last multiple of ``step_ns`` (counted from the epoch) at or before ``time_ns``."""
    return time_ns // step_ns * step_ns


def default_hop_ns(window_ns: int, interval_ns: int) -> int:
    """Return how far a window's start moves at once.

    A day for windows from 12 days on, an hour from 12 hours on, else 5 minutes. It is never finer than the
    view's aggregation interval, and always a multiple of it.
    """
    hop = DAY_NS if window_ns >= 12 * DAY_NS else HOUR_NS if window_ns >= 12 * HOUR_NS else 5 * MINUTE_NS
    return -(-hop // interval_ns) * interval_ns


@dataclass(frozen=True, slots=True)
class Window:
    """One window of a view as it is stored: length, hop, interval and horizon in nanoseconds."""

    window_ns: int
    hop_ns: int
    interval_ns: int
    horizon_ns: int

    @property
    def tails(self) -> int:
        """How many tail tiles a row holds for this window."""
        return min(self._drops, self._tiles)

    @property
    def has_core(self) -> bool:
        """Whether anything of the window can stay inside it for the whole horizon."""
        return self._tiles > self._drops

    @property
    def slots(self) -> int:
        """How many numbers a row holds for each component: the core, if any, then the tails."""
        return self.tails + self.has_core

    @property
    def slot_names(self) -> list[str]:
        """What each slot holds, in slot order: the core behind so many tails, or a tail by its number.

        Slots of one name (and window length, hop and as_of) cover the same time, whatever the horizon: a row
        written under another one is never read as if it were of this.
        """
        core = [f"core{self.tails}"] if self.has_core else []
        return core + [str(number) for number in range(self.tails)]

    @property
    def _drops(self) -> int:
        """How many tiles can drop out between as_of and the horizon's end, whatever as_of is."""
        return -(-self.horizon_ns // self.hop_ns)

    @property
    def _tiles(self) -> int:
        """How many tiles [floor(as_of - w, hop), as_of) can touch, whatever as_of is."""
        longest_ns = self.window_ns + self.hop_ns - self.interval_ns
        return -(-longest_ns // self.hop_ns)

    def start_ns(self, time_ns: int) -> int:
        """Return where the window asked at ``time_ns`` starts."""
        return floor_to(time_ns - self.window_ns, self.hop_ns)

    def dropped(self, as_of_ns: int, time_ns: int) -> int:
        """Return how many tails of a row of ``as_of_ns`` lie before the window asked at ``time_ns``."""
        return max(0, (self.start_ns(time_ns) - self.start_ns(as_of_ns)) // self.hop_ns)

    def changes_ns(self, time_ns: int) -> int:
        """Return the first moment after ``time_ns`` at which the window's start moves."""
        return self.start_ns(time_ns) + self.hop_ns + self.window_ns

    def slot_bounds_ns(self, as_of_ns: int) -> list[tuple[int, int]]:
        """Return the half-open interval of every slot of a row of ``as_of_ns``: the core, then the tails."""
        start = self.start_ns(as_of_ns)
        cuts = [start + number * self.hop_ns for number in range(self.tails + 1)]
        tails = [(min(low, as_of_ns), min(high, as_of_ns)) for low, high in pairwise(cuts)]
        return ([(min(cuts[-1], as_of_ns), as_of_ns)] if self.has_core else []) + tails

    def live_slots(self, as_of_ns: int, time_ns: int) -> list[int]:
        """Return the slots that the window asked at ``time_ns`` covers."""
        first = self.dropped(as_of_ns, time_ns)
        core = [0] if self.has_core else []
        return core + [number + self.has_core for number in range(first, self.tails)]


def serves(as_of_ns: int, horizon_ns: int, time_ns: int) -> bool:
    """Whether a row may answer at ``time_ns``: it is neither past its horizon nor from the future."""
    return as_of_ns - CLOCK_SKEW_NS <= time_ns <= as_of_ns + horizon_ns
