"""Which entity a request asks for: laws over n entities, drawn beforehand.

Knows no requests.

Invariants:
1. All keys of a run have one length, so that every request of a service has the same number of bytes.
2. One seed gives one sequence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEY_LAWS = ("uniform", "zipf")
_SEQUENCE_LENGTH = 1 << 18


def entity_key(index: int) -> str:
    """Name an entity."""
    return f"user{index:08d}"


def partner_key(key: str) -> str:
    """Name the second entity of a request that asks for two: as far from the first as any other."""
    return key[:-8] + key[:-9:-1]


def draw_entities(law: str, entities: int, seed: int, exponent: float = 1.0) -> NDArray[np.int64]:
    """Draw a sequence of entity numbers, to be walked round.

    Raises:
        ValueError: an unknown law.
    """
    generator = np.random.default_rng(seed)
    if law == "uniform":
        return generator.integers(0, entities, _SEQUENCE_LENGTH)
    if law != "zipf":
        raise ValueError(f"key law: expected one of {KEY_LAWS}, got {law[:64]!r}")
    weights = 1.0 / np.arange(1, entities + 1) ** exponent
    cumulative = np.cumsum(weights) / weights.sum()
    ranks = np.searchsorted(cumulative, generator.random(_SEQUENCE_LENGTH))
    # Popular entities lie anywhere among the names, not all at the front.
    return np.asarray(generator.permutation(entities)[np.minimum(ranks, entities - 1)], np.int64)
