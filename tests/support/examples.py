"""How many examples a costly property draws: few in every run, EXAMPLES_FACTOR times as many if it is set.

Each run draws others, so that what one doesn't meet a later one may; before a release `make test-long` looks
further at once.
"""

from __future__ import annotations

import os

FACTOR = int(os.environ.get("EXAMPLES_FACTOR", "1"))


def examples(count: int) -> int:
    """Return how many examples to draw where ``count`` are worth their time in every run."""
    return count * FACTOR
