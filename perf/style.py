"""How pictures look: colours by what is shown, axes, and what the title says of the machine.

Knows no results beyond where they keep machine and date.

Invariants:
1. One thing has one colour in all pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 130
OURS, STORE, ARTICLE, FLOOR, PEER = "#1f5fa8", "#6b747c", "#c4543a", "#a9b0b7", "#e0912f"
SERIES = ("#1f5fa8", "#2a9d6f", "#8c5fb0", "#e0912f", "#c4543a", "#5aa7c7")
PROMISE = "#b3261e"


def tidy(panel: Axes, title: str) -> None:
    """Give a panel its title and take the frame's noise away."""
    panel.set_title(title, fontsize=11, loc="left")
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(visible=True, which="major", alpha=0.25)
    panel.set_axisbelow(True)


def plain_ticks(axis: Any, places: list[float]) -> None:
    """Write a logarithmic axis in plain numbers, at these places and nowhere else."""
    axis.set_major_locator(mpl.ticker.FixedLocator(places))
    axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(mpl.ticker.NullFormatter())


def machine_line(document: dict[str, Any]) -> str:
    """Say in a line where and when a result was made."""
    machine = document["machine"]
    python = document["versions"]["python"]
    parts = [f"{machine['cpu']}, {machine['cpus']} CPUs", f"Python {python}"]
    return " · ".join([*parts, document["date"][:10], document["commit"]])


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a picture."""
    mpl.use("agg")
    figure.savefig(path, dpi=DPI)
