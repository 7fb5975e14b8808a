"""The rules that a view's parts must keep together, each a function that reports what breaks it.

Those of how its rows lie in a store stand in `row_rules`.

Invariants:
1. A rule looks only at parts that are valid by themselves: one mistake is one message.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from fastserve.sdk.checks import NAME_CHARS_MAX, Checks
from fastserve.sdk.durations import format_duration
from fastserve.sdk.feast_format import FeastFormat
from fastserve.sdk.features import Aggregate, Attribute
from fastserve.sdk.functions import SECONDARY_KEYS
from fastserve.sdk.row_rules import ROW_RULES
from fastserve.sdk.sources import PushSource, Source, check_timestamp_column
from fastserve.sdk.types import Field, Timestamp
from fastserve.sdk.windows import LifetimeWindow, TimeWindowSeries

if TYPE_CHECKING:
    from fastserve.sdk.views import FeatureView

INTERVAL_MIN: Final = timedelta(minutes=1)
SOURCE_PLACE: Final = "{source}"
# What a transformation in SQL may say for the time up to which is materialized.
UNTIL_PLACE: Final = "{until}"


def check_view(checks: Checks, view: FeatureView) -> None:
    """Report every rule that the view breaks."""
    for rule in _RULES:
        rule(checks, view)


def check_transformation(
    checks: Checks, value: object, source: Source | None
) -> str | Callable[[Any], Any] | None:
    """Return the transformation when it is SQL over the source, or a function of one table."""
    if value is None:
        return None
    if isinstance(value, str):
        if source is not None and not _reads(value, source.name):
            checks.wrong("transformation", f"SQL that reads FROM {SOURCE_PLACE} or FROM {source.name}", value)
        return value
    if not callable(value) or isinstance(value, type):
        checks.wrong("transformation", "SQL as a str, or a function of a pyarrow.Table", value)
        return None
    if inspect.iscoroutinefunction(value):
        checks.wrong("transformation", "a function that isn't a coroutine function", value)
    elif not _takes_one_argument(value):
        checks.wrong("transformation", "a function of one argument, a pyarrow.Table", value)
    return value


def _reads(sql: str, table: str) -> bool:
    # Whether it compiles is for DuckDB to say; a query that never names its source is a mistake in any case.
    return (
        SOURCE_PLACE in sql or re.search(rf"(?<!\w){re.escape(table)}(?!\w)", sql, re.IGNORECASE) is not None
    )


def _takes_one_argument(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # some builtins have no signature
        return True
    return True


def _join_keys_differ(checks: Checks, view: FeatureView) -> None:
    seen: dict[str, str] = {}
    for entity in view.entities:
        for key in entity.join_keys if entity.valid else ():
            if key.name in seen:
                checks.fault(
                    f"entities: the join key {key.name!r} is in {seen[key.name]!r} and in {entity.name!r} "
                    "(expected each join key once)"
                )
            seen[key.name] = entity.name


def _features_are_of_one_kind(checks: Checks, view: FeatureView) -> None:
    first = next(iter(view.features), None)
    for feature in view.features:
        if type(feature) is not type(first):
            checks.wrong("features", "only attributes or only aggregates", feature, feature.location)
            return


def _all_are(kind: type, view: FeatureView) -> bool:
    return bool(view.features) and all(isinstance(feature, kind) for feature in view.features)


def _feature_names_differ(checks: Checks, view: FeatureView) -> None:
    keys = {key.name for key in view.join_keys}
    seen: set[str] = set()
    for feature, name in zip(view.features, view.feature_names, strict=True):
        if not feature.valid:
            continue
        if name in seen:
            checks.fault(
                f"the feature name {name!r} stands there twice (expected different names)", feature.location
            )
        elif name in keys:
            checks.fault(
                f"the feature {name!r} is named like a join key (expected another name)", feature.location
            )
        elif len(name) > NAME_CHARS_MAX:
            checks.wrong(
                "feature name",
                f"at most {NAME_CHARS_MAX} characters; name= shortens it",
                name,
                feature.location,
            )
        seen.add(name)


def _columns_agree(checks: Checks, view: FeatureView) -> None:
    first_by_name = {key.name: key for key in view.join_keys if key.valid}
    for feature in view.features:
        column = feature.column if isinstance(feature, Attribute) else feature.input_column
        if not column.valid:
            continue
        first = first_by_name.setdefault(column.name, column)
        if column.name == view.timestamp_field and column.dtype != Timestamp:
            expected = "Timestamp, for it is the timestamp_field"
            checks.wrong(f"column {column.name!r}", expected, column.dtype, feature.location)
        elif first.dtype != column.dtype:
            checks.wrong(
                f"column {column.name!r}",
                f"{first.dtype!r} as at {first.location}",
                column.dtype,
                feature.location,
            )


def _pushed_columns_exist(checks: Checks, view: FeatureView) -> None:
    # With a transformation the columns are what it makes of the source's.
    if not view.has_source or view.transformation is not None:
        return
    source = view.source
    if not isinstance(source, PushSource) or not source.valid:
        return
    for column in view.input_columns:
        pushed = source.column(column.name)
        if not column.valid:
            continue
        if pushed is None:
            names = ", ".join(field.name for field in source.schema)
            checks.wrong(
                f"column {column.name!r}",
                f"one of source {source.name!r}: {names}",
                column,
                _place(view, column),
            )
        elif pushed.dtype != column.dtype:
            expected = f"{pushed.dtype!r} as in source {source.name!r}"
            checks.wrong(f"column {column.name!r}", expected, column.dtype, _place(view, column))
    if view.timestamp_field is not None:
        check_timestamp_column(checks, view.timestamp_field, source.schema)


def _place(view: FeatureView, column: Field) -> Any:
    return None if column in view.join_keys else column.location


def _attributes_have_no_tiles(checks: Checks, view: FeatureView) -> None:
    if not _all_are(Attribute, view):
        return
    if view.aggregation_interval is not None:
        checks.wrong("aggregation_interval", "none, as attributes have no tiles", view.aggregation_interval)
    if view.leading_edge != "now":
        checks.wrong("leading_edge", 'none or "now", as attributes have no windows', view.leading_edge)
    has_own_time = isinstance(view.row_format, FeastFormat)  # an item that Feast wrote always has one
    if view.ttl is not None and view.timestamp_field is None and view.has_source and not has_own_time:
        checks.wrong("timestamp_field", "the column with a row's time, which ttl counts from", None)


def _aggregates_have_tiles(checks: Checks, view: FeatureView) -> None:
    if not _all_are(Aggregate, view):
        return
    interval = view.aggregation_interval
    if view.timestamp_field is None and view.has_source:
        checks.wrong("timestamp_field", "the column with an event's time, here or in the source", None)
    if interval is None:
        checks.wrong("aggregation_interval", "the length of a tile, such as timedelta(hours=1)", None)
        return
    if view.ttl is not None:
        checks.wrong("ttl", "none, as windows say which events count", view.ttl)
    if view.row_format != "packed":
        checks.wrong("row_format", '"packed", as aggregates are stored as tiles', view.row_format)
    if view.batch_schedule is not None and view.batch_schedule > view.horizon:
        schedule = format_duration(view.batch_schedule)
        checks.wrong(
            "horizon", f"at least batch_schedule {schedule}, or rows age before the next", view.horizon
        )
    if interval < INTERVAL_MIN:
        checks.wrong("aggregation_interval", f"at least {format_duration(INTERVAL_MIN)}", interval)
        return
    for feature, name in zip(view.features, view.feature_names, strict=True):
        if isinstance(feature, Aggregate) and feature.valid:
            _window_is_whole(checks, feature, name, interval)


def _window_is_whole(checks: Checks, aggregate: Aggregate, name: str, interval: timedelta) -> None:
    whole = f"a whole multiple of aggregation_interval {format_duration(interval)}"
    window, hop = aggregate.time_window, aggregate.tail_hop
    for what, duration in window.durations:
        if duration % interval:
            checks.wrong(f"{what} of {name!r}", whole, duration, aggregate.location)
    if hop is None:
        return
    size = None if isinstance(window, LifetimeWindow) else window.window_size
    if size is None:
        checks.wrong(f"tail_hop of {name!r}", "none, as a lifetime has no far end", hop, aggregate.location)
    elif hop % interval:
        checks.wrong(f"tail_hop of {name!r}", whole, hop, aggregate.location)
    elif hop > size:
        limit = format_duration(size)
        checks.wrong(f"tail_hop of {name!r}", f"at most the window, {limit}", hop, aggregate.location)


def _secondary_key_fits(checks: Checks, view: FeatureView) -> None:
    key = view.aggregation_secondary_key
    for feature, name in zip(view.features, view.feature_names, strict=True):
        if not isinstance(feature, Aggregate) or not feature.valid:
            continue
        if key is None and feature.function.name == SECONDARY_KEYS:
            expected = "a view with an aggregation_secondary_key"
            checks.wrong(f"function of {name!r}", expected, SECONDARY_KEYS, feature.location)
        elif key is not None and isinstance(feature.time_window, TimeWindowSeries):
            expected = "no series in a view with an aggregation_secondary_key"
            checks.wrong(f"time_window of {name!r}", expected, feature.time_window, feature.location)
    if key is None:
        return
    _hops_agree(checks, view)
    if _all_are(Attribute, view):
        checks.wrong("aggregation_secondary_key", "none, as attributes aren't aggregated", key)
    elif key.valid and key.name in {each.name for each in view.join_keys}:
        checks.wrong("aggregation_secondary_key", "a column that is no join key", key.name)


def _hops_agree(checks: Checks, view: FeatureView) -> None:
    """Arrays over one window are aligned with one list of keys, so they must move together."""
    hops: dict[object, timedelta | None] = {}
    for feature, name in zip(view.features, view.feature_names, strict=True):
        if not isinstance(feature, Aggregate) or not feature.valid or feature.function.name == SECONDARY_KEYS:
            continue
        window, hop = feature.time_window, feature.tail_hop
        first = hops.setdefault(window, hop)
        if hop != first:
            said = "none" if first is None else format_duration(first)
            expected = f"that of all features over {window.label}, {said}"
            checks.wrong(f"tail_hop of {name!r}", expected, hop, feature.location)


def _schedule_has_files(checks: Checks, view: FeatureView) -> None:
    if (
        view.batch_schedule is not None
        and view.has_source
        and isinstance(view.source, PushSource)
        and view.batch_source is None
        and _all_are(Attribute, view)  # pushed aggregates are compacted by it
    ):
        checks.wrong("batch_schedule", "none, or a batch_source in the PushSource", view.batch_schedule)


def _cache_is_bounded(checks: Checks, view: FeatureView) -> None:
    if view.cache_ttl is None:
        for name, value in (("stale_ttl", view.stale_ttl), ("cache_streamed", view.cache_streamed or None)):
            if value is not None:
                checks.wrong(name, "none without a cache_ttl", value)
        return
    if view.stale_ttl is not None and view.stale_ttl < view.cache_ttl:
        checks.wrong("stale_ttl", f"at least the cache_ttl {format_duration(view.cache_ttl)}", view.stale_ttl)
    if view.has_source and view.is_streamed is not view.cache_streamed:
        if view.is_streamed:
            expected = "none without cache_streamed=True, as pushed events would wait"
            checks.wrong("cache_ttl", expected, view.cache_ttl)
        else:
            checks.wrong("cache_streamed", "False without a PushSource", view.cache_streamed)


_RULES: Final[tuple[Callable[[Checks, FeatureView], None], ...]] = (
    _join_keys_differ,
    _features_are_of_one_kind,
    _feature_names_differ,
    _columns_agree,
    _pushed_columns_exist,
    _attributes_have_no_tiles,
    _aggregates_have_tiles,
    _secondary_key_fits,
    _schedule_has_files,
    *ROW_RULES,
    _cache_is_bounded,
)
