"""What stream tiles add to the aggregates of a vector: CPU for 1,000 features, rows alone and tiles on top.

Run as `python -m perf.micro.heads`. A service of 10 views, and one of 50, with 100 aggregates each: sum,
count, mean, min and max of 5 columns over 1 hour and 1, 7 and 28 days. Rows are three hours old. Each key has
so many tiles in its blocks, spread over these hours. Figures hold for the whole evaluation: rows and blocks
as a store hands them over to columns of values, by the loops in C where they are compiled, else by NumPy.
Limits: 60 us with rows alone, 90 us with tiles on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from fastserve import (
    Aggregate,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    Float64,
    PushSource,
    String,
    Timestamp,
)
from fastserve.plan.service import Place, ServicePlan, plan_workspace
from fastserve.sdk.repo import Repo
from fastserve.server.memory import keep_freed_memory
from fastserve.serving.heads import Watermarks
from fastserve.serving.transport import BASE64_ROWS, RAW_ROWS, RowTransport
from fastserve.serving.vectors import VectorEvaluator
from fastserve.tiles.blocks import BlockSchema, encode, from_events
from fastserve.tiles.rows import RowBuilder
from fastserve.tiles.windows import DAY_NS, HOUR_NS, MINUTE_NS
from perf.micro.timing import least_us

VIEWS = (10, 50)
COLUMNS = 5
FUNCTIONS = ("sum", "count", "mean", "min", "max")
WINDOWS = (timedelta(hours=1), timedelta(days=1), timedelta(days=7), timedelta(days=28))
INTERVAL_NS = 5 * MINUTE_NS
NOW_NS = 20_001 * DAY_NS + 10 * HOUR_NS + 7 * MINUTE_NS
AS_OF_NS = NOW_NS // HOUR_NS * HOUR_NS - 3 * HOUR_NS
LINES = {10: (1, 3, 8, 32), 50: (1, 4)}
"""By the number of views."""
TILES = (1, 4, 12, 36)
USER = Entity("user", join_keys=Field("user_id", String))
NAMES = [f"c{number}" for number in range(COLUMNS)]


def make_plan(views_count: int, *, streamed: bool) -> ServicePlan:
    """Return the plan of the service; without a stream its views are of files."""
    fields = [Field("user_id", String), Field("at", Timestamp), *(Field(name, Float64) for name in NAMES)]
    history = FileSource("history", path="events.parquet", timestamp_field="at")
    source = PushSource("pushed", fields, timestamp_field="at") if streamed else history
    views = {
        f"v{number}": FeatureView(
            f"v{number}",
            entities=[USER],
            source=source,
            features=[
                Aggregate(Field(name, Float64), function, window)
                for name in NAMES
                for function in FUNCTIONS
                for window in WINDOWS
            ],
            aggregation_interval=timedelta(minutes=5),
        )
        for number in range(views_count)
    }
    service = FeatureService("s", features=list(views.values()))
    repo = Repo(Path(), "w", {}, {}, dict(views), {"s": service}, on_demand_views={})
    return plan_workspace(repo).services["s"]


def row_of(place: Place, chance: np.random.Generator) -> bytes:
    """Return a row of random numbers in every slot."""
    builder = RowBuilder(place.view.layout, 1)
    builder.set_effective_ns(AS_OF_NS)
    for component in place.view.schema.components if place.view.schema else ():
        numbers = chance.integers(1, 1000, (1, component.words))
        builder.set_words(component.word, numbers.astype(np.float64) if component.op.is_float else numbers)
    return builder.build()[0]


def block_of(schema: BlockSchema, tiles: int, chance: np.random.Generator) -> bytes:
    """Return a block with so many tiles, one event in each."""
    since = (NOW_NS - AS_OF_NS) // INTERVAL_NS
    times = (AS_OF_NS + np.linspace(0, since, tiles + 1)[1:].astype(int) * INTERVAL_NS).tolist()
    columns = {name: chance.random(tiles).tolist() for name in NAMES}
    (block,) = from_events(schema, ["k"] * tiles, times, columns).values()
    return encode(schema, block)


def items_of(
    plan: ServicePlan, tiles: int, transport: RowTransport, chance: np.random.Generator
) -> list[Any]:
    """Return the items of one line: rows, then blocks, the current one alone or none."""
    items: list[Any] = [transport.wrap(row_of(place, chance)) for place in plan.places]
    items += [None] * (2 * len(plan.streams))
    for stream in plan.streams if tiles else ():
        items[stream.items[1]] = transport.wrap(block_of(stream.blocks, tiles, chance))
    return items


def figure(plan: ServicePlan, tiles: int, lines: int, transport: RowTransport) -> float:
    """Return the CPU microseconds for 1,000 features of one line among so many."""
    chance = np.random.default_rng(1)
    evaluator = VectorEvaluator(plan, transport, watermarks=Watermarks())
    batch = [items_of(plan, tiles, transport, chance) for _ in range(lines)]
    for _ in range(8):  # until the epoch serves
        evaluator.evaluate(batch, NOW_NS)
    return least_us(lambda: evaluator.evaluate(batch, NOW_NS)) / lines / len(plan.inputs) * 1000


def print_line(name: str, figures: Sequence[float]) -> None:
    """Print one row of the table."""
    print(f"{name:44}" + "".join(f"{value:10.1f}" for value in figures))


def main() -> None:
    """Print the figures."""
    keep_freed_memory()  # as every worker does
    for views_count in VIEWS:
        print_table(views_count, LINES[views_count])


def print_table(views_count: int, together: Sequence[int]) -> None:
    """Print the figures of one service."""
    files, stream = make_plan(views_count, streamed=False), make_plan(views_count, streamed=True)
    print(f"us of CPU for 1,000 of {len(files.inputs):,} aggregates; lines evaluated together:")
    print_line("", together)
    for name, transport in (("as text (DynamoDB)", BASE64_ROWS), ("as bytes (local)", RAW_ROWS)):
        print(name)
        print_line("  rows alone", [figure(files, 0, n, transport) for n in together])
        print_line("  streamed views, no block there", [figure(stream, 0, n, transport) for n in together])
        for tiles in TILES:
            many = "1 tile" if tiles == 1 else f"{tiles} tiles"
            print_line(f"  {many} a key on top", [figure(stream, tiles, n, transport) for n in together])


if __name__ == "__main__":
    main()
