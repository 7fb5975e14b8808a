"""One request for vectors of one service: the keys it asks for, the rows that have come, who is told.

Invariants
1. A request's reads stand line by line, in each line in the plan's order of reads.
2. Rows of a read that failed or has not come are None, and `VectorRequest.lacking` says so. Of a view with
   blocks row and blocks are then all None: without one of them the others would be a wrong answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from fastserve.compiled import mypyc_attr
from fastserve.errors import InvariantError
from fastserve.plan.feast_keys import feast_key
from fastserve.plan.keys import block_key, ordinary_key
from fastserve.plan.service import Read, ServicePlan
from fastserve.plan.streams import BLOCKS_READ
from fastserve.serving.coalescer import KeyRead
from fastserve.serving.columns import Columns, ZeroCounts, no_columns
from fastserve.serving.on_demand import OnDemandEvaluator
from fastserve.serving.vector_rows import Lines
from fastserve.tiles.layout import WORD_BYTES
from fastserve.tiles.windows import floor_to

SLICE_BYTES = 1024 * 1024
"""Lines whose matrix is larger than this are evaluated in slices. A line of 50 views x 100 features (94 KB)
takes 69 us alone, 44 us among 8 to 32, and 64 us among 64, whose matrix no longer fits into the second-level
cache; smaller services gain nothing from more than 1 MiB. Where the allocator gives large blocks back at once
(`server.memory`), page faults make it 110 us from 14 lines on."""


ALL_TIME_NS = (-(2**63), 2**63 - 1)


class Finish(Protocol):
    """What a request's owner is told: columns until all lines are there, or once that there are none."""

    def on_columns(self, columns: Columns, first: int, last: int) -> None:
        """Take the request's next lines, in order: those from ``first`` to ``last`` of ``columns``."""

    def on_timeout(self) -> None:
        """Learn that the deadline came before the rows, or before their turn."""

    def on_failure(self, error: Exception) -> None:
        """Learn that the rows can't be evaluated, for no reason that was foreseen."""


class Evaluator(Protocol):
    """Makes values out of rows, as `serving.vectors.VectorEvaluator` does."""

    def evaluate(self, lines: Lines, now_ns: int, zero_counts: ZeroCounts | None = None) -> Columns:
        """Evaluate a batch of lines."""


@mypyc_attr(allow_interpreted_subclasses=True)
class ServiceRuntime:
    """One service, ready to serve: its plan, its evaluator, its key builders."""

    __slots__ = (
        "_empty",
        "_items_of_read",
        "block_clock",
        "evaluator",
        "key_builders",
        "lines_at_once",
        "on_demand",
        "places_of_read",
        "plan",
        "single_read",
    )

    def __init__(
        self, plan: ServicePlan, evaluator: Evaluator, on_demand: OnDemandEvaluator | None = None
    ) -> None:
        self.block_clock = BlockClock(plan) if plan.streams else None
        self.plan = plan
        self.evaluator = evaluator
        self.on_demand = on_demand
        self.key_builders = [
            (read.group, _key_builder(read, self.block_clock) if read.group.block_ns else _row_key(read))
            for read in plan.reads
        ]
        self.lines_at_once = max(1, SLICE_BYTES // (plan.words * WORD_BYTES))
        self.places_of_read = [
            (
                *[place.number for place in plan.places if place.read == number],
                *[stream.place.number for stream in plan.streams if number in stream.reads],
            )
            for number in range(len(plan.reads))
        ]
        self._items_of_read = [_items_of(plan, places) for places in self.places_of_read]
        self.single_read = len(plan.reads) == 1
        self._empty = [[None] * count for count in _row_counts(plan)]

    def columns(self, lines: Lines, now_ns: int, zero_counts: ZeroCounts | None) -> Columns:
        """Evaluate rows, as `VectorEvaluator.evaluate` does; a service without any has no columns."""
        if not self.key_builders:
            return no_columns(len(lines))
        return self.evaluator.evaluate(lines, now_ns, zero_counts)

    def rows(self, reads: Sequence[KeyRead], line: int) -> list[Any]:
        """Return the items of one line, rows in place order, then blocks.

        They are None for what is absent, failed or has not come.
        """
        if self.single_read:
            read = reads[line]
            return read.rows if read.settled and read.error is None else self._empty[0]
        count = len(self._empty)
        rows: list[Any] = []
        lacking: list[int] = []
        for number in range(count):
            read = reads[line * count + number]
            if read.settled and read.error is None:
                rows += read.rows
            else:
                rows += self._empty[number]
                lacking.append(number)
        if lacking and self.block_clock is not None:
            self._without(rows, lacking)
        return rows

    def _without(self, rows: list[Any], lacking: Sequence[int]) -> None:
        """Take out what can't be used without the reads that lack."""
        for number in lacking:
            for item in self._items_of_read[number]:
                rows[item] = None


class PickingRuntime(ServiceRuntime):
    """A service that wants only some of the rows which a read of a bundle brings."""

    __slots__ = ("_picks",)

    def __init__(
        self, plan: ServicePlan, evaluator: Evaluator, on_demand: OnDemandEvaluator | None = None
    ) -> None:
        super().__init__(plan, evaluator, on_demand)
        self._picks = [
            [place.slot for place in plan.places if place.read == number] or range(read.group.size)
            for number, read in enumerate(plan.reads)
        ]

    def rows(self, reads: Sequence[KeyRead], line: int) -> list[Any]:
        """See `ServiceRuntime.rows`."""
        count = len(self._picks)
        rows: list[Any] = []
        lacking: list[int] = []
        for number, slots in enumerate(self._picks):
            read = reads[line * count + number]
            if read.settled and read.error is None:
                found = read.rows
                rows += [found[slot] for slot in slots]
            else:
                rows += self._empty[number]
                lacking.append(number)
        self._without(rows, lacking)
        return rows


def make_runtime(
    plan: ServicePlan, evaluator: Evaluator, on_demand: OnDemandEvaluator | None = None
) -> ServiceRuntime:
    """Return a service, ready to serve."""
    wanted = Counter(place.read for place in plan.places)
    whole = all(wanted[number] == len(plan.reads[number].group.row_places) for number in wanted)
    return (ServiceRuntime if whole else PickingRuntime)(plan, evaluator, on_demand)


def _row_counts(plan: ServicePlan) -> list[int]:
    """Return how many items of a line each read gives: places or, of a read of blocks, its tables."""
    wanted = Counter(place.read for place in plan.places)
    return [wanted[number] or read.group.size for number, read in enumerate(plan.reads)]


def _items_of(plan: ServicePlan, places: Sequence[int]) -> tuple[int, ...]:
    """Return the items of a line that can't be used without each other: those of these places."""
    blocks = [item for stream in plan.streams if stream.place.number in places for item in stream.items]
    return (*places, *blocks)


def _key_builder(read: Read, clock: BlockClock | None) -> Callable[[Sequence[str]], str]:
    """Return what builds the key of the block that the clock stands at, or one before it."""
    if clock is None:
        raise InvariantError("expected a clock for the keys of blocks, got none")
    row_key, suffixes = _row_key(read), clock.suffixes
    place = (read.group.block_ns, read.blocks_back)
    return lambda texts: row_key(texts) + suffixes[place]


def _row_key(read: Read) -> Callable[[Sequence[str]], str]:
    keys = read.keys
    if read.group.feast is not None:
        feast_text = feast_key(read.group.feast)
        return lambda texts: feast_text([texts[key] for key in keys])
    if not read.group.own_items:
        attributes = read.group.key_attributes
        return lambda texts: ordinary_key(attributes, [texts[key] for key in keys])
    if len(keys) == 1:
        only = keys[0]
        return lambda texts: texts[only]
    return lambda texts: "|".join([texts[key] for key in keys])


class BlockClock:
    """Which blocks a service reads at a moment: the ends of their keys, made anew when a block begins.

    From ``start_ns`` until ``end_ns`` it is the same blocks that are read.
    """

    __slots__ = ("_lengths_ns", "end_ns", "start_ns", "suffixes")

    def __init__(self, plan: ServicePlan) -> None:
        self._lengths_ns = sorted({stream.blocks.block_ns for stream in plan.streams})
        self.start_ns = self.end_ns = 0
        self.suffixes: dict[tuple[int, int], str] = {}

    def set(self, now_ns: int) -> None:
        """Turn the clock to ``now_ns``."""
        if self.start_ns <= now_ns < self.end_ns:
            return
        for length_ns in self._lengths_ns:
            for back in range(BLOCKS_READ):
                self.suffixes[length_ns, back] = block_key("", now_ns // length_ns - back)
        self.start_ns = max(floor_to(now_ns, length_ns) for length_ns in self._lengths_ns)
        self.end_ns = min(floor_to(now_ns, length_ns) + length_ns for length_ns in self._lengths_ns)


@mypyc_attr(allow_interpreted_subclasses=True)
class VectorRequest:
    """The reads of one request: ``lines`` vectors of one service.

    ``budget`` tells that the deadline is the caller's latency budget: what has come by then is answered.
    ``partial`` tells that rows which couldn't be read are welcome as nulls. ``contexts`` are each line's
    values of the plan's context fields, empty where the plan has none. ``blocks_span_ns`` are the first and
    the last moment of the request clock for which the blocks that were asked for are the right ones.
    """

    __slots__ = (
        "blocks_span_ns",
        "budget",
        "contexts",
        "deadline_s",
        "lines",
        "owner",
        "partial",
        "reads",
        "runtime",
        "started_s",
        "waiting",
        "zero_counts",
    )
    __deletable__ = ("owner",)  # which the compiled build wants to know

    def __init__(
        self,
        runtime: ServiceRuntime,
        owner: Finish,
        deadline_s: float,
        zero_counts: bool,
        budget: bool,
        partial: bool = False,
        contexts: Sequence[Sequence[Any]] = (),
    ) -> None:
        self.runtime = runtime
        self.owner = owner
        self.deadline_s = deadline_s
        self.zero_counts = zero_counts
        self.budget = budget
        self.partial = partial
        self.contexts = contexts
        self.lines = 1
        self.waiting = 0
        self.started_s = 0.0
        self.reads: list[KeyRead] = []
        self.blocks_span_ns = ALL_TIME_NS

    def release(self) -> None:
        """Let go of rows and owner.

        Both hold the request, and a vector's rows are too large to wait for the garbage collector.
        """
        self.reads = []
        del self.owner

    def lacking(self, first: int, last: int) -> dict[int, dict[int, KeyRead]]:
        """Return by line, and in it by place, the reads that failed or have not come."""
        places_of_read = self.runtime.places_of_read
        count = len(places_of_read)
        found: dict[int, dict[int, KeyRead]] = {}
        for position in range(first * count, last * count):
            read = self.reads[position]
            if read.error is not None or not read.settled:
                line, number = divmod(position, count)
                found.setdefault(line, {}).update(dict.fromkeys(places_of_read[number], read))
        return found

    def cached(self, first: int, last: int) -> dict[int, set[int]]:
        """Return by line the places whose rows came out of the worker's cache."""
        places_of_read = self.runtime.places_of_read
        count = len(places_of_read)
        found: dict[int, set[int]] = {}
        for position in range(first * count, last * count):
            if self.reads[position].is_cached:
                line, number = divmod(position, count)
                found.setdefault(line, set()).update(places_of_read[number])
        return found

    @property
    def reads_cache(self) -> bool:
        """Whether rows out of the worker's cache are welcome."""
        return True

    @property
    def writes_cache(self) -> bool:
        """Whether what is read for it may be kept."""
        return True

    @property
    def is_refused(self) -> bool:
        """Whether a read has failed that the caller can't do without."""
        return not self.partial and self.has_failed()

    def has_failed(self) -> bool:
        """Whether any read has failed."""
        for read in self.reads:  # noqa: SIM110 - a generator costs more than the loop
            if read.error is not None:
                return True
        return False

    def zero_counts_of(self, first: int, last: int) -> list[Collection[int] | None]:
        """Return for each line whether empty counts are 0, as `VectorEvaluator.evaluate` takes it."""
        if not self.zero_counts:
            return [None] * (last - first)
        lacking = self.lacking(first, last)
        return [lacking.get(line, ()) for line in range(first, last)]
