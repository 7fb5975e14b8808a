"""How many rows may be in flight in one worker: as many as loop and store are measured to keep up with.

It knows no loop, no socket and no clock: someone samples how late the loop is and how long requests stand in
lines (`fastserve.server.loop_probe`), and tells.

Calm, there is one limit, the operator's, and a request costs one comparison. When requests have waited longer
than ``wait_s`` for the whole of `STANDING_S`, the worker sheds: a wait that stands is a queue that more work
than can be done keeps filling, while a burst, a collection of garbage or a slow view passes (the idea of
CoDel, RFC 8289 section 3). Within `RELAPSE_S` of shedding it needn't stand. From then on the limit follows
the measured turns of the loop, so that they are short enough for a refusal to leave within milliseconds. It
ends when nothing was shed for `CALM_AFTER_S`; when for `TRY_AFTER_S` no overload was seen, though some were
refused; or after `TRY_IN_ANY_CASE_S`. An overload is seen where a *crowd*, `ROWS_MIN` requests or more in
flight, stood before a refused one for more than `CROWD_SHARE` of the last second. Refusals beside few
requests only show that a large batch took the room, rare ones that requests come at random.

Invariants:
1. What is refused is refused before its body is read, and costs the store nothing.
2. Requests with keys of priority batch may fill `BATCH_SHARE` of the limit: what live requests leave of the
   capacity is theirs, and they are the first to be shed.
3. While shedding at least `ROWS_MIN` rows may be in flight: one client alone is never shed for being slow to
   answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastserve.wire.http1_answer import error_body

STANDING_S = 0.1
CALM_AFTER_S = 1.0
TRY_AFTER_S = 3.0
"""After so long without an overload seen it is tried without the limit; four times as long after a try that
failed within `RELAPSE_S`, for each of these lets requests wait for ``wait_s`` at least."""
CROWD_S = 1.0
CROWD_SHARE = 0.25
"""Of the time before, averaged over `CROWD_S`, turn by turn. In the model of the loop it is 0.9 at twice the
peak, 0.3 at 1.1 times the peak, 0.2 at the peak, 0.1 and less at 0.9 times the peak, whatever the store
takes."""
RELAPSE_S = 1.0
TRY_IN_ANY_CASE_S = 60.0
"""So long it sheds at most before it is tried without: clients that come back at once when they are refused
would otherwise keep it going, though their requests could be answered."""
CALM_EVERY_S = 0.02
"""Between samples while nothing is late: also how exactly the server timeout is kept."""
CLOSE_EVERY_S = 0.001
"""Between samples while something is: one for each turn that takes longer than this."""
WINDOW_S = 0.02
WINDOW_MAX_S = 0.25
"""The limit is changed when its last change must have shown: after the first of these times at least, at most
after the second, between them once all requests that were in flight at the change have been answered. Without
that a store that takes 100 ms makes it swing, and a third of what could be answered isn't."""
LESS_AT_ONCE, MORE_AT_ONCE, FAR_MORE_AT_ONCE = 0.7, 1.1, 1.5
"""Bounds of the factor by which the limit changes at a time; the last one where turns aren't half as long as
they may be, as with a store that takes its time: with one of 100 ms it changes some six times a second."""
TURN_MAX_S = 0.008
"""A longer turn counts as one of this length: a collection of garbage or a large batch parsed isn't cured by
fewer rows in flight, and one a second would keep the limit at its least for good."""
TURN_S = 0.0017
"""The CPU of a turn that is aimed at while shedding. A refusal waits for the turn it came in, and leaves
while the next one's requests are read, before its evaluations; so such a turn, the reading, and the client's
own time have to fit into 5 ms. Longer ones answered no more over sockets; shorter ones answer fewer in the
model of the loop, and meet what comes at random more often (docs/decisions/0014-reading-first.md)."""
ROWS_START = 64
ROWS_MIN = 8
BATCH_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a request that isn't admitted is answered with."""

    status: int
    body: bytes


OVERLOADED = Refusal(
    503, error_body(503, "Overloaded: more is asked for than can be answered in time; try again later")
)


def over_limit(rows: int) -> Refusal:
    """Return what is answered over the operator's limit."""
    message = f"Over the concurrency limit: expected at most {rows} vectors in flight; try again later"
    return Refusal(429, error_body(429, message))


class Admission:
    """The limit of one worker.

    A request is admitted without a call while fewer than ``limit`` are in flight; else `refusal` decides.
    """

    __slots__ = (
        "_ceiling",
        "_began_s",
        "_crowd_share",
        "_ended_s",
        "_has_priorities",
        "_held",
        "_last_crowd_s",
        "_last_shed_s",
        "_max_rows",
        "_over",
        "_sample_s",
        "_shed_rows",
        "_standing_since_s",
        "_try_after_s",
        "_turns",
        "_wait_s",
        "_was_crowded",
        "_was_shed",
        "_window_start_s",
        "is_shedding",
        "limit",
        "refused",
    )

    def __init__(self, max_rows: int = 10_000, wait_s: float = 0.05, *, has_priorities: bool = False) -> None:
        self._max_rows = max_rows
        self._wait_s = wait_s
        self._has_priorities = has_priorities
        self._over = over_limit(max_rows)
        self._ceiling = max_rows  # of all rows in flight
        self._held = 0  # rows in flight beyond the one that each request counts for
        self._shed_rows = ROWS_START  # the ceiling while shedding, remembered for the next time
        self._standing_since_s: float | None = None
        self._began_s = self._window_start_s = self._sample_s = self._last_shed_s = 0.0
        self._ended_s = -RELAPSE_S
        self._try_after_s = TRY_AFTER_S
        self._turns: list[float] = []
        self._crowd_share = 0.0
        self._was_shed = False  # since the limit was looked at
        self._was_crowded = False  # since the last sample
        self._last_crowd_s = 0.0
        self.is_shedding = False
        self.refused = 0
        self.limit = 0
        self._set_limit()

    # --- requests ---

    def refusal(self, in_flight: int, *, is_batch: bool) -> Refusal | None:
        """Return what to answer in place of vectors, or None for a request that is admitted."""
        ceiling = int(self._ceiling * BATCH_SHARE) if is_batch else self._ceiling
        if in_flight + self._held < ceiling:
            return None
        self.refused += 1
        self._was_shed = True
        self._was_crowded |= in_flight >= ROWS_MIN
        return OVERLOADED if self.is_shedding else self._over

    def hold(self, rows: int) -> None:
        """Count rows in flight that no request stands for; fewer again where ``rows`` is negative."""
        self._held += rows
        self._set_limit()

    def _set_limit(self) -> None:
        share = BATCH_SHARE if self._has_priorities else 1.0
        self.limit = int(self._ceiling * share) - self._held

    # --- measurements ---

    def on_sample(
        self, now_s: float, late_s: float, busy_s: float, line_s: float, oldest_s: float | None
    ) -> float:
        """Take a sample; return in how many seconds to take the next.

        ``late_s`` is how late the loop came to it, ``busy_s`` the CPU that the loop took since the last one,
        ``line_s`` the longer of two waits, of calls to the store for a connection and of requests whose rows
        are there for their turn, ``oldest_s`` when the oldest request in flight came.
        """
        if self.is_shedding:
            ends = self._on_turn(now_s, busy_s, line_s, oldest_s)
            return CALM_EVERY_S if ends else CLOSE_EVERY_S
        # Late for want of a CPU, where others have it, isn't cured by doing less: measured on two CPUs with
        # six busy processes, shedding on that account answered a tenth of what could be.
        waited_s = max(min(late_s, busy_s), line_s)
        since_s = self._standing_since_s
        if waited_s > self._wait_s and now_s - self._ended_s < RELAPSE_S:
            self._begin(now_s)  # no burst: what shedding had kept out is back
            return CLOSE_EVERY_S
        if waited_s <= (self._wait_s / 4 if since_s is None else self._wait_s):
            self._standing_since_s = None
            return CALM_EVERY_S
        if since_s is None:
            self._standing_since_s = now_s
        elif now_s - since_s >= STANDING_S:
            self._begin(now_s)
        return CLOSE_EVERY_S

    def _begin(self, now_s: float) -> None:
        self._standing_since_s = None
        self.is_shedding = True
        is_relapse = now_s - self._ended_s < RELAPSE_S
        self._try_after_s = min(4 * self._try_after_s, TRY_IN_ANY_CASE_S) if is_relapse else TRY_AFTER_S
        self._began_s = self._last_shed_s = self._last_crowd_s = now_s
        self._window_start_s = self._sample_s = now_s
        self._turns.clear()
        self._crowd_share = 0.0
        self._was_shed = self._was_crowded = False
        self._set_ceiling(self._shed_rows)

    def _on_turn(self, now_s: float, busy_s: float, line_s: float, oldest_s: float | None) -> bool:
        """Take the work of one turn while shedding; return whether that ends."""
        weight = min(1.0, (now_s - self._sample_s) / CROWD_S)
        self._crowd_share += (self._was_crowded - self._crowd_share) * weight
        self._was_crowded = False
        self._sample_s = now_s
        turns = self._turns
        turns.append(min(busy_s, TURN_MAX_S))
        start_s = self._window_start_s
        is_old = oldest_s is not None and oldest_s <= start_s
        if now_s - start_s < (WINDOW_MAX_S if is_old else WINDOW_S):
            return False
        # The mean turn that a request meets, which is more likely to be a long one.
        met_s = sum([turn_s * turn_s for turn_s in turns]) / max(sum(turns), 1e-9)
        pressure = max(met_s / TURN_S, line_s / self._wait_s)
        turns.clear()
        self._window_start_s = now_s
        was_shed = self._was_shed
        if was_shed:
            self._last_shed_s = now_s
        if self._crowd_share > CROWD_SHARE:
            self._last_crowd_s = now_s
        self._was_shed = False
        if self._is_over(now_s):
            self.is_shedding = False
            self._ended_s = now_s
            self._set_ceiling(self._max_rows)
            return True
        if was_shed or pressure > 1:  # a limit that wasn't reached shows nothing
            self._set_ceiling(self._next_rows(pressure))
            self._shed_rows = self._ceiling
        return False

    def _is_over(self, now_s: float) -> bool:
        return (
            now_s - self._last_shed_s > CALM_AFTER_S
            or now_s - self._last_crowd_s > self._try_after_s
            or now_s - self._began_s > TRY_IN_ANY_CASE_S
        )

    def _next_rows(self, pressure: float) -> int:
        rows = self._ceiling
        most = MORE_AT_ONCE if pressure > 0.5 else FAR_MORE_AT_ONCE
        factor = min(max(1 / max(pressure, 1e-9), LESS_AT_ONCE), most)
        rows = int(rows * factor) + (factor > 1)
        return min(max(rows, ROWS_MIN), self._max_rows)

    def _set_ceiling(self, rows: int) -> None:
        self._ceiling = min(rows, self._max_rows)
        self._set_limit()
