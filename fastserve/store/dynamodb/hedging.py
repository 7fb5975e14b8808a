"""Second copies of slow reads, sent on another connection: whose answer comes first counts.

Looks at a pool's busy connections by a timer of its own. A call that is answered before it is slow isn't
touched: what makes a pair of it takes the call's place on its connection only when a copy goes out.

Invariants
1. A call has one outcome, whatever comes for it and for its copy. The first answer with status 200 is it; a
   failure or a refusal is passed on only when the other of the two can bring nothing better.
2. Only reads are copied, each once, and a copy never waits in line: with all connections busy none goes out.
3. A call counts as slow only if its answer isn't there after the kernel has been asked once more: after a
   long turn of the loop, answers lie there unread.
"""

from __future__ import annotations

import asyncio

from fastserve.store.dynamodb.call import Try
from fastserve.store.dynamodb.connection import Call, Connection
from fastserve.store.dynamodb.pool import Pool
from fastserve.wire.client_http import Answer
from fastserve.wire.ddb_errors import Failure
from fastserve.wire.hedging import VERY_SLOW, HedgeLaw

# No timer of a loop is more exact than this, and each look costs a few microseconds.
LOOK_AGAIN_S = 0.002
# Where half of at least so many calls under way are slow, or soon will be, nothing is to be gained elsewhere.
MANY = 4
SOON = 0.75
# A slow call that got no copy, for lack of budget or for many others that were slow, may get one a bit later.
TRY_AGAIN = 0.25
TOO_LATE = 8.0
NEVER = float("inf")

SLOW_MARK, VERY_SLOW_MARK = 1, 2


class Hedger:
    """Watches a pool while it has calls under way, and sends copies as the law says."""

    __slots__ = ("_aged", "_busy", "_loop", "_marks", "_pool", "_timer", "law")

    def __init__(self, pool: Pool, law: HedgeLaw, loop: asyncio.AbstractEventLoop) -> None:
        self.law = law
        self._pool = pool
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        # Which calls under way have been counted, by connection: the call, and as what.
        self._marks: dict[Connection, tuple[Call, int]] = {}
        self._busy = self._aged = 0

    def watch(self) -> None:
        """Begin to look; it ends by itself when the pool has nothing under way."""
        if self._timer is None:
            self._timer = self._loop.call_later(self.law.after_s, self._look)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Find the calls that have become slow, and when the next one will."""
        now_s = self._loop.time()
        law, pool = self.law, self._pool
        law.observe(pool.answered - law.copies, now_s)
        next_s = now_s + law.after_s
        suspects: list[tuple[Connection, Call]] = []
        marks, self._marks = self._marks, {}
        self._busy = self._aged = 0
        for connection in pool.connections:
            call = connection.call
            if call is None or (type(call) is Copy and call.is_second):
                continue
            if type(call) is not Copy:
                self._busy += 1
                self._aged += now_s - connection.sent_s >= SOON * law.after_s
            known = marks.get(connection)
            mark = 0
            if known is not None and known[0] is call:
                mark = known[1]
                self._marks[connection] = known
            due_s = self._due_s(connection, mark, now_s)
            if due_s <= now_s:
                suspects.append((connection, call))
            else:
                next_s = min(next_s, due_s)
        if suspects:
            # The first hop still comes before the loop asks the kernel, the second after it.
            self._loop.call_soon(self._loop.call_soon, self._settle_suspects, suspects)
            next_s = min(next_s, now_s + law.after_s * TRY_AGAIN)
        delay_s = max(LOOK_AGAIN_S, next_s - now_s)
        self._timer = self._loop.call_later(delay_s, self._look) if pool.is_watched else None

    def _due_s(self, connection: Connection, mark: int, now_s: float) -> float:
        """Return when there is something to be done about a call."""
        sent_s, after_s = connection.sent_s, self.law.after_s
        if mark == 0:
            return sent_s + after_s
        if (
            type(connection.call) is not Copy
            and not self.law.all_slow
            and now_s < sent_s + after_s * TOO_LATE
        ):
            return now_s  # it is slow and has no copy: perhaps it may have one now
        return NEVER if mark == VERY_SLOW_MARK else sent_s + after_s * VERY_SLOW

    def _settle_suspects(self, suspects: list[tuple[Connection, Call]]) -> None:
        law = self.law
        now_s = self._loop.time()
        most_are_slow = self._busy >= MANY and 2 * self._aged >= self._busy
        for connection, call in suspects:
            if connection.call is not call:
                continue
            before = self._marks.get(connection)
            if before is None:
                law.note_slow()
            mark = SLOW_MARK if before is None else before[1]
            if mark == SLOW_MARK and now_s - connection.sent_s >= law.after_s * VERY_SLOW:
                law.note_very_slow()
                mark = VERY_SLOW_MARK
            may_be_copied = isinstance(call, Try) and call.is_read
            current = call
            if (
                may_be_copied
                and not most_are_slow
                and self._pool.has_room
                and law.take(again=before is not None)
            ):
                current = self._send_copy(connection, call)
            self._marks[connection] = (current, mark)

    def _send_copy(self, connection: Connection, call: Call) -> Copy:
        pair = Pair(call, self.law)
        first = connection.call = Copy(pair, call, call.timeout_s, is_second=False)
        age_s = self._loop.time() - connection.sent_s
        # Both have their time at the same moment, so that the pair takes no longer than a call alone.
        left_s = max(call.timeout_s - age_s, self.law.after_s)
        self._pool.request(Copy(pair, call, left_s, is_second=True))
        return first


class Pair:
    """A call that is on its way twice."""

    __slots__ = ("_call", "_is_done", "_law", "_open")

    def __init__(self, call: Call, law: HedgeLaw) -> None:
        self._call = call
        self._law = law
        self._open = 2
        self._is_done = False

    def on_outcome(self, outcome: Answer | Failure, *, is_second: bool) -> None:
        """Take the outcome of one of the two."""
        self._open -= 1
        is_sound = isinstance(outcome, Answer) and outcome.status == 200
        if self._is_done or not (is_sound or self._open == 0):
            return
        self._is_done = True
        if is_second and is_sound:
            self._law.won += 1
        self._call.on_answer(outcome)


class Copy:
    """One of the two: a `Call` that tells its pair."""

    __slots__ = ("_pair", "deadline_s", "is_second", "payload", "resent", "timeout_s")

    def __init__(self, pair: Pair, call: Call, timeout_s: float, *, is_second: bool) -> None:
        self._pair = pair
        self.is_second = is_second
        self.payload = call.payload
        self.timeout_s = timeout_s
        self.deadline_s = call.deadline_s
        self.resent = call.resent

    def on_answer(self, answer: Answer | Failure) -> None:
        """Hand the outcome to the pair."""
        self._pair.on_outcome(answer, is_second=self.is_second)
