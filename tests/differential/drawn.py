"""Hypothesis strategies for events, aggregates and request times: many ties, edges and odd values.

What is drawn says nothing of tiles; times are drawn from the edges of the windows that are asked for, a
nanosecond around them, and anywhere.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from tests.differential.twin import (
    DAY_NS,
    HOUR_NS,
    MINUTE_NS,
    Lifetime,
    Period,
    RawEvent,
    Rules,
    Series,
    Span,
    Wanted,
    bounds_ns,
)

T0_NS = 1_767_225_600 * 10**9  # 2026-01-01T00:00:00Z
SECONDARY = st.sampled_from(["shop", "shelf"])
NUMERIC = ("count", "sum", "mean", "min", "max", "var_pop", "var_samp", "stddev_pop", "stddev_samp")
ORDERED = ("last", "first")
LISTED = ("last", "first", "last_distinct", "first_distinct")
FUNCTIONS_OF: dict[str, tuple[str, ...]] = {
    "amount": NUMERIC,
    "units": NUMERIC,
    "score": NUMERIC,
    "kind": ("count", "min", "max"),
    "flag": ("count",),
    "seen": ("count", "min", "max"),
}
"""The functions without parameters by the column they may have; `last` and `first` take every column."""
SHOPS = ("", "a", "b", "é", "𝄞", "￮")
"""Secondary keys of text, among them two whose order differs between UTF-16 and code points."""


def floats() -> st.SearchStrategy[float]:
    """Floats whose sums are exact in any order, tenths, the infinities and NaN."""
    exact = st.integers(-(2**20), 2**20).map(lambda number: number / 8)
    tenths = st.integers(-1000, 1000).map(lambda number: number / 10)
    return st.one_of(
        exact, tenths, st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1e100, -1e-100])
    )


def int64s() -> st.SearchStrategy[int]:
    """Integers from -2^63 + 1: what is below stands for null in rows and is refused as input."""
    extremes = st.sampled_from([2**63 - 1, -(2**63) + 1, 2**62, -(2**62), 2**53 + 1])
    return st.one_of(st.integers(-9, 9), st.integers(-(2**40), 2**40), extremes)


def singles() -> st.SearchStrategy[float]:
    """Floats that float32 has, most of them not short in decimal digits."""
    tenths = st.integers(-1000, 1000).map(lambda number: single(number / 10))
    return tenths | st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, single(1e20), single(1e-20)])


def single(number: float) -> float:
    """Return the float32 that is nearest."""
    return float(struct.unpack("<f", struct.pack("<f", number))[0])


def columns() -> st.SearchStrategy[dict[str, object]]:
    """The columns of one event, one in six of them null."""
    texts = st.sampled_from(["", "a", "b", "B", "é", 'a,b|\t"\\', "𝄞", "￮", "x" * 300])
    of_column: dict[str, st.SearchStrategy[object]] = {
        "amount": floats(),
        "units": int64s(),
        "kind": texts,
        "flag": st.booleans(),
        "seen": st.integers(-3, 3).map(lambda n: T0_NS + n) | st.integers(0, 2**62),
        "score": singles(),
        "shop": st.sampled_from(SHOPS),
        "shelf": st.sampled_from([-(2**63) + 1, -10, -9, 0, 9, 10, 2**63 - 1]),
    }
    return st.fixed_dictionaries({name: one_in_six_null(values) for name, values in of_column.items()})


def one_in_six_null(values: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Return the same with nulls among them."""
    return st.integers(0, 5).flatmap(lambda number: values if number else st.none())


def periods(interval_ns: int, longest: int = 60) -> st.SearchStrategy[Period]:
    """Periods of whole tiles."""
    tiles = st.integers(1, longest).map(lambda n: n * interval_ns)
    offsets = st.integers(0, longest // 2).map(lambda n: -n * interval_ns)
    series = st.builds(
        lambda size, step, more, end: Series(end - size - step * more, end, size, step),
        st.integers(1, 12).map(lambda n: n * interval_ns),
        st.integers(1, 12).map(lambda n: n * interval_ns),
        st.integers(0, 4),
        st.integers(-5, 0).map(lambda n: n * interval_ns),
    )
    return st.one_of(
        st.builds(Span, tiles, st.just(0)), st.builds(Span, tiles, offsets), series, st.just(Lifetime())
    )


@st.composite
def wanted(draw: st.DrawFn, rules: Rules, *, may_have_secondary: bool = True, longest: int = 60) -> Wanted:
    """Any function over any period."""
    period = draw(periods(rules.interval_ns, longest))
    hop_ns = None
    # Series and lifetimes take the hop that their length asks for.
    if isinstance(period, Span) and draw(st.booleans()):
        hop_ns = min(draw(st.sampled_from([1, 2, 3])) * rules.interval_ns, period.size_ns)
    secondary = draw(SECONDARY) if may_have_secondary and draw(st.integers(0, 3)) == 0 else None
    column, function, params = draw(functions())
    return Wanted(function, column, period, params, hop_ns, secondary)


@st.composite
def functions(draw: st.DrawFn) -> tuple[str, str, dict[str, float]]:
    """A column, a function that takes it, and the function's parameters."""
    column = draw(st.sampled_from(sorted(FUNCTIONS_OF)))
    family = draw(st.sampled_from(["plain", "ordered", "listed", "distinct", "percentile"]))
    if family == "percentile":
        column = draw(st.sampled_from(["amount", "units", "score"]))
        percentile = draw(st.sampled_from([0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 1.0]))
        return (
            column,
            "approx_percentile",
            {"percentile": percentile, "precision": draw(st.sampled_from([20, 100, 500]))},
        )
    if family == "distinct":
        column = draw(st.sampled_from(["amount", "units", "kind", "score", "seen"]))
        return column, "approx_count_distinct", {"precision": draw(st.sampled_from([4, 8, 12, 16]))}
    if family == "listed":
        count = draw(st.sampled_from([1, 2, 3, 10, 1000]))
        return column, draw(st.sampled_from(LISTED)), {"n": count}
    if family == "ordered":
        return column, draw(st.sampled_from(ORDERED)), {}
    return column, draw(st.sampled_from(FUNCTIONS_OF[column])), {}


def with_secondary(wanted: Wanted) -> Wanted:
    """Return the same by secondary key."""
    return replace(wanted, secondary="shop")


def by_secondary_key(asked: Sequence[Wanted], name: str) -> list[Wanted]:
    """Return the same by secondary key: no series, and one hop for each window, as definitions have it."""
    hops: dict[Period, int | None] = {}
    plain = [each for each in asked if not isinstance(each.period, Series)]
    keyed = [
        replace(each, secondary=name, hop_ns=hops.setdefault(each.period, each.hop_ns)) for each in plain
    ]
    return keyed or [Wanted("count", "units", Lifetime(), secondary=name)]


def rules() -> st.SearchStrategy[Rules]:
    """Intervals that hops are multiples of, and some that they aren't."""
    intervals = st.sampled_from([MINUTE_NS, 5 * MINUTE_NS, 7 * MINUTE_NS, HOUR_NS, DAY_NS])
    return st.builds(Rules, intervals, st.booleans())


def request_times(rules: Rules) -> st.SearchStrategy[int]:
    """Times at the edges of tiles, a nanosecond off, and anywhere within two days."""
    edges = st.integers(0, 2 * DAY_NS // rules.interval_ns).map(lambda n: n * rules.interval_ns)
    return st.one_of(
        st.builds(lambda edge, off: T0_NS + edge + off, edges, st.integers(-1, 1)),
        st.integers(T0_NS, T0_NS + 2 * DAY_NS),
    )


def edges_ns(rules: Rules, asked: Sequence[Wanted], times_ns: Sequence[int]) -> list[int]:
    """Return where the windows of these aggregates begin and end, asked at these times."""
    found = set()
    for aggregate in asked:
        period = aggregate.period
        for span in period.spans() if isinstance(period, Series) else [period]:
            for time_ns in times_ns:
                found |= {
                    edge for edge in bounds_ns(rules, span, aggregate.hop_ns, time_ns) if edge is not None
                }
    return sorted(found)


def event_times(edges: Sequence[int]) -> st.SearchStrategy[int]:
    """Times at edges, a nanosecond off them, between them, and far before all."""
    first, last = edges[0], edges[-1]
    return st.one_of(
        st.builds(lambda edge, off: edge + off, st.sampled_from(edges), st.integers(-1, 1)),
        st.integers(first - HOUR_NS, last + MINUTE_NS),
        st.just(first - 400 * DAY_NS),
    )


def events(
    edges: Sequence[int], keys: Sequence[str] = ("a",), max_size: int = 14
) -> st.SearchStrategy[list[RawEvent]]:
    """Events of some keys around these edges, with ties."""
    one = st.builds(RawEvent, st.sampled_from(keys), event_times(edges), columns())
    return st.lists(one, max_size=max_size)
