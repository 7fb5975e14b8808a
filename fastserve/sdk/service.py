"""`FeatureService`: the features that one model reads.

Invariants:
1. ``references`` and ``on_demand_references`` have different names, so that ``<view>.<feature>`` names one
   feature of the service.
2. References that share a request key agree on its type, also those that only on-demand views read; so do
   request sources that share a field.
3. No request key is named like a field of the request context: one name in a request means one thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fastserve.sdk.checks import FREE_NAME, FREE_NAME_EXPECTED, Checks, Definition
from fastserve.sdk.on_demand import OnDemandFeatureView
from fastserve.sdk.reference import FeatureViewReference, OnDemandReference
from fastserve.sdk.types import Field
from fastserve.sdk.views import FeatureView


class FeatureService(Definition):
    """A list of views, or of parts of them, under one name.

    Args:
        name: What requests name: a letter, then letters, digits and ``_ . : -``.
        features: Views, or references of them; of different names, agreeing on the types of join keys they
            share.
        description: For readers.
        tags: For readers.
        owner: For readers.

    Raises:
        DefinitionError: a parameter isn't what is expected (collected while a repo is being loaded).
    """

    references: tuple[FeatureViewReference, ...]
    """The feature views in the answer, or parts of them."""
    on_demand_references: tuple[OnDemandReference, ...]
    """The on-demand views in the answer, or parts of them."""
    on_demand_views: tuple[OnDemandFeatureView[..., Any], ...]
    """Every on-demand view to be computed, each once, after those that it reads."""
    source_references: tuple[FeatureViewReference, ...]
    """What the on-demand views read of feature views; these may be in the answer or not."""
    join_keys: tuple[Field, ...]
    request_fields: tuple[Field, ...]
    """What the request context of a request must hold."""

    def __init__(
        self,
        name: str,
        features: Sequence[AnyView] | AnyView,
        description: str = "",
        tags: Mapping[str, str] | None = None,
        owner: str | None = None,
    ) -> None:
        checks = Checks("FeatureService", name)
        self.name = checks.name("name", name, FREE_NAME, FREE_NAME_EXPECTED)
        self._describe(checks, description, tags, owner)
        given: tuple[AnyView, ...] = checks.instances("features", features, _SELECTABLE, _SELECTABLE_EXPECTED)
        references = [_reference(item) for item in given]
        self.references = tuple(each for each in references if isinstance(each, FeatureViewReference))
        self.on_demand_references = tuple(each for each in references if isinstance(each, OnDemandReference))
        self.on_demand_views = _with_views_below(self.on_demand_references)
        self.source_references = tuple(_sources_of(self.on_demand_views))
        _check_unique_references(checks, references)
        self.join_keys = _join_keys(checks, references)
        self.request_fields = _request_fields(checks, self.on_demand_views)
        _check_one_meaning(checks, self.join_keys, self.request_fields)
        self._register(checks, parts_valid=all(reference.valid for reference in references))


AnyView = FeatureView | FeatureViewReference | OnDemandFeatureView[..., Any] | OnDemandReference
_SELECTABLE: Final = (FeatureView, FeatureViewReference, OnDemandFeatureView, OnDemandReference)
_SELECTABLE_EXPECTED: Final = "FeatureView or OnDemandFeatureView, whole or selected from"


def _reference(item: AnyView) -> FeatureViewReference | OnDemandReference:
    if isinstance(item, FeatureView):
        return FeatureViewReference(item)
    return OnDemandReference(item) if isinstance(item, OnDemandFeatureView) else item


def _with_views_below(references: Sequence[OnDemandReference]) -> tuple[OnDemandFeatureView[..., Any], ...]:
    """Return the views and all on-demand views that they read, each once and after those that it reads."""
    views = [view for each in references for view in (*each.view.views_below, each.view)]
    return tuple({id(view): view for view in views}.values())


def _sources_of(views: Sequence[OnDemandFeatureView[..., Any]]) -> Iterator[FeatureViewReference]:
    for view in views:
        for source in view.sources:
            if isinstance(source, FeatureViewReference):
                yield source


def _check_unique_references(
    checks: Checks, references: Sequence[FeatureViewReference | OnDemandReference]
) -> None:
    seen: set[str] = set()
    for reference in references:
        if reference.name in seen:
            checks.fault(
                f"features: the view name {reference.name!r} stands there twice "
                '(expected different names; with_name("…") gives one of them another)'
            )
        seen.add(reference.name)


def _join_keys(
    checks: Checks, references: Sequence[FeatureViewReference | OnDemandReference]
) -> tuple[Field, ...]:
    """Return the request's join keys in the order in which they first appear."""
    keys: dict[str, tuple[Field, str]] = {}
    for reference, by in _read_references(references):
        for key in reference.request_keys if reference.valid else ():
            first, first_by = keys.setdefault(key.name, (key, by))
            if first.dtype != key.dtype:
                checks.wrong(
                    f"join key {key.name!r} of {by}",
                    f"{first.dtype!r} as in {first_by}, or another name by with_join_key_map",
                    key.dtype,
                )
    return tuple(field for field, _ in keys.values())


def _read_references(
    references: Sequence[FeatureViewReference | OnDemandReference],
) -> Iterator[tuple[FeatureViewReference, str]]:
    """Yield each reference of a feature view, and what messages call it."""
    for reference in references:
        if isinstance(reference, FeatureViewReference):
            yield reference, f"view {reference.name!r}"
        else:
            for view in _with_views_below([reference]):
                for source in _sources_of([view]):
                    yield source, f"view {source.name!r}, a source of {view.name!r}"


def _request_fields(checks: Checks, views: Sequence[OnDemandFeatureView[..., Any]]) -> tuple[Field, ...]:
    """Return the fields of all request sources in the order in which they first appear."""
    fields: dict[str, tuple[Field, str]] = {}
    for view in views:
        for field in view.request_fields if view.valid else ():
            first, by = fields.setdefault(field.name, (field, view.name))
            if first.dtype != field.dtype:
                what = f"request field {field.name!r} of view {view.name!r}"
                checks.wrong(what, f"{first.dtype!r} as in view {by!r}", field.dtype)
    return tuple(field for field, _ in fields.values())


def _check_one_meaning(checks: Checks, join_keys: Sequence[Field], request_fields: Sequence[Field]) -> None:
    keys = {key.name: key for key in join_keys}
    for field in request_fields:
        key = keys.get(field.name)
        if key is not None and key.dtype != field.dtype:
            checks.wrong(
                f"request field {field.name!r}", f"{key.dtype!r} like the join key of that name", field.dtype
            )
