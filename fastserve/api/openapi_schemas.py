"""The JSON Schemas of request and answer bodies that don't depend on what is defined.

Field names come in camelCase and in snake_case, and both stand in a schema. `additionalProperties` is true
where what nobody knows is passed over, and false where it is refused; answers hold what is said and no more.

Invariants
1. Every schema here is named in `SCHEMAS` and refers only to names that a document has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fastserve.api.ingest import MAX_ID_CHARACTERS, MAX_RECORDS
from fastserve.api.metadata import SIZE_EXCEEDED
from fastserve.api.openapi_types import WRITTEN_TIME, Schema, ref

STATUSES = ["PRESENT", "MISSING_DATA", "UNKNOWN", "TIME_OUT", "CACHED_PRESENT", "CACHED_MISSING_DATA"]
METADATA_OPTIONS = {
    "includeNames": "name of each feature",
    "includeDataTypes": "dataType of each feature",
    "includeEffectiveTimes": "effectiveTime of each row",
    "includeServingStatus": "status of each row",
    "includeFeatureDescriptions": "description of each feature",
    "includeFeatureTags": "tags of each feature",
    "includeSloInfo": "what the request took",
}
ANY_SERVICE, THIS_SERVER = "any service", "this server"
"""Tags of operations that belong to no service; names of services have no space."""
RETRIED = ("429", "503")
RETRY_AFTER: dict[str, Any] = {
    "headers": {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "string"}}}
}
"""What responses of these statuses have beside their schema."""
_CAPITAL = re.compile(r"[A-Z]")


def snake(name: str) -> str:
    """Return a camelCase name in snake_case."""
    return _CAPITAL.sub(lambda found: f"_{found[0].lower()}", name)


def both(fields: Mapping[str, Schema]) -> dict[str, Schema]:
    """Return properties under both spellings; the second says that the first wins."""
    spelled: dict[str, Schema] = {}
    for name, schema in fields.items():
        spelled[name] = schema
        other = snake(name)
        if other != name:
            spelled[other] = {
                **schema,
                "description": f"`{name}` in snake_case; where both come, that counts.",
            }
    return spelled


def either(name: str) -> Schema:
    """Return what asks for a field under one of its spellings."""
    return {"anyOf": [{"required": [name]}, {"required": [snake(name)]}]}


def answer(properties: Mapping[str, Schema], *optional: str) -> Schema:
    """Return the schema of an object that holds these properties, and but for the ``optional`` ones all."""
    required = [name for name in properties if name not in optional]
    schema: Schema = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    return schema | ({"required": required} if required else {})


def tolerant(properties: Mapping[str, Schema], description: str = "", *, nullable: bool = False) -> Schema:
    """Return the schema of an object in which other fields are passed over."""
    kind: Any = ["object", "null"] if nullable else "object"
    schema: Schema = {"type": kind, "properties": dict(properties), "additionalProperties": True}
    return schema | ({"description": description} if description else {})


def _flag(description: str) -> Schema:
    return {"type": ["boolean", "null"], "description": description}


OPTIONS: Mapping[str, Schema] = {
    "allowPartialResults": _flag("A row that can't be read is null with status UNKNOWN, not an error."),
    "metadataOptions": ref("MetadataOptions"),
    "requestOptions": ref("RequestOptions"),
}
"""What each request for vectors may say beside its names and values."""

_DURATION: Schema = {"type": "number", "minimum": 0}
_NAME: Schema = {"type": "string"}
_DATA_TYPE = {"name": _NAME, "dataType": ref("DataType")}
_ABOUT: dict[str, Schema] = {
    **_DATA_TYPE,
    "effectiveTime": {
        "type": "string",
        "pattern": WRITTEN_TIME,
        "description": "Of the row; not always known.",
    },
    "status": {"enum": STATUSES},
    "description": {"type": "string"},
    "tags": {"type": "object", "additionalProperties": {"type": "string"}},
}
_FEATURES: Schema = {"type": "array", "items": True, "description": "Values in the service's order."}

SCHEMAS: Mapping[str, Schema] = {
    "MetadataOptions": tolerant(
        both({name: _flag(f"Send the {what}.") for name, what in METADATA_OPTIONS.items()}),
        "What `metadata` is to hold; without any there is none.",
        nullable=True,
    ),
    "RequestOptions": tolerant(
        both(
            {
                "latencyBudgetMs": {
                    "description": "Milliseconds above 0: what hasn't come by then is null, TIME_OUT.",
                    "anyOf": [
                        {"type": "number", "exclusiveMinimum": 0},
                        {"type": "string", "pattern": r"^(?=.*[1-9])[0-9]{1,18}(\.[0-9]{1,18})?$"},
                        {"type": "null"},
                    ],
                },
                "coerceNullCountsToZero": _flag("A count over nothing is 0, not null."),
                "ignoreExtraRequestContextFields": _flag("requestContextMap may hold what nobody asked for."),
                "readFromCache": _flag("false: no row out of the worker's memory."),
                "writeToCache": _flag("false: what is read for this request isn't kept."),
            }
        ),
        "How the request is to be answered; options that nobody knows are passed over.",
        nullable=True,
    ),
    "DataType": {
        "description": "A data type; arrays, structs and maps say what they are made of.",
        "oneOf": [
            answer({"type": {"enum": ["int64", "float64", "float32", "string", "boolean", "timestamp"]}}),
            answer({"type": {"const": "array"}, "elementType": ref("DataType")}),
            answer({"type": {"const": "struct"}, "fields": {"type": "array", "items": answer(_DATA_TYPE)}}),
            answer({"type": {"const": "map"}, "keyType": ref("DataType"), "valueType": ref("DataType")}),
        ],
    },
    "FeatureMetadata": answer(_ABOUT, *_ABOUT),
    "BatchFeatureMetadata": answer(
        {**_ABOUT, "status": {"type": "array", "items": {"enum": STATUSES}, "description": "One per row."}},
        *_ABOUT,
    ),
    "SloInfo": answer(
        {
            "sloEligible": {"type": "boolean"},
            "sloServerTimeSeconds": _DURATION,
            "serverTimeSeconds": _DURATION,
            "storeMaxLatency": _DURATION,
            "storeResponseSizeBytes": {"type": "integer", "minimum": 0},
            "sloIneligibilityReasons": {"type": "array", "items": {"const": SIZE_EXCEEDED}},
        },
        "sloIneligibilityReasons",
    ),
    "VectorMetadata": answer(
        {"features": {"type": "array", "items": ref("FeatureMetadata")}, "sloInfo": ref("SloInfo")},
        "features",
        "sloInfo",
    ),
    "BatchMetadata": answer(
        {
            "features": {"type": "array", "items": ref("BatchFeatureMetadata")},
            "sloInfo": {"type": "array", "items": ref("SloInfo")},
            "batchSloInfo": ref("SloInfo"),
        },
        "features",
        "sloInfo",
        "batchSloInfo",
    ),
    "Vector": answer({"features": _FEATURES}),
    "FieldSchema": answer(
        {**_DATA_TYPE, "type": {"type": "string", "description": "The type's name: `dataType.type`."}}
    ),
    "ServiceMetadata": answer(
        {
            "featureServiceType": {"const": "DEFAULT"},
            "inputJoinKeys": {"type": "array", "items": ref("FieldSchema")},
            "inputRequestContextKeys": {"type": "array", "items": ref("FieldSchema")},
            "featureValues": {"type": "array", "items": ref("FieldSchema")},
        },
        "inputJoinKeys",
        "inputRequestContextKeys",
        "featureValues",
    ),
    "Error": answer(
        {
            "error": {"type": "string", "description": "What was expected, and what came."},
            "message": {"type": "string", "description": "The same text."},
            "code": {"type": "integer", "description": "The gRPC code that goes with the status."},
        }
    ),
    "IngestAnswer": answer(
        {
            "workspaceName": _NAME,
            "ingestMetrics": answer(
                {
                    "featureViewIngestMetrics": {
                        "type": "array",
                        "items": answer(
                            {
                                "featureViewName": _NAME,
                                "onlineRecordIngestCount": {"type": "string", "pattern": "^[0-9]+$"},
                            }
                        ),
                    }
                }
            ),
        }
    ),
    "IngestRefusal": {
        "description": "The request is wrong as a whole, or some of its records are; nothing was written.",
        "oneOf": [
            answer({"requestError": answer({"errorMessage": _NAME, "errorType": _NAME})}),
            answer(
                {
                    "workspaceName": _NAME,
                    "recordErrors": {
                        "type": "array",
                        "items": answer(
                            {
                                "featureViewName": _NAME,
                                "pushSourceName": _NAME,
                                "errorType": _NAME,
                                "errorMessage": _NAME,
                            }
                        ),
                    },
                }
            ),
        ],
    },
}
"""Schemas by name."""

INGEST_FIELDS: Mapping[str, Schema] = {
    "workspaceName": {"type": ["string", "null"], "description": "The server's, if it is left out."},
    "dryRun": _flag("Check the records and write nothing."),
    "requestId": {
        "type": ["string", "null"],
        "minLength": 1,
        "maxLength": MAX_ID_CHARACTERS,
        "description": "Tells a retry from other requests; without it the records themselves do.",
    },
}
"""What an ingest request may say beside its records, of which it has 1 to MAX_RECORDS in all."""
RECORDS_TEXT = f"Records by push source, 1 to {MAX_RECORDS:,} in all; each goes to every view of its source."
