"""What the hot side counts of its troubles."""

from __future__ import annotations

import pytest

from fastserve.plan.reads import ReadGroup
from fastserve.store.counts import StoreCounts
from tests.store.dynamodb.conftest import Run
from tests.support.scripted_store import Fault, serving
from tests.support.wire_client import wire_client

ONE = ReadGroup(0, ("one",))


@pytest.mark.parametrize(
    "script, counted",
    [
        ([], StoreCounts()),
        ([Fault.THROTTLED], StoreCounts(throttles=1, retries=1)),
        ([Fault.ERROR_500, Fault.ERROR_500], StoreCounts(retries=2)),
        ([Fault.STALL], StoreCounts(timeouts=1, retries=1)),
        ([Fault.ALL_UNPROCESSED], StoreCounts(unprocessed=3, retries=1)),
    ],
    ids=["nothing", "throttled", "failed", "stalled", "left out"],
)
def test_troubles_that_pass_are_counted(run: Run, script: list[Fault], counted: StoreCounts) -> None:
    async def story() -> None:
        async with serving(script) as store, wire_client(store.endpoint, timeout_s=0.05) as client:
            store.tables["one"] = {}
            await client.fetched(client.reads(ONE, "a", "b", "c"))
            assert client.caller.counts == counted

    run(story())


def test_reads_that_are_given_up_are_counted(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            await client.fetched(client.reads(ONE, "a", "b", "c"))  # there is no such table
            assert client.caller.counts == StoreCounts(failures=3)

    run(story())
