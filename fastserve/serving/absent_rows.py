"""For how long a worker may remember that a streamed view of aggregates has no row of a key.

A row of such a view says by itself which tiles count beside it: its own as_of tells. An absent one says
nothing: what it means is told by the view's watermark (`serving.heads`), which goes on while the row is
remembered. An absent row that was read before a job, met with the watermark of after it, would make the
blocks alone look like all that the key ever had.

Invariants
1. An absent row is remembered only as long as the watermark that was known when it was asked for makes its
   view complete: the key had no event before that watermark, and all blocks that are read meanwhile reach
   back to it. However the watermark goes on, the answer is right.
2. A read in which several such rows are absent is remembered as long as the first of them may be; blocks and
   all other rows, present and absent, say nothing that a watermark could change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastserve.plan.reads import ReadGroup
from fastserve.plan.service import WorkspacePlan
from fastserve.serving.heads import Watermarks
from fastserve.serving.row_cache import FOREVER_NS


@dataclass(frozen=True, slots=True)
class Asked:
    """What was known when the store was asked: two clocks' times, and the watermarks.

    ``timer_ns`` is monotonic, and what ages are counted from; ``request_ns`` is compared with watermarks, and
    read second, so that no row is trusted for longer than it says.
    """

    timer_ns: int
    request_ns: int
    until_ns: Mapping[str, int]


class AbsentRows:
    """See the module. ``request_clock_ns`` is that of windows, ``timer_ns`` that of the cache."""

    __slots__ = ("_horizons_of", "_request_clock_ns", "_timer_ns", "_watermarks")

    def __init__(
        self,
        plan: WorkspacePlan,
        watermarks: Watermarks,
        request_clock_ns: Callable[[], int],
        timer_ns: Callable[[], int],
    ) -> None:
        horizons_ns = {
            stream.place.view.row_place: (stream.place.view.name, stream.schema.horizon_ns)
            for service in plan.services.values()
            for stream in service.streams
        }
        self._horizons_of = [
            [
                (number, *horizons_ns[place])
                for number, place in enumerate(group.row_places)
                if place in horizons_ns
            ]
            for group in plan.groups
        ]
        self._watermarks = watermarks
        self._request_clock_ns = request_clock_ns
        self._timer_ns = timer_ns

    def asked(self) -> Asked:
        """Return what is known now, right before the store is asked."""
        return Asked(self._timer_ns(), self._request_clock_ns(), self._watermarks.until_ns)

    def trusted_ns(self, group: ReadGroup, rows: Sequence[Any], asked: Asked) -> int:
        """Return for how long after they were asked for rows of a key may be used; negative: not at all."""
        trusted_ns = FOREVER_NS
        for number, view, horizon_ns in self._horizons_of[group.index]:
            if rows[number] is None:
                until_ns = asked.until_ns.get(view)
                own_ns = -1 if until_ns is None else until_ns + horizon_ns - asked.request_ns
                trusted_ns = min(trusted_ns, own_ns)
        return trusted_ns
