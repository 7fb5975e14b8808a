"""Windows cut into slots, against the definition of a window, for every as_of and time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.tiles.windows import (
    BEGINNING_NS,
    CLOCK_SKEW_NS,
    DAY_NS,
    HOUR_NS,
    LIFETIME_NS,
    MINUTE_NS,
    NEVER_NS,
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
    window = draw(st.sampled_from(draw(window_sets())))
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
    in_time = [bounds[slot] for slot in window.slots_in_time_order]
    assert len(bounds) == window.slots == len(window.slot_names)
    assert sorted(window.slots_in_time_order) == list(range(window.slots))
    assert (in_time[0][0], in_time[-1][1]) == window.bounds_ns(as_of)
    assert all(left[1] == right[0] for left, right in pairwise(in_time))
    assert all(low <= high <= as_of for low, high in bounds)
    at_once = [bounds[slot] for slot in window.live_slots(as_of, as_of)]
    low, high = asked(window, as_of, as_of)
    assert covered(at_once) == ((low, high) if low < high else None)


def asked(window: Window, as_of: int, time: int) -> tuple[int, int]:
    """Return the window asked for as far as a row knows, by its definition."""
    end = as_of
    if window.offset_ns:
        end = min(as_of, floor_to(time + window.offset_ns, window.hop_ns))
    start = floor_to(time + window.offset_ns - window.window_ns, window.hop_ns)
    return (BEGINNING_NS if window.is_lifetime else start), end


def covered(bounds: list[tuple[int, int]]) -> tuple[int, int] | None:
    """Return what intervals cover that lie end to end; those without a length don't count."""
    lengthy = sorted((low, high) for low, high in bounds if low < high)
    assert all(left[1] == right[0] for left, right in pairwise(lengthy))
    return (lengthy[0][0], lengthy[-1][1]) if lengthy else None


@given(moments())
def test_live_slots_are_the_window_asked_for_as_far_as_the_row_knows(moment: tuple[Window, int, int]) -> None:
    window, as_of, time = moment
    bounds = window.slot_bounds_ns(as_of)
    live = covered([bounds[slot] for slot in window.live_slots(as_of, time)])
    start, end = asked(window, as_of, time)
    if live is None:
        assert start >= end
    elif window.is_lifetime or start in {low for low, _ in bounds}:
        assert live == (start, end)
    assert (window.start_ns(time), min(as_of, window.end_ns(time))) == (start, end)


@given(moments())
def test_the_core_is_inside_the_window_until_the_horizon(moment: tuple[Window, int, int]) -> None:
    window, as_of, time = moment
    if window.has_core:
        assert 0 in window.live_slots(as_of, time)
        low, high = window.slot_bounds_ns(as_of)[0]
        assert low == high or low >= window.start_ns(time)


@given(moments())
def test_the_live_slots_stay_the_same_until_they_change(moment: tuple[Window, int, int]) -> None:
    window, as_of, time = moment
    change = window.changes_ns(time)
    assert change > time
    until = min(change - 1, as_of + window.horizon_ns)
    assert window.live_slots(as_of, until) == window.live_slots(as_of, time)


@given(moments())
def test_the_start_stands_still_until_it_changes(moment: tuple[Window, int, int]) -> None:
    window, _, time = moment
    if window.is_lifetime:
        assert (window.changes_ns(time), window.start_ns(time)) == (NEVER_NS, BEGINNING_NS)
        return
    change = window.changes_ns(time)
    assert window.start_ns(change - 1) == window.start_ns(time)
    if window.offset_ns:
        assert window.end_ns(change - 1) == window.end_ns(time)
        moved = (window.start_ns(change) - window.start_ns(time), window.end_ns(change) - window.end_ns(time))
        assert set(moved) <= {0, window.hop_ns}
        assert any(moved)
    else:
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


def test_a_window_in_the_past_has_heads_for_what_will_come_into_it() -> None:
    window = Window(7 * DAY_NS, HOUR_NS, HOUR_NS, 2 * DAY_NS, -DAY_NS)
    assert (window.has_core, window.tails, window.heads) == (True, 48, 24)
    bounds = window.slot_bounds_ns(T0)
    assert bounds[0] == (T0 - 6 * DAY_NS, T0 - DAY_NS)
    assert bounds[49] == (T0 - DAY_NS, T0 - 23 * HOUR_NS)
    assert bounds[-1] == (T0 - HOUR_NS, T0)
    assert window.live_slots(T0, T0) == list(range(49))
    assert window.live_slots(T0, T0 + HOUR_NS) == [0, *range(2, 50)]
    assert window.live_slots(T0, T0 + 2 * DAY_NS) == [0, *range(49, 73)]


def test_a_window_in_the_past_that_is_short_can_leave_its_heads_behind() -> None:
    window = Window(HOUR_NS, HOUR_NS, HOUR_NS, 2 * DAY_NS, -2 * HOUR_NS)
    assert (window.has_core, window.tails, window.heads) == (False, 1, 2)
    live = [window.live_slots(T0, T0 + hours * HOUR_NS) for hours in range(5)]
    assert live == [[0], [1], [2], [], []]


def test_a_lifetime_is_one_slot_for_ever() -> None:
    window = Window(LIFETIME_NS, HOUR_NS, HOUR_NS, 2 * DAY_NS)
    assert (window.slots, window.slot_names, window.text) == (1, ["core0"], "lifetime")
    assert window.slot_bounds_ns(T0) == [(BEGINNING_NS, T0)]
    assert window.live_slots(T0, T0 + 2 * DAY_NS) == [0]


def test_windows_end_at_the_request_or_with_the_last_complete_tile() -> None:
    plain, complete = (Window(DAY_NS, HOUR_NS, HOUR_NS, DAY_NS, 0, edge) for edge in (False, True))
    past = Window(DAY_NS, HOUR_NS, HOUR_NS, DAY_NS, -DAY_NS)
    assert [w.end_ns(T0 + 5) for w in (plain, complete, past)] == [T0 + 5, T0, T0 - DAY_NS]
    assert plain.text == complete.text == f"{DAY_NS}:{HOUR_NS}"
    assert past.text == f"{DAY_NS}-{DAY_NS}:{HOUR_NS}"
