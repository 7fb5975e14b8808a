"""Tests of `fastserve.api.api_keys`: who is admitted, and what a file of keys must hold."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from fastserve.api.api_keys import (
    BAD_KEY,
    BATCH,
    INGEST,
    NO_KEY,
    READ,
    ApiKey,
    KeyRing,
    format_keys,
    new_key,
    parse_keys,
)
from fastserve.errors import DefinitionError, RequestError

SECRET = "fs_" + "Ab9-_" * 8
NOW_NS = 1_700_000_000_000_000_000


def key(secret: str = SECRET, **changes: Any) -> ApiKey:
    arguments: dict[str, Any] = {
        "client": "checkout",
        "workspaces": ["prod"],
        "scopes": [READ],
        "now_ns": NOW_NS,
        "expires_ns": None,
    } | changes
    return new_key(secret, **arguments)


def refusal(ring: KeyRing, header: bytes | None, scope: str = READ, workspace: str = "prod") -> RequestError:
    with pytest.raises(RequestError) as caught:
        ring.admit(header, scope, workspace, NOW_NS)
    return caught.value


@pytest.mark.parametrize("scheme", ["Tecton-key", "tecton-KEY", "Bearer", "bearer  "])
def test_a_known_key_is_admitted_by_either_scheme_in_any_case(scheme: str) -> None:
    known = key()
    ring = KeyRing([key("fs_other"), known])
    for _ in range(2):  # found, then remembered
        assert ring.admit(f"{scheme} {SECRET}".encode(), READ, "prod", NOW_NS) == known


@pytest.mark.parametrize("header", [None, b"", b"Basic YTpi", SECRET.encode(), b"Bearer", b"Bearer a b"])
def test_no_key_is_401(header: bytes | None) -> None:
    error = refusal(KeyRing([key()]), header)
    assert (error.status, error.message) == (401, NO_KEY)


def test_an_unknown_key_is_401_and_stands_in_no_message() -> None:
    error = refusal(KeyRing([key()]), b"Bearer " + SECRET[:-1].encode())
    assert (error.status, error.message) == (401, BAD_KEY)


def test_a_key_that_expires_is_refused_from_that_moment_on_also_when_remembered() -> None:
    ring = KeyRing([key(expires_ns=NOW_NS + 1)])
    header = b"Bearer " + SECRET.encode()
    ring.admit(header, READ, "prod", NOW_NS)
    with pytest.raises(RequestError, match="expired") as caught:
        ring.admit(header, READ, "prod", NOW_NS + 1)
    assert caught.value.status == 401


def test_another_scope_or_workspace_is_403() -> None:
    ring = KeyRing([key()])
    header = b"Bearer " + SECRET.encode()
    assert refusal(ring, header, scope=INGEST).status == 403
    assert refusal(ring, header, workspace="staging").status == 403


def test_a_key_for_any_workspace_and_both_scopes_is_admitted_everywhere() -> None:
    ring = KeyRing([key(workspaces=["*"], scopes=[READ, INGEST])])
    for scope in (READ, INGEST):
        ring.admit(b"Bearer " + SECRET.encode(), scope, "anything", NOW_NS)


def test_a_refusal_does_not_grow_with_each_time_it_is_raised() -> None:
    ring = KeyRing([])
    first, second = refusal(ring, None), refusal(ring, None)
    assert first is not second


def test_a_file_gives_back_what_was_written_and_holds_no_secret() -> None:
    keys = [key(expires_ns=NOW_NS + 5), key("fs_other", scopes=[READ, INGEST], workspaces=["*"])]
    text = format_keys(keys)
    assert SECRET.encode() not in text
    assert parse_keys(text, "keys.json") == keys


def test_a_key_is_live_unless_it_says_batch() -> None:
    record = {name: value for name, value in GOOD.items() if name != "priority"}
    (live,) = parse_keys(orjson.dumps({"keys": [record]}), "keys.json")
    (batch,) = parse_keys(orjson.dumps({"keys": [record | {"priority": BATCH}]}), "keys.json")
    assert (live.is_batch, batch.is_batch) == (False, True)


GOOD: dict[str, Any] = orjson.loads(format_keys([key()]))["keys"][0]


@pytest.mark.parametrize(
    "record, message",
    [
        (GOOD | {"sha256": "ab"}, r"keys\[0\].sha256: expected 64 hexadecimal digits, got 'ab'"),
        (GOOD | {"client": "a b"}, r"keys\[0\].client: expected 1 to 64 letters"),
        (GOOD | {"scopes": ["all"]}, r"keys\[0\].scopes: expected some of read and ingest, got"),
        (GOOD | {"scopes": []}, r"keys\[0\].scopes: expected some of"),
        (GOOD | {"workspaces": []}, r"keys\[0\].workspaces: expected at least one"),
        (GOOD | {"workspaces": "prod"}, r"keys\[0\].workspaces: expected a list of texts"),
        (GOOD | {"created": "today"}, r"keys\[0\].created: expected a time"),
        (GOOD | {"expires": 5}, r"keys\[0\].expires: expected a time"),
        (GOOD | {"priority": "high"}, r"keys\[0\].priority: expected live or batch, got 'high'"),
        (GOOD | {"priority": None}, r"keys\[0\].priority: expected text, got None"),
        (GOOD | {"id": None}, r"keys\[0\].id: expected text, got None"),
        (GOOD | {"exprires": None}, r"keys\[0\]: unknown field 'exprires'"),
        ("fs_x", r"keys\[0\]: expected an object"),
    ],
)
def test_a_record_that_is_wrong_is_named_with_its_field(record: object, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        parse_keys(orjson.dumps({"keys": [record]}), "keys.json")


@pytest.mark.parametrize("text", ["", "[]", '{"keys": {}}', "{"])
def test_what_is_no_file_of_keys_is_refused(text: str) -> None:
    with pytest.raises(DefinitionError, match=r"keys\.json: expected"):
        parse_keys(text, "keys.json")


def test_a_key_that_stands_twice_is_refused() -> None:
    with pytest.raises(DefinitionError, match="each key once"):
        parse_keys(format_keys([key(), key()]), "keys.json")
