from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastserve.plan.text_table import one_line, text_table


def test_columns_are_aligned_and_numbers_are_set_to_the_right() -> None:
    assert text_table(["name", "count"], [["a", "7"], ["longer", "1,000"]], {"count"}) == (
        "name    count\na           7\nlonger  1,000"
    )


def test_a_table_without_rows_has_its_headings() -> None:
    assert text_table(["name", "count"], [], indent="  ") == "  name  count"


def test_what_does_not_print_is_escaped() -> None:
    assert one_line("a\nb\x1b[31m\tü") == r"a\nb\x1b[31m\tü"
    assert one_line("plain") == "plain"
    assert text_table(["x"], [["a\rb"]]) == "x\na\\rb"


@given(st.lists(st.lists(st.text(max_size=5), min_size=3, max_size=3), max_size=5))
def test_a_table_has_a_line_for_each_row_and_none_ends_in_a_blank(rows: list[list[str]]) -> None:
    lines = text_table(["a", "b", "c"], rows, {"b"}).split("\n")
    assert len(lines) == len(rows) + 1
    assert all(line == line.rstrip() for line in lines)
