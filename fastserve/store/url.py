"""A store by its URL: ``local:PATH``, ``dynamodb://REGION?…``, ``redis://HOST?…``; and opening what is meant.

`parse_store_url` is pure: text in, frozen settings out. It touches neither folder nor network, and doesn't
know how a store is built; `open_store` knows where the builder of each kind lives, and imports only that one.

Invariants
1. A parameter that is not known, is given twice or can't be used is an error that says what can be given;
   none is passed over, for a misspelled ``prefix`` would read other tables.
2. What looks like a credential is refused and never repeated in a message.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from fastserve.errors import DefinitionError, shown
from fastserve.store.interface import MAX_TABLE_NAME_LENGTH, OnlineStore

FORMS = "local:PATH, dynamodb://REGION or redis://HOST:PORT"
LOCAL_PARAMETERS = ("sync",)
DYNAMODB_PARAMETERS = ("endpoint", "prefix", "connections", "consistent_reads")
REDIS_PARAMETERS = ("prefix", "eviction", "credentials")
REDIS_CREDENTIALS = "REDIS"
REDIS_PORT = 6379
MAX_PORT = 65_535
MAX_REDIS_DATABASE = 2**31 - 1
MAX_CONNECTIONS = 1024
# Half of the longest table name: the other half is for what the prefix stands before.
MAX_PREFIX_LENGTH = MAX_TABLE_NAME_LENGTH // 2

Sync: TypeAlias = Literal["batch", "off"]
_SYNCS: dict[str, Sync] = {"batch": "batch", "off": "off"}


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """``local:PATH?sync=batch|off``: a folder on this machine.

    With ``batch`` (the default) what a write method has returned for survives a power failure. With ``off``
    a power failure may spoil the folder; it is for stores that can be made again. A killed process harms
    neither.
    """

    folder: str
    sync: Sync = "batch"
    prefix: ClassVar[str] = ""  # a folder is one store; it needs no part in the names of its tables


@dataclass(frozen=True, slots=True)
class DynamoDBSettings:
    """``dynamodb://REGION?endpoint=URL&prefix=TEXT&connections=N&consistent_reads=true|false``.

    ``endpoint`` None is AWS's own for the region; ``connections`` (per process, for reads) None leaves the
    number to the store. ``consistent_reads`` doubles the price of a read.
    """

    region: str
    endpoint: str | None = None
    prefix: str = ""
    connections: int | None = None
    consistent_reads: bool = False


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """``redis://HOST:PORT/DATABASE?prefix=TEXT&eviction=refuse|allow&credentials=NAME``; ``rediss`` is TLS.

    With ``+cluster`` after the scheme it is a cluster, and several ``HOST:PORT`` may stand there, by commas:
    the first that answers says what the others are. ``allow_eviction`` false refuses a server that drops rows
    when its memory is full. ``credentials`` is what the variables with user and password begin with.
    """

    addresses: tuple[tuple[str, int], ...]
    database: int = 0
    prefix: str = ""
    tls: bool = False
    cluster: bool = False
    allow_eviction: bool = False
    credentials: str = REDIS_CREDENTIALS


StoreSettings: TypeAlias = LocalSettings | DynamoDBSettings | RedisSettings

READ_TIMEOUT_S = 0.5


async def open_store(
    url: str,
    *,
    read_timeout_s: float = READ_TIMEOUT_S,
    connections: int | None = None,
    hedge_floor_s: float = 0.0,
) -> OnlineStore:
    """Open the store that ``url`` names. Call it in the process and event loop that will use it.

    ``read_timeout_s`` is the time of one try of a read over a network. ``connections`` bounds the connections
    to the store where the URL doesn't. ``hedge_floor_s`` is the least age at which a slow read of DynamoDB
    gets a second copy, 0 for none.

    Raises:
        DefinitionError: the URL can't be used as written.
        StoreError: the store can't be opened: a folder, credentials, a server that can't be reached.
    """
    settings = parse_store_url(url)
    if isinstance(settings, LocalSettings):
        from fastserve.store.local.store import open_local

        return await open_local(settings)
    if isinstance(settings, RedisSettings):
        from fastserve.store.redis.store import open_redis

        return await open_redis(settings, call_timeout_s=read_timeout_s)
    from fastserve.store.dynamodb.store import open_dynamodb

    settings = replace(settings, connections=settings.connections or connections)
    return await open_dynamodb(settings, call_timeout_s=read_timeout_s, hedge_floor_s=hedge_floor_s)


def parse_store_url(url: str) -> StoreSettings:
    """Return what a store's URL says.

    Raises:
        DefinitionError: unknown scheme, no folder or region, a parameter that is unknown or can't be used.
    """
    scheme, colon, rest = url.partition(":")
    parser = _PARSERS.get(scheme)
    if not colon or parser is None:
        raise DefinitionError(f"store URL: expected {FORMS}, got {_named(url)}")
    target, _, query = rest.partition("?")
    return parser(target, query)


def _parse_local(target: str, query: str) -> LocalSettings:
    if target.startswith("//"):
        # local://data/store would be read by some as ./data/store and by others as /data/store.
        raise DefinitionError(
            f"store URL: expected local:PATH with a relative path or one that begins with a single slash, "
            f"got {shown('local:' + target)}"
        )
    if not target or "\0" in target:
        raise DefinitionError("store URL: local: needs a folder; write for example local:./store")
    parameters = _parameters(query, LOCAL_PARAMETERS)
    named = parameters.get("sync", "batch")
    sync = _SYNCS.get(named)
    if sync is None:
        raise DefinitionError(f"store URL: sync: expected batch or off, got {shown(named)}")
    return LocalSettings(target, sync)


def _parse_dynamodb(target: str, query: str) -> DynamoDBSettings:
    region = target.removeprefix("//").removesuffix("/")
    if "@" in target:
        raise DefinitionError(
            "store URL: expected dynamodb://REGION, got one with credentials; they belong where AWS's tools "
            "look for them (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile or a role)"
        )
    if not region or not target.startswith("//"):
        raise DefinitionError(
            "store URL: expected a region, as in dynamodb://eu-central-1 (with an emulator any will do, as "
            f"in dynamodb://local?endpoint=http://127.0.0.1:8000), got {shown('dynamodb:' + target)}"
        )
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+){0,5}", region) or len(region) > 40:
        raise DefinitionError(f"store URL: region: expected a name like eu-central-1, got {shown(region)}")
    parameters = _parameters(query, DYNAMODB_PARAMETERS)
    return DynamoDBSettings(
        region,
        endpoint=_endpoint(parameters.get("endpoint")),
        prefix=_prefix(parameters.get("prefix", "")),
        connections=_connections(parameters.get("connections")),
        consistent_reads=_flag("consistent_reads", parameters.get("consistent_reads", "false")),
    )


def _parse_redis(target: str, query: str, *, tls: bool, cluster: bool) -> RedisSettings:
    if "@" in target:
        raise DefinitionError(
            "store URL: expected redis://HOST:PORT, got one with credentials; they belong into the "
            "environment: REDIS_USERNAME, and REDIS_PASSWORD or REDIS_PASSWORD_FILE"
        )
    hosts, _, path = target.removeprefix("//").partition("/")
    if not target.startswith("//") or not hosts or (not cluster and "," in hosts):
        raise DefinitionError(
            "store URL: expected a host, as in redis://127.0.0.1:6379/0, or several of a cluster, as in "
            f"redis+cluster://10.0.0.1:6379,10.0.0.2:6379, got {shown(target)}"
        )
    if path and (cluster or not re.fullmatch(r"[0-9]{1,10}", path) or int(path) > MAX_REDIS_DATABASE):
        expected = (
            "none, for a cluster has but one" if cluster else "a number, as in redis://127.0.0.1:6379/0"
        )
        raise DefinitionError(f"store URL: database: expected {expected}, got {shown(path)}")
    parameters = _parameters(query, REDIS_PARAMETERS)
    eviction = parameters.get("eviction", "refuse")
    if eviction not in {"refuse", "allow"}:
        raise DefinitionError(f"store URL: eviction: expected refuse or allow, got {shown(eviction)}")
    credentials = parameters.get("credentials", REDIS_CREDENTIALS)
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,60}", credentials):
        raise DefinitionError(
            "store URL: credentials: expected what variables of the environment begin with, as HOT for "
            "HOT_PASSWORD, got something else"  # which may be a password
        )
    return RedisSettings(
        tuple(_address(host) for host in hosts.split(",")),
        database=int(path or 0),
        prefix=_prefix(parameters.get("prefix", "")),
        tls=tls,
        cluster=cluster,
        allow_eviction=eviction == "allow",
        credentials=credentials,
    )


def _address(text: str) -> tuple[str, int]:
    """Return host and port of ``HOST[:PORT]`` or ``[IPV6][:PORT]``."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+))(?::([0-9]{1,5}))?", text)
    port = int(match[3] or REDIS_PORT) if match else 0
    if match is None or not 1 <= port <= MAX_PORT:
        raise DefinitionError(f"store URL: expected HOST:PORT, got {shown(text)}")
    return match[1] or match[2], port


_PARSERS: dict[str, Callable[[str, str], StoreSettings]] = {
    "local": _parse_local,
    "dynamodb": _parse_dynamodb,
    "redis": partial(_parse_redis, tls=False, cluster=False),
    "rediss": partial(_parse_redis, tls=True, cluster=False),
    "redis+cluster": partial(_parse_redis, tls=False, cluster=True),
    "rediss+cluster": partial(_parse_redis, tls=True, cluster=True),
}


def _parameters(query: str, known: tuple[str, ...]) -> dict[str, str]:
    """Split ``a=b&c=d``. Plus signs stay (a form would read them as spaces), %XX is decoded."""
    values: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        if name not in known:
            raise DefinitionError(
                f"store URL: expected parameters out of {', '.join(known)}, got {shown(name)}"
            )
        if name in values:
            raise DefinitionError(f"store URL: {name}: expected once, got it twice")
        if not equals or not value:
            raise DefinitionError(f"store URL: {name}: expected {name}=VALUE, got no value")
        values[name] = unquote(value)
    return values


def _endpoint(text: str | None) -> str | None:
    """Return ``http[s]://HOST[:PORT]`` without a slash at the end."""
    if text is None:
        return None
    wrong = "store URL: endpoint: expected http://HOST:PORT or https://HOST"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise DefinitionError(f"{wrong}, got {shown(text)}") from None
    if "@" in parts.netloc:
        raise DefinitionError(f"{wrong}, got one with credentials")
    extra = parts.path not in {"", "/"} or parts.query or parts.fragment
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or extra
        or port == 0
        or not text.isascii()
    ):
        raise DefinitionError(f"{wrong}, got {shown(text)}")
    if re.search(r"[\x00-\x20\x7f]", text):
        raise DefinitionError(f"{wrong}, got {shown(text)}")
    return f"{parts.scheme}://{parts.netloc}"


def _prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]*", text) or len(text) > MAX_PREFIX_LENGTH:
        raise DefinitionError(
            f"store URL: prefix: expected at most {MAX_PREFIX_LENGTH} characters out of A-Z a-z 0-9 _ - . "
            f"for names of tables, got {shown(text)}"
        )
    return text


def _connections(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text) or int(text) > MAX_CONNECTIONS:
        raise DefinitionError(f"store URL: connections: expected 1 to {MAX_CONNECTIONS}, got {shown(text)}")
    return int(text)


def _flag(name: str, text: str) -> bool:
    if text not in {"true", "false"}:
        raise DefinitionError(f"store URL: {name}: expected true or false, got {shown(text)}")
    return text == "true"


def _named(url: str) -> str:
    """Return what can be shown of a URL whose form is unknown: it may hold a password."""
    scheme, colon, _ = url.partition(":")
    return f"the scheme {shown(scheme)}" if colon else shown(url)
