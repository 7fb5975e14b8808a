"""The aggregates of a batch, by whichever way of merging its rows allow.

Where it is compiled, the loop in C merges all rows that may answer (`tiles.merge_loop`). Else NumPy does:
when all rows share one ``as_of`` per view and have done so for a few batches, index arrays are prepared for
it (an *epoch*) and `MergePlan.fast` serves until a window's start moves; otherwise `MergePlan.masked` does.

Invariants
1. Rows past their horizon or from the future are nulled before they are merged, whichever way is taken.
2. Loop and epoch change what a merge costs and never its result, to the last digit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastserve.plan.service import ServicePlan
from fastserve.serving.columns import Merged, RowReport
from fastserve.serving.vector_rows import VectorRows, pairs
from fastserve.tiles.aggregates import AggregateFeature
from fastserve.tiles.layout import NULL_INT64
from fastserve.tiles.merge import Epoch, MergePlan, Words
from fastserve.tiles.windows import CLOCK_SKEW_NS

EPOCH_AFTER_BATCHES = 4
"""So many batches in a row with one new as_of make it worth to prepare index arrays for it (0.1 to 15 ms);
until then `MergePlan.masked` serves."""


def compile_merge(plan: ServicePlan) -> MergePlan | None:
    """Return the merge plan of a service's aggregates; None when it has none."""
    places: list[tuple[int, int, Any, list[AggregateFeature]]] = []
    for place in plan.places:
        sources = [output.source for output in plan.inputs if output.place == place.number]
        features = [source for source in sources if isinstance(source, AggregateFeature)]
        if features:
            places.append((place.number, place.word, place.view.schema, features))
    return MergePlan(places, plan.constants_word, _head_words(plan)) if places else None


def _head_words(plan: ServicePlan) -> dict[tuple[int, int], tuple[int, ...]]:
    """Return by place and component the words of the vector row in which its head stands."""
    if plan.heads is None:
        return {}
    first = plan.heads_word
    return {
        (stream.place.number, number): tuple(first + word for word in plan.heads.words_of(position, number))
        for position, stream in enumerate(plan.streams)
        for number in plan.heads.places[position].components
    }


class AggregateMerger:
    """Merges the aggregates of one service, and remembers the epoch."""

    def __init__(self, merge: MergePlan, rows: VectorRows, places: int) -> None:
        self._merge = merge
        self._loop = merge.loop(places)
        self._rows = rows
        self._epoch: Epoch | None = None
        self._candidate: tuple[bytes, int] = (b"", 0)

    def merged(
        self, matrix: Words, effective: Words, now_ns: int, report: RowReport
    ) -> tuple[Merged, Words, Words]:
        """Return the merged aggregates, and the matrix and effective times less the rows that are too old."""
        looped = self._loop.merged(matrix, effective, now_ns)
        if looped is not None:
            return looped, matrix, effective
        merge = self._merge
        as_of = effective.take(merge.place_numbers, axis=1)
        epoch = self._epoch
        if epoch is not None and epoch.start_ns <= now_ns < epoch.end_ns and _all_are(as_of, epoch.as_of):
            return merge.fast(matrix, epoch), matrix, effective
        stale = self._stale(as_of, now_ns)
        if stale:
            report.expired += len(stale)
            matrix, effective = self._rows.nulled(matrix, effective, stale)
            as_of = effective.take(merge.place_numbers, axis=1)
        epoch = self._maybe_new_epoch(as_of, now_ns)
        if epoch is not None:
            return merge.fast(matrix, epoch), matrix, effective
        known = np.where(as_of == NULL_INT64, now_ns, as_of)
        return merge.masked(matrix, known, now_ns), matrix, effective

    def stale(self, effective: Words, now_ns: int) -> list[tuple[int, int]]:
        """Return the (line, place) pairs of rows of aggregates past their horizon or from the future."""
        return self._stale(effective.take(self._merge.place_numbers, axis=1), now_ns)

    def _stale(self, as_of: Words, now_ns: int) -> list[tuple[int, int]]:
        merge = self._merge
        stale = (as_of != NULL_INT64) & (
            (as_of < now_ns - merge.horizons_ns) | (as_of > now_ns + CLOCK_SKEW_NS)
        )
        return pairs(stale, merge.place_numbers) if stale.any() else []

    def _maybe_new_epoch(self, as_of: Words, now_ns: int) -> Epoch | None:
        """Return an epoch when all rows share one as_of per view and have done so for a few batches."""
        newest = as_of.max(axis=0)
        if not _all_are(as_of, newest):
            return None
        if self._epoch is not None:
            newest = np.where(newest == NULL_INT64, self._epoch.as_of, newest)
        key = newest.tobytes()
        seen = self._candidate[1] + 1 if self._candidate[0] == key else 1
        self._candidate = (key, seen)
        known = newest != NULL_INT64
        last_ns = newest + self._merge.horizons_ns
        in_time = ((now_ns <= last_ns) & (newest <= now_ns + CLOCK_SKEW_NS))[known]
        if seen < EPOCH_AFTER_BATCHES or not in_time.size or not in_time.all():
            return None
        epoch = self._merge.epoch(np.where(known, newest, now_ns), now_ns)
        end_ns = min(epoch.end_ns, int(last_ns[known].min()) + 1)
        self._epoch = Epoch(newest, epoch.start_ns, end_ns, epoch.groups, epoch.finalizer)
        return self._epoch


def _all_are(as_of: Words, expected: Words) -> bool:
    """Whether every row has the expected as_of of its place, or is a null row."""
    same = as_of == expected
    return bool(same.all()) or bool((same | (as_of == NULL_INT64)).all())
