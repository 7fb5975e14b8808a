"""What `Admission` makes of a worker that is asked for more than it can do, in a model of its loop.

The measured form is `python -m perf.overload`; here the time is made up, and no other process has a say.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fastserve.serving.admission import TRY_IN_ANY_CASE_S, Admission
from tests.support.loop_model import Costs, LoopModel, Seen

PEAK = Costs().peak_per_s
BEGIN_S = 2.0


def percentile_ms(times_s: list[float], share: float) -> float:
    return sorted(times_s)[int(len(times_s) * share)] * 1000


@pytest.mark.parametrize("store_s", [0.0005, 0.005])
def test_at_twice_the_peak_most_is_still_answered_and_the_rest_refused_within_5_ms(store_s: float) -> None:
    model = LoopModel(Admission(), Costs(store_s=store_s))
    model.run(BEGIN_S, 2 * PEAK)
    seen = model.run(20, 2 * PEAK)
    assert len(seen.answered_s) / 20 > 0.9 * PEAK
    assert percentile_ms(seen.refused_s, 0.99) < 5
    assert percentile_ms(seen.answered_s, 0.99) < 25


def test_a_minute_of_overload_refuses_in_time_also_where_it_is_tried_without_the_limit() -> None:
    model = LoopModel(Admission(wait_s=0.05))
    model.run(BEGIN_S, 3 * PEAK)
    seen = model.run(TRY_IN_ANY_CASE_S + 2, 3 * PEAK)
    assert percentile_ms(seen.refused_s, 0.99) < 5
    assert percentile_ms(seen.answered_s, 0.99) < 25


@pytest.mark.parametrize("load", [0.8, 0.9])
@pytest.mark.parametrize("store_s", [0.0005, 0.005, 0.02, 0.1])
def test_after_three_times_the_peak_all_is_well_again_in_a_moment(load: float, store_s: float) -> None:
    """Though turns are so short then that what comes at random is refused now and then."""
    model = LoopModel(Admission(), Costs(store_s=store_s))
    model.run(15, 3 * PEAK)
    assert model.admission.limit < 1_000
    model.run(5, load * PEAK)
    seen = model.run(5, load * PEAK)
    assert not seen.refused_s
    assert model.admission.limit == 10_000
    assert percentile_ms(seen.answered_s, 0.99) < 1000 * 1.6 * store_s + (20 if load == 0.8 else 45)


@pytest.mark.parametrize("clients", [16, 64, 256])
def test_clients_that_wait_for_their_answers_overload_nobody(clients: int) -> None:
    """A queue that doesn't grow is no overload where its turns are short enough."""
    model = LoopModel(Admission(wait_s=0.1))
    seen = model.run_closed(2, clients)
    assert not seen.refused_s


@pytest.mark.parametrize("store_s, least", [(0.02, 0.75), (0.1, 0.6)])
def test_with_a_store_that_takes_its_time_less_is_answered_but_not_little(
    store_s: float, least: float
) -> None:
    model = LoopModel(Admission(), Costs(store_s=store_s))
    model.run(BEGIN_S, 2 * PEAK)
    assert len(model.run(10, 2 * PEAK).answered_s) / 10 > least * PEAK


class StallingLoop(LoopModel):
    """One that does something long, twice a second, whatever is in flight."""

    _next_s = 0.0

    def _turn(self, arrived: Sequence[float], seen: Seen) -> bool:
        if self.now_s >= self._next_s:
            self._next_s = self.now_s + 0.5
            self.now_s += 0.03
            self._busy_s += 0.03
        return super()._turn(arrived, seen)


def test_long_turns_that_fewer_rows_do_not_shorten_do_not_keep_the_limit_low() -> None:
    model = StallingLoop(Admission(), Costs(store_s=0.1))
    model.run(10, 3 * PEAK)
    model.run(5, 0.5 * PEAK)
    seen = model.run(5, 0.5 * PEAK)
    assert len(seen.answered_s) / 5 > 0.45 * PEAK
