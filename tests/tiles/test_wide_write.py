from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.sdk.types import Array, DataType, Float64, Int64, String
from fastserve.tiles.aggregates import AggregateSpec, CompactedSchema, make_schema
from fastserve.tiles.rows import bytes_values
from fastserve.tiles.wide import answering, kept_texts
from fastserve.tiles.wide_write import WideEvents, WideTiler, WideTiles, entities, wide_bytes
from fastserve.tiles.windows import DAY_NS, HOUR_NS, LIFETIME_NS, MINUTE_NS, Window
from fastserve.tiles.write import encode_words, neutral_words
from tests.support.examples import examples
from tests.tiles.wide_cases import naive

AS_OF_NS = 20_000 * DAY_NS + 5 * HOUR_NS
COLUMNS: dict[str, DataType] = {"name": String, "amount": Float64, "ad": Int64}
INTERVAL = 5 * MINUTE_NS
WINDOWS = (
    Window(HOUR_NS, 5 * MINUTE_NS, INTERVAL, 2 * HOUR_NS),
    Window(7 * DAY_NS, HOUR_NS, INTERVAL, 2 * HOUR_NS),
    Window(HOUR_NS, 5 * MINUTE_NS, INTERVAL, 2 * HOUR_NS, -30 * MINUTE_NS),
    Window(LIFETIME_NS, INTERVAL, INTERVAL, 2 * HOUR_NS),
)
FUNCTIONS: Sequence[tuple[str, str, dict[str, float]]] = (
    ("name", "last", {}),
    ("name", "min", {}),
    ("name", "last_distinct", {"n": 2}),
    ("amount", "first", {"n": 3}),
    ("amount", "approx_percentile", {"percentile": 0.5, "precision": 20}),
)


def spec(
    column: str, function: str, params: dict[str, Any], window: Window, key: str | None
) -> AggregateSpec:
    return AggregateSpec(
        name=f"{column}_{function}",
        function=function,
        column=column,
        input_type=COLUMNS[column],
        output_type=Array(COLUMNS[column]),
        window=window,
        params=tuple(params.items()),
        secondary_key=key,
        key_type=None if key is None else COLUMNS[key],
    )


@st.composite
def specs(draw: st.DrawFn) -> list[AggregateSpec]:
    key = draw(st.sampled_from([None, "ad"]))
    functions = draw(st.lists(st.sampled_from(FUNCTIONS), min_size=1, max_size=3, unique_by=str))
    windows = draw(st.lists(st.sampled_from(WINDOWS), min_size=1, max_size=2, unique=True))
    return [spec(*function, window, key) for function in functions for window in windows]


@st.composite
def events_of(draw: st.DrawFn) -> list[tuple[str, int, dict[str, Any]]]:
    near = st.integers(-13, 1).map(lambda step: AS_OF_NS + step * 5 * MINUTE_NS)
    times = st.one_of(near, near.map(lambda time: time - 1), st.sampled_from([AS_OF_NS - 7 * DAY_NS, 0]))
    values = st.fixed_dictionaries(
        {
            "name": st.none() | st.sampled_from(["", "a", "é"]),
            "amount": st.none() | st.floats(),
            "ad": st.none() | st.integers(0, 2),
        }
    )
    return sorted(
        draw(st.lists(st.tuples(st.sampled_from("abc"), times, values), max_size=12)), key=lambda e: e[:2]
    )


def chunk(events: Sequence[tuple[str, int, dict[str, Any]]]) -> tuple[list[str], WideEvents]:
    keys = sorted({key for key, _, _ in events})
    starts = [next(n for n, event in enumerate(events) if event[0] == key) for key in keys]
    columns = {name: [values[name] for _, _, values in events] for name in COLUMNS}
    times = np.array([time for _, time, _ in events], np.int64)
    return keys, WideEvents(np.array([*starts, len(events)], np.intp), times, columns)


def rows_of(schema: CompactedSchema, tiles: WideTiles, count: int) -> list[bytes]:
    return encode_words(schema, neutral_words(schema, count), AS_OF_NS, tiles)


def expected(one: AggregateSpec, events: Sequence[tuple[int, dict[str, Any]]], time_ns: int) -> Any:
    low, high = one.window.start_ns(time_ns), min(one.window.end_ns(time_ns), AS_OF_NS)
    params = {name: float(value) for name, value in one.params}
    inside = [(time, values) for time, values in events if low <= time < high]
    if one.secondary_key is None:
        there = [(time, values[one.column]) for time, values in inside if values[one.column] is not None]
        return naive(one.function, params, one.input_type, there)
    keys = sorted(
        {values[one.secondary_key] for _, values in inside if values[one.secondary_key] is not None}
    )
    by_key = [
        [(t, v[one.column]) for t, v in inside if v[one.secondary_key] == key and v[one.column] is not None]
        for key in keys
    ]
    return [naive(one.function, params, one.input_type, part) for part in by_key] or None


@settings(max_examples=examples(100), deadline=None)
@given(specs(), events_of(), st.data())
def test_rows_answer_at_any_time_what_a_loop_over_the_events_answers(
    wanted: list[AggregateSpec], events: list[tuple[str, int, dict[str, Any]]], data: st.DataObject
) -> None:
    schema = make_schema(wanted, 2 * HOUR_NS)
    tiler = WideTiler(schema)
    cut = data.draw(st.integers(0, len(events)))
    tiles: dict[str, WideTiles] = {}
    for part in (events[:cut], events[cut:]):
        if part:
            keys, some = chunk(part)
            made = tiler.tile(some, AS_OF_NS)
            for number, key in enumerate(keys):
                own = entities(made, number, number + 1)
                tiles[key] = tiler.merged(tiles[key], own) if key in tiles else own
    time_ns = AS_OF_NS + data.draw(st.sampled_from([0, 1, HOUR_NS, 2 * HOUR_NS, 20 * MINUTE_NS]))
    for key, own in tiles.items():
        (row,) = rows_of(schema, own, 1)
        values = bytes_values(schema.layout, row)
        mine = [(time, found) for owner, time, found in events if owner == key]
        for feature in schema.features:
            assert feature.wide is not None
            columns = schema.wide[feature.wide].columns
            live = feature.spec.window.live_slots(AS_OF_NS, time_ns)
            irs = [ir for slot in live if (ir := values[columns[slot].name])]
            answer = orjson.loads(answering(feature.spec).answer(irs))
            assert answer == expected(feature.spec, mine, time_ns)


def test_percentiles_of_one_column_and_window_share_their_bytes() -> None:
    params = [{"percentile": share, "precision": 20} for share in (0.5, 0.9)]
    schema = make_schema(
        [spec("amount", "approx_percentile", each, WINDOWS[0], None) for each in params], HOUR_NS
    )
    assert len(schema.wide) == 1
    events = WideEvents(
        np.array([0, 10], np.intp),
        np.full(10, AS_OF_NS - 1, np.int64),
        {"amount": [float(number) for number in range(10)]},
    )
    tiles = WideTiler(schema).tile(events, AS_OF_NS)
    irs = [ir for column in tiles for ir in column if ir]
    assert [answering(feature.spec).answer(irs) for feature in schema.features] == [b"4.0", b"8.0"]
    assert wide_bytes(tiles) == len(irs[0]) == 6 + 80


def test_only_columns_whose_texts_are_kept_are_limited() -> None:
    kinds: list[tuple[str, dict[str, Any]]] = [("approx_count_distinct", {"precision": 8}), ("count", {})]
    plain = make_schema([spec("name", *kind, WINDOWS[0], None) for kind in kinds], HOUR_NS)
    assert kept_texts(plain) == set()
    assert kept_texts(make_schema([spec("name", "min", {}, WINDOWS[0], None)], HOUR_NS)) == {"name"}
    keyed = make_schema([spec("amount", "count", {}, WINDOWS[0], "name")], HOUR_NS)
    assert kept_texts(keyed) == {"name"}
    assert WideTiler(keyed).inputs == {"amount", "name"}


def test_a_text_over_the_limit_is_refused_when_it_comes_so_far() -> None:
    schema = make_schema([spec("name", "max", {}, WINDOWS[0], None)], HOUR_NS)
    events = WideEvents(np.array([0, 1], np.intp), np.array([AS_OF_NS - 1], np.int64), {"name": ["x" * 1025]})
    with pytest.raises(ValueError, match=r"^expected a string of at most 1024 bytes, got 1025 bytes$"):
        WideTiler(schema).tile(events, AS_OF_NS)
