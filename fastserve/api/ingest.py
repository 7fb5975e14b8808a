"""Bodies of `/ingest`: pushed records in, counts or the list of bad records out.

Knows the API's shapes, not what a source's records must hold (`ingest.events`). Field names come in
snake_case or camelCase; camelCase wins. Fields that nobody here knows are passed over.

Invariants
1. Every refusal of a body as a whole is a `RequestError` with status 400 that names the field.
2. The id of a request without one is a function of its records alone: the same records again are a retry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from fastserve.api.values import bad_value, json_fault
from fastserve.errors import RequestError, shown

MAX_RECORDS = 10_000
MAX_ID_CHARACTERS = 256
ID_BYTES = 8
LISTED_ERRORS = 100
"""So many bad records are listed one by one; what comes after them is a number."""

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class IngestRequest:
    """A decoded request: records by source. ``id`` are 8 bytes that tell a retry from other requests."""

    workspace: str | None
    records: Mapping[str, Sequence[Record]]
    id: bytes
    dry_run: bool


@dataclass(frozen=True, slots=True)
class RecordError:
    """One bad record and what is wrong with it; ``number`` counts the source's records from 0."""

    views: str
    source: str
    number: int
    kind: str
    message: str


def decode_ingest(body: bytes, header_id: bytes | None = None) -> IngestRequest:
    """Decode an ingest body; ``header_id`` is the Idempotency-Key header's value.

    Raises:
        RequestError: malformed, or a field of the wrong type.
    """
    document = _document(body)
    workspace = _field(document, "workspaceName", "workspace_name")
    if workspace is not None and type(workspace) is not str:
        raise bad_value("Field", "workspace_name", "string", workspace)
    dry_run = _field(document, "dryRun", "dry_run")
    if dry_run is not None and type(dry_run) is not bool:
        raise bad_value("Field", "dry_run", "boolean", dry_run)
    sources = document.get("records")
    if type(sources) is not dict:
        raise bad_value("Field", "records", "object of lists of records, by source", sources)
    records = {source: _records(source, listed) for source, listed in sources.items()}
    count = sum(map(len, records.values()))
    if not 1 <= count <= MAX_RECORDS:
        raise RequestError(400, f"Field `records`: expected 1 to {MAX_RECORDS} records, got {count}")
    given = _field(document, "requestId", "request_id")
    return IngestRequest(workspace, records, _id(given, header_id, sources), bool(dry_run))


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        fault = json_fault(body, error)
        raise RequestError(400, f"Expected a JSON body in UTF-8, got malformed JSON: {fault}") from None
    if type(document) is not dict:
        raise RequestError(400, f"Expected a JSON object with the field `records`, got {shown(document)}")
    return document


def _field(document: Mapping[str, Any], camel: str, snake: str) -> Any:
    return document[camel] if camel in document else document.get(snake)


def _records(source: str, listed: Any) -> list[Record]:
    if type(listed) is not list:
        raise bad_value("Field", f"records.{source[:64]}", "list of records", listed)
    records = []
    for number, entry in enumerate(listed):
        record = entry.get("record") if type(entry) is dict else None
        if type(record) is not dict:
            place = f"records.{source[:64]}[{number}]"
            raise bad_value("Field", place, 'object {"record": {…}}', entry)
        records.append(record)
    return records


def _id(given: Any, header_id: bytes | None, sources: Mapping[str, Any]) -> bytes:
    if given is None and header_id:
        given = header_id.decode("latin-1")
    if given is None:
        return hashlib.sha256(b"records\0" + orjson.dumps(sources)).digest()[:ID_BYTES]
    if type(given) is not str or not 1 <= len(given) <= MAX_ID_CHARACTERS:
        raise bad_value("Field", "request_id", f"string of 1 to {MAX_ID_CHARACTERS} characters", given)
    return request_id(given)


def request_id(text: str) -> bytes:
    """Return the id of a request whose sender calls it ``text``."""
    return hashlib.sha256(b"id\0" + text.encode("utf-8", "surrogatepass")).digest()[:ID_BYTES]


def encode_counts(workspace: str, counts: Mapping[str, int]) -> bytes:
    """Return the answer to a request that was taken: how many records each view got."""
    metrics = [
        {"featureViewName": view, "onlineRecordIngestCount": str(count)} for view, count in counts.items()
    ]
    return orjson.dumps({"workspaceName": workspace, "ingestMetrics": {"featureViewIngestMetrics": metrics}})


def encode_refusal(message: str) -> bytes:
    """Return the answer to a request that is wrong as a whole."""
    error = {"errorMessage": _printable(message), "errorType": "RequestValidationError"}
    return orjson.dumps({"requestError": error})


def encode_record_errors(workspace: str, errors: Sequence[RecordError]) -> bytes:
    """Return the answer to a request with bad records, of which nothing was written."""
    listed = [
        {
            "featureViewName": error.views,
            "pushSourceName": error.source,
            "errorType": error.kind,
            "errorMessage": _printable(f"records.{error.source}[{error.number}]: {error.message}"),
        }
        for error in errors[:LISTED_ERRORS]
    ]
    more = len(errors) - LISTED_ERRORS
    if more > 0:
        last = errors[LISTED_ERRORS]
        listed.append(
            {
                "featureViewName": last.views,
                "pushSourceName": last.source,
                "errorType": "MoreErrors",
                "errorMessage": f"and {more} more",
            }
        )
    return orjson.dumps({"workspaceName": workspace, "recordErrors": listed})


def _printable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
