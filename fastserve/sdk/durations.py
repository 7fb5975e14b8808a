"""Durations as text: the one way in which names and messages print a timedelta.

Invariants:
1. `format_duration` prints a whole number of the largest unit that divides the duration, so it loses nothing
   and two durations print alike only when they are equal.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

# A week isn't among them: API.md's names say 7d and 28d.
_UNITS: Final = (
    ("d", timedelta(days=1)),
    ("h", timedelta(hours=1)),
    ("m", timedelta(minutes=1)),
    ("s", timedelta(seconds=1)),
    ("ms", timedelta(milliseconds=1)),
)
_MICROSECOND: Final = timedelta(microseconds=1)
_ZERO: Final = timedelta(0)


def format_duration(duration: timedelta) -> str:
    """Return the duration in its largest whole unit: ``7d``, ``90m``, ``1h``, ``250us``; zero is ``0s``."""
    if not duration:
        return "0s"
    for unit, length in _UNITS:
        if duration % length == _ZERO:
            return f"{duration // length}{unit}"
    return f"{duration // _MICROSECOND}us"
