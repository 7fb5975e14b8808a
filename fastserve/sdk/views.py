"""`FeatureView`: features of some entities from one source, and everything that decides how they come to be.

A view is either of *attributes* (the latest row of an entity key wins) or of *aggregates* (column, function,
window). The rules that its parts must keep together stand in `view_rules`.

Invariants:
1. A valid view's join keys have different names, its features have different names, and no feature is named
   like a join key.
2. A valid view of aggregates has an interval and a timestamp_field, and its windows are whole numbers of the
   interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from fastserve.errors import InvariantError
from fastserve.sdk.checks import Checks, Definition
from fastserve.sdk.entity import Entity
from fastserve.sdk.features import Aggregate, Attribute, Feature
from fastserve.sdk.reference import FeatureViewReference
from fastserve.sdk.row_format import RowFormat, check_row_format
from fastserve.sdk.secondary_key import check_secondary_key, secondary_keys
from fastserve.sdk.sources import ExternalSource, FileSource, PushSource, Source
from fastserve.sdk.types import Array, DataType, Field
from fastserve.sdk.view_rules import INTERVAL_MIN, check_transformation, check_view

if TYPE_CHECKING:
    import pyarrow as pa

Transformation: TypeAlias = (
    "str | Callable[[pa.Table], pa.Table] | Callable[[pa.RecordBatch], pa.Table | pa.RecordBatch]"
)
LeadingEdge = Literal["now", "last_complete_tile"]
HORIZON_DEFAULT: Final = timedelta(days=2)
_FEATURES: Final = (Attribute, Aggregate)


class FeatureView(Definition):
    """Features of the entities, computed from the source's rows.

    Args:
        name: A view's name; the features of its vector are named ``<view>.<feature>``.
        entities: The entities whose join keys name one row.
        source: Where rows come from.
        features: Attributes, or aggregates; never both.
        timestamp_field: The column with the event's time, by default the source's.
        ttl: For attributes: how old a row may be and still be served.
        aggregation_interval: For aggregates: the length of a tile, at least a minute.
        aggregation_secondary_key: For aggregates: a column by which the values of one entity are told apart;
            features become arrays, aligned with the added feature ``<key>_keys_<window>``.
        leading_edge: Whether windows end at the request (``now``) or with the last complete tile.
        horizon: For how long after it was written a row can answer exactly.
        transformation: SQL in which the source is a table (its name, or ``{source}``) and ``{until}``
            the time up to which is materialized, or a function of a
            ``pyarrow.Table`` that returns one (annotated with ``pyarrow.RecordBatch`` it is called batch by
            batch). None: the source's columns are used as they are.
        batch_schedule: How often the view is to be materialized.
        start_time: Events before it don't count; without a time zone it is UTC.
        row_format: ``packed``, or an `AttributesFormat` or a `FeastFormat` for tables that exist.
        table: The store's table, used as it stands; by default one named after workspace and view.
        description: For readers.
        tags: For readers.
        owner: For readers.
        cache_ttl: How old rows may be that a worker serves out of its memory; None: each request asks the
            store.
        stale_ttl: How old they may be where the store can't be read; at least the cache_ttl.
        cache_streamed: That cache_ttl holds for a view to which events are pushed, too: what was pushed is
            then served that much later.
        store: The name of the store in which the view's rows lie; where it is, the operator says. None: the
            main one.

    Raises:
        DefinitionError: a parameter isn't what is expected (collected while a repo is being loaded).
    """

    entities: tuple[Entity, ...]
    join_keys: tuple[Field, ...]
    source: Source
    features: tuple[Feature, ...]
    timestamp_field: str | None
    ttl: timedelta | None
    aggregation_interval: timedelta | None
    aggregation_secondary_key: Field | None
    leading_edge: LeadingEdge
    horizon: timedelta
    transformation: Transformation | None
    batch_schedule: timedelta | None
    start_time: datetime | None
    row_format: RowFormat
    table: str | None
    cache_ttl: timedelta | None
    stale_ttl: timedelta | None
    cache_streamed: bool
    store: str | None
    feature_names: tuple[str, ...]
    has_source: bool  # false only while a repo's faults are being collected

    def __init__(
        self,
        name: str,
        entities: Sequence[Entity] | Entity,
        source: Source,
        features: Sequence[Attribute] | Sequence[Aggregate],
        timestamp_field: str | None = None,
        ttl: timedelta | None = None,
        aggregation_interval: timedelta | None = None,
        leading_edge: LeadingEdge = "now",
        horizon: timedelta = HORIZON_DEFAULT,
        transformation: Transformation | None = None,
        batch_schedule: timedelta | None = None,
        start_time: datetime | None = None,
        row_format: RowFormat = "packed",
        table: str | None = None,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str | None = None,
        aggregation_secondary_key: Field | None = None,
        cache_ttl: timedelta | None = None,
        stale_ttl: timedelta | None = None,
        cache_streamed: bool = False,
        store: str | None = None,
    ) -> None:
        checks = Checks("FeatureView", name)
        self.name = checks.identifier("name", name)
        self._describe(checks, description, tags, owner)
        self._take_source(checks, source, timestamp_field, transformation)
        self._take_times(checks, ttl, aggregation_interval, leading_edge, horizon, batch_schedule, start_time)
        self.aggregation_secondary_key = check_secondary_key(checks, aggregation_secondary_key)
        self._take_features(checks, entities, features)
        self.row_format = check_row_format(checks, row_format)
        self.table = checks.optional_text("table", table)
        self.cache_ttl = checks.optional_duration("cache_ttl", cache_ttl)
        self.stale_ttl = checks.optional_duration("stale_ttl", stale_ttl)
        self.cache_streamed = checks.instance("cache_streamed", cache_streamed, bool, "bool") or False
        self.store = None if store is None else checks.identifier("store", store)
        check_view(checks, self)
        self._register(checks, parts_valid=self._parts_valid())

    def _take_source(
        self, checks: Checks, source: object, timestamp_field: object, transformation: object
    ) -> None:
        checked = _checked_source(checks, source)
        self.timestamp_field = checks.optional_text("timestamp_field", timestamp_field)
        self.has_source = checked is not None
        if checked is not None:
            self.source = checked
            self.timestamp_field = self.timestamp_field or checked.timestamp_field
        self.transformation = check_transformation(checks, transformation, checked)

    def _take_times(
        self,
        checks: Checks,
        ttl: object,
        aggregation_interval: object,
        leading_edge: object,
        horizon: object,
        batch_schedule: object,
        start_time: object,
    ) -> None:
        self.ttl = checks.optional_duration("ttl", ttl)
        self.aggregation_interval = checks.optional_duration("aggregation_interval", aggregation_interval)
        if self.aggregation_interval is None and aggregation_interval is not None:
            self.aggregation_interval = INTERVAL_MIN  # every window is whole to it: no further message
        edge = checks.choice("leading_edge", leading_edge, ("now", "last_complete_tile"))
        self.leading_edge = "last_complete_tile" if edge == "last_complete_tile" else "now"
        self.horizon = checks.duration("horizon", horizon) or HORIZON_DEFAULT
        self.batch_schedule = checks.optional_duration("batch_schedule", batch_schedule)
        self.start_time = _checked_start_time(checks, start_time)

    def _take_features(self, checks: Checks, entities: object, features: object) -> None:
        self.entities = checks.instances("entities", entities, Entity, "Entity")
        self.join_keys = tuple(key for entity in self.entities for key in entity.join_keys)
        given: tuple[Feature, ...] = checks.instances(
            "features", features, _FEATURES, "Attribute or Aggregate"
        )
        self.features = (*given, *secondary_keys(self.aggregation_secondary_key, given))
        self.feature_names = tuple(
            feature.name
            if isinstance(feature, Attribute)
            else feature.feature_name(self.aggregation_interval)
            for feature in self.features
        )

    def _parts_valid(self) -> bool:
        parts = (*self.entities, *self.features)
        format_valid = self.row_format == "packed" or self.row_format.valid
        return self.has_source and self.source.valid and format_valid and all(part.valid for part in parts)

    @property
    def is_streamed(self) -> bool:
        """Whether events are pushed to the view, beside files or without."""
        return self.has_source and isinstance(self.source, PushSource)

    @property
    def is_aggregate(self) -> bool:
        """Whether the features are aggregates; else they are attributes."""
        return any(isinstance(feature, Aggregate) for feature in self.features)

    @property
    def aggregates(self) -> tuple[Aggregate, ...]:
        """The features, when they are aggregates; else none."""
        return tuple(feature for feature in self.features if isinstance(feature, Aggregate))

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The features, when they are attributes; else none."""
        return tuple(feature for feature in self.features if isinstance(feature, Attribute))

    @property
    def batch_source(self) -> FileSource | None:
        """The files that the view is materialized from, if there are any."""
        if isinstance(self.source, PushSource):
            return self.source.batch_source
        return self.source if isinstance(self.source, FileSource) else None

    @property
    def is_external(self) -> bool:
        """Whether somebody else writes the view's rows."""
        return self.has_source and isinstance(self.source, ExternalSource)

    @property
    def input_columns(self) -> tuple[Field, ...]:
        """The columns that rows must have after the transformation, join keys first; less the timestamp."""
        columns = {key.name: key for key in self.join_keys}
        for feature in self.features:
            column = feature.column if isinstance(feature, Attribute) else feature.input_column
            columns.setdefault(column.name, column)
        return tuple(columns.values())

    def feature(self, name: str) -> Feature:
        """Return the feature of that name.

        Raises:
            InvariantError: the view has none; selections are checked when they are made.
        """
        try:
            return self.features[self.feature_names.index(name)]
        except ValueError:
            raise InvariantError(f"view {self.name} has no feature {name}") from None

    def output_type(self, name: str) -> DataType:
        """Return the type of a feature's value.

        Raises:
            InvariantError: the view has no such feature.
        """
        feature = self.feature(name)
        if isinstance(feature, Attribute):
            return feature.dtype
        return feature.output_type if self.aggregation_secondary_key is None else Array(feature.output_type)

    def __getitem__(self, features: list[str] | tuple[str, ...]) -> FeatureViewReference:
        """Return a reference to only these of the features."""
        return FeatureViewReference(self)[features]

    def with_name(self, name: str) -> FeatureViewReference:
        """Return a reference whose features are named ``<name>.<feature>``."""
        return FeatureViewReference(self).with_name(name)

    def with_join_key_map(self, join_key_map: Mapping[str, str]) -> FeatureViewReference:
        """Return a reference for which requests name the view's join keys (left) otherwise (right)."""
        return FeatureViewReference(self).with_join_key_map(join_key_map)


def _checked_source(checks: Checks, value: object) -> Source | None:
    if isinstance(value, (FileSource, PushSource, ExternalSource)):
        return value
    checks.wrong("source", "a FileSource, a PushSource or an ExternalSource", value)
    return None


def _checked_start_time(checks: Checks, value: object) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        checks.wrong("start_time", "a datetime", value)
        return None
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        checks.wrong("start_time", "a datetime that exists in UTC", value)
        return None
