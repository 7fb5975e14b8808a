"""What is written as Python text means what went in."""

from __future__ import annotations

from ast import literal_eval
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastserve.cli.python_text import WIDTH, call_text, described_by, duration_text, mapping, quoted

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(TEXTS)
def test_a_text_is_itself_also_beyond_the_first_plane(text: str) -> None:
    assert literal_eval(quoted(text)) == text
    assert literal_eval(quoted(text + "\N{GRINNING FACE}")) == text + "\N{GRINNING FACE}"


@given(st.dictionaries(TEXTS, TEXTS, max_size=4))
def test_a_mapping_is_itself(values: dict[str, str]) -> None:
    assert literal_eval(mapping(values)) == values


@pytest.mark.parametrize(
    "duration, text",
    [
        (timedelta(days=7), "timedelta(days=7)"),
        (timedelta(hours=25), "timedelta(hours=25)"),
        (timedelta(seconds=90), "timedelta(seconds=90)"),
        (timedelta(milliseconds=1500), "timedelta(microseconds=1500000)"),
        (timedelta(0), "timedelta(microseconds=1)"),
    ],
)
def test_a_duration_has_the_largest_unit_that_fits(duration: timedelta, text: str) -> None:
    assert duration_text(duration // timedelta(microseconds=1) * 1000) == text


def test_a_call_takes_one_line_or_one_for_each_argument() -> None:
    assert call_text("f", ["1", "a=2"]) == "f(1, a=2)"
    long = "x" * WIDTH
    assert call_text("f", [long, "2"]) == f"f(\n    {long},\n    2,\n)"
    assert described_by("", {}, "me") == ['owner="me"']
