"""What rows of a view's older layouts hold of its features.

Knows layouts and no rows: what becomes of a row is `serving.transcode`'s.

Invariants
1. A feature is lacking where any column is that it is made of, or has another type: half a sum is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastserve.plan.views import ViewPlan
from fastserve.tiles.aggregates import AggregateFeature, CompactedSchema
from fastserve.tiles.layout import Column, RowLayout


def features_lacking(view: ViewPlan, layout: RowLayout) -> list[str]:
    """Return the features that rows of another layout don't hold, in the view's order."""
    if view.schema is None:
        return [column.name for column in view.layout.columns if not _has(layout, [column])]
    schema = view.schema
    return [f.spec.name for f in schema.features if not _has(layout, _columns(schema, f))]


def _has(layout: RowLayout, columns: Sequence[Column]) -> bool:
    found = [layout.by_name.get(column.name) for column in columns]
    return all(
        old is not None and old.dtype == column.dtype for old, column in zip(found, columns, strict=True)
    )


def _columns(schema: CompactedSchema, feature: AggregateFeature) -> list[Column]:
    """Return the columns of a row that a feature is finalized from."""
    words: set[int] = set()
    for index in (feature.value, feature.count):
        if index is not None:
            component = schema.components[index]
            words.update(range(component.word, component.word + component.words))
    found = [c for c in schema.layout.columns if not c.storage.is_variable and c.word in words]
    if feature.wide is not None:
        found += schema.wide[feature.wide].columns
    for element in feature.elements:
        found += _columns(schema, element)
    return found
