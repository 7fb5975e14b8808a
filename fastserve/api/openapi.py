"""The OpenAPI 3.1 document of one workspace: every path that is answered, with the types of what is defined.

A function of the plan: it knows no server, and takes the time of its examples as an argument. Generic paths
name the service in the body; beside them each service has paths of its own, which say its join keys, its
request context and the type of every feature.

Invariants
1. The document is the same for the same arguments, and valid OpenAPI 3.1.
2. Every path that the feature server answers is in it, and no other.
3. The examples of requests are taken by the server that the document describes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from fastserve.api.openapi_bodies import (
    batch_example,
    generic_schemas,
    names_example,
    push_sources,
    service_schemas,
    vector_example,
)
from fastserve.api.openapi_feast import feast_paths
from fastserve.api.openapi_schemas import ANY_SERVICE, RETRIED, RETRY_AFTER, SCHEMAS, THIS_SERVER, answer
from fastserve.api.openapi_types import COMMON, Document, Schema, examples, ref
from fastserve.plan.service import ServicePlan, WorkspacePlan

V1 = "/api/v1/feature-service/"
V2 = "/api/v2/workspaces/"
SERVING_URL = "/"
_PUSHES = "pushed records"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]")
_JSON = "application/json"
MSGPACK = "application/msgpack"
_PACKED: Schema = {
    "description": "The same structure; int64 are integers, floats floats whatever is in them, null is nil."
}


@dataclass(frozen=True, slots=True)
class About:
    """What the document says of its server, beside the plan.

    ``example_time`` is ISO-8601: what examples give for timestamps.
    """

    version: str
    needs_key: bool
    max_batch_rows: int
    example_time: str


@dataclass(frozen=True, slots=True)
class _Service:
    """A service, and the name that its schemas and operations have."""

    plan: ServicePlan
    name: str
    path: str


def openapi_json(plan: WorkspacePlan, about: About, server_url: str = SERVING_URL) -> bytes:
    """Return the document's bytes; ``server_url`` is where the paths are answered."""
    return orjson.dumps(openapi_document(plan, about, server_url))


def openapi_at(document: bytes, server_url: str) -> bytes:
    """Return a document's bytes with another address for its paths; nothing is made anew."""
    return document.replace(_servers(SERVING_URL), _servers(server_url), 1)


def _servers(url: str) -> bytes:
    return b'"servers":' + orjson.dumps([{"url": url}])


def openapi_document(plan: WorkspacePlan, about: About, server_url: str = SERVING_URL) -> Document:
    """Return the document."""
    services = _services(plan)
    paths = _generic_paths(services, about)
    for service in services:
        paths |= _service_paths(service, about)
    paths |= {"/ingest": _ingest_path(plan, about), **_own_paths()}
    paths |= feast_paths(plan.feast, _POST_REFUSALS, about.example_time)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Features of the workspace {plan.workspace}",
            "version": about.version,
            "description": _DESCRIPTION,
        },
        "servers": [{"url": server_url}],
        **({"security": [{"tectonKey": []}, {"bearer": []}]} if about.needs_key else {}),
        "tags": [*_TAGS, *(_tag(service) for service in services)],
        "paths": paths,
        "components": {
            "schemas": {
                **COMMON,
                **SCHEMAS,
                **generic_schemas(plan, about.max_batch_rows),
                **_all_service_schemas(services, about),
            },
            "responses": dict(_REFUSALS),
            "parameters": dict(_PARAMETERS),
            **({"securitySchemes": _SECURITY} if about.needs_key else {}),
        },
    }


def _services(plan: WorkspacePlan) -> list[_Service]:
    """Return the services, each under a name that OpenAPI takes and no other has."""
    taken: set[str] = set()
    found = []
    for service in plan.services.values():
        base = name = _NOT_IN_NAMES.sub("_", service.name)
        number = 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        quoted = quote(plan.workspace, safe=""), quote(service.name, safe=":")
        found.append(_Service(service, name, f"{V2}{quoted[0]}/feature-services/{quoted[1]}/"))
    return found


def _tag(service: _Service) -> Document:
    described = service.plan.service.description
    return {"name": service.plan.name, **({"description": described} if described else {})}


# --- paths ----------------------------------------------------------------------------------------------


def _generic_paths(services: Sequence[_Service], about: About) -> Document:
    listed, time = services[:LISTED_EXAMPLES], about.example_time
    vectors = {each.name: {"value": vector_example(each.plan, time)} for each in listed}
    batches = {each.name: {"value": batch_example(each.plan, time)} for each in listed}
    names = {each.name: {"value": names_example(each.plan)} for each in listed}
    return {
        f"{V1}get-features": {
            "post": _operation(
                "getFeatures",
                "One vector",
                ANY_SERVICE,
                ref("VectorAnswer"),
                ref("VectorRequest"),
                vectors,
                packed=True,
            )
        },
        f"{V1}get-features-batch": {
            "post": _operation(
                "getFeaturesBatch",
                f"Up to {about.max_batch_rows:,} vectors of one service",
                ANY_SERVICE,
                ref("BatchAnswer"),
                ref("BatchRequest"),
                batches,
                packed=True,
            )
        },
        f"{V1}metadata": {
            "post": _operation(
                "getMetadata",
                "What a service takes and gives",
                ANY_SERVICE,
                ref("ServiceMetadata"),
                ref("MetadataRequest"),
                names,
                timed=False,
            )
        },
    }


LISTED_EXAMPLES = 20
"""So many services have examples on the generic paths; all have them on their own."""


def _service_paths(service: _Service, about: About) -> Document:
    plan, name = service.plan, service.name
    vector = vector_example(plan, about.example_time)
    batch = batch_example(plan, about.example_time)
    del vector["params"]["featureServiceName"], batch["params"]["featureServiceName"]
    return {
        f"{service.path}get-features": {
            "post": _operation(
                f"getFeatures.{name}",
                f"One vector of {plan.name}",
                plan.name,
                ref(f"VectorAnswer.{name}"),
                ref(f"VectorRequest.{name}"),
                {"one": {"value": vector}},
                packed=True,
            )
        },
        f"{service.path}get-features-batch": {
            "post": _operation(
                f"getFeaturesBatch.{name}",
                f"Up to {about.max_batch_rows:,} vectors of {plan.name}",
                plan.name,
                ref(f"BatchAnswer.{name}"),
                ref(f"BatchRequest.{name}"),
                {"two": {"value": batch}},
                packed=True,
            )
        },
        f"{service.path}metadata": {
            "get": _operation(
                f"getMetadata.{name}", f"What {plan.name} takes and gives", plan.name, ref("ServiceMetadata")
            )
        },
    }


def _ingest_path(plan: WorkspacePlan, about: About) -> Document:
    sources = push_sources(plan)
    pushed = {
        source.name: {
            "value": {"records": {source.name: [{"record": examples(source.schema, about.example_time)}]}}
        }
        for source in sources
    }
    operation = _operation(
        "ingest", "Push records", _PUSHES, ref("IngestAnswer"), ref("IngestRequest"), pushed
    )
    operation["parameters"] = [{"$ref": "#/components/parameters/IdempotencyKey"}]
    refusal = {"anyOf": [ref("IngestRefusal"), ref("Error")]}  # of what is no HTTP the common one
    operation["responses"]["400"] = _answered("Nothing was written.", refusal)
    return {"post": operation}


def _own_paths() -> Document:
    status = answer({"status": {"enum": ["alive", "ready"]}})
    alive = _operation("healthz", "Whether the worker lives", THIS_SERVER, status)
    ready = _operation("readyz", "Whether the server takes traffic", THIS_SERVER, status)
    own = _operation(
        "openapi", "This document", THIS_SERVER, {"type": "object", "additionalProperties": True}
    )
    for each in (alive, ready):
        each["security"] = []
        each["responses"] = {code: each["responses"][code] for code in ("200", "default")}
    ready["responses"]["503"] = {"$ref": "#/components/responses/Refused503"}
    return {"/healthz": {"get": alive}, "/readyz": {"get": ready}, "/openapi.json": {"get": own}}


def _operation(
    name: str,
    summary: str,
    tag: str,
    answered: Schema,
    asked: Schema | None = None,
    examples_by_name: Mapping[str, Any] | None = None,
    *,
    timed: bool = True,
    packed: bool = False,
) -> Document:
    operation: Document = {"operationId": name, "summary": summary, "tags": [tag]}
    refused = _GET_REFUSALS
    if asked is not None:
        body: Document = {"schema": asked}
        if examples_by_name:
            body["examples"] = dict(examples_by_name)
        operation["requestBody"] = {"required": True, "content": {_JSON: body}}
        refused = _POST_REFUSALS
        if timed:
            operation["parameters"] = [{"$ref": "#/components/parameters/RequestTimeout"}]
    operation["responses"] = {"200": _answered("The answer.", answered), **refused}
    if packed:
        operation["responses"]["200"]["content"][MSGPACK] = {"schema": _PACKED}
    return operation


def _answered(description: str, schema: Schema) -> Document:
    return {"description": description, "content": {_JSON: {"schema": schema}}}


def _all_service_schemas(services: Iterable[_Service], about: About) -> dict[str, Schema]:
    schemas: dict[str, Schema] = {}
    for service in services:
        schemas |= service_schemas(service.plan, service.name, about.max_batch_rows)
    return schemas


# --- what never varies ----------------------------------------------------------------------------------

_DESCRIPTION = (
    "Feature vectors for models, computed from known keys. Field names come in camelCase or in snake_case; "
    "where both come, camelCase counts. int64 is written as text. GET paths take HEAD, too."
)
_TAGS: list[Document] = [
    {"name": ANY_SERVICE, "description": "Vectors of the service that the body names"},
    {"name": _PUSHES, "description": "Records for the views of a source"},
    {"name": THIS_SERVER, "description": "How it is, and what it answers"},
]
_SECURITY: Document = {
    "tectonKey": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`Tecton-key fs_…`, a key of the server's file",
    },
    "bearer": {"type": "http", "scheme": "bearer", "description": "The same key"},
}
_PARAMETERS: Document = {
    "RequestTimeout": {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "required": False,
        "description": "How long the caller waits, where that is less than the server timeout; then 504.",
        "schema": {"type": "string", "pattern": r"^(?=.*[1-9])[0-9]{1,18}(\.[0-9]{1,18})?$"},
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "Tells a retry from other requests, as `requestId` does, which wins.",
        "schema": {"type": "string", "maxLength": 256},
    },
}
_STATUSES = {
    "400": "Something in the request isn't as expected; the message names it.",
    "401": "No valid API key.",
    "403": "The key is for another workspace or scope.",
    "404": "Unknown path, service or workspace.",
    "408": "The request came too slowly.",
    "413": "The body is too large.",
    "429": "The store throttles, or too much is in flight.",
    "500": "A fault of the server's; its log has it.",
    "503": "The store failed, the server drains, or it is overloaded.",
    "504": "The timeout passed.",
}
_REFUSALS: Document = {
    f"Refused{status}": _answered(text, ref("Error")) | (RETRY_AFTER if status in RETRIED else {})
    for status, text in _STATUSES.items()
} | {"Refused": _answered("Refused, as HTTP's own statuses say.", ref("Error"))}


def _refusals(*statuses: str) -> Document:
    listed = {status: {"$ref": f"#/components/responses/Refused{status}"} for status in statuses}
    return {**listed, "default": {"$ref": "#/components/responses/Refused"}}


_GET_REFUSALS = _refusals("401", "403", "404")
_POST_REFUSALS = _refusals(*_STATUSES)
