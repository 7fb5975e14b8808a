from __future__ import annotations

from typing import Any

import pytest

from perf.data import SHAPES
from perf.reference import hold_against_reference


def measured(name: str, cpu_us: float, bare_us: float | None) -> dict[str, Any]:
    bare = {"cpu_us_per_request": bare_us, "rounds_cpu_us": [bare_us, bare_us]}
    return {"name": name, "cpu_us_per_request": cpu_us, **({} if bare_us is None else {"bare": bare})}


def test_look_ups_have_a_ratio_a_factor_and_an_estimate() -> None:
    held = hold_against_reference(measured("lookups_5x100", 60.0, 43.5), same_load=True)

    assert held == {
        "bare_service": "lookups_5x100",
        "budget_us": None,
        "bare_us": 43.5,
        "x_bare": pytest.approx(60 / 43.5),
        "trial_us": 29,
        "machine_factor": pytest.approx(1.5),
        "rounds_machine_factor": [pytest.approx(1.5)] * 2,
        "cpu_us_at_factor": pytest.approx(40.0),
    }


def test_aggregates_take_the_factor_of_the_look_ups_with_as_many_views() -> None:
    held = hold_against_reference(measured("fs_1x10", 33.0, 24.0), same_load=True)

    assert held["bare_service"] == "lookups_1x100"
    assert "x_bare" not in held
    assert (held["cpu_us_at_factor"], held["budget_us"]) == (pytest.approx(22.0), 22)


@pytest.mark.parametrize("bare_us, same_load", [(None, True), (24.0, False)])
def test_nothing_is_estimated_without_a_bare_server_or_under_another_load(
    bare_us: float | None, same_load: bool
) -> None:
    held = hold_against_reference(measured("lookups_1x100", 33.0, bare_us), same_load=same_load)

    assert "machine_factor" not in held
    assert "cpu_us_at_factor" not in held
    assert ("x_bare" in held) == (bare_us is not None)


def test_every_shape_has_look_ups_that_the_reference_machine_was_timed_with() -> None:
    assert all(SHAPES[shape.bare_service].trial_us for shape in SHAPES.values())
