"""Events into the blocks of a view, and the slow reader: what a request finds in a row and in blocks.

The writer is the plainest there can be (read, merge, replace, again if somebody was faster), so that what is
tested beside it doesn't depend on how the server batches its writes. The reader knows what
docs/architecture.md promises, and nothing of how it is served.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastserve.ingest.registry import Registry
from fastserve.plan.keys import block_key
from fastserve.plan.views import ViewPlan
from fastserve.store.interface import OnlineStore, VersionedRow
from fastserve.tiles.aggregates import Component, Op
from fastserve.tiles.blocks import Block, BlockShape, block_schema, decode, encode, from_events, merge
from fastserve.tiles.rows import effective_ns_of
from fastserve.tiles.windows import serves


@dataclass(frozen=True, slots=True)
class Pushed:
    """One event."""

    key: str
    time_ns: int
    amount: float


async def _shapes(store: OnlineStore, plan: ViewPlan) -> dict[int, BlockShape]:
    return (await Registry(store, "default").shapes([plan.name]))[plan.name]


async def push(store: OnlineStore, plan: ViewPlan, events: Sequence[Pushed], expires_s: int = 0) -> None:
    """Write events into their blocks."""
    assert plan.schema is not None
    assert plan.stream is not None
    schema = block_schema(plan.schema)
    older = await _shapes(store, plan)
    made = from_events(
        schema,
        [event.key for event in events],
        [event.time_ns for event in events],
        {"amount": [event.amount for event in events]},
    )
    for (key, number), block in made.items():
        place = block_key(key, number)
        (there,) = await store.get_versioned(plan.stream.table, [place])
        while True:
            version, merged = 1, block
            if there is not None:
                version, merged = there.version + 1, merge(schema, decode(schema, there.row, older), block)
            row = VersionedRow(version, encode(schema, merged), b"", expires_s)
            there = await store.replace_row(plan.stream.table, place, row)
            if there == row:
                break


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request finds; None is missing data. By window in ns: how many events, and their sum."""

    counts: dict[int, tuple[int, float]] | None


async def ask(
    store: OnlineStore, plan: ViewPlan, key: str, now_ns: int, *, torn: random.Random | None = None
) -> Answer:
    """Answer the count and the sum over every window of one key; ``torn`` reads in a random order."""
    assert plan.stream is not None
    assert plan.schema is not None
    number = plan.stream.block_of(now_ns)
    watermark = (await Registry(store, "default").watermarks([plan.name]))[plan.name]
    reads = [(plan.table, key), *((plan.stream.table, block_key(key, n)) for n in (number - 1, number))]
    found: dict[tuple[str, str], bytes | None] = {}
    for read in torn.sample(reads, len(reads)) if torn else reads:
        (found[read],) = await store.get_rows(read[0], [read[1]])
    row, *values = (found[read] for read in reads)
    schema = block_schema(plan.schema)
    older = await _shapes(store, plan)
    blocks = [decode(schema, value, older) for value in values if value is not None]
    if row is None:
        known = watermark is not None and now_ns <= watermark + plan.schema.horizon_ns
        return Answer(_counts(plan, None, 0, blocks, -(2**63), now_ns) if known else None)
    as_of_ns = effective_ns_of(row)
    if not serves(as_of_ns, plan.schema.horizon_ns, now_ns):
        return Answer(None)
    return Answer(_counts(plan, row, as_of_ns, blocks, as_of_ns, now_ns))


def _counts(
    plan: ViewPlan, row: bytes | None, as_of_ns: int, blocks: Sequence[Block], from_ns: int, now_ns: int
) -> dict[int, tuple[int, float]]:
    assert plan.schema is not None
    schema = block_schema(plan.schema)
    found: dict[int, dict[Op, float]] = {}
    for place, component in enumerate(plan.schema.components):
        total: float = 0 if row is None else _of_row(plan, component, row, as_of_ns, now_ns)
        start_ns, end_ns = component.window.start_ns(now_ns), component.window.end_ns(now_ns)
        for block in blocks:
            inside = (block.starts >= max(start_ns, from_ns)) & (block.starts < end_ns)
            words = block.words[inside, schema.component_words[place]]
            total += _numbers(component, words).sum()
        found.setdefault(component.window.window_ns, {})[component.op] = total
    return {window: (int(ops[Op.COUNT]), float(ops[Op.ADD_F]) + 0.0) for window, ops in found.items()}


def _of_row(plan: ViewPlan, component: Component, row: bytes, as_of_ns: int, now_ns: int) -> float:
    words = np.frombuffer(row, "<i8", plan.layout.fixed_words)
    live = [component.word + slot for slot in component.window.live_slots(as_of_ns, now_ns)]
    return float(_numbers(component, words[live]).sum())


def _numbers(component: Component, words: Any) -> Any:
    words = np.ascontiguousarray(words)
    return words.view("<f8") if component.op.is_float else words


def expected(plan: ViewPlan, events: Sequence[Pushed], key: str, now_ns: int) -> Answer:
    """Answer from the events themselves."""
    assert plan.schema is not None
    counts = {}
    for component in plan.schema.components:
        start_ns, end_ns = component.window.start_ns(now_ns), component.window.end_ns(now_ns)
        own = [each.amount for each in events if each.key == key and start_ns <= each.time_ns < end_ns]
        counts[component.window.window_ns] = (len(own), float(sum(own)))
    return Answer(counts)
