"""The twin for hundreds of thousands of questions: sorted events, prefix sums and a table of extremes.

It answers the functions over integral values (they may be floats) that need no sketch or list, for many
(key, window) pairs at once, and gives the events of single pairs to the plain twin for all others. It shares
with what it tests neither tiles nor merging: every answer is the difference of two prefixes, or one look into
a sorted list.

Invariants
1. Events are sorted by key, time and value; ties in time therefore stand as the documentation orders them.
2. Sums of values and of their squares are exact: values are integers, and no sum of squares reaches 2^63.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Answers = npt.NDArray[np.float64]
SPREADS: dict[str, Callable[[Any, Any], Any]] = {
    "var_pop": lambda n, _: n * n,
    "var_samp": lambda n, _: n * (n - 1),
    "stddev_pop": lambda n, _: n * n,
    "stddev_samp": lambda n, _: n * (n - 1),
}


class SortedColumn:
    """One column's values that aren't null, by key, time and value. ``keys`` are numbers from 0 on."""

    def __init__(self, keys: Ints, times_ns: Ints, values: Ints, second_ns: int = 10**9) -> None:
        assert not np.any(times_ns % second_ns), "finer times than the composed key has room for"
        order = np.lexsort((values, times_ns, keys))
        self._second_ns = second_ns
        self._base = int(times_ns.min()) // second_ns
        self._span = int(times_ns.max()) // second_ns - self._base + 2
        self._places = keys[order] * self._span + (times_ns[order] // second_ns - self._base)
        self.order = order
        self.values = values[order]
        self._sums = _prefixes(self.values)
        self._squares = _prefixes(self.values**2)
        self._least = _extremes(self.values, np.minimum)
        self._most = _extremes(self.values, np.maximum)

    def slices(self, keys: Ints, start_ns: Ints, end_ns: Ints) -> tuple[Ints, Ints]:
        """Return for each pair the first and the end of its events: those from start to before end."""
        return self._place(keys, start_ns), self._place(keys, end_ns)

    def _place(self, keys: Ints, edge_ns: Ints) -> Ints:
        seconds = -(-edge_ns // self._second_ns) - self._base
        inside = np.clip(seconds, 0, self._span - 1)
        return np.searchsorted(self._places, keys * self._span + inside).astype(np.int64)

    def answers(self, function: str, first: Ints, end: Ints) -> Answers:
        """Return a function of each slice; NaN is null. Integers below 2^53 are exact."""
        count = end - first
        empty = count == 0
        at_first, at_last = np.where(empty, 0, first), np.where(empty, 0, end - 1)
        total = self._sums[end] - self._sums[first]
        with np.errstate(divide="ignore", invalid="ignore"):
            if function == "count":
                found = count.astype(np.float64)
            elif function == "sum":
                found = total.astype(np.float64)
            elif function == "mean":
                found = total / count
            elif function in {"last", "first"}:
                found = self.values[at_last if function == "last" else at_first].astype(np.float64)
            elif function in {"min", "max"}:
                table, best = (self._least, np.minimum) if function == "min" else (self._most, np.maximum)
                level = np.frexp(np.maximum(count, 1))[1] - 1
                found = best(table[level, at_first], table[level, np.where(empty, 0, end - (1 << level))])
                found = found.astype(np.float64)
            else:
                spread = count * (self._squares[end] - self._squares[first]) - total * total
                found = spread / SPREADS[function](count, total)
                if function.startswith("stddev"):
                    found = np.sqrt(found)
        return np.where(empty, np.nan, found)


def _prefixes(values: Ints) -> Ints:
    return np.concatenate([[0], np.cumsum(values, dtype=np.int64)])


def _extremes(values: Ints, best: Callable[[Any, Any], Any]) -> Ints:
    """Return in line k the extremes of the 2^k values from each place on."""
    lines = [values]
    width = 1
    while 2 * width <= len(values):
        line = lines[-1].copy()
        line[: len(values) - width] = best(lines[-1][: len(values) - width], lines[-1][width:])
        lines.append(line)
        width *= 2
    return np.stack(lines)


def numbered(columns: Sequence[Sequence[Any]]) -> tuple[Ints, list[tuple[Any, ...]]]:
    """Return the number of each event's key, and the keys by number, ascending."""
    rows = list(zip(*columns, strict=True))
    keys = sorted(set(rows))
    numbers = {key: number for number, key in enumerate(keys)}
    return np.array([numbers[row] for row in rows], np.int64), keys
