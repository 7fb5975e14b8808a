"""Opening the store, with credentials and endpoint out of botocore; and the wire client beside the SDK."""

from __future__ import annotations

import asyncio
import random
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from aiobotocore.session import AioSession

from fastserve.errors import DefinitionError, StoreError
from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.dynamodb.store import DynamoDBStore
from fastserve.store.interface import TableSpec
from fastserve.store.url import open_store
from perf.load.standin_client import StandInAddress
from tests.store.dynamodb.conftest import Run
from tests.support.dynamodb_servers import (
    REGION,
    aws_environment,
    dynoxide_endpoint,
    moto_endpoint,
    store_url,
)
from tests.support.standin import stand_in

__all__ = ["aws_environment", "dynoxide_endpoint", "moto_endpoint", "stand_in"]


async def opened(url: str) -> DynamoDBStore:
    store = await open_store(url)
    assert isinstance(store, DynamoDBStore)
    return store


@pytest.mark.usefixtures("aws_environment")
def test_without_credentials_the_store_does_not_open_and_says_what_to_set(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    async def story() -> None:
        with pytest.raises(DefinitionError) as caught:
            await open_store("dynamodb://eu-central-1")
        for word in ("found none", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "role"):
            assert word in str(caught.value)

    run(story())


@pytest.mark.usefixtures("aws_environment")
def test_an_unknown_profile_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_PROFILE", "staging")

    async def story() -> None:
        with pytest.raises(DefinitionError, match="staging"):
            await open_store("dynamodb://eu-central-1")

    run(story())


@pytest.mark.usefixtures("aws_environment")
@pytest.mark.parametrize(
    "region, variable, host",
    [
        ("eu-central-1", None, "dynamodb.eu-central-1.amazonaws.com:443"),
        ("cn-north-1", None, "dynamodb.cn-north-1.amazonaws.com.cn:443"),
        ("eu-central-1", "http://127.0.0.1:4566", "127.0.0.1:4566"),
    ],
)
def test_the_endpoint_is_botocores_for_the_region_and_the_environment(
    run: Run, monkeypatch: pytest.MonkeyPatch, region: str, variable: str | None, host: str
) -> None:
    if variable is not None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", variable)

    async def story() -> None:
        store = await opened(f"dynamodb://{region}")
        endpoint = store._pool._endpoint
        assert f"{endpoint.host}:{endpoint.port}" == host
        assert endpoint.tls is (variable is None)
        await store.close()

    run(story())


@pytest.mark.usefixtures("aws_environment")
def test_a_ca_bundle_of_the_environment_is_used(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "absent.pem"))

    async def story() -> None:
        with pytest.raises(DefinitionError, match="AWS_CA_BUNDLE"):
            await open_store("dynamodb://eu-central-1")

    run(story())


@pytest.mark.usefixtures("aws_environment")
def test_calls_about_tables_are_tried_as_often_as_the_environment_says(
    run: Run, stand_in: StandInAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    failing = {"operations": ["DescribeTable"], "script": ["server_error"] * 2}
    stand_in.control(faults=failing)

    async def story() -> None:
        store = await opened(stand_in.store_url())
        with pytest.raises(StoreError, match="table views: DescribeTable: InternalServerError"):
            await store.describe_tables(["views"])
        assert await store.describe_tables(["views"]) == {"views": None}
        await store.close()

    run(story())


@pytest.mark.usefixtures("aws_environment")
@pytest.mark.parametrize("attempts", ["0", "-1", "many"])
def test_a_number_of_tries_that_is_none_is_an_error(
    run: Run, monkeypatch: pytest.MonkeyPatch, attempts: str
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", attempts)

    async def story() -> None:
        store = await opened(store_url("http://127.0.0.1:1"))
        with pytest.raises(DefinitionError, match=r"AWS_MAX_ATTEMPTS, .*: expected a whole number"):
            await store.describe_tables(["views"])
        await store.close()

    run(story())


@pytest.mark.usefixtures("aws_environment")
def test_a_closed_store_refuses_work(run: Run) -> None:
    async def story() -> None:
        store = await opened(store_url("http://127.0.0.1:1"))
        await store.close()
        await store.close()
        with pytest.raises(StoreError, match="closed"):
            await store.get_rows("table", ["a"])
        with pytest.raises(StoreError, match="closed"):
            store.reader(lambda _: None)

    run(story())


@pytest.mark.usefixtures("aws_environment")
def test_a_service_that_is_not_there_is_a_store_error_of_every_method(run: Run) -> None:
    async def story() -> None:
        store = await opened(store_url("http://127.0.0.1:1"))
        store._writer._patience_s = 0.05
        with pytest.raises(StoreError, match=r"can't connect to 127\.0\.0\.1:1"):
            await store.get_rows("table", ["a"])
        await store.close()

    run(story())


def test_the_reader_and_the_sdk_read_the_same_items(
    run: Run, aws_environment: None, dynoxide_endpoint: str
) -> None:
    async def story() -> None:
        store = await opened(store_url(dynoxide_endpoint))
        tables = tuple(store.table_prefix + name for name in ("one", "two"))
        chance = random.Random(5)
        keys = [f"key {number} \\ | é 🦜" for number in range(40)]
        for table in tables:
            await store.create_table(TableSpec(table))
            there = chance.sample(keys, 30)
            await store.put_rows(table, [(key, chance.randbytes(chance.randrange(1, 3000))) for key in there])
        ours = await read_with_ours(store, tables, keys)
        session: Any = AioSession()
        async with session.create_client(
            "dynamodb", region_name=REGION, endpoint_url=dynoxide_endpoint
        ) as client:
            wanted = {"Keys": [{"k": {"S": key}} for key in keys]}
            answer = await client.batch_get_item(RequestItems=dict.fromkeys(tables, wanted))
        assert not answer["UnprocessedKeys"]
        theirs = {
            (table, item["k"]["S"]): b64encode(item["v"]["B"]).decode()
            for table in tables
            for item in answer["Responses"][table]
        }
        assert len(theirs) == 60
        assert ours == theirs
        for table in tables:
            await store.delete_table(table)
        assert await store.describe_tables(tables) == dict.fromkeys(tables)
        await store.close()

    run(story())


async def read_with_ours(
    store: DynamoDBStore, tables: tuple[str, ...], keys: list[str]
) -> dict[tuple[str, str], str | bytes]:
    """Read keys of all tables with the store's reader; give what is there by (table, key)."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    group = ReadGroup(0, tables)
    reads = [KeyRead(group, key, loop.time() + 20) for key in keys]
    store.reader(lambda _: done.set()).fetch(reads)
    await done.wait()
    rows: dict[tuple[str, str], str | bytes] = {}
    for read in reads:
        assert read.error is None
        for table, row in zip(tables, read.rows, strict=True):
            if row is not None:
                assert isinstance(row, (str, bytes))
                rows[table, read.key] = row
    return rows
