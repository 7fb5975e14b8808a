"""What a store's hot side counts of its own troubles, for whoever shows it.

Knows no store, and nobody who shows it: plain numbers of one process, which but for the last only grow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(slots=True)
class StoreCounts:
    """What became of calls on the hot side, beside the ordinary.

    ``unprocessed`` are keys that the store left out of an answer, ``retries`` tries after the first,
    ``throttles`` answers that said so, ``timeouts`` tries without an answer in time, ``failures`` reads that
    got an error, ``hedges`` second tries beside a slow first, ``hedges_won`` those that answered first,
    ``circuit_opened`` times that the store was held for dead, ``circuits_open`` whether it is now.
    """

    unprocessed: int = 0
    retries: int = 0
    throttles: int = 0
    timeouts: int = 0
    failures: int = 0
    hedges: int = 0
    hedges_won: int = 0
    circuit_opened: int = 0
    circuits_open: int = 0


@runtime_checkable
class Counting(Protocol):
    """A store that counts."""

    @property
    def counts(self) -> StoreCounts:
        """What its hot side has counted so far."""
