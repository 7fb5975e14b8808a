from __future__ import annotations

from typing import Any

import pytest

from perf.blocking_view import is_undisturbed, measure


def seen(p99_ms: float, errors: int = 0, wrong: int = 0) -> dict[str, Any]:
    return {"latency_ms": {"p99": p99_ms}, "errors": errors, "wrong": wrong}


@pytest.mark.parametrize(
    "before, during, is_good",
    [
        (seen(1.0), seen(2.9), True),
        (seen(1.0), seen(3.1), False),
        (seen(10.0), seen(19.0), True),
        (seen(10.0), seen(21.0), False),
        (seen(1.0), seen(1.0, errors=1), False),
        (seen(1.0), seen(1.0, wrong=1), False),
    ],
)
def test_good_clients_may_wait_a_little_longer_and_must_get_right_answers(
    before: dict[str, Any], during: dict[str, Any], is_good: bool
) -> None:
    assert is_undisturbed(before, during) is is_good


def test_a_view_that_stands_still_fails_its_own_callers_and_nobody_else() -> None:
    found, statuses = measure(0.3, warmup_s=0.1)
    assert set(statuses) == {504}
    assert list(found) == ["before", "during", "after"]
    for figures in found.values():
        assert figures["latency_ms"]["count"] > 50
        assert (figures["errors"], figures["wrong"]) == (0, 0)
