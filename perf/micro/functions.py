"""What merging and finalizing takes, function by function: the numbers of `tiles.merge`, bytes are `wide`'s.

Run as `python -m perf.micro.functions`. Rows of one view with 100 columns, as many as of 16 requests; figures
are CPU nanoseconds per feature (as many as microseconds per 1,000 of them), all rows of one ``as_of`` (fast)
and of any (masked).
"""

from __future__ import annotations

import numpy as np

from fastserve.sdk.types import DataType, Float64, Int64
from fastserve.tiles.aggregates import AggregateSpec, make_schema
from fastserve.tiles.merge import CONSTANT_BITS, MergePlan
from fastserve.tiles.windows import DAY_NS, HOUR_NS, LIFETIME_NS, Window, default_hop_ns
from fastserve.tiles.write import EventColumn, Events, encode_words, tile_events
from perf.micro.timing import show

T0 = 1_388_404_800 * 10**9
REQUESTS = 16
COLUMNS = 100
EVENTS = 40
HORIZON_NS = 2 * DAY_NS


def window(days: int, offset_days: int = 0) -> Window:
    """Return a window as a view with tiles of an hour has it."""
    window_ns = days * DAY_NS
    return Window(window_ns, default_hop_ns(window_ns, HOUR_NS), HOUR_NS, HORIZON_NS, offset_days * DAY_NS)


WINDOWS = {
    "28d": window(28),
    "356d": window(356),
    "28d, offset 1d": window(28, -1),
    "lifetime": Window(LIFETIME_NS, HOUR_NS, HOUR_NS, HORIZON_NS),
    "1d": window(1),
}
FUNCTIONS: list[tuple[str, DataType]] = [
    ("count", Float64),
    ("sum", Float64),
    ("sum", Int64),
    ("mean", Float64),
    ("min", Float64),
    ("var_pop", Float64),
    ("stddev_samp", Float64),
    ("last", Float64),
    ("first", Int64),
]


def measure(function: str, dtype: DataType, name: str) -> None:
    """Print the figures of one function over one window."""
    over = WINDOWS[name]
    columns = [f"c{number}" for number in range(COLUMNS)]
    schema = make_schema([AggregateSpec(c, function, c, dtype, dtype, over) for c in columns], HORIZON_NS)
    rng = np.random.default_rng(1)
    times = np.sort(rng.integers(T0 - 30 * DAY_NS, T0, EVENTS))
    values = {c: EventColumn((rng.random(EVENTS) * 1000).astype(str(dtype))) for c in columns}
    words = tile_events(schema, Events(np.array([0, EVENTS], np.intp), times, values), T0)
    row = np.frombuffer(encode_words(schema, words, T0)[0], "<i8")
    matrix = np.tile(np.concatenate([row, np.array(CONSTANT_BITS, np.int64)]), (REQUESTS, 1))
    plan = MergePlan([(0, 0, schema, schema.features)], len(row))
    as_of = np.full((REQUESTS, 1), T0)
    epoch = plan.epoch(as_of[0], T0 + 5)
    features = REQUESTS * COLUMNS
    label = f"{function} of {dtype} over {name}"
    show(f"{label}, fast", lambda: plan.fast(matrix, epoch), features, "ns a feature")
    show(f"{label}, masked", lambda: plan.masked(matrix, as_of, T0 + 5), features, "ns a feature")


def main() -> None:
    """Print the figures."""
    for name in WINDOWS:
        for function, dtype in FUNCTIONS:
            measure(function, dtype, name)


if __name__ == "__main__":
    main()
