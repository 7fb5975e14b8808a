"""The shapes of /ingest."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from fastserve.api.ingest import (
    LISTED_ERRORS,
    MAX_RECORDS,
    RecordError,
    decode_ingest,
    encode_counts,
    encode_record_errors,
    encode_refusal,
    request_id,
)
from fastserve.errors import RequestError

RECORD = {"timestamp": "2026-01-02T00:25:06Z", "user_id": "u1", "amount": 1}


def body(**fields: Any) -> bytes:
    return orjson.dumps({"records": {"txn_source": [{"record": RECORD}]}} | fields)


@pytest.mark.parametrize(
    "fields", [{"workspace_name": "prod", "dry_run": True}, {"workspaceName": "prod", "dryRun": True}]
)
def test_both_spellings_are_read(fields: dict[str, Any]) -> None:
    request = decode_ingest(body(**fields))
    assert (request.workspace, request.dry_run) == ("prod", True)
    assert request.records == {"txn_source": [RECORD]}


def test_workspace_and_dry_run_may_lack() -> None:
    request = decode_ingest(body(unknown="field"))
    assert (request.workspace, request.dry_run) == (None, False)


def test_the_same_records_have_the_same_id_and_others_another() -> None:
    first = decode_ingest(body(workspace_name="prod"))
    assert len(first.id) == 8
    assert first.id == decode_ingest(b" " + body()).id
    other = {"txn_source": [{"record": RECORD | {"amount": 2}}]}
    assert first.id != decode_ingest(body(records=other)).id


def test_a_given_id_counts_and_the_bodys_more_than_the_headers() -> None:
    named = decode_ingest(body(request_id="a"))
    assert named.id == request_id("a")
    assert decode_ingest(body(requestId="a"), b"b").id == named.id
    assert decode_ingest(body(), b"a").id == named.id
    assert decode_ingest(body(), b"").id == decode_ingest(body()).id


@pytest.mark.parametrize(
    "raw, message",
    [
        (b"", "malformed JSON"),
        (b"[]", "expected a JSON object|Expected a JSON object"),
        (b"{}", "`records`: expected object"),
        (body(records=[]), "`records`: expected object"),
        (body(records={}), f"expected 1 to {MAX_RECORDS} records, got 0"),
        (body(records={"s": []}), "got 0"),
        (body(records={"s": {}}), "`records.s`: expected list"),
        (body(records={"s": [RECORD]}), r"`records.s\[0\]`: expected object"),
        (body(records={"s": [{"record": RECORD}, {"record": 1}]}), r"`records.s\[1\]`"),
        (body(records={"s": [{"record": {}}] * (MAX_RECORDS + 1)}), "got 10001"),
        (body(workspace_name=1), "`workspace_name`: expected string"),
        (body(dry_run="yes"), "`dry_run`: expected boolean"),
        (body(request_id=1), "`request_id`: expected string"),
        (body(request_id=""), "`request_id`"),
        (body(request_id="x" * 257), "`request_id`"),
    ],
)
def test_a_wrong_body_is_refused_as_a_whole(raw: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message) as refused:
        decode_ingest(raw)
    assert refused.value.status == 400


def test_counts_are_strings() -> None:
    assert orjson.loads(encode_counts("prod", {"a": 2, "b": 0})) == {
        "workspaceName": "prod",
        "ingestMetrics": {
            "featureViewIngestMetrics": [
                {"featureViewName": "a", "onlineRecordIngestCount": "2"},
                {"featureViewName": "b", "onlineRecordIngestCount": "0"},
            ]
        },
    }


def test_a_refusal_is_json_whatever_its_text() -> None:
    for text in ("plain", "lone \ud800 surrogate"):
        error = orjson.loads(encode_refusal(text))["requestError"]
        assert error["errorType"] == "RequestValidationError"
        assert error["errorMessage"].startswith(text[:4])


def test_every_bad_record_is_listed_up_to_a_number() -> None:
    errors = [RecordError("v", "s", number, "Kind", "what") for number in range(LISTED_ERRORS + 7)]
    document = orjson.loads(encode_record_errors("prod", errors))
    assert document["workspaceName"] == "prod"
    listed = document["recordErrors"]
    assert listed[3] == {
        "featureViewName": "v",
        "pushSourceName": "s",
        "errorType": "Kind",
        "errorMessage": "records.s[3]: what",
    }
    assert len(listed) == LISTED_ERRORS + 1
    assert listed[-1]["errorMessage"] == "and 7 more"
    assert len(orjson.loads(encode_record_errors("prod", errors[:5]))["recordErrors"]) == 5
