"""Times as text, which callers, sources of pushed records and items of existing tables write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.tiles.times import INT64_MAX, format_time, parse_time_ns

NOON_NS = 1_767_268_800 * 10**9  # 2026-01-01T12:00:00Z


@given(st.integers(-INT64_MAX, INT64_MAX))
def test_a_time_that_was_written_is_read_as_it_was(time_ns: int) -> None:
    assert parse_time_ns(format_time(time_ns)) == time_ns


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-01T12:00:00Z",
        "2026-01-01 12:00",
        "2026-01-01T13:00:00+01:00",
        "2026-01-02T06:00:00+18:00",
        "2025-12-31T18:00:00.000000000-1800",
        "2026-01-01T17:45:00 +0545",
    ],
)
def test_a_zone_is_taken_into_account(text: str) -> None:
    assert parse_time_ns(text) == NOON_NS


@pytest.mark.parametrize("zone", ["+18:01", "-18:01", "+19:00", "+99:00", "+01:60", "-00:99"])
def test_a_zone_that_is_none_is_refused(zone: str) -> None:
    with pytest.raises(ValueError, match=r"expected a zone from -18:00 to \+18:00"):
        parse_time_ns(f"2026-01-01T12:00:00{zone}")
