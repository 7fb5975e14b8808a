"""A progress bar on stderr where that is a terminal; elsewhere nothing.

Invariants
1. Nothing is printed that a log file would have to keep.
"""

from __future__ import annotations

import sys
from typing import Never, Protocol


class Progress(Protocol):
    """Told what the job is at: a step with its unit (and how many, if known), then how far it came."""

    def step(self, text: str, unit: str, total: int | None = None) -> None:
        """Begin a step; what was begun before is over."""

    def advance(self, count: int) -> None:
        """Say that ``count`` more of the step's units are done."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Silent:
    """Shows nothing."""

    def step(self, text: str, unit: str, total: int | None = None) -> None:
        """Begin nothing."""

    def advance(self, count: int) -> None:
        """Show nothing."""

    def close(self) -> None:
        """Leave everything."""


class Bar:
    """One tqdm bar at a time."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._make = tqdm
        self._bar: tqdm[Never] | None = None

    def step(self, text: str, unit: str, total: int | None = None) -> None:
        """Begin a step."""
        self.close()
        self._bar = self._make(
            desc=text, unit=f" {unit}", total=total, unit_scale=True, leave=False, file=sys.stderr
        )

    def advance(self, count: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(count)

    def close(self) -> None:
        """Clear the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def make_progress(*, wanted: bool) -> Progress:
    """Return a bar if one is wanted and stderr is a terminal."""
    return Bar() if wanted and sys.stderr.isatty() else Silent()
