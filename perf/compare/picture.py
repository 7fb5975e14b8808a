"""A comparison as one picture: CPU per request by shape on a logarithmic axis, and look-ups per CPU.

Reads a result and nothing else.

Invariants:
1. What others published on machines of their own is a line that says so, never a bar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from perf.style import ARTICLE, machine_line, tidy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_COLORS = {
    "fastserve": "#1f5fa8",
    "fastserve_tls": "#7fb0de",
    "floor": "#a9b0b7",
    "sdk": "#2a9d6f",
    "fastapi": "#e0912f",
    "feast": "#7a4fa3",
}
_BAR_WIDTH = 0.14
_LOWEST_US = 5


def draw_comparison(document: dict[str, Any]) -> Figure:
    """Draw a result of `python -m perf compare`."""
    compared = document["compared"]
    figure = Figure(figsize=(14, 5.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.5, 1])
    _draw_bars(left, compared, "cpu_us_per_request", "{:,.0f}")
    left.set_ylim(_LOWEST_US, left.get_ylim()[1] * 1.6)
    left.set_ylabel("CPU per request, user + system (µs)")
    tidy(left, "CPU of the server per request: look-ups, same store, same rounds")
    own = [entry for entry in compared if entry["kind"] != "floor"]
    _draw_bars(right, own, "lookups_per_cpu_s", "{:,.0f}", rotation=90)
    right.set_ylim(right.get_ylim()[0], right.get_ylim()[1] * 3)
    _draw_published(right, document["published"])
    right.set_ylabel("store keys per CPU second")
    tidy(right, "Row look-ups per core")
    for panel in (left, right):
        panel.grid(visible=False, axis="x")
    handles, labels = left.get_legend_handles_labels()
    versions = document["peers"]
    labels = [_with_version(label, versions) for label in labels]
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    figure.suptitle(machine_line(document), fontsize=10)
    return figure


def _with_version(label: str, versions: dict[str, str]) -> str:
    package, _, rest = label.partition(" + ")
    version = versions.get(package.lower())
    return f"{package} {version} + {rest}" if version else label


def _draw_bars(
    panel: Axes, compared: Sequence[dict[str, Any]], figure: str, form: str, *, rotation: float = 0
) -> None:
    services = list(dict.fromkeys(entry["service"] for entry in compared))
    kinds = list(dict.fromkeys(entry["kind"] for entry in compared))
    for number, kind in enumerate(kinds):
        entries = [entry for entry in compared if entry["kind"] == kind]
        offset = (number - (len(kinds) - 1) / 2) * _BAR_WIDTH
        places = [services.index(entry["service"]) + offset for entry in entries]
        heights = [entry[figure] for entry in entries]
        bars = panel.bar(places, heights, _BAR_WIDTH * 0.92, color=_COLORS[kind], label=entries[0]["name"])
        texts = [form.format(height) for height in heights]
        behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8}
        panel.bar_label(bars, texts, fontsize=7, padding=2, rotation=rotation, bbox=behind)
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panel.set_xticks(range(len(services)), [_shape(service) for service in services])
    panel.set_xlabel("views × features of each")


def _shape(service: str) -> str:
    return service.partition("_")[2].replace("x", " × ")


def _draw_published(panel: Axes, published: dict[str, float]) -> None:
    for what, height in published.items():
        panel.axhline(height, color=ARTICLE, linestyle="dashed", linewidth=1.2)
        whose = what.partition(",")[0]
        panel.annotate(
            f"{whose}, as published: {height:,.0f}",
            (0.02, height),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=8,
            color=ARTICLE,
        )
