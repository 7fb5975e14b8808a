"""The windows of time over which features are aggregated.

Says which spans there are and how they are named; which tiles a window covers at some moment is the tiles'
business.

Invariants:
1. A window's ``label`` is its part of a feature's default name; two different windows never share one.
"""

from __future__ import annotations

from datetime import timedelta

from fastserve.errors import Location
from fastserve.sdk.checks import Checks, Immutable
from fastserve.sdk.durations import format_duration


class TimeWindow(Immutable):
    """The last ``window_size`` before the request. Equal to another of the same size.

    Raises:
        DefinitionError: the size isn't above zero, or an offset is given, which isn't served yet.
    """

    window_size: timedelta
    offset: timedelta
    location: Location
    valid: bool

    def __init__(self, window_size: timedelta, offset: timedelta = timedelta(0)) -> None:
        checks = Checks("TimeWindow")
        self.window_size = checks.duration("window_size", window_size) or timedelta(0)
        self.offset = timedelta(0)
        if offset != timedelta(0):
            checks.wrong("offset", "none, for windows in the past aren't served yet", offset)
        self.location = checks.location
        self.valid = checks.valid
        self._seal()

    @property
    def label(self) -> str:
        """The window's part of a feature's default name: ``7d``."""
        return format_duration(self.window_size)

    def fits(self, interval: timedelta) -> bool:
        """Tell whether the window is made of whole tiles of that length."""
        return self.window_size % interval == timedelta(0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TimeWindow) and (other.window_size, other.offset) == (
            self.window_size,
            self.offset,
        )

    def __hash__(self) -> int:
        return hash((self.window_size, self.offset))

    def __repr__(self) -> str:
        return f"TimeWindow({self.label})"


def check_window(checks: Checks, value: object) -> TimeWindow | None:
    """Return the window given, or the one of the duration given, or None with a fault."""
    if isinstance(value, TimeWindow):
        return value
    if isinstance(value, timedelta):
        size = checks.duration("time_window", value)
        return None if size is None else TimeWindow(size)
    checks.wrong("time_window", "a TimeWindow or a timedelta", value)
    return None
