from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastserve.serving.requests as requests_module
from fastserve import (
    Array,
    Attribute,
    Calculation,
    Field,
    Float64,
    Int64,
    OnDemandFeatureView,
    RequestContext,
    RequestSource,
    String,
    on_demand_feature_view,
)
from fastserve.errors import StoreError
from fastserve.sdk.types import DataType
from fastserve.serving.transport import BASE64_ROWS, RAW_ROWS
from fastserve.tiles.layout import NULL_INT64
from tests.serving.fake_store import number_of
from tests.serving.on_demand_world import OnDemandWorld
from tests.support.plans import ATTRIBUTES, NOW_NS, attribute_row, attribute_view

MODES: list[Any] = ["python", "numpy", "pandas"]
View = OnDemandFeatureView[..., Any]

request = RequestSource(
    schema=[Field("amount", Float64), Field("count", Int64), Field("tags", Array(String))]
)
amounts = RequestSource(schema=[Field("amount", Float64)])
CONTEXT = {"amount": 1.5, "count": "3", "tags": ["a", "b"]}


def made(
    function: Callable[..., Any], sources: Sequence[Any], outputs: dict[str, DataType], **more: Any
) -> View:
    features = [Attribute(name, dtype) for name, dtype in outputs.items()]
    if function.__name__ == "<lambda>":
        more.setdefault("name", "nameless")
    return on_demand_feature_view(sources=sources, features=features, **more)(function)


def echo_view(mode: Any, sources: Sequence[Any], outputs: dict[str, DataType], **more: Any) -> View:
    """Return a view that gives back what it gets."""

    def echo(source: Any) -> Any:
        return source

    return made(echo, sources, outputs, mode=mode, name="echo", **more)


# --- values


def times() -> st.SearchStrategy[int]:
    microseconds = st.integers(-9 * 10**15, 9 * 10**15)
    return microseconds.map(lambda time_us: time_us * 1_000)


STORED: dict[str, st.SearchStrategy[Any]] = {
    "a_int": st.one_of(
        st.integers(-9, 9), st.integers(-(2**63), 2**63 - 1), st.sampled_from([NULL_INT64, 2**63 - 1])
    ),
    "b_float": st.floats(allow_nan=False),
    "c_single": st.floats(width=32, allow_nan=False),
    "d_text": st.text(max_size=6).map(orjson.dumps),
    "e_bool": st.booleans(),
    "f_time": times(),
    "g_array": st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1).map(str)), max_size=3).map(
        orjson.dumps
    ),
    "h_struct": st.sampled_from([b'[1.5,"a,b"]', b"[null,null]", b'["Infinity","x"]']),
    "i_map": st.dictionaries(st.text(max_size=3), st.one_of(st.none(), st.integers(-9, 9).map(str))).map(
        orjson.dumps
    ),
    "j_float": st.floats(allow_nan=False),
}


@pytest.mark.parametrize("transport", [BASE64_ROWS, RAW_ROWS], ids=["text", "bytes"])
@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.one_of(
            st.none(),
            st.fixed_dictionaries({name: st.one_of(st.none(), values) for name, values in STORED.items()}),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_function_that_gives_back_what_it_gets_answers_what_is_stored(
    mode: Any, transport: Any, rows: list[dict[str, Any] | None]
) -> None:
    stored = attribute_view("all")
    world = OnDemandWorld([stored, echo_view(mode, [stored], ATTRIBUTES)], transport)
    view = world.plan.views["all"]
    for number, row in enumerate(rows):
        packed = None if row is None else transport.wrap(attribute_row(view, row))
        world.store.rows[view.table, f"u{number}"] = packed
    askers = [world.ask([f"u{number}"]) for number in range(len(rows))]
    world.settle()
    for asker in askers:
        assert asker.told == ["1 lines"]
        (vector,) = asker.vectors
        assert vector[: len(ATTRIBUTES)] == vector[len(ATTRIBUTES) :]


def plain(amount: float | None, count: int | None, tags: list[str] | None) -> dict[str, Any]:
    """Say in plain Python what the three views below compute."""
    ratio = None if amount is None or not count else amount / count
    return {
        "ratio": ratio,
        "next": None if count is None else count + 1,
        "tagged": None if tags is None else len(tags),
    }


OUTPUTS: dict[str, DataType] = {"ratio": Float64, "next": Int64, "tagged": Int64}


def of_one(source: dict[str, Any]) -> dict[str, Any]:
    return plain(source["amount"], source["count"], source["tags"])


def of_columns(source: dict[str, Any]) -> dict[str, Any]:
    count = source["count"]
    divisor: Any = count.astype(np.float64).filled(np.nan)
    divisor[divisor == 0] = np.nan
    lengths = [None if tags is None else len(tags) for tags in source["tags"]]
    return {"ratio": source["amount"] / divisor, "next": count + 1, "tagged": np.array(lengths, np.object_)}


def of_frames(source: Any) -> Any:
    count = source["count"].astype("Float64").replace(0, None)
    lengths = source["tags"].map(len, na_action="ignore").astype("Int64")
    ratio = source["amount"].astype("Float64") / count
    return source.assign(ratio=ratio, next=source["count"] + 1, tagged=lengths)[list(OUTPUTS)]


REQUESTS = st.lists(
    st.tuples(
        st.one_of(st.none(), st.integers(-99, 99).map(float)),
        st.one_of(st.none(), st.integers(-99, 99)),
        st.one_of(st.none(), st.lists(st.text(max_size=3), max_size=3)),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(asked=REQUESTS)
def test_a_function_written_three_ways_gives_what_it_gives_when_it_is_called(asked: list[Any]) -> None:
    expected = [list(plain(*values).values()) for values in asked]
    expected = [[ratio, *(None if n is None else str(n) for n in rest)] for ratio, *rest in expected]
    for mode, function in zip(MODES, (of_one, of_columns, of_frames), strict=True):
        world = OnDemandWorld([made(function, [request], OUTPUTS, mode=mode, name="v")])
        askers = [
            world.ask(contexts=[{"amount": amount, "count": count, "tags": tags}])
            for amount, count, tags in asked
        ]
        world.settle()
        assert [asker.vectors[0] for asker in askers] == expected, mode


def test_functions_of_all_modes_are_called_as_often_as_they_say() -> None:
    calls: list[tuple[str, int]] = []

    def one(source: dict[str, Any]) -> dict[str, Any]:
        calls.append(("python", 1))
        return {"x": source["amount"]}

    def columns(source: dict[str, Any]) -> dict[str, Any]:
        calls.append(("numpy", len(source["amount"])))
        return {"x": source["amount"]}

    world = OnDemandWorld(
        [
            made(one, [amounts], {"x": Float64}, name="a"),
            made(columns, [amounts], {"x": Float64}, name="b", mode="numpy"),
        ]
    )
    askers = [world.ask(contexts=[{"amount": number}]) for number in range(3)]
    askers.append(world.ask(contexts=[{"amount": 7}, {"amount": 8}]))
    world.turn()
    assert calls == [("python", 1)] * 5 + [("numpy", 5)]
    assert [asker.vectors for asker in askers] == [[[0, 0]], [[1, 1]], [[2, 2]], [[7, 7], [8, 8]]]
    stats = world.times.stats()
    assert (stats["a"].calls, stats["a"].lines, stats["b"].calls, stats["b"].lines) == (5, 5, 1, 5)


def test_a_context_parameter_is_told_the_request_s_time() -> None:
    seen: list[Any] = []

    def one(source: dict[str, Any], context: RequestContext) -> dict[str, Any]:
        seen.append(context.request_timestamp)
        return {"x": source["amount"]}

    def columns(source: dict[str, Any], context: RequestContext) -> dict[str, Any]:
        seen.append(context.request_timestamp)
        return {"x": source["amount"]}

    world = OnDemandWorld(
        [
            made(one, [amounts], {"x": Float64}, name="a"),
            made(columns, [amounts], {"x": Float64}, name="b", mode="numpy"),
        ]
    )
    asker = world.ask(contexts=[{"amount": 1}])
    world.turn()
    now = datetime.fromtimestamp(NOW_NS / 1e9, UTC)
    assert asker.vectors == [[1, 1]]
    assert seen == [now, now]
    assert seen[0].tzinfo is UTC


# --- sources


def test_the_same_view_under_two_keys_is_two_sources() -> None:
    text = attribute_view("text", ["d_text", "a_int"])
    mine = text[["d_text"]]
    other = text.with_name("other").with_join_key_map({"user_id": "other_id"})

    def both(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
        return {"x": f"{sorted(a)} {a['d_text']} {sorted(b)} {b['d_text']}", "y": b["a_int"]}

    world = OnDemandWorld([made(both, [mine, other], {"x": String, "y": Int64})])
    askers = [world.ask(["u1", "u2"]), world.ask(["u2", "u1"])]
    world.settle()
    assert askers[0].vectors == [["['d_text'] u1 ['a_int', 'd_text'] u2", str(number_of("u2"))]]
    assert askers[1].vectors == [["['d_text'] u2 ['a_int', 'd_text'] u1", str(number_of("u1"))]]
    assert len(world.store.batches[0]) == 2


@pytest.mark.parametrize("mode", ["python", "numpy"])
def test_views_see_what_earlier_views_computed_and_hidden_ones_are_not_answered(mode: Any) -> None:
    def first(source: dict[str, Any]) -> dict[str, Any]:
        return {"one": source["amount"] + 1, "tags": source["tags"], "two": source["amount"] * 2}

    def second(before: dict[str, Any]) -> dict[str, Any]:
        return {"sum": before["two"] + before["one"]}

    hidden = made(first, [request], {"one": Float64, "tags": Array(String), "two": Float64}, mode=mode)
    world = OnDemandWorld([made(second, [hidden[["two", "one"]]], {"sum": Float64}, mode=mode)])
    asker = world.ask(contexts=[CONTEXT])
    world.turn()
    assert asker.vectors == [[5.5]]


def test_calculations_are_computed_beside_functions_and_without_one() -> None:
    def spoil(source: dict[str, Any]) -> dict[str, Any]:
        source["amount"] = -1.0
        return {"got": source.pop("count")}

    mixed = on_demand_feature_view(
        sources=[request],
        features=[Calculation("twice", "amount * 2"), Attribute("got", Int64), Calculation("n", "count + 1")],
    )(spoil)
    text = attribute_view("text", ["b_float"])
    alone = OnDemandFeatureView("alone", [text, request], [Calculation("share", "amount / text.b_float")])
    columns = made(
        lambda source: {"x": source["amount"]}, [request], {"x": Float64}, mode="numpy", name="columns"
    )
    world = OnDemandWorld([mixed, alone, columns])
    asker = world.ask(["u1"], contexts=[CONTEXT])
    world.settle()
    assert asker.vectors == [[1.5 / (number_of("u1") / 2), 1.5, 3.0, "3", "4"]]


def test_a_calculation_that_fails_names_the_view() -> None:
    view = OnDemandFeatureView("sums", [request], [Calculation("n", "count * count")])
    world = OnDemandWorld([view])
    bad, good = (world.ask(contexts=[{**CONTEXT, "count": count}]) for count in (2**62, 2))
    world.turn()
    assert bad.vectors[0].startswith("400 ValueError: feature `n`: ")
    assert bad.vectors[0].endswith(" (when evaluating UDF sums)")
    assert good.vectors == [["4"]]


# --- objects


@pytest.mark.parametrize("mode", ["python", "numpy"])
def test_what_a_function_does_to_its_inputs_is_seen_by_no_other_function_request_or_answer(mode: Any) -> None:
    stored = attribute_view("all", ["b_float", "a_int", "g_array"])
    outputs: dict[str, DataType] = {
        "b_float": Float64,
        "a_int": Int64,
        "g_array": Array(Int64),
        "tags": Array(String),
    }

    def spoil(
        row: dict[str, Any], asked: dict[str, Any], before: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        result = {name: value if mode == "python" else value.copy() for name, value in row.items()}
        result["tags"] = asked["tags"]
        lists = (
            [result["g_array"], result["tags"]] if mode == "python" else [*result["g_array"], *result["tags"]]
        )
        for items in lists:
            items.append(items.pop(0))
        for source in (row, asked, before or {}):
            for name, value in list(source.items()):
                if isinstance(value, np.ndarray):
                    value[:] = value[::-1]
                    if value.dtype == np.float64:
                        np.multiply(value, 2, out=value)
                elif isinstance(value, list) and before is not None:
                    value.clear()
                del source[name]
        return result

    first = made(spoil, [stored, request], outputs, mode=mode, name="a_first")
    again = made(spoil, [stored, request], outputs, mode=mode, name="b_again")
    last = made(
        lambda row, asked, before: {
            "x": 1.0 if mode == "python" else np.ones(len(spoil(row, asked, before)["tags"]))
        },
        [stored, request, first],
        {"x": Float64},
        mode=mode,
        name="c_last",
    )
    world = OnDemandWorld([first, again, last, stored])
    view = world.plan.views["all"]
    row = attribute_row(view, {"b_float": 2.5, "a_int": 7, "g_array": b'["1","2"]'})
    for key in ("u1", "u2"):
        world.store.rows[view.table, key] = BASE64_ROWS.wrap(row)
    askers = [world.ask([key], contexts=[CONTEXT]) for key in ("u1", "u1", "u2")]
    world.settle()
    shown = [2.5, "7", ["2", "1"], ["b", "a"]]
    for asker in askers:
        assert asker.vectors == [[*shown, *shown, 1.0, "7", 2.5, ["1", "2"]]]


# --- failures


class OddError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class OddText(str):
    __slots__ = ()

    def __getitem__(self, index: Any) -> str:
        raise KeyboardInterrupt


class TextOfItsOwnError(Exception):
    def __str__(self) -> str:
        return OddText("hidden")


class Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError("no name for you")


class NamelessError(Exception, metaclass=Nameless):
    pass


def raising(mode: str, error: BaseException) -> Callable[..., Any]:
    def one(source: dict[str, Any]) -> dict[str, Any]:
        if source["amount"] == 13:
            raise error
        return {"x": source["amount"]}

    def columns(source: Any) -> Any:
        if (source["amount"] == 13).any():
            raise error
        return {"x": source["amount"]} if mode == "numpy" else source.rename(columns={"amount": "x"})

    return one if mode == "python" else columns


@pytest.mark.parametrize(
    "error, text",
    [
        (ValueError("no such amount"), "ValueError: no such amount"),
        (KeyError("amount"), "KeyError: 'amount'"),
        (OddError(), "OddError: no text"),
        (TextOfItsOwnError(), "TextOfItsOwnError: no text"),
        (NamelessError("x"), "Exception: x"),
        (type("N" * 9_999, (Exception,), {})("x"), "N" * 64 + ": x"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt: "),
        (ValueError("x" * 9_999), "ValueError: " + "x" * 500),
    ],
    ids=[
        *("ValueError", "KeyError", "no text", "odd text", "no name", "long name"),
        *("SystemExit", "KeyboardInterrupt", "long"),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_a_raising_request_fails_alone_among_many(mode: Any, error: BaseException, text: str) -> None:
    world = OnDemandWorld([made(raising(mode, error), [amounts], {"x": Float64}, mode=mode, name="odd")])
    askers = [world.ask(contexts=[{"amount": number}]) for number in range(20)]
    world.turn()
    for number, asker in enumerate(askers):
        expected = f"400 {text} (when evaluating UDF odd)" if number == 13 else [number]
        assert asker.vectors == [expected]
    assert world.complaints == [("odd", error)]
    assert world.times.stats()["odd"].failures == 1


@pytest.mark.parametrize("mode", ["numpy", "pandas"])
def test_a_call_that_is_repeated_gets_its_inputs_as_they_came(mode: Any) -> None:
    def lengthening(source: Any) -> Any:
        for tags in source["tags"]:
            tags.append("more")
        if "bad" in [tags[0] for tags in source["tags"]]:
            raise ValueError("bad")
        return {"x": [len(tags) for tags in source["tags"]]}

    world = OnDemandWorld([made(lengthening, [request], {"x": Int64}, mode=mode, name="longer")])
    askers = [
        world.ask(contexts=[{**CONTEXT, "tags": tags}])
        for tags in (["a"], ["a", "b"], ["bad"], ["a"], ["a", "b", "c"])
    ]
    world.turn()
    bad = "400 ValueError: bad (when evaluating UDF longer)"
    assert [asker.vectors[0] for asker in askers] == [["2"], ["3"], bad, ["2"], ["4"]]


@pytest.mark.parametrize("mode", ["python", "numpy"])
def test_views_behind_a_failed_one_are_not_called_for_its_request(mode: Any) -> None:
    seen: list[float] = []

    def second(before: dict[str, Any]) -> dict[str, Any]:
        seen.extend([before["x"]] if mode == "python" else before["x"])
        return {"y": before["x"]}

    first = made(raising(mode, ValueError("13")), [amounts], {"x": Float64}, mode=mode, name="first")
    world = OnDemandWorld([made(second, [first], {"y": Float64}, mode=mode)])
    askers = [world.ask(contexts=[{"amount": number}]) for number in (12, 13, 14)]
    world.turn()
    assert seen == [12, 14]
    assert askers[1].vectors == ["400 ValueError: 13 (when evaluating UDF first)"]
    assert (askers[0].vectors, askers[2].vectors) == ([[12]], [[14]])


@pytest.mark.parametrize(
    "result, text",
    [
        (None, "TypeError: result: expected a dict of 'x', got None"),
        ({}, "TypeError: feature `x`: expected in the result, got []"),
        ({"x": 1, "y": 2}, "TypeError: result: expected only 'x', got 'y' as well"),
        ({"x": 1.5}, "TypeError: feature `x`: expected int64 (an int), got float 1.5"),
        ({"x": True}, "TypeError: feature `x`: expected int64 (an int), got bool True"),
        (
            {"x": 2**63},
            "ValueError: feature `x`: expected int64 (-2^63 to 2^63 - 1), got int 9223372036854775808",
        ),
    ],
)
def test_a_result_that_does_not_keep_its_schema_is_the_view_s_fault(result: Any, text: str) -> None:
    world = OnDemandWorld([made(lambda _source: result, [amounts], {"x": Int64}, name="v")])
    asker = world.ask(contexts=[{"amount": 1}])
    world.turn()
    assert asker.vectors == [f"400 {text} (when evaluating UDF v)"]


def test_nan_is_no_result_of_one_request_and_null_in_columns() -> None:
    for mode, value, expected in (
        ("python", math.nan, "400 ValueError: feature `x`: expected float64 that is a number"),
        ("numpy", np.array([math.nan]), [None]),
        ("python", math.inf, ["Infinity"]),
        ("numpy", np.array([-math.inf]), ["-Infinity"]),
    ):
        view = made(lambda _source, v=value: {"x": v}, [amounts], {"x": Float64}, name="v", mode=mode)
        world = OnDemandWorld([view])
        asker = world.ask(contexts=[{"amount": 1}])
        world.turn()
        (vector,) = asker.vectors
        assert vector[: len(expected)] == expected


@pytest.mark.parametrize("mode", ["python", "numpy"])
def test_a_call_that_took_longer_than_its_limit_is_refused(mode: Any) -> None:
    def slow(source: dict[str, Any]) -> dict[str, Any]:
        late = source["amount"] == 13
        world.clock_ns += 20_000_000 if np.any(late) else 1_000_000
        return {"x": source["amount"]}

    limit = timedelta(milliseconds=10)
    world = OnDemandWorld([made(slow, [amounts], {"x": Float64}, mode=mode, name="v", time_limit=limit)])
    askers = [world.ask(contexts=[{"amount": number}]) for number in (13, 14)]
    world.turn()
    refused = ["504 On-demand view `v` took longer than its limit of 10 ms: it took 20 ms"]
    # One call for both: the limit is the call's.
    assert [asker.vectors for asker in askers] == [refused, [[14]] if mode == "python" else refused]
    stats = world.times.stats()["v"]
    assert (stats.sum_ns, stats.max_ns) == (
        (21_000_000, 20_000_000) if mode == "python" else (20_000_000,) * 2
    )
    assert askers[0].waits_s == [stats.sum_ns / 1e9]


# --- rows that lack


def test_a_row_that_is_not_there_passes_nulls() -> None:
    stored = attribute_view("all")
    world = OnDemandWorld([echo_view("python", [stored], ATTRIBUTES)])
    world.store.rows[world.plan.views["all"].table, "u1"] = None
    asker = world.ask(["u1"])
    world.settle()
    assert asker.vectors == [[None] * len(ATTRIBUTES)]


def test_nothing_is_computed_for_a_request_whose_rows_failed_unless_partial_results_are_welcome() -> None:
    seen: list[Any] = []

    def look(source: dict[str, Any]) -> dict[str, Any]:
        seen.append(source["d_text"])
        return {"x": source["d_text"]}

    world = OnDemandWorld([made(look, [attribute_view("text", ["d_text"])], {"x": String})])
    world.store.failing["u1"] = StoreError("gone")
    askers = [world.ask(["u1"]), world.ask(["u2"]), world.ask(["u1"], partial=True)]
    world.settle()
    assert sorted(seen, key=str) == [None, "u2"]
    assert askers[0].vectors[0].startswith("503 ")
    assert askers[1].vectors == [["u2"]]
    assert askers[2].vectors == [[None]]


def test_a_row_that_is_no_row_fails_its_own_request_only() -> None:
    seen: list[Any] = []

    def look(source: dict[str, Any]) -> dict[str, Any]:
        seen.append(source["d_text"])
        return {"x": source["d_text"]}

    world = OnDemandWorld([made(look, [attribute_view("text", ["d_text", "a_int"])], {"x": String})])
    world.store.rows[world.plan.views["text"].table, "u1"] = "AAAA"
    askers = [world.ask(["u1"]), world.ask(["u2"])]
    world.settle()
    assert seen == ["u2"]
    assert askers[0].vectors[0].startswith("503 ")
    assert askers[1].vectors == [["u2"]]


@pytest.mark.parametrize("mode", ["python", "numpy"])
def test_a_text_that_is_not_of_its_type_fails_its_own_request_only(mode: Any) -> None:
    stored = attribute_view("all", ["g_array", "a_int"])
    outputs: dict[str, DataType] = {"g_array": Array(Int64), "a_int": Int64}
    world = OnDemandWorld([echo_view(mode, [stored], outputs)])
    view = world.plan.views["all"]
    for key, text in (("u1", b'["x"]'), ("u2", b'["2"]')):
        row = attribute_row(view, {"g_array": text, "a_int": 1})
        world.store.rows[view.table, key] = BASE64_ROWS.wrap(row)
    askers = [world.ask(["u1"]), world.ask(["u2"])]
    world.settle()
    assert askers[0].vectors[0].startswith("503 A row of view `all` can't be read: ")
    assert askers[1].vectors == [[["2"], "1"]]


# --- ways through the engine


def test_a_service_that_reads_nothing_asks_no_store_and_is_evaluated_at_the_end_of_the_turn() -> None:
    world = OnDemandWorld([made(lambda source: {"x": source["amount"]}, [amounts], {"x": Float64})])
    askers = [world.ask(contexts=[{"amount": 1}]), world.ask(contexts=[{"amount": 2}])]
    assert world.engine.in_flight == 2
    assert not askers[0].told
    world.turn()
    assert [asker.vectors for asker in askers] == [[[1]], [[2]]]
    assert not world.store.batches
    assert world.engine.in_flight == 0


def test_a_request_that_gave_up_before_the_turn_ended_is_answered_once() -> None:
    world = OnDemandWorld([made(lambda source: {"x": source["amount"]}, [amounts], {"x": Float64})])
    asker = world.ask(contexts=[{"amount": 1}])
    world.engine.expire(99.0)
    world.turn()
    assert asker.told == ["timeout"]


def test_a_long_request_is_computed_in_slices_that_give_way_to_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(requests_module, "SLICE_BYTES", 1_000)
    calls: list[int] = []

    def columns(source: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
        calls.append(len(asked["amount"]))
        return {"x": asked["amount"], "y": source["d_text"]}

    view = made(
        columns, [attribute_view("text", ["d_text"]), amounts], {"x": Float64, "y": String}, mode="numpy"
    )
    world = OnDemandWorld([view])
    lines = 50
    asker = world.ask(
        *[[f"u{number}"] for number in range(lines)],
        contexts=[{"amount": number} for number in range(lines)],
    )
    world.settle()
    assert asker.vectors == [[number, f"u{number}"] for number in range(lines)]
    assert sum(calls) == lines
    assert len(calls) > 1
    assert world.engine.in_flight == 0


def test_an_unforeseen_error_fails_the_requests_and_not_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    view = made(lambda source: {"x": source["amount"]}, [amounts], {"x": Float64})
    world = OnDemandWorld([view])
    evaluator = world.engine.services["s"].on_demand
    assert evaluator is not None

    def broken(_batch: Any) -> None:
        raise ZeroDivisionError("ours")

    asker = world.ask(contexts=[{"amount": 1}])
    with monkeypatch.context() as patched:
        patched.setattr(type(evaluator._views[0]), "run", lambda _self, batch: broken(batch))
        world.turn()
    assert asker.told == ["failure: ZeroDivisionError('ours')"]
    after = world.ask(contexts=[{"amount": 1}])
    world.turn()
    assert after.vectors == [[1]]
    assert world.engine.in_flight == 0
