"""Writes through faults: all of it arrives, and what goes wrong is found or named."""

from __future__ import annotations

from base64 import b64decode

import pytest

from fastserve.errors import StoreError
from fastserve.store.dynamodb.writer import PUTS_PER_CALL, Writer
from tests.store.dynamodb.conftest import Run
from tests.support.scripted_store import Fault, serving
from tests.support.wire_client import wire_client

ROWS = [(f"key-{number}", f"row-{number:04}!".encode()) for number in range(333)]


def test_all_rows_arrive_whatever_is_left_out_throttled_or_lost(run: Run) -> None:
    async def story() -> None:
        faults = [Fault.UNPROCESSED, Fault.THROTTLED, Fault.RESET, Fault.ALL_UNPROCESSED, Fault.ERROR_500]
        async with serving(faults * 2, seed=5) as store, wire_client(store.endpoint) as client:
            store.tables["one"] = {}
            writer = Writer(client.caller)
            await writer.put_rows("one", ROWS)
            assert {key: b64decode(row) for key, row in store.tables["one"].items()} == dict(ROWS)
            store.script.extend(faults * 2)
            keys = [key for key, _ in ROWS]
            assert await writer.get_rows("one", keys) == [row for _, row in ROWS]
            store.script.extend(faults)
            await writer.delete_rows("one", keys[:300])
            assert set(store.tables["one"]) == set(keys[300:])

    run(story())


def test_a_call_holds_at_most_25_puts_and_no_key_twice(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            store.tables["one"] = {}
            await Writer(client.caller).put_rows("one", [("same", b"first"), *ROWS[:60], ("same", b"last!!")])
            sizes = [len(request["RequestItems"]["one"]) for _, request, _ in store.requests]
            assert sorted(sizes) == [11, PUTS_PER_CALL, PUTS_PER_CALL]
            assert b64decode(store.tables["one"]["same"]) == b"last!!"

    run(story())


def test_gets_are_consistent_also_when_they_are_asked_again(run: Run) -> None:
    async def story() -> None:
        async with serving([Fault.UNPROCESSED]) as store, wire_client(store.endpoint) as client:
            store.tables["one"] = {}
            await Writer(client.caller).get_rows("one", [key for key, _ in ROWS[:50]])
            flags = [request["RequestItems"]["one"]["ConsistentRead"] for _, request, _ in store.requests]
            assert flags == [True, True]

    run(story())


def test_a_service_that_takes_nothing_is_an_error_after_some_patience(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            store.tables["one"] = {}
            store.fault_of_all = Fault.ALL_UNPROCESSED
            with pytest.raises(StoreError) as caught:
                await Writer(client.caller, patience_s=0.1).put_rows("one", ROWS)
            assert str(caught.value) == (
                "DynamoDB: table one: BatchWriteItem: UnprocessedItems: the service takes no more"
            )
            assert caught.value.throttled

    run(story())


def test_nothing_is_sent_when_a_row_or_key_is_wrong(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            store.tables["one"] = {}
            with pytest.raises(StoreError, match="table one: key: expected 1 to 2048 bytes, got 0"):
                await Writer(client.caller).put_rows("one", [*ROWS, ("", b"row")])
            assert not store.requests

    run(story())


def test_an_item_that_is_no_packed_row_is_an_error_and_not_a_row(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            store.tables["one"] = {"a": "not base64!"}
            with pytest.raises(StoreError, match="table one: expected items with the key and a row"):
                await Writer(client.caller).get_rows("one", ["a"])

    run(story())
