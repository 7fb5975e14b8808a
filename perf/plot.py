"""A kept result as a picture: `python -m perf.plot RESULT.json PICTURE.png`.

CPU per request by shape: fastserve, the bare server, the floor, and the budget as it was set and at the
machine factor. Of on-demand views those that compare sets are shown, with Feast's, on a logarithmic axis.
Reads a result and nothing else.

Invariants:
1. What wasn't measured has no bar; budgets are lines, since they aren't measurements, and so is the bare
   server beside views that it can't answer.
2. A bar is the median round; its whisker reaches from the cheapest round to the dearest.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import orjson
from matplotlib.figure import Figure

from perf.data import ON_DEMAND, SHAPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_BAR_WIDTH = 0.27
_COLORS = {"fastserve": "#1f5fa8", "bare server": "#e0912f", "floor": "#a9b0b7", "Feast": "#7a4fa3"}
_BUDGET, _SCALED_BUDGET = "budget, as set", "budget × machine factor"
_KINDS = ("fastserve", "bare server", "floor")
_ON_DEMAND_KINDS = ("fastserve", "Feast", "floor")
_COMPARES_SETS = "jaccard_"
# Where the logarithmic axis begins: below every floor.
_LOWEST_US = 5
_PANELS = {
    "lookups": "look-ups only",
    "article": "three of four views aggregates (1x10: none)",
}


def draw(result: dict[str, Any]) -> Figure:
    """Draw a result of `perf table`: look-ups beside the article's shapes, or on-demand views."""
    if any(SHAPES[figures["name"]].repo == ON_DEMAND for figures in result["services"]):
        return _finish(_draw_on_demand(result["services"]), result)
    by_repo = {
        repo: [figures for figures in result["services"] if SHAPES[figures["name"]].repo == repo]
        for repo in _PANELS
    }
    shown = {repo: services for repo, services in by_repo.items() if services}
    figure = Figure(figsize=(5.5 * len(shown), 5), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for panel, (repo, services) in zip(axes, shown.items(), strict=True):
        _draw_panel(panel, _PANELS[repo], services, _KINDS)
        names = [figures["name"].partition("_")[2] for figures in services]
        panel.set_xticks(range(len(services)), names)
        panel.set_xlabel("views x features of each")
    return _finish(figure, result)


def _draw_on_demand(services: Sequence[dict[str, Any]]) -> Figure:
    shown = [figures for figures in services if figures["name"].startswith(_COMPARES_SETS)]
    figure = Figure(figsize=(8, 5), layout="constrained")
    panel = figure.subplots()
    # Feast's bar would leave the others no height.
    panel.set_yscale("log")
    _draw_panel(panel, "Jaccard similarity of two sets of 20 strings", shown, _ON_DEMAND_KINDS)
    _draw_bare_lines(panel, shown)
    panel.set_xticks(range(len(shown)), [_set_label(figures["name"]) for figures in shown])
    panel.set_xlabel("\n".join(_feast_ratios(shown)))
    panel.set_ylim(_LOWEST_US, panel.get_ylim()[1] * 1.3)
    return figure


def _feast_ratios(services: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"Feast {feast['version']}, mode python: {feast['x_fastserve']:.0f} times fastserve, same rounds"
        for figures in services
        if (feast := figures.get("feast"))
    ]


def _set_label(name: str) -> str:
    """Say where a view's sets come from, and its mode."""
    place, _, mode = name.removeprefix(_COMPARES_SETS).rpartition("_")
    return f"sets {place or 'stored'}\nmode {mode}"


def _draw_bare_lines(panel: Axes, services: Sequence[dict[str, Any]]) -> None:
    lines = [
        (place, figures["reference"]["bare_us"])
        for place, figures in enumerate(services)
        if "bare_us" in figures["reference"]
    ]
    if lines:
        places, heights = zip(*lines, strict=True)
        left, right = ([place + side * _BAR_WIDTH for place in places] for side in (-1.5, 1.5))
        label = "bare server, one view's look-ups"
        color = _COLORS["bare server"]
        panel.hlines(heights, left, right, colors=color, linestyles="dashed", linewidth=1.6, label=label)


def _finish(figure: Figure, result: dict[str, Any]) -> Figure:
    """Say what all panels have in common."""
    axes = figure.axes
    columns = 5 if len(axes) > 1 else 3
    axes[0].set_ylabel("CPU per request, user + system (µs)")
    handles = {label: handle for panel in axes for handle, label in zip(*_legend(panel), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns, frameon=False)
    machine = result["machine"]
    figure.suptitle(f"{machine['cpu']}, {machine['cpus']} CPUs, {result['date'][:10]}", fontsize=10)
    return figure


def _legend(panel: Axes) -> tuple[list[Any], list[Any]]:
    handles, labels = panel.get_legend_handles_labels()
    return list(handles), list(labels)


def _draw_panel(panel: Axes, title: str, services: Sequence[dict[str, Any]], kinds: Sequence[str]) -> None:
    for number, kind in enumerate(kinds):
        at = [place + (number - 1) * _BAR_WIDTH for place in range(len(services))]
        measured = [_measured(kind, figures) for figures in services]
        found = [(place, entry) for place, entry in zip(at, measured, strict=True) if entry]
        if found:
            _draw_bars(panel, found, _COLORS[kind], kind)
    _draw_budgets(panel, services)
    panel.set_title(title, fontsize=11)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="y", alpha=0.25)
    panel.set_axisbelow(True)


def _draw_bars(panel: Axes, found: Sequence[tuple[float, dict[str, Any]]], color: str, label: str) -> None:
    places = [place for place, _ in found]
    heights = [float(entry["cpu_us_per_request"]) for _, entry in found]
    rounds = [entry["rounds_cpu_us"] for _, entry in found]
    below = [height - min(entry) for height, entry in zip(heights, rounds, strict=True)]
    above = [max(entry) - height for height, entry in zip(heights, rounds, strict=True)]
    whiskers = {"linewidth": 0.8, "ecolor": "#333333"}
    width = _BAR_WIDTH * 0.92
    bars = panel.bar(places, heights, width, yerr=(below, above), error_kw=whiskers, color=color, label=label)
    panel.bar_label(bars, fmt="%.0f", fontsize=7, padding=2)


def _measured(kind: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Give the median and the rounds of a kind, empty where it wasn't measured."""
    if kind == "fastserve":
        return figures
    found: dict[str, Any] = figures.get("floor", {}).get("all_bytes", {})
    if kind == "floor":
        return found
    if kind == "Feast":
        return dict(figures.get("feast", {}))
    return figures["bare"] if "x_bare" in figures["reference"] else {}


def _draw_budgets(panel: Axes, services: Sequence[dict[str, Any]]) -> None:
    left = [place - 1.5 * _BAR_WIDTH for place in range(len(services))]
    right = [place + 0.5 * _BAR_WIDTH for place in range(len(services))]
    styles: tuple[tuple[str, Literal["solid", "dotted"]], ...] = (
        (_BUDGET, "solid"),
        (_SCALED_BUDGET, "dotted"),
    )
    for label, style in styles:
        lines = [
            (low, high, budget_us)
            for low, high, figures in zip(left, right, services, strict=True)
            if (budget_us := _budget_us(label, figures["reference"])) is not None
        ]
        if lines:
            lows, highs, heights = zip(*lines, strict=True)
            panel.hlines(heights, lows, highs, colors="#b3261e", linestyles=style, linewidth=1.6, label=label)


def _budget_us(label: str, held: dict[str, Any]) -> float | None:
    budget_us: float | None = held["budget_us"]
    if label == _BUDGET or budget_us is None:
        return budget_us
    factor = held.get("machine_factor")
    return None if factor is None else budget_us * factor


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m perf.plot", description=__doc__)
    parser.add_argument("result", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    mpl.use("agg")
    draw(orjson.loads(options.result.read_bytes())).savefig(options.picture, dpi=130)


if __name__ == "__main__":
    main()
