"""A progress bar over the time that a measurement is planned to take.

Knows nothing of what is measured. It writes to standard error, and only where that is a terminal; elsewhere a
line now and then says where it is.

Invariants:
1. It stands at its end when the measurement has ended, however long that took.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm


class Progress:
    """A bar in planned seconds."""

    def __init__(self, name: str, planned_s: float) -> None:
        self._name = name
        self._is_terminal = sys.stderr.isatty()
        self._last = ""
        form = "{desc}: {percentage:3.0f}% |{bar}| {elapsed} of about {total:.0f} s"
        self._bar = tqdm(
            total=planned_s, desc=name, bar_format=form, disable=not self._is_terminal, file=sys.stderr
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._bar.total is not None:
            self._bar.update(self._bar.total - self._bar.n)
        self._bar.close()

    def advance(self, seconds: float, what: str) -> None:
        """Say what is done, and how many of the planned seconds it was meant to take."""
        if self._is_terminal:
            self._bar.set_description(f"{self._name}, {what}", refresh=False)
            self._bar.update(seconds)
        elif what != self._last:
            print(f"{self._name}: {what}", file=sys.stderr, flush=True)
        self._last = what
