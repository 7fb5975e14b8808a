"""`Attribute` and `Aggregate`: the two kinds of features a view holds.

A feature knows its column, its type and its name, and not the view that holds it: what depends on the view's
interval is asked with the interval as an argument.

Invariants:
1. A valid aggregate's function takes its column's type.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import overload

from fastserve.errors import Location
from fastserve.sdk.checks import Checks, Immutable
from fastserve.sdk.durations import format_duration
from fastserve.sdk.functions import AggregateFunction, check_function, output_type, rule_of
from fastserve.sdk.types import INVALID, Array, DataType, Field, Float64, check_dtype
from fastserve.sdk.windows import AnyWindow, TimeWindow, TimeWindowSeries, check_window


class Attribute(Immutable):
    """A feature whose value is that of a column in the entity's latest row.

    ``Attribute("age", Int64)`` and ``Attribute(Field("age", Int64))`` are the same.

    Args:
        name: The column's name, which is the feature's; or a `Field`.
        dtype: Its type, unless a `Field` says it.
        description: For readers; the API gives it to who asks.
        tags: For readers; the API gives them to who asks.

    Raises:
        DefinitionError: a parameter isn't what is expected (collected while a repo is being loaded).
    """

    column: Field
    description: str
    tags: Mapping[str, str]
    location: Location
    valid: bool

    @overload
    def __init__(
        self, name: Field, *, description: str = "", tags: Mapping[str, str] | None = None
    ) -> None: ...

    @overload
    def __init__(
        self, name: str, dtype: DataType, description: str = "", tags: Mapping[str, str] | None = None
    ) -> None: ...

    def __init__(
        self,
        name: str | Field,
        dtype: DataType | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        checks = Checks("Attribute", name.name if isinstance(name, Field) else name)
        if isinstance(name, Field):
            if dtype is not None and dtype != name.dtype:
                checks.wrong("dtype", f"none beside a Field, which has {name.dtype!r}", dtype)
            self.column = name
        else:
            column_name = checks.identifier("name", name)
            column_dtype = check_dtype(checks, "dtype", dtype)
            self.column = Field(column_name if checks.valid else "invalid", column_dtype)
        self.description = checks.text("description", description)
        self.tags = checks.tags(tags)
        self.location = checks.location
        self.valid = checks.valid and self.column.valid
        self._seal()

    @property
    def name(self) -> str:
        """The feature's name, which is its column's."""
        return self.column.name

    @property
    def dtype(self) -> DataType:
        """The type of the column and of the feature's value."""
        return self.column.dtype

    def __repr__(self) -> str:
        return f"Attribute({self.name!r}, {self.dtype!r})"


class Aggregate(Immutable):
    """A feature computed by a function over a column's values within a time window.

    Over a `TimeWindowSeries` it is an array of the function's values, the oldest window's first.

    Args:
        input_column: A `Field` of the source.
        function: A name such as ``sum``, or a function with parameters such as ``last(3)``.
        time_window: A `TimeWindow` or its length, a `LifetimeWindow`, or a `TimeWindowSeries`.
        name: By default ``<column>_<function>_<window>_<interval>``.
        tail_hop: The step by which the window's far end moves; by default the window's length decides it.
        description: For readers; the API gives it to who asks.
        tags: For readers; the API gives them to who asks.

    Raises:
        DefinitionError: a parameter isn't what is expected (collected while a repo is being loaded).
    """

    input_column: Field
    function: AggregateFunction
    time_window: AnyWindow
    name: str | None
    tail_hop: timedelta | None
    description: str
    tags: Mapping[str, str]
    location: Location
    valid: bool

    def __init__(
        self,
        input_column: Field,
        function: str | AggregateFunction,
        time_window: AnyWindow | timedelta,
        name: str | None = None,
        tail_hop: timedelta | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> None:
        checks = Checks("Aggregate", name)
        column = checks.instance(
            "input_column", input_column, Field, 'a Field such as Field("amount", Float64)'
        )
        checked_function = check_function(checks, function)
        window = check_window(checks, time_window)
        self.input_column = column or Field("invalid", INVALID)
        self.function = checked_function or AggregateFunction("count")
        self.time_window = window or TimeWindow(timedelta(days=1))
        self.name = None if name is None else checks.identifier("name", name)
        self.tail_hop = checks.optional_duration("tail_hop", tail_hop)
        self.description = checks.text("description", description)
        self.tags = checks.tags(tags)
        self._check_type(checks)
        self.location = checks.location
        self.valid = checks.valid and self.input_column.valid and self.time_window.valid
        self._seal()

    def _check_type(self, checks: Checks) -> None:
        rule = rule_of(self.function)
        dtype = self.input_column.dtype
        if dtype.valid and rule.accepts is not None and not rule.takes(dtype):
            accepted = ", ".join(map(repr, rule.accepts))
            checks.wrong(f"{self.function.name} of column {self.input_column.name!r}", accepted, dtype)

    @property
    def output_type(self) -> DataType:
        """The type of the feature's value in a view without an aggregation_secondary_key."""
        element = self.element_type
        return Array(element) if isinstance(self.time_window, TimeWindowSeries) else element

    @property
    def element_type(self) -> DataType:
        """The type of the function's value over one window."""
        return output_type(self.function, self.input_column.dtype) if self.valid else Float64

    def feature_name(self, interval: timedelta | None) -> str:
        """Return the name given, or ``<column>_<function>_<window>_<interval>``; None is ``continuous``."""
        if self.name is not None:
            return self.name
        step = "continuous" if interval is None else format_duration(interval)
        return f"{self.input_column.name}_{self.function.label}_{self.time_window.label}_{step}"

    def __repr__(self) -> str:
        return f"Aggregate({self.input_column.name!r}, {self.function.label!r}, {self.time_window.label})"


Feature = Attribute | Aggregate
