"""The coalescer's core: one read on the wire for all requests that wait for the same key.

It collects the keys that in-flight requests ask for, drops what is asked twice, joins what is already on the
wire and hands full or end-of-turn batches to a store's ``fetch``. It knows no store, no clock and no loop:
when to flush is decided by the ``schedule`` it is given.

Invariants
1. At most one unsettled `KeyRead` exists for a (read group, key) pair; later askers wait for that one. Of a
   group that is pushed to, that holds until it is sent: whoever asks after a push was answered, by whatever
   process, must not be told what was read before it.
2. A batch weighs at most ``max_keys`` keys, and no (table, key) pair stands in a batch twice.
3. Every read is settled once. A second settle of the same read changes nothing, so that a late answer never
   reaches a later request.
4. A waiter is told once, when the last read it waits for is settled, and never after it gave up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

from fastserve.errors import StoreError
from fastserve.plan.reads import ReadGroup

GAVE_UP = -1
"""A waiter's count once it was answered without its reads: counting down from here never reaches 0."""


class Waiter(Protocol):
    """Whoever waits for reads: ``waiting`` is how many of them are not settled yet."""

    waiting: int


class KeyRead:
    """One entity key of one read group on its way to the store and back.

    ``rows`` has one place per table of the group, or per attribute of its bundle: base64 text, bytes, or None
    where there is no such row. It is meaningful once ``settled`` is true and ``error`` is None.
    """

    __slots__ = ("deadline_s", "error", "group", "joined", "key", "rows", "settled", "waiter")
    is_cached: ClassVar[bool] = False

    def __init__(self, group: ReadGroup, key: str, deadline_s: float, waiter: Waiter | None = None) -> None:
        self.group = group
        self.key = key
        self.deadline_s = deadline_s
        self.rows: Any = ()  # a list once they have come
        self.error: StoreError | None = None
        self.settled = False
        self.waiter = waiter
        self.joined: list[Waiter] | None = None  # who came later: mostly nobody


class Reader(Protocol):
    """A store's hot side."""

    max_keys: int

    def fetch(self, reads: Sequence[KeyRead]) -> None:
        """Read all keys of ``reads`` and settle each; never raises."""


class Coalescer:
    """Collects reads, hands them to ``fetch`` in batches, wakes waiters.

    ``schedule(flush)`` must call ``flush`` soon, typically at the end of the loop's turn; it must not call it
    at once. ``on_ready(waiters)`` is called with the waiters whose last read was just settled. ``has_pushed``
    tells that some groups are pushed to, ``has_bundles`` that some weigh more than they have keys.
    """

    __slots__ = (
        "_apart",
        "_fetch",
        "_has_bundles",
        "_has_pushed",
        "_in_flight",
        "_max_keys",
        "_on_ready",
        "_pending",
        "_pending_weight",
        "_schedule",
        "_waited",
        "calls",
        "joined",
        "keys",
    )

    def __init__(
        self,
        groups: int,
        max_keys: int,
        fetch: Callable[[Sequence[KeyRead]], None],
        schedule: Callable[[Callable[[], None]], object],
        on_ready: Callable[[list[Any]], None],
        *,
        has_pushed: bool = False,
        has_bundles: bool = False,
    ) -> None:
        self._in_flight: list[dict[str, KeyRead]] = [{} for _ in range(groups)]
        self._max_keys = max_keys
        self._fetch = fetch
        self._schedule = schedule
        self._on_ready = on_ready
        self._has_pushed = has_pushed
        self._has_bundles = has_bundles
        self._apart = 0
        self._pending: list[KeyRead] = []
        self._pending_weight = 0
        self._waited = False
        self.calls = 0
        self.keys = 0
        self.joined = 0

    def read(self, group: ReadGroup, key: str, waiter: Waiter, deadline_s: float) -> KeyRead:
        """Ask for ``key`` in all tables of ``group`` on behalf of ``waiter``.

        The caller has raised the waiter's count. The read that is returned isn't settled yet, also where
        ``fetch`` settles at once: a batch is sent by the read that no longer fits into it, or by the flush.
        """
        in_flight = self._in_flight[group.index]
        read = in_flight.get(key)
        if read is not None:
            self.joined += 1
            if read.joined is None:
                read.joined = [waiter]
            else:
                read.joined.append(waiter)
            read.deadline_s = max(read.deadline_s, deadline_s)
            return read
        read = in_flight[key] = KeyRead(group, key, deadline_s, waiter)
        pending = self._pending
        weight = group.weight
        if not pending:
            self._schedule(self._on_turn_end)
        elif self._pending_weight + weight > self._max_keys:
            self._send()
        self._pending.append(read)
        self._pending_weight += weight
        return read

    def _on_turn_end(self) -> None:
        """Send what is pending, or wait for one turn more (docs/decisions/0007-one-turn-more.md).

        Where one turn brought several requests, more have come while it was worked off: taking them along
        makes calls twice as large. A lone request doesn't wait.
        """
        pending = self._pending
        if pending and not self._waited and pending[0].waiter is not pending[-1].waiter:
            self._waited = True
            self._schedule(self._on_turn_end)
        else:
            self.flush()

    def flush(self) -> None:
        """Send what is pending; nothing pending is fine."""
        if self._pending:
            self._send()

    def _send(self) -> None:
        batch = self._pending
        self.calls += 1
        self.keys += self._pending_weight if not self._has_bundles else sum(r.group.size for r in batch)
        self._pending = []
        self._pending_weight = 0
        self._waited = False
        if self._has_pushed:
            self._part_with(batch)
        self._fetch(batch)

    def _part_with(self, batch: Sequence[KeyRead]) -> None:
        """Let nobody join reads of groups that are pushed to from here on."""
        for read in batch:
            if read.group.pushed:
                del self._in_flight[read.group.index][read.key]
                self._apart += 1

    def settle(self, reads: Sequence[KeyRead]) -> None:
        """Take in reads that the store is done with: rows or an error are in them."""
        ready: list[Any] = []
        in_flight = self._in_flight
        for read in reads:
            if read.settled:
                continue
            read.settled = True
            by_key = in_flight[read.group.index]
            if by_key.get(read.key) is read:  # not where a newer read of a pushed group took its place
                del by_key[read.key]
            elif read.group.pushed and not read.is_cached:
                self._apart -= 1
            # Let go, lest read and waiter hold each other, and all rows, until the garbage collector comes.
            waiter, read.waiter = read.waiter, None
            if waiter is not None:
                waiter.waiting -= 1
                if waiter.waiting == 0:
                    ready.append(waiter)
            if read.joined is not None:
                waiters, read.joined = read.joined, None
                for waiter in waiters:
                    waiter.waiting -= 1
                    if waiter.waiting == 0:
                        ready.append(waiter)
        if ready:
            self._on_ready(ready)

    def substitute(self, request: Any) -> bool:
        """Put what is known in place of a request's reads that failed or haven't come; True if none is left.

        Nothing is known here; `serving.caching` may know more.
        """
        del request
        return False

    def in_flight(self) -> int:
        """Return how many reads are not settled."""
        return self._apart + sum(map(len, self._in_flight))
