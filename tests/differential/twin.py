"""The slow, obvious twin of every aggregate function and window: loops over raw events.

It knows no tiles, rows, blocks or sketches and imports nothing of fastserve: only what the documentation says
of windows and functions. Asked at t, a window of size w

    covers [floor(t - w, hop), t)                                 with the open tile as a whole, see below
    with an offset o < 0: [floor(t + o - w, hop), floor(t + o, hop))
    with the leading edge at the last complete tile: hop is the interval unless one is named, and the window
        ends at floor(t, interval)
    over a lifetime: everything before t

Invariants
1. Times are nanoseconds since the epoch, intervals half-open. A value is None, int, float, bool or str.
2. A window that reaches up to t holds the tile that t lies in as a whole: an event stamped a little after t
   (hosts' clocks differ) counts when its tile has begun.
3. An answer is a function of the multiset of events: no order of arrival is known here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

MINUTE_NS = 60 * 10**9
HOUR_NS = 60 * MINUTE_NS
DAY_NS = 24 * HOUR_NS
INT64_END = 2**63
EPSILON = 2.0**-52


@dataclass(frozen=True, slots=True)
class Span:
    """As `TimeWindow`: the last ``size_ns``, or those that ended ``-offset_ns`` ago."""

    size_ns: int
    offset_ns: int = 0


@dataclass(frozen=True, slots=True)
class Lifetime:
    """As `LifetimeWindow`: everything up to now."""


@dataclass(frozen=True, slots=True)
class Series:
    """As `TimeWindowSeries`: windows side by side or overlapping, relative to the request."""

    start_ns: int
    end_ns: int
    size_ns: int
    step_ns: int

    def spans(self) -> list[Span]:
        """Return the windows of the elements, oldest first."""
        ends = range(self.start_ns + self.size_ns, self.end_ns + 1, self.step_ns)
        return [Span(self.size_ns, end_ns) for end_ns in ends]


Period = Span | Lifetime | Series


@dataclass(frozen=True, slots=True)
class Rules:
    """What a view says of all its windows."""

    interval_ns: int
    last_complete_tile: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """One aggregate: a function of a column over a period, by secondary key or not."""

    function: str
    column: str
    period: Period
    params: Mapping[str, float] = field(default_factory=dict)
    hop_ns: int | None = None
    secondary: str | None = None


@dataclass(frozen=True, slots=True)
class RawEvent:
    """One event of one entity key: its time and its columns."""

    key: Any
    time_ns: int
    values: Mapping[str, Any]


# --- what an answer may be --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Near:
    """A float, up to rounding."""

    value: float
    tolerance: float


@dataclass(frozen=True, slots=True)
class Within:
    """Whatever lies between two values, both included: what a sketch may say."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class EitherOr:
    """A value, or null: the exact sum may be refused where a part of it leaves int64."""

    value: Any


def agrees(want: Any, got: Any) -> bool:
    """Tell whether an answer is one that may be given."""
    if isinstance(want, EitherOr):
        return got is None or agrees(want.value, got)
    if isinstance(want, list):
        if not isinstance(got, list) or len(got) != len(want):
            return False
        return all(agrees(one, other) for one, other in zip(want, got, strict=True))
    if isinstance(want, (Near, Within)):
        if not _is_number(got) or math.isnan(got):
            return False
        if isinstance(want, Within):
            return bool(want.low <= got <= want.high)
        return bool(got == want.value or abs(got - want.value) <= want.tolerance)
    if isinstance(want, float) and math.isnan(want):
        return isinstance(got, float) and math.isnan(got)
    if want is None or got is None:
        return want is got
    return isinstance(got, bool) == isinstance(want, bool) and bool(got == want)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# --- windows ----------------------------------------------------------------------------------------------


def hop_ns_of(rules: Rules, size_ns: int, tail_hop_ns: int | None) -> int:
    """Return the step of a window's far end."""
    if tail_hop_ns is not None:
        return tail_hop_ns
    if rules.last_complete_tile:
        return rules.interval_ns
    hop_ns = 5 * MINUTE_NS
    if size_ns >= 12 * HOUR_NS:
        hop_ns = HOUR_NS
    if size_ns >= 12 * DAY_NS:
        hop_ns = DAY_NS
    whole_tiles = -(-hop_ns // rules.interval_ns)
    return whole_tiles * rules.interval_ns


def bounds_ns(
    rules: Rules, period: Span | Lifetime, tail_hop_ns: int | None, time_ns: int
) -> tuple[int | None, int]:
    """Return where a window asked at ``time_ns`` begins (None: nowhere) and ends."""
    interval = rules.interval_ns
    now_ns = (
        time_ns // interval * interval if rules.last_complete_tile else -(-time_ns // interval) * interval
    )
    if isinstance(period, Lifetime):
        return None, now_ns
    hop = hop_ns_of(rules, period.size_ns, tail_hop_ns)
    start_ns = (time_ns + period.offset_ns - period.size_ns) // hop * hop
    if period.offset_ns < 0:
        return start_ns, (time_ns + period.offset_ns) // hop * hop
    return start_ns, now_ns


def inside(
    events: Iterable[RawEvent], rules: Rules, wanted: Wanted, period: Span | Lifetime, time_ns: int
) -> list[RawEvent]:
    """Return the events that a window asked at ``time_ns`` holds."""
    start_ns, end_ns = bounds_ns(rules, period, wanted.hop_ns, time_ns)
    return [e for e in events if e.time_ns < end_ns and (start_ns is None or e.time_ns >= start_ns)]


def answer(events: Iterable[RawEvent], rules: Rules, wanted: Wanted, time_ns: int) -> Any:
    """Return the aggregate over the events of one entity key; None is null, see `agrees` for the others."""
    events = list(events)
    if isinstance(wanted.period, Series):
        return [
            over_window(inside(events, rules, wanted, span, time_ns), wanted)
            for span in wanted.period.spans()
        ]
    return over_window(inside(events, rules, wanted, wanted.period, time_ns), wanted)


def over_window(events: Sequence[RawEvent], wanted: Wanted) -> Any:
    """Return the aggregate over a window's events."""
    if wanted.secondary is None:
        return over_values(_timed(events, wanted.column), wanted)
    keys = secondary_keys(events, wanted.secondary)
    if not keys:
        return None  # an empty window is null for every function
    parts = [[event for event in events if event.values[wanted.secondary] == key] for key in keys]
    if wanted.function == "secondary_keys":
        return keys
    return [over_values(_timed(part, wanted.column), wanted) for part in parts]


def secondary_keys(events: Iterable[RawEvent], name: str) -> list[Any]:
    """Return the secondary keys that a window's events have, ascending."""
    return sorted({event.values[name] for event in events if event.values[name] is not None})


def _timed(events: Sequence[RawEvent], column: str) -> list[tuple[int, Any]]:
    """Return the times and values that aren't null in their order: by time, then by value."""
    pairs = [(e.time_ns, e.values[column]) for e in events if e.values[column] is not None]
    return sorted(pairs, key=lambda pair: (pair[0], _order(pair[1])))


def _order(value: Any) -> tuple[bool, Any]:
    """Return what values are ordered by: NaN is above everything."""
    is_nan = isinstance(value, float) and math.isnan(value)
    return (is_nan, 0 if is_nan else value)


# --- functions --------------------------------------------------------------------------------------------

Timed = Sequence[tuple[int, Any]]


def over_values(timed: Timed, wanted: Wanted) -> Any:
    """Return the function over values that aren't null, in their order; None where there are none."""
    if not timed:
        return None
    values = [value for _, value in timed]
    function, params = wanted.function, wanted.params
    if function in ORDINARY:
        return ORDINARY[function](values)
    if function == "approx_count_distinct":
        return _approx_count_distinct(values, int(params.get("precision", 8)))
    if function == "approx_percentile":
        return _approx_percentile(values, params["percentile"], int(params.get("precision", 100)))
    count = int(params.get("n", 1))
    if function == "last":
        return values[-count:] if "n" in params else values[-1]
    if function == "first":
        return values[:count] if "n" in params else values[0]
    if function == "last_distinct":
        return _distinct(reversed(timed), count)[::-1]
    if function == "first_distinct":
        return _distinct(timed, count)
    raise AssertionError(function)


def _distinct(timed: Iterable[tuple[int, Any]], count: int) -> list[Any]:
    """Return the first ``count`` different values; NaN is one value."""
    found: list[Any] = []
    orders: list[tuple[bool, Any]] = []
    for _, value in timed:
        if _order(value) not in orders:
            orders.append(_order(value))
            found.append(value)
    return found[:count]


def _sum(values: list[Any]) -> Any:
    if not isinstance(values[0], float):
        total = sum(values)
        if sum(map(abs, values)) < INT64_END:
            return total
        return EitherOr(total) if -INT64_END < total < INT64_END else None
    return _near_sum(values, 1)


def _mean(values: list[Any]) -> Any:
    if not isinstance(values[0], float):
        total = sum(values)
        # Above 2^53 the sum is rounded once before it is divided, which rounds again.
        mean = Near(float(Fraction(total, len(values))), 4 * EPSILON * abs(total) / len(values))
        if sum(map(abs, values)) < INT64_END:
            return mean
        return EitherOr(mean) if -INT64_END < total < INT64_END else None
    return _near_sum(values, len(values))


def _near_sum(values: list[float], divisor: int) -> Any:
    """Return the sum of floats over an integer: IEEE 754's where some aren't finite, else the exact one."""
    if not all(map(math.isfinite, values)):
        return sum(values)  # NaN, or an infinity: the same in any order
    exact = float(sum(map(Fraction, values)) / divisor)
    return Near(exact, 1e-12 * abs(exact) + len(values) * EPSILON * max(map(abs, values)) / divisor)


def _moments(values: list[Any]) -> tuple[int, Fraction] | None:
    """Return how many, and the sum of squared distances from their mean; None where that is NaN."""
    if not all(map(math.isfinite, values)):
        return None
    exact = [Fraction(value) for value in values]
    mean = sum(exact, Fraction(0)) / len(exact)
    return len(exact), sum(((value - mean) ** 2 for value in exact), Fraction(0))


def _variance(values: list[Any], *, samp: bool, root: bool) -> Any:
    moments = _moments(values)
    divisor = len(values) - samp
    if divisor == 0:
        return None  # the sample variance of a single value, whatever it is
    if moments is None:
        return math.nan
    variance = float(moments[1] / divisor)
    deviation = math.sqrt(variance)
    # What a stable way may lose: some units in the last place of the values, as a distance from the mean.
    slip = 4 * len(values) * EPSILON * float(max(map(abs, values)))
    if root:
        return Near(deviation, 1e-12 * deviation + slip)
    return Near(variance, 1e-12 * variance + 2 * slip * deviation + slip * slip)


def _numbers(values: list[Any]) -> list[Any]:
    return [value for value in values if not (isinstance(value, float) and math.isnan(value))]


ORDINARY: dict[str, Callable[[list[Any]], Any]] = {
    "count": len,
    "sum": _sum,
    "mean": _mean,
    "min": lambda values: min(_numbers(values), default=None),
    "max": lambda values: max(_numbers(values), default=None),
    "var_pop": lambda values: _variance(values, samp=False, root=False),
    "var_samp": lambda values: _variance(values, samp=True, root=False),
    "stddev_pop": lambda values: _variance(values, samp=False, root=True),
    "stddev_samp": lambda values: _variance(values, samp=True, root=True),
}


# --- sketches: what their publications promise ------------------------------------------------------------


HLL_LIST = 8
"""From so many values on a HyperLogLog sketch may be registers."""


def hll_error(precision: int) -> float:
    """Return the relative standard error of a merged HyperLogLog sketch of 2^precision registers."""
    return 1.04 / math.pow(2, precision / 2)


def rank_error(precision: int) -> float:
    """Return the error of a quantile's rank that a KLL sketch keeps with 99 % confidence.

    The constants are those that the library of datasketches publishes for it.
    """
    return 2.296 / math.pow(precision, 0.9723)


def _approx_count_distinct(values: list[Any], precision: int) -> Within:
    """Four standard errors on both sides; exact as long as the sketch keeps a list of what it saw."""
    count = len({_order(value) for value in values})
    if count < HLL_LIST:
        return Within(count, count)
    error = 4 * hll_error(precision) * count
    return Within(math.floor(count - error), math.ceil(count + error))


def _approx_percentile(values: list[Any], percentile: float, precision: int) -> Within | None:
    """Twice the published error on both sides; as many values as ``precision`` are all kept."""
    numbers = sorted(float(value) for value in values if math.isfinite(value))
    count = len(numbers)
    if not count:
        return None
    error = 2 * rank_error(precision) * count if count > precision else 0.0
    low = math.floor(percentile * count - error) - 1
    high = math.ceil(percentile * count + error)
    return Within(numbers[max(low, 0)], numbers[min(high, count - 1)])
