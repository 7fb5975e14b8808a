"""The items of a BatchGetItem's answer, where it is as plain as the service's answers are.

Plain is an answer without white space and escapes, of ASCII alone, that leaves no key unprocessed, whose
items have a string ``k`` and else binary attributes. Where the loop in `_plain_items.c` is compiled, it takes
a third of a JSON parser's time for those (`perf/micro/batch_get.py`) and refuses all others.

Invariants
1. What `plain_items` returns is what a JSON parser finds in the same bytes, less the names of types.
"""

from __future__ import annotations

__all__ = ["never", "plain_items"]


def never(_answer: bytes | memoryview) -> dict[str, list[dict[str, str]]] | None:
    """Return None: without the loop in C no answer is plain."""
    return None


try:
    from fastserve.store.dynamodb._plain_items import plain_items
except ImportError:
    plain_items = never
