"""Rows of tiles as against rows of the events that the tiles were made of."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest

from fastserve.sdk.types import Float64, Int64, String
from fastserve.tiles.aggregates import AggregateSpec, CompactedSchema, make_schema
from fastserve.tiles.blocks import Block, BlockSchema, block_schema, from_events
from fastserve.tiles.compact import compact, encode, gather
from fastserve.tiles.rows import decode_row, effective_ns_of
from fastserve.tiles.wide import function_of
from fastserve.tiles.windows import DAY_NS, HOUR_NS, LIFETIME_NS, MINUTE_NS, Window

AS_OF_NS = 20_454 * DAY_NS + 7 * HOUR_NS
HORIZON_NS = 2 * DAY_NS
INTERVAL_NS = 10 * MINUTE_NS
WINDOWS = [
    Window(HOUR_NS, INTERVAL_NS, INTERVAL_NS, HORIZON_NS),
    Window(DAY_NS, HOUR_NS, INTERVAL_NS, HORIZON_NS),
    Window(14 * DAY_NS, DAY_NS, INTERVAL_NS, HORIZON_NS),
    Window(3 * DAY_NS, HOUR_NS, INTERVAL_NS, HORIZON_NS, offset_ns=-DAY_NS),
    Window(LIFETIME_NS, INTERVAL_NS, INTERVAL_NS, HORIZON_NS),
]
FUNCTIONS: list[tuple[str, str, tuple[tuple[str, int | float], ...]]] = [
    *[("amount", name, ()) for name in ("sum", "count", "mean", "min", "max", "var_pop", "last", "first")],
    *[("units", name, ()) for name in ("sum", "mean", "min", "max", "stddev_samp", "last")],
    *[("kind", name, ()) for name in ("count", "last", "max")],
    ("kind", "last", (("n", 3),)),
    ("kind", "first_distinct", (("n", 2),)),
    ("units", "approx_count_distinct", (("precision", 8),)),
]
TYPES = {"amount": Float64, "units": Int64, "kind": String}

Event = tuple[str, int, dict[str, Any]]


def make(windows: list[Window]) -> tuple[CompactedSchema, BlockSchema]:
    specs = [
        AggregateSpec(
            f"{column}_{name}_{number}_{place}", name, column, TYPES[column], TYPES[column], window, params
        )
        for place, window in enumerate(windows)
        for number, (column, name, params) in enumerate(FUNCTIONS)
    ]
    schema = make_schema(specs, HORIZON_NS)
    return schema, block_schema(schema)


def events_of(count: int, keys: int, seed: int) -> list[Event]:
    chance = random.Random(seed)
    made = []
    for _ in range(count):
        ago_ns = chance.choice([chance.randrange(20 * DAY_NS), chance.randrange(-50, 200) * INTERVAL_NS])
        values = {
            "amount": chance.choice([None, math.nan, chance.randrange(-80, 80) / 8]),
            "units": chance.choice([None, chance.randrange(-(2**60), 2**60), 7]),
            "kind": chance.choice([None, "a", "b", "cd"]),
        }
        made.append((f"k{chance.randrange(keys)}", AS_OF_NS - ago_ns, values))
    return made


def blocks_of(blocks: BlockSchema, events: list[Event]) -> dict[tuple[str, int], Block]:
    columns = {name: [values[name] for _, _, values in events] for name in TYPES}
    return from_events(blocks, [key for key, _, _ in events], [time for _, time, _ in events], columns)


def rows_of(
    schema: CompactedSchema, blocks: BlockSchema, parts: list[dict[tuple[str, int], Block]]
) -> dict[str, bytes]:
    """Compact blocks that came in several parts, each with its own blocks of the same keys."""
    keys = sorted({key for part in parts for key, _ in part})
    by_entity = [
        [block for part in parts for (owner, _), block in part.items() if owner == key] for key in keys
    ]
    compacted = compact(schema, blocks, gather(blocks, by_entity), AS_OF_NS)
    live = np.flatnonzero(compacted.live).tolist()
    return dict(zip([keys[place] for place in live], encode(schema, compacted, AS_OF_NS, live), strict=True))


def assert_alike(schema: CompactedSchema, got: bytes, expected: bytes) -> None:
    assert effective_ns_of(got) == effective_ns_of(expected) == AS_OF_NS
    ours, theirs = decode_row(schema.layout, got), decode_row(schema.layout, expected)
    for component in schema.wide:
        function = function_of(component)
        for column in component.columns:  # equal states may differ in their bytes
            answers = [function.finalize(values.pop(column.name)) for values in (ours, theirs)]
            assert answers[0] == answers[1], column.name
    for name, value in theirs.items():
        if isinstance(value, float):
            assert ours[name] == pytest.approx(value, rel=1e-12, nan_ok=True), name
        else:
            assert ours[name] == value, name


@pytest.mark.parametrize("seed", range(5))
def test_rows_do_not_depend_on_how_tiles_came_into_blocks(seed: int) -> None:
    schema, blocks = make(WINDOWS)
    events = events_of(400, 5, seed)

    whole = rows_of(schema, blocks, [blocks_of(blocks, events)])
    parts = rows_of(schema, blocks, [blocks_of(blocks, events[place::7]) for place in reversed(range(7))])

    assert list(whole) == list(parts) == [f"k{number}" for number in range(5)]
    for key, row in whole.items():
        assert_alike(schema, parts[key], row)


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_tiles_count_what_a_loop_over_events_counts(seed: int) -> None:
    schema, blocks = make(WINDOWS)
    events = events_of(300, 4, seed)

    rows = rows_of(schema, blocks, [blocks_of(blocks, events)])

    for key, row in rows.items():
        values = decode_row(schema.layout, row)
        words = np.frombuffer(row, "<i8", schema.layout.fixed_words)
        assert len(values) == len(schema.layout.columns)
        for component in schema.components:
            if component.op.value != "count":
                continue
            bounds = component.window.slot_bounds_ns(AS_OF_NS)
            expected = [
                sum(
                    owner == key and low <= time < high and event[component.column] is not None
                    for owner, time, event in events
                )
                for low, high in bounds
            ]
            assert words[component.word : component.word + component.words].tolist() == expected


def test_integer_sums_are_exact_and_spoilt_beyond_int64() -> None:
    schema = make_schema([AggregateSpec("s", "sum", "units", Int64, Int64, WINDOWS[-1])], HORIZON_NS)
    blocks = block_schema(schema)
    large = 2**62

    def total(*values: int) -> Any:
        events: list[Event] = [
            ("k", AS_OF_NS - (number + 1) * DAY_NS, {"amount": None, "units": value, "kind": None})
            for number, value in enumerate(values)
        ]
        row = rows_of(schema, blocks, [blocks_of(blocks, events)])["k"]
        return np.frombuffer(row, "<i8")[schema.components[0].word]

    assert total(large, large - 1, 5, -5) == 2**63 - 1
    assert total(large, large) == -(2**63)


def test_an_entity_with_tiles_outside_of_all_windows_is_not_live() -> None:
    schema, blocks = make(WINDOWS[:2])
    nothing = {"amount": None, "units": None, "kind": None}
    events: list[Event] = [
        ("old", AS_OF_NS - 3 * DAY_NS, nothing),
        ("new", AS_OF_NS, nothing),
        ("live", AS_OF_NS - 1, nothing),
        ("edge", AS_OF_NS - DAY_NS, nothing),
    ]

    rows = rows_of(schema, blocks, [blocks_of(blocks, events)])

    assert sorted(rows) == ["edge", "live"]


def test_nothing_compacts_to_nothing() -> None:
    schema, blocks = make(WINDOWS)

    compacted = compact(schema, blocks, gather(blocks, []), AS_OF_NS)

    assert encode(schema, compacted, AS_OF_NS, []) == []
