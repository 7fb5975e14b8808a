"""What is swept: one thing at a time, all else as in the budgets' load.

Knows no processes.

Invariants:
1. Every axis has its name, what its values are, and at least two of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from perf.data import SWEPT

_BASE = "sweep_base"
ENTITIES = 100_000


@dataclass(frozen=True)
class Point:
    """One measured point."""

    axis: str
    value: float
    service: str
    clients: int = 16
    workers: int = 1
    entities: int = ENTITIES


@dataclass(frozen=True)
class Axis:
    """One panel: what changes, and what does not."""

    name: str
    label: str
    fixed: str
    is_logarithmic: bool = False
    # A straight line is laid through points that should lie on one; its slope is told in ns of this.
    slope_of: str | None = None


AXES = (
    Axis("features", "features", "one view, one key", slope_of="feature"),
    Axis("views", "views of 20 features (a key each)", "look-ups", slope_of="view"),
    Axis("keys", "keys for the same 1,000 features", "look-ups", slope_of="key"),
    Axis("window", "window of 100 sums (days)", "one view, one key", is_logarithmic=True),
    Axis("clients", "clients", "5 views of 100 look-ups", is_logarithmic=True),
    Axis("workers", "workers", "5 views of 100 look-ups, 32 clients"),
    Axis("distinct", "keys read for each key asked for", "5 views of 100 look-ups, 16 clients"),
)
POINTS = (
    *(Point(axis, value, f"sweep_{axis}_{value}") for axis, values in SWEPT.items() for value in values),
    *(Point("clients", clients, _BASE, clients=clients) for clients in (1, 2, 4, 16, 64, 128)),
    *(Point("workers", workers, _BASE, clients=32, workers=workers) for workers in (1, 2)),
    # The fewer entities there are, the more of the 16 requests under way ask for the same keys.
    *(Point("distinct", entities, _BASE, entities=entities) for entities in (1, 4, 16, 64, ENTITIES)),
)
