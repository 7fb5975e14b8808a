"""What goes wrong in on-demand views, told to the log: with its traceback, and no more than can be read.

Invariants
1. Of each view at most one complaint goes to the log in `EVERY_S`; the next one tells how many were left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from fastserve.errors import FastserveError

LOGGER = logging.getLogger("fastserve.on_demand")
EVERY_S = 1.0


class Complaints:
    """Logs the failures of on-demand views; ``now_s`` is a clock that never goes back."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._next_s: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def __call__(self, view: str, error: BaseException | str) -> None:
        """Tell of a failure: an exception of the view's code, its traceback, or what was done about it."""
        now_s = self._now_s()
        if now_s < self._next_s.get(view, now_s):
            self._left_out[view] = self._left_out.get(view, 0) + 1
            return
        self._next_s[view] = now_s + EVERY_S
        left_out = self._left_out.pop(view, 0)
        more = f" ({left_out} more since the last such line)" if left_out else ""
        if isinstance(error, FastserveError):
            LOGGER.warning("on-demand view %s: %s%s", view, error, more)
        elif isinstance(error, str):
            LOGGER.error("on-demand view %s failed%s\n%s", view, more, error)
        else:
            LOGGER.error("on-demand view %s failed%s", view, more, exc_info=error)
