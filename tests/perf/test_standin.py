from __future__ import annotations

import http.client
import socket
import time
import zlib
from pathlib import Path
from typing import Any

import orjson
import pytest

from perf.load import standin_client
from perf.load.standin_client import ControlError, StandInAddress
from tests.support.standin import stand_in

__all__ = ["stand_in"]

HEADERS = {"X-Amz-Target": "DynamoDB_20120810.BatchGetItem", "Content-Type": "application/x-amz-json-1.0"}
REQUEST = orjson.dumps({"RequestItems": {"t": {"Keys": [{"k": {"S": "user1"}}]}}})
ITEM = {"k": {"S": "user1"}, "v": {"B": "QUJD"}}


def exchange(address: StandInAddress, body: bytes = REQUEST) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(address.host, address.port, timeout=5)
    try:
        connection.request("POST", "/", body, HEADERS)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def wire_request(body: bytes = REQUEST) -> bytes:
    head = f"POST / HTTP/1.1\r\nhost: x\r\nX-AMZ-TARGET: {HEADERS['X-Amz-Target']}\r\n"
    return f"{head}content-length:{len(body)}\r\n\r\n".encode() + body


def read_answers(connection: socket.socket, count: int) -> list[Any]:
    data = b""
    bodies: list[Any] = []
    while len(bodies) < count:
        head, blank, rest = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0]) if blank else 0
        if blank and len(rest) >= length:
            bodies.append(orjson.loads(rest[:length]))
            data = rest[length:]
        else:
            received = connection.recv(65_536)
            assert received
            data += received
    return bodies


def test_an_answer_looks_like_dynamodbs(stand_in: StandInAddress) -> None:
    stand_in.prepare("t", ["QUJD"])

    answer, body = exchange(stand_in)

    assert orjson.loads(body) == {"Responses": {"t": [ITEM]}, "UnprocessedKeys": {}}
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/x-amz-json-1.0"
    assert answer.headers["x-amz-crc32"] == str(zlib.crc32(body))


def test_an_error_has_its_type(stand_in: StandInAddress) -> None:
    answer, body = exchange(stand_in)

    assert answer.status == 400
    assert orjson.loads(body) == {
        "__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException",
        "message": "Requested resource not found",
    }


def test_pipelined_requests_are_answered_in_order_however_they_are_cut(stand_in: StandInAddress) -> None:
    stand_in.prepare("t", ["QUJD"])
    names = [f"user{number}" for number in range(5)]
    requests = b"".join(wire_request(REQUEST.replace(b"user1", name.encode())) for name in names)
    with socket.create_connection((stand_in.host, stand_in.port)) as connection:
        for at in range(0, len(requests), 7):
            connection.sendall(requests[at : at + 7])
        bodies = read_answers(connection, 5)

    assert [body["Responses"]["t"][0]["k"]["S"] for body in bodies] == names


def test_counters_count_calls_and_keys(stand_in: StandInAddress) -> None:
    stand_in.prepare("t", ["QUJD", None])
    for name in (b"user1", b"user2", b"user3"):
        exchange(stand_in, REQUEST.replace(b"user1", name))

    counters = stand_in.counters()

    assert counters["calls"] == {"BatchGetItem": 3}
    assert (counters["keys"], counters["keys_by_table"]) == (3, {"t": 3})
    assert stand_in.control(reset=True)["keys"] == 0


def test_scripted_faults_come_one_by_one(stand_in: StandInAddress) -> None:
    stand_in.prepare("t", ["QUJD"])
    stand_in.control(
        faults={"script": ["throttle", "server_error", "wrong_crc", "drop_connection", "cut_answer", "ok"]}
    )

    answer, body = exchange(stand_in)
    assert (answer.status, b"ProvisionedThroughputExceededException" in body) == (400, True)
    answer, body = exchange(stand_in)
    assert (answer.status, b"InternalServerError" in body) == (500, True)
    answer, body = exchange(stand_in)
    assert int(answer.headers["x-amz-crc32"]) == zlib.crc32(body) ^ 1
    with pytest.raises(http.client.RemoteDisconnected):
        exchange(stand_in)
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        exchange(stand_in)
    assert exchange(stand_in)[0].status == 200


def test_a_stalled_answer_comes_late_and_holds_up_nobody_else(stand_in: StandInAddress) -> None:
    stand_in.prepare("t", ["QUJD"])
    stand_in.control(faults={"script": ["stall"], "stall_ms": 1_000})
    with socket.create_connection((stand_in.host, stand_in.port)) as stalled:
        started_s = time.monotonic()
        stalled.sendall(wire_request() * 2)
        while not stand_in.counters()["calls"]:
            pass
        assert exchange(stand_in)[0].status == 200
        assert time.monotonic() - started_s < 1
        assert len(read_answers(stalled, 2)) == 2
        assert time.monotonic() - started_s >= 1


def test_a_latency_law_delays_calls(stand_in: StandInAddress) -> None:
    stand_in.prepare("t", ["QUJD"])
    stand_in.control(latency_ms={"1": 2.3, "99": 2.3})
    for _ in range(20):
        exchange(stand_in)

    assert 2.3 <= stand_in.counters()["call_ms"]["p50"] < 8.0


@pytest.mark.parametrize("wanted", [{"fault": {}}, {"latency_ms": "fast"}, {"prepare": [{"table": "t"}]}])
def test_a_wrong_control_is_refused(stand_in: StandInAddress, wanted: dict[str, Any]) -> None:
    with pytest.raises(ControlError):
        stand_in.control(**wanted)


def test_the_process_ends_with_its_context() -> None:
    with standin_client.running() as address:
        assert Path(f"/proc/{address.pid}").exists()
    assert not Path(f"/proc/{address.pid}").exists()


def test_a_connection_is_reset_and_the_next_one_is_answered(stand_in: StandInAddress) -> None:
    stand_in.prepare("t", ["QUJD"])
    stand_in.control(faults={"script": ["reset_connection"]})

    with pytest.raises(ConnectionResetError):
        exchange(stand_in)
    assert exchange(stand_in)[0].status == 200


def test_a_call_that_names_a_slow_key_is_late_and_others_are_not(stand_in: StandInAddress) -> None:
    stand_in.prepare("t", ["QUJD"])
    stand_in.control(faults={"slow_keys": ["user1"], "slow_ms": 300})

    exchange(stand_in, REQUEST.replace(b"user1", b"user2"))
    assert stand_in.counters()["call_ms"]["count"] == 0
    exchange(stand_in)
    assert stand_in.counters()["call_ms"]["max"] >= 300
