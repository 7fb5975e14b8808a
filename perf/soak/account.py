"""What became of every request, and whether a fault explains it.

Knows no sockets: outcomes and times come as arguments.

Invariants:
1. What is wrong is wrong: no fault explains it. The same holds for what isn't named in `EXPLAINABLE`.
2. A failure is explained if some fault that may cause it was on between the sending of the request and its
   end, or had ended less than that fault's grace before.
3. What only a pause of the machine explains (a process of the soak waited for a CPU) is counted apart.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from math import inf
from typing import Any

PAUSE = "a pause of the machine"
RIGHT, NULLS, LOST, LATE, WRONG = "right", "nulls", "lost", "late", "wrong"
EXPLAINABLE = frozenset({NULLS, LOST, LATE, "429", "503", "504"})
_SHOWN_MAX = 25
_SPANS_MAX = 400


@dataclass(slots=True)
class Span:
    """A fault from its beginning to its end."""

    name: str
    explains: frozenset[str]
    grace_s: float
    start_s: float
    end_s: float = inf


@dataclass
class Account:
    """Counts of outcomes, by what was on, by stream and by kind."""

    phase: str = "calm"
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    reads: int = 0
    unexplained: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[dict[str, Any]] = field(default_factory=list)
    unexplained_count: int = 0
    wrong_count: int = 0
    # Failures that nothing but pauses explains.
    paused_count: int = 0
    _spans: deque[Span] = field(default_factory=lambda: deque(maxlen=_SPANS_MAX))

    def begin(self, name: str, explains: frozenset[str], grace_s: float, now_s: float) -> Span:
        """Note that a fault is on; its span is to be ended by who began it."""
        span = Span(name, explains, grace_s, now_s)
        self._spans.append(span)
        return span

    def note(self, stream: str, kind: str, detail: str, sent_s: float, done_s: float, reads: int = 0) -> None:
        """Take in the outcome of a request; ``reads`` are the keys whose values were judged."""
        self.counts[self.phase, stream, kind] += 1
        self.reads += reads
        if kind == RIGHT:
            return
        entry: dict[str, Any] = {"phase": self.phase, "stream": stream, "kind": kind}
        entry |= {"detail": detail[:300], "sent_s": round(sent_s, 3), "done_s": round(done_s, 3)}
        if kind == WRONG:
            self.wrong_count += 1
            _keep(self.wrong, entry)
            return
        causes = self.causes(kind, sent_s, done_s)
        if not causes:
            self.unexplained_count += 1
            _keep(self.unexplained, entry)
        elif causes == {PAUSE}:
            self.paused_count += 1

    def causes(self, kind: str, sent_s: float, done_s: float) -> set[str]:
        """Name the faults that were on and may have caused a failure."""
        if kind not in EXPLAINABLE:
            return set()
        return {
            span.name
            for span in self._spans
            if kind in span.explains and span.start_s <= done_s and span.end_s + span.grace_s >= sent_s
        }

    def by_phase(self) -> dict[str, dict[str, int]]:
        """Give the counts of all streams together."""
        found: dict[str, Counter[str]] = {}
        for (phase, _, kind), count in self.counts.items():
            found.setdefault(phase, Counter())[kind] += count
        return {phase: dict(counts) for phase, counts in found.items()}

    def by_stream(self) -> dict[str, dict[str, int]]:
        """Give the counts of all phases together."""
        found: dict[str, Counter[str]] = {}
        for (_, stream, kind), count in self.counts.items():
            found.setdefault(stream, Counter())[kind] += count
        return {stream: dict(counts) for stream, counts in found.items()}


def _keep(entries: list[dict[str, Any]], entry: dict[str, Any]) -> None:
    if len(entries) < _SHOWN_MAX:
        entries.append(entry)
