"""Rows of words as an aligned table of plain text, for terminals and files alike.

Knows nothing of what the words mean, nor of the terminal's width: a line may be longer than it.

Invariants
1. No line ends in a blank, so that a table in a file survives an editor.
2. Every column is as wide as its widest cell; columns that a caller names as numbers are set to the right.
3. A cell stands on one line: what doesn't print is escaped, so that no stored value plays with a terminal.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

COLUMN_GAP = "  "


def text_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: Collection[str] = (), indent: str = ""
) -> str:
    """Return the table, headings first, without a line break at its end.

    ``numbers`` are the headings of the columns that are set to the right.
    """
    cells = [[one_line(cell) for cell in row] for row in [headings, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [heading in numbers for heading in headings]
    return "\n".join(indent + _line(row, widths, right) for row in cells)


def one_line(text: str) -> str:
    """Return ``text`` with line breaks and other characters that don't print written as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cells = [
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(row, widths, right, strict=True)
    ]
    return COLUMN_GAP.join(cells).rstrip()
