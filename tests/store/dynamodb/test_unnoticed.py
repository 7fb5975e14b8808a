"""What changes under a client while it reads, and no read notices: credentials, connections, addresses."""

from __future__ import annotations

import asyncio
import socket
from base64 import b64encode
from collections.abc import Callable

import pytest

from fastserve.plan.reads import ReadGroup
from fastserve.wire.sigv4 import Credentials
from tests.store.dynamodb.conftest import Run
from tests.support.scripted_store import Fault, ScriptedStore, serving
from tests.support.wire_client import WireClient, wire_client

ONE = ReadGroup(0, ("one",))
KEYS = [f"key-{number}" for number in range(20)]
LANES = 4


def filled(store: ScriptedStore) -> ScriptedStore:
    store.tables["one"] = {key: row_text(key) for key in KEYS}
    return store


def row_text(key: str) -> str:
    return b64encode(f"row of {key}".encode()).decode()


async def read_all(client: WireClient, rounds: int, meanwhile: Callable[[int], None]) -> None:
    """Read every key in each round, some at a time; each read must get its own row."""
    for number in range(rounds):
        meanwhile(number)
        for start in range(0, len(KEYS), LANES):
            reads = client.reads(ONE, *KEYS[start : start + LANES], within_s=10.0)
            for read in reads:
                client.fetch([read])
            await client.until_settled(reads)
            for read in reads:
                assert read.error is None, read.error
                assert read.rows == [row_text(read.key)]


def signers(store: ScriptedStore) -> list[str]:
    """Return the access keys of the requests, each once, in order."""
    found = [head.partition("Credential=")[2].partition("/")[0] for _, _, head in store.requests]
    return list(dict.fromkeys(found))


def test_credentials_are_replaced_between_calls(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(filled(store).endpoint) as client:

            def rotate(number: int) -> None:
                client.source.current = Credentials(f"AKID{number}", "secret", f"token-{number}")

            await read_all(client, 5, rotate)
            assert signers(store) == [f"AKID{number}" for number in range(5)]
            assert len(store.requests) == 5 * len(KEYS)

    run(story())


def test_credentials_that_end_early_are_renewed_while_reads_wait(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(filled(store).endpoint) as client:
            client.source.renewable = True

            def renew() -> None:
                """Bring new ones a moment later, as the metadata service does."""
                client.loop.call_later(0.02, give)

            def give() -> None:
                client.source.current = Credentials("AKIDNEW", "secret", "token")
                store.fault_of_all = None

            def expire(number: int) -> None:
                if number == 1:
                    store.fault_of_all = Fault.EXPIRED

            client.source.ask_soon = renew  # type: ignore[method-assign]
            await read_all(client, 3, expire)
            assert signers(store) == ["AKIDTEST", "AKIDNEW"]

    run(story())


def test_idle_connections_are_closed_by_the_service(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(filled(store).endpoint) as client:
            before = client.caller.budget.tokens
            await read_all(client, 10, lambda _: store.drop_connections())
            assert client.caller.budget.tokens == before  # not even a retry
            assert store.connections > 10

    run(story())


@pytest.mark.parametrize(
    "fault", [Fault.RESET, Fault.RESET_MID_ANSWER, Fault.CLOSE_SILENTLY, Fault.CLOSE_AFTER]
)
def test_connections_break_under_calls(run: Run, fault: Fault) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(filled(store).endpoint) as client:
            store.script.extend([Fault.NONE, Fault.NONE, Fault.NONE, fault] * 20)
            await read_all(client, 5, lambda _: None)
            assert not store.script

    run(story())


# --- addresses ----------------------------------------------------------------------------------------------


class Name:
    """A name that resolves to what the test says."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch, address: str
    ) -> None:
        self.address = address
        self.asked = 0
        monkeypatch.setattr(loop, "getaddrinfo", self.getaddrinfo)

    async def getaddrinfo(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        self.asked += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.address, port))]


def test_the_name_moves_to_another_host_while_the_old_one_still_answers(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with serving() as old, serving(host="127.0.0.2", port=old.port) as new:
            name = Name(asyncio.get_running_loop(), monkeypatch, "127.0.0.1")
            async with wire_client(f"http://dynamo.invalid:{old.port}") as client:
                filled(old)
                filled(new)

                def move(number: int) -> None:
                    if number == 1:
                        name.address = "127.0.0.2"
                        client.pool._addresses._known_until_s = 0.0
                        for connection in client.pool.connections:
                            connection.retire_at_s = 0.0  # has come of age

                await read_all(client, 4, move)
                assert len(old.requests) + len(new.requests) == 4 * len(KEYS)
                assert len(new.requests) > 2 * len(KEYS)

    run(story())


def test_the_name_moves_because_the_old_host_is_gone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving(host="127.0.0.2") as new:
            name = Name(asyncio.get_running_loop(), monkeypatch, "127.0.0.1")
            async with wire_client(f"http://dynamo.invalid:{new.port}") as client:
                async with serving(port=new.port) as old:
                    filled(old)
                    filled(new)
                    await read_all(client, 1, lambda _: None)
                    client.pool._addresses._looked_up_s -= 2.0  # a while ago, and still believed
                    name.address = "127.0.0.2"
                await read_all(client, 2, lambda _: None)
                assert len(new.requests) >= 2 * len(KEYS)
                assert name.asked == 2

    run(story())


def test_addresses_that_do_not_answer_are_looked_up_once_a_second_at_most(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with serving() as gone:
            port = gone.port
        name = Name(asyncio.get_running_loop(), monkeypatch, "127.0.0.1")
        async with wire_client(f"http://dynamo.invalid:{port}") as client:
            for _ in range(20):
                await client.fetched(client.reads(ONE, "key-1", within_s=0.01))
            assert name.asked == 1
            assert all(read.error is not None for read in client.settled)

    run(story())
