from __future__ import annotations

import contextlib
import math
import subprocess
import sys
from collections import defaultdict
from typing import Any

import datasketches
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.errors import InvariantError
from fastserve.sdk.types import Bool, DataType, Float32, Float64, Int64, String, Timestamp
from fastserve.tiles.wide import IR_ERRORS, MAX_STRING_BYTES, SECONDARY_KEYS, WideFunction, wide_function
from fastserve.tiles.wide_quantiles import capacities
from tests.support.examples import examples
from tests.tiles.wide_cases import NUMERIC, VALUES, Event, Params, as_json, event_lists, is_nan, naive, split

SCALARS = (Int64, Float64, Float32, String, Bool, Timestamp)
LISTS = ("last", "first", "last_distinct", "first_distinct")
NUMBERS = ("sum", "mean", "var_pop", "var_samp", "stddev_pop", "stddev_samp")
Kind = tuple[str, Params, DataType]


@st.composite
def exact_kinds(draw: st.DrawFn) -> Kind:
    """Wide functions without a secondary key whose outcome is exact."""
    name = draw(st.sampled_from([*LISTS, "last scalar", "first scalar", "min", "max", "approx_percentile"]))
    if name == "approx_percentile":
        share = draw(st.one_of(st.sampled_from([0, 0.07, 0.25, 0.5, 0.9, 1]), st.floats(0, 1)))
        return name, {"percentile": share, "precision": 20}, draw(st.sampled_from(NUMERIC))
    dtype = draw(st.sampled_from(SCALARS))
    if name in LISTS:
        return name, {"n": draw(st.sampled_from([1, 2, 3, 1000]))}, dtype
    return name.removesuffix(" scalar"), {}, dtype


def tile(function: WideFunction, events: list[Event]) -> bytes:
    return function.tile([time for time, _ in events], [value for _, value in events])


def merged(draw: st.DrawFn, function: WideFunction, irs: list[bytes]) -> bytes:
    """Merge in any grouping and order."""
    left = [ir for ir in irs if ir]
    while len(left) > 1:
        taken = draw(st.integers(2, len(left)))
        left = draw(st.permutations([*left[taken:], function.merge(left[:taken])]))
    return left[0] if left else b""


@st.composite
def exact_cases(draw: st.DrawFn) -> tuple[Kind, list[Event], list[bytes], bytes]:
    name, params, dtype = draw(exact_kinds())
    function = wide_function(name, params, dtype)
    events = draw(event_lists(dtype))
    irs = [tile(function, slot) for slot in split(draw, events)]
    return (name, params, dtype), events, [ir for ir in irs if ir], merged(draw, function, irs)


@settings(max_examples=examples(120), deadline=None)
@given(exact_cases())
def test_any_slots_merged_in_any_order_give_what_a_loop_over_the_events_gives(
    case: tuple[Kind, list[Event], list[bytes], bytes],
) -> None:
    kind, events, irs, whole = case
    function = wide_function(*kind)
    expected = naive(*kind, events)
    assert orjson.loads(function.finalize(tile(function, events))) == expected
    assert orjson.loads(function.finalize(whole)) == expected
    assert orjson.loads(function.answer(irs)) == expected
    assert tile(function, events) == whole  # to the byte


@st.composite
def keyed_events(draw: st.DrawFn, key_type: DataType, dtype: DataType) -> list[tuple[int, Any]]:
    keys = st.sampled_from(["", "a", "b|"]) if key_type == String else st.sampled_from([-1, 0, 2**62])
    pairs = st.tuples(keys, st.none() | VALUES[dtype])
    return draw(st.lists(st.tuples(st.integers(0, 5), pairs), max_size=12))


@settings(max_examples=examples(120), deadline=None)
@given(st.data())
def test_under_a_secondary_key_every_function_gives_an_array_over_the_sorted_keys(
    data: st.DataObject,
) -> None:
    kinds: st.SearchStrategy[Any] = st.one_of(
        exact_kinds(),
        st.tuples(st.sampled_from(NUMBERS), st.just({}), st.sampled_from(NUMERIC)),
        st.tuples(st.just("count"), st.just({}), st.sampled_from(SCALARS)),
    )
    kind: Kind = data.draw(kinds)
    key_type = data.draw(st.sampled_from([String, Int64]))
    events = data.draw(keyed_events(key_type, kind[2]))
    function = wide_function(*kind, key_type)
    by_key: dict[Any, list[Event]] = defaultdict(list)
    for time, (key, value) in events:
        by_key[key] += [] if value is None else [(time, value)]
    expected = [naive(*kind, by_key[key]) for key in sorted(by_key)] or None

    def draw(strategy: st.SearchStrategy[Any]) -> Any:
        return data.draw(strategy)

    irs = [tile(function, slot) for slot in split(draw, events)]  # type: ignore[arg-type]
    for text in (
        function.finalize(merged(draw, function, irs)),  # type: ignore[arg-type]
        function.answer([ir for ir in irs if ir]),
        function.finalize(tile(function, events)),
    ):
        assert close(orjson.loads(text), expected, by_key.values())
    keys = wide_function(SECONDARY_KEYS, {}, key_type, key_type)
    answer = keys.answer([ir for slot in [events] if (ir := tile(keys, slot))])
    assert orjson.loads(answer) == ([as_json(key_type, key) for key in sorted(by_key)] or None)


def close(came: list[Any] | None, expected: list[Any] | None, values: Any) -> bool:
    """Compare arrays; floats to 1e-9 of the largest value that went into them, squared for variances."""
    if came is None or expected is None:
        return came is expected
    scale = max((abs(float(v)) for part in values for _, v in part if is_finite(v)), default=0.0)
    return len(came) == len(expected) and all(
        a == b or overflows(scale) or (isinstance(a, float) and isinstance(b, float) and near(a, b, scale))
        for a, b in zip(came, expected, strict=True)
    )


def overflows(scale: float) -> bool:
    return scale > 1e150


def near(a: float, b: float, scale: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-6 * max(scale, scale * scale))


def is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


@pytest.mark.parametrize("precision", [4, 8, 12, 16])
def test_distinct_counts_are_within_the_sketch_s_error_and_depend_on_the_set_alone(precision: int) -> None:
    chance = np.random.default_rng(precision)
    function = wide_function("approx_count_distinct", {"precision": precision}, Int64)
    error = abs(datasketches.hll_sketch.get_rel_err(True, True, precision, 3))  # three deviations
    for count in (1, 2, 7, 8, 20, 100, 1_000, 30_000):
        values = chance.integers(-(2**60), 2**60, count).tolist()
        answers = set()
        for parts in (1, 2, 17):
            chance.shuffle(values)
            slots = [values[part::parts] + values[:3] for part in range(parts)]
            irs = [function.tile([0] * len(slot), slot) for slot in slots]
            answers |= {function.answer(irs), function.finalize(function.merge(irs[::-1]))}
        assert len(answers) == 1
        assert int(orjson.loads(answers.pop())) == pytest.approx(count, rel=error, abs=0.5)


@given(st.data())
def test_a_few_distinct_values_are_counted_exactly(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(SCALARS))
    values = data.draw(st.lists(VALUES[dtype], min_size=1, max_size=7))
    function = wide_function("approx_count_distinct", {"precision": 8}, dtype)
    distinct = {"nan" if is_nan(v) else v for v in values}
    assert orjson.loads(function.finalize(function.tile([0] * len(values), values))) == str(len(distinct))


@pytest.mark.parametrize("k", [20, 100, 500])
@pytest.mark.parametrize("shape", ["normal", "lognormal", "few", "ascending"])
def test_percentiles_are_within_the_sketch_s_published_rank_error(k: int, shape: str) -> None:
    chance = np.random.default_rng(k)
    values = {
        "normal": chance.normal(size=60_000),
        "lognormal": chance.lognormal(0, 3, 60_000),
        "few": chance.integers(0, 9, 60_000).astype(float),
        "ascending": np.arange(60_000.0),
    }[shape]
    bound = datasketches.kll_doubles_sketch(k).normalized_rank_error(False)
    ordered = np.sort(values)
    cuts = [np.array_split(values, parts) for parts in (1, 30, 400)]
    for share in (0, 0.01, 0.1, 0.5, 0.75, 0.99, 1):
        function = wide_function("approx_percentile", {"percentile": share, "precision": k}, Float64)
        for slots in cuts:
            irs = [function.tile([0] * len(slot), slot.tolist()) for slot in slots]
            chunks = [function.merge(irs[part::7]) for part in range(min(7, len(irs)))]
            for text in (
                function.answer(irs),
                function.answer(chunks),
                function.finalize(function.merge(irs)),
            ):
                came = orjson.loads(text)
                low = np.searchsorted(ordered, came, "left") / len(values)
                high = np.searchsorted(ordered, came, "right") / len(values)
                assert low - bound <= share <= high + bound
                assert share not in {0, 1} or came == ordered[-int(share)]


def test_percentiles_are_the_same_each_time_and_whatever_the_order_of_slots() -> None:
    chance = np.random.default_rng(1)
    values = chance.normal(size=5_000).tolist()
    function = wide_function("approx_percentile", {"percentile": 0.5, "precision": 20}, Float64)
    irs = [function.tile([0] * 100, values[low : low + 100]) for low in range(0, 5_000, 100)]
    assert len({function.merge(irs[turn:] + irs[:turn]) for turn in range(50)}) == 1
    assert len({function.answer(irs[turn:] + irs[:turn]) for turn in range(50)}) == 1
    assert function.tile([0] * 5_000, values) == function.tile([0] * 5_000, values[::-1])


def test_levels_hold_what_those_of_datasketches_hold() -> None:
    function = wide_function("approx_percentile", {"percentile": 0.5, "precision": 100}, Float64)
    for count in (100, 101, 1_000, 50_000):
        levels = function.tile([0] * count, list(map(float, range(count))))[1]
        ours = sum(capacities(100, levels))
        theirs = datasketches.kll_doubles_sketch(100)
        theirs.update(np.arange(float(count)))
        assert theirs.num_retained <= ours <= 3 * 100 + 8 * levels


@pytest.mark.parametrize("name", ["last", "min", "last_distinct"])
def test_a_string_over_the_limit_is_refused(name: str) -> None:
    params = {"n": 2.0} if name == "last_distinct" else {}
    function = wide_function(name, params, String)
    assert function.finalize(function.tile([0], ["é" * (MAX_STRING_BYTES // 2)])) is not None
    with pytest.raises(ValueError, match=r"^expected a string of at most 1024 bytes, got 1025 bytes$"):
        function.tile([0, 1], ["", "x" * (MAX_STRING_BYTES + 1)])
    with pytest.raises(ValueError, match="1024 bytes"):
        wide_function("count", {}, Int64, String).tile([0], [("x" * 1025, 1)])


@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_damaged_bytes_raise_or_give_json_and_nothing_else(data: st.DataObject) -> None:
    name, params, dtype = data.draw(
        st.one_of(
            exact_kinds(),
            st.tuples(st.just("approx_count_distinct"), st.just({"precision": 4}), st.sampled_from(SCALARS)),
        )
    )
    key_type = data.draw(st.none() | st.just(String))
    function = wide_function(name, params, dtype, key_type)
    events = data.draw(keyed_events(String, dtype) if key_type else event_lists(dtype))
    ir = bytearray(tile(function, events))
    if not ir:
        return
    for _ in range(data.draw(st.integers(1, 3))):
        ir[data.draw(st.integers(0, len(ir) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(ir[: data.draw(st.integers(1, len(ir)))])
    with contextlib.suppress(*IR_ERRORS):
        orjson.loads(function.answer([broken, broken]))


def test_a_variance_of_large_close_numbers_does_not_cancel() -> None:
    function = wide_function("var_pop", {}, Float64, Int64)
    values = [(1, 1e9 + number / 10) for number in range(10)]
    irs = [function.tile([0], [value]) for value in values]
    assert orjson.loads(function.answer(irs)) == [pytest.approx(0.0825, rel=1e-6)]


def test_values_that_are_all_the_same_have_no_variance_to_the_last_digit() -> None:
    function = wide_function("var_pop", {}, Float64, Int64)
    irs = [function.tile([0] * count, [(1, 0.1)] * count) for count in (1, 3, 7)]
    assert function.answer(irs) == b"[0.0]"
    function = wide_function("max", {}, Float64, Int64)
    assert function.answer([function.tile([0], [(1, -0.0)])]) == b"[0.0]"


def test_the_library_is_loaded_by_the_first_distinct_count_and_by_nothing_before_it() -> None:
    code = """
import sys
from fastserve.sdk.types import Int64
from fastserve.tiles.wide import wide_function
percentile = wide_function("approx_percentile", {"percentile": 0.5, "precision": 20}, Int64)
count = wide_function("approx_count_distinct", {"precision": 8}, Int64)
percentile.answer([percentile.tile([0] * 50, list(range(50)))])
assert "datasketches" not in sys.modules
count.tile([0], [1])
assert "datasketches" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_no_function_is_an_error_of_ours() -> None:
    with pytest.raises(InvariantError, match=r"^expected an aggregate function, got 'median'$"):
        wide_function("median", {}, Float64)
