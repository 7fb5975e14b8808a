"""What DynamoDB is told of the expiry of blocks: a time to live for the table, and a number in each item."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.request import Request, urlopen

import orjson
import pytest

from fastserve.store.interface import TableSpec, VersionedRow
from fastserve.store.url import open_store
from perf.load import standin_client

EXPIRES_S = 2_000_000_000


def asked(endpoint: str, operation: str, **parameters: Any) -> Any:
    """Ask as any other client of the table would."""
    headers = {"X-Amz-Target": f"DynamoDB_20120810.{operation}", "Content-Type": "application/x-amz-json-1.0"}
    with urlopen(Request(endpoint, orjson.dumps(parameters), headers)) as answer:
        return orjson.loads(answer.read())


async def write(url: str) -> None:
    store = await open_store(url)
    try:
        await store.create_table(TableSpec("view.stream"))
        await store.enable_expiry("view.stream")
        await store.replace_row("view.stream", "k\t1", VersionedRow(1, b"abc", b"", EXPIRES_S))
        await store.replace_row("view.stream", "k\t2", VersionedRow(1, b"abc", b"", 0))
    finally:
        await store.close()


def test_a_block_has_the_second_at_which_the_table_may_delete_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "made-up")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up")
    with standin_client.running() as stand_in:
        asyncio.run(write(stand_in.store_url()))
        endpoint = stand_in.endpoint
        told = asked(endpoint, "DescribeTimeToLive", TableName="view.stream")
        items = [
            asked(endpoint, "GetItem", TableName="view.stream", Key={"k": {"S": key}})["Item"]
            for key in ("k\t1", "k\t2")
        ]
    description = told["TimeToLiveDescription"]
    assert description == {"TimeToLiveStatus": "ENABLED", "AttributeName": "ttl"}
    assert items[0]["ttl"] == {"N": str(EXPIRES_S)}
    assert "ttl" not in items[1]
