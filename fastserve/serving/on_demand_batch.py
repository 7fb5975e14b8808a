"""Lines of on-demand evaluation: what came with the requests, what was read for them, what was computed.

Knows where a value stands and in which form it is kept; which views run, and when, is `on_demand`'s.

Invariants
1. A value that a function gets is its own: no other function, no other request and no answer holds it.
2. A line that has failed stays failed, with its first error; nothing is computed for it any more. Of a line
   whose caller's budget has ended, what wasn't computed by then is late.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from fastserve.errors import RequestError
from fastserve.sdk.on_demand import RequestContext
from fastserve.serving.columns import Columns

Values = list[Any]
"""One line's checked values of one view, in the order of its output fields."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)


class Batch:
    """Lines that are computed together; they are numbered from 0.

    ``contexts`` holds, per line, the request context's values in the order of the plan's fields, and
    ``patience`` when its caller's time ends and whether that is a latency budget, after which nulls are
    welcome. ``columns`` are the rows' values; ``refused`` are lines for which nothing needs to be computed.
    """

    __slots__ = ("_moment", "columns", "contexts", "errors", "late", "lines", "now_ns", "patience", "results")

    def __init__(
        self,
        columns: Columns,
        contexts: Sequence[Sequence[Any]],
        patience: Sequence[tuple[float, bool]],
        now_ns: int,
        views: int,
        refused: dict[int, RequestError],
    ) -> None:
        self.columns = columns
        self.contexts = contexts
        self.patience = patience
        self.lines = len(patience)
        self.now_ns = now_ns
        self._moment: RequestContext | None = None
        self.results: list[list[Values]] = [[]] * views
        """By the view's number and the line; empty where the line has failed or is late."""
        self.errors = refused
        self.late: dict[int, set[int]] = {}
        """By line the numbers of the views that were not computed within the caller's budget."""

    @property
    def moment(self) -> RequestContext:
        """What functions that ask for it are told of the requests."""
        if self._moment is None:
            self._moment = RequestContext(datetime_of(self.now_ns))
        return self._moment

    def fail(self, line: int, error: RequestError) -> None:
        """Keep the line's error, unless it has one."""
        self.errors.setdefault(line, error)

    def skips(self) -> Container[int] | None:
        """Return the lines for which nothing is computed any more; None where there are none."""
        if self.late:
            return {*self.errors, *self.late}
        return self.errors or None

    def active(self) -> Sequence[int]:
        """Return the other lines."""
        skips = self.skips()
        if skips is None:
            return range(self.lines)
        return [line for line in range(self.lines) if line not in skips]

    def keep(self, view: int, results: list[Values]) -> None:
        """Take a view's results; where the time had ended before, it is late."""
        self.results[view] = results
        for views in self.late.values():
            views.add(view)


def datetime_of(time_ns: int) -> datetime:
    """Return nanoseconds since the epoch as a datetime in UTC, cut to its microseconds."""
    return EPOCH + timedelta(microseconds=time_ns // 1_000)
