"""Wide aggregates and series from rows to answers, against a loop over the events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastserve import (
    Aggregate,
    Attribute,
    FeatureView,
    Field,
    Float32,
    Float64,
    Int64,
    LifetimeWindow,
    String,
    Timestamp,
    TimeWindow,
    TimeWindowSeries,
    approx_count_distinct,
    approx_percentile,
    first,
    first_distinct,
    last,
    last_distinct,
    on_demand_feature_view,
)
from fastserve.api.encode import FeaturesEncoder
from fastserve.errors import StoreError
from fastserve.plan.service import ServicePlan
from fastserve.plan.views import ViewPlan
from fastserve.serving.columns import Columns
from fastserve.serving.transport import BASE64_ROWS, RAW_ROWS, RowTransport
from fastserve.serving.vectors import VectorEvaluator
from fastserve.tiles.aggregates import AggregateFeature, AggregateSpec
from fastserve.tiles.layout import NULL_INT64
from fastserve.tiles.wide_write import WideEvents, WideTiler
from fastserve.tiles.windows import DAY_NS, HOUR_NS, Window
from fastserve.tiles.write import EventColumn, Events, encode_words, tile_events
from tests.serving.on_demand_world import OnDemandWorld
from tests.support.examples import examples
from tests.support.loops import no_loops
from tests.support.plans import AS_OF_NS, EVENTS, NOW_NS, USER, attribute_row, attribute_view, workspace_plan
from tests.tiles.wide_cases import naive

INPUTS = {"kind": String, "amount": Float64, "units": Int64, "score": Float32, "seen": Timestamp}
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WINDOWS = (
    TimeWindow(3 * HOUR),
    TimeWindow(28 * DAY),
    TimeWindow(DAY, offset=-DAY),
    LifetimeWindow(),
    TimeWindowSeries(-6 * HOUR, window_size=3 * HOUR, step_size=3 * HOUR),
)
FUNCTIONS: dict[str, Sequence[Any]] = {
    "kind": ("min", "max", "last", "first", last(2), last_distinct(2), approx_count_distinct()),
    "amount": ("sum", "mean", "count", "min", first(3), approx_percentile(0.5), approx_percentile(0.9, 20)),
    "units": ("sum", "max", "last", last(3), first_distinct(2), approx_percentile(1)),
    "score": ("max", last(2)),
    "seen": ("last", last_distinct(3), "max"),
}
KEY = Field("units", Int64)

RawEvent = tuple[int, dict[str, Any]]


def view_of(name: str, features: Sequence[Aggregate], key: Field | None = None) -> FeatureView:
    return FeatureView(
        name,
        entities=[USER],
        source=EVENTS,
        features=list(features),
        aggregation_interval=HOUR,
        aggregation_secondary_key=key,
    )


@st.composite
def plans(draw: st.DrawFn) -> ServicePlan:
    views: list[Any] = []
    for number in range(draw(st.integers(1, 2))):
        key = draw(st.sampled_from([None, None, KEY]))
        kinds = st.sampled_from(
            [(c, f) for c, functions in FUNCTIONS.items() for f in functions if key is None or c != key.name]
        )
        windows = WINDOWS if key is None else WINDOWS[:4]
        wanted = draw(
            st.lists(st.tuples(kinds, st.sampled_from(windows)), min_size=1, max_size=6, unique_by=str)
        )
        features = [Aggregate(Field(c, INPUTS[c]), f, window) for (c, f), window in wanted]
        views.append(view_of(f"v{number}", features, key))
    if draw(st.booleans()):
        views.append(attribute_view("w", ["a_int", "d_text", "g_array", "b_float"]))
    return workspace_plan({"s": views}).services["s"]


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "kind": st.sampled_from(["", "a", 'é"\\']),
    "amount": st.integers(-(2**20), 2**20).map(lambda n: n / 8) | st.just(float("nan")),
    "units": st.integers(-3, 3),
    "score": st.sampled_from([0.5, 0.25, -8.0]),
    "seen": st.sampled_from([0, NOW_NS, -1]),
}


@st.composite
def event_lists(draw: st.DrawFn) -> list[RawEvent]:
    steps = st.integers(-13, 1).map(lambda hours: AS_OF_NS + hours * HOUR_NS)
    times = st.one_of(steps, steps.map(lambda time: time - 1), st.sampled_from([AS_OF_NS - 28 * DAY_NS, 0]))
    values = st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()})
    return sorted(draw(st.lists(st.tuples(times, values), max_size=10)), key=lambda event: event[0])


def row_of(view: ViewPlan, events: Sequence[RawEvent], as_of_ns: int) -> bytes:
    """Return the row that the batch job makes of one entity's events."""
    assert view.schema is not None
    starts = np.array([0, len(events)], np.intp)
    times = np.array([time for time, _ in events], np.int64)
    raw = {name: [values[name] for _, values in events] for name in INPUTS}
    columns = {}
    for name, values in raw.items():
        valid = np.array([value is not None for value in values], np.bool_)
        numbers = None
        if INPUTS[name] != String:
            dtype = np.float64 if INPUTS[name] in (Float64, Float32) else np.int64
            numbers = np.array([0 if value is None else value for value in values], dtype)
        columns[name] = EventColumn(numbers, valid)
    words = tile_events(view.schema, Events(starts, times, columns), as_of_ns)
    wide = WideTiler(view.schema).tile(WideEvents(starts, times, raw), as_of_ns)
    return encode_words(view.schema, words, as_of_ns, wide)[0]


def expected(feature: AggregateFeature, events: Sequence[RawEvent], as_of_ns: int, now_ns: int) -> Any:
    spec = feature.spec
    if spec.series:
        return [over_window(spec, window, events, as_of_ns, now_ns) for window in spec.series]
    return over_window(spec, spec.window, events, as_of_ns, now_ns)


def over_window(
    spec: AggregateSpec, window: Window, events: Sequence[RawEvent], as_of_ns: int, now_ns: int
) -> Any:
    now_ns = max(now_ns, as_of_ns)
    low, high = window.start_ns(now_ns), min(window.end_ns(now_ns), as_of_ns)
    inside = [(time, values) for time, values in events if low <= time < high]
    if spec.secondary_key is None:
        return value_of(spec, [(time, values[spec.column]) for time, values in inside])
    keys = sorted({values[spec.secondary_key] for _, values in inside} - {None})
    if spec.function == "secondary_keys":
        return [str(key) for key in keys] or None
    by_key = [[(t, v[spec.column]) for t, v in inside if v[spec.secondary_key] == key] for key in keys]
    return [value_of(spec, part) for part in by_key] or None


def value_of(spec: AggregateSpec, events: Sequence[tuple[int, Any]]) -> Any:
    there = [(time, value) for time, value in events if value is not None]
    params = {name: float(value) for name, value in spec.params}
    if spec.function == "approx_count_distinct":
        return str(len({value for _, value in there})) if there else None
    return naive(spec.function, params, spec.input_type, there)


Rows = list[tuple[Any, list[RawEvent], int]]


@st.composite
def rows_of(draw: st.DrawFn, plan: ServicePlan, transport: RowTransport) -> Rows:
    """A line: for each place its row as it comes, the events in it and its as_of."""
    line: Rows = []
    for place in plan.places:
        kind = draw(st.sampled_from(["good"] * 5 + ["absent", "cut", "longer"]))
        as_of_ns = draw(st.sampled_from([AS_OF_NS, AS_OF_NS, AS_OF_NS - 12 * HOUR_NS, NOW_NS - 3 * DAY_NS]))
        events: list[RawEvent] = []
        if place.view.schema is None:
            row = attribute_row(place.view, {"a_int": 1, "d_text": b'"x"'})
        else:
            events = draw(event_lists())
            row = row_of(place.view, events, as_of_ns)
        row = {"cut": row[:-3], "longer": row + b"\0\0\0"}.get(kind, row)
        line.append((None if kind == "absent" else transport.wrap(row), events, as_of_ns))
        if kind in {"absent", "cut", "longer"} or now_is_beyond(place.view, as_of_ns):
            line[-1] = (line[-1][0], events, NULL_INT64)
    return line


def now_is_beyond(view: ViewPlan, as_of_ns: int) -> bool:
    return view.schema is not None and as_of_ns + view.schema.horizon_ns < NOW_NS


def check(plan: ServicePlan, lines: Sequence[Rows], columns: Columns) -> None:
    encoder = FeaturesEncoder(plan)
    for number, line in enumerate(lines):
        encoded = encoder.encode(columns, number)
        assert encoder.encode_exactly(columns, number) == encoded
        for output, came in zip(plan.inputs, orjson.loads(encoded), strict=True):
            _, events, as_of_ns = line[output.place]
            if as_of_ns == NULL_INT64:
                assert came is None, output.name
            elif isinstance(output.source, AggregateFeature):
                wanted = expected(output.source, events, as_of_ns, NOW_NS)
                if output.source.spec.function == "count" and wanted == "0":
                    wanted = None
                assert repr(came) == repr(wanted), output.name


@settings(max_examples=examples(80), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_every_line_is_answered_what_a_loop_over_its_events_answers(data: st.DataObject) -> None:
    plan = data.draw(plans())
    transport = data.draw(st.sampled_from([BASE64_ROWS, RAW_ROWS]))
    lines = data.draw(st.lists(rows_of(plan, transport), min_size=1, max_size=3))
    with no_loops():
        evaluator = VectorEvaluator(plan, transport)
    for _ in range(6):  # from the fourth on there may be an epoch
        columns = evaluator.evaluate([[row for row, _, _ in line] for line in lines], NOW_NS)
        check(plan, lines, columns)


def kinds_plan() -> ServicePlan:
    features = [
        Aggregate(Field("kind", String), last(2), TimeWindow(3 * HOUR), name="lasts"),
        Aggregate(Field("amount", Float64), "sum", TimeWindow(3 * HOUR), name="total"),
    ]
    return workspace_plan({"s": [view_of("v", features), attribute_view("w", ["a_int", "d_text"])]}).services[
        "s"
    ]


EVENT: RawEvent = (
    AS_OF_NS - 1,
    {"kind": "a", "amount": 2.5, "units": None, "score": None, "seen": None},
)


def test_a_row_with_a_damaged_state_is_unreadable_as_a_whole_and_no_other_row_is() -> None:
    plan = kinds_plan()
    view = plan.places[0].view
    row = row_of(view, [EVENT], AS_OF_NS)
    at = view.layout.fixed_bytes
    damaged = row[:at] + b"\7" + row[at + 1 :]
    other = attribute_row(plan.places[1].view, {"a_int": 7, "d_text": b'"x"'})
    lines = [[RAW_ROWS.wrap(first), RAW_ROWS.wrap(other)] for first in (row, damaged, row)]
    now_ns = AS_OF_NS + 60
    columns = VectorEvaluator(plan, RAW_ROWS).evaluate(lines, now_ns)
    answers = [orjson.loads(FeaturesEncoder(plan).encode(columns, line)) for line in range(3)]
    assert answers == [[["a"], 2.5, "7", "x"], [None, None, "7", "x"], [["a"], 2.5, "7", "x"]]
    assert columns.report.unreadable == {
        (1, 0): "a wide value: expected at most 2 entries in format 1, got 1 in format 7"
    }
    assert columns.effective_ns[1].tolist() == [NULL_INT64, AS_OF_NS]


@pytest.mark.parametrize("transport", [BASE64_ROWS, RAW_ROWS])
def test_ends_that_do_not_ascend_are_no_row(transport: RowTransport) -> None:
    plan = kinds_plan()
    view = plan.places[0].view
    row = bytearray(row_of(view, [EVENT], AS_OF_NS))
    row[view.layout.bytes_columns[0].offset] = 200
    columns = VectorEvaluator(plan, transport).evaluate([[transport.wrap(bytes(row)), None]], AS_OF_NS + 60)
    assert FeaturesEncoder(plan).encode(columns, 0) == b"[null,null,null,null]"
    assert list(columns.report.unreadable) == [(0, 0)]


def test_an_older_row_gives_what_it_has_and_null_for_what_was_added() -> None:
    old_view = view_of("v", [Aggregate(Field("kind", String), last(2), TimeWindow(3 * HOUR), name="lasts")])
    then = workspace_plan({"s": [old_view]}).services["s"].places[0].view
    new_view = view_of(
        "v",
        [
            Aggregate(Field("kind", String), "min", TimeWindow(3 * HOUR), name="least"),
            Aggregate(Field("kind", String), last(2), TimeWindow(3 * HOUR), name="lasts"),
            Aggregate(Field("amount", Float64), "sum", TimeWindow(3 * HOUR), name="total"),
        ],
    )
    plan = workspace_plan({"s": [new_view]}).services["s"]
    row = row_of(then, [EVENT], AS_OF_NS)
    evaluator = VectorEvaluator(plan, RAW_ROWS, {"v": {then.layout.schema_id: then.layout}})
    columns = evaluator.evaluate([[RAW_ROWS.wrap(row)]], AS_OF_NS + 60)
    assert FeaturesEncoder(plan).encode(columns, 0) == b'[["a"],null,null]'
    assert columns.report.transcoded == 1
    longer = view_of("v", [Aggregate(Field("kind", String), last(3), TimeWindow(3 * HOUR), name="lasts")])
    plan = workspace_plan({"s": [longer]}).services["s"]
    evaluator = VectorEvaluator(plan, RAW_ROWS, {"v": {then.layout.schema_id: then.layout}})
    columns = evaluator.evaluate([[RAW_ROWS.wrap(row)]], AS_OF_NS + 60)
    assert FeaturesEncoder(plan).encode(columns, 0) == b"[null]"  # two values aren't three


def test_slots_that_are_remembered_are_forgotten_when_a_window_moves() -> None:
    plan = kinds_plan()
    row = row_of(plan.places[0].view, [EVENT], AS_OF_NS)
    evaluator = VectorEvaluator(plan, RAW_ROWS)
    answers = []
    for now_ns in (AS_OF_NS, AS_OF_NS + 3 * HOUR_NS - 1, AS_OF_NS + 3 * HOUR_NS, AS_OF_NS):
        columns = evaluator.evaluate([[RAW_ROWS.wrap(row), None]], now_ns)
        answers.append(orjson.loads(FeaturesEncoder(plan).encode(columns, 0))[0])
    assert answers == [["a"], ["a"], None, ["a"]]


# --- on-demand views, and a store that fails


def every_kind(name: str = "v") -> FeatureView:
    """Return a view with a wide feature or a series of every output type."""
    window = TimeWindow(3 * HOUR)
    series = WINDOWS[4]
    return view_of(
        name,
        [
            Aggregate(Field("kind", String), "min", window, name="a_text"),
            Aggregate(Field("kind", String), last(3), window, name="b_texts"),
            Aggregate(Field("kind", String), approx_count_distinct(), window, name="c_count"),
            Aggregate(Field("amount", Float64), approx_percentile(0.5), window, name="d_median"),
            Aggregate(Field("amount", Float64), "sum", series, name="e_sums"),
            Aggregate(Field("units", Int64), last_distinct(2), window, name="f_units"),
            Aggregate(Field("seen", Timestamp), "last", series, name="g_times"),
            Aggregate(Field("score", Float32), last(2), window, name="h_scores"),
            Aggregate(Field("amount", Float64), "sum", window, name="i_sum"),
        ],
    )


SOME: list[RawEvent] = [
    (NOW_NS - 100 * 60 * 10**9, {"kind": "a", "amount": 2.5, "units": 7, "score": 0.25, "seen": 10**15}),
    (NOW_NS - 90 * 60 * 10**9, {"kind": "é", "amount": None, "units": -1, "score": None, "seen": None}),
]


@pytest.mark.parametrize("mode", ["python", "numpy", "pandas"])
def test_an_on_demand_view_gets_what_the_answer_holds(mode: Any) -> None:
    stored = every_kind()
    outputs = [Attribute(name, stored.output_type(name)) for name in stored.feature_names]

    def echo(v: Any) -> Any:
        return v

    view = on_demand_feature_view(sources=[stored], features=outputs, mode=mode, name="o")(echo)
    world = OnDemandWorld([stored, view])
    plan = world.plan.views["v"]
    row = row_of(plan, SOME, NOW_NS - 60 * 60 * 10**9)
    for key, raw in (("u", row), ("cut", row[:-3]), ("none", None)):
        world.store.rows[plan.table, key] = None if raw is None else BASE64_ROWS.wrap(raw)
    askers = [world.ask([key]) for key in ("u", "cut", "none")]
    world.settle()
    found = [asker.vectors[0] for asker in askers]
    half = len(stored.feature_names)
    assert found[0][:half] == found[0][half:]
    assert found[0][half:] == [
        "a",
        ["a", "é"],
        "2",
        2.5,
        [None, 2.5],
        ["7", "-1"],
        [None, "1970-01-12T13:46:40Z"],
        [0.25],
        2.5,
    ]
    assert found[1] == "503 a row that the caller can't do without couldn't be read"
    assert found[2] == [None] * 2 * half


def test_a_row_that_could_not_be_read_is_null_beside_others() -> None:
    world = OnDemandWorld([every_kind(), every_kind("w").with_join_key_map({"user_id": "other"})])
    tables = [world.plan.views[name].table for name in ("v", "w")]
    row = BASE64_ROWS.wrap(row_of(world.plan.views["v"], SOME, NOW_NS - 60 * 60 * 10**9))
    for table in tables:
        world.store.rows[table, "u"] = row
    world.store.failing["lost"] = StoreError("gone", retryable=False)
    asker = world.ask(["u", "lost"], partial=True)
    world.settle()
    (vector,) = asker.vectors
    half = len(vector) // 2
    assert vector[:2] == ["a", ["a", "é"]]
    assert vector[half:] == [None] * half


@pytest.mark.parametrize("late_ns, answers", [(0, True), (1, False)])
def test_rows_of_wide_features_alone_are_past_their_horizon_beside_others_too(
    late_ns: int, answers: bool
) -> None:
    day = TimeWindow(DAY)
    wide = view_of("wide", [Aggregate(Field("units", Int64), last(2), day, name="f")])
    narrow = view_of("narrow", [Aggregate(Field("units", Int64), "sum", LifetimeWindow(), name="f")])
    plan = workspace_plan({"s": [narrow, wide]}).services["s"]
    events: list[RawEvent] = [(AS_OF_NS - HOUR_NS, {**dict.fromkeys(INPUTS), "units": 3})]
    horizons_ns = {
        place.view.name: place.view.schema.horizon_ns for place in plan.places if place.view.schema
    }
    now_ns = AS_OF_NS + horizons_ns["wide"] + late_ns
    line = [
        RAW_ROWS.wrap(row_of(place.view, events, now_ns if place.view.name == "narrow" else AS_OF_NS))
        for place in plan.places
    ]
    columns = VectorEvaluator(plan, RAW_ROWS).evaluate([line], now_ns)
    assert columns.report.expired == (not answers)
    numbers = {place.view.name: place.number for place in plan.places}
    effective_ns = columns.effective_ns[0, numbers["wide"]]
    assert effective_ns == (AS_OF_NS if answers else NULL_INT64)
