"""Bodies of the OpenAPI document that depend on what is defined: their schemas, and examples of requests.

Knows the plan; of paths and of the document around them it knows nothing.

Invariants
1. The examples of requests are taken by the server whose plan it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastserve.api.openapi_feast import feast_schemas
from fastserve.api.openapi_schemas import (
    INGEST_FIELDS,
    OPTIONS,
    RECORDS_TEXT,
    answer,
    both,
    either,
    tolerant,
)
from fastserve.api.openapi_types import (
    Document,
    Schema,
    exactly,
    examples,
    key_schema,
    object_of,
    ref,
    taken_schema,
    written_schema,
)
from fastserve.plan.service import ServicePlan, WorkspacePlan
from fastserve.sdk.sources import PushSource


def _body(params: Schema) -> Schema:
    return {**tolerant({"params": params}), "required": ["params"]}


def generic_schemas(plan: WorkspacePlan, max_batch_rows: int) -> dict[str, Schema]:
    """Return the schemas of bodies that name their service, and of pushes, by name."""
    names: dict[str, Schema] = {
        "workspaceName": {
            "enum": [plan.workspace, None],
            "description": "The server's, if it is left out; any other is 404.",
        },
        "featureServiceName": {"enum": list(plan.services) or [""], "description": "Any other is 404."},
    }
    keys = tolerant({}, "Every join key of the service, and no other; null is a value.")
    context = tolerant({}, "What on-demand views take from the request, by field.")
    row = tolerant(both({"joinKeyMap": keys, "requestContextMap": context}))
    return {
        "VectorRequest": _body(
            {
                **tolerant(both({**names, "joinKeyMap": keys, "requestContextMap": context, **OPTIONS})),
                **either("featureServiceName"),
            }
        ),
        "BatchRequest": _body(
            {
                **tolerant(both({**names, "requestData": _rows(row, max_batch_rows), **OPTIONS})),
                "allOf": [either("featureServiceName"), either("requestData")],
            }
        ),
        "MetadataRequest": _body({**tolerant(both(names)), **either("featureServiceName")}),
        "VectorAnswer": answer({"result": ref("Vector"), "metadata": ref("VectorMetadata")}, "metadata"),
        "BatchAnswer": answer(
            {"result": {"type": "array", "items": ref("Vector")}, "metadata": ref("BatchMetadata")},
            "metadata",
        ),
        "IngestRequest": _ingest_schema(push_sources(plan), plan),
        **feast_schemas(plan.feast),
    }


def _rows(row: Schema, max_batch_rows: int) -> Schema:
    return {"type": "array", "minItems": 1, "maxItems": max_batch_rows, "items": row}


def service_schemas(plan: ServicePlan, name: str, max_batch_rows: int) -> dict[str, Schema]:
    """Return the schemas of one service's bodies; ``name`` ends their names."""
    given: dict[str, Schema] = {
        "joinKeyMap": ref(f"JoinKeys.{name}"),
        "requestContextMap": ref(f"RequestContext.{name}"),
    }
    required = [
        field for field, fields in zip(given, (plan.join_keys, plan.context_fields), strict=True) if fields
    ]
    needed: Schema = {"allOf": [either(field) for field in required]} if required else {}
    ignored: dict[str, Schema] = {
        "workspaceName": {"type": ["string", "null"], "description": "The path's counts."},
        "featureServiceName": {"type": ["string", "null"], "description": "The path's counts."},
    }
    features = [{"title": each.name, **written_schema(each.dtype)} for each in plan.outputs]
    vector = answer({"features": {"type": "array", **exactly(features)}})
    return {
        f"JoinKeys.{name}": object_of(plan.join_keys, key_schema),
        f"RequestContext.{name}": object_of(plan.context_fields, taken_schema),
        f"Vector.{name}": vector,
        f"VectorRequest.{name}": _body({**tolerant(both({**given, **ignored, **OPTIONS})), **needed}),
        f"BatchRequest.{name}": _body(
            {
                **tolerant(
                    both(
                        {
                            "requestData": _rows({**tolerant(both(given)), **needed}, max_batch_rows),
                            **ignored,
                            **OPTIONS,
                        }
                    )
                ),
                **either("requestData"),
            }
        ),
        f"VectorAnswer.{name}": answer(
            {"result": ref(f"Vector.{name}"), "metadata": ref("VectorMetadata")}, "metadata"
        ),
        f"BatchAnswer.{name}": answer(
            {"result": {"type": "array", "items": ref(f"Vector.{name}")}, "metadata": ref("BatchMetadata")},
            "metadata",
        ),
    }


def push_sources(plan: WorkspacePlan) -> list[PushSource]:
    """Return the sources that records may be pushed to."""
    found = {
        v.view.source.name: v.view.source
        for v in plan.views.values()
        if isinstance(v.view.source, PushSource)
    }
    return list(found.values())


def _ingest_schema(sources: Sequence[PushSource], plan: WorkspacePlan) -> Schema:
    by_source = {
        source.name: {
            "type": "array",
            "items": {**tolerant({"record": _record(source, plan)}), "required": ["record"]},
        }
        for source in sources
    }
    records: Schema = {
        "type": "object",
        "properties": by_source,
        "additionalProperties": False,
        "minProperties": 1,
        "description": RECORDS_TEXT,
    }
    return {**tolerant({**both(INGEST_FIELDS), "records": records}), "required": ["records"]}


def _record(source: PushSource, plan: WorkspacePlan) -> Schema:
    """Return the schema of a record: a column that lacks is null, which keys and times may not be."""
    needed: set[str] = set()
    for view in plan.views.values():
        if view.view.source is source and view.view.transformation is None:
            needed |= {field.name for field in view.key_fields}
            needed |= {view.view.timestamp_field} if view.view.timestamp_field else set()
    schema = object_of(source.schema, taken_schema)
    schema["required"] = [field.name for field in source.schema if field.name in needed]
    return schema if schema["required"] else {key: schema[key] for key in schema if key != "required"}


# --- examples -------------------------------------------------------------------------------------------


def _row_example(plan: ServicePlan, time: str) -> Document:
    row: Document = {}
    if plan.join_keys:
        row["joinKeyMap"] = examples(plan.join_keys, time)
    if plan.context_fields:
        row["requestContextMap"] = examples(plan.context_fields, time)
    return row


def names_example(plan: ServicePlan) -> Document:
    """Return a request that names the service and nothing else."""
    return {"params": {"workspaceName": plan.workspace, "featureServiceName": plan.name}}


def vector_example(plan: ServicePlan, time: str) -> Document:
    """Return a request for one vector; its timestamps are ``time``."""
    asked = {"metadataOptions": {"includeNames": True, "includeServingStatus": True}}
    return {"params": {**names_example(plan)["params"], **_row_example(plan, time), **asked}}


def batch_example(plan: ServicePlan, time: str) -> Document:
    """Return a request for two vectors."""
    row = _row_example(plan, time)
    return {"params": {**names_example(plan)["params"], "requestData": [row, row]}}
