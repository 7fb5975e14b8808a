"""Whatever an author passes, a load goes on: constructors take anything and report what they can't use."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve import (
    Aggregate,
    AggregateFunction,
    Array,
    Attribute,
    AttributesFormat,
    Calculation,
    Entity,
    FeatureService,
    FeatureView,
    FeatureViewReference,
    Field,
    FileSource,
    Float64,
    Int64,
    LifetimeWindow,
    Map,
    OnDemandFeatureView,
    OnDemandReference,
    PushSource,
    RequestSource,
    String,
    Struct,
    Timestamp,
    TimeWindow,
    TimeWindowSeries,
    on_demand_feature_view,
)
from fastserve.sdk.checks import collecting

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WEST = timezone(-HOUR)
USER = Entity("user", Field("user_id", String))
FILES = FileSource("files", "f.csv", timestamp_field="ts")
PUSHED = PushSource("pushed", [Field("user_id", String), Field("n", Int64), Field("ts", Timestamp)])
AGE, SUM = Attribute("age", Int64), Aggregate(Field("n", Int64), "sum", DAY)
VIEW = FeatureView("view", USER, FILES, [AGE])
REQUEST = RequestSource([Field("n", Int64)])
DOUBLE = OnDemandFeatureView("double", REQUEST, [Calculation("twice", "n * 2")])
with collecting():
    BROKEN_CALCULATION = Calculation("c", "n +")
    BROKEN_FIELD = Field("a", "text")  # type: ignore[arg-type]
    BROKEN_VIEW = FeatureView("broken", [], None, [])  # type: ignore[arg-type]
    BROKEN_AGGREGATE = Aggregate(BROKEN_FIELD, "sum", DAY)

plain: st.SearchStrategy[object] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(),
    st.text(max_size=4),
    st.binary(max_size=2),
    st.timedeltas(),
    st.sampled_from(
        [
            datetime(2024, 1, 1, tzinfo=UTC),
            datetime.max.replace(tzinfo=WEST),
            datetime.min.replace(tzinfo=UTC),
            DAY,
            HOUR,
            HOUR / 7,
            int,
            Int64,
            Array,
            Field,
        ]
    ),
    st.sampled_from(
        ["user_id", "age", "ts", "n", "sum", "csv", "now", "packed", "SELECT * FROM files", "a.parquet"]
    ),
    st.sampled_from(
        [Int64, Float64, Array(Int64), Field("n", Int64), Field("user_id", String), BROKEN_FIELD]
    ),
    st.sampled_from([REQUEST, DOUBLE, DOUBLE.with_name("d"), DOUBLE.calculations[0], BROKEN_CALCULATION]),
    st.sampled_from(
        [USER, FILES, PUSHED, AGE, SUM, VIEW, VIEW.with_name("other"), BROKEN_VIEW, BROKEN_AGGREGATE]
    ),
    st.sampled_from(
        [TimeWindow(DAY), AggregateFunction("sum"), AggregateFunction("x"), AttributesFormat("age"), len]
    ),
)
anything = st.one_of(
    plain,
    st.lists(plain, max_size=3),
    st.tuples(plain),
    st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), plain, max_size=2),
)
CONSTRUCTORS: list[Any] = [
    Field, Array, Map, Struct, Entity, FileSource, PushSource, Attribute, Aggregate, TimeWindow,
    LifetimeWindow, TimeWindowSeries, AttributesFormat,
    FeatureView, FeatureService, FeatureViewReference, RequestSource, Calculation, OnDemandFeatureView,
    OnDemandReference,
]  # fmt: skip
GOOD: dict[Any, dict[str, object]] = {
    FeatureView: {
        "name": "v",
        "entities": USER,
        "source": FILES,
        "features": [SUM],
        "aggregation_interval": HOUR,
    },
    FeatureService: {"name": "s", "features": [VIEW]},
    FeatureViewReference: {"view": VIEW},
    OnDemandReference: {"view": DOUBLE},
    OnDemandFeatureView: {"name": "o", "sources": [REQUEST], "features": [Calculation("twice", "n * 2")]},
    Aggregate: {"input_column": Field("n", Int64), "function": "sum", "time_window": DAY},
    Attribute: {"name": "a", "dtype": Int64},
}


@pytest.mark.parametrize("constructor", CONSTRUCTORS, ids=[each.__name__ for each in CONSTRUCTORS])
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_constructor_takes_anything_during_a_load(constructor: Any, data: st.DataObject) -> None:
    good = GOOD.get(constructor, {})
    arguments: dict[str, object] = {}
    for name, parameter in list(inspect.signature(constructor.__init__).parameters.items())[1:]:
        if name == "view":
            views = [DOUBLE] if constructor is OnDemandReference else [VIEW, BROKEN_VIEW]
            arguments[name] = data.draw(st.sampled_from(views), label=name)
        elif name in good and data.draw(st.booleans(), label=f"good {name}"):
            arguments[name] = good[name]
        elif parameter.default is parameter.empty or data.draw(st.booleans(), label=f"give {name}"):
            arguments[name] = data.draw(anything, label=name)
    with collecting() as collector:
        made = constructor(**arguments)
    if collector.errors:
        assert not made.valid
    assert all(len(error.message) < 1000 for error in collector.errors)
    assert all(error.location is not None and error.location.file == __file__ for error in collector.errors)
    assert repr(made)
    hash(made)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_decorator_takes_anything_during_a_load(data: st.DataObject) -> None:
    good: dict[str, Any] = {"sources": [REQUEST, VIEW], "features": [AGE], "mode": "numpy", "name": "o"}
    arguments: dict[str, Any] = {
        name: good[name] if name in good and data.draw(st.booleans()) else data.draw(anything, label=name)
        for name, parameter in inspect.signature(on_demand_feature_view).parameters.items()
        if parameter.default is parameter.empty or data.draw(st.booleans(), label=f"give {name}")
    }
    function: Any = data.draw(st.one_of(st.just(lambda request, view: {}), anything), label="function")
    with collecting() as collector:
        made = on_demand_feature_view(**arguments)(function)
    assert made.valid or collector.errors or not all(part.valid for part in (*made.sources, *made.features))
    assert not (made.valid and collector.errors)
    assert all(error.location is not None and error.location.file == __file__ for error in collector.errors)
    assert repr(made)
    hash(made)
    assert len(made.output_fields) == len(made.features)


@settings(max_examples=100, deadline=None)
@given(anything, anything, anything, st.sampled_from([VIEW, BROKEN_VIEW]))
def test_the_steps_of_a_reference_take_anything_during_a_load(
    features: Any, name: Any, keys: Any, view: FeatureView
) -> None:
    with collecting() as collector:
        reference = view.with_name(name).with_join_key_map(keys)[features]
    assert reference.valid == (view.valid and not collector.errors)
    assert set(reference.features) <= set(view.feature_names)
    assert list(reference.join_key_map) == [key.name for key in view.join_keys]
