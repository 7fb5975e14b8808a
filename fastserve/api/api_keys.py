"""API keys: which client may do what in which workspace, and whether a request shows such a key.

A key is ``fs_`` and 256 random bits. Only its SHA-256 is kept: of random bits that can't be turned back, so
there is nothing to gain from a slow hash. The file of keys is JSON, one object per key:

    {"keys": [{"id": "5f0c…", "client": "checkout", "sha256": "…64 digits…", "workspaces": ["prod"],
               "scopes": ["read"], "priority": "live", "created": "2026-11-23T08:00:00Z", "expires": null}]}

``workspaces`` may be ``["*"]``. ``priority`` is "live", also where it isn't given, or "batch": under overload
shed first. Knows no file and no clock: text and times are arguments.

Invariants
1. A key that isn't known, has expired or was never well-formed is told apart by nobody: one message, 401.
2. What was presented never stands in a message.
3. A client has at most `KEYS_PER_CLIENT` keys that haven't expired: the old one and the one that follows it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from fastserve.errors import DefinitionError, RequestError, shown
from fastserve.tiles.times import format_time, parse_time_ns

PREFIX = "fs_"
READ = "read"
INGEST = "ingest"
SCOPES = (READ, INGEST)
LIVE = "live"
BATCH = "batch"
PRIORITIES = (LIVE, BATCH)
ANY_WORKSPACE = "*"
KEYS_PER_CLIENT = 2
REMEMBERED = 1024
"""So many headers are remembered with the keys that they show; looking one up takes 0.1 us, hashing 1.2."""

_SCHEME = re.compile(rb"(?:tecton-key|bearer) +([!-~]{1,128})", re.IGNORECASE)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)
CLIENT_EXPECTED = "1 to 64 letters, digits and . _ @ -, the first a letter or digit"
NO_KEY = "Expected a valid API key in the header `Authorization: Tecton-key <key>`, got none"
BAD_KEY = "Expected a valid API key, got one that is unknown or has expired"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key, without its secret; times in nanoseconds since the epoch."""

    id: str
    client: str
    sha256: str
    workspaces: tuple[str, ...]
    scopes: tuple[str, ...]
    created_ns: int
    expires_ns: int | None
    priority: str = LIVE

    @property
    def is_batch(self) -> bool:
        """Whether requests with this key are shed before those of others."""
        return self.priority == BATCH

    def is_valid_at(self, now_ns: int) -> bool:
        """Whether the key hasn't expired."""
        return self.expires_ns is None or now_ns < self.expires_ns

    def admits(self, workspace: str) -> bool:
        """Whether the key is for that workspace."""
        return workspace in self.workspaces or ANY_WORKSPACE in self.workspaces


def digest_of(secret: str) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_key(
    secret: str,
    client: str,
    workspaces: Sequence[str],
    scopes: Sequence[str],
    now_ns: int,
    expires_ns: int | None,
    priority: str = LIVE,
) -> ApiKey:
    """Return the record of a key that was just drawn.

    Raises:
        DefinitionError: a client's name, a scope or a priority that can't be used, or no workspace.
    """
    digest = digest_of(secret)
    key = ApiKey(digest[:12], client, digest, tuple(workspaces), tuple(scopes), now_ns, expires_ns, priority)
    _check(key, "key")
    return key


class KeyRing:
    """The keys of a server; looks up who shows one."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self.keys = tuple(keys)
        self._by_digest = {key.sha256: key for key in self.keys}
        self._remembered: dict[bytes, ApiKey] = {}

    def admit(self, authorization: bytes | None, scope: str, workspace: str, now_ns: int) -> ApiKey:
        """Return the key that the header shows, when it is valid and for that scope and workspace.

        Raises:
            RequestError: 401 without a valid key, 403 with one that is for something else.
        """
        key = None if authorization is None else self._remembered.get(authorization)
        if key is None:
            key = self._find(authorization)
        if not key.is_valid_at(now_ns):
            raise RequestError(401, BAD_KEY)
        if scope not in key.scopes:
            raise RequestError(
                403, f"Expected an API key with the scope `{scope}`, got one for {', '.join(key.scopes)}"
            )
        if not key.admits(workspace):
            raise RequestError(403, f"Expected an API key for workspace {shown(workspace)}, got another's")
        return key

    def _find(self, authorization: bytes | None) -> ApiKey:
        if authorization is None:
            raise RequestError(401, NO_KEY)
        match = _SCHEME.fullmatch(authorization.strip())
        if match is None:
            raise RequestError(401, NO_KEY)
        digest = hashlib.sha256(match[1]).hexdigest()
        key = self._by_digest.get(digest)
        # The look-up compares digests, of which timing tells nothing; this compares them once more.
        if key is None or not hmac.compare_digest(key.sha256, digest):
            raise RequestError(401, BAD_KEY)
        if len(self._remembered) >= REMEMBERED:
            self._remembered.clear()
        self._remembered[authorization] = key
        return key


def parse_keys(text: str | bytes, place: str) -> list[ApiKey]:
    """Return the keys of a file's text; ``place`` is what messages call it.

    Raises:
        DefinitionError: the text isn't a file of keys; names the key's number and the field.
    """
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise DefinitionError(f"{place}: expected JSON, got what isn't: {error.msg[:64]}") from None
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise DefinitionError(f'{place}: expected {{"keys": [...]}}, got {shown(document)}')
    keys = [_key(f"{place}: keys[{number}]", record) for number, record in enumerate(document["keys"])]
    digests = [key.sha256 for key in keys]
    twice = next((key for key in keys if digests.count(key.sha256) > 1), None)
    if twice is not None:
        raise DefinitionError(f"{place}: expected each key once, got {twice.id} twice")
    return keys


def format_keys(keys: Iterable[ApiKey]) -> bytes:
    """Return the text of a file with these keys."""
    return orjson.dumps({"keys": [_record(key) for key in keys]}, option=orjson.OPT_INDENT_2) + b"\n"


def _record(key: ApiKey) -> dict[str, Any]:
    record = asdict(key)
    expires_ns = record.pop("expires_ns")
    record["created"] = format_time(record.pop("created_ns"))
    record["expires"] = None if expires_ns is None else format_time(expires_ns)
    return record


def _key(place: str, record: object) -> ApiKey:
    if not isinstance(record, dict):
        raise DefinitionError(f"{place}: expected an object, got {shown(record)}")
    known = {"id", "client", "sha256", "workspaces", "scopes", "priority", "created", "expires"}
    for name in record:
        if name not in known:
            raise DefinitionError(
                f"{place}: unknown field {shown(name)}, expected {', '.join(sorted(known))}"
            )
    expires = record.get("expires")
    key = ApiKey(
        _text(place, record, "id"),
        _text(place, record, "client"),
        _text(place, record, "sha256"),
        _texts(place, record, "workspaces"),
        _texts(place, record, "scopes"),
        _time_ns(f"{place}.created", record.get("created")),
        None if expires is None else _time_ns(f"{place}.expires", expires),
        _text(place, record, "priority") if "priority" in record else LIVE,
    )
    _check(key, place)
    return key


def _check(key: ApiKey, place: str) -> None:
    if _CLIENT.fullmatch(key.client) is None:
        raise DefinitionError(f"{place}.client: expected {CLIENT_EXPECTED}, got {shown(key.client)}")
    if _DIGEST.fullmatch(key.sha256) is None:
        raise DefinitionError(f"{place}.sha256: expected 64 hexadecimal digits, got {shown(key.sha256)}")
    if not key.workspaces:
        raise DefinitionError(f'{place}.workspaces: expected at least one, or "*", got none')
    if not key.scopes or not set(key.scopes) <= set(SCOPES):
        expected = " and ".join(SCOPES)
        raise DefinitionError(f"{place}.scopes: expected some of {expected}, got {shown(list(key.scopes))}")
    if key.priority not in PRIORITIES:
        expected = " or ".join(PRIORITIES)
        raise DefinitionError(f"{place}.priority: expected {expected}, got {shown(key.priority)}")


def _text(place: str, record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise DefinitionError(f"{place}.{name}: expected text, got {shown(value)}")
    return value


def _texts(place: str, record: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = record.get(name)
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise DefinitionError(f"{place}.{name}: expected a list of texts, got {shown(value)}")
    return tuple(value)


def _time_ns(place: str, value: object) -> int:
    try:
        if isinstance(value, str):
            return parse_time_ns(value)
    except ValueError:
        pass
    raise DefinitionError(f"{place}: expected a time such as 2026-11-23T08:00:00Z, got {shown(value)}")
