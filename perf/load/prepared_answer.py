"""Answers of prepared tables at the cost of copying them, for the requests that a measured server sends.

Plain is a BatchGetItem of at most 100 keys in ASCII, without white space and escapes, with nothing beside
the keys but ``"ConsistentRead":true``; of string keys named ``k``, of prepared tables alone, no key or table
twice, whose answer stays under 16 MB. Where the loop in `_prepared_answer.c` is compiled it answers those;
`perf.load.operations` answers all others, and all where it isn't.

Invariants:
1. An answer is that of `Store.batch_get_item`, byte for byte, and is counted as there.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

HEAD_ROOM_BYTES = 512
"""What stands before an answer's body: room for a head, so that nobody copies the body behind one."""
_KEYS, _ABSENT, _TOTALS = 0, 1, 2


def never(
    _body: bytes, _tables: dict[str, tuple[bytes, list[bytes | None], int]], _counts: array[int], _room: int
) -> bytearray | None:
    """Return None: without the loop in C no request is plain."""
    return None


try:
    from perf.load._prepared_answer import prepared_answer
except ImportError:
    prepared_answer = never


class PreparedAnswers:
    """The tables that are answered so, and what was read of them."""

    def __init__(self) -> None:
        self._tables: dict[str, tuple[bytes, list[bytes | None], int]] = {}
        self._counts = array("q", [0] * _TOTALS)
        self.calls = 0

    def add(self, name: str, rows: Sequence[bytes | None]) -> None:
        """Answer for a table from now on, unless it has no rows at all, which the slow way refuses.

        ``rows`` are what follows the key in an item's text.
        """
        if not rows:
            return
        start = b"]," + orjson.dumps(name) + b":["
        self._tables[name] = start, list(rows), len(self._counts) - _TOTALS
        self._counts.append(0)

    def remove(self, name: str) -> None:
        """Answer for a table no more, if it was."""
        self._tables.pop(name, None)

    def answer(self, body: bytes) -> bytearray | None:
        """Give a plain request's answer behind `HEAD_ROOM_BYTES`; None for any other request."""
        if not self._tables:
            return None
        answer = prepared_answer(body, self._tables, self._counts, HEAD_ROOM_BYTES)
        self.calls += answer is not None
        return answer

    @property
    def keys(self) -> int:
        """How many keys were read."""
        return self._counts[_KEYS]

    @property
    def absent_keys(self) -> int:
        """How many of them had no row."""
        return self._counts[_ABSENT]

    def keys_of(self, name: str) -> int:
        """Return how many keys of a table were read."""
        entry = self._tables.get(name)
        return 0 if entry is None else self._counts[_TOTALS + entry[2]]

    def reset(self) -> None:
        """Count anew."""
        self.calls = 0
        for place in range(len(self._counts)):
            self._counts[place] = 0
