from __future__ import annotations

from typing import Any

from perf.report import format_table, over_budget


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
    assert row.split()[:6] == ["fs_1x10", "20.0", "22", "–", "–", "–"]


def test_the_table_shows_the_ratio_to_the_floor() -> None:
    floor = {"all_bytes": {"cpu_us_per_request": 16.0}, "client_bytes": {"cpu_us_per_request": 9.0}}

    assert format_table([figures(floor=floor)]).splitlines()[2].split()[3:6] == ["16.0", "1.25", "9.0"]


def test_what_is_over_budget_or_wrong_is_named() -> None:
    assert over_budget([figures()]) == []
    assert over_budget([figures(cpu_us_per_request=30.0)]) == ["fs_1x10: 30.0 us, budget 22 us"]
    assert over_budget([figures(wrong=1, problems=["x"])]) == ["fs_1x10: 0 errors, 1 wrong: ['x']"]
