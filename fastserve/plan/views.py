"""A feature view compiled: its table, its keys, the layout of its rows.

What reads rows (serving) and what writes them (ingest) both start from a `ViewPlan`, so that they can't
disagree.

Invariants
1. A view plan is a function of the view, the workspace and the stores' table prefixes alone: every host makes
   the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from fastserve.errors import DefinitionError
from fastserve.plan.feast_keys import FEAST_KEY, feast_key
from fastserve.plan.keys import encode_key, ordinary_key
from fastserve.plan.reads import PACKED_KEY, CachePolicy, KeyAttributes
from fastserve.plan.stores import MAIN_STORE, TablePrefixes
from fastserve.plan.streams import StreamPlan, stream_plan
from fastserve.sdk.feast_format import FeastFormat
from fastserve.sdk.features import Aggregate, Attribute
from fastserve.sdk.row_format import AttributesFormat
from fastserve.sdk.sources import PushSource
from fastserve.sdk.types import DataType, Field, Int64, Timestamp
from fastserve.sdk.views import FeatureView
from fastserve.sdk.windows import LifetimeWindow, TimeWindow, TimeWindowSeries
from fastserve.tiles.aggregates import AggregateSpec, CompactedSchema, make_schema
from fastserve.tiles.layout import RowLayout, make_layout
from fastserve.tiles.windows import LIFETIME_NS, Window, default_hop_ns, floor_to
from fastserve.wire.feast_key import FeastKeyForm

MICROSECOND_NS = 1_000

ROW_ATTRIBUTE = "v"
"""The attribute of an item that is one row and nothing else."""
BUNDLED_MARK = "v:"
"""Begins the names of attributes that hold rows in a bundle's items; the view's name follows."""


def duration_ns(duration: timedelta) -> int:
    """Return a duration in nanoseconds, exactly."""
    return duration // timedelta(microseconds=1) * MICROSECOND_NS


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """What serving and ingest need to know of a view.

    ``schema`` is None for attribute views. ``ttl_ns`` is None where rows don't expire.
    ``timestamp_attribute`` names the attribute that holds an attributes-format item's time, if any.
    ``stream`` is where a streamed view of aggregates has its blocks; a streamed view of attributes has rows
    alone, and the newest wins. ``feast`` is how keys are made where Feast wrote the rows. ``attribute`` is
    that of a bundle's items which holds the view's rows; None where a row is an item of its own.
    """

    view: FeatureView
    table: str
    key_fields: tuple[Field, ...]
    key_attributes: KeyAttributes
    packed: bool
    layout: RowLayout
    schema: CompactedSchema | None
    ttl_ns: int | None
    interval_ns: int | None
    timestamp_attribute: str | None = None
    stream: StreamPlan | None = None
    feast: FeastKeyForm | None = None
    attribute: str | None = None

    @property
    def row_place(self) -> tuple[str, str | None]:
        """Where the view's rows lie: the table and, in a bundle, the attribute."""
        return self.table, self.attribute

    @property
    def cache(self) -> CachePolicy | None:
        """How long workers keep the view's rows, and blocks; None: not at all."""
        ttl, stale = self.view.cache_ttl, self.view.stale_ttl
        return (
            None if ttl is None else CachePolicy(duration_ns(ttl), 0 if stale is None else duration_ns(stale))
        )

    @property
    def is_streamed(self) -> bool:
        """Whether events are pushed to the view."""
        return isinstance(self.view.source, PushSource)

    @property
    def is_pushed(self) -> bool:
        """Whether events are written to the view's rows themselves; those of aggregates go to blocks."""
        return self.is_streamed and self.stream is None

    @property
    def name(self) -> str:
        """The view's name."""
        return self.view.name

    @property
    def store(self) -> str:
        """The name of the store in which rows and blocks lie."""
        return self.view.store or MAIN_STORE

    @property
    def tables(self) -> tuple[str, ...]:
        """All tables of the view: that of its rows, and that of its blocks if it has any."""
        return (self.table,) if self.stream is None else (self.table, self.stream.table)

    def key_text(self, values: Sequence[Any]) -> str:
        """Return the text under which a row is written and read; ``values`` are in the view's order."""
        dtypes = [field.dtype for field in self.key_fields]
        if self.packed:
            return encode_key(dtypes, values)
        texts = [encode_key([dtype], [value]) for dtype, value in zip(dtypes, values, strict=True)]
        if self.feast is not None:
            return feast_key(self.feast)(texts)
        return ordinary_key(self.key_attributes, texts)

    def as_of_ns(self, until_ns: int) -> int:
        """Return the as_of of rows of all events before ``until_ns``: the last complete tile's end."""
        return floor_to(until_ns, self.interval_ns or 1)


def plan_view(view: FeatureView, workspace: str, prefixes: TablePrefixes | str) -> ViewPlan:
    """Compile one view; a text for ``prefixes`` is the main store's, where there is no other.

    Raises:
        DefinitionError: the attributes format asks for what its items can't hold, or the view's store isn't
            configured.
    """
    table_prefix = (TablePrefixes(prefixes) if isinstance(prefixes, str) else prefixes).of(view)
    interval_ns = None if view.aggregation_interval is None else duration_ns(view.aggregation_interval)
    schema = _schema(view, interval_ns) if interval_ns is not None and view.is_aggregate else None
    layout = (
        schema.layout
        if schema
        else make_layout([(f.name, f.dtype) for f in view.features if isinstance(f, Attribute)])
    )
    row_format = view.row_format
    packed = row_format == "packed"
    feast = _feast_key_form(view, row_format) if isinstance(row_format, FeastFormat) else None
    own_table = view.table or f"{table_prefix}{workspace}.{view.name}"
    table = own_table if view.bundle is None else f"{table_prefix}{workspace}.{view.bundle}"
    streamed = schema is not None and isinstance(view.source, PushSource)
    return ViewPlan(
        view=view,
        table=table,
        key_fields=view.join_keys,
        key_attributes=_item_key_attributes(view, row_format)
        if isinstance(row_format, AttributesFormat)
        else PACKED_KEY
        if feast is None
        else FEAST_KEY,
        packed=packed,
        layout=layout,
        schema=schema,
        ttl_ns=None if view.ttl is None else duration_ns(view.ttl),
        interval_ns=interval_ns,
        timestamp_attribute=row_format.timestamp_attribute
        if isinstance(row_format, AttributesFormat)
        else None,
        stream=stream_plan(own_table, duration_ns(view.horizon), interval_ns)
        if streamed and interval_ns is not None
        else None,
        feast=feast,
        attribute=None if view.bundle is None else BUNDLED_MARK + view.name,
    )


def _feast_key_form(view: FeatureView, row_format: FeastFormat) -> FeastKeyForm:
    keys = view.join_keys
    types = tuple(row_format.key_type(key.name, key.dtype) for key in keys)
    return FeastKeyForm(tuple(key.name for key in keys), types, row_format.key_version)


def _schema(view: FeatureView, interval_ns: int) -> CompactedSchema:
    horizon_ns = duration_ns(view.horizon)
    specs = [
        aggregate_spec(feature, view, interval_ns, horizon_ns)
        for feature in view.features
        if isinstance(feature, Aggregate)
    ]
    return make_schema(specs, horizon_ns)


def aggregate_spec(feature: Aggregate, view: FeatureView, interval_ns: int, horizon_ns: int) -> AggregateSpec:
    """Return what the tiles need to know of one aggregate: its windows' hops are settled here."""
    key = view.aggregation_secondary_key
    name = feature.feature_name(view.aggregation_interval)
    windows = tuple(
        _window(each, feature, view, interval_ns, horizon_ns) for each in feature.time_window.elements
    )
    return AggregateSpec(
        name=name,
        function=feature.function.name,
        column=feature.input_column.name,
        input_type=feature.input_column.dtype,
        output_type=view.output_type(name),
        window=windows[0],
        params=feature.function.params,
        secondary_key=None if key is None else key.name,
        key_type=None if key is None else key.dtype,
        series=windows if isinstance(feature.time_window, TimeWindowSeries) else (),
    )


def _window(
    window: TimeWindow | LifetimeWindow,
    feature: Aggregate,
    view: FeatureView,
    interval_ns: int,
    horizon_ns: int,
) -> Window:
    complete_only = view.leading_edge == "last_complete_tile"
    if isinstance(window, LifetimeWindow):
        return Window(LIFETIME_NS, interval_ns, interval_ns, horizon_ns, 0, complete_only)
    window_ns = duration_ns(window.window_size)
    if feature.tail_hop is not None:
        hop_ns = duration_ns(feature.tail_hop)
    elif complete_only:
        hop_ns = interval_ns  # [E - w, E) starts at any tile
    else:
        hop_ns = default_hop_ns(window_ns, interval_ns)
    return Window(window_ns, hop_ns, interval_ns, horizon_ns, duration_ns(window.offset), complete_only)


def _item_key_attributes(view: FeatureView, row_format: AttributesFormat) -> KeyAttributes:
    if view.is_aggregate:
        raise DefinitionError(
            f"view {view.name!r}: expected attribute features with the attributes format, got aggregates",
            view.location,
        )
    names = [name for name in (row_format.partition_key, row_format.sort_key) if name is not None]
    if not names:
        names = [field.name for field in view.join_keys]
    if len(names) != len(view.join_keys) or len(names) > 2:
        raise DefinitionError(
            f"view {view.name!r}: expected as many join keys as the table has key attributes (1 or 2), "
            f"got {len(view.join_keys)} join keys and {len(names)} key attributes",
            view.location,
        )
    return tuple((name, _key_type(field.dtype)) for name, field in zip(names, view.join_keys, strict=True))


def _key_type(dtype: DataType) -> str:
    return "N" if dtype in (Int64, Timestamp) else "S"
