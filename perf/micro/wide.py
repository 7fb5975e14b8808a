"""What wide aggregates cost: their bytes, and the CPU of tiling, merging and answering one feature.

Run as `python -m perf.micro.wide`. A window of 28 days of an entity with 10 events an hour, in a core and 48
tails of an hour each: what a request costs is `answer`, over all 49 slots, JSON and all. The last lines are
whole evaluations, of a service with one view of 20 such features and rows from one batch job.
"""

from __future__ import annotations

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
    Int64,
    String,
)
from fastserve.plan.service import plan_workspace
from fastserve.sdk.functions import AggregateFunction
from fastserve.sdk.repo import Repo
from fastserve.sdk.types import DataType
from fastserve.serving.transport import BASE64_ROWS
from fastserve.serving.vectors import VectorEvaluator
from fastserve.tiles.wide import wide_function
from fastserve.tiles.wide_write import WideEvents, WideTiler
from fastserve.tiles.windows import DAY_NS, HOUR_NS
from fastserve.tiles.write import encode_words, neutral_words
from perf.micro.timing import least_us

TAILS = 48
PER_HOUR = 10
CORE_HOURS = 26 * 24
FEATURES = 20
AS_OF_NS = 20_000 * DAY_NS

Case = tuple[str, dict[str, Any], DataType]
CASES: tuple[Case, ...] = (
    ("last", {}, String),
    ("max", {}, String),
    ("last", {"n": 3}, Int64),
    ("last", {"n": 100}, Float64),
    ("last", {"n": 1000}, Float64),
    ("last", {"n": 10}, String),
    ("last_distinct", {"n": 10}, String),
    ("first_distinct", {"n": 10}, Int64),
    ("approx_count_distinct", {"precision": 8}, String),
    ("approx_count_distinct", {"precision": 12}, String),
    ("approx_percentile", {"percentile": 0.5, "precision": 100}, Float64),
    ("approx_percentile", {"percentile": 0.5, "precision": 500}, Float64),
)
KEYED: tuple[Case, ...] = (
    ("count", {}, Int64),
    ("sum", {}, Float64),
    ("last", {}, String),
    ("secondary_keys", {}, Int64),
)
KEYS = 20


def values_of(dtype: DataType, count: int, chance: np.random.Generator) -> list[Any]:
    numbers = chance.integers(0, 5_000, count).tolist()
    if dtype == String:
        return [f"value-{number}" for number in numbers]
    return list(map(float, numbers)) if dtype == Float64 else numbers


def slots_of(
    dtype: DataType, chance: np.random.Generator, *, keyed: bool
) -> list[tuple[list[int], list[Any]]]:
    slots = []
    for number in range(TAILS + 1):
        count = PER_HOUR * (CORE_HOURS if number == TAILS else 1)
        first = (
            AS_OF_NS - CORE_HOURS * HOUR_NS if number == TAILS else AS_OF_NS - 28 * DAY_NS + number * HOUR_NS
        )
        times = (first + np.arange(count) * (HOUR_NS // PER_HOUR)).tolist()
        values = values_of(dtype, count, chance)
        keys = chance.integers(0, KEYS, count).tolist()
        slots.append((times, list(zip(keys, values, strict=True)) if keyed else values))
    return slots


def show_case(case: Case, *, keyed: bool) -> None:
    name, params, dtype = case
    function = wide_function(name, params, dtype, Int64 if keyed else None)
    slots = slots_of(dtype, np.random.default_rng(1), keyed=keyed)
    irs = [function.tile(*slot) for slot in slots]
    events = sum(len(times) for times, _ in slots)
    tiling_us = least_us(lambda: [function.tile(*slot) for slot in slots]) / events
    label = f"{name}({', '.join(f'{key}={value:g}' for key, value in params.items())}) of {dtype}"
    label += f" by {KEYS} keys" if keyed else ""
    print(
        f"{label:58} {tiling_us * 1000:8.0f} {len(irs[0]):8,} {len(irs[-1]):8,} {sum(map(len, irs)):9,}"
        f" {least_us(lambda: function.answer(irs)):9.1f} {least_us(lambda: function.answer(irs[-1:])):9.1f}"
    )


def show_service(function: AggregateFunction | str, dtype: DataType, window_days: int) -> None:
    """Print what a line of a batch of one takes, per feature."""
    features = [
        Aggregate(Field(f"c{number}", dtype), function, timedelta(days=window_days))
        for number in range(FEATURES)
    ]
    view = FeatureView(
        "v",
        [Entity("user", join_keys=Field("user_id", String))],
        FileSource("events", path="events.csv", timestamp_field="at"),
        features,
        aggregation_interval=timedelta(hours=1),
    )
    service = FeatureService("s", features=[view])
    plan = plan_workspace(Repo(Path(), "w", {}, {}, {"v": view}, {"s": service}, {})).services["s"]
    schema = plan.places[0].view.schema
    if schema is None:
        raise SystemExit("expected a view of aggregates")
    chance = np.random.default_rng(1)
    count = window_days * 24 * PER_HOUR
    columns = {f"c{number}": values_of(dtype, count, chance) for number in range(FEATURES)}
    times = AS_OF_NS - window_days * DAY_NS + np.arange(count) * (HOUR_NS // PER_HOUR)
    tiles = WideTiler(schema).tile(WideEvents(np.array([0, count], np.intp), times, columns), AS_OF_NS)
    row = encode_words(schema, neutral_words(schema, 1), AS_OF_NS, tiles)[0]
    wrapped = BASE64_ROWS.wrap(row)
    evaluator = VectorEvaluator(plan, BASE64_ROWS)
    took_us = least_us(lambda: evaluator.evaluate([[wrapped]], AS_OF_NS + HOUR_NS)) / FEATURES
    label = function if isinstance(function, str) else function.label
    print(
        f"a service: {label} of {dtype} over {window_days}d, row of {len(row):,} bytes".ljust(76),
        f"{took_us:8.1f} us a feature",
    )


def main() -> None:
    """Print the figures."""
    print(f"{'':58} {'tile':>8} {'a tail':>8} {'the core':>8} {'all':>9} {'49 slots':>9} {'1 slot':>9}")
    print(f"{'':58} {'ns/event':>8} {'bytes':>8} {'bytes':>8} {'bytes':>9} {'us':>9} {'us':>9}")
    for case in CASES:
        show_case(case, keyed=False)
    for case in KEYED:
        show_case(case, keyed=True)
    for function, dtype in (
        ("max", String),
        (AggregateFunction("last", (("n", 3),)), Int64),
        (AggregateFunction("last_distinct", (("n", 10),)), String),
        (AggregateFunction("approx_count_distinct", (("precision", 8),)), String),
        (AggregateFunction("approx_percentile", (("percentile", 0.5), ("precision", 100))), Float64),
    ):
        show_service(function, dtype, 1)
        show_service(function, dtype, 28)


if __name__ == "__main__":
    main()
