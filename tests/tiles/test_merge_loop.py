"""The loop in C beside NumPy: what it refuses, and that no program leads it astray.

That both give the same values is held wherever rows are merged in tests: `tests.differential.merging`.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.tiles.aggregates import Op, make_schema
from fastserve.tiles.layout import NULL_FLOAT64_BITS, NULL_INT64
from fastserve.tiles.merge_loop import has_odd_by_numpy
from fastserve.tiles.windows import CLOCK_SKEW_NS, DAY_NS, HOUR_NS, Window
from tests.differential.merging import Merging, null_row
from tests.differential.naive import Event
from tests.differential.tiling import all_specs, compact, spec
from tests.support.loops import no_loops

native = pytest.importorskip("fastserve.tiles._merge_loop", reason="no C compiler was there")

T0 = 1_388_404_800 * 10**9
HORIZON_NS = 2 * DAY_NS
DAY = Window(DAY_NS, HOUR_NS, HOUR_NS, HORIZON_NS)
EVENT = Event("a", T0 - HOUR_NS, {"amount": 1.0, "units": 1, "kind": "x"})
ODD = [np.nan, np.inf, -np.inf]


def merging_of_all() -> Merging:
    return Merging(make_schema(all_specs([DAY]), HORIZON_NS))


def looped(merging: Merging, as_of_ns: int, now_ns: int, **values: Any) -> bool:
    """Whether the loop merges a row of one event, and a null row."""
    (schema,) = merging.schemas
    event = Event("a", T0 - HOUR_NS, {**EVENT.values, **values})
    row = compact(schema, [event], T0)["a"]
    matrix = merging.matrix([[row], [null_row(schema, NULL_INT64)]])
    effective = np.array([[as_of_ns], [NULL_INT64]])
    return merging.loop.merged(matrix, effective, now_ns) is not None


def test_the_loop_merges_every_function() -> None:
    assert looped(merging_of_all(), T0, T0 + HOUR_NS)


@pytest.mark.parametrize(
    "age_ns, serves",
    [(HORIZON_NS, True), (HORIZON_NS + 1, False), (-CLOCK_SKEW_NS, True), (-CLOCK_SKEW_NS - 1, False)],
)
def test_rows_past_their_horizon_or_from_the_future_are_refused(age_ns: int, serves: bool) -> None:
    assert looped(merging_of_all(), T0, T0 + age_ns) is serves


@pytest.mark.parametrize("now_ns", [-(2**63), -(2**61), 2**61, 2**63 - 1])
def test_times_that_could_overflow_are_refused(now_ns: int) -> None:
    assert not looped(merging_of_all(), NULL_INT64, now_ns)


@pytest.mark.parametrize("words", [[2**62, 2**62], [NULL_INT64, 0], [-(2**63) + 1, -3]])
def test_sums_that_may_leave_int64_are_refused(words: list[int]) -> None:
    window = Window(3 * HOUR_NS, HOUR_NS, HOUR_NS, HORIZON_NS)
    merging = Merging(make_schema([spec("units", "sum", window)], HORIZON_NS))
    (schema,) = merging.schemas
    matrix = merging.matrix([[compact(schema, [EVENT], T0)["a"]]]).copy()
    effective = np.array([[T0]])
    assert merging.loop.merged(matrix, effective, T0) is not None
    component = next(each for each in schema.components if each.op is Op.ADD_I)
    matrix[0, component.word : component.word + 2] = words
    assert merging.loop.merged(matrix, effective, T0) is None


def test_without_the_loop_nothing_is_merged_by_it() -> None:
    with no_loops():
        merging = merging_of_all()
    assert not looped(merging, T0, T0)


@given(st.lists(st.sampled_from([0.0, -0.0, 1e308, 5e-324, *ODD]) | st.floats(width=64), max_size=9))
def test_odd_floats_are_found_and_null_is_none_of_them(values: list[float]) -> None:
    floats = np.array(values, np.float64)
    assert native.has_odd(floats) is has_odd_by_numpy(floats)
    floats.view(np.int64)[np.isnan(floats)] = NULL_FLOAT64_BITS
    assert native.has_odd(floats) is has_odd_by_numpy(floats)


# --- programs --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text() -> list[int]:
    """The text of the program of all functions."""
    texts: list[list[int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "prepare", lambda text: texts.append(text.tolist()))
        merging_of_all()
    return texts[0]


@given(st.data())
def test_a_program_is_refused_or_stays_within_its_line(text: list[int], data: st.DataObject) -> None:
    damaged = list(text)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, min(len(text) - 1, 60)) | st.integers(0, len(text) - 1))
        word = st.integers(-3, 300) | st.sampled_from([2**31, 2**61, 2**62, -(2**63), 2**63 - 1])
        damaged[place] = data.draw(word)
    try:
        program = native.prepare(struct.pack(f"{len(damaged)}q", *damaged))
    except ValueError:
        return
    width, columns = damaged[:2]
    if width * columns > 1 << 20:
        return
    for floats, ints in ((0, 0), (40, 20), (1, 1)):
        native.merge(
            program,
            np.zeros((2, width), np.int64),
            np.full((2, columns), T0),
            np.empty((2, floats)),
            np.empty((2, ints), np.int64),
            T0,
        )


def test_a_program_cut_anywhere_is_refused(text: list[int]) -> None:
    whole = struct.pack(f"{len(text)}q", *text)
    native.prepare(whole)
    for length in range(0, len(whole), 8):
        with pytest.raises(ValueError, match="expected a program"):
            native.prepare(whole[:length])


def test_buffers_of_another_size_are_refused(text: list[int]) -> None:
    program = native.prepare(struct.pack(f"{len(text)}q", *text))
    merging = merging_of_all()
    width, floats, ints = text[0], merging.plan.floats, merging.plan.ints
    right = (np.zeros((1, width), np.int64), np.array([[T0]]), np.empty((1, floats)), np.empty((1, ints)))
    assert native.merge(program, *right, T0)
    for place in range(4):
        wrong = list(right)
        wrong[place] = np.zeros((1, right[place].shape[1] + 1))
        assert not native.merge(program, *wrong, T0)
    with pytest.raises(TypeError, match="expected 6 arguments"):
        native.merge(program)
    with pytest.raises(BufferError, match="not writable"):
        native.merge(program, *right[:2], bytes(8 * floats), right[3], T0)
