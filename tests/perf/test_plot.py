from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from perf.plot import draw
from perf.reference import hold_against_reference


def measured(name: str, cpu_us: float, **more: Any) -> dict[str, Any]:
    bare = {"cpu_us_per_request": 24.0, "rounds_cpu_us": [24.0]}
    figures = {"name": name, "cpu_us_per_request": cpu_us, "rounds_cpu_us": [cpu_us], "bare": bare, **more}
    return {**figures, "reference": hold_against_reference(figures, same_load=True)}


def heights(panel: Axes) -> list[float]:
    return [bar.get_height() for bar in panel.patches if isinstance(bar, Rectangle)]


def test_a_result_becomes_bars_of_what_was_measured_and_lines_of_budgets(tmp_path: Path) -> None:
    mpl.use("agg")
    floor = {"all_bytes": {"cpu_us_per_request": 15.0, "rounds_cpu_us": [15.0]}}
    services = [measured("lookups_1x100", 30.0, floor=floor), measured("fs_1x10", 28.0)]
    machine = {"cpu": "a CPU", "cpus": 2}

    figure = draw({"services": services, "machine": machine, "date": "2026-01-10T12:00:00+00:00"})

    lookups, article = figure.axes
    assert sorted(heights(lookups)) == [15.0, 24.0, 30.0]
    assert heights(article) == [28.0]
    lines = [found for found in article.collections if isinstance(found, LineCollection)]
    budgets = [line for line in lines if str(line.get_label()).startswith("budget")]
    assert [float(line.get_segments()[0][0][1]) for line in budgets] == [22.0, 33.0]
    figure.savefig(tmp_path / "table.png")
    assert (tmp_path / "table.png").stat().st_size > 1_000


def test_on_demand_views_are_drawn_on_a_logarithmic_axis_with_feasts() -> None:
    feast = {
        "cpu_us_per_request": 850.0,
        "rounds_cpu_us": [840.0, 860.0],
        "version": "0.67.0",
        "x_fastserve": 34.0,
    }
    services = [
        measured("lookups_1x100", 30.0),
        measured("jaccard_python", 50.0),
        measured("jaccard_sent_python", 25.0, feast=feast),
        measured("trivial_python", 20.0),
    ]
    machine = {"cpu": "a CPU", "cpus": 2}

    figure = draw({"services": services, "machine": machine, "date": "2026-01-10T12:00:00+00:00"})

    (panel,) = figure.axes
    assert panel.get_yscale() == "log"
    assert sorted(heights(panel)) == [25.0, 50.0, 850.0]
    labels = [tick.get_text() for tick in panel.get_xticklabels()]
    assert labels == ["sets stored\nmode python", "sets sent\nmode python"]
    assert panel.get_xlabel().startswith("Feast 0.67.0, mode python: 34 times")
    lines = {
        str(found.get_label()): [float(segment[0][1]) for segment in found.get_segments()]
        for found in panel.collections
        if isinstance(found, LineCollection)
    }
    assert lines["budget, as set"] == [45.0, 25.0]
    assert lines["bare server, one view's look-ups"] == [24.0, 24.0]
