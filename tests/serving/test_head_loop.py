"""Streamed vectors evaluated with the loop in C and without: the same columns and the same report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve import (
    Aggregate,
    FeatureView,
    Field,
    Float64,
    Int64,
    LifetimeWindow,
    PushSource,
    String,
    Timestamp,
    TimeWindow,
    last_distinct,
)
from fastserve.plan.service import ServicePlan, StreamedPlace
from fastserve.serving.columns import Columns
from fastserve.serving.heads import Watermarks
from fastserve.serving.transport import BASE64_ROWS, RAW_ROWS, RowTransport
from fastserve.serving.vectors import VectorEvaluator
from fastserve.tiles.blocks import BlockShape, block_schema, encode, from_events
from fastserve.tiles.layout import NO_ROW, NULL_FLOAT64_BITS, NULL_INT64
from fastserve.tiles.operations import NAN_BITS
from fastserve.tiles.windows import CLOCK_SKEW_NS, DAY_NS, HOUR_NS, MINUTE_NS, SECOND_NS
from tests.support.examples import examples
from tests.support.loops import no_loops
from tests.support.plans import NOW_NS, SHOP, USER, aggregate_row, aggregate_view, workspace_plan

AMOUNT, UNITS = Field("amount", Float64), Field("units", Int64)
PUSHED = PushSource(
    "pushed",
    [Field("user_id", String), Field("shop_id", Int64), Field("at", Timestamp), AMOUNT, UNITS],
    timestamp_field="at",
)
WINDOWS = (
    TimeWindow(timedelta(hours=1)),
    TimeWindow(timedelta(days=7)),
    TimeWindow(timedelta(days=1), offset=-timedelta(hours=2)),
    LifetimeWindow(),
)
AS_OFS_NS = (
    *(NOW_NS - hours * HOUR_NS for hours in (0, 1, 5, 48, 49)),
    *(NOW_NS + CLOCK_SKEW_NS, NOW_NS + CLOCK_SKEW_NS + 1, NOW_NS + 30 * SECOND_NS),
)


@cache
def plan_of(*, wide: bool) -> ServicePlan:
    """Return a service of two streamed views and one of files; with wide components, or without."""
    functions = ("sum", "count", "min", "max", "mean", "stddev_pop", "last", "first")
    minutes = [Aggregate(AMOUNT, function, window) for function in functions for window in WINDOWS]
    hours: list[Any] = [Aggregate(UNITS, function, WINDOWS[1]) for function in ("sum", "last", "max")]
    hours.append(Aggregate(AMOUNT, "sum", WINDOWS[3]))
    if wide:
        hours.append(Aggregate(AMOUNT, last_distinct(2), WINDOWS[0]))
    by_user = FeatureView("by_user", [USER], PUSHED, minutes, aggregation_interval=timedelta(minutes=5))
    by_shop = FeatureView("by_shop", [SHOP], PUSHED, hours, aggregation_interval=timedelta(hours=1))
    return workspace_plan({"s": [by_user, aggregate_view("files"), by_shop]}).services["s"]


def row_of(plan: ServicePlan, place: int, as_of_ns: int, chance: np.random.Generator) -> bytes:
    view = plan.places[place].view
    assert view.schema is not None
    slots: dict[int, Any] = {}
    for number, component in enumerate(view.schema.components):
        own = chance.integers(0, 9, component.words)
        if component.op.parts > 1:
            own = np.array(component.neutral_bits)
        slots[number] = own
        if component.op.is_float:
            slots[number] = own.view(np.float64) if component.op.parts > 1 else own.astype(np.float64)
    return aggregate_row(view, slots, as_of_ns)


def values_of(count: int, chance: np.random.Generator, *, is_odd: bool) -> dict[str, list[Any]]:
    amounts: list[Any] = (chance.integers(-99, 99, count) / 8).tolist()
    units: list[Any] = chance.integers(-(2**62), 2**62, count).tolist()
    for number in range(count):
        odd = [None, float("nan"), float("inf"), -float("inf"), -0.0, 1.7e308, 0.1]
        if chance.random() < 0.3 * is_odd:
            amounts[number] = odd[chance.integers(len(odd))]
            units[number] = None
    return {"amount": amounts, "units": units}


def blocks_of(stream: StreamedPlace, chance: np.random.Generator, *, is_odd: bool) -> list[bytes | None]:
    """Return the previous block and the current one, of some events until a little after now."""
    count = int(chance.choice([0, 1, 3, 30]))
    number = stream.blocks.block_of(NOW_NS)
    back = chance.choice([0, 1, MINUTE_NS, HOUR_NS, 30 * HOUR_NS, 60 * HOUR_NS, -2 * HOUR_NS], count)
    times = (NOW_NS - back - chance.integers(0, HOUR_NS, count)).tolist()
    made = from_events(stream.blocks, ["k"] * count, times, values_of(count, chance, is_odd=is_odd))
    found = [made.get(("k", block)) for block in (number - 1, number)]
    return [None if block is None else encode(stream.blocks, block) for block in found]


def older(stream: StreamedPlace) -> tuple[bytes, dict[int, BlockShape]]:
    """Return a block of an older shape, and that shape."""
    schema = stream.place.view.schema
    assert schema is not None
    fewer = block_schema(
        replace(schema, components=schema.components[:1], features=schema.features[:1], wide=())
    )
    (block,) = from_events(fewer, ["k"], [NOW_NS - 1], {"amount": [1.5], "units": [3]}).values()
    return encode(fewer, block), {fewer.schema_id: fewer.shape}


def damaged(block: bytes, how: str) -> bytes:
    at = {"header": 0, "schema": 5, "tiles": 8, "wide": 12}
    if how in at:
        return block[: at[how]] + bytes([block[at[how]] ^ 1]) + block[at[how] + 1 :]
    if how == "start":  # of the first tile, so that starts don't ascend
        return block[:16] + (2**62).to_bytes(8, "little") + block[24:]
    if how in ("short", "cut"):
        return block[: -24 if how == "short" else -1]
    return b"" if how == "none" else block + {"long": bytes(24), "odd": b"x"}[how]


DAMAGE = ("header", "schema", "tiles", "wide", "start", "short", "cut", "long", "none", "odd", "older")


def evaluated(evaluator: VectorEvaluator, lines: Sequence[Sequence[Any]], now_ns: int) -> list[Any]:
    """Return all that comes out, floats as their bits."""
    columns: Columns = evaluator.evaluate([list(line) for line in lines], now_ns)
    floats = np.ascontiguousarray(columns.floats).view("<i8")
    is_odd = np.isnan(columns.floats) & (floats != NULL_FLOAT64_BITS)  # NaNs have a sign that nobody sees
    return [
        np.where(is_odd, NAN_BITS, floats).tolist(),
        columns.ints.tolist(),
        columns.texts,
        columns.effective_ns.tolist(),
        columns.odd,
        columns.report,
    ]


@settings(deadline=None, max_examples=examples(60))
@given(st.data(), st.integers(0, 2**32), st.booleans(), st.sampled_from([RAW_ROWS, BASE64_ROWS]))
def test_columns_and_reports_are_the_same_with_the_loop_and_without(
    data: st.DataObject, seed: int, wide: bool, transport: RowTransport
) -> None:
    plan = plan_of(wide=wide)
    chance = np.random.default_rng(seed)
    is_odd, is_damaged = data.draw(st.booleans()), data.draw(st.booleans())
    shapes = {}
    lines: list[list[Any]] = []
    for _ in range(data.draw(st.integers(1, 3))):
        as_ofs_ns = [data.draw(st.sampled_from((None, NO_ROW, *AS_OFS_NS))) for _ in plan.places]
        line: list[Any] = [
            row_of(plan, place, as_of_ns, chance) if isinstance(as_of_ns, int) else as_of_ns
            for place, as_of_ns in enumerate(as_ofs_ns)
        ]
        for stream in plan.streams:
            line += blocks_of(stream, chance, is_odd=is_odd)
        lines.append(line)
    for _ in range(3 * is_damaged):
        line = lines[data.draw(st.integers(0, len(lines) - 1))]
        stream = plan.streams[data.draw(st.integers(0, len(plan.streams) - 1))]
        item, how = data.draw(st.sampled_from(stream.items)), data.draw(st.sampled_from(DAMAGE))
        if how == "older":
            line[item], known = older(stream)
            shapes[stream.place.view.name] = known
        elif line[item]:
            line[item] = damaged(line[item], how)
    wrapped = [[None if item is None else transport.wrap(item) for item in line] for line in lines]
    until_ns = {"by_user": NOW_NS - data.draw(st.sampled_from([0, 3 * DAY_NS]))}
    now_ns = NOW_NS + data.draw(st.sampled_from([0, 1, MINUTE_NS]))

    def evaluator() -> VectorEvaluator:
        return VectorEvaluator(plan, transport, watermarks=Watermarks(until_ns), old_shapes=shapes)

    looped = evaluated(evaluator(), wrapped, now_ns)
    with no_loops():
        numpys = evaluator()
    assert evaluated(numpys, wrapped, now_ns) == looped


def test_a_clock_so_early_that_windows_begin_before_int64_is_answered_by_both() -> None:
    plan = plan_of(wide=False)
    line: list[Any] = [None for _ in plan.places]
    for stream in plan.streams:
        (block,) = from_events(stream.blocks, ["k"], [NOW_NS], {"amount": [1.5], "units": [3]}).values()
        line += [None, encode(stream.blocks, block)]
    watermarks = Watermarks({stream.place.view.name: NOW_NS for stream in plan.streams})
    looped = evaluated(VectorEvaluator(plan, RAW_ROWS, watermarks=watermarks), [line], NULL_INT64 + 1)
    with no_loops():
        numpys = VectorEvaluator(plan, RAW_ROWS, watermarks=watermarks)
    assert evaluated(numpys, [line], NULL_INT64 + 1) == looped
