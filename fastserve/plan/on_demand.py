"""The on-demand part of a serving plan: which views run, in which order, and where their inputs come from.

Says where each value stands and runs nothing: `serving` evaluates what is bound here.

Invariants
1. ``ServicePlan.on_demand`` is in evaluation order: an `OnDemandBinding` names an earlier plan.
2. A view is computed once a request, whether it is in the answer, a source of others, or both, and under
   however many names.
3. The bindings stand in the order of the view's sources, each binding's values in the order of the source's
   fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastserve.sdk.on_demand import OnDemandFeatureView
from fastserve.sdk.reference import FeatureViewReference, OnDemandReference
from fastserve.sdk.service import FeatureService
from fastserve.sdk.sources import RequestSource
from fastserve.sdk.types import DataType, Field


@dataclass(frozen=True, slots=True)
class RequestBinding:
    """A source whose values come with the request: ``positions`` are its fields' in the context_fields."""

    name: str
    fields: tuple[Field, ...]
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InputsBinding:
    """A source that is read from the store: ``inputs`` are its features' positions in the plan's inputs."""

    name: str
    names: tuple[str, ...]
    inputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OnDemandBinding:
    """A source that an earlier view computes.

    ``plan`` is its position in ``ServicePlan.on_demand``, ``fields`` those of its features (in
    ``output_fields``) that are passed on.
    """

    name: str
    names: tuple[str, ...]
    plan: int
    fields: tuple[int, ...]


SourceBinding = RequestBinding | InputsBinding | OnDemandBinding


@dataclass(frozen=True, slots=True)
class OnDemandPlan:
    """One view to be computed; ``name`` is the view's own, which errors and metrics tell.

    ``visible`` are the positions in ``output_fields`` of those features that the answer holds, under
    whichever reference; none of a view that is only a source of others.
    """

    name: str
    view: OnDemandFeatureView[..., Any]
    sources: tuple[SourceBinding, ...]
    output_fields: tuple[Field, ...]
    visible: tuple[int, ...]

    @property
    def is_hidden(self) -> bool:
        """Whether the view is only a source of others."""
        return not self.visible


@dataclass(frozen=True, slots=True)
class OnDemandOutput:
    """One feature of the answer that a view computes.

    ``plan`` is the view's position in ``ServicePlan.on_demand``, ``field`` the feature's in its
    ``output_fields``; ``view`` is the reference's name.
    """

    name: str
    view: str
    feature: str
    dtype: DataType
    plan: int
    field: int
    description: str
    tags: Mapping[str, str]


InputPositions = Mapping[tuple[int, str], int]
"""For each source reference (by its id) and feature: the position among the service's inputs."""


def plan_on_demand(service: FeatureService, positions: InputPositions) -> tuple[OnDemandPlan, ...]:
    """Bind the sources of all on-demand views of a service, in evaluation order."""
    views = service.on_demand_views
    numbers = {id(view): number for number, view in enumerate(views)}
    context = {field.name: position for position, field in enumerate(service.request_fields)}
    shown: dict[int, set[str]] = {}
    for reference in service.on_demand_references:
        shown.setdefault(id(reference.view), set()).update(reference.features)

    def bound(source: RequestSource | FeatureViewReference | OnDemandReference) -> SourceBinding:
        if isinstance(source, RequestSource):
            fields = source.schema
            return RequestBinding(source.name, fields, tuple(context[field.name] for field in fields))
        if isinstance(source, OnDemandReference):
            numbered = tuple(source.view.feature_names.index(feature) for feature in source.features)
            return OnDemandBinding(source.name, source.features, numbers[id(source.view)], numbered)
        inputs = tuple(positions[id(source), feature] for feature in source.features)
        return InputsBinding(source.name, source.features, inputs)

    return tuple(
        OnDemandPlan(
            name=view.name,
            view=view,
            sources=tuple(bound(source) for source in view.sources),
            output_fields=view.output_fields,
            visible=tuple(
                number
                for number, feature in enumerate(view.feature_names)
                if feature in shown.get(id(view), ())
            ),
        )
        for view in views
    )


def on_demand_outputs(service: FeatureService) -> list[OnDemandOutput]:
    """Return the computed part of the answer: by reference name, then in the order of the view's schema."""
    numbers = {id(view): number for number, view in enumerate(service.on_demand_views)}
    return [
        _output(reference, feature, numbers[id(reference.view)])
        for reference in sorted(service.on_demand_references, key=lambda reference: reference.name)
        for feature in _in_schema_order(reference)
    ]


def _in_schema_order(reference: OnDemandReference) -> Sequence[str]:
    return [feature for feature in reference.view.feature_names if feature in reference.features]


def _output(reference: OnDemandReference, feature: str, plan: int) -> OnDemandOutput:
    defined = reference.view.feature(feature)
    return OnDemandOutput(
        name=f"{reference.name}.{feature}",
        view=reference.name,
        feature=feature,
        dtype=reference.view.output_type(feature),
        plan=plan,
        field=reference.view.feature_names.index(feature),
        description=defined.description,
        tags=defined.tags,
    )
