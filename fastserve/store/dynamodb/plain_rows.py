"""The rows of a BatchGetItem's answer put in their places, where it is as plain as the service's answers are.

Plain is an answer without white space and escapes, of ASCII alone, that leaves no key unprocessed, holds no
table and no key that wasn't asked for, no table and no wanted attribute twice, and whose items have a string
``k`` and else binary attributes. The loop in `_plain_rows.c`, where it is compiled, refuses all others; for
these it takes a fifth of what a JSON parser and filling in take (`perf/micro/batch_get.py`).

Invariants
1. What `fill_rows` fills in is what stands in the document that a JSON parser makes of the same bytes.
2. Where it returns False the rows are undefined: some may have been filled in.
"""

from __future__ import annotations

from typing import Any

__all__ = ["RowPlaces", "fill_rows", "never"]

RowPlaces = tuple[dict[str, int], str | None, dict[str, list[Any]]]
"""Of one read group: where in a read's rows those of each table stand, or of each attribute of a bundle; the
bundle's table, else None; the rows that are to be filled in, by key."""


def never(_answer: bytes | memoryview, _groups: list[RowPlaces]) -> bool:
    """Return False: without the loop in C no answer is plain."""
    return False


try:
    from fastserve.store.dynamodb._plain_rows import fill_rows
except ImportError:
    fill_rows = never
