"""The control side: redis-py, for whatever isn't the hot path; here its errors become StoreErrors.

Knows commands, not rows. redis-py connects anew, tries again after losses and follows a cluster's
redirections; what it is told here may therefore run twice, and must be fit for it.

Invariants
1. Credentials come from the environment and are never part of a message or a URL; a password's file is read
   for each new connection, so that a new password needs no restart.
2. At most `MAX_AT_ONCE` calls are under way: redis-py refuses a connection more than its pool may have.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import redis.asyncio
from redis import exceptions
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.credentials import CredentialProvider

from fastserve.errors import DefinitionError, StoreError
from fastserve.store.redis.failures import Failure, Kind, classify
from fastserve.store.redis.nodes import Address
from fastserve.store.url import REDIS_CREDENTIALS, RedisSettings

Command: TypeAlias = Sequence[bytes | str | int]

MAX_AT_ONCE = 32
TIMEOUT_S = 30.0
"""For one operation with all its tries; a master that is gone is replaced within 15 s by default."""
CALL_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
RETRIES = 12
RETRY_BASE_S = 0.02
RETRY_CAP_S = 2.0
SCAN_COUNT = 1_000

NO_EVICTION = "noeviction"
_PASSING = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
)


class EnvironmentCredentials(CredentialProvider):
    """User and password out of REDIS_USERNAME, and REDIS_PASSWORD or the file REDIS_PASSWORD_FILE.

    ``name`` stands for REDIS in them where a store has its own.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def is_known(self) -> bool:
        """Whether there is a password."""
        return bool(self._variable("PASSWORD") or self._variable("PASSWORD_FILE"))

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return them as AUTH takes them.

        Raises:
            OSError: the file can't be read.
        """
        user, file = self._variable("USERNAME"), self._variable("PASSWORD_FILE")
        password = Path(file).read_text(encoding="utf-8").strip() if file else self._variable("PASSWORD")
        return (user, password) if user else (password,)

    def _variable(self, end: str) -> str:
        return os.environ.get(f"{self._name}_{end}", "")


def credentials(name: str = REDIS_CREDENTIALS) -> EnvironmentCredentials | None:
    """Return where credentials come from, None where there are none and none were named.

    Raises:
        DefinitionError: the store's own aren't there.
    """
    found = EnvironmentCredentials(name)
    if found.is_known:
        return found
    if name != REDIS_CREDENTIALS:
        raise DefinitionError(
            f"store URL: credentials: expected {name}_PASSWORD or {name}_PASSWORD_FILE in the environment, "
            "got neither"
        )
    return None


class Control:
    """One redis-py client."""

    def __init__(self, settings: RedisSettings) -> None:
        self._cluster = settings.cluster
        # A cluster's pipelines are no transactions, and take no word on it.
        self._options: dict[str, Any] = {} if settings.cluster else {"transaction": False}
        self._addresses = settings.addresses
        self._client: Any = _client(settings)
        self._at_once = asyncio.Semaphore(MAX_AT_ONCE)

    async def run(self, what: str, command: Command, *, timeout_s: float = TIMEOUT_S) -> Any:
        """Run one command; ``what`` names the table in errors.

        Raises:
            StoreError: it failed, or there was no answer in time.
        """
        with _naming(what):
            async with asyncio.timeout(timeout_s), self._at_once:
                return await self._client.execute_command(*command)

    async def run_all(
        self, what: str, commands: Sequence[Command], *, timeout_s: float = TIMEOUT_S
    ) -> list[Any]:
        """Run commands in one round trip (per node), in their order where they have a key in common.

        Raises:
            StoreError: one of them failed; others may have run.
        """
        if not commands:
            return []
        with _naming(what):
            async with asyncio.timeout(timeout_s), self._at_once:
                pipeline = (
                    self._client.pipeline() if self._cluster else self._client.pipeline(transaction=False)
                )
                for command in commands:
                    pipeline.execute_command(*command)
                results: list[Any] = await pipeline.execute()
                return results

    async def scan(self, what: str, pattern: bytes, part: int, parts: int) -> AsyncIterator[list[bytes]]:
        """Give the keys that fit a pattern, some at a time; of ``parts`` only the one that is ``part``.

        A part is a share of the nodes: Redis looks through all its keys for each scan, so cutting one node's
        keys up would only repeat that.

        Raises:
            StoreError: a node failed.
        """
        for number, node in enumerate(await self._masters(what)):
            if number % parts != part:
                continue
            target = {} if node is None else {"target_nodes": node}
            cursor: Any = 0
            while True:
                command = ("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
                with _naming(what):
                    async with asyncio.timeout(TIMEOUT_S), self._at_once:
                        cursor, keys = await self._client.execute_command(*command, **target)
                if isinstance(cursor, dict):  # of a cluster's nodes that were asked: one
                    (cursor,) = cursor.values()
                if keys:
                    yield keys
                if int(cursor) == 0:
                    break

    async def slots(self) -> Mapping[int, Address]:
        """Return the address of each slot's master.

        Raises:
            StoreError: no node answers.
        """
        with _naming(f"asking the cluster at {_shown(self._addresses)} for its slots"):
            async with asyncio.timeout(TIMEOUT_S), self._at_once:
                answer = await self._client.cluster_slots()
        found: dict[int, Address] = {}
        for (first, last), nodes in answer.items():
            host, port = nodes["primary"][:2]
            address = (str(host) or self._addresses[0][0], int(port))
            found.update(dict.fromkeys(range(int(first), int(last) + 1), address))
        return found

    async def check(self, *, allow_eviction: bool) -> None:
        """Check that servers keep what they are given.

        Raises:
            StoreError: one doesn't answer, or drops rows when its memory is full.
        """
        where = f"opening {_shown(self._addresses)}"
        target = {"target_nodes": self._client.PRIMARIES} if self._cluster else {}
        try:
            with _naming(where):
                async with asyncio.timeout(TIMEOUT_S):
                    answer = await self._client.execute_command("INFO", "memory", **target)
        except StoreError as error:
            if "NOPERM" in error.message or "no permissions" in error.message.lower():
                return  # a server that doesn't tell is taken for one that was set up with care
            raise
        reports = answer.values() if self._cluster and "maxmemory" not in answer else [answer]
        for report in reports:
            policy = report.get("maxmemory_policy", NO_EVICTION)
            if int(report.get("maxmemory", 0)) and policy != NO_EVICTION and not allow_eviction:
                raise StoreError(
                    f"Redis: {where}: expected maxmemory-policy {NO_EVICTION}, got {policy}: rows that are "
                    "dropped when memory is full look like rows that never were; set the policy, or say "
                    "eviction=allow in the store's URL"
                )

    async def close(self) -> None:
        """Let go of all connections."""
        await self._client.aclose()

    async def _masters(self, what: str) -> list[Any]:
        if not self._cluster:
            return [None]
        with _naming(what):
            async with asyncio.timeout(TIMEOUT_S):
                await self._client.initialize()
        return sorted(self._client.get_primaries(), key=lambda node: str(node.name))


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Turn what redis-py raises into StoreErrors that say what was tried."""
    try:
        yield
    except (exceptions.RedisError, OSError) as error:
        raise _failure(error).error(what) from error


def _failure(error: Exception) -> Failure:
    text = str(error) or type(error).__name__
    if isinstance(error, (exceptions.TimeoutError, TimeoutError)):
        return Failure(Kind.TRANSIENT, "no answer in time", timed_out=True)
    if isinstance(error, (exceptions.AuthenticationError, exceptions.AuthorizationError)):
        return Failure(Kind.PERMANENT, text)
    if isinstance(error, (*_PASSING, OSError)):
        return Failure(Kind.TRANSIENT, text)
    return classify(text)


def _client(settings: RedisSettings) -> Any:
    common: dict[str, Any] = {
        "credential_provider": credentials(settings.credentials),
        "protocol": 2,  # what the hot side speaks too: one set of replies
        "socket_timeout": CALL_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        "ssl": settings.tls,
        "retry": Retry(ExponentialWithJitterBackoff(base=RETRY_BASE_S, cap=RETRY_CAP_S), RETRIES),
    }
    if settings.cluster:
        nodes = [ClusterNode(host, port) for host, port in settings.addresses]
        return redis.asyncio.RedisCluster(startup_nodes=nodes, **common)
    ((host, port),) = settings.addresses
    return redis.asyncio.Redis(
        host=host, port=port, db=settings.database, retry_on_error=list(_PASSING), **common
    )


def _shown(addresses: Sequence[Address]) -> str:
    return ", ".join(f"{host}:{port}" for host, port in addresses)
