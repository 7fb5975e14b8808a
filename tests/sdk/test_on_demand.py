"""On-demand views as authors write them: what they keep, what they refuse, and what a trial run gives."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve import (
    Array,
    Attribute,
    Bool,
    Calculation,
    DataType,
    DefinitionError,
    Entity,
    FeatureService,
    FeatureView,
    FeatureViewReference,
    Field,
    FileSource,
    Float32,
    Float64,
    Int64,
    Map,
    OnDemandFeatureView,
    RequestContext,
    RequestSource,
    String,
    Struct,
    Timestamp,
    on_demand_feature_view,
)
from fastserve.sdk.on_demand import Mode

Row = dict[str, Any]
NOW = datetime(2024, 1, 5, 12, tzinfo=UTC)
REQUEST = RequestSource([Field("amount", Float64)])
USER = Entity("user", Field("user_id", String))
FILES = FileSource("files", "f.csv", timestamp_field="ts")
PROFILE = FeatureView("profile", USER, FILES, [Attribute("age", Int64), Attribute("cards", Array(String))])
RATIO = Attribute("ratio", Float64)


@on_demand_feature_view(sources=[REQUEST, PROFILE[["age"]]], features=[RATIO])
def per_year(request: Row, profile: Row) -> Row:
    """Return the amount per year of age."""
    return {"ratio": request["amount"] / profile["age"]}


def fault_of(function: object, **arguments: Any) -> str:
    """Return the message with which a decorated function is refused, less the place."""
    given: dict[str, Any] = {"sources": [REQUEST], "features": [RATIO]} | arguments
    with pytest.raises(DefinitionError) as caught:
        on_demand_feature_view(**given)(function)  # type: ignore[arg-type]
    assert caught.value.location is not None
    assert caught.value.location.file == __file__
    return caught.value.message


def returning(result: Any, *features: Attribute, mode: Mode = "python") -> OnDemandFeatureView[..., Any]:
    """Return a view whose function gives that result, whatever comes."""
    decorate = on_demand_feature_view(sources=[REQUEST], features=features, mode=mode, name="view")
    return decorate(lambda _request: result)


# --- the decorated object


def test_a_decorated_function_is_called_as_before() -> None:
    assert per_year({"amount": 10.0}, {"age": 4}) == {"ratio": 2.5}
    assert per_year(profile={"age": 4}, request={"amount": 10.0}) == {"ratio": 2.5}
    assert list(inspect.signature(per_year).parameters) == ["request", "profile"]
    assert per_year.__doc__ == "Return the amount per year of age."


def test_a_view_is_named_like_its_function_or_as_it_is_told() -> None:
    assert per_year.name == "per_year"
    assert returning({}, RATIO).name == "view"
    assert repr(per_year) == "OnDemandFeatureView('per_year')"


def test_a_view_knows_its_sources_by_name_with_the_fields_that_are_passed() -> None:
    friend = PROFILE.with_name("friend").with_join_key_map({"user_id": "friend_id"})

    @on_demand_feature_view(
        sources=[REQUEST, friend, per_year],
        features=[Attribute("x", Int64), Calculation("y", "amount * 2")],
    )
    def view(request: Row, friend: Row, years: Row, context: RequestContext) -> Row:
        return {"x": 1}

    assert [(source.name, [str(field) for field in source.fields]) for source in view.inputs] == [
        ("request", ["amount: float64"]),
        ("friend", ["age: int64", "cards: array<string>"]),
        ("per_year", ["ratio: float64"]),
    ]
    assert [str(field) for field in view.output_fields] == ["x: int64", "y: float64"]
    assert [field.name for field in view.function_fields] == ["x"]
    assert (view.takes_context, view.needs_time, per_year.needs_time) == (True, True, False)
    assert (view.mode, view.isolation, view.time_limit) == ("python", "inline", None)


def test_a_view_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match="can't be changed"):
        per_year.mode = "numpy"


def test_a_selection_and_a_name_make_a_reference() -> None:
    view = returning({}, RATIO, Attribute("x", Int64))
    reference = view.with_name("other")[["x"]]
    assert (reference.view, reference.name, reference.features) == (view, "other", ("x",))
    assert view[["x"]].with_name("other").features == ("x",)
    with pytest.raises(DefinitionError, match=r"selected feature \(expected one of ratio, x, got 'age'\)"):
        view[["age"]]
    with pytest.raises(DefinitionError, match="with_name"):
        view.with_name("a b")


def test_a_view_of_calculations_has_no_function_to_call() -> None:
    view = OnDemandFeatureView("doubled", REQUEST, [Calculation("twice", "amount * 2")])
    assert view.test_run({"request": {"amount": 2.0}}) == {"twice": 4.0}
    with pytest.raises(TypeError, match="has calculations and no function"):
        view()


# --- what is refused


def test_a_function_that_does_not_answer_at_once_is_refused() -> None:
    async def later(request: Row) -> Row:
        return {}

    def bit_by_bit(request: Row) -> Any:
        yield {}

    async def both(request: Row) -> Any:
        yield {}

    class Later:
        async def __call__(self, request: Row) -> Row:
            return {}

    assert (
        "decorated object (expected a function that returns its result at once, got a coroutine"
        in fault_of(later)
    )
    assert "got a generator function (yield)" in fault_of(bit_by_bit)
    assert "got an asynchronous generator function" in fault_of(both)
    assert "got a coroutine function" in fault_of(Later(), name="view")
    assert "got a coroutine function" in fault_of(partial(later), name="view")


@pytest.mark.parametrize(
    "function, message",
    [
        (5, "decorated object (expected a function, got 5)"),
        (dict, "decorated object (expected a function, got the class dict)"),
        (lambda: None, "parameters of the function (expected 1, one for each source, got none)"),
        (lambda a, b: {}, "parameters of the function (expected 1, one for each source, got a, b)"),
        (lambda *, a: {}, "parameters of the function (expected 1, one for each source, got a)"),
        (lambda a, *, b: {}, "parameters of the function (expected 1, one for each source, got a, b)"),
        (
            lambda a, b, context: {},
            "parameters of the function (expected 1, one for each source and context, got a, b, context)",
        ),
        (lambda context: {}, "(expected 1, one for each source and context, got context)"),
        (lambda context, a: {}, "parameter context (expected it to be the last, got 'a' after it)"),
    ],
    ids=map(str, count()),
)
def test_a_function_of_other_parameters_is_refused(function: Any, message: str) -> None:
    assert message in fault_of(function, name="view")


def test_a_parameter_named_like_another_source_is_refused() -> None:
    sources: list[Any] = [REQUEST, PROFILE]

    def swapped(profile: Row, request: Row) -> Row:
        return {}

    def in_order(one: Row, *request: Row) -> Row:
        return {}

    message = "names of sources to stand as in sources: request, profile; got profile, request"
    assert f"parameters of the function (expected {message})" in fault_of(swapped, sources=sources)
    assert on_demand_feature_view(sources=sources, features=[RATIO])(in_order).valid


@pytest.mark.parametrize(
    "function",
    [
        lambda a: {}, lambda *sources: {}, lambda a, context: {}, lambda a, *, context: {}, lambda a, b=1: {},
        lambda a, **options: {}, lambda *a, context: {}, partial(lambda b, a: {}, 1),
    ],
    ids=map(str, count()),
)  # fmt: skip
def test_a_function_that_takes_the_sources_is_taken(function: Callable[..., Any]) -> None:
    decorate = on_demand_feature_view(sources=[REQUEST], features=[RATIO], name="view")
    assert decorate(function).valid


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"sources": []}, "sources (expected at least one RequestSource, FeatureView or OnDemandFeatureView"),
        ({"sources": ["profile"]}, "sources[0] (expected RequestSource, FeatureView or OnDemandFeatureView"),
        ({"sources": FILES}, "sources (expected a list of RequestSource, FeatureView"),
        (
            {"sources": [REQUEST, REQUEST]},
            "sources: the name 'request' stands there twice (expected different names; with_name(\"…\")",
        ),
        (
            {"sources": [REQUEST, RequestSource([Field("amount", Int64)], name="more")]},
            "request field 'amount' (expected Float64 as before, got Int64)",
        ),
        ({"features": []}, "features (expected at least one Attribute or Calculation, got [])"),
        ({"features": [Field("a", Int64)]}, "features[0] (expected Attribute or Calculation"),
        ({"features": [RATIO, RATIO]}, "the feature name 'ratio' stands there twice"),
        ({"features": [Calculation("c", "amount")]}, "features (expected at least one Attribute that"),
        (
            {"features": [RATIO, Calculation("c", "nosuch")]},
            "calculation 'c': expected one of request.amount",
        ),
        ({"features": [RATIO, Calculation("c", "amount", String)]}, "(expected String, got Float64)"),
        ({"mode": "spark"}, 'mode (expected "python" or "numpy" or "pandas", got \'spark\')'),
        ({"isolation": "thread"}, 'isolation (expected "inline" or "process", got \'thread\')'),
        ({"time_limit": timedelta(0)}, "time_limit (expected a timedelta above zero, got"),
        ({"time_limit": 5}, "time_limit (expected a timedelta above zero, got 5)"),
        ({"name": "a b"}, "name (expected letters, digits and _, no digit first"),
        (
            {"name": None},
            "name (expected letters, digits and _, no digit first, at most 120 characters, got '<lam",
        ),
    ],
    ids=map(str, count()),
)
def test_a_wrong_view_says_what_was_expected_and_what_came(arguments: dict[str, Any], message: str) -> None:
    assert message in fault_of(lambda *sources: {}, **{"name": "view"} | arguments)


def test_pandas_is_asked_for_only_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = 'mode "pandas" (expected the Python package pandas to be installed, got none)'
    assert message in fault_of(lambda request: {}, mode="pandas", name="view")
    assert returning({}, RATIO, mode="numpy").valid


def test_an_attribute_without_a_function_is_refused() -> None:
    with pytest.raises(DefinitionError, match="only Calculation without a function"):
        OnDemandFeatureView("view", REQUEST, [RATIO])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "schema, message",
    [
        ([], "RequestSource: schema (expected at least one Field, got [])"),
        (["amount"], "RequestSource: schema[0] (expected Field, got 'amount')"),
        ([Field("a", Int64), Field("a", Int64)], "schema: 'a' stands there twice"),
    ],
    ids=map(str, count()),
)
def test_a_wrong_request_source_is_refused(schema: Any, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        RequestSource(schema)
    assert message in caught.value.message


# --- in services


def other(name: str, dtype: DataType) -> FeatureView:
    return FeatureView(name, Entity(name, Field("user_id", dtype)), FILES, [Attribute("x", Int64)])


def test_a_service_has_the_join_keys_and_request_fields_of_what_its_views_read() -> None:
    both = [
        PROFILE[["age"]].with_name(name).with_join_key_map({"user_id": f"user_{name}"}) for name in ("a", "b")
    ]
    more = RequestSource([Field("amount", Float64), Field("n", Int64)], name="more")

    @on_demand_feature_view(sources=[*both, more, per_year], features=[RATIO])
    def pair(a: Row, b: Row, more: Row, years: Row) -> Row:
        return {"ratio": None}

    service = FeatureService("s", [pair, PROFILE[["cards"]].with_join_key_map({"user_id": "third"})])
    assert [key.name for key in service.join_keys] == ["user_id", "user_a", "user_b", "third"]
    assert [str(field) for field in service.request_fields] == ["amount: float64", "n: int64"]
    assert [view.name for view in service.on_demand_views] == ["per_year", "pair"]
    assert [reference.name for reference in service.source_references] == ["profile", "a", "b"]
    assert [reference.name for reference in service.references] == ["profile"]
    assert [reference.name for reference in service.on_demand_references] == ["pair"]


def test_a_view_that_two_others_read_is_computed_once() -> None:
    def reading(name: str) -> OnDemandFeatureView[..., Any]:
        return OnDemandFeatureView(name, per_year, [Calculation("c", "ratio + 1")])

    service = FeatureService("s", [reading("x"), per_year.with_name("again"), reading("y"), per_year])
    assert [view.name for view in service.on_demand_views] == ["per_year", "x", "y"]


def test_views_that_meet_again_further_down_are_walked_once() -> None:
    calls: list[int] = []

    def bottom(request: Row) -> Row:
        calls.append(1)
        return {"ratio": request["amount"]}

    view = on_demand_feature_view(sources=[REQUEST], features=[RATIO])(bottom)
    top: OnDemandFeatureView[..., Any] = view
    for level in range(40):
        sources = [top.with_name("a"), top.with_name("b")]
        top = OnDemandFeatureView(f"level{level}", sources, [Calculation("ratio", "(a.ratio + b.ratio) / 2")])
    assert len(FeatureService("s", [top]).on_demand_views) == 41
    assert top.test_run({"request": {"amount": 3.0}}) == {"ratio": 3.0}
    assert len(calls) == 1


def test_what_does_not_fit_into_one_service_is_refused() -> None:
    text, number = other("text", String), other("number", Int64)
    by_text = OnDemandFeatureView("by_text", [REQUEST, text], [Calculation("c", "x + 1")])
    asked = OnDemandFeatureView(
        "asked", RequestSource([Field("amount", Int64)]), [Calculation("c", "amount")]
    )
    keyed = OnDemandFeatureView(
        "keyed", RequestSource([Field("user_id", Int64)]), [Calculation("c", "user_id")]
    )
    for features, message in (
        (
            [by_text, number],
            "join key 'user_id' of view 'number' (expected String as in view 'text', a source of",
        ),
        (
            [number, by_text],
            "join key 'user_id' of view 'text', a source of 'by_text' (expected Int64 as in view 'number'",
        ),
        ([by_text, asked], "request field 'amount' of view 'asked' (expected Float64 as in view 'by_text'"),
        (
            [text, keyed],
            "request field 'user_id' (expected String like the join key of that name, got Int64)",
        ),
        ([by_text, text.with_name("by_text")], "the view name 'by_text' stands there twice"),
        ([by_text, by_text], "the view name 'by_text' stands there twice"),
    ):
        with pytest.raises(DefinitionError) as caught:
            FeatureService("s", features)  # type: ignore[arg-type]
        assert message in caught.value.message


# --- trial runs: one function three ways

MANY = [
    Field("i", Int64), Field("x", Float64), Field("f", Float32), Field("s", String), Field("b", Bool),
    Field("t", Timestamp), Field("l", Array(Int64)), Field("m", Map(String, Float64)),
    Field("r", Struct([Field("street", String), Field("number", Int64)])),
]  # fmt: skip
times = st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
int64s = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False)
texts = st.text(max_size=5)
rows = st.fixed_dictionaries(
    {
        "i": st.none() | int64s,
        "x": st.none() | floats,
        "f": st.none() | st.floats(width=32, allow_nan=False),
        "s": st.none() | texts,
        "b": st.none() | st.booleans(),
        "t": st.none() | times,
        "l": st.none() | st.lists(st.none() | int64s, max_size=3),
        "m": st.none() | st.dictionaries(texts, st.none() | floats, max_size=2),
        "r": st.none() | st.fixed_dictionaries({"street": st.none() | texts, "number": st.none() | int64s}),
    }
)
MODES: list[Mode] = ["python", "numpy", "pandas"]


@pytest.mark.parametrize("mode", MODES)
@given(row=rows)
@settings(max_examples=60, deadline=None)
def test_every_value_and_null_comes_back_as_it_went_in(mode: Mode, row: Row) -> None:
    source = RequestSource(MANY)
    decorate = on_demand_feature_view(
        sources=source, features=list(map(Attribute, MANY)), mode=mode, name="v"
    )
    same = decorate(lambda request: request)
    assert same.test_run({"request": copy.deepcopy(row)}) == row


def three_ways() -> list[OnDemandFeatureView[..., Any]]:
    """Return the same features computed by a function of each mode."""
    request = RequestSource([Field("amount", Float64), Field("at", Timestamp)])
    sources: list[RequestSource | FeatureViewReference] = [request, PROFILE[["age"]]]
    features = [
        Attribute("double", Float64),
        Attribute("adult", Bool),
        Attribute("next_age", Int64),
        Attribute("hours", Int64),
        Attribute("class_", String),
    ]

    @on_demand_feature_view(sources=sources, features=features)
    def row(request: Row, profile: Row, context: RequestContext) -> Row:
        amount, age, at = request["amount"], profile["age"], request["at"]
        return {
            "double": None if amount is None else amount * 2,
            "adult": None if age is None else age >= 18,
            "next_age": None if age is None else age + 1,
            "hours": None if at is None else (context.request_timestamp - at) // timedelta(hours=1),
            "class_": "large" if amount is not None and amount > 100 else "small",
        }

    @on_demand_feature_view(sources=sources, features=features, mode="numpy")
    def columns(request: Row, profile: Row, context: RequestContext) -> Row:
        amount, age, at = request["amount"], profile["age"], request["at"]
        now = np.datetime64(context.request_timestamp.replace(tzinfo=None), "ns")
        hours = np.floor((now - at) / np.timedelta64(1, "h"))
        return {
            "double": amount * 2,
            "adult": age >= 18,
            "next_age": age + 1,
            "hours": np.ma.masked_array(np.nan_to_num(hours).astype(np.int64), np.isnat(at)),
            "class_": np.where(amount > 100, "large", "small"),
        }

    @on_demand_feature_view(sources=sources, features=features, mode="pandas")
    def frames(request: Any, profile: Any, context: RequestContext) -> Any:
        hours = (context.request_timestamp - request["at"]) // pd.Timedelta(hours=1)
        return pd.DataFrame(
            {
                "double": request["amount"] * 2,
                "adult": profile["age"] >= 18,
                "next_age": profile["age"] + 1,
                "hours": hours.astype("Int64"),
                "class_": np.where(request["amount"] > 100, "large", "small"),
            }
        )

    return [row, columns, frames]


@given(
    amount=st.none() | st.floats(-1e300, 1e300),
    age=st.none() | st.integers(0, 150),
    at=st.none() | st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
@settings(max_examples=60, deadline=None)
def test_one_function_written_three_ways_gives_the_same_values(
    amount: float | None, age: int | None, at: datetime | None
) -> None:
    inputs = {"request": {"amount": amount, "at": at}, "profile": {"age": age}}
    by_row, by_columns, by_frames = [view.test_run(inputs, NOW) for view in THREE_WAYS]
    assert by_columns == by_row
    assert by_frames == by_row
    assert {name: type(value) for name, value in by_columns.items()} == {
        name: type(value) for name, value in by_row.items()
    }


THREE_WAYS = three_ways()


def test_an_on_demand_source_is_computed_or_given() -> None:
    view = OnDemandFeatureView(
        "more", [per_year[["ratio"]].with_name("years")], [Calculation("c", "ratio + 1")]
    )
    inputs = {"request": {"amount": 10.0}, "profile": {"age": 4}}
    assert view.test_run(inputs) == {"c": 3.5}
    assert view.test_run({"years": {"ratio": 1.0}}) == {"c": 2.0}


def test_the_functions_own_exception_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        per_year.test_run({"request": {"amount": 1.0}, "profile": {"age": 0}})


def test_what_a_function_does_to_its_inputs_stays_there() -> None:
    @on_demand_feature_view(
        sources=[PROFILE], features=[Attribute("n", Int64), Calculation("cards_given", "LENGTH(cards)")]
    )
    def view(profile: Row) -> Row:
        profile["cards"].clear()
        profile["age"] = 100
        return {"n": len(profile["cards"])}

    given = {"profile": {"age": 1, "cards": ["a", "b"]}}
    assert view.test_run(given) == {"n": 0, "cards_given": 2}
    assert given == {"profile": {"age": 1, "cards": ["a", "b"]}}


@pytest.mark.parametrize(
    "inputs, message",
    [
        ([], "inputs (expected a dict of dicts by source name, got [])"),
        ({}, "input 'request' (expected a dict of its values by name, got None)"),
        ({"request": {}, "profile": {}}, "input 'request' (expected a value of 'amount', got [])"),
        ({"request": {"amount": 1.0}}, "input 'profile' (expected a dict of its values by name, got None)"),
        ({"request": 5}, "input 'request' (expected a dict of its values by name, got 5)"),
        ({"requests": {}}, "input (expected one of the sources request, profile, got 'requests')"),
        ({"profile": {"cards": []}}, "input 'profile' (expected only age, got 'cards')"),
        (
            {"request": {"amount": "1"}, "profile": {}},
            "input request.amount: expected float64 (a float), got str '1'",
        ),
    ],
    ids=map(str, count()),
)
def test_wrong_inputs_of_a_trial_run_are_told(inputs: Any, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        per_year.test_run(inputs)
    assert caught.value.message == f"test_run of 'per_year': {message}"


def test_a_view_that_asks_for_the_time_is_given_it_in_utc() -> None:
    @on_demand_feature_view(sources=[REQUEST], features=[Attribute("at", Timestamp)])
    def view(request: Row, context: RequestContext) -> Row:
        assert context.request_timestamp.tzinfo is UTC
        return {"at": context.request_timestamp}

    inputs = {"request": {"amount": 1.0}}
    east = timezone(timedelta(hours=3))
    assert view.test_run(inputs, datetime(2024, 1, 1, 3, tzinfo=east)) == {
        "at": datetime(2024, 1, 1, tzinfo=UTC)
    }
    outer = OnDemandFeatureView("outer", view, [Calculation("year", "EXTRACT(year FROM at)")])
    for wrong in (None, datetime(2024, 1, 1), 5):  # noqa: DTZ001
        for each in (view, outer):
            with pytest.raises(
                DefinitionError, match=r"request_timestamp \(expected a datetime with a time zone"
            ):
                each.test_run(inputs, wrong)  # type: ignore[arg-type]


# --- trial runs: results that don't fit


@pytest.mark.parametrize(
    "dtype, value, message",
    [
        (Int64, 1.0, "feature `f`: expected int64 (an int), got float 1.0"),
        (Int64, True, "feature `f`: expected int64 (an int), got bool True"),
        (Int64, "1", "feature `f`: expected int64 (an int), got str '1'"),
        (Int64, 2**63, "feature `f`: expected int64 (-2^63 to 2^63 - 1), got int 9223372036854775808"),
        (Float64, "1", "feature `f`: expected float64 (a float), got str '1'"),
        (Float64, True, "feature `f`: expected float64 (a float), got bool True"),
        (
            Float64,
            float("nan"),
            "feature `f`: expected float64 that is a number (None is null), got float nan",
        ),
        (Float64, 10**400, "feature `f`: expected float64 that is not too large, got int 1000"),
        (Float32, 1e39, "feature `f`: expected float32 that is not too large, got float 1e+39"),
        (String, b"a", "feature `f`: expected string (a str), got bytes b'a'"),
        (String, "\ud800", "feature `f`: expected string that can be written in UTF-8"),
        (Bool, 1, "feature `f`: expected bool (True or False), got int 1"),
        (Timestamp, "2024", "feature `f`: expected timestamp (a datetime), got str '2024'"),
        (Timestamp, datetime(2024, 1, 1), "expected timestamp with a time zone"),  # noqa: DTZ001
        (Timestamp, datetime(1500, 1, 1, tzinfo=UTC), "expected timestamp in the years 1678 to 2261"),
        (Timestamp, pd.NaT, "expected timestamp that is a time (None is null)"),
        (Array(Int64), {1}, "feature `f`: expected array<int64> (a list), got set {1}"),
        (Array(Int64), [1, "a"], "feature `f`, an element: expected int64 (an int), got str 'a'"),
        (Array(Array(Int64)), [[1.5]], "feature `f`, an element, an element: expected int64"),
        (Map(String, Int64), {1: 1}, "feature `f`, a key: expected string (a str), got int 1"),
        (Map(String, Int64), {None: 1}, "feature `f`, a key: expected string (a str), got None"),
        (Map(String, Int64), {"a": "b"}, "feature `f`, a value: expected int64"),
        (Map(String, Int64), [1], "feature `f`: expected map<string, int64> (a dict), got list [1]"),
        (Struct([Field("a", Int64)]), {"b": 1}, "feature `f`: expected a dict of exactly a, got list ['b']"),
        (Struct([Field("a", Int64)]), {"a": "b"}, "feature `f`, field `a`: expected int64"),
        (Struct([Field("a", Int64)]), [1], "(a dict by field name), got list [1]"),
    ],
    ids=map(str, count()),
)
def test_a_value_of_another_type_is_told(dtype: DataType, value: Any, message: str) -> None:
    view = returning({"f": value}, Attribute("f", dtype))
    with pytest.raises((TypeError, ValueError)) as caught:
        view.test_run({"request": {"amount": 1.0}})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "result, message",
    [
        (None, "result: expected a dict of 'f, g', got None"),
        ([1, 2], "result: expected a dict of 'f, g', got list [1, 2]"),
        ({"f": 1}, "feature `g`: expected in the result, got ['f']"),
        ({"f": 1, "h": 1}, "feature `g`: expected in the result, got ['f', 'h']"),
        ({"f": 1, "g": 1, "h": 1}, "result: expected only 'f, g', got 'h' as well"),
    ],
    ids=map(str, count()),
)
def test_a_missing_or_an_extra_feature_is_told(result: Any, message: str) -> None:
    view = returning(result, Attribute("f", Int64), Attribute("g", Int64))
    with pytest.raises(TypeError) as caught:
        view.test_run({"request": {"amount": 1.0}})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "dtype, value, expected",
    [
        (Int64, np.int32(5), 5), (Int64, np.uint64(7), 7), (Float64, 3, 3.0), (Float64, np.float32(0.5), 0.5),
        (Float64, float("inf"), float("inf")), (Float32, 0.1, 0.10000000149011612),
        (Bool, np.bool_(True), True), (String, np.str_("a"), "a"), (Array(Int64), (1, None), [1, None]),
        (Array(Int64), np.array([1, 2]), [1, 2]),
        (Timestamp, pd.Timestamp("2024-01-01T01:00+01:00"), datetime(2024, 1, 1, tzinfo=UTC)),
        (Struct([Field("a", Int64), Field("b", Int64)]), {"b": 1, "a": 2}, {"a": 2, "b": 1}),
    ],
    ids=map(str, count()),
)  # fmt: skip
def test_what_means_a_value_of_the_type_is_taken_for_it(dtype: DataType, value: Any, expected: Any) -> None:
    result = returning({"f": value}, Attribute("f", dtype)).test_run({"request": {"amount": 1.0}})["f"]
    assert (result, type(result)) == (expected, type(expected))


def test_a_checked_result_shares_nothing_with_the_functions_own() -> None:
    kept = {"f": [[1]], "m": {"a": [1]}}
    view = returning(kept, Attribute("f", Array(Array(Int64))), Attribute("m", Map(String, Array(Int64))))
    result = view.test_run({"request": {"amount": 1.0}})
    result["f"][0].append(2)
    result["m"]["a"].append(2)
    assert kept == {"f": [[1]], "m": {"a": [1]}}


# --- columns


@pytest.mark.parametrize(
    "dtype, column, message",
    [
        (Int64, np.array([1.0]), "feature `f`: expected an array of int64, got ndarray array([1.])"),
        (Int64, np.array([True]), "feature `f`: expected an array of int64, got ndarray array([ True])"),
        (Int64, np.array([2**63], np.uint64), "feature `f`: expected int64 (-2^63 to 2^63 - 1)"),
        (
            Int64,
            np.array([1, 2]),
            "feature `f`: expected an array of 1 values, one per request, got tuple (2,)",
        ),
        (Int64, np.array(1), "feature `f`: expected an array of 1 values, one per request, got tuple ()"),
        (Int64, 1, "feature `f`: expected an array of 1 values, one per request, got int 1"),
        (Int64, [1, 2], "feature `f`: expected 1 values, one per request, got int 2"),
        (Int64, ["a"], "feature `f`: expected int64 (an int), got str 'a'"),
        (Float64, np.array(["a"]), "feature `f`: expected float64 (a float), got str 'a'"),
        (Float64, np.array([True]), "feature `f`: expected an array of float64"),
        (Float32, np.array([1e39]), "feature `f`: expected float32 that is not too large"),
        (Bool, np.array([1]), "feature `f`: expected an array of bool"),
        (String, np.array([1]), "feature `f`: expected an object array of string"),
        (Timestamp, np.array([1]), "feature `f`: expected an array of datetime64"),
        (Timestamp, np.array(["1500-01-01"], "M8[us]"), "expected timestamp in the years 1678 to 2261"),
        (Array(Int64), np.array([[1.5]]), "feature `f`, an element: expected int64 (an int), got float 1.5"),
    ],
    ids=map(str, count()),
)
def test_a_column_of_another_type_or_length_is_told(dtype: DataType, column: Any, message: str) -> None:
    view = returning({"f": column}, Attribute("f", dtype), mode="numpy")
    with pytest.raises((TypeError, ValueError)) as caught:
        view.test_run({"request": {"amount": 1.0}})
    assert message in str(caught.value)


@pytest.mark.parametrize("mode", ["numpy", "pandas"])
def test_missing_and_extra_columns_are_told(mode: Mode) -> None:
    for result, message in (
        ({}, "feature `f`: expected in the result, got []"),
        ({"f": np.array([1]), "g": np.array([1])}, "result: expected only 'f', got 'g' as well"),
        (None, "result: expected columns 'f', got None"),
        (pd.DataFrame({"g": [1]}), "feature `f`: expected in the result, got ['g']"),
    ):
        with pytest.raises(TypeError) as caught:
            returning(result, Attribute("f", Int64), mode=mode).test_run({"request": {"amount": 1.0}})
        assert str(caught.value) == message


@pytest.mark.parametrize(
    "dtype, column, expected",
    [
        (Float64, np.array([np.nan]), None), (Float64, np.array([3]), 3.0), (Float64, [None], None),
        (Float64, np.ma.masked_array([1.0], [True]), None), (Int64, np.ma.masked_array([1], [True]), None),
        (Int64, np.array([7], np.uint8), 7), (Bool, np.ma.masked_array([True], [True]), None),
        (Timestamp, np.array(["NaT"], "M8[ns]"), None), (String, np.array(["ab"]), "ab"),
        (Timestamp, np.array(["2024-01-01T00:00"], "M8[m]"), datetime(2024, 1, 1, tzinfo=UTC)),
        (Array(Int64), np.array([[1, 2]]), [1, 2]), (String, np.array([None], object), None),
        (Int64, pd.Series([None], dtype="Int64"), None), (Float64, pd.Series([np.nan]), None),
        (String, pd.Series([None], dtype="object"), None), (Bool, pd.Series([True]), True),
        (Array(Int64), pd.Series([[1, None]]), [1, None]), (Timestamp, pd.Series([pd.NaT]), None),
    ],
    ids=map(str, count()),
)  # fmt: skip
def test_columns_are_read_with_their_own_nulls(dtype: DataType, column: Any, expected: Any) -> None:
    view = returning({"f": column}, Attribute("f", dtype), mode="numpy")
    assert view.test_run({"request": {"amount": 1.0}}) == {"f": expected}


@pytest.mark.parametrize(
    "function",
    [
        lambda n: np.where(n > 1, 1, 0), lambda n: np.log1p(n).astype(np.int64), lambda n: np.maximum(n, 3),
        lambda n: np.clip(n, 0, 5), lambda n: np.concatenate([n[:0], n]), lambda n: n // 2 + 1, abs,
        lambda n: np.hstack([n[:0], n]), lambda n: (n > 1).astype(np.int64),
        lambda n: np.where(n == 1, n, n * 2),
    ],
    ids=map(str, count()),
)  # fmt: skip
def test_a_null_stays_null_whatever_numpy_does_with_it(function: Callable[[Any], Any]) -> None:
    decorate = on_demand_feature_view(
        sources=PROFILE[["age"]], features=[Attribute("f", Int64)], mode="numpy", name="view"
    )
    view = decorate(lambda profile: {"f": function(profile["age"])})
    assert view.test_run({"profile": {"age": None}}) == {"f": None}
    assert view.test_run({"profile": {"age": 4}})["f"] is not None


@pytest.mark.parametrize(
    "function",
    [lambda n: np.select([n > 1], [n], 0), np.sort, np.nan_to_num],
    ids=["select", "sort", "nan_to_num"],
)
def test_what_would_take_a_null_for_a_value_is_refused(function: Callable[[Any], Any]) -> None:
    decorate = on_demand_feature_view(
        sources=PROFILE[["age"]], features=[Attribute("f", Int64)], mode="numpy", name="view"
    )
    view = decorate(lambda profile: {"f": function(profile["age"])})
    assert view.test_run({"profile": {"age": 4}}) == {"f": 4}
    with pytest.raises(TypeError, match="doesn't regard nulls: fill them before"):
        view.test_run({"profile": {"age": None}})
