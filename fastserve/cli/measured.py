"""What a running server has measured of on-demand views, for `fastserve explain --measured URL`.

Reads the server's own metrics (`docs/metrics.md`) as any scraper would.

Invariants
1. Counts are those of the whole server since it started, in all services that hold the view.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fastserve.cli.http_call import CallError, call
from fastserve.plan.text_table import text_table

HINT = "start one with `fastserve serve --admin-port PORT`: --measured takes the address of that listener"
_SAMPLE = re.compile(r'fastserve_on_demand_(\w+)_total\{view="((?:[^"\\]|\\.)*)"\} (\S+)')
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class MeasuredView:
    """One on-demand view: calls of its code, vectors that they were for, time that they took."""

    view: str
    calls: int
    vectors: int
    seconds: float
    failures: int

    @property
    def us_per_vector(self) -> float | None:
        """Return what a vector took, None where there was none."""
        return self.seconds * 1e6 / self.vectors if self.vectors else None

    def to_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self) | {"us_per_vector": self.us_per_vector}


def measured_views(url: str, views: Iterable[str]) -> list[MeasuredView]:
    """Ask the admin listener at ``url`` what these views took; one that wasn't called has zeros.

    Raises:
        CallError: there is none, or what it says isn't our metrics.
    """
    text = call(url, "GET", "/metrics", HINT)
    if "fastserve_" not in text:
        raise CallError(f"expected the metrics of fastserve at {url}/metrics, got none")
    found = _samples(text)
    return [_measured(view, found.get(view, {})) for view in views]


def _samples(text: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, label, value in _SAMPLE.findall(text):
        view = _ESCAPE.sub(lambda escape: "\n" if escape[1] == "n" else escape[1], label)
        found.setdefault(view, {})[name] = float(value)
    return found


def _measured(view: str, sums: Mapping[str, float]) -> MeasuredView:
    calls, vectors, failures = (int(sums.get(name, 0)) for name in ("calls", "vectors", "failures"))
    return MeasuredView(view, calls, vectors, sums.get("seconds", 0.0), failures)


def measured_text(url: str, views: Iterable[MeasuredView]) -> str:
    """Return the section of `explain` about them, with a line break at its end."""
    rows = [
        [
            each.view,
            str(each.calls),
            str(each.vectors),
            f"{each.vectors / each.calls:.1f}" if each.calls else "",
            "" if each.us_per_vector is None else f"{each.us_per_vector:.1f}",
            str(each.failures),
        ]
        for each in views
    ]
    headings = ["view", "calls", "vectors", "vectors per call", "us per vector", "failures"]
    table = text_table(headings, rows, set(headings[1:]), "  ")
    return f"On-demand views as the server at {url} has measured them since it started\n{table}\n"
