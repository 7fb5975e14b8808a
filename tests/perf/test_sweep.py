from __future__ import annotations

from pathlib import Path

from perf.data import SHAPES, service_plan
from perf.environment import describe_environment
from perf.style import save
from perf.sweep.command import _figures, measure_points, summarize
from perf.sweep.picture import draw_sweep
from perf.sweep.points import AXES, POINTS


def test_every_axis_has_points_of_services_that_there_are() -> None:
    for axis in AXES:
        assert len([point for point in POINTS if point.axis == axis.name]) > 1
    assert all(point.service in SHAPES for point in POINTS)


def test_a_points_service_has_what_its_axis_says() -> None:
    sizes = {name: service_plan(name) for name in (point.service for point in POINTS)}

    assert len(sizes["sweep_features_500"].outputs) == 500
    assert sizes["sweep_features_500"].key_count == 1
    assert (len(sizes["sweep_views_20"].outputs), sizes["sweep_views_20"].key_count) == (400, 20)
    assert (len(sizes["sweep_keys_20"].outputs), sizes["sweep_keys_20"].key_count) == (1_000, 20)


def test_points_are_measured_in_turns_told_and_drawn(tmp_path: Path) -> None:
    points = [point for point in POINTS if point.axis == "distinct"][:2]

    measured = measure_points(points, rounds=1, duration_s=0.2, warmup_s=0.1)

    entries = [_figures(point, reports) for point, reports in zip(points, measured, strict=True)]
    assert [(entry["errors"], entry["wrong"]) for entry in entries] == [(0, 0), (0, 0)]
    # One entity among sixteen requests under way: most are answered by a key that is on the wire already.
    assert entries[0]["distinct_share"] < 0.7
    document = {"sweep": entries, **describe_environment()}
    assert len(summarize(document).splitlines()) == 3
    save(draw_sweep(document), tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 1_000
