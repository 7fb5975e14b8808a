"""A soak as one picture: what failed under which fault, and what the workers held.

Reads a result and nothing else.

Invariants:
1. Axes of memory and descriptors begin at zero, so that what doesn't grow looks flat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from perf.soak.account import RIGHT
from perf.style import ARTICLE, OURS, PEER, SERIES, STORE, machine_line, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {
    "503": ARTICLE,
    "504": "#8c5fb0",
    "429": PEER,
    "nulls": STORE,
    "lost": "#2a9d6f",
    "late": "#444444",
}
_SHOWN_MAX = 30


def draw_soak(document: dict[str, Any]) -> Figure:
    """Draw a result of `python -m perf soak`."""
    figure = Figure(figsize=(14, 9), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.3, 1))
    _draw_failures(figure.add_subplot(grid[:, 0]), document)
    _draw_samples(figure.add_subplot(grid[0, 1]), document, "rss_mib", "MiB", "memory of each worker (RSS)")
    _draw_samples(
        figure.add_subplot(grid[1, 1]), document, "descriptors", "files", "descriptors of each worker"
    )
    minutes = document["seconds"] / 60
    title = f"{document['reads']:,} keys read, {document['ingest']['events']:,} events in {minutes:.0f} min: "
    title += f"{document['wrong']} wrong, {document['unexplained']} unexplained, "
    title += f"{document['ingest']['lost']} lost"
    figure.suptitle(f"{title}\n{machine_line(document)}", fontsize=11)
    return figure


def _draw_failures(panel: Axes, document: dict[str, Any]) -> None:
    by_phase = {
        phase: counts
        for phase, counts in document["by_phase"].items()
        if " + " not in phase and not phase.startswith("after ")
    }
    names = sorted(by_phase, key=lambda name: _failed_share(by_phase[name]))[-_SHOWN_MAX:]
    left = [0.0] * len(names)
    for kind, colour in _COLOURS.items():
        shares = [100 * by_phase[name].get(kind, 0) / sum(by_phase[name].values()) for name in names]
        if any(shares):
            panel.barh(names, shares, left=left, color=colour, label=kind)
        left = [sofar + share for sofar, share in zip(left, shares, strict=True)]
    panel.set_xlabel("% of the requests sent meanwhile that weren't answered in full")
    panel.set_xlim(0, 100)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(frameon=False, loc="lower right")
    tidy(panel, "what each fault alone cost, all of it explained by the fault")


def _failed_share(counts: dict[str, int]) -> float:
    return 1 - counts.get(RIGHT, 0) / sum(counts.values())


def _draw_samples(panel: Axes, document: dict[str, Any], name: str, unit: str, title: str) -> None:
    for number, samples in enumerate(document["samples"]):
        colour = SERIES[number % len(SERIES)] if len(document["samples"]) < len(SERIES) else OURS
        panel.plot([at / 60 for at in samples["times_s"]], samples[name], color=colour, linewidth=1)
    panel.set_ylim(0, None)
    panel.set_xlabel("minutes")
    panel.set_ylabel(unit)
    tidy(panel, title)
