"""The twin for many questions held against the plain one."""

from __future__ import annotations

import math
import random

import numpy as np

from tests.differential.prefix_twin import SPREADS, SortedColumn
from tests.differential.twin import RawEvent, Span, Wanted, agrees, over_window

FUNCTIONS = ("count", "sum", "mean", "min", "max", "last", "first", *SPREADS)


def test_it_answers_as_the_plain_twin() -> None:
    chance = random.Random(1)
    base_s = 1_000_000
    events = [
        RawEvent(
            chance.randrange(3), (base_s + chance.randrange(60)) * 10**9, {"x": chance.randrange(-9, 99)}
        )
        for _ in range(200)
    ]
    column = SortedColumn(
        np.array([event.key for event in events]),
        np.array([event.time_ns for event in events]),
        np.array([event.values["x"] for event in events]),
    )
    asked = [
        (
            chance.randrange(3),
            *sorted((base_s - 5 + chance.randrange(70)) * 10**9 + off for off in (0, chance.randrange(2))),
        )
        for _ in range(100)
    ]
    asked += [(key, start - chance.randrange(40) * 10**9, end) for key, start, end in asked]
    keys, starts, ends = (np.array(part) for part in zip(*asked, strict=True))
    first, end = column.slices(keys, starts, ends)
    for function in FUNCTIONS:
        found = column.answers(function, first, end)
        for number, (key, start_ns, end_ns) in enumerate(asked):
            inside = [e for e in events if e.key == key and start_ns <= e.time_ns < end_ns]
            want = over_window(inside, Wanted(function, "x", Span(1)))
            got = None if math.isnan(found[number]) else float(found[number])
            assert agrees(want, got), (function, inside, want, got)
