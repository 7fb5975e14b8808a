"""Time windows cut into a core, tail tiles and head tiles.

A window of length w asked at t covers [floor(t - w, hop), t). A compacted row written at ``as_of`` must
answer every t from ``as_of`` until ``as_of + horizon``. What stays inside the window all that time is summed
up in one *core*; what drops out of it as time passes lies in *tail* tiles of one hop each:

    floor(as_of - w, hop)                                            as_of
    |-- tail 0 --|-- tail 1 --|-- … --|---------- core ----------------|
                 ^ the window's start moves over the tails, a hop at a time

At t the first ``(floor(t - w, hop) - floor(as_of - w, hop)) / hop`` tails have dropped out. A window shorter
than the horizon has no core: it is all tails. Nothing is ever subtracted, so minimum, maximum and sketches
work as sums do.

A window with an ``offset`` below zero covers [floor(t + offset - w, hop), floor(t + offset, hop)): its end
lies in the past, and what comes into it until the horizon is known in part when the row is written. That lies
in *head* tiles of one hop each, from floor(as_of + offset, hop) on, as far as they lie before ``as_of``. A
head counts once the window's end has passed all of it, and until its start has.

A lifetime has no start: it is one core. With ``complete_only`` (``leading_edge="last_complete_tile"``) a
window without an offset ends at floor(t, interval) and not at t. Rows end there anyway; it matters for the
events of streams.

All times are integers in nanoseconds since the epoch; intervals are half-open.

Invariants
1. The number of slots of a window depends on (w, hop, interval, horizon, offset) alone, never on ``as_of``:
   rows of a view have one layout.
2. Core, tails and heads are disjoint. Core and tails together are the window asked at ``as_of``, heads what
   follows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS
HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS

LIFETIME_NS = 2**63 - 1
"""The length of a window without a start."""
BEGINNING_NS = -(2**63) + 1
"""Before every event."""
NEVER_NS = 2**63 - 1

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
    """One window of a view as it is stored, in nanoseconds.

    ``offset_ns`` is zero or below.
    """

    window_ns: int
    hop_ns: int
    interval_ns: int
    horizon_ns: int
    offset_ns: int = 0
    complete_only: bool = False

    @property
    def text(self) -> str:
        """The window's part of its components' names in a layout: what its slots' bounds depend on."""
        if self.is_lifetime:
            return "lifetime"
        return f"{self.window_ns}{self.offset_ns or ''}:{self.hop_ns}"

    @property
    def is_lifetime(self) -> bool:
        """Whether the window has no start."""
        return self.window_ns == LIFETIME_NS

    # --- slots ----------------------------------------------------------------------------------------------

    @property
    def tails(self) -> int:
        """How many tail tiles a row holds for this window."""
        return 0 if self.is_lifetime else min(self._moves, self._tiles)

    @property
    def has_core(self) -> bool:
        """Whether anything of the window can stay inside it for the whole horizon."""
        return self.is_lifetime or self._tiles > self._moves

    @property
    def heads(self) -> int:
        """How many head tiles a row holds for this window: none without an offset."""
        if not self.offset_ns:
            return 0
        # as_of lies at most so far behind floor(as_of + offset, hop)
        longest_ns = self.hop_ns - self.interval_ns - self.offset_ns
        return min(self._moves, -(-longest_ns // self.hop_ns))

    @property
    def slots(self) -> int:
        """How many slots a row holds for each component: the core, if any, then the tails, then the heads."""
        return self.has_core + self.tails + self.heads

    @property
    def slot_names(self) -> list[str]:
        """What each slot holds, in slot order: the core behind so many tails, or a tile by its number.

        Slots of one name (and window length, offset, hop and as_of) cover the same time, whatever the
        horizon: a row written under another one is never read as if it were of this.
        """
        core = [f"core{self.tails}"] if self.has_core else []
        tails = [str(number) for number in range(self.tails)]
        return core + tails + [f"head{number}" for number in range(self.heads)]

    @property
    def slots_in_time_order(self) -> list[int]:
        """The slots, the one that covers the earliest time first: tails, core, heads."""
        tails = list(range(self.has_core, self.has_core + self.tails))
        return tails + [0] * self.has_core + list(range(self.has_core + self.tails, self.slots))

    @property
    def _moves(self) -> int:
        """How often the start (or the end, with an offset) can move from as_of to the horizon's end."""
        return -(-self.horizon_ns // self.hop_ns)

    @property
    def _tiles(self) -> int:
        """How many tiles the window asked at as_of can touch, whatever as_of is."""
        unaligned_ns = 0 if self.offset_ns else self.hop_ns - self.interval_ns
        return -(-(self.window_ns + unaligned_ns) // self.hop_ns)

    # --- where it lies --------------------------------------------------------------------------------------

    def start_ns(self, time_ns: int) -> int:
        """Return where the window asked at ``time_ns`` starts."""
        if self.is_lifetime:
            return BEGINNING_NS
        return floor_to(time_ns + self.offset_ns - self.window_ns, self.hop_ns)

    def end_ns(self, time_ns: int) -> int:
        """Return where the window asked at ``time_ns`` ends: before it or there."""
        if self.offset_ns:
            return floor_to(time_ns + self.offset_ns, self.hop_ns)
        return floor_to(time_ns, self.interval_ns) if self.complete_only else time_ns

    def dropped(self, as_of_ns: int, time_ns: int) -> int:
        """Return how many tails of a row of ``as_of_ns`` lie before the window asked at ``time_ns``."""
        if self.is_lifetime:
            return 0
        return max(0, (self.start_ns(time_ns) - self.start_ns(as_of_ns)) // self.hop_ns)

    def changes_ns(self, time_ns: int) -> int:
        """Return the first moment after ``time_ns`` at which other slots of a row count: see `live_slots`."""
        if self.is_lifetime:
            return NEVER_NS
        change = self.start_ns(time_ns) + self.hop_ns + self.window_ns - self.offset_ns
        if not self.offset_ns:
            return change
        return min(change, self.end_ns(time_ns) + self.hop_ns - self.offset_ns)

    def slot_bounds_ns(self, as_of_ns: int) -> list[tuple[int, int]]:
        """Return the half-open interval of every slot of a row of ``as_of_ns``, in slot order."""
        start, end = self.start_ns(as_of_ns), self._row_end_ns(as_of_ns)
        if self.is_lifetime:
            return [(start, end)]
        cuts = [start + number * self.hop_ns for number in range(self.tails + 1)]
        tails = [(min(low, end), min(high, end)) for low, high in pairwise(cuts)]
        core = [(min(cuts[-1], end), end)] if self.has_core else []
        heads = [end + number * self.hop_ns for number in range(self.heads + 1)]
        return core + tails + [(min(low, as_of_ns), min(high, as_of_ns)) for low, high in pairwise(heads)]

    def bounds_ns(self, as_of_ns: int) -> tuple[int, int]:
        """Return the start of the first slot and the end of the last of a row of ``as_of_ns``."""
        end = self._row_end_ns(as_of_ns)
        return self.start_ns(as_of_ns), min(end + self.heads * self.hop_ns, as_of_ns)

    def _row_end_ns(self, as_of_ns: int) -> int:
        return self.end_ns(as_of_ns) if self.offset_ns else as_of_ns

    def live_slots(self, as_of_ns: int, time_ns: int) -> list[int]:
        """Return the slots that the window asked at ``time_ns`` covers, in slot order."""
        first = self.dropped(as_of_ns, time_ns)
        core = [0] if self.has_core else []
        tails = [number + self.has_core for number in range(first, self.tails)]
        if not self.heads:
            return core + tails
        gone, come = self.moved_heads(as_of_ns, time_ns)
        behind = self.has_core + self.tails
        return core + tails + [behind + number for number in range(max(0, gone), min(come, self.heads))]

    def moved_heads(self, as_of_ns: int, time_ns: int) -> tuple[int, int]:
        """Return how many heads lie before the window's start, and how many before its end.

        Both may be below zero or above the number of heads.
        """
        time_ns = max(time_ns, as_of_ns)
        end = self._row_end_ns(as_of_ns)
        return (self.start_ns(time_ns) - end) // self.hop_ns, (self.end_ns(time_ns) - end) // self.hop_ns


def serves(as_of_ns: int, horizon_ns: int, time_ns: int) -> bool:
    """Whether a row may answer at ``time_ns``: it is neither past its horizon nor from the future."""
    return as_of_ns - CLOCK_SKEW_NS <= time_ns <= as_of_ns + horizon_ns
