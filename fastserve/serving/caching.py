"""A coalescer that looks into a cache of rows first, and again where the store fails.

It stands in the plain one's place in workers that serve views with a ``cache_ttl``; where there is none,
nothing of this is on a request's way.

Invariants
1. A read that comes from the cache is told to its waiter at the end of the turn, with all others of the turn,
   as if the store had answered at once.
2. Only whole answers of the store are kept: no failed read, and none that was asked for before what is kept.
3. Stale rows are put into one request's reads, in place of those that failed or haven't come. The reads
   themselves, which others may share, stay as they are.
4. A request's row and blocks may be of different moments, some out of the cache and some not. What was pushed
   ``cache_ttl`` before it or earlier (``stale_ttl``, where the store fails) counts once, as beside the row
   that is there or was when it was read; nothing drops out between row and blocks:

       row, of any age     blocks, of any age
       there               Tiles from its own as_of on count, be the blocks older or newer. While it answers,
                           its as_of lies in the blocks that are read or between them, for they reach back a
                           horizon from the request. A newer row has what it took out of their sight.
       past its horizon    None count, and the key is missing until the row's time is over.
       `NO_ROW`            As one past its horizon, also when a row has come meanwhile.
       absent              All count, if the view is complete by the watermark of the moment at which the row
                           was asked for (`serving.absent_rows`): no event lies before that watermark, and
                           the blocks reach back to it. By a later watermark nothing would be known of what
                           a job has put into the row meanwhile. Where the view wasn't complete, or will
                           not be by that watermark, the read isn't kept, or not given out any more.

   Blocks are kept by their numbers. One that was kept as the current block and is the previous one by now
   lacks what was pushed to it since, beside a newer one: no later than ``cache_ttl`` allows, as any block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

from fastserve.errors import StoreError
from fastserve.plan.reads import ReadGroup
from fastserve.serving.absent_rows import AbsentRows, Asked
from fastserve.serving.coalescer import Coalescer, KeyRead, Waiter
from fastserve.serving.row_cache import RowCache


class CachedRead(KeyRead):
    """A read whose rows are the cache's."""

    __slots__ = ()
    is_cached: ClassVar[bool] = True


class CacheUser(Waiter, Protocol):
    """A request, as far as the cache is concerned."""

    reads: list[KeyRead]

    @property
    def reads_cache(self) -> bool:
        """Whether rows out of the cache are welcome."""

    @property
    def writes_cache(self) -> bool:
        """Whether what is read for it may be kept."""


class CachingCoalescer(Coalescer):
    """See the module. ``clock_ns`` is monotonic."""

    __slots__ = ("_absent", "_ask", "_asked", "_cache", "_clock_ns", "_hits", "_tell")

    def __init__(
        self,
        groups: int,
        max_keys: int,
        fetch: Callable[[Sequence[KeyRead]], None],
        schedule: Callable[[Callable[[], None]], object],
        on_ready: Callable[[list[Any]], None],
        cache: RowCache,
        clock_ns: Callable[[], int],
        absent: AbsentRows,
        *,
        has_pushed: bool = False,
        has_bundles: bool = False,
    ) -> None:
        super().__init__(
            groups,
            max_keys,
            self._fetch_noted,
            schedule,
            self._on_ready_or_stale,
            has_pushed=has_pushed,
            has_bundles=has_bundles,
        )
        self._ask = fetch
        self._tell = on_ready
        self._cache = cache
        self._clock_ns = clock_ns
        self._absent = absent
        self._hits: list[KeyRead] = []
        self._asked: dict[KeyRead, Asked] = {}

    def read(self, group: ReadGroup, key: str, waiter: Any, deadline_s: float) -> KeyRead:
        """See `Coalescer.read`."""
        if group.cache is not None and waiter.reads_cache:
            rows = self._cache.fresh(group, key, self._clock_ns())
            if rows is not None:
                hit = CachedRead(group, key, deadline_s, waiter)
                hit.rows = rows
                if not self._hits:
                    self._schedule(self._settle_hits)
                self._hits.append(hit)
                return hit
        return super().read(group, key, waiter, deadline_s)

    def settle(self, reads: Sequence[KeyRead]) -> None:
        """See `Coalescer.settle`; what has come is kept."""
        for read in reads:
            asked = self._asked.pop(read, None)
            if asked is None or read.settled or read.error is not None:
                continue
            if _may_be_kept(read):
                trusted_ns = self._absent.trusted_ns(read.group, read.rows, asked)
                self._cache.put(read.group, read.key, read.rows, asked.timer_ns, trusted_ns)
        super().settle(reads)

    def substitute(self, request: Any) -> bool:
        """Put rows out of the cache in place of reads that failed or haven't come; True if none is left."""
        user: CacheUser = request
        if not user.reads_cache:
            return False
        is_complete = True
        for number, read in enumerate(user.reads):
            if read.settled and read.error is None:
                continue
            rows = None
            if read.group.cache is not None and (read.error is None or is_outage(read.error)):
                rows = self._cache.last_known(read.group, read.key, self._clock_ns())
            if rows is None:
                is_complete = False
                continue
            known = user.reads[number] = CachedRead(read.group, read.key, read.deadline_s)
            known.rows = rows
            known.settled = True
        return is_complete

    def _settle_hits(self) -> None:
        hits, self._hits = self._hits, []
        super().settle(hits)

    def _fetch_noted(self, reads: Sequence[KeyRead]) -> None:
        asked = self._absent.asked()
        self._asked.update((read, asked) for read in reads if read.group.cache is not None)
        self._ask(reads)

    def _on_ready_or_stale(self, waiters: list[Any]) -> None:
        for waiter in waiters:
            self.substitute(waiter)
        self._tell(waiters)


def is_outage(error: StoreError) -> bool:
    """Whether the store failed, rather than that something asked for isn't right."""
    return error.retryable or error.throttled or error.timed_out


def _may_be_kept(read: KeyRead) -> bool:
    waiters: list[Any] = [read.waiter, *(read.joined or ())]
    return any(waiter is not None and waiter.writes_cache for waiter in waiters)
