"""A workspace in which every type stands wherever it may, and what judges values by an API's document."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from jsonschema import Draft202012Validator

from fastserve import (
    Aggregate,
    Array,
    Attribute,
    Bool,
    Entity,
    FeatureView,
    Field,
    Float32,
    Float64,
    Int64,
    Map,
    PushSource,
    RequestSource,
    String,
    Struct,
    Timestamp,
    on_demand_feature_view,
)
from fastserve.plan.service import WorkspacePlan
from tests.support.plans import SHOP, USER, attribute_view, workspace_plan

TIME = "2024-10-04T09:00:00Z"
LOGIN = Entity("login", [Field("active", Bool), Field("since", Timestamp)])
CONTEXT = (
    Field("amount", Float64),
    Field("ratio", Float32),
    Field("count", Int64),
    Field("text", String),
    Field("flag", Bool),
    Field("at", Timestamp),
    Field("cards", Array(Int64)),
    Field("pair", Struct([Field("x", Float64), Field("y", Array(String))])),
    Field("by_name", Map(String, Float32)),
)
PUSHES = PushSource(
    "pushes",
    [Field("user_id", String), Field("at", Timestamp), Field("amount", Float64), Field("kind", String)],
    timestamp_field="at",
)


@on_demand_feature_view(
    sources=[RequestSource(CONTEXT)],
    features=[
        Attribute(field.name, field.dtype, description=f"What came as {field.name}") for field in CONTEXT
    ],
)
def echo(request: dict[str, Any]) -> dict[str, Any]:
    """Give back what came."""
    return request


def spending() -> FeatureView:
    return FeatureView(
        "spending",
        entities=USER,
        source=PUSHES,
        features=[Aggregate(Field("amount", Float64), "sum", timedelta(days=7))],
        aggregation_interval=timedelta(hours=1),
    )


def api_plan() -> WorkspacePlan:
    """Return a workspace whose names are as awkward as names may be."""
    return workspace_plan(
        {
            "everything:v2": [
                attribute_view("profile"),
                attribute_view("visit", ["a_int"], entities=[SHOP, LOGIN]),
                spending(),
                echo,
            ],
            "a.b-c": [attribute_view("numbers", ["a_int", "b_float"])],
            "a.b:c": [attribute_view("more", ["a_int"])],
            "a.b_c": [echo],
        }
    )


def faults(document: dict[str, Any], schema: dict[str, Any], value: Any) -> list[str]:
    """Return what a schema of a document finds wrong with a value."""
    validator = Draft202012Validator({**schema, "components": document["components"]})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
