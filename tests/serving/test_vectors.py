"""The evaluator against its slow twin, against itself in other company, and one thing at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastserve.api.encode import FeaturesEncoder
from fastserve.plan.service import ServicePlan
from fastserve.serving.columns import Columns
from fastserve.serving.transport import BASE64_ROWS
from fastserve.serving.vectors import VectorEvaluator
from fastserve.tiles.aggregates import Op
from fastserve.tiles.layout import NULL_INT64, RowLayout
from fastserve.tiles.rows import encode_row
from fastserve.tiles.windows import HOUR_NS
from tests.differential.slow_vectors import slow_vector
from tests.serving.vector_cases import NEUTRAL, OLD, UNKNOWN_LAYOUT, Case, cases
from tests.support.examples import examples
from tests.support.loops import no_loops
from tests.support.plans import (
    AS_OF_NS,
    NOW_NS,
    TTL,
    TTL_NS,
    aggregate_row,
    aggregate_view,
    all_aggregates,
    attribute_row,
    attribute_view,
    workspace_plan,
)

TOO_LARGE = (HealthCheck.too_slow, HealthCheck.data_too_large)


def zero_counts(zeros: Sequence[bool]) -> list[tuple[int, ...] | None] | None:
    return [() if zero else None for zero in zeros] if any(zeros) else None


def status_of(columns: Columns, line: int, place: int) -> str:
    if (line, place) in columns.report.unreadable:
        return "UNKNOWN"
    return "MISSING_DATA" if columns.effective_ns[line, place] == NULL_INT64 else "PRESENT"


def same(expected: Any, got: Any) -> bool:
    return repr(expected) == repr(got)  # tells -0.0 from 0.0 and 1 from 1.0


def check(case: Case, columns: Columns, encoder: FeaturesEncoder, now_ns: int) -> None:
    for number, line in enumerate(case.lines):
        slow = slow_vector(case.plan, line, now_ns, zero_counts=case.zeros[number], old_layouts=case.old)
        encoded = encoder.encode(columns, number)
        assert encoder.encode_exactly(columns, number) == encoded
        got = orjson.loads(encoded)
        for output, expected, value in zip(case.plan.outputs, slow.values, got, strict=True):
            assert same(expected, value), (output.name, expected, value)
        places = range(len(case.plan.places))
        assert [status_of(columns, number, place) for place in places] == slow.statuses
        effective = [None if t == NULL_INT64 else t for t in columns.effective_ns[number].tolist()]
        assert effective == slow.effective_ns


CLOCKS = st.sampled_from([NOW_NS, NOW_NS + 59 * 60 * 10**9, AS_OF_NS - 30 * 10**9, AS_OF_NS + 20 * HOUR_NS])


@settings(max_examples=examples(120), suppress_health_check=TOO_LARGE)
@given(cases(), CLOCKS, CLOCKS)
def test_every_vector_is_what_the_slow_twin_makes_of_its_rows(
    case: Case, first_ns: int, then_ns: int
) -> None:
    encoder = FeaturesEncoder(case.plan)
    evaluator = VectorEvaluator(case.plan, case.transport, case.old)
    for now_ns in (first_ns, then_ns):
        check(case, evaluator.evaluate(case.lines, now_ns, zero_counts(case.zeros)), encoder, now_ns)
    with no_loops():
        evaluator = VectorEvaluator(case.plan, case.transport, case.old)
    for now_ns in (first_ns, *[then_ns] * 5, first_ns):  # five in a row make an epoch, where one can be
        check(case, evaluator.evaluate(case.lines, now_ns, zero_counts(case.zeros)), encoder, now_ns)


@settings(max_examples=examples(50), suppress_health_check=TOO_LARGE)
@given(cases())
def test_a_vector_does_not_depend_on_its_company(case: Case) -> None:
    together = VectorEvaluator(case.plan, case.transport, case.old)
    encoder = FeaturesEncoder(case.plan)
    columns = together.evaluate(case.lines, NOW_NS, zero_counts(case.zeros))
    for number, line in enumerate(case.lines):
        alone = VectorEvaluator(case.plan, case.transport, case.old)
        own = alone.evaluate([line], NOW_NS, zero_counts(case.zeros[number : number + 1]))
        assert encoder.encode(own, 0) == encoder.encode(columns, number)
        assert own.effective_ns.tolist() == columns.effective_ns[number : number + 1].tolist()


# --- one thing at a time ---------------------------------------------------------------------------------


def evaluator_of(plan: ServicePlan, old: dict[str, dict[int, RowLayout]] | None = None) -> VectorEvaluator:
    return VectorEvaluator(plan, BASE64_ROWS, old)


def answer(
    plan: ServicePlan,
    rows: Sequence[bytes | None],
    now_ns: int = NOW_NS,
    *,
    zero: Sequence[int] | None = None,
) -> tuple[dict[str, Any], Columns]:
    """Return the values of one line by name, and its columns."""
    line = [None if row is None else BASE64_ROWS.wrap(row) for row in rows]
    columns = evaluator_of(plan).evaluate([line], now_ns, None if zero is None else [zero])
    encoder = FeaturesEncoder(plan)
    assert encoder.encode(columns, 0) == encoder.encode_exactly(columns, 0)
    values = orjson.loads(encoder.encode(columns, 0))
    return {output.name: value for output, value in zip(plan.outputs, values, strict=True)}, columns


def service(*parts: Any) -> ServicePlan:
    return workspace_plan({"s": parts}).services["s"]


def slots_of(plan: ServicePlan, place: int, **by_op: Any) -> dict[int, list[Any]]:
    """Return neutral slots, with the given numbers in the first live slot of components by operation."""
    schema = plan.places[place].view.schema
    assert schema is not None
    slots = {}
    for number, component in enumerate(schema.components):
        numbers = [NEUTRAL[component.op]] * component.window.slots
        for live in component.window.live_slots(AS_OF_NS, NOW_NS)[:1]:
            numbers[live] = by_op.get(component.op.name, NEUTRAL[component.op])
        slots[number] = numbers
    return slots


def test_the_smallest_int64_is_a_value_where_the_row_says_so() -> None:
    plan = service(attribute_view("v", ["a_int", "b_float"]))
    row = attribute_row(plan.places[0].view, {"a_int": NULL_INT64, "b_float": None})
    assert answer(plan, [row])[0] == {"v.a_int": str(NULL_INT64), "v.b_float": None}


def test_the_smallest_int64_of_an_expired_row_is_null() -> None:
    plan = service(attribute_view("v", ["a_int"], ttl=TTL))
    row = attribute_row(plan.places[0].view, {"a_int": NULL_INT64}, NOW_NS - TTL_NS - 1)
    values, columns = answer(plan, [row])
    assert values == {"v.a_int": None}
    assert (columns.exact, columns.report.expired) == ({}, 1)


def test_a_row_is_served_until_its_ttl_has_passed_to_the_nanosecond() -> None:
    plan = service(attribute_view("v", ["a_int"], ttl=TTL))
    row = attribute_row(plan.places[0].view, {"a_int": 7}, NOW_NS - TTL_NS)
    assert answer(plan, [row])[0] == {"v.a_int": "7"}
    assert answer(plan, [row], NOW_NS + 1)[0] == {"v.a_int": None}


def test_texts_of_an_expired_row_are_null_beside_others() -> None:
    plan = service(attribute_view("old", ["d_text"], ttl=TTL), attribute_view("young", ["d_text"]))
    rows = [attribute_row(place.view, {"d_text": b'"x"'}, 0) for place in plan.places]
    assert answer(plan, rows)[0] == {"old.d_text": None, "young.d_text": "x"}


def test_null_float32_aggregates_stay_null_beside_a_nan() -> None:
    plan = service(
        aggregate_view("v", [a for a in all_aggregates() if a.input_column.name == "score"]),
        attribute_view("w", ["c_single"]),
    )
    numbers = {place.view.name: place.number for place in plan.places}
    rows: list[bytes | None] = [None, None]
    rows[numbers["v"]] = aggregate_row(
        plan.places[numbers["v"]].view, slots_of(plan, numbers["v"], ADD_F=1e300)
    )
    rows[numbers["w"]] = attribute_row(plan.places[numbers["w"]].view, {"c_single": float("nan")})
    values, columns = answer(plan, rows)
    assert columns.odd
    assert values["w.c_single"] == "NaN"
    assert {values[f"v.score_{f}_{w}_1h"] for f in ("min", "max") for w in ("3h", "1d", "28d")} == {None}


@pytest.mark.parametrize("function", ["min", "max"])
def test_float32_and_timestamp_extremes_have_their_input_s_type(function: str) -> None:
    features = [a for a in all_aggregates() if a.input_column.name in {"score", "seen"}]
    plan = service(aggregate_view("v", features))
    filled = {"MIN_F": float(np.float32(0.1)), "MAX_F": float(np.float32(0.1)), "COUNT": 1}
    row = aggregate_row(plan.places[0].view, slots_of(plan, 0, **filled, MIN_I=1_000_000, MAX_I=1_000_000))
    values, columns = answer(plan, [row])
    assert values[f"v.score_{function}_1d_1h"] == 0.1
    assert values[f"v.seen_{function}_1d_1h"] == "1970-01-01T00:00:00.001Z"
    assert columns.singles.dtype == np.float32


def test_an_int64_sum_that_leaves_its_range_is_null_and_its_mean_too() -> None:
    features = [a for a in all_aggregates() if a.input_column.name == "units"]
    plan = service(aggregate_view("v", features))
    schema = plan.places[0].view.schema
    assert schema is not None
    slots = {
        number: [2**62 if component.op is Op.ADD_I else 1] * component.window.slots
        for number, component in enumerate(schema.components)
    }
    values = answer(plan, [aggregate_row(plan.places[0].view, slots)])[0]
    assert values["v.units_sum_1d_1h"] is None
    assert values["v.units_mean_1d_1h"] is None
    assert values["v.units_count_1d_1h"] == "17"


def count_plan() -> ServicePlan:
    return service(aggregate_view("v", [a for a in all_aggregates() if a.function.name == "count"][:3]))


def test_a_count_over_an_empty_window_is_null_unless_it_is_to_be_zero() -> None:
    plan = count_plan()
    row = aggregate_row(plan.places[0].view, slots_of(plan, 0))
    assert set(answer(plan, [row])[0].values()) == {None}
    assert set(answer(plan, [row], zero=())[0].values()) == {"0"}
    assert set(answer(plan, [None], zero=())[0].values()) == {"0"}


def test_a_count_of_a_row_that_failed_is_null_also_when_null_counts_are_to_be_zero() -> None:
    plan = count_plan()
    assert set(answer(plan, [None], zero=(0,))[0].values()) == {None}
    row = aggregate_row(plan.places[0].view, slots_of(plan, 0, COUNT=3))
    values, columns = answer(plan, [row[:-3]], zero=())
    assert set(values.values()) == {None}
    assert list(columns.report.unreadable) == [(0, 0)]


def test_one_s_zero_counts_are_not_another_s() -> None:
    plan = count_plan()
    columns = evaluator_of(plan).evaluate([[None], [None], [None]], NOW_NS, [None, (), (0,)])
    encoder = FeaturesEncoder(plan)
    assert [encoder.encode(columns, line) for line in range(3)] == [
        b"[null,null,null]",
        b'["0","0","0"]',
        b"[null,null,null]",
    ]


def test_a_row_with_broken_texts_is_reported_and_its_neighbours_are_not() -> None:
    plan = service(attribute_view("v", ["a_int", "d_text"]))
    view = plan.places[0].view
    good = attribute_row(view, {"a_int": 1, "d_text": b'"good"'})
    long = attribute_row(view, {"a_int": 1, "d_text": b'"%b"' % (b"x" * 30)})
    broken = (long[:-3], long + b"\0\0\0", long[: view.layout.fixed_bytes])
    wrapped = [[BASE64_ROWS.wrap(row)] for row in (good, *broken, good)]
    columns = evaluator_of(plan).evaluate([*wrapped, [wrapped[0][0][:-4] + "!!!!"]], NOW_NS)
    encoder = FeaturesEncoder(plan)
    answers = [orjson.loads(encoder.encode(columns, line)) for line in range(6)]
    assert answers == [["1", "good"], *[[None, None]] * 3, ["1", "good"], [None, None]]
    assert sorted(columns.report.unreadable) == [(1, 0), (2, 0), (3, 0), (5, 0)]


def test_a_short_row_and_a_long_one_do_not_make_up_for_each_other() -> None:
    plan = service(attribute_view("v", ["a_int"]), attribute_view("w", ["a_int"]))
    rows = [attribute_row(place.view, {"a_int": 5}) for place in plan.places]
    values, columns = answer(plan, [rows[0][:-3], rows[1] + b"\0\0\0"])
    assert values == {"v.a_int": None, "w.a_int": None}
    assert len(columns.report.unreadable) == 2


def test_rows_of_an_older_schema_are_read_by_name_and_those_of_an_unknown_one_are_reported() -> None:
    plan = service(attribute_view("v", ["a_int", "d_text", "j_float"]))
    evaluator = evaluator_of(plan, {"v": {OLD.schema_id: OLD}})
    old = encode_row(OLD, {"d_text": b'"then"', "a_int": 1.5, "j_float": 2.5}, AS_OF_NS)
    unknown = encode_row(UNKNOWN_LAYOUT, {"nobody": 1}, AS_OF_NS)
    columns = evaluator.evaluate([[BASE64_ROWS.wrap(old)], [BASE64_ROWS.wrap(unknown)]], NOW_NS)
    encoder = FeaturesEncoder(plan)
    assert encoder.encode(columns, 0) == b'[null,"then",2.5]'
    assert encoder.encode(columns, 1) == b"[null,null,null]"
    assert columns.report.transcoded == 1
    assert columns.report.unreadable == {
        (1, 0): f"expected a row of schema {plan.places[0].view.layout.schema_id:08x}, "
        f"got schema {UNKNOWN_LAYOUT.schema_id:08x}"
    }
    assert columns.effective_ns.tolist() == [[AS_OF_NS], [NULL_INT64]]


def test_warnings_of_numpy_do_not_reach_the_server_s_log(recwarn: pytest.WarningsRecorder) -> None:
    plan = service(aggregate_view("v"))
    row = aggregate_row(plan.places[0].view, slots_of(plan, 0, ADD_F=1.7e308))
    answer(plan, [row])
    assert not recwarn.list


@pytest.mark.parametrize("functions", [{"sum"}, {"mean"}, {"sum", "mean", "count", "min"}], ids=sorted)
def test_a_float_sum_has_the_same_last_digit_whichever_way_it_is_merged(functions: set[str]) -> None:
    windows = {"1d", "28d"} if len(functions) > 1 else {"1d"}
    named = [a for a in all_aggregates() if a.input_column.name == "amount" and a.function.name in functions]
    view = aggregate_view("v", [a for a in named if a.time_window.label in windows])
    plan = service(view)
    schema = plan.places[0].view.schema
    assert schema is not None
    chance = np.random.default_rng(7)

    def row(as_of_ns: int) -> str:
        slots: dict[int, list[float | int]] = {
            number: [float(x) for x in chance.random(component.window.slots)]
            if component.op.is_float
            else [3] * component.window.slots
            for number, component in enumerate(schema.components)
        }
        wrapped: str = BASE64_ROWS.wrap(aggregate_row(plan.places[0].view, slots, as_of_ns))
        return wrapped

    encoder = FeaturesEncoder(plan)
    evaluator = evaluator_of(plan)
    rows = [[row(AS_OF_NS)] for _ in range(40)]
    first = evaluator.evaluate(rows, NOW_NS)
    expected = [encoder.encode(first, line) for line in range(40)]
    with no_loops():
        evaluator = evaluator_of(plan)
    for _ in range(6):  # by now there is an epoch
        again = evaluator.evaluate(rows, NOW_NS)
        assert [encoder.encode(again, line) for line in range(40)] == expected
    mixed = evaluator.evaluate([*rows, [row(AS_OF_NS - HOUR_NS)]], NOW_NS)
    assert [encoder.encode(mixed, line) for line in range(40)] == expected
    assert [encoder.encode(evaluator.evaluate([line], NOW_NS), 0) for line in rows] == expected
