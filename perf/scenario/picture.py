"""A scenario's result as one picture: distribution, load, CPU, and the article beside ours.

Reads a result and nothing else.

Invariants:
1. The article's latencies are never drawn without saying whose cluster and store they come from.
2. What the store's law alone takes is drawn beside what a request takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from perf.scenario.definition import PERCENTILES, SCENARIOS
from perf.scenario.figures import QUOTED_SHARE
from perf.style import ARTICLE, FLOOR, OURS, PEER, PROMISE, SERIES, STORE, machine_line, plain_ticks, tidy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_SMALLEST_SHARE = 1e-4
_TICKS_MS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000]


def draw_scenario(document: dict[str, Any]) -> Figure:
    """Draw a result of `python -m perf scenario1` or `scenario2`."""
    figure = Figure(figsize=(13, 9.5), layout="constrained")
    panels = figure.subplots(2, 2)
    _draw_distribution(panels[0][0], document)
    _draw_load(panels[0][1], document)
    _draw_cpu(panels[1][0], document)
    _draw_article(panels[1][1], document)
    figure.suptitle(f"{document['title']}\n{machine_line(document)}", fontsize=11)
    return figure


def quoted_load(document: dict[str, Any]) -> dict[str, Any]:
    """Give the load whose latencies are quoted."""
    found: dict[str, Any] = next(
        load for load in document["loads"] if load["law"] and load["share"] == QUOTED_SHARE
    )
    return found


def _draw_distribution(panel: Axes, document: dict[str, Any]) -> None:
    load = quoted_load(document)
    for service, color in zip(load["services"], SERIES, strict=False):
        panel.plot(*_slower_than(service["buckets_ms"]), color=color, linewidth=1.8, label=service["name"])
    panel.plot(
        *_slower_than(load["store_buckets_ms"]),
        color=STORE,
        linestyle="dashed",
        linewidth=1.5,
        label="the store's call alone",
    )
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_ylim(_SMALLEST_SHARE, 1.1)
    low, high = panel.get_xlim()
    panel.set_xlim(max(low, 0.1), high)
    plain_ticks(panel.xaxis, _TICKS_MS)
    panel.set_yticks([1, 0.5, 0.1, 0.05, 0.01, 0.001], ["all", "p50", "p90", "p95", "p99", "p99.9"])
    panel.minorticks_off()
    panel.set_xlabel("latency from the intended start (ms)")
    panel.set_ylabel("share of requests that took longer")
    panel.legend(frameon=False, loc="lower left")
    tidy(panel, f"Latency, all at once, {load['overall']['fs_qps']:,.0f} FS-QPS (half of saturation)")


def _slower_than(buckets_ms: Sequence[Sequence[float]]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    edges, counts = np.array(buckets_ms, np.float64).T
    slower = 1 - np.cumsum(counts) / counts.sum()
    # Nothing is slower than the slowest: the curve ends with the bucket before it.
    return edges[:-1], slower[:-1]


def _draw_load(panel: Axes, document: dict[str, Any]) -> None:
    for law, color, label in ((True, OURS, "store with its law"), (False, PEER, "store at once")):
        loads = [load for load in document["loads"] if load["law"] is law]
        rates = [load["overall"]["fs_qps"] for load in loads]
        for name, style, marker in (("p50", "solid", "o"), ("p99", "dashed", "^")):
            values = [load["overall"][f"{name}_ms"] for load in loads]
            (line,) = panel.plot(rates, values, marker, linestyle=style, label=f"{name}, {label}")
            line.set(color=color, markersize=5)
        saturation = document["saturation"]["dynamodb" if law else "none"]["fs_qps"]
        panel.axvline(saturation, color=color, linestyle="dotted", linewidth=1.2)
        panel.annotate(
            "saturation",
            (saturation, 0.02 if law else 0.14),
            xycoords=("data", "axes fraction"),
            xytext=(-3, 0),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="bottom",
            fontsize=8,
            color=color,
        )
    panel.set_yscale("log")
    plain_ticks(panel.yaxis, _TICKS_MS)
    panel.set_xlim(0, None)
    panel.set_xlabel("offered load (FS-QPS, open loop, one worker)")
    panel.set_ylabel("latency (ms)")
    panel.legend(frameon=False, fontsize=8, loc="upper left")
    tidy(panel, "Latency against load")


def _draw_cpu(panel: Axes, document: dict[str, Any]) -> None:
    alone, shares = document["alone"], document["shares"]
    parts = {name: _cpu_parts(entry) for name, entry in alone.items()}
    if len(parts) > 1:
        mixed = [sum(share * parts[name][number] for name, share in shares.items()) for number in range(3)]
        parts["the mix"] = (mixed[0], mixed[1], mixed[2])
    labels = ("bytes from and to the client", "bytes to and from the store", "fastserve itself")
    bottoms = np.zeros(len(parts))
    for number, (label, color) in enumerate(zip(labels, (FLOOR, STORE, OURS), strict=True)):
        heights = np.array([entry[number] for entry in parts.values()])
        panel.bar(list(parts), heights, 0.55, bottom=bottoms, color=color, label=label)
        bottoms += heights
    for place, total in enumerate(bottoms):
        panel.annotate(f"{total:.0f}", (place, total), xytext=(0, 3), textcoords="offset points", ha="center")
    budget_us = SCENARIOS[document["scenario"]].mix_budget_us
    last = len(parts) - 1
    panel.hlines(budget_us, last - 0.4, last + 0.4, colors=PROMISE, linewidth=1.8, label="budget")
    panel.set_ylabel("CPU per request, user + system (µs)")
    panel.set_ylim(0, max(float(bottoms.max()), budget_us) * 1.15)
    panel.set_xlim(-0.7, max(last, 1) + 0.7)
    panel.legend(frameon=False, fontsize=8)
    tidy(panel, "CPU of the server, each alone, store at once, by floors")
    panel.grid(visible=False, axis="x")


def _cpu_parts(entry: dict[str, Any]) -> tuple[float, float, float]:
    """Part a request's CPU: a constant answer's, the store's bytes beside it, and the rest."""
    client_us = min(entry["client_floor_us"], entry["cpu_us"])
    floor_us = min(max(entry["floor_us"], client_us), entry["cpu_us"])
    return client_us, floor_us - client_us, entry["cpu_us"] - floor_us


def _draw_article(panel: Axes, document: dict[str, Any]) -> None:
    load, article = quoted_load(document), document["article"]["overall"]
    groups = (
        ("the article: its cluster, its network, DynamoDB", ARTICLE, article),
        ("here: one machine, stand-in with DynamoDB's law", OURS, _by_name(load["overall"])),
        ("of it the store's call alone", STORE, _by_name(load["store_call_ms"])),
    )
    for number, (label, color, values) in enumerate(groups):
        places = [place + (number - 1) * 0.28 for place in range(len(PERCENTILES))]
        bars = panel.bar(places, [values[name] for name in PERCENTILES], 0.26, color=color, label=label)
        panel.bar_label(bars, fmt="%.3g", fontsize=8, padding=2)
    panel.set_xticks(range(len(PERCENTILES)), PERCENTILES)
    panel.set_ylabel("latency of all services (ms)")
    panel.set_ylim(0, panel.get_ylim()[1] * 1.25)
    panel.legend(frameon=False, fontsize=8, loc="upper left")
    tidy(panel, "The article beside ours: other machines, so not a race")
    panel.grid(visible=False, axis="x")
    scaled = document["extrapolation"]
    panel.annotate(
        f"Extrapolated, not measured: {scaled['fs_qps']:,} FS-QPS would take {scaled['cores']:.1f} cores "
        "of the server",
        (0.0, -0.13),
        xycoords="axes fraction",
        fontsize=9,
        color="#444444",
    )


def _by_name(percentiles: dict[str, float]) -> dict[str, float]:
    return {name: percentiles[f"{name}_ms"] for name in PERCENTILES}
