"""Rows and blocks in any mixture answer as the twin over the raw events.

Each key of a batch has a row of its own as_of, or none, and blocks that were merged of its events in any
order; what lies in both must count once. The rows are made of tiles, as `fastserve compact` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from fastserve.api.encode import FeaturesEncoder
from fastserve.plan.service import ServicePlan, plan_workspace
from fastserve.serving.heads import Watermarks
from fastserve.serving.transport import BASE64_ROWS, RAW_ROWS, RowTransport
from fastserve.serving.vectors import VectorEvaluator
from fastserve.tiles import blocks, compact
from fastserve.tiles.blocks import Block, BlockSchema
from fastserve.tiles.layout import NO_ROW, NULL_INT64
from tests.differential import drawn
from tests.differential.definitions import COLUMNS, Definition, define, push_source, repo_of
from tests.differential.readable import value_of
from tests.differential.twin import (
    DAY_NS,
    HOUR_NS,
    MINUTE_NS,
    Lifetime,
    RawEvent,
    Rules,
    Series,
    Span,
    Wanted,
    agrees,
    answer,
)
from tests.support.examples import examples
from tests.support.loops import no_loops

HORIZONS_NS = (HOUR_NS, 7 * HOUR_NS, DAY_NS, 2 * DAY_NS)


@dataclass(frozen=True)
class Line:
    """One key of a batch: its row's as_of (None: no row), what is in it, and what its blocks hold.

    ``is_told`` is whether the store says that it should have a row.
    """

    as_of_ns: int | None
    in_row: Sequence[RawEvent]
    pushed: Sequence[Sequence[RawEvent]]
    is_told: bool = False

    def streamed(self, interval_ns: int) -> list[RawEvent]:
        """Return the pushed events that are to count on the row."""
        pushed = [event for part in self.pushed for event in part]
        if self.is_told:
            return []
        return [e for e in pushed if self.as_of_ns is None or floor(e.time_ns, interval_ns) >= self.as_of_ns]


def floor(time_ns: int, step_ns: int) -> int:
    return time_ns // step_ns * step_ns


def blocks_of(schema: BlockSchema, parts: Sequence[Sequence[RawEvent]]) -> dict[int, Block]:
    """Return the blocks, by number, after each part of the events has been pushed by itself."""
    found: dict[int, Block] = {}
    for events in parts:
        columns = {name: [event.values[name] for event in events] for name in COLUMNS}
        made = blocks.from_events(schema, ["k"] * len(events), [e.time_ns for e in events], columns)
        for (_, number), block in made.items():
            found[number] = blocks.merge(schema, found[number], block) if number in found else block
    return found


def row_of(plan: ServicePlan, schema: BlockSchema, events: Sequence[RawEvent], as_of_ns: int) -> bytes:
    view = plan.places[0].view
    assert view.schema is not None
    tiles = compact.gather(schema, [list(blocks_of(schema, [events]).values())])
    return compact.encode(view.schema, compact.compact(view.schema, schema, tiles, as_of_ns), as_of_ns, [0])[
        0
    ]


def items_of(plan: ServicePlan, line: Line, now_ns: int, transport: RowTransport) -> list[Any]:
    """Return what reads of the line's key bring."""
    (stream,) = plan.streams
    schema = stream.blocks
    row = NO_ROW if line.is_told else None
    if line.as_of_ns is not None:
        row = row_of(plan, schema, line.in_row, line.as_of_ns)
    found = blocks_of(schema, line.pushed)
    current = now_ns // schema.block_ns
    read = [found.get(current - 1), found.get(current)]
    values = [row, *(None if block is None else blocks.encode(schema, block) for block in read)]
    return [None if value is None else transport.wrap(value) for value in values]


def plan_of(definition: Definition) -> ServicePlan:
    return plan_workspace(repo_of(Path(), definition)).services[definition.view.name]


def check(
    definition: Definition, lines: Sequence[Line], now_ns: int, watermark_ns: int, transport: RowTransport
) -> None:
    """Hold every line of a batch against the twin, and what NumPy makes of it against the loops in C."""
    plan = plan_of(definition)
    watermarks = Watermarks({definition.view.name: watermark_ns})
    items = [items_of(plan, line, now_ns, transport) for line in lines]
    columns = VectorEvaluator(plan, transport, watermarks=watermarks).evaluate(items, now_ns)
    with no_loops():
        evaluator = VectorEvaluator(plan, transport, watermarks=watermarks)
    by_numpy = [evaluator.evaluate(items, now_ns) for _ in range(6)][-1]  # at the last an epoch may serve
    assert by_numpy.effective_ns.tolist() == columns.effective_ns.tolist()
    interval_ns = definition.rules.interval_ns
    for number, line in enumerate(lines):
        text = FeaturesEncoder(plan).encode(columns, number)
        assert FeaturesEncoder(plan).encode(by_numpy, number) == text
        values: list[Any] = orjson.loads(text)
        streamed = line.streamed(interval_ns)
        effective_ns = columns.effective_ns[number, 0]
        assert effective_ns == expected_effective_ns(line, streamed, interval_ns, now_ns)
        for output, value in zip(plan.inputs, values, strict=True):
            wanted, got = definition.asked[output.feature], value_of(output.dtype, value)
            if effective_ns == NULL_INT64:
                assert got is None
            else:
                want = answer([*line.in_row, *streamed], definition.rules, wanted, now_ns)
                assert agrees(want, got), (wanted, line, now_ns, want, got)


def expected_effective_ns(line: Line, streamed: Sequence[RawEvent], interval_ns: int, now_ns: int) -> int:
    """Return the newest of the row's as_of and the ends of the tiles that have begun."""
    starts = [floor(event.time_ns, interval_ns) for event in streamed]
    ends = [min(start + interval_ns, now_ns) for start in starts if start < now_ns]
    return max([NULL_INT64 if line.as_of_ns is None else line.as_of_ns, *ends])


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    rules = draw(drawn.rules())
    one = drawn.wanted(rules, may_have_secondary=False)
    asked = draw(st.lists(one, min_size=1, max_size=8))
    if draw(st.integers(0, 2)) == 0:
        asked = [drawn.with_secondary(each) for each in asked if not isinstance(each.period, Series)]
        asked = asked or [Wanted("count", "units", Lifetime(), secondary="shop")]
    horizon_ns = max(draw(st.sampled_from(HORIZONS_NS)), rules.interval_ns)
    return define("view", push_source("pushed", None), rules, asked, horizon_ns)


@st.composite
def lines(draw: st.DrawFn, definition: Definition, now_ns: int, watermark_ns: int) -> Line:
    interval_ns, horizon_ns = definition.rules.interval_ns, definition.horizon_ns
    oldest = -(-(now_ns - horizon_ns) // interval_ns)
    newest = now_ns // interval_ns
    as_of_ns = None
    if oldest <= newest and draw(st.integers(0, 3)):
        as_of_ns = draw(st.integers(oldest, newest)) * interval_ns
    moments = [now_ns] if as_of_ns is None else [now_ns, as_of_ns]
    edges = drawn.edges_ns(definition.rules, list(definition.asked.values()), moments)
    events = draw(drawn.events(sorted([*edges, *moments]), ("k",)))
    if as_of_ns is None:
        is_told = draw(st.booleans())
        pushed = [event for event in events if is_told or event.time_ns >= watermark_ns]
        return Line(None, (), _parts(draw, pushed), is_told)
    in_row = [event for event in events if event.time_ns < as_of_ns]
    before = [event for event in in_row if draw(st.booleans())]  # not all of a row came by the stream
    after = [event for event in events if event.time_ns >= as_of_ns]
    return Line(as_of_ns, in_row, _parts(draw, [*before, *after]))


def _parts(draw: st.DrawFn, events: Sequence[RawEvent]) -> list[list[RawEvent]]:
    shuffled = draw(st.permutations(events))
    cut = draw(st.integers(0, len(shuffled)))
    return [part for part in (list(shuffled[:cut]), list(shuffled[cut:])) if part]


@settings(deadline=None, max_examples=examples(40))
@given(st.data(), st.sampled_from([RAW_ROWS, BASE64_ROWS]))
def test_rows_and_blocks_answer_as_the_twin_over_the_raw_events(
    data: st.DataObject, transport: RowTransport
) -> None:
    definition = data.draw(definitions())
    now_ns = data.draw(drawn.request_times(definition.rules))
    watermark_ns = now_ns - data.draw(st.integers(0, definition.horizon_ns))
    batch = data.draw(st.lists(lines(definition, now_ns, watermark_ns), min_size=1, max_size=5))
    check(definition, batch, now_ns, watermark_ns, transport)


@settings(deadline=None, max_examples=examples(20))
@given(st.data())
def test_a_row_of_another_as_of_over_the_same_blocks_gives_the_same_answer(data: st.DataObject) -> None:
    definition = data.draw(definitions())
    interval_ns = definition.rules.interval_ns
    now_ns = data.draw(drawn.request_times(definition.rules))
    edges = drawn.edges_ns(definition.rules, list(definition.asked.values()), [now_ns])
    events = data.draw(drawn.events(sorted([*edges, now_ns]), ("k",)))
    oldest = -(-(now_ns - definition.horizon_ns) // interval_ns)
    as_ofs = [n * interval_ns for n in range(oldest, now_ns // interval_ns + 1)]
    chosen = data.draw(st.lists(st.sampled_from(as_ofs), max_size=4)) if as_ofs else []
    batch = [
        Line(as_of_ns, [event for event in events if event.time_ns < as_of_ns], [events])
        for as_of_ns in chosen
    ]
    if batch:
        check(definition, batch, now_ns, now_ns, RAW_ROWS)


def test_nothing_ahead_of_the_clock_counts_until_its_tile_begins() -> None:
    rules = Rules(MINUTE_NS)
    asked = [Wanted("count", "units", Span(HOUR_NS))]
    definition = define("view", push_source("pushed", None), rules, asked, HOUR_NS)
    now_ns = drawn.T0_NS + 30 * MINUTE_NS
    values: Mapping[str, Any] = {**dict.fromkeys(COLUMNS), "units": 1}
    times = [now_ns - 1, now_ns, now_ns + 1, now_ns + MINUTE_NS]
    line = Line(None, (), [[RawEvent("k", time_ns, values) for time_ns in times]])
    plan = plan_of(definition)
    evaluator = VectorEvaluator(plan, RAW_ROWS, watermarks=Watermarks({"view": now_ns}))

    def count(time_ns: int) -> Any:
        columns = evaluator.evaluate([items_of(plan, line, time_ns, RAW_ROWS)], time_ns)
        return orjson.loads(FeaturesEncoder(plan).encode(columns, 0))[0]

    assert [count(now_ns), count(now_ns + 1), count(now_ns + MINUTE_NS + 1)] == ["1", "3", "4"]
