"""Requests that took long, told to the log with where their time went.

It exists only where a threshold was given; then each answer is looked at, and each request for features is a
`TimedAnswer`. It knows nothing of how the log is written.

Invariants
1. A line holds names of definitions, numbers and a status: nothing of what the caller sent.
2. A worker writes at most `LINES_PER_S` lines a second; the next one says how many were left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from fastserve.server.exchange import Exchange, Meter
from fastserve.server.feast_handler import FeastAnswer
from fastserve.server.vector_answer import VectorAnswer, WeighedAnswer
from fastserve.serving.columns import Columns

LOGGER = logging.getLogger("fastserve.slow")
LINES_PER_S = 10


@dataclass(slots=True)
class Breakdown:
    """Where a request's time went, as far as it has come; seconds.

    ``reads_s`` is from its last byte until its rows had come and their turn to be evaluated with it.
    """

    reads_s: float = 0.0
    evaluate_s: float = 0.0
    on_demand_s: float = 0.0
    encode_s: float = 0.0
    encode_from_s: float = 0.0
    vectors: int = 0
    keys: int = 0


class Quota:
    """Lets through so many lines a second, and counts the others."""

    def __init__(self, now_s: Callable[[], float] = monotonic) -> None:
        self._now_s = now_s
        self._second = -1
        self._lines = 0
        self._left_out = 0

    def take(self) -> int | None:
        """Return how many lines were left out before this one; None for one that is to be left out."""
        second = int(self._now_s())
        if second != self._second:
            self._second, self._lines = second, 0
        if self._lines >= LINES_PER_S:
            self._left_out += 1
            return None
        self._lines += 1
        left_out, self._left_out = self._left_out, 0
        return left_out


class SlowMeter:
    """One service's meter that tells of slow answers; ``meter`` is told of all of them first."""

    def __init__(self, service: str, threshold_s: float, quota: Quota, meter: Meter | None = None) -> None:
        self._service = service
        self._threshold_s = threshold_s
        self._quota = quota
        self._meter = meter
        self.breakdown: Breakdown | None = None  # of the answer that is being put together

    def __call__(self, exchange: Exchange, status: int) -> None:
        """Look at an answer."""
        if self._meter is not None:
            self._meter(exchange, status)
        now_s = monotonic()
        took_s = now_s - exchange.received_s
        if took_s >= self._threshold_s:
            left_out = self._quota.take()
            if left_out is not None:
                self._tell(now_s, took_s, status, left_out)

    def _tell(self, now_s: float, took_s: float, status: int, left_out: int) -> None:
        fields: dict[str, object] = {"service": self._service, "status": status, "took_ms": _ms(took_s)}
        part = self.breakdown
        if part is None:
            where = "answered without rows"
        else:
            encode_s = part.encode_s + now_s - part.encode_from_s
            fields |= {"vectors": part.vectors, "keys": part.keys, "reads_ms": _ms(part.reads_s)}
            fields |= {"evaluate_ms": _ms(part.evaluate_s), "on_demand_ms": _ms(part.on_demand_s)}
            fields |= {"encode_ms": _ms(encode_s)}
            where = (
                f"{part.vectors} vectors, {part.keys} keys; reads {_ms(part.reads_s)}, evaluate "
                f"{_ms(part.evaluate_s)}, on-demand {_ms(part.on_demand_s)}, encode {_ms(encode_s)} ms"
            )
        if left_out:
            fields["left_out"] = left_out
            where += f" ({left_out} such lines left out before)"
        LOGGER.warning(
            "slow request for %s: status %d after %s ms, %s",
            self._service,
            status,
            _ms(took_s),
            where,
            extra={"fields": fields},
        )


def _ms(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 3)


class TimedAnswer(VectorAnswer):
    """A `VectorAnswer` that notes where its time goes while its columns come."""

    breakdown: Breakdown | None = None

    def on_columns(self, columns: Columns, first: int, last: int) -> None:
        """Take the next lines, with the time."""
        _take_timed(self, super().on_columns, columns, first, last)


class TimedWeighedAnswer(TimedAnswer, WeighedAnswer):
    """The same of a `WeighedAnswer`."""


class TimedFeastAnswer(FeastAnswer):
    """The same of a `FeastAnswer`, whose rows become values while they are encoded."""

    breakdown: Breakdown | None = None

    def on_columns(self, columns: Columns, first: int, last: int) -> None:
        """Take the next lines, with the time."""
        _take_timed(self, super().on_columns, columns, first, last)


def _take_timed(
    answer: TimedAnswer | TimedFeastAnswer,
    take: Callable[[Columns, int, int], None],
    columns: Columns,
    first: int,
    last: int,
) -> None:
    """Let ``take`` have lines of an answer, whose meter learns what that takes if it wants to know."""
    meter = answer.exchange.meter
    if not isinstance(meter, SlowMeter):
        take(columns, first, last)
        return
    part = answer.breakdown
    if part is None:
        come_s = columns.evaluated_from_s or monotonic()  # nothing is evaluated of Feast's
        reads_s = come_s - answer.exchange.received_s
        part = answer.breakdown = Breakdown(reads_s, vectors=answer.lines, keys=len(answer.reads))
    part.evaluate_s += columns.evaluated_s
    part.on_demand_s += 0.0 if columns.computed is None else columns.computed.wait_s
    part.encode_from_s = monotonic()
    meter.breakdown = part
    try:
        take(columns, first, last)
    finally:
        meter.breakdown = None
        part.encode_s += monotonic() - part.encode_from_s
