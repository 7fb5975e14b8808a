"""Components grouped so that one NumPy call merges many of them: the index arrays of `merge`.

A group's components have one operation and equally many terms. Which slots are terms is the caller's to say:
those that count (then all rows share one ``as_of``), or all, and `masked_terms` puts the neutral element in
place of those that don't. Where it takes few of them, components are filled up with neutral elements to as
many terms as others have: a call costs as much as some thousand terms.

Invariants
1. A component's terms stand in slot order, its head slot (what is streamed) behind them and what fills it up
   last, whoever groups them: sums of floats are added in one order.
2. A sum of floats never is the only column of a group: NumPy adds up a single column in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from fastserve.tiles.aggregates import NEGATIVE_ZERO_BITS, NEUTRAL_BITS, Component, Op
from fastserve.tiles.layout import NULL_FLOAT64_BITS
from fastserve.tiles.operations import Index, Words
from fastserve.tiles.windows import Window

CONSTANT_BITS = (NEGATIVE_ZERO_BITS, 0, NULL_FLOAT64_BITS, 2**63 - 1, 0, 0)
"""The words that stand behind the rows in a vector row: all that neutral elements are made of, filled up to
a multiple of 24 bytes."""

Entries = list[tuple[int, list[list[int]]]]
"""Components by number with their words, part by part."""

Members = dict[tuple[Op, bool], dict[int, Entries]]

BEYOND_ALL_TAILS = np.iinfo(np.int64).max
NO_HEAD = -1

FILLED_UP = 512
"""So many neutral elements are added to a group at the most for being merged with the next larger one. A
reduction and its ``take`` cost 1.5 us, a term 1.5 ns (`perf/micro/heads.py`), and lines share the former."""

ORDER_MATTERS = frozenset({Op.ADD_F, Op.MOMENTS})


@dataclass(frozen=True, slots=True)
class PlacedComponent:
    """A component in the vector row: its first slot's word there, and the number of its view's place.

    ``heads`` are the words, part by part, of its head slot (`tiles.heads`), none where nothing is streamed.
    """

    component: Component
    word: int
    place: int
    heads: tuple[int, ...] = ()

    def words(self, slots: Sequence[int], constants: Mapping[int, int]) -> list[list[int]]:
        """Return, part by part, the words of these slots and of the head; a constant where there is none."""
        component = self.component
        parts = []
        for part, neutral in enumerate(NEUTRAL_BITS[component.op]):
            first = self.word + part * component.window.slots
            words = [first + slot for slot in slots]
            parts.append([*words, *self.heads[part : part + 1]] or [constants[neutral]])
        return parts


@dataclass(frozen=True, slots=True)
class Group:
    """Components that are merged by one call: words of shape (terms, components), or (parts, …) of several.

    The others are for masking. ``window`` has the number of each component's window, ``tail`` by term and
    component after how many hops the slot drops out. Only where windows have head tiles, ``head`` has their
    numbers and `NO_HEAD` for all other slots.
    """

    op: Op
    words: Index
    window: Index | None = None
    tail: Words | None = None
    head: Words | None = None


def make_groups(
    components: Sequence[PlacedComponent],
    slots_of: Callable[[PlacedComponent], Sequence[int]],
    constants: Mapping[int, int],
    window_numbers: Mapping[tuple[int, Window], int] | None = None,
) -> tuple[tuple[Group, ...], list[tuple[int, int]]]:
    """Group components by operation and number of terms; with ``window_numbers`` for masking.

    Also returns for each component the columns, of all floats or all integers, in which its merged value and
    that value's second part (moments: the squares) come out.
    """
    members: Members = {}
    for number, placed in enumerate(components):
        words = placed.words(slots_of(placed), constants)
        has_heads = window_numbers is not None and placed.component.window.heads > 0
        members.setdefault((placed.component.op, has_heads), {}).setdefault(len(words[0]), []).append(
            (number, words)
        )
    filled_up = {
        (op, terms, has_heads): entries
        for (op, has_heads), by_terms in members.items()
        for terms, entries in _filled_up(op, by_terms, constants).items()
    }
    groups: list[Group] = []
    columns = [(0, 0)] * len(components)
    next_column = {True: 0, False: 0}
    for (op, _, has_heads), entries in sorted(filled_up.items(), key=_in_order):
        if op in ORDER_MATTERS and len(entries) == 1:
            # With its double beside it a sum has the same last digit, whatever else is merged.
            entries = entries * 2  # noqa: PLW2901
        numbers = [number for number, _ in entries]
        first, count = next_column[op.is_float], len(entries)
        for column, number in enumerate(numbers):
            columns[number] = (first + column, first + column + count if op is Op.MOMENTS else first + column)
        next_column[op.is_float] += count * (2 if op is Op.MOMENTS else 1)
        index = np.array([words for _, words in entries], np.intp).transpose(1, 2, 0)
        group = Group(op, np.ascontiguousarray(index if op.parts > 1 else index[0]))
        if window_numbers is not None:
            placed_here = [components[number] for number in numbers]
            group = _for_masking(group, placed_here, window_numbers, has_heads=has_heads)
        groups.append(group)
    return tuple(groups), columns


def _filled_up(op: Op, by_terms: Mapping[int, Entries], constants: Mapping[int, int]) -> dict[int, Entries]:
    """Fill components of an operation up to the terms of others, where that takes few neutral elements."""
    filled: dict[int, Entries] = {}
    waiting: Entries = []
    ascending = sorted(by_terms)
    for terms, larger in zip(ascending, [*ascending[1:], None], strict=True):
        entries = waiting + by_terms[terms]
        needed = 0 if larger is None else (larger - terms) * len(entries) * op.parts
        if larger is None or needed > FILLED_UP:
            filled[terms] = sorted(entries, key=itemgetter(0))
            waiting = []
            continue
        neutral = [[constants[bits]] * (larger - terms) for bits in NEUTRAL_BITS[op]]
        waiting = [
            (number, [[*part, *more] for part, more in zip(words, neutral, strict=True)])
            for number, words in entries
        ]
    return filled


def _in_order(item: tuple[tuple[Op, int, bool], object]) -> tuple[str, int, bool]:
    (op, terms, has_heads), _ = item
    return op.value, terms, has_heads


def _for_masking(
    group: Group,
    components: Sequence[PlacedComponent],
    window_numbers: Mapping[tuple[int, Window], int],
    *,
    has_heads: bool,
) -> Group:
    window = np.array(
        [window_numbers[placed.place, placed.component.window] for placed in components], np.intp
    )
    terms = group.words.shape[-2]
    tail = _by_term([_tail_numbers(placed) for placed in components], terms, BEYOND_ALL_TAILS)
    head = _by_term([_head_numbers(placed) for placed in components], terms, NO_HEAD) if has_heads else None
    return Group(group.op, group.words, window, tail, head)


def _by_term(numbers: Sequence[list[int]], terms: int, rest: int) -> Words:
    """Return numbers by term and component; what fills components up has ``rest``."""
    return np.array([own + [rest] * (terms - len(own)) for own in numbers], np.int64).T.copy()


def _tail_numbers(placed: PlacedComponent) -> list[int]:
    """Return, term by term, after how many dropped tails it is no longer live; core and heads never drop."""
    window = placed.component.window
    core = [BEYOND_ALL_TAILS] * window.has_core
    heads = [BEYOND_ALL_TAILS] * (window.heads + bool(placed.heads))
    return (core + list(range(window.tails)) + heads) or [BEYOND_ALL_TAILS]


def _head_numbers(placed: PlacedComponent) -> list[int]:
    window = placed.component.window
    before = [NO_HEAD] * (window.has_core + window.tails)
    return before + list(range(window.heads)) + [NO_HEAD] * bool(placed.heads)


def masked_terms(group: Group, terms: Words, dropped: Words, gone: Words, come: Words) -> Words:
    """Return a group's terms with the neutral element in place of the slots outside the window.

    The others say line by line and window by window how many tails have dropped out, how many heads have, and
    how many heads have come in.
    """
    assert group.window is not None  # noqa: S101 - for the type checker: masked groups have it
    assert group.tail is not None  # noqa: S101
    live = group.tail >= dropped.take(group.window, axis=1)[:, None, :]
    if group.head is not None:
        above = group.head >= gone.take(group.window, axis=1)[:, None, :]
        below = group.head < come.take(group.window, axis=1)[:, None, :]
        live &= (group.head == NO_HEAD) | (above & below)
    neutral = _NEUTRAL[group.op]
    if group.op.parts > 1:
        return np.where(live[:, None], terms, neutral[:, None, None])
    return np.where(live, terms, neutral)


_NEUTRAL = {op: np.array(bits, "<i8") for op, bits in NEUTRAL_BITS.items()}
