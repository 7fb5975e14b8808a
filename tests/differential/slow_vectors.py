"""The slow, obvious twin of the evaluator: one vector, row by row, slot by slot, feature by feature.

It reads rows with `decode_row` alone and adds up slots in Python. What a slot covers it takes from
`Window.slot_bounds_ns`, and whether that is inside the window asked for it works out from the times.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from fastserve.plan.service import Output, Place, ServicePlan
from fastserve.sdk.types import Float32, Float64, Int64, Timestamp
from fastserve.tiles.aggregates import AggregateFeature, Op
from fastserve.tiles.layout import NO_ROW, Column, RowLayout, Storage
from fastserve.tiles.rows import RowError, decode_row, effective_ns_of
from fastserve.tiles.times import format_time

MINUTE_NS = 60_000_000_000
INT64 = 2**63


@dataclass
class SlowVector:
    """Values as the API's JSON has them once it is read, and per place status and effective time."""

    values: list[Any]
    statuses: list[str]
    effective_ns: list[int | None]


@dataclass
class _Row:
    status: str
    effective_ns: int | None = None
    values: Mapping[str, Any] | None = None
    is_known: bool = True


def slow_vector(
    plan: ServicePlan,
    rows: Sequence[Any],
    now_ns: int,
    *,
    zero_counts: bool = False,
    old_layouts: Mapping[str, Mapping[int, RowLayout]] | None = None,
) -> SlowVector:
    """Evaluate one line of rows, which are bytes, base64 text or None."""
    read = [
        _read(place, row, now_ns, (old_layouts or {}).get(place.view.name, {}))
        for place, row in zip(plan.places, rows, strict=True)
    ]
    values = [
        _value(output, plan.places[output.place], read[output.place], now_ns, zero_counts=zero_counts)
        for output in plan.inputs
    ]
    return SlowVector(
        [_as_json(output, value) for output, value in zip(plan.inputs, values, strict=True)],
        [row.status for row in read],
        [row.effective_ns for row in read],
    )


def _read(place: Place, raw: Any, now_ns: int, old: Mapping[int, RowLayout]) -> _Row:
    if raw is None:
        return _Row("MISSING_DATA")
    view = place.view
    try:
        if isinstance(raw, str) and len(raw) % 4:
            raise ValueError(raw)  # the standard library passes over a "=" too many
        row = base64.b64decode(raw, validate=True) if isinstance(raw, str) else raw
        if row == NO_ROW:
            return _Row("MISSING_DATA", is_known=False)
        try:
            values = decode_row(view.layout, row)
        except RowError as error:
            if error.schema_id is None or error.schema_id not in old:
                raise
            then = old[error.schema_id]
            found = decode_row(then, row)
            values = {
                column.name: found[column.name]
                if column.name in found and then.by_name[column.name].dtype == column.dtype
                else None
                for column in view.layout.columns
            }
    except (RowError, ValueError):
        return _Row("UNKNOWN")
    effective_ns = effective_ns_of(row)
    if view.ttl_ns is not None and effective_ns + view.ttl_ns < now_ns:
        return _Row("MISSING_DATA")
    if view.schema is not None:
        too_old = effective_ns + view.schema.horizon_ns < now_ns
        if too_old or effective_ns > now_ns + MINUTE_NS:
            return _Row("MISSING_DATA")
    return _Row("PRESENT", effective_ns, values)


def _value(output: Output, place: Place, row: _Row, now_ns: int, *, zero_counts: bool) -> Any:
    source = output.source
    if isinstance(source, Column):
        return None if row.values is None else row.values[source.name]
    if row.values is None:
        is_empty = row.status == "MISSING_DATA" and row.is_known
        return 0 if zero_counts and is_empty and source.spec.function == "count" else None
    assert row.effective_ns is not None
    return _aggregate(source, place, row.values, row.effective_ns, now_ns, zero_counts=zero_counts)


def _aggregate(
    feature: AggregateFeature,
    place: Place,
    values: Mapping[str, Any],
    as_of_ns: int,
    now_ns: int,
    *,
    zero_counts: bool,
) -> Any:
    assert feature.value is not None, "one of bytes or a series: the twin over raw events has those"
    stored = _live(place, feature.value, values, as_of_ns, now_ns)
    count = None if feature.count is None else sum(_live(place, feature.count, values, as_of_ns, now_ns))
    assert place.view.schema is not None
    op = place.view.schema.components[feature.value].op
    if op is Op.COUNT:
        return sum(stored) or (0 if zero_counts else None)
    if op in (Op.MIN_F, Op.MAX_F):
        numbers = [x for x in stored if x is not None and not math.isnan(x)]
        return (min if op is Op.MIN_F else max)(numbers) if numbers else None
    if op is Op.ADD_F:
        present = [x for x in stored if not (x == 0 and math.copysign(1, x) < 0)]
        if feature.count is None:
            return sum(present) if present else None
        return sum(present, -0.0) / count if count else None
    if not count:
        return None
    if op is Op.ADD_I:
        total = None if None in stored else sum(stored)
        if total is None or not -INT64 < total < INT64:
            return None
        return float(total) / count if feature.spec.function == "mean" else total
    exact = [-INT64 if x is None else x for x in stored]  # a maximum's neutral element looks like null
    best = (min if op is Op.MIN_I else max)(exact, default=INT64 - 1 if op is Op.MIN_I else -INT64)
    return None if best == -INT64 else best


def _live(place: Place, number: int, values: Mapping[str, Any], as_of_ns: int, now_ns: int) -> list[Any]:
    """Return the component's numbers in the slots that the window asked at ``now_ns`` covers."""
    schema = place.view.schema
    assert schema is not None
    first = sum(component.window.slots for component in schema.components[:number])
    window = schema.components[number].window
    names = [column.name for column in place.view.layout.columns[first : first + window.slots]]
    start_ns = (max(now_ns, as_of_ns) - window.window_ns) // window.hop_ns * window.hop_ns
    return [
        values[name]
        for name, (low_ns, high_ns) in zip(names, window.slot_bounds_ns(as_of_ns), strict=True)
        if low_ns >= start_ns and low_ns < high_ns
    ]


def _as_json(output: Output, value: Any) -> Any:
    """Return what reading the API's JSON of a value gives."""
    if value is None:
        return None
    if isinstance(output.source, Column) and output.source.storage is Storage.JSON:
        return orjson.loads(value)
    if output.dtype == Int64:
        return str(value)
    if output.dtype == Timestamp:
        return format_time(value)
    if output.dtype in (Float64, Float32):
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        return value if output.dtype == Float64 else _shortest_single(value)
    return value


def _shortest_single(value: float) -> float:
    return float(str(np.float32(value)))
