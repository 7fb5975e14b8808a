"""Rows kept for a while in one worker, for the views that ask for it, shared by all of its requests.

Pure: the clock is an argument. What is kept are the rows of one key in all tables of a read group, as the
store gave them, absent ones too: for how long these may be trusted, whoever puts them in has to say.

Invariants
1. A row is given out for at most its group's ``ttl_ns`` after it was asked for, and in place of one that
   can't be read for at most ``stale_ns``, and for no longer than it is trusted in either case. It is never
   older than that, however long the call took.
2. What is kept takes at most ``max_bytes``, by an estimate that rather overstates; those used least lately go
   first.
3. Rows are shared: nobody changes them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import orjson

from fastserve.plan.reads import ReadGroup

ENTRY_BYTES = 400
ROW_BYTES = 64
# An item parsed: dictionaries and strings around what its JSON has.
ITEM_FACTOR = 6
FOREVER_NS = (1 << 63) - 1

_Entry = tuple[list[Any], int, int, int]
"""Rows, when they were asked for, their size, and how long after that they may be used at most."""


class RowCache:
    """The cache of one worker."""

    __slots__ = ("_entries", "_max_bytes", "bytes", "hits", "misses", "stale")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[tuple[int, str], _Entry] = OrderedDict()
        self.bytes = 0
        self.hits = 0
        self.misses = 0
        self.stale = 0  # given out because the store failed

    def __len__(self) -> int:
        return len(self._entries)

    def fresh(self, group: ReadGroup, key: str, now_ns: int) -> list[Any] | None:
        """Return the rows of a key, if they may be served instead of asking the store."""
        name = (group.index, key)
        entry = self._entries.get(name)
        cache = group.cache
        if entry is not None and cache is not None and now_ns - entry[1] <= min(cache.ttl_ns, entry[3]):
            self._entries.move_to_end(name)
            self.hits += 1
            return entry[0]
        self.misses += 1
        return None

    def last_known(self, group: ReadGroup, key: str, now_ns: int) -> list[Any] | None:
        """Return the rows of a key, if they may be served where the store has failed."""
        entry = self._entries.get((group.index, key))
        cache = group.cache
        if entry is None or cache is None or now_ns - entry[1] > min(cache.kept_ns, entry[3]):
            return None
        self.stale += 1
        return entry[0]

    def put(
        self, group: ReadGroup, key: str, rows: list[Any], asked_ns: int, trusted_ns: int = FOREVER_NS
    ) -> None:
        """Keep the rows of a key, which the store was asked for at ``asked_ns``.

        They aren't used later than ``trusted_ns`` after that; where that is negative they are not kept, and
        nor is what they'd replace.
        """
        name = (group.index, key)
        before = self._entries.get(name)
        if before is not None:
            if before[1] > asked_ns:
                return
            del self._entries[name]
            self.bytes -= before[2]
        size = ENTRY_BYTES + len(key) + sum(map(_size_of, rows))
        if size > self._max_bytes or trusted_ns < 0:
            return
        self._entries[name] = (rows, asked_ns, size, trusted_ns)
        self.bytes += size
        while self.bytes > self._max_bytes:
            self.bytes -= self._entries.popitem(last=False)[1][2]


def _size_of(row: Any) -> int:
    if row is None:
        return 0
    if isinstance(row, dict):
        return ITEM_FACTOR * len(orjson.dumps(row))
    return ROW_BYTES + len(row)
