"""A closed loop over several streams in fixed shares: what saturates a server that answers several services.

With a closed loop for each stream the dear ones would get fewer requests than their share: connections here
belong to all streams, and every request's stream is the next of one order.

Invariants:
1. Of any `_ORDER_LENGTH` requests in a row each stream has its share, to one request.
2. An answer is counted by the stream that its request was made for.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, cast

import numpy as np

from perf.load.stream_load import StreamLoad, Window
from perf.load.timed_connection import TimedConnection, connect_timed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perf.load.load_plan import LoadPlan

_ORDER_LENGTH = 10_000


class Mix:
    """The connections that streams with a share have in common."""

    def __init__(self, loads: Sequence[StreamLoad], plan: LoadPlan, window: Window) -> None:
        self._plan = plan
        self._window = window
        self._order = _order(loads, plan.seed)
        self._next = 0
        self._connections: list[TimedConnection] = []
        self._reconnects: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def open(self) -> None:
        """Open all connections. Raises OSError."""
        for _ in range(self._plan.mix_connections):
            self._connections.append(await connect_timed(self._plan.host, self._plan.port, self))

    def start(self) -> None:
        """Let every connection send, and send again."""
        for connection in self._connections:
            self._send(connection)

    def on_answer(self, connection: TimedConnection, status: int, body: bytes | None) -> None:
        """Have an answer counted and send the next request."""
        cast("StreamLoad", connection.load).take_answer(connection, status, body)
        if not self._stopped:
            self._send(connection)

    def on_loss(self, connection: TimedConnection) -> None:
        """Have a loss counted and open another connection."""
        if self._stopped:
            return
        if connection.load is not None:
            cast("StreamLoad", connection.load).take_loss(connection)
        self._connections.remove(connection)
        task = asyncio.get_running_loop().create_task(self._reopen())
        self._reconnects.add(task)
        task.add_done_callback(self._reconnects.discard)

    async def _reopen(self) -> None:
        try:
            connection = await connect_timed(self._plan.host, self._plan.port, self)
        except OSError as error:
            # The server is gone, and not one stream's: the first in the order tells.
            self._order[0].fail(f"cannot connect: {error}")
            return
        self._connections.append(connection)
        self._send(connection)

    def give_up_overdue(self, now_ns: int) -> None:
        """Abort what has been under way for longer than the plan's timeout."""
        limit_ns = now_ns - int(self._plan.timeout_s * 1e9)
        for connection in list(self._connections):
            if connection.busy and connection.sent_ns < limit_ns:
                connection.abort()

    def outstanding(self) -> bool:
        """Tell whether something measured is still without its answer."""
        return any(self._is_measured(connection) for connection in self._connections)

    def stop(self) -> None:
        """Close all connections; what is measured and unanswered is an error of its stream."""
        self._stopped = True
        for connection in self._connections:
            if self._is_measured(connection):
                cast("StreamLoad", connection.load).fail("unanswered at the end")
            connection.close()
        for task in self._reconnects:
            task.cancel()

    def _is_measured(self, connection: TimedConnection) -> bool:
        return connection.busy and self._window.holds(connection.intended_ns)

    def _send(self, connection: TimedConnection) -> None:
        load = self._order[self._next]
        self._next = self._next + 1 if self._next + 1 < len(self._order) else 0
        connection.load = load
        load.send(connection, time.monotonic_ns())


def _order(loads: Sequence[StreamLoad], seed: int) -> list[StreamLoad]:
    shares = np.array([load.stream.share for load in loads], np.float64)
    edges = np.rint(np.cumsum(shares) / shares.sum() * _ORDER_LENGTH).astype(np.int64)
    drawn = np.searchsorted(edges, np.arange(_ORDER_LENGTH), side="right")
    np.random.default_rng(seed).shuffle(drawn)
    return [loads[number] for number in drawn.tolist()]
