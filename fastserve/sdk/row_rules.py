"""The rules of how a view's rows lie in a store: format, table and bundle must fit the rest of the view.

Invariants:
1. As in `view_rules`: a rule looks only at parts that are valid by themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from fastserve.sdk.checks import Checks
from fastserve.sdk.feast_format import FEAST_KEY_TYPES, FeastFormat
from fastserve.sdk.row_format import AttributesFormat

if TYPE_CHECKING:
    from fastserve.sdk.views import FeatureView

TABLE_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{3,255}")  # DynamoDB's rule


def _attributes_format_fits(checks: Checks, view: FeatureView) -> None:
    layout = view.row_format
    if not isinstance(layout, AttributesFormat) or not layout.valid:
        return
    if layout.sort_key is not None and len(view.join_keys) < 2:
        checks.wrong("sort_key", "none, as the view has one join key", layout.sort_key, layout.location)
    for name, what in ((layout.partition_key, "partition_key"), (layout.sort_key, "sort_key")):
        if name is not None and name in view.feature_names:
            checks.wrong(what, "a name that no feature has", name, layout.location)


def _external_rows_are_left_alone(checks: Checks, view: FeatureView) -> None:
    if not view.is_external:
        return
    if view.row_format == "packed":
        expected = "an AttributesFormat or a FeastFormat, as packed rows are written by fastserve"
        checks.wrong("row_format", expected, view.row_format)
    if view.transformation is not None:
        checks.wrong("transformation", "none, as rows are there already", view.transformation)
    if view.batch_schedule is not None:
        checks.wrong("batch_schedule", "none, as somebody else writes the rows", view.batch_schedule)


def _feast_format_fits(checks: Checks, view: FeatureView) -> None:
    layout = view.row_format
    if not isinstance(layout, FeastFormat) or not layout.valid:
        return
    if view.has_source and not view.is_external:
        checks.wrong("source", "an ExternalSource, as Feast writes the rows", view.source, layout.location)
    if view.table is None:
        checks.wrong("table", "the name of Feast's table: <project>.<view>", None)
    keys = {key.name: key for key in view.join_keys if key.valid}
    for name, kind in layout.key_types.items():
        if name not in keys:
            checks.wrong(f"key_types[{name!r}]", f"a join key: {', '.join(keys)}", name, layout.location)
        elif kind not in FEAST_KEY_TYPES.get(keys[name].dtype, (kind,)):
            fitting = " or ".join(FEAST_KEY_TYPES[keys[name].dtype])
            checks.wrong(f"key_types[{name!r}]", fitting, kind, layout.location)
    for key in keys.values():
        if key.dtype not in FEAST_KEY_TYPES:
            checks.wrong(f"join key {key.name!r}", "String, Int64 or Timestamp", key.dtype)
    for name in layout.names:
        if name not in view.feature_names:
            checks.wrong("names", "names of features", name, layout.location)


def _table_can_be_named(checks: Checks, view: FeatureView) -> None:
    if view.table is not None and not TABLE_NAME.fullmatch(view.table):
        checks.wrong("table", "3 to 255 letters, digits and _ . -", view.table)


def _bundle_fits(checks: Checks, view: FeatureView) -> None:
    if view.bundle is None:
        return
    if view.row_format != "packed":
        checks.wrong("row_format", '"packed", as rows of a bundle share an item', view.row_format)
    if view.table is not None:
        checks.wrong("table", "none, as the bundle has the table", view.table)


ROW_RULES: Final[tuple[Callable[[Checks, FeatureView], None], ...]] = (
    _attributes_format_fits,
    _external_rows_are_left_alone,
    _feast_format_fits,
    _table_can_be_named,
    _bundle_fits,
)
"""In the order in which their faults are told."""
