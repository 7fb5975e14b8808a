"""Workers that were forked with the same definitions, and the places that they fill.

It knows neither signals nor forks: the arbiter does.

Invariants
1. Workers that live at once have different rows of the shared memory, and so different indexes.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastserve.server.options import ServerOptions
from fastserve.server.recycling import Limits
from fastserve.server.worker import BeforeLoop, Boot, Inheritance

GENERATIONS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Definitions:
    """What a generation's workers are started with.

    ``boot`` is called in each worker, inside its event loop; what it closes over is made before the fork and
    shared, and so is ``tls``, what the clients' connections are encrypted with (None for plain ones).
    ``before_loop`` is called in each worker before that loop exists.
    """

    options: ServerOptions
    boot: Boot
    before_loop: BeforeLoop | None = None
    tls: ssl.SSLContext | None = None


Reload = Callable[[], Definitions]
"""Reads definitions and settings anew; raises `FastserveError` when they can't be used."""


def worker_rows(options: ServerOptions) -> int:
    """Return how many workers can live at once: two generations, and one that takes another's place."""
    return options.workers * GENERATIONS_AT_ONCE + 1


class Slot:
    """A worker's place, whoever fills it now."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.pid = 0
        self.started_s = 0.0
        self.start_at_s = 0.0
        self.deaths = 0
        self.kill_at_s: float | None = None
        self.was_ready = False
        self.limits = Limits(None, None)


class Generation:
    """The workers of one set of definitions."""

    def __init__(self, number: int, indexes: Sequence[int], inheritance: Inheritance) -> None:
        self.slots = [Slot(index) for index in indexes]
        self.inheritance = inheritance
        self.number = number
        self.is_leaving = False

    @property
    def is_ready(self) -> bool:
        """Whether all of its workers live and have been ready."""
        return all(slot.was_ready and slot.pid for slot in self.slots)

    @property
    def is_gone(self) -> bool:
        """Whether none of its workers lives."""
        return not any(slot.pid for slot in self.slots)
