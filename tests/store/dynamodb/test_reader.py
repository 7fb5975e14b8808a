"""The reader against a service that misbehaves: every read gets its own rows or its own error, once."""

from __future__ import annotations

import asyncio
import random
from base64 import b64encode

import pytest

from fastserve.errors import StoreError
from fastserve.plan.reads import ReadGroup
from fastserve.serving.coalescer import KeyRead
from fastserve.store.dynamodb.pool import PoolSettings
from fastserve.wire.retry import RetryBudget
from tests.store.dynamodb.conftest import Run
from tests.support.scripted_store import Fault, ScriptedStore, serving
from tests.support.wire_client import WireClient, wire_client

ONE = ReadGroup(0, ("one",))
PAIR = ReadGroup(1, ("two", "three"))
MISSING = ReadGroup(2, ("missing",))
KEYS = [f"key-{number}" for number in range(30)]


def row_text(table: str, key: str) -> str:
    """Return a row that names its table and key; what is read can't be another's."""
    return b64encode(f"{table}/{key}".encode()).decode()


def filled(store: ScriptedStore, tables: tuple[str, ...] = ("one", "two", "three")) -> None:
    for table in tables:
        store.tables[table] = {key: row_text(table, key) for key in KEYS}


def assert_own_rows(read: KeyRead) -> None:
    assert read.error is None, read.error
    assert read.rows == [row_text(table, read.key) for table in read.group.tables]


def error_of(read: KeyRead) -> StoreError:
    assert read.error is not None
    return read.error


def test_reads_of_several_groups_get_their_rows_in_one_call(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            filled(store)
            reads = [*client.reads(ONE, *KEYS), *client.reads(PAIR, *KEYS, "absent")]
            await client.fetched(reads)
            for read in reads[:-1]:
                assert_own_rows(read)
            assert reads[-1].error is None
            assert reads[-1].rows == [None, None]
            assert len(store.requests) == 1

    run(story())


@pytest.mark.parametrize("consistent", [False, True])
def test_consistent_reads_are_asked_for_when_told_so(run: Run, consistent: bool) -> None:
    async def story() -> None:
        async with serving([Fault.UNPROCESSED]) as store:
            filled(store)
            async with wire_client(store.endpoint, consistent=consistent) as client:
                await client.fetched(client.reads(ONE, *KEYS))
            assert len(store.requests) == 2
            for _, request, _ in store.requests:
                entry = request["RequestItems"]["one"]
                assert entry.get("ConsistentRead", False) is consistent
                assert set(entry) <= {"Keys", "ConsistentRead"}

    run(story())


CURED = [
    Fault.RESET,
    Fault.RESET_MID_ANSWER,
    Fault.WRONG_CRC,
    Fault.CHUNKED,
    Fault.CLOSE_AFTER,
    Fault.CLOSE_SILENTLY,
    Fault.UNPROCESSED,
    Fault.ALL_UNPROCESSED,
    Fault.FOREIGN_UNPROCESSED,
    Fault.FOREIGN_ITEM,
    Fault.THROTTLED,
    Fault.ERROR_500,
    Fault.HTML_503,
    Fault.NOT_JSON,
    Fault.NOT_HTTP,
    Fault.UNASKED,
]


@pytest.mark.parametrize("fault", CURED, ids=lambda fault: fault.name)
def test_a_fault_that_passes_is_cured_within_the_deadline(run: Run, fault: Fault) -> None:
    async def story() -> None:
        async with serving([Fault.NONE, fault, fault]) as store, wire_client(store.endpoint) as client:
            filled(store)
            for _ in range(3):
                reads = [*client.reads(ONE, *KEYS), *client.reads(PAIR, *KEYS)]
                await client.fetched(reads)
                for read in reads:
                    assert_own_rows(read)

    run(story())


def test_only_the_keys_that_were_left_out_are_asked_again(run: Run) -> None:
    async def story() -> None:
        async with serving([Fault.UNPROCESSED] * 3) as store, wire_client(store.endpoint) as client:
            filled(store)
            reads = client.reads(PAIR, *KEYS)
            await client.fetched(reads)
            for read in reads:
                assert_own_rows(read)
            sizes = [len(store.keys_asked(number)) for number in range(len(store.requests))]
            assert sizes[0] == 60
            assert sizes == sorted(sizes, reverse=True)
            assert sizes[-1] < 10
            assert set(store.keys_asked(1)) < set(store.keys_asked(0))

    run(story())


def test_reads_that_are_complete_do_not_wait_for_those_that_are_not(run: Run) -> None:
    async def story() -> None:
        async with (
            serving([Fault.UNPROCESSED, Fault.STALL]) as store,
            wire_client(store.endpoint) as client,
        ):
            filled(store)
            reads = client.reads(ONE, *KEYS)
            client.fetch(reads)
            await store.until_asked(2)
            rest = {key for _, key in store.keys_asked(1)}
            assert {read.key for read in client.settled} == {read.key for read in reads} - rest
            store.release()
            await client.until_settled(reads)
            for read in reads:
                assert_own_rows(read)

    run(story())


def test_keys_left_out_until_the_deadline_are_an_error_and_not_absent(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            filled(store)
            store.fault_of_all = Fault.ALL_UNPROCESSED
            reads = client.reads(ONE, *KEYS, within_s=0.15)
            await client.fetched(reads)
            for read in reads:
                error = error_of(read)
                assert error.retryable
                assert error.throttled
                assert str(error) == (
                    "DynamoDB: reading one: UnprocessedKeys: the service left all keys out until the deadline"
                )

    run(story())


def test_throttling_until_the_deadline_says_so(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            filled(store)
            store.fault_of_all = Fault.THROTTLED
            (read,) = client.reads(PAIR, "key-1", within_s=0.15)
            await client.fetched([read])
            error = error_of(read)
            assert error.throttled
            assert str(error).startswith(
                "DynamoDB: reading two, three: ProvisionedThroughputExceededException: The level"
            )

    run(story())


def test_a_late_answer_is_never_taken_for_a_later_calls(run: Run) -> None:
    async def story() -> None:
        async with (
            serving([Fault.STALL]) as store,
            wire_client(store.endpoint, timeout_s=0.05, settings=PoolSettings(max_connections=1)) as client,
        ):
            filled(store)
            (early,) = client.reads(ONE, "key-1", within_s=0.04)
            await client.fetched([early])
            assert str(error_of(early)) == (
                "DynamoDB: reading one: timeout: no answer within the call's time"
            )
            store.release()
            for key in KEYS:
                (late,) = client.reads(ONE, key)
                await client.fetched([late])
                assert_own_rows(late)
            assert early.error is not None
            assert not early.rows

    run(story())


def test_a_stalled_try_is_made_again_after_the_calls_time(run: Run) -> None:
    async def story() -> None:
        async with serving([Fault.STALL]) as store, wire_client(store.endpoint, timeout_s=0.05) as client:
            filled(store)
            reads = client.reads(ONE, *KEYS)
            await client.fetched(reads)
            for read in reads:
                assert_own_rows(read)
            assert len(store.requests) == 2

    run(story())


def test_each_try_after_a_timeout_gets_twice_the_time(run: Run) -> None:
    async def story() -> None:
        script = [Fault.STALL, Fault.STALL, Fault.STALL]
        async with serving(script) as store, wire_client(store.endpoint, timeout_s=0.03) as client:
            filled(store)
            begun_s = client.loop.time()
            reads = client.reads(ONE, *KEYS)
            await client.fetched(reads)
            for read in reads:
                assert_own_rows(read)
            assert client.loop.time() - begun_s >= 0.03 + 0.06 + 0.12

    run(story())


def test_one_reads_deadline_fails_no_other(run: Run) -> None:
    async def story() -> None:
        async with serving([Fault.STALL]) as store, wire_client(store.endpoint, timeout_s=0.1) as client:
            filled(store)
            hasty = client.reads(ONE, "key-1", within_s=0.05)
            patient = client.reads(ONE, "key-2")
            await client.fetched([*hasty, *patient])
            assert error_of(hasty[0]).retryable
            assert_own_rows(patient[0])

    run(story())


def test_a_missing_table_fails_only_its_own_reads(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            filled(store)
            good = [*client.reads(ONE, *KEYS[:10]), *client.reads(PAIR, *KEYS[:10])]
            bad = client.reads(MISSING, *KEYS[:10])
            reads = [read for three in zip(good[:10], bad, good[10:], strict=True) for read in three]
            await client.fetched(reads)
            for read in good:
                assert_own_rows(read)
            for read in bad:
                error = error_of(read)
                assert not error.retryable
                assert str(error) == (
                    "DynamoDB: reading missing: ResourceNotFoundException: Requested resource not found"
                )

    run(story())


def test_a_guilty_group_is_asked_apart_for_a_while_and_found_innocent_at_once(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            filled(store)
            await client.fetched([*client.reads(ONE, "key-1"), *client.reads(MISSING, "key-1")])
            before = len(store.requests)
            await client.fetched([*client.reads(ONE, "key-2"), *client.reads(MISSING, "key-2")])
            assert len(store.requests) == before + 2
            filled(store, ("missing",))
            reads = [*client.reads(ONE, "key-3"), *client.reads(MISSING, "key-3")]
            await client.fetched(reads)
            for read in reads:
                assert_own_rows(read)

    run(story())


def test_a_key_that_the_service_refuses_fails_alone(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            filled(store)
            reads = client.reads(ONE, *KEYS, "x" * 2049)
            random.Random(1).shuffle(reads)
            await client.fetched(reads)
            for read in reads:
                if len(read.key) > 2048:
                    assert "ValidationException" in str(error_of(read))
                else:
                    assert_own_rows(read)
            assert len(store.requests) < 16

    run(story())


def test_a_key_that_is_no_text_fails_alone_and_fetch_does_not_raise(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            filled(store)
            reads = client.reads(ONE, "key-1", "\ud800", "key-2")
            await client.fetched(reads)
            assert_own_rows(reads[0])
            assert not error_of(reads[1]).retryable
            assert_own_rows(reads[2])

    run(story())


def test_a_dead_store_sees_no_more_retries_than_the_budget(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            filled(store)
            client.caller.budget = RetryBudget(5)
            store.fault_of_all = Fault.ERROR_500
            for _ in range(20):
                await client.fetched(client.reads(ONE, "key-1", within_s=0.5))
            assert len(store.requests) == 25
            assert all(error_of(read).retryable for read in client.settled)

    run(story())


def test_a_store_that_is_not_there_is_an_error_that_says_where(run: Run) -> None:
    async def story() -> None:
        async with serving() as store:
            endpoint = store.endpoint
        async with wire_client(endpoint) as client:
            (read,) = client.reads(ONE, "key-1", within_s=0.1)
            await client.fetched([read])
            error = error_of(read)
            assert error.retryable
            assert str(error).startswith(f"DynamoDB: reading one: can't connect to {endpoint[7:]}: ")

    run(story())


def test_reads_under_way_when_the_pool_closes_fail(run: Run) -> None:
    async def story() -> None:
        async with serving([Fault.STALL]) as store, wire_client(store.endpoint) as client:
            filled(store)
            reads = client.reads(ONE, *KEYS)
            client.fetch(reads)
            await store.until_asked(1)
            await client.pool.close()
            await client.until_settled(reads)
            after = client.reads(ONE, "key-1")
            await client.fetched(after)
            for read in [*reads, *after]:
                assert str(error_of(read)) == "DynamoDB: reading one: closed: the store was closed"

    run(story())


MIXTURE = [
    *[Fault.NONE] * 20,
    *[Fault.UNPROCESSED] * 9,
    Fault.RESET,
    Fault.RESET_MID_ANSWER,
    Fault.WRONG_CRC,
    Fault.CHUNKED,
    Fault.CLOSE_AFTER,
    Fault.CLOSE_SILENTLY,
    Fault.UNASKED,
    Fault.THROTTLED,
    Fault.ERROR_500,
]


def test_thousands_of_reads_get_their_own_rows_through_a_mixture_of_faults(run: Run) -> None:
    async def story() -> None:
        async with serving(seed=3) as store, wire_client(store.endpoint) as client:
            filled(store)
            chance = random.Random(11)
            store.script.extend(chance.choices(MIXTURE, k=300))
            await asyncio.gather(*[one_of_many(client, chance) for _ in range(150)])
            assert len(client.settled) >= 2000

    run(story())


async def one_of_many(client: WireClient, chance: random.Random) -> None:
    """Fetch some keys of two groups and check that each read got its own."""
    keys = chance.sample(KEYS, 12)
    reads = [*client.reads(ONE, *keys, "absent"), *client.reads(PAIR, *keys[:4])]
    await client.fetched(reads)
    for read in reads:
        if read.key == "absent":
            assert read.error is None
            assert read.rows == [None]
        else:
            assert_own_rows(read)
