from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.sdk.durations import format_duration

UNITS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000, "us": 1}


@pytest.mark.parametrize(
    "duration,text",
    [
        (timedelta(days=7), "7d"),
        (timedelta(days=356), "356d"),
        (timedelta(hours=24), "1d"),
        (timedelta(hours=36), "36h"),
        (timedelta(minutes=90), "90m"),
        (timedelta(minutes=60), "1h"),
        (timedelta(seconds=30), "30s"),
        (timedelta(milliseconds=1500), "1500ms"),
        (timedelta(microseconds=250), "250us"),
        (timedelta(0), "0s"),
        (-timedelta(days=1), "-1d"),
        (-timedelta(minutes=90), "-90m"),
    ],
)
def test_a_duration_prints_in_its_largest_whole_unit(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


@given(st.timedeltas())
def test_nothing_of_a_duration_is_lost_in_print(duration: timedelta) -> None:
    text = format_duration(duration)
    number = text.rstrip("dhmsu")
    assert timedelta(microseconds=1) * (int(number) * UNITS[text.removeprefix(number)]) == duration
