"""The windows of time over which features are aggregated.

Says which spans there are and how they are named; which tiles a window covers at some moment is the tiles'
business.

Invariants:
1. A window's ``label`` is its part of a feature's default name; two different windows never share one.
2. A series is its ``elements``, windows like any other: one that equals another's is the same window.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from fastserve.errors import Location
from fastserve.sdk.checks import DURATION_MAX, Checks, Immutable
from fastserve.sdk.durations import format_duration

ZERO: Final = timedelta(0)
SPAN_MAX: Final = DURATION_MAX
"""How far before the request a window may begin."""
SERIES_MAX: Final = 1_000
_SPAN_EXPECTED: Final = "a start at most 36500d before the request; LifetimeWindow() has none"


class TimeWindow(Immutable):
    """The last ``window_size`` before the request, or before ``offset`` (below zero) from the request.

    Equal to another of the same size and offset.

    Args:
        window_size: Its length, a whole number of the view's intervals.
        offset: Zero, or below it for a window that ended before the request.

    Raises:
        DefinitionError: the size isn't above zero, the offset is, or the window begins too long ago.
    """

    window_size: timedelta
    offset: timedelta
    location: Location
    valid: bool

    def __init__(self, window_size: timedelta, offset: timedelta = ZERO) -> None:
        checks = Checks("TimeWindow")
        self.window_size = checks.duration("window_size", window_size, None) or timedelta(days=1)
        self.offset = _not_above_zero(checks, "offset", offset)
        if checks.valid and self.window_size > SPAN_MAX + self.offset:
            checks.wrong("window_size", _SPAN_EXPECTED, window_size)
        self.location = checks.location
        self.valid = checks.valid
        self._seal()

    @property
    def label(self) -> str:
        """The window's part of a feature's default name: ``7d``, ``7d_offset_1d``."""
        size = format_duration(self.window_size)
        return size if not self.offset else f"{size}_offset_{format_duration(-self.offset)}"

    @property
    def elements(self) -> tuple[TimeWindow, ...]:
        """The windows that a feature over it is made of: itself."""
        return (self,)

    @property
    def durations(self) -> tuple[tuple[str, timedelta], ...]:
        """The durations that must be whole multiples of the view's interval, by their names."""
        return (("time_window", self.window_size), ("offset", self.offset))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TimeWindow) and (other.window_size, other.offset) == (
            self.window_size,
            self.offset,
        )

    def __hash__(self) -> int:
        return hash((self.window_size, self.offset))

    def __repr__(self) -> str:
        return f"TimeWindow({self.label})"


class LifetimeWindow(Immutable):
    """All of the past before the request, from the view's ``start_time`` on if it has one."""

    location: Location
    valid: bool

    def __init__(self) -> None:
        self.location = Checks("LifetimeWindow").location
        self.valid = True
        self._seal()

    @property
    def label(self) -> str:
        """The window's part of a feature's default name."""
        return "lifetime"

    @property
    def elements(self) -> tuple[LifetimeWindow, ...]:
        """The windows that a feature over it is made of: itself."""
        return (self,)

    @property
    def durations(self) -> tuple[tuple[str, timedelta], ...]:
        """The durations that must be whole multiples of the view's interval: none."""
        return ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LifetimeWindow)

    def __hash__(self) -> int:
        return hash(LifetimeWindow)

    def __repr__(self) -> str:
        return "LifetimeWindow()"


class TimeWindowSeries(Immutable):
    """Windows of one size from ``series_start`` to ``series_end``, both relative to the request.

    The first begins at ``series_start`` (below zero), each next one ``step_size`` (by default the window's
    size) later, the last ends at ``series_end`` (zero or below). A feature over it is an array, oldest first.

    Args:
        series_start: Where the first window begins.
        window_size: The length of each.
        series_end: Where the last window ends.
        step_size: From one window to the next.

    Raises:
        DefinitionError: a duration has the wrong sign, the steps miss the end, or there are too many.
    """

    series_start: timedelta
    series_end: timedelta
    window_size: timedelta
    step_size: timedelta
    elements: tuple[TimeWindow, ...]
    location: Location
    valid: bool

    def __init__(
        self,
        series_start: timedelta,
        window_size: timedelta,
        series_end: timedelta = ZERO,
        step_size: timedelta | None = None,
    ) -> None:
        checks = Checks("TimeWindowSeries")
        self.window_size = checks.duration("window_size", window_size, None) or timedelta(days=1)
        step = self.window_size if step_size is None else checks.duration("step_size", step_size)
        self.step_size = step or self.window_size
        self.series_end = _not_above_zero(checks, "series_end", series_end)
        self.series_start = self.series_end - self.window_size
        start = _not_above_zero(checks, "series_start", series_start)
        if checks.valid:
            self._take_start(checks, start)
        first_end = self.series_start + self.window_size
        count = (self.series_end - first_end) // self.step_size + 1
        self.elements = tuple(
            TimeWindow(self.window_size, first_end + number * self.step_size) for number in range(count)
        )
        self.location = checks.location
        self.valid = checks.valid
        self._seal()

    def _take_start(self, checks: Checks, start: timedelta) -> None:
        rest = self.series_end - start - self.window_size
        if rest < ZERO:
            latest = format_duration(self.series_end - self.window_size)
            checks.wrong("series_start", f"at most {latest}, or no window fits", start)
        elif rest % self.step_size:
            expected = f"a whole number of steps of {format_duration(self.step_size)} to the last window"
            checks.wrong("series_start", expected, start)
        elif rest // self.step_size >= SERIES_MAX:
            checks.wrong("series_start", f"at most {SERIES_MAX:,} windows", rest // self.step_size + 1)
        else:
            self.series_start = start

    @property
    def label(self) -> str:
        """The series' part of a feature's default name: ``1d_series_7d``, and more where it isn't plain."""
        text = f"{format_duration(self.window_size)}_series_{format_duration(-self.series_start)}"
        if self.series_end:
            text += f"_to_{format_duration(-self.series_end)}"
        if self.step_size != self.window_size:
            text += f"_step_{format_duration(self.step_size)}"
        return text

    @property
    def durations(self) -> tuple[tuple[str, timedelta], ...]:
        """The durations that must be whole multiples of the view's interval, by their names."""
        return (
            ("window_size", self.window_size),
            ("series_end", self.series_end),
            ("step_size", self.step_size),
        )

    def _parts(self) -> tuple[timedelta, ...]:
        return (self.series_start, self.series_end, self.window_size, self.step_size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TimeWindowSeries) and other._parts() == self._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __repr__(self) -> str:
        return f"TimeWindowSeries({self.label})"


AnyWindow = TimeWindow | LifetimeWindow | TimeWindowSeries


def _not_above_zero(checks: Checks, what: str, value: object) -> timedelta:
    if isinstance(value, timedelta) and -SPAN_MAX <= value <= ZERO:
        return value
    checks.wrong(what, "a timedelta from -36500d to zero", value)
    return ZERO


def check_window(checks: Checks, value: object) -> AnyWindow | None:
    """Return the window given, or the one of the duration given, or None with a fault."""
    if isinstance(value, (TimeWindow, LifetimeWindow, TimeWindowSeries)):
        return value
    if isinstance(value, timedelta):
        size = checks.duration("time_window", value, None)
        return None if size is None else TimeWindow(size)
    checks.wrong("time_window", "a TimeWindow, LifetimeWindow, TimeWindowSeries or timedelta", value)
    return None
