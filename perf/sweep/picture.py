"""A sweep as one picture: a panel for each thing that grows.

Reads a result and nothing else.

Invariants:
1. A point is the median round, its whisker reaches from the cheapest round to the dearest.
2. Axes of cost begin at zero, so that what doesn't grow looks flat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from perf.style import OURS, PEER, machine_line, plain_ticks, tidy
from perf.sweep.points import AXES, Axis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_COLUMNS = 4
_NOTE = """One worker, 16 clients in a closed loop,
100,000 entities, store at once, JSON,
unless the panel says otherwise.

A point is the median round, a whisker
reaches from the cheapest to the dearest.

Orange: keys in one BatchGetItem, which
is how well requests are read together."""


def draw_sweep(document: dict[str, Any]) -> Figure:
    """Draw a result of `python -m perf sweep`."""
    by_axis = {
        axis: entries
        for axis in AXES
        if (entries := [entry for entry in document["sweep"] if entry["axis"] == axis.name])
    }
    columns = min(_COLUMNS, len(by_axis))
    rows = -(-len(by_axis) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.9 * rows + 0.6), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, (axis, entries) in zip(panels, by_axis.items(), strict=False):
        _draw_axis(panel, axis, entries)
    for panel in panels[len(by_axis) :]:
        panel.set_axis_off()
        panel.text(0, 0.95, _NOTE, va="top", fontsize=9, wrap=True)
    figure.suptitle(f"CPU per request, one thing at a time\n{machine_line(document)}", fontsize=11)
    return figure


def _draw_axis(panel: Axes, axis: Axis, entries: Sequence[dict[str, Any]]) -> None:
    places = [entry["distinct_share"] if axis.name == "distinct" else entry["value"] for entry in entries]
    costs = [entry["cpu_us_per_request"] for entry in entries]
    below = [cost - min(entry["rounds_cpu_us"]) for cost, entry in zip(costs, entries, strict=True)]
    above = [max(entry["rounds_cpu_us"]) - cost for cost, entry in zip(costs, entries, strict=True)]
    panel.errorbar(places, costs, yerr=(below, above), color=OURS, marker="o", markersize=5, elinewidth=1)
    panel.set_ylim(0, max(cost + more for cost, more in zip(costs, above, strict=True)) * 1.2)
    if axis.is_logarithmic:
        panel.set_xscale("log")
        panel.minorticks_off()
        plain_ticks(panel.xaxis, [float(place) for place in places])
    elif axis.name == "workers":
        panel.set_xticks(places)
    elif axis.name == "distinct":
        panel.set_xlim(0, 1.05)
    else:
        panel.set_xlim(0, None)
    title = axis.fixed
    if axis.slope_of and len(places) > 1:
        slope, start = np.polyfit(places, costs, 1)
        title += f": {start:.0f} µs + {slope * 1_000:,.0f} ns a {axis.slope_of}"
    panel.set_xlabel(axis.label)
    panel.set_ylabel("CPU µs per request")
    if axis.name == "clients":
        _draw_company(panel, places, entries)
    tidy(panel, "")
    panel.set_title(title, fontsize=9, loc="left")


def _draw_company(panel: Axes, places: Sequence[float], entries: Sequence[dict[str, Any]]) -> None:
    twin = panel.twinx()
    twin.plot(places, [entry["keys_per_call"] for entry in entries], color=PEER, linestyle="dashed")
    twin.set_ylim(0, 105)
    twin.set_ylabel("keys in a call", color=PEER)
    twin.spines[["top"]].set_visible(False)
