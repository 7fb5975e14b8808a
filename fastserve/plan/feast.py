"""What Feast's own API is answered from: its views and services, and where their rows are read.

Requests of that API name features of any views, so nothing can be compiled for a list beforehand; what can,
per view, is. Each of Feast's tables is a read group of its own, however services combine them.

Invariants
1. Names are Feast's: of views, of features, of join keys. A view stands under one name.
2. A service that has anything else than views of Feast's isn't served by that API, and says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fastserve.errors import DefinitionError
from fastserve.plan.reads import ReadGroup, TableUse
from fastserve.plan.views import ViewPlan
from fastserve.sdk.feast_format import FeastFormat
from fastserve.sdk.service import FeatureService
from fastserve.wire.feast_key import DUMMY_JOIN_KEY, FeastKeyForm

NO_ENTITY_KEYS = (DUMMY_JOIN_KEY,)
"""The join keys of Feast's views without entities."""


@dataclass(frozen=True, slots=True)
class FeastViewPlan:
    """A view as Feast's API knows it."""

    name: str
    view: ViewPlan
    group: ReadGroup
    key_form: FeastKeyForm
    features: tuple[str, ...]
    join_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FeastSelection:
    """What a request reads of one view: the name it gives it, features, and what it calls the join keys."""

    view: FeastViewPlan
    name: str
    features: tuple[str, ...]
    request_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FeastPlan:
    """All that Feast's API serves of a workspace.

    ``unserved`` says of the other services why not. ``join_keys`` are the names that columns of a request
    have, ``entities`` what they may be called instead: an entity's name.
    """

    views: Mapping[str, FeastViewPlan]
    services: Mapping[str, tuple[FeastSelection, ...]]
    unserved: Mapping[str, str]
    join_keys: frozenset[str]
    entities: Mapping[str, str]


def feast_uses(views: Iterable[ViewPlan]) -> list[list[TableUse]]:
    """Return uses that keep each of Feast's tables in a read group of its own, read by a service or not."""
    return [
        [
            TableUse(
                view.table,
                tuple(range(len(view.key_fields))),
                view.key_attributes,
                view.packed,
                cache=view.cache,
                feast=view.feast,
                store=view.store,
            )
        ]
        for view in views
        if view.feast is not None
    ]


def plan_feast(
    views: Mapping[str, ViewPlan], services: Iterable[FeatureService], groups: Sequence[ReadGroup]
) -> FeastPlan | None:
    """Compile what Feast's API serves; None where it serves nothing.

    Raises:
        DefinitionError: two views have one name with Feast.
    """
    by_table = {table: group for group in groups for table in group.tables}
    found: dict[str, FeastViewPlan] = {}
    by_view: dict[str, FeastViewPlan] = {}
    for name, view in views.items():
        if view.feast is None:
            continue
        planned = _view(view, view.feast, by_table[view.table])
        other = found.setdefault(planned.name, planned)
        if other is not planned:
            raise DefinitionError(
                f"view {name!r}: expected a name of its own with Feast, got {planned.name!r}, "
                f"which view {other.view.name!r} has",
                view.view.location,
            )
        by_view[name] = planned
    if not found:
        return None
    served: dict[str, tuple[FeastSelection, ...]] = {}
    unserved: dict[str, str] = {}
    for service in services:
        why = _why_unserved(service, by_view)
        if why is None:
            served[service.name] = _selections(service, by_view)
        else:
            unserved[service.name] = why
    request_keys = {key for selections in served.values() for each in selections for key in each.request_keys}
    join_keys = {key for view in found.values() for key in view.join_keys}
    entities = [entity for planned in found.values() for entity in planned.view.view.entities]
    return FeastPlan(
        found,
        served,
        unserved,
        frozenset(join_keys | request_keys),
        {each.name: each.join_keys[0].name for each in entities if len(each.join_keys) == 1},
    )


def _view(view: ViewPlan, form: FeastKeyForm, group: ReadGroup) -> FeastViewPlan:
    row_format = view.view.row_format
    name = row_format.view if isinstance(row_format, FeastFormat) else None
    return FeastViewPlan(
        name or view.name,
        view,
        group,
        form,
        tuple(feast_name(view, feature) for feature in view.view.feature_names),
        tuple(field.name for field in view.key_fields),
    )


def feast_name(view: ViewPlan, feature: str) -> str:
    """Return what Feast calls a feature of ours."""
    row_format = view.view.row_format
    return row_format.name(feature) if isinstance(row_format, FeastFormat) else feature


def _why_unserved(service: FeatureService, views: Mapping[str, FeastViewPlan]) -> str | None:
    if service.on_demand_references:
        return f"it has the on-demand view {service.on_demand_references[0].name!r}"
    for reference in service.references:
        if reference.view.name not in views:
            return f"view {reference.view.name!r} has rows that Feast didn't write"
    return None


def _selections(service: FeatureService, views: Mapping[str, FeastViewPlan]) -> tuple[FeastSelection, ...]:
    found = []
    for reference in service.references:
        planned = views[reference.view.name]
        # A reference's own name is the view's, unless it was given another: then it is Feast's alias.
        alias = planned.name if reference.name == reference.view.name else reference.name
        features = tuple(feast_name(planned.view, feature) for feature in reference.features)
        keys = tuple(field.name for field in reference.request_keys)
        found.append(FeastSelection(planned, alias, features, keys))
    return tuple(found)
