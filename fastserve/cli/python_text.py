"""Definitions as Python text: calls with their arguments, strings, mappings, durations.

Knows Python's grammar and the width of a line, and nothing of what is defined.

Invariants
1. What comes out is Python that means the values that went in, whatever characters they hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

WIDTH: Final = 110


def quoted(value: str) -> str:
    """Return a string."""
    return json.dumps(
        value, ensure_ascii=False
    )  # what JSON would escape as two characters Python reads as two


def mapping(values: Mapping[str, str]) -> str:
    """Return a dictionary of strings."""
    return "{" + ", ".join(f"{quoted(key)}: {quoted(value)}" for key, value in values.items()) + "}"


def listed(parts: Sequence[str]) -> str:
    """Return a list of what is text already."""
    return f"[{', '.join(parts)}]"


def described_by(description: str, tags: Mapping[str, str], owner: str = "") -> list[str]:
    """Return the arguments that describe something, those that say anything."""
    return [
        *([f"description={quoted(description)}"] if description else []),
        *([f"tags={mapping(tags)}"] if tags else []),
        *([f"owner={quoted(owner)}"] if owner else []),
    ]


def call_text(called: str, arguments: Sequence[str]) -> str:
    """Return a call, in one line where it fits."""
    short = f"{called}({', '.join(arguments)})"
    if len(short) <= WIDTH and "\n" not in short:
        return short
    return f"{called}(\n" + "".join(f"    {argument},\n" for argument in arguments) + ")"


def duration_text(nanoseconds: int) -> str:
    """Return a duration in the largest unit that has no rest, of a microsecond at the least."""
    duration = timedelta(microseconds=max(1, nanoseconds // 1000))
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60), ("seconds", 1)):
        count, rest = divmod(duration, timedelta(seconds=length))
        if count and not rest:
            return f"timedelta({unit}={count})"
    return f"timedelta(microseconds={duration // timedelta(microseconds=1)})"
