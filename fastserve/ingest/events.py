"""Pushed records of a source, checked and cut into what its views write: deltas of blocks, or rows.

A `SourceFeed` knows the schema of one source and all views that read it. It opens nothing and writes nothing:
`prepare` is a function of the records, the time and the definitions.

What is refused, record by record: a value that isn't of its column's type, a column that the source doesn't
have, a null join key or timestamp, an entity key that is too long, a time ahead of the clock by more than
allowed or before all windows, the smallest int64 and overlong text where a view aggregates them.

Invariants
1. Every bad record of a request is found, each once for each view that refuses it; with any, nothing is made.
2. A record that is good for one view and bad for another is bad.
3. Every event goes to each view of its source, into the block of its time, whatever the order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from fastserve.api.ingest import RecordError
from fastserve.errors import RequestError, shown
from fastserve.ingest.record_values import RecordReader
from fastserve.plan.keys import encode_key
from fastserve.plan.views import ViewPlan, duration_ns
from fastserve.sdk.sources import PushSource
from fastserve.sdk.types import DataType, Int64, String
from fastserve.serving.items import api_value
from fastserve.store.interface import MAX_KEY_BYTES, MAX_ROW_BYTES
from fastserve.tiles.blocks import Block, BlockSchema, block_schema, from_events, merge
from fastserve.tiles.layout import NULL_INT64, Storage
from fastserve.tiles.rows import encode_row
from fastserve.tiles.times import format_time
from fastserve.tiles.wide import MAX_STRING_BYTES
from fastserve.tiles.windows import SECOND_NS

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_ENTITY_BYTES = MAX_KEY_BYTES - 16
"""The number of a block and its mark come on top."""
BAD_VALUE = "RecordValidationError"
BAD_TIME = "TimestampError"

Values = list[Any]
Transform = Callable[[Sequence[Values]], "list[dict[str, Any]]"]
"""What makes rows, by column, of a source's records; it raises `RequestError`."""


@dataclass(frozen=True, slots=True)
class BlockDelta:
    """What one request adds to one block. ``expires_s`` 0 is never."""

    feed: ViewFeed
    entity_key: str
    number: int
    block: Block

    def joined(self, other: BlockDelta) -> BlockDelta:
        """Return what this and another delta of the same block add together."""
        assert self.feed.blocks is not None  # noqa: S101 - for the type checker: only such views have deltas
        return BlockDelta(
            self.feed, self.entity_key, self.number, merge(self.feed.blocks, self.block, other.block)
        )


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row of attributes that one record makes."""

    table: str
    key: str
    row: bytes
    attribute: str | None = None  # of a bundle's item


@dataclass(frozen=True, slots=True)
class Times:
    """What decides whether an event's time is taken."""

    now_ns: int
    max_future_ns: int


class ViewFeed:
    """How records of a source become what one view writes."""

    def __init__(self, plan: ViewPlan, transform: Transform | None = None) -> None:
        """Compile; ``transform`` does what the view's transformation says."""
        self.plan = plan
        self.name = plan.name
        self.transform = transform
        self.blocks: BlockSchema | None = None if plan.schema is None else block_schema(plan.schema)
        self.stream_table = "" if plan.stream is None else plan.stream.table
        self._time = plan.view.timestamp_field
        self._start_ns = None if plan.view.start_time is None else duration_ns(plan.view.start_time - EPOCH)
        self._keys = [(field.name, field.dtype) for field in plan.key_fields]
        self._columns = [field.name for field in plan.view.input_columns]
        self._reach_ns = _reach_ns(plan)
        self._earliest_at: tuple[int, int | None] = (-1, None)
        self._integers = [name for name, dtype in self._aggregated() if dtype == Int64]
        self._wide_texts = [name for name in self._wide_columns() if self._aggregated_type(name) == String]

    def _earliest(self, now_ns: int) -> int | None:
        """Return the time before which nothing counts, found once for all events of a request."""
        if self._earliest_at[0] != now_ns:
            self._earliest_at = now_ns, _earliest_ns(self.plan, now_ns)
        return self._earliest_at[1]

    def _aggregated(self) -> list[tuple[str, DataType]]:
        return [] if self.blocks is None else list(self.blocks.input_types.items())

    def _aggregated_type(self, name: str) -> DataType | None:
        return dict(self._aggregated()).get(name)

    def _wide_columns(self) -> set[str]:
        if self.blocks is None:
            return set()
        parts = self.blocks.wide
        return {part.column for part in parts} | {part.secondary_key for part in parts if part.secondary_key}

    @property
    def is_pushable(self) -> bool:
        """Whether rows of the view can be pushed; ordinary items can't be held against a time."""
        return self.plan.packed

    # --- one event ------------------------------------------------------------------------------------------

    def refusal(self, event: Mapping[str, Any], times: Times) -> tuple[str, str] | None:
        """Return the kind of error and the message for an event that this view doesn't take."""
        for name, _ in self._keys:
            if event[name] is None:
                return BAD_VALUE, f"Join key `{name}`: expected a value, got null"
        if len(self.key_of(event).encode()) > MAX_ENTITY_BYTES:
            return BAD_VALUE, f"Join keys: expected at most {MAX_ENTITY_BYTES} bytes together, got more"
        for name in self._integers:
            if event[name] == NULL_INT64:
                return BAD_VALUE, f"Column `{name}`: expected an int64 above -2^63, got {NULL_INT64}"
        for name in self._wide_texts:
            value = event[name]
            if value is not None and len(value) * 4 > MAX_STRING_BYTES < len(value.encode()):
                expected = f"text of at most {MAX_STRING_BYTES} bytes"
                return BAD_VALUE, f"Column `{name}`: expected {expected}, got {shown(value)}"
        return self._size_refusal(event) or self._time_refusal(event, times)

    def _size_refusal(self, event: Mapping[str, Any]) -> tuple[str, str] | None:
        """Return what is wrong with attributes that no row can hold."""
        if self.blocks is not None:
            return None
        left = MAX_ROW_BYTES - self.plan.layout.fixed_bytes
        for column in self.plan.layout.columns:
            value = event[column.name]
            if column.storage is Storage.JSON and value is not None:
                left -= len(orjson.dumps(api_value(column.dtype, value)))
                if left < 0:
                    expected = f"values that fit into a row of {MAX_ROW_BYTES} bytes together"
                    return BAD_VALUE, f"Column `{column.name}`: expected {expected}, got {shown(value)}"
        return None

    def _time_refusal(self, event: Mapping[str, Any], times: Times) -> tuple[str, str] | None:
        if self._time is None:
            return None
        time_ns = event[self._time]
        if time_ns is None:
            return BAD_TIME, f"Timestamp `{self._time}`: expected a time, got null"
        if time_ns > times.now_ns + times.max_future_ns:
            latest = format_time(times.now_ns + times.max_future_ns)
            return BAD_TIME, (
                f"Timestamp `{self._time}`: expected one until {latest} (the clock and "
                f"{times.max_future_ns // SECOND_NS} s), got {format_time(time_ns)}"
            )
        earliest_ns = self._earliest(times.now_ns)
        if earliest_ns is not None and time_ns < earliest_ns:
            earliest = format_time(earliest_ns)
            return BAD_TIME, (
                f"Timestamp `{self._time}`: expected one from {earliest} on, for no window of "
                f"{self.name!r} reaches further back, got {format_time(time_ns)}"
            )
        return None

    def key_of(self, event: Mapping[str, Any]) -> str:
        """Return the text of an event's entity key."""
        return encode_key([dtype for _, dtype in self._keys], [event[name] for name, _ in self._keys])

    def _counts(self, event: Mapping[str, Any]) -> bool:
        return self._start_ns is None or self._time is None or event[self._time] >= self._start_ns

    # --- all events of a request ----------------------------------------------------------------------------

    def deltas(self, events: Sequence[Mapping[str, Any]]) -> list[BlockDelta]:
        """Return what events add to blocks of a view of aggregates."""
        if self.blocks is None or self._time is None:
            return []
        events = [event for event in events if self._counts(event)]
        columns = {name: [event[name] for event in events] for name in self.blocks.input_types}
        times_ns = [event[self._time] for event in events]
        made = from_events(self.blocks, [self.key_of(event) for event in events], times_ns, columns)
        return [BlockDelta(self, key, number, block) for (key, number), block in made.items()]

    def rows(self, events: Sequence[Mapping[str, Any]], now_ns: int) -> list[NewRow]:
        """Return the rows of a view of attributes, in the order of their events."""
        rows = []
        for event in events:
            if self._counts(event):
                time_ns = now_ns if self._time is None else event[self._time]
                key, row = self.key_of(event), self._row(event, time_ns)
                rows.append(NewRow(self.plan.table, key, row, self.plan.attribute))
        return rows

    def _row(self, event: Mapping[str, Any], time_ns: int) -> bytes:
        values = {}
        for column in self.plan.layout.columns:
            value = event[column.name]
            if column.storage is Storage.JSON and value is not None:
                value = orjson.dumps(api_value(column.dtype, value))
            values[column.name] = value
        return encode_row(self.plan.layout, values, time_ns)

    # --- blocks ---------------------------------------------------------------------------------------------

    def expires_s(self, number: int, now_s: int) -> int:
        """Return when block ``number``, written now, may be deleted; 0 is never."""
        plan = self.plan
        if self.blocks is None or plan.schema is None:
            return 0
        horizon_ns = plan.schema.horizon_ns
        if plan.view.batch_source is not None:
            kept_ns = 3 * horizon_ns
        elif self._reach_ns is None:
            return 0
        else:
            kept_ns = self._reach_ns + 2 * horizon_ns
        # A late event's block isn't gone before anybody could read it.
        return max((self.blocks.end_ns(number) + kept_ns) // SECOND_NS, now_s + DAY_S)


DAY_S = 86_400


def _earliest_ns(plan: ViewPlan, now_ns: int) -> int | None:
    """Return the start of the window that begins first, None where any time counts."""
    if plan.schema is None or any(window.is_lifetime for window in plan.schema.windows):
        return None
    return min(window.start_ns(now_ns) for window in plan.schema.windows)


def _reach_ns(plan: ViewPlan) -> int | None:
    """Return how far back any window reaches, less than a hop, None for no limit."""
    if plan.schema is None or any(window.is_lifetime for window in plan.schema.windows):
        return None
    return max(window.window_ns - window.offset_ns for window in plan.schema.windows)


def _source_refusal(source: PushSource, views: Sequence[ViewFeed]) -> str | None:
    """Return why nothing can be pushed to a source, None if something can."""
    items = [view.name for view in views if not view.is_pushable]
    if not items:
        return None
    return (
        f"Push source {source.name!r}: expected packed rows in all of its views, "
        f"got the attributes format in {', '.join(items)}"
    )


class SourceFeed:
    """The records of one source and the views that read it; ``refusal`` is why none are taken, if so."""

    def __init__(self, source: PushSource, views: Sequence[ViewFeed]) -> None:
        self.source = source
        self.name = source.name
        self.views = tuple(views)
        self.refusal = _source_refusal(source, views)
        self._view_names = ", ".join(view.name for view in views)
        self._names = [field.name for field in source.schema]
        self._reader = RecordReader([(field.name, field.dtype) for field in source.schema])

    def read(
        self, records: Sequence[dict[str, Any]], first: int, errors: list[RecordError]
    ) -> tuple[list[int], list[Values]]:
        """Return the numbers (from ``first`` on) and values of the records that fit the schema.

        The others are added to ``errors``.
        """
        numbers: list[int] = []
        good: list[Values] = []
        for number, record in enumerate(records, first):
            try:
                good.append(self._reader.values(record))
            except RequestError as error:
                errors.append(RecordError(self._view_names, self.name, number, BAD_VALUE, error.message))
            else:
                numbers.append(number)
        return numbers, good

    def events(
        self,
        view: ViewFeed,
        numbers: Sequence[int],
        values: Sequence[Values],
        times: Times,
        errors: list[RecordError],
    ) -> list[dict[str, Any]]:
        """Return one view's events of these records; what it refuses is added to ``errors``."""
        if view.transform is None:
            events = [dict(zip(self._names, record, strict=True)) for record in values]
        else:
            events = self._transformed(view, view.transform, numbers, values, errors)
            numbers = [numbers[0]] * len(events) if numbers else []  # which record made a row isn't known
        for place, (number, event) in enumerate(zip(numbers, events, strict=True)):
            refused = view.refusal(event, times)
            if refused is not None:
                kind, message = refused
                if view.transform is not None:
                    message = f"row {place} of what the transformation made of these records: {message}"
                errors.append(RecordError(view.name, self.name, number, kind, message))
        return events

    def _transformed(
        self,
        view: ViewFeed,
        transform: Transform,
        numbers: Sequence[int],
        values: Sequence[Values],
        errors: list[RecordError],
    ) -> list[dict[str, Any]]:
        if not values:
            return []
        try:
            return transform(values)
        except RequestError as error:
            errors.append(RecordError(view.name, self.name, numbers[0], "TransformationError", error.message))
            return []
