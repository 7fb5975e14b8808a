r"""What a stream adds to a view of aggregates: a table of blocks, and the keys of those that a request reads.

Stream events of one entity key are kept in *blocks*: block ``b`` holds all events whose time, floored to a
multiple of ``block_ns``, is ``b * block_ns``. A block is as long as the view's horizon or longer, so that
what came after a row's ``as_of`` lies in the block of the request's moment or in the one before:

    block     …  |------- b-1 -------|------- b -------|
    as_of                  ^------- at most the horizon -------^ request

Invariants
1. A request at ``t`` reads block ``b(t)`` and block ``b(t) - 1`` of a key and no other, whatever the windows.
2. A stream plan is a function of the view's definition, as its `ViewPlan` is.
"""

from __future__ import annotations

from dataclasses import dataclass

STREAM_SUFFIX = ".stream"
"""Names a view's table of blocks after its table of rows."""

BLOCKS_READ = 2
"""The block of the request's moment, and the one before."""


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """The blocks of one streamed view of aggregates: their table, and how many nanoseconds each covers."""

    table: str
    block_ns: int

    def block_of(self, time_ns: int) -> int:
        """Return the number of the block that holds events of ``time_ns``."""
        return time_ns // self.block_ns

    def start_ns(self, block: int) -> int:
        """Return the time at which a block begins; it ends where the next one begins."""
        return block * self.block_ns


def stream_plan(table: str, horizon_ns: int, interval_ns: int) -> StreamPlan:
    """Return the stream plan of a view whose rows lie in ``table``.

    A block is the horizon, rounded up to a multiple of the aggregation interval: tiles never cross blocks.
    """
    return StreamPlan(table + STREAM_SUFFIX, -(-horizon_ns // interval_ns) * interval_ns)
