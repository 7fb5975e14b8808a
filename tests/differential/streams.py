"""A view fed by pushes, files and compaction, and what the twin expects of it at any moment.

`StreamModel` keeps raw events alone. What of them an entity key's answer holds is said by three rules:

    a row made as of A    holds the events before A that its job saw; later ones count when they are pushed
    no row, view complete every pushed event of the two blocks that a request reads
    no row, not complete  nothing is told

A view is complete until a horizon after its last batch job or compaction, or after it was applied when it has
no files. Nothing here knows how tiles, blocks or rows are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.differential.definitions import Definition
from tests.differential.twin import Lifetime, RawEvent, Series, Span, Wanted, answer, bounds_ns, hop_ns_of
from tests.support.stream_load import time_text

SKEW_NS = 60 * 10**9


@dataclass(frozen=True, slots=True)
class Row:
    """What a batch job or a compaction made of one entity key."""

    as_of_ns: int
    events: tuple[RawEvent, ...]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a key's vector may be: missing, or the twin over these events at that moment."""

    missing: bool
    events: tuple[RawEvent, ...] = ()
    time_ns: int = 0


@dataclass(slots=True)
class StreamModel:
    """Raw events, pushed and in files, and the rows that were made of them."""

    definition: Definition
    complete_until_ns: int | None
    pushed: list[RawEvent] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)

    def copied(self) -> StreamModel:
        """Return a model that goes its own way from here."""
        return replace(self, pushed=list(self.pushed), rows=dict(self.rows))

    @property
    def interval_ns(self) -> int:
        """The length of a tile."""
        return self.definition.rules.interval_ns

    @property
    def block_ns(self) -> int:
        """The length of a block: the horizon in whole tiles."""
        return -(-self.definition.horizon_ns // self.interval_ns) * self.interval_ns

    @property
    def reach_ns(self) -> int | None:
        """How far back the windows reach from a request; None without end."""
        reaches: list[int] = []
        for wanted in self.definition.asked.values():
            for span in spans_of(wanted):
                if isinstance(span, Lifetime):
                    return None
                reaches.append(span.size_ns - span.offset_ns)
        return max(reaches)

    def now_block_ns(self, now_ns: int) -> int:
        """Return where the block of a moment begins."""
        return now_ns // self.block_ns * self.block_ns

    def as_of_ns(self, until_ns: int) -> int:
        """Return as of when a job makes rows."""
        return until_ns // self.interval_ns * self.interval_ns

    def earliest_ns(self, time_ns: int) -> int | None:
        """Return where the windows asked at a time begin, all together; None: nowhere."""
        rules = self.definition.rules
        starts: list[int] = []
        for wanted in self.definition.asked.values():
            for span in spans_of(wanted):
                start_ns, _ = bounds_ns(rules, span, wanted.hop_ns, time_ns)
                if start_ns is None:
                    return None
                starts.append(start_ns)
        return min(starts)

    def make_rows(self, seen: Iterable[RawEvent], until_ns: int, *, forget: bool) -> None:
        """Make rows of the events that a job saw; ``forget`` those of keys whose events have left."""
        as_of_ns = self.as_of_ns(until_ns)
        earliest_ns = self.earliest_ns(as_of_ns)
        events: dict[str, list[RawEvent]] = {}
        for event in self._since_start(seen):
            if event.time_ns < as_of_ns and (earliest_ns is None or event.time_ns >= earliest_ns):
                events.setdefault(event.key, []).append(event)
        if forget:
            # Between the windows may lie events that none of them holds before the next row is due.
            events = {
                key: own for key, own in events.items() if any(self._comes_in(e, as_of_ns) for e in own)
            }
            self.rows = {key: row for key, row in self.rows.items() if key in events}
        self.rows |= {key: Row(as_of_ns, tuple(own)) for key, own in events.items()}
        self.complete_until_ns = as_of_ns

    def turns_ns(self) -> list[int]:
        """Return when pushed events come into windows or leave them."""
        rules, turns = self.definition.rules, set()
        for wanted in self.definition.asked.values():
            for span in spans_of(wanted):
                if isinstance(span, Span):
                    hop_ns = hop_ns_of(rules, span.size_ns, wanted.hop_ns)
                    ends = {(event.time_ns // hop_ns + 1) * hop_ns - span.offset_ns for event in self.pushed}
                    turns |= ends | {end_ns + span.size_ns for end_ns in ends}
        return sorted(turns)

    def _since_start(self, events: Iterable[RawEvent]) -> list[RawEvent]:
        """Return the events that the view counts at all."""
        start_ns = self.definition.start_ns
        return [event for event in events if start_ns is None or event.time_ns >= start_ns]

    def _comes_in(self, event: RawEvent, as_of_ns: int) -> bool:
        """Tell whether a window that is asked within a row's horizon holds an event."""
        rules = self.definition.rules
        for wanted in self.definition.asked.values():
            for span in spans_of(wanted):
                first_ns = as_of_ns
                if isinstance(span, Span) and span.offset_ns:
                    hop_ns = hop_ns_of(rules, span.size_ns, wanted.hop_ns)
                    first_ns = max(as_of_ns, (event.time_ns // hop_ns + 1) * hop_ns - span.offset_ns)
                start_ns, _ = bounds_ns(rules, span, wanted.hop_ns, first_ns)
                in_time = first_ns <= as_of_ns + self.definition.horizon_ns
                if in_time and (start_ns is None or start_ns <= event.time_ns):
                    return True
        return False

    def expected(self, key: str, now_ns: int, complete_until_ns: int | None) -> Expected:
        """Return what a key's vector must be, asked of a server that knows the view complete until then."""
        own = [event for event in self._since_start(self.pushed) if event.key == key]
        row = self.rows.get(key)
        horizon_ns = self.definition.horizon_ns
        if row is not None:
            if not row.as_of_ns - SKEW_NS <= now_ns <= row.as_of_ns + horizon_ns:
                return Expected(missing=True)
            later = [event for event in own if event.time_ns >= row.as_of_ns]
            return Expected(False, (*row.events, *later), max(now_ns, row.as_of_ns))
        if complete_until_ns is None or now_ns > complete_until_ns + horizon_ns:
            return Expected(missing=True)
        first_ns = (now_ns // self.block_ns - 1) * self.block_ns
        return Expected(False, tuple(event for event in own if event.time_ns >= first_ns), now_ns)

    def answers(self, expected: Expected) -> dict[str, Any]:
        """Return the twin's answer to each feature."""
        rules = self.definition.rules
        return {
            name: answer(expected.events, rules, wanted, expected.time_ns)
            for name, wanted in self.definition.asked.items()
        }


def spans_of(wanted: Wanted) -> Sequence[Any]:
    """Return the windows of an aggregate."""
    return wanted.period.spans() if isinstance(wanted.period, Series) else [wanted.period]


def record_of(event: RawEvent) -> dict[str, Any]:
    """Return an event as it is pushed; nulls are left out or written, as it comes."""
    record: dict[str, Any] = {"user_id": event.key, "at": time_text(event.time_ns)}
    for name, value in event.values.items():
        if value is None:
            if event.time_ns % 2:
                record[name] = None
        elif name == "seen":
            record[name] = time_text(value)
        elif isinstance(value, float) and not math.isfinite(value):
            record[name] = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        elif name in {"units", "shelf"} and abs(value) % 2:
            record[name] = str(value)
        else:
            record[name] = value
    return record
