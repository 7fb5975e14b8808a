"""The part of the OpenAPI document that tells of Feast's API, where a workspace has tables that Feast wrote.

Invariants
1. Without such tables there is no such part, as there are no such paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastserve.api.openapi_schemas import ANY_SERVICE, RETRIED, RETRY_AFTER, THIS_SERVER, answer, tolerant
from fastserve.api.openapi_types import Schema, example, ref
from fastserve.plan.feast import NO_ENTITY_KEYS, FeastPlan, FeastViewPlan
from fastserve.sdk.types import Int64

PATH = "/get-online-features"
HEALTH = "/health"
_STATUSES = ["PRESENT", "NOT_FOUND", "OUTSIDE_MAX_AGE"]
_NAMES: Schema = {"type": "array", "items": {"type": "string"}}


def feast_schemas(plan: FeastPlan | None) -> dict[str, Schema]:
    """Return the schemas by name."""
    if plan is None:
        return {}
    references = [f"{view.name}:{feature}" for view in plan.views.values() for feature in view.features]
    return {
        "FeastRequest": {
            **tolerant(
                {
                    "entities": {
                        "type": "object",
                        "additionalProperties": {"type": "array", "items": True},
                        "description": "A column of values for each join key, all of one length.",
                    },
                    "features": {
                        **_NAMES,
                        "description": "As `view:feature`; or none, beside a `feature_service`.",
                        "examples": [references[:LISTED]],
                    },
                    "feature_service": {"type": ["string", "null"]},
                    "full_feature_names": {"type": "boolean", "default": False},
                }
            ),
            "required": ["entities"],
        },
        "FeastAnswer": answer(
            {
                "results": {
                    "type": "array",
                    "description": "Of each column of `feature_names`, in their order.",
                    "items": answer(
                        {
                            "values": {"type": "array", "items": True},
                            "statuses": {"type": "array", "items": {"enum": _STATUSES}},
                            "event_timestamps": _NAMES,
                        }
                    ),
                },
                "metadata": answer({"feature_names": _NAMES}),
            }
        ),
        "FeastRefusal": {
            "type": "string",
            "description": "JSON in a string: the exception that Feast's SDK raises.",
        },
        "FeastMalformed": answer(
            {
                "detail": {
                    "type": "array",
                    "items": answer({"type": {"type": "string"}, "loc": _NAMES, "msg": {"type": "string"}}),
                }
            }
        ),
    }


LISTED = 20


def feast_paths(plan: FeastPlan | None, post: Mapping[str, Any], time: str) -> dict[str, Any]:
    """Return the paths; ``post`` is what every operation with a body has for refusals."""
    if plan is None:
        return {}
    refused = {"description": "Refused, as Feast's SDK reads it.", **_content(ref("FeastRefusal"))}
    # What isn't about features, framing or too much at once, is refused as on every other path.
    either = {**refused, **_content({"anyOf": [ref("FeastRefusal"), ref("Error")]})}
    operation = {
        "operationId": "getOnlineFeatures",
        "summary": "Features in columns, as of Feast's feature server",
        "tags": [ANY_SERVICE],
        "parameters": [{"$ref": "#/components/parameters/RequestTimeout"}],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": ref("FeastRequest"),
                    "examples": {
                        view.name: {"value": _example(view, time)}
                        for view in list(plan.views.values())[:LISTED]
                    },
                }
            },
        },
        "responses": {
            "200": {"description": "The answer.", **_content(ref("FeastAnswer"))},
            **post,
            **dict.fromkeys(("404", "504"), refused),
            **dict.fromkeys(("400", "500"), either),
            **{status: {**either, **RETRY_AFTER} for status in RETRIED},
            "422": {
                "description": "A field lacks, or has another type.",
                **_content(ref("FeastMalformed")),
            },
        },
    }
    health = {
        "operationId": "health",
        "summary": "Whether the server takes traffic, by the status alone",
        "tags": [THIS_SERVER],
        "security": [],
        "responses": {"200": {"description": "It does."}, "503": {"description": "It doesn't."}},
    }
    return {PATH: {"post": operation}, HEALTH: {"get": health}}


def _content(schema: Schema) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _example(view: FeastViewPlan, time: str) -> dict[str, Any]:
    keys = zip(view.join_keys, view.view.key_fields, strict=True)
    columns = {
        name: [1 if field.dtype == Int64 else example(field.dtype, name, time)]
        for name, field in keys
        if name not in NO_ENTITY_KEYS
    }
    return {"features": [f"{view.name}:{feature}" for feature in view.features[:LISTED]], "entities": columns}
