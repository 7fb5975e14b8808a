"""Blocks: their bytes, their merge, and what older shapes become."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from fastserve.sdk.types import Float64, Int64, String
from fastserve.tiles.aggregates import AggregateSpec, make_schema
from fastserve.tiles.blocks import (
    Block,
    BlockSchema,
    block_schema,
    decode,
    described_shape,
    encode,
    from_events,
    merge,
)
from fastserve.tiles.rows import RowError
from fastserve.tiles.windows import DAY_NS, HOUR_NS, MINUTE_NS, Window

INTERVAL_NS = 5 * MINUTE_NS
T0_NS = 20_000 * DAY_NS


def spec(function: str, column: str, days: int) -> AggregateSpec:
    window = Window(days * DAY_NS, HOUR_NS, INTERVAL_NS, 2 * DAY_NS)
    dtype = {"amount": Float64, "cents": Int64, "shop": String}[column]
    return AggregateSpec(f"{column}_{function}_{days}d", function, column, dtype, dtype, window)


def schema_of(*aggregates: tuple[str, str]) -> BlockSchema:
    return block_schema(
        make_schema(
            [spec(function, column, days) for function, column in aggregates for days in (1, 28)], 2 * DAY_NS
        )
    )


SCHEMA = schema_of(
    ("sum", "amount"),
    ("mean", "amount"),
    ("min", "amount"),
    ("max", "cents"),
    ("sum", "cents"),
    ("count", "shop"),
)


def events(count: int, seed: int) -> tuple[list[str], list[int], dict[str, list[Any]]]:
    chance = random.Random(seed)
    keys = [chance.choice(["u1", "u2|x", "u\\e"]) for _ in range(count)]
    times = [T0_NS + chance.randrange(5 * DAY_NS) for _ in range(count)]
    columns: dict[str, list[Any]] = {
        "amount": [chance.choice([None, 1.5, -2.25, 0.0, 100.0]) for _ in range(count)],
        "cents": [chance.choice([None, 2**61, -3, 7]) for _ in range(count)],
        "shop": [chance.choice([None, "", "s1"]) for _ in range(count)],
    }
    return keys, times, columns


def texts(blocks: dict[tuple[str, int], Block]) -> dict[tuple[str, int], bytes]:
    return {place: encode(SCHEMA, block) for place, block in blocks.items()}


def test_windows_share_their_tiles() -> None:
    assert SCHEMA.shape.components == (
        ("amount:sum", 1),
        ("amount:count", 1),
        ("amount:min", 1),
        ("cents:imax", 1),
        ("cents:count", 1),
        ("cents:isum", 1),
        ("shop:count", 1),
    )
    assert SCHEMA.block_ns == 2 * DAY_NS
    assert SCHEMA.component_words[:2] == (0, 0)


def test_a_block_is_as_long_as_the_horizon_in_whole_tiles() -> None:
    window = Window(DAY_NS, 7 * HOUR_NS, 7 * HOUR_NS, 2 * DAY_NS)
    schema = block_schema(
        make_schema([AggregateSpec("a", "sum", "amount", Float64, Float64, window)], 2 * DAY_NS)
    )
    assert schema.block_ns == 49 * HOUR_NS
    assert schema.block_of(49 * HOUR_NS - 1) == 0
    assert schema.end_ns(0) == 49 * HOUR_NS


@pytest.mark.parametrize("seed", range(5))
def test_merging_parts_in_any_order_is_tiling_all_at_once(seed: int) -> None:
    keys, times, columns = events(200, seed)
    cuts = [0, 1, 30, 31, 120, 200]
    parts = [
        from_events(SCHEMA, keys[a:b], times[a:b], {name: values[a:b] for name, values in columns.items()})
        for a, b in pairwise(cuts)
    ]
    random.Random(seed).shuffle(parts)
    merged: dict[tuple[str, int], Block] = {}
    for part in parts:
        for place, block in part.items():
            again = decode(SCHEMA, encode(SCHEMA, block))
            merged[place] = merge(SCHEMA, merged[place], again) if place in merged else again
    assert texts(merged) == texts(from_events(SCHEMA, keys, times, columns))


def test_every_event_lies_in_the_tile_of_its_time() -> None:
    times = [T0_NS, T0_NS + INTERVAL_NS - 1, T0_NS + INTERVAL_NS, T0_NS - 1]
    made = from_events(
        SCHEMA,
        ["u"] * 4,
        times,
        {"amount": [1.0, 2.0, 4.0, None], "cents": [1, None, 2, 3], "shop": ["a", None, None, "b"]},
    )
    before, after = sorted(made)
    assert (before[1] + 1, after[1]) == (after[1], T0_NS // (2 * DAY_NS))
    assert made[before].starts.tolist() == [T0_NS - INTERVAL_NS]
    block = made[after]
    assert block.starts.tolist() == [T0_NS, T0_NS + INTERVAL_NS]
    assert block.words[:, 0].copy().view("<f8").tolist() == [3.0, 4.0]
    assert block.words[:, 3:].tolist() == [[1, 1, 1, 1], [2, 1, 2, 0]]


def test_no_events_are_no_blocks() -> None:
    assert from_events(SCHEMA, [], [], {"amount": [], "cents": [], "shop": []}) == {}


@pytest.mark.parametrize("tiles", [0, 1, 2, 3, 4])
def test_a_block_is_a_multiple_of_three_bytes_and_comes_back(tiles: int) -> None:
    times = [T0_NS + number * INTERVAL_NS for number in range(tiles)]
    columns: dict[str, list[Any]] = {"amount": [1.0] * tiles, "cents": [1] * tiles, "shop": ["a"] * tiles}
    made = list(from_events(SCHEMA, ["u"] * tiles, times, columns).values())
    empty = Block(np.zeros(0, np.int64), np.zeros((0, SCHEMA.words), np.int64), [])
    block = made[0] if made else empty
    value = encode(SCHEMA, block)
    assert len(value) % 3 == 0
    assert encode(SCHEMA, decode(SCHEMA, value)) == value


def test_an_older_block_has_empty_slots_for_what_it_lacks() -> None:
    old = schema_of(("mean", "amount"), ("max", "amount"))
    new = schema_of(("max", "cents"), ("sum", "amount"))
    made = from_events(old, ["u", "u"], [T0_NS, T0_NS], {"amount": [1.0, 2.5]})
    value = encode(old, made["u", old.block_of(T0_NS)])
    with pytest.raises(RowError) as unknown:
        decode(new, value)
    assert unknown.value.schema_id == old.schema_id
    shape = described_shape(old.shape.describe())
    assert shape == old.shape
    block = decode(new, value, {shape.schema_id: shape})
    assert block.words[:, :2].tolist() == [[-(2**63), 0]]
    assert block.words[:, 2].copy().view("<f8").tolist() == [3.5]


def test_bytes_that_are_no_block_are_refused() -> None:
    made = from_events(SCHEMA, ["u"], [T0_NS], {"amount": [1.0], "cents": [None], "shop": [None]})
    (block,) = made.values()
    value = encode(SCHEMA, block)
    for wrong in (
        b"",
        value[:15],
        value[:-3],
        value + bytes(3),
        b"\1" + value[1:],
        value[:1] + b"\1" + value[2:],
    ):
        with pytest.raises(RowError):
            decode(SCHEMA, wrong)


def wide_schema() -> BlockSchema:
    window = Window(DAY_NS, HOUR_NS, INTERVAL_NS, 2 * DAY_NS)
    two = (("n", 2),)
    specs = [
        AggregateSpec("a", "last", "shop", String, String, window, params=two),
        AggregateSpec("b", "min", "shop", String, String, window),
        AggregateSpec("c", "sum", "cents", Int64, Int64, window, secondary_key="shop", key_type=String),
        AggregateSpec("d", "approx_percentile", "amount", Float64, Float64, window, params=PERCENTILE),
        AggregateSpec("e", "sum", "amount", Float64, Float64, window),
    ]
    return block_schema(make_schema(specs, 2 * DAY_NS))


PERCENTILE = (("percentile", 0.9), ("precision", 100))
WIDE = wide_schema()


@pytest.mark.parametrize("seed", range(3))
def test_wide_parts_of_tiles_merge_as_their_functions_do(seed: int) -> None:
    keys, times, columns = events(60, seed)
    columns["cents"] = [None if value is None else value % 1000 for value in columns["cents"]]
    whole = from_events(WIDE, keys, times, columns)
    halves = [
        from_events(WIDE, keys[a:b], times[a:b], {name: values[a:b] for name, values in columns.items()})
        for a, b in ((30, 60), (0, 30))
    ]
    for place, block in whole.items():
        parts = [decode(WIDE, encode(WIDE, half[place])) for half in halves if place in half]
        merged = parts[0] if len(parts) == 1 else merge(WIDE, *parts)
        assert merged.starts.tolist() == block.starts.tolist()
        for tile in range(block.tiles):
            for part, expected, got in zip(WIDE.wide, block.wide[tile], merged.wide[tile], strict=True):
                assert part.function.finalize(expected) == part.function.finalize(got)


def test_an_older_block_lacks_wide_parts_too() -> None:
    made = from_events(SCHEMA, ["u"], [T0_NS], {"amount": [1.5], "cents": [1], "shop": ["s"]})
    (block,) = made.values()
    got = decode(WIDE, encode(SCHEMA, block), {SCHEMA.schema_id: SCHEMA.shape})
    assert got.wide == [[b""] * len(WIDE.wide)]
    assert got.words.copy().view("<f8").tolist() == [[1.5]]
    back = decode(SCHEMA, encode(WIDE, got), {WIDE.schema_id: WIDE.shape})
    assert back.words[:, 0].copy().view("<f8").tolist() == [1.5]
    assert back.words[:, 1].tolist() == [0]
