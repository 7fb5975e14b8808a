"""The functions whose state is bytes: tiled and merged in any way, they answer as the twin does."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.sdk.types import Array, Bool, DataType, Float32, Float64, Int64, String, Timestamp
from fastserve.tiles.wide import WideFunction, wide_function
from tests.differential import drawn
from tests.differential.readable import value_of
from tests.differential.twin import RawEvent, Span, Wanted, agrees, hll_error, over_window, rank_error
from tests.support.examples import examples

TYPES: dict[str, DataType] = {
    "amount": Float64,
    "units": Int64,
    "kind": String,
    "flag": Bool,
    "seen": Timestamp,
    "score": Float32,
    "shelf": Int64,
    "shop": String,
}
WIDE = ("last", "first", "last_distinct", "first_distinct", "approx_count_distinct", "approx_percentile")
KEYED = (*drawn.NUMERIC, *WIDE)


def is_wide(function: str, column: str, params: Any) -> bool:
    """Tell whether a function without a secondary key keeps its state in bytes."""
    if function in {"min", "max"} or (function in {"last", "first"} and not params):
        return column == "kind"
    return function in WIDE


def function_of(wanted: Wanted) -> tuple[WideFunction, DataType]:
    """Return what is tested, and the type of what it answers."""
    dtype = TYPES[wanted.column]
    key_type = None if wanted.secondary is None else TYPES[wanted.secondary]
    made = wide_function(wanted.function, tuple(wanted.params.items()), dtype, key_type)
    output = Float64 if wanted.function == "sum" and dtype == Float32 else dtype
    if wanted.function in {"count", "approx_count_distinct"}:
        output = Int64
    elif wanted.function in {"mean", "approx_percentile", "var_pop", "var_samp", "stddev_pop", "stddev_samp"}:
        output = Float64
    if "n" in wanted.params:
        output = Array(output)
    return made, output if wanted.secondary is None else Array(output)


def tiled(made: WideFunction, wanted: Wanted, events: Sequence[RawEvent]) -> bytes:
    """Return the state of some events."""
    inputs: list[tuple[int, Any]] = []
    for event in events:
        value = event.values[wanted.column]
        if wanted.secondary is not None:
            key = event.values[wanted.secondary]
            if key is not None:
                inputs.append((event.time_ns, (key, value)))
        elif value is not None:
            inputs.append((event.time_ns, value))
    inputs.sort(key=lambda pair: pair[0])
    return made.tile([time for time, _ in inputs], [value for _, value in inputs])


def merged_anyhow(made: WideFunction, states: list[bytes], chance: random.Random) -> bytes:
    """Merge states in any order and any grouping."""
    while len(states) > 1:
        chance.shuffle(states)
        count = chance.randint(2, len(states))
        given_states = [state for state in states[:count] if state]
        states = [made.merge(given_states) if given_states else b"", *states[count:]]
    return states[0]


def finalized(made: WideFunction, output: DataType, state: bytes) -> Any:
    return value_of(output, orjson.loads(made.finalize(state)))


@st.composite
def cases(draw: st.DrawFn, *, keyed: bool) -> tuple[Wanted, list[RawEvent]]:
    column, function, params = draw(
        drawn.functions().filter(lambda drawn_one: keyed or is_wide(drawn_one[1], drawn_one[0], drawn_one[2]))
    )
    times = st.integers(drawn.T0_NS, drawn.T0_NS + 4)
    one = st.builds(RawEvent, st.just("a"), times, drawn.columns())
    events = draw(st.lists(one, max_size=30))
    return Wanted(function, column, Span(1), params, None, draw(drawn.SECONDARY) if keyed else None), events


@settings(deadline=None, max_examples=examples(100))
@pytest.mark.parametrize("keyed", [False, True])
@given(st.data(), st.randoms(use_true_random=False))
def test_states_merged_in_any_way_answer_as_the_twin(
    keyed: bool, data: st.DataObject, chance: random.Random
) -> None:
    wanted, events = data.draw(cases(keyed=keyed))
    made, output = function_of(wanted)
    want = over_window(events, wanted)
    answers = []
    for _ in range(2):
        chance.shuffle(events)
        parts: list[list[RawEvent]] = [[] for _ in range(chance.randint(1, 5))]
        for event in events:
            chance.choice(parts).append(event)
        states = [tiled(made, wanted, part) for part in parts]
        at_once = made.answer([state for state in states if state])
        state = merged_anyhow(made, states, chance)
        assert agrees(want, value_of(output, orjson.loads(at_once)))
        got = finalized(made, output, state)
        assert agrees(want, got), (wanted, want, got)
        answers.append(got)
    if wanted.function in drawn.LISTED:
        assert repr(answers[0]) == repr(answers[1])


@pytest.mark.parametrize("precision", [4, 8, 12, 16])
@pytest.mark.parametrize("column", ["units", "kind", "amount"])
def test_distinct_counts_are_within_the_published_error(precision: int, column: str) -> None:
    chance = random.Random(f"{precision}/{column}")
    made = wide_function("approx_count_distinct", (("precision", precision),), TYPES[column], None)
    errors = []
    for trial in range(60):
        count = chance.choice([20, 300, 5_000]) if trial else 60_000
        numbers = [chance.getrandbits(50) for _ in range(count)]
        kinds = {"units": int, "kind": str, "amount": float}
        values = [kinds[column](number) for number in numbers]
        parts = [values[part::7] + values[: part * 3] for part in range(7)]
        state = made.merge([made.tile(range(len(part)), part) for part in parts])
        got = finalized(made, Int64, state)
        errors.append((got - len(set(values))) / len(set(values)) / hll_error(precision))
    assert max(map(abs, errors)) < 4.5, errors
    assert sum(abs(error) > 2 for error in errors) <= 9, errors  # 5 % are expected beyond two deviations
    assert abs(sum(errors)) / len(errors) < 0.75, errors  # and no bias


@pytest.mark.parametrize("precision", [20, 100, 500])
def test_percentiles_are_within_the_published_error(precision: int) -> None:
    chance = random.Random(precision)
    beyond, asked = 0, 0
    for trial in range(30):
        count = chance.choice([50, 2_000]) if trial else 50_000
        values = [chance.gauss(0, 1) for _ in range(count)] + [math.nan, math.inf, -math.inf]
        chance.shuffle(values)
        numbers = sorted(value for value in values if math.isfinite(value))
        parts = [values[part::5] for part in range(5)]
        for percentile in (0.0, 0.01, 0.5, 0.9, 1.0):
            params = (("percentile", percentile), ("precision", precision))
            made = wide_function("approx_percentile", params, Float64, None)
            got = finalized(made, Float64, made.merge([made.tile(range(len(p)), p) for p in parts]))
            rank = sum(number <= got for number in numbers) / count
            below = sum(number < got for number in numbers) / count
            error = max(below - percentile, percentile - rank, 0.0)
            asked += 1
            beyond += error > rank_error(precision) + 1 / count
            assert error <= 2 * rank_error(precision) + 1 / count, (percentile, count, got, rank)
    assert beyond <= 0.03 * asked, (beyond, asked)  # 1 % are expected beyond it


@pytest.mark.parametrize("function", ["last", "first", "last_distinct", "first_distinct"])
def test_a_thousand_values_are_kept_and_no_more(function: str) -> None:
    made = wide_function(function, (("n", 1000),), Int64, None)
    times = [drawn.T0_NS + number for number in range(2_500)]
    values = [number // 2 for number in range(2_500)]
    parts = [made.tile(times[part::4], values[part::4]) for part in range(4)]
    events = [RawEvent("a", t, {"units": v}) for t, v in zip(times, values, strict=True)]
    want = over_window(events, Wanted(function, "units", Span(1), {"n": 1000}))
    assert finalized(made, Array(Int64), made.merge(parts)) == want


@pytest.mark.parametrize(
    "function, column, params",
    [
        ("last", "kind", {}),
        ("max", "kind", {}),
        ("last", "units", {"n": 3}),
        ("first_distinct", "amount", {"n": 3}),
        ("approx_count_distinct", "kind", {"precision": 8}),
        ("approx_percentile", "units", {"percentile": 0.5, "precision": 100}),
    ],
)
def test_nothing_is_null(function: str, column: str, params: dict[str, float]) -> None:
    made = wide_function(function, tuple(params.items()), TYPES[column], None)
    assert made.tile([], []) == b""
    assert made.finalize(b"") == b"null"
