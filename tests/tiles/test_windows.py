"""Windows cut into slots, against the definition of a window, for every as_of and time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.tiles.windows import (
    CLOCK_SKEW_NS,
    DAY_NS,
    HOUR_NS,
    MINUTE_NS,
    Window,
    default_hop_ns,
    floor_to,
    serves,
)
from tests.differential.tiling import window_sets

T0 = 1_388_404_800 * 10**9


@pytest.mark.parametrize(
    "window_ns, interval_ns, hop_ns",
    [
        (356 * DAY_NS, HOUR_NS, DAY_NS),
        (12 * DAY_NS, HOUR_NS, DAY_NS),
        (12 * DAY_NS - HOUR_NS, HOUR_NS, HOUR_NS),
        (12 * HOUR_NS, MINUTE_NS, HOUR_NS),
        (12 * HOUR_NS - MINUTE_NS, MINUTE_NS, 5 * MINUTE_NS),
        (7 * DAY_NS, DAY_NS, DAY_NS),
        (HOUR_NS, 7 * MINUTE_NS, 7 * MINUTE_NS),
        (DAY_NS, 7 * MINUTE_NS, 63 * MINUTE_NS),
    ],
)
def test_a_hop_goes_with_the_length_and_is_a_multiple_of_the_interval(
    window_ns: int, interval_ns: int, hop_ns: int
) -> None:
    assert default_hop_ns(window_ns, interval_ns) == hop_ns


@pytest.mark.parametrize(
    "window_ns, tails, has_core",
    [(DAY_NS, 24, False), (7 * DAY_NS, 48, True), (28 * DAY_NS, 2, True), (356 * DAY_NS, 2, True)],
)
def test_the_windows_of_the_example_have_few_slots(window_ns: int, tails: int, has_core: bool) -> None:
    window = Window(window_ns, default_hop_ns(window_ns, HOUR_NS), HOUR_NS, 2 * DAY_NS)
    assert (window.tails, window.has_core, window.slots) == (tails, has_core, tails + has_core)


@st.composite
def moments(draw: st.DrawFn) -> tuple[Window, int, int]:
    """A window, a row's as_of and a time at which the row may answer."""
    window = draw(window_sets())[0]
    as_of = floor_to(T0, window.interval_ns) + draw(st.integers(-500, 500)) * window.interval_ns
    edge = window.changes_ns(as_of)
    candidates = [
        t
        for t in (edge - 1, edge, as_of, as_of + window.horizon_ns)
        if as_of <= t <= as_of + window.horizon_ns
    ]
    return window, as_of, draw(st.sampled_from(candidates) | st.integers(as_of, as_of + window.horizon_ns))


@given(moments())
def test_slots_are_disjoint_and_cover_the_window_of_the_as_of(moment: tuple[Window, int, int]) -> None:
    window, as_of, _ = moment
    bounds = window.slot_bounds_ns(as_of)
    in_time = bounds[window.has_core :] + bounds[: window.has_core]
    assert len(bounds) == window.slots
    assert in_time[0][0] == window.start_ns(as_of)
    assert in_time[-1][1] == as_of
    assert all(left[1] == right[0] for left, right in pairwise(in_time))
    assert all(low <= high for low, high in bounds)


@given(moments())
def test_live_slots_are_the_window_asked_for_as_far_as_the_row_knows(moment: tuple[Window, int, int]) -> None:
    window, as_of, time = moment
    bounds = window.slot_bounds_ns(as_of)
    live = [bounds[slot] for slot in window.live_slots(as_of, time)]
    covered = sum(high - low for low, high in live)
    start = floor_to(time - window.window_ns, window.hop_ns)
    assert covered == max(0, as_of - start)
    assert all(low >= min(start, as_of) for low, _ in live)


@given(moments())
def test_the_core_is_inside_the_window_until_the_horizon(moment: tuple[Window, int, int]) -> None:
    window, as_of, time = moment
    if window.has_core:
        assert 0 in window.live_slots(as_of, time)
        assert window.slot_bounds_ns(as_of)[0][0] >= min(window.start_ns(time), as_of)


@given(moments())
def test_the_start_stands_still_until_it_changes(moment: tuple[Window, int, int]) -> None:
    window, _, time = moment
    change = window.changes_ns(time)
    assert change > time
    assert window.start_ns(change - 1) == window.start_ns(time)
    assert window.start_ns(change) == window.start_ns(time) + window.hop_ns


def test_a_clock_behind_the_as_of_drops_nothing() -> None:
    window = Window(DAY_NS, HOUR_NS, HOUR_NS, 2 * DAY_NS)
    assert window.dropped(T0, T0 - CLOCK_SKEW_NS) == 0
    assert window.live_slots(T0, T0 - CLOCK_SKEW_NS) == window.live_slots(T0, T0)


def test_a_row_serves_from_its_as_of_less_the_skew_to_its_horizon() -> None:
    moments = [T0 - CLOCK_SKEW_NS - 1, T0 - CLOCK_SKEW_NS, T0, T0 + DAY_NS, T0 + DAY_NS + 1]
    assert [serves(T0, DAY_NS, moment) for moment in moments] == [False, True, True, True, False]


def test_times_before_the_epoch_are_floored_downwards() -> None:
    assert (floor_to(-1, 10), floor_to(-10, 10), floor_to(9, 10)) == (-10, -10, 0)
