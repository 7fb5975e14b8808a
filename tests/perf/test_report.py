from __future__ import annotations

from typing import Any

from perf.report import format_footnotes, format_table, has_failed, over_budget


def figures(**changes: Any) -> dict[str, Any]:
    return {
        "name": "fs_1x10",
        "cpu_us_per_request": 20.0,
        "fs_qps": 40_000.0,
        "ddb_qps": 40_000.0,
        "keys_per_request": 1.0,
        "keys_per_call": 8.0,
        "p50_ms": 0.4,
        "p99_ms": 0.9,
        "rss_mib": 80.0,
        "stand_in_cpu_us": 4.0,
        "generator_cpu_us": 10.0,
        "errors": 0,
        "wrong": 0,
        "verified": 10,
        "problems": [],
        **changes,
    }


def test_the_table_shows_a_dash_where_nothing_was_measured() -> None:
    head, line, row = format_table([figures()]).splitlines()

    assert len(head) == len(line) == len(row)
    assert row.split()[:9] == ["fs_1x10", "20.0", "–", "–", "–", "–", "22", "–", "–"]


def test_the_table_shows_the_ratio_to_the_floor() -> None:
    floor = {"all_bytes": {"cpu_us_per_request": 16.0}, "client_bytes": {"cpu_us_per_request": 9.0}}

    assert format_table([figures(floor=floor)]).splitlines()[2].split()[7:10] == ["16.0", "1.25", "9.0"]


def test_what_is_over_budget_or_wrong_is_named() -> None:
    assert over_budget([figures()]) == []
    assert over_budget([figures(cpu_us_per_request=30.0)]) == ["fs_1x10: 30.0 us, budget 22 us"]
    assert over_budget([figures(wrong=1, problems=["x"])]) == ["fs_1x10: 0 errors, 1 wrong: ['x']"]


def test_a_service_with_aggregates_has_a_factor_and_no_ratio() -> None:
    held = {
        "bare_service": "lookups_1x100",
        "bare_us": 24.0,
        "trial_us": 16,
        "machine_factor": 1.5,
        "cpu_us_at_factor": 20.0,
    }
    measured = figures(cpu_us_per_request=30.0, reference=held)

    row = format_table([measured]).splitlines()[2]

    assert row.split()[:7] == ["fs_1x10", "30.0", "–", "–", "1.50", "20.0", "22"]
    assert over_budget([measured]) == ["fs_1x10: 30.0 us, budget 22 us (at the machine factor 1.50: 20.0 us)"]


def test_look_ups_show_the_bare_server_and_the_ratio_to_it() -> None:
    held = {"bare_us": 24.0, "x_bare": 1.25, "machine_factor": 1.5, "cpu_us_at_factor": 20.0}

    row = format_table([figures(name="lookups_1x100", cpu_us_per_request=30.0, reference=held)])

    assert row.splitlines()[2].split()[:7] == ["lookups_1x100", "30.0", "24.0", "1.25", "1.50", "20.0", "–"]


def test_the_footnotes_call_an_estimate_an_estimate_and_show_its_quotient() -> None:
    held = {"bare_service": "lookups_1x100", "bare_us": 24.0, "trial_us": 16, "machine_factor": 1.5}

    told = format_footnotes([figures(reference=held)])

    assert "ESTIMATE" in told
    assert "(lookups_1x100 24.0 / 16)" in told
    assert "(" not in format_footnotes([figures()]).partition("factor:")[2].partition("at factor:")[0]


def test_a_bare_server_that_fails_is_a_failure() -> None:
    bare = {"errors": 0, "wrong": 2, "problems": ["y"]}

    assert not has_failed([figures(bare={**bare, "wrong": 0})])
    assert has_failed([figures(bare=bare)])
    assert over_budget([figures(bare=bare)]) == ["fs_1x10: 0 errors, 2 wrong of the bare server: ['y']"]
