from __future__ import annotations

import numpy as np
import pytest

from perf.load.key_laws import draw_entities, entity_key


def test_uniform_keys_reach_all_entities_evenly() -> None:
    drawn = draw_entities("uniform", 100, seed=1)

    counts = np.bincount(drawn, minlength=100)
    assert counts.min() > 0.9 * len(drawn) / 100
    assert counts.max() < 1.1 * len(drawn) / 100


def test_zipf_keys_favour_few_entities() -> None:
    drawn = draw_entities("zipf", 100_000, seed=1)

    counts = np.sort(np.bincount(drawn, minlength=100_000))[::-1]
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.3)
    assert drawn.max() < 100_000


def test_all_keys_have_one_length() -> None:
    assert len({len(entity_key(number)) for number in (0, 7, 99_999_999)}) == 1


def test_an_unknown_law_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one of"):
        draw_entities("pareto", 10, seed=1)
