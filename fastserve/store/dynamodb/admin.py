"""Tables: describing, creating and (for tests) deleting them, and their expiry, through aiobotocore.

Knows no rows. The client is made when it is first needed: a worker that only reads never pays for it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from fastserve.errors import DefinitionError, StoreError, shown
from fastserve.store.interface import (
    MAX_TABLE_NAME_LENGTH,
    MIN_TABLE_NAME_LENGTH,
    KeyAttribute,
    TableSpec,
)

DESCRIBES_IN_FLIGHT = 10
CREATE_TIMEOUT_S = 180.0
FIRST_LOOK_S = 0.02
LONGEST_LOOK_S = 1.0
RETRIES = 5
EXPIRY_ATTRIBUTE = "ttl"


class TableAdmin:
    """Administers the tables of one account, region and endpoint.

    ``session`` is an aiobotocore session; ``endpoint`` None is AWS's own.
    """

    def __init__(self, session: Any, region: str, endpoint: str | None) -> None:
        self._session = session
        self._region = region
        self._endpoint = endpoint
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._making = asyncio.Lock()

    async def client(self) -> Any:
        """Return the aiobotocore client.

        Raises:
            DefinitionError: what the environment says of tries is no number of them.
        """
        async with self._making:
            if self._client is None:
                from aiobotocore.config import AioConfig

                config = AioConfig(
                    connect_timeout=5,
                    read_timeout=20,
                    max_pool_connections=DESCRIBES_IN_FLIGHT,
                    retries={"mode": "standard", "total_max_attempts": _attempts(self._session)},
                )
                self._client = await self._stack.enter_async_context(
                    self._session.create_client(
                        "dynamodb", region_name=self._region, endpoint_url=self._endpoint, config=config
                    )
                )
        return self._client

    async def close(self) -> None:
        """Let go of the client's connections."""
        await self._stack.aclose()
        self._client = None

    async def describe_tables(self, names: Sequence[str]) -> dict[str, TableSpec | None]:
        """See `OnlineStore.describe_tables`."""
        turns = asyncio.Semaphore(DESCRIBES_IN_FLIGHT)

        async def one(name: str) -> TableSpec | None:
            async with turns:
                description = await self._describe(name)
                return None if description is None else _spec(name, description)

        specs = await asyncio.gather(*[one(name) for name in names])
        return dict(zip(names, specs, strict=True))

    async def create_table(self, spec: TableSpec) -> None:
        """See `OnlineStore.create_table`. A new table is billed by use."""
        if not usable_table_name(spec.name):
            raise StoreError(
                f"DynamoDB: table name: expected {MIN_TABLE_NAME_LENGTH} to {MAX_TABLE_NAME_LENGTH} "
                f"characters out of A-Z a-z 0-9 _ - . got {shown(spec.name)}"
            )
        description = await self._describe(spec.name)
        if description is None:
            await self._create(spec)
        async with asyncio.timeout(CREATE_TIMEOUT_S):
            description = await self._until_active(spec.name)
        existing = _spec(spec.name, description)
        if existing != spec:
            raise StoreError(
                f"DynamoDB: table {spec.name} exists with another key: expected {_keys_text(spec)}, "
                f"got {_keys_text(existing)}"
            )

    async def delete_table(self, name: str) -> None:
        """Delete a table and return when it is gone; absent is fine."""
        if await self._describe(name) is not None:
            await self._ask("DeleteTable", name, TableName=name)
        look_s = FIRST_LOOK_S
        while await self._describe(name) is not None:
            await asyncio.sleep(look_s)
            look_s = min(look_s * 2, LONGEST_LOOK_S)

    async def enable_expiry(self, table: str) -> None:
        """See `OnlineStore.enable_expiry`."""
        answer = await self._ask("DescribeTimeToLive", table, TableName=table)
        state = (answer or {}).get("TimeToLiveDescription", {}).get("TimeToLiveStatus")
        if state in {"ENABLED", "ENABLING"}:
            return
        specification = {"Enabled": True, "AttributeName": EXPIRY_ATTRIBUTE}
        await self._ask("UpdateTimeToLive", table, TableName=table, TimeToLiveSpecification=specification)

    async def _create(self, spec: TableSpec) -> None:
        await self._ask(
            "CreateTable",
            spec.name,
            absent="ResourceInUseException",  # somebody else has just created it, perhaps with the same key
            **creation_parameters(spec),
        )

    async def _until_active(self, name: str) -> Mapping[str, Any]:
        look_s = FIRST_LOOK_S
        while True:
            description = await self._describe(name)
            if description is not None and description.get("TableStatus", "ACTIVE") in {"ACTIVE", "UPDATING"}:
                return description
            await asyncio.sleep(look_s)
            look_s = min(look_s * 2, LONGEST_LOOK_S)

    async def _describe(self, name: str) -> Mapping[str, Any] | None:
        if not usable_table_name(name):
            return None
        answer = await self._ask("DescribeTable", name, absent="ResourceNotFoundException", TableName=name)
        return None if answer is None else answer["Table"]

    async def _ask(
        self, operation: str, table: str, *, absent: str | None = None, **parameters: Any
    ) -> Any | None:
        """Call an operation; the error code ``absent`` is None, every other one a StoreError."""
        from botocore.exceptions import BotoCoreError, ClientError

        client = await self.client()
        method = getattr(client, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).lower())
        try:
            return await method(**parameters)
        except ClientError as error:
            details: Mapping[str, Any] = error.response.get("Error", {})
            if details.get("Code") == absent:
                return None
            raise StoreError(
                f"DynamoDB: table {table}: {operation}: {details.get('Code')}: {details.get('Message')}"
            ) from error
        except (BotoCoreError, OSError, TimeoutError) as error:
            raise StoreError(f"DynamoDB: table {table}: {operation}: {error}", retryable=True) from error


def _attempts(session: Any) -> int:
    """Return how often a call is tried: as the environment or the profile says, as with AWS's own tools."""
    try:
        wanted: int | None = session.get_config_variable("max_attempts")
    except ValueError:
        wanted = 0
    if wanted is not None and wanted < 1:
        raise DefinitionError(
            "AWS_MAX_ATTEMPTS, or a profile's max_attempts: expected a whole number of at least 1"
        )
    return 1 + RETRIES if wanted is None else wanted


def creation_parameters(spec: TableSpec) -> dict[str, Any]:
    """Return how a table is created: by CreateTable, or by an import from S3."""
    attributes = [spec.partition_key] + ([] if spec.sort_key is None else [spec.sort_key])
    return {
        "TableName": spec.name,
        "AttributeDefinitions": [
            {"AttributeName": key.name, "AttributeType": key.type} for key in attributes
        ],
        "KeySchema": [
            {"AttributeName": key.name, "KeyType": kind}
            for key, kind in zip(attributes, ("HASH", "RANGE"), strict=False)
        ],
        "BillingMode": "PAY_PER_REQUEST",
    }


def usable_table_name(name: str) -> bool:
    """Say whether DynamoDB can have a table of this name."""
    in_range = MIN_TABLE_NAME_LENGTH <= len(name) <= MAX_TABLE_NAME_LENGTH
    return in_range and re.fullmatch(r"[A-Za-z0-9_.-]+", name) is not None


def _spec(name: str, description: Mapping[str, Any]) -> TableSpec:
    types = {entry["AttributeName"]: entry["AttributeType"] for entry in description["AttributeDefinitions"]}
    keys: dict[str, KeyAttribute] = {}
    for entry in description["KeySchema"]:
        attribute = entry["AttributeName"]
        kind = types[attribute]
        if kind not in {"S", "N"}:
            raise StoreError(
                f"DynamoDB: table {name}: key attribute {attribute}: expected type S or N, got {kind}"
            )
        keys[entry["KeyType"]] = KeyAttribute(attribute, kind)
    return TableSpec(name, keys["HASH"], keys.get("RANGE"))


def _keys_text(spec: TableSpec) -> str:
    keys = [spec.partition_key] + ([] if spec.sort_key is None else [spec.sort_key])
    return ", ".join(f"{key.name} ({key.type})" for key in keys)
