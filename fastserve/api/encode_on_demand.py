"""Whole vectors as JSON: what on-demand views computed in front of what was read.

Invariants
1. Values are written as `encode` writes stored ones of their types: int64 and what isn't finite as strings,
   times as ISO-8601, structs as lists in the fields' order.
2. A view that came late (the caller's latency budget) is null in all its features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import orjson

from fastserve.api.encode import FeaturesEncoder
from fastserve.errors import InvariantError
from fastserve.plan.on_demand import OnDemandOutput
from fastserve.plan.service import ServicePlan
from fastserve.sdk.types import Array, DataType, Float32, Float64, Int64, Map, Struct, Timestamp
from fastserve.serving.columns import Columns
from fastserve.serving.on_demand_batch import EPOCH, MICROSECOND
from fastserve.tiles.times import format_time

INFINITY = float("inf")
Convert = Callable[[Any], Any]


class VectorEncoder:
    """Encodes lines as the API's ``features`` array, for a service with on-demand views or without.

    ``encode`` returns the JSON array of one line's values.
    """

    def __init__(self, plan: ServicePlan) -> None:
        self._stored = FeaturesEncoder(plan)
        self._has_stored = plan.visible_inputs > 0
        self._views = on_demand_views(plan, converter)
        self.encode: Callable[[Columns, int], bytes] = (
            self._encode_all if self._views else self._stored.encode
        )

    def _encode_all(self, columns: Columns, line: int) -> bytes:
        """Return the JSON array of one line's values, on-demand views and what was read.

        Raises:
            RequestError: a view of this line has failed.
        """
        values = computed_values(self._views, columns, line)
        front = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
        if not self._has_stored:
            return front
        return front[:-1] + b"," + self._stored.encode(columns, line)[1:]


View = tuple[int, Callable[[Any], Any] | None, list[Convert | None]]


def computed_values(views: Sequence[View], columns: Columns, line: int) -> list[Any]:
    """Return what the on-demand views of a line gave, converted.

    Raises:
        RequestError: a view of this line has failed.
    """
    computed = columns.computed
    if computed is None:
        raise InvariantError("a line was to be encoded before its on-demand views were computed")
    if computed.errors and line in computed.errors:
        raise computed.errors[line]
    values: list[Any] = []
    for number, pick, converters in views:
        result = computed.results[number][line]
        if not result:
            values += [None] * len(converters)
            continue
        chosen = result if pick is None else pick(result)
        values += [
            value if value is None or convert is None else convert(value)
            for value, convert in zip(chosen, converters)  # noqa: B905 - made together; twice as slow
        ]
    return values


def on_demand_views(plan: ServicePlan, convert: Callable[[DataType], Convert | None]) -> list[View]:
    """Return the answer's on-demand part: per reference the view, which of its values, and converters."""
    references: dict[str, list[OnDemandOutput]] = {}
    for output in plan.outputs:
        if isinstance(output, OnDemandOutput):
            references.setdefault(output.view, []).append(output)
    views: list[View] = []
    for outputs in references.values():
        number = outputs[0].plan
        fields = [output.field for output in outputs]
        whole = fields == list(range(len(plan.on_demand[number].output_fields)))
        views.append((number, None if whole else _picker(fields), [convert(o.dtype) for o in outputs]))
    return views


def _picker(fields: list[int]) -> Callable[[Any], Any]:
    if len(fields) == 1:
        only = fields[0]
        return lambda values: (values[only],)
    return itemgetter(*fields)


def converter(dtype: DataType, scalars: Mapping[DataType, Convert] | None = None) -> Convert | None:
    """Return what makes a value, not null, what orjson writes as the API wants it; None for nothing to do.

    ``scalars`` says what is done to single values where it isn't to be JSON.
    """
    scalars = _SCALARS if scalars is None else scalars
    if isinstance(dtype, Array):
        element = converter(dtype.element, scalars)
        return None if element is None else lambda items: [_or_null(element, item) for item in items]
    if isinstance(dtype, Map):
        member = converter(dtype.value, scalars)
        return (
            None
            if member is None
            else lambda items: {key: _or_null(member, item) for key, item in items.items()}
        )
    if isinstance(dtype, Struct):
        members = [(field.name, converter(field.dtype, scalars)) for field in dtype.fields]
        return lambda value: [_or_null(convert, value[name]) for name, convert in members]
    return scalars.get(dtype)


def _or_null(convert: Convert | None, value: Any) -> Any:
    return value if value is None or convert is None else convert(value)


def json_float(value: Any) -> Any:
    """Return a float, Python's or NumPy's, as the API's JSON has it: as text where it isn't finite."""
    return value if -INFINITY < value < INFINITY else _not_finite(value)


def _single(value: float) -> Any:
    return np.float32(value) if -INFINITY < value < INFINITY else _not_finite(value)


def _not_finite(value: Any) -> str:
    if value != value:  # noqa: PLR0124 - NaN isn't
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def time_text(value: Any) -> str:
    """Return a datetime of UTC as the API writes it."""
    return format_time((value - EPOCH) // MICROSECOND * 1_000)


_SCALARS: dict[DataType, Convert] = {Int64: str, Float64: json_float, Float32: _single, Timestamp: time_text}
