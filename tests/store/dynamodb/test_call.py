"""A try signs with what is current, repairs its clock once, and says what an answer means."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from fastserve.errors import StoreError
from fastserve.store.dynamodb.call import Caller, decode, examine
from fastserve.store.dynamodb.connection import Call
from fastserve.wire.client_http import Answer
from fastserve.wire.ddb_errors import Failure, Kind
from fastserve.wire.sigv4 import Credentials
from tests.store.dynamodb.conftest import Run
from tests.support.scripted_store import Fault, ScriptedStore, serving
from tests.support.wire_client import FixedSource, WireClient, wire_client

BODY = b'{"RequestItems":{"one":{"Keys":[{"k":{"S":"a"}}]}}}'


async def called(store: ScriptedStore, client: WireClient, within_s: float = 5.0) -> bytes:
    store.tables["one"] = {"a": "AAAA"}
    deadline_s = client.loop.time() + within_s
    return await client.caller.call("BatchGetItem", BODY, timeout_s=2.0, deadline_s=deadline_s)


def dates_signed(store: ScriptedStore) -> list[str]:
    return [
        line.partition(": ")[2]
        for _, _, head in store.requests
        for line in head.split("\r\n")
        if line.startswith("x-amz-date")
    ]


def test_a_request_is_signed_for_its_host_with_the_port(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            await called(store, client)
            operation, _, head = store.requests[0]
            assert operation == "BatchGetItem"
            assert f"\r\nhost: 127.0.0.1:{store.port}\r\n" in head
            assert "Credential=AKIDTEST/" in head
            assert "/us-east-1/dynamodb/aws4_request, SignedHeaders=content-type;host;x-amz-date;" in head

    run(story())


@pytest.mark.parametrize("off_s", [-3600, 3600])
def test_a_refused_clock_is_set_by_the_services_and_stays_set(run: Run, off_s: int) -> None:
    async def story() -> None:
        async with serving([Fault.SKEWED]) as store, wire_client(store.endpoint) as client:
            service_s = time.time() + off_s
            store.date = formatdate(service_s, usegmt=True)
            assert b"AAAA" in await called(store, client)
            assert abs(client.caller.clock_offset_s - off_s) < 3
            await called(store, client)
            first, second, third = dates_signed(store)
            hour = time.strftime("%Y%m%dT%H%M", time.gmtime(service_s))
            assert not first.startswith(hour)
            assert abs(int(second[9:15]) - int(third[9:15])) < 100
            assert second[:11] == time.strftime("%Y%m%dT%H", time.gmtime(service_s))

    run(story())


def test_a_call_that_was_under_way_when_another_set_the_clock_is_signed_anew_as_well() -> None:
    carried: list[Call] = []
    results: list[Answer | Failure] = []

    class Transport:
        def request(self, call: Call) -> None:
            carried.append(call)

    caller = Caller(Transport(), FixedSource(), "h", "eu-west-1", lambda: 1e9, lambda: 0.0, lambda: 0.5)
    signer = caller.signer("BatchGetItem")
    for _ in range(2):
        caller.send(signer, BODY, 1.0, 5.0, results.append)
    date = formatdate(1e9 - 900, usegmt=True)
    for call in carried[:2]:
        call.on_answer(skewed(date))
    assert results == []
    assert len(carried) == 4
    assert all(b"20010909T013140Z" in call.payload for call in carried)
    carried[3].on_answer(skewed(date))
    assert [type(result) for result in results] == [Failure]


def test_a_signature_that_is_wrong_for_another_reason_is_not_tried_again(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            store.fault_of_all = Fault.SKEWED
            store.date = formatdate(time.time(), usegmt=True)
            with pytest.raises(StoreError) as caught:
                await called(store, client)
            assert str(caught.value) == "DynamoDB BatchGetItem: InvalidSignatureException: Signature expired"
            assert not caught.value.retryable
            assert len(store.requests) == 1

    run(story())


def test_a_service_that_goes_on_refusing_the_clock_is_asked_twice(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            store.fault_of_all = Fault.SKEWED
            with pytest.raises(StoreError, match="InvalidSignature"):
                await called(store, client)
            assert len(store.requests) == 2

    run(story())


def test_expired_credentials_are_asked_for_anew_and_the_call_goes_on_with_them(run: Run) -> None:
    async def story() -> None:
        async with serving([Fault.EXPIRED]) as store, wire_client(store.endpoint) as client:
            client.source.renewable = True

            def renew() -> None:
                client.source.current = Credentials("AKIDNEW", "other", "token")

            client.source.ask_soon = renew  # type: ignore[method-assign]
            assert b"AAAA" in await called(store, client)
            heads = [head for _, _, head in store.requests]
            assert "Credential=AKIDTEST/" in heads[0]
            assert "Credential=AKIDNEW/" in heads[1]
            assert "\r\nx-amz-security-token: token\r\n" in heads[1]

    run(story())


def test_expired_credentials_that_nothing_renews_fail_at_once(run: Run) -> None:
    async def story() -> None:
        async with serving() as store, wire_client(store.endpoint) as client:
            store.fault_of_all = Fault.EXPIRED
            with pytest.raises(StoreError) as caught:
                await called(store, client)
            assert not caught.value.retryable
            assert len(store.requests) == 1
            assert client.source.asked == 0

    run(story())


def test_the_control_path_tries_again_until_its_deadline(run: Run) -> None:
    async def story() -> None:
        faults = [Fault.THROTTLED, Fault.ERROR_500, Fault.RESET, Fault.WRONG_CRC]
        async with serving(faults) as store, wire_client(store.endpoint) as client:
            assert b"AAAA" in await called(store, client)
            store.fault_of_all = Fault.ERROR_500
            with pytest.raises(StoreError) as caught:
                await called(store, client, within_s=0.05)
            assert str(caught.value) == "DynamoDB BatchGetItem: InternalServerError: oops"
            assert caught.value.retryable

    run(story())


def answer_with(crc: bytes, body: bytes = b"{}", status: int = 200) -> Answer:
    head = b"HTTP/1.1 200 OK\r\nX-Amz-CRC32: " + crc + b"\r\n"
    return Answer(status, head, head.lower(), body, keep_alive=True)


def skewed(date: str) -> Answer:
    head = f"HTTP/1.1 400 Bad Request\r\nDate: {date}\r\n".encode()
    body = b'{"__type":"x#InvalidSignatureException","message":"Signature expired"}'
    return Answer(400, head, head.lower(), body, keep_alive=True)


def test_the_checksum_is_over_the_body() -> None:
    assert examine(answer_with(b"2745614147")) is None
    for wrong in (b"2745614148", b"", b"x", b"-1"):
        failure = examine(answer_with(wrong))
        assert failure is not None
        assert (failure.kind, failure.name) == (Kind.TRANSIENT, "wrong checksum")


def test_an_answer_without_a_checksum_is_taken() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
    assert examine(Answer(200, head, head.lower(), b"{}", keep_alive=True)) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"\xff"])
def test_what_is_no_json_object_is_a_store_error(body: bytes) -> None:
    with pytest.raises(StoreError) as caught:
        decode(body)
    assert caught.value.retryable
