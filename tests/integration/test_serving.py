"""A real server over HTTP: order of answers, connections, batches, paths, health, workers, end."""

from __future__ import annotations

import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from perf.load import standin_client
from tests.support.bank_repo import JOIN_KEYS, ROWS, TIME_NS, VECTOR, write_bank_repo
from tests.support.feature_server import (
    GET_FEATURES,
    GET_FEATURES_BATCH,
    METADATA,
    Row,
    apply_and_put,
    features,
    serving_features,
)
from tests.support.http_connection import Answer
from tests.support.server_process import Connection, Server, eventually

ACCOUNTS = 2_000
V2 = "/api/v2/workspaces/bank/feature-services/"


def amount(account: int) -> float:
    return account / 8


def rows() -> dict[str, list[Row]]:
    """Return the bank's rows and one for every second account."""
    accounts = [
        Row([number], {"amount": amount(number), "bookings": number}, TIME_NS)
        for number in range(10, ACCOUNTS, 2)
    ]
    return {**ROWS, "balance": [*ROWS["balance"], *accounts]}


@pytest.fixture(scope="module")
def store(store_url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Give a repo and the URL of a store with rows for every second account."""
    repo = write_bank_repo(tmp_path_factory.mktemp("bank"))
    apply_and_put(repo, store_url, rows())
    return repo, store_url


@pytest.fixture(scope="module")
def bank(store: tuple[Path, str]) -> Iterator[Server]:
    with serving_features(*store, "--workers", "2") as server:
        yield server
        assert server.stop() == 0
        assert "Traceback" not in server.said


def vector_of(account: int) -> list[object]:
    if account == JOIN_KEYS["account_id"]:
        return VECTOR
    known = 10 <= account < ACCOUNTS and account % 2 == 0
    return [*([amount(account), str(account)] if known else [None, None]), *VECTOR[2:]]


def post(path: str, body: bytes, fields: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def asked(account: int, service: str = "bank") -> bytes:
    join_keys = {**JOIN_KEYS, "account_id": account}
    return orjson.dumps({"params": {"featureServiceName": service, "joinKeyMap": join_keys}})


def read_get(connection: Connection, path: str) -> Answer:
    connection.send(get(path))
    return connection.read()


def test_pipelined_requests_are_answered_in_order(bank: Server) -> None:
    """More than the server takes of one connection at once, fast ones behind slow ones, bad ones between."""
    accounts = list(range(100))
    connection = bank.connect()
    requests = b""
    for account in accounts:
        requests += post(GET_FEATURES, asked(account))
        if account % 10 == 0:
            requests += get("/healthz") + post(GET_FEATURES, b"{") + get("/nowhere")
    connection.send(requests)
    for account in accounts:
        assert features(connection.read()) == vector_of(account)
        if account % 10 == 0:
            assert [connection.read().status for _ in range(3)] == [200, 400, 404]


def test_pipelined_requests_are_answered_however_they_are_cut(bank: Server) -> None:
    data = b"".join(post(GET_FEATURES, asked(account)) for account in range(20))
    connection = bank.connect()
    for at in range(0, len(data), 61):
        connection.send(data[at : at + 61])
    assert [features(connection.read()) for _ in range(20)] == [vector_of(account) for account in range(20)]


def test_a_connection_is_kept_until_it_is_asked_to_be_closed(bank: Server) -> None:
    connection = bank.connect()
    for account in range(50):
        answer = connection.ask(GET_FEATURES, asked(account))
        assert features(answer) == vector_of(account)
        assert "connection" not in answer.headers
    connection.send(post(GET_FEATURES, asked(10), "Connection: close\r\n"))
    answer = connection.read()
    assert (features(answer), answer.headers["connection"]) == (vector_of(10), "close")
    assert connection.is_closed_by_server()


def test_neither_content_type_nor_case_nor_key_matters(bank: Server) -> None:
    """As curl sends it, as a Java client does, and with an Authorization that nobody checks yet."""
    snake = {
        "params": {
            "workspace_name": "bank",
            "feature_service_name": "bank",
            "join_key_map": {**JOIN_KEYS, "account_id": "10"},
            "metadata_options": {"include_names": True},
            "request_options": {"latency_budget_ms": "1500", "aggregation_leading_edge": "WALL_CLOCK"},
        }
    }
    connection = bank.connect()
    fields = "Content-Type: application/x-www-form-urlencoded\r\nAuthorization: tecton-KEY k\r\n"
    connection.send(post(GET_FEATURES, orjson.dumps(snake), fields))
    answer = connection.read()
    assert features(answer) == vector_of(10)
    names = [feature["name"] for feature in orjson.loads(answer.body)["metadata"]["features"]]
    assert names == ["balance.amount", "balance.bookings", "person.age", "person.city", "person.score"]


def test_a_batch_of_a_thousand_rows_comes_back_in_order(bank: Server) -> None:
    accounts = [(number * 7919) % (ACCOUNTS + 100) for number in range(1000)]
    data = [{"join_key_map": {**JOIN_KEYS, "account_id": account}} for account in accounts]
    options = {"include_serving_status": True, "include_slo_info": True}
    body = {"feature_service_name": "bank", "request_data": data, "metadata_options": options}
    answer = bank.connect().ask(GET_FEATURES_BATCH, orjson.dumps({"params": body}))
    assert answer.status == 200
    document = orjson.loads(answer.body)
    assert [row["features"] for row in document["result"]] == [vector_of(account) for account in accounts]
    amounts, _, ages, *_ = document["metadata"]["features"]
    assert amounts["status"] == [
        "PRESENT" if vector_of(account)[0] is not None else "MISSING_DATA" for account in accounts
    ]
    assert ages["status"] == ["PRESENT"] * 1000
    slo = document["metadata"]["sloInfo"]
    assert len(slo) == 1000
    whole = document["metadata"]["batchSloInfo"]
    assert whole["storeResponseSizeBytes"] == sum(one["storeResponseSizeBytes"] for one in slo)
    assert whole["sloEligible"] is True


def test_one_row_more_than_a_thousand_is_refused(bank: Server) -> None:
    body = {"featureServiceName": "bank", "requestData": [{"joinKeyMap": JOIN_KEYS}] * 1001}
    answer = bank.connect().ask(GET_FEATURES_BATCH, orjson.dumps({"params": body}))
    assert answer.status == 400
    assert orjson.loads(answer.body)["message"] == (
        "Field `request_data`: expected at most 1000 rows, got 1001"
    )


def test_the_second_versions_paths_name_workspace_and_service(bank: Server) -> None:
    connection = bank.connect()
    body = orjson.dumps({"params": {"joinKeyMap": JOIN_KEYS}})
    assert features(connection.ask(f"{V2}bank/get-features", body)) == VECTOR
    batch = orjson.dumps({"params": {"requestData": [{"joinKeyMap": JOIN_KEYS}]}})
    answer = connection.ask(f"{V2}bank/get-features-batch", batch)
    assert orjson.loads(answer.body)["result"] == [{"features": VECTOR}]
    all_keys = {**JOIN_KEYS, "active": True, "since": "2026-01-01T00:00:00Z"}
    for name in ("bank:all", "bank%3Aall"):
        body = orjson.dumps({"params": {"joinKeyMap": all_keys}})
        assert features(connection.ask(f"{V2}{name}/get-features", body)) == [*VECTOR, "3"]
        first = connection.ask(METADATA, orjson.dumps({"params": {"featureServiceName": "bank:all"}}))
        assert read_get(connection, f"{V2}{name}/metadata").body == first.body


def test_the_names_of_the_path_count_where_the_body_has_others(bank: Server) -> None:
    body = orjson.dumps(
        {"params": {"workspaceName": "x", "featureServiceName": "y", "joinKeyMap": JOIN_KEYS}}
    )
    assert features(bank.connect().ask(f"{V2}bank/get-features", body)) == VECTOR


def test_health_and_readiness_are_told(bank: Server) -> None:
    connection = bank.connect()
    for path, body in (("/healthz", {"status": "alive"}), ("/readyz", {"status": "ready"})):
        answer = read_get(connection, path)
        assert (answer.status, orjson.loads(answer.body)) == (200, body)
        connection.send(f"HEAD {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        assert b"200 OK" in connection.socket.recv(4096)
        assert connection.is_closed_by_server()
        connection = bank.connect()


def test_every_worker_answers_alike(bank: Server) -> None:
    """Connections are spread, so enough of them reach both workers."""
    assert len(bank.workers()) == 2
    before = {pid: cpu_ticks(pid) for pid in bank.workers()}
    connections = [bank.connect() for _ in range(32)]
    for account in range(400, 800):
        for connection in connections[account % 4 :: 4]:
            connection.send(post(GET_FEATURES, asked(account)))
        for connection in connections[account % 4 :: 4]:
            assert features(connection.read()) == vector_of(account)
    assert all(cpu_ticks(pid) > ticks for pid, ticks in before.items())


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


class Client(threading.Thread):
    """Asks without a pause on a kept connection, reconnects when told to, until nobody listens any more."""

    def __init__(self, server: Server, first: int) -> None:
        super().__init__()
        self.server = server
        self.first = first
        self.outcomes: Counter[str] = Counter()

    def run(self) -> None:
        account = self.first
        while True:
            try:
                connection = Connection(socket_to(self.server))
            except OSError:
                return
            with connection.socket:
                while True:
                    account = (account + 17) % ACCOUNTS
                    try:
                        answer = connection.ask(GET_FEATURES, asked(account))
                    except OSError as error:
                        self.outcomes[repr(error)] += 1
                        break
                    right = answer.status == 200 and features(answer) == vector_of(account)
                    self.outcomes["right" if right else f"{answer.status} {answer.body[:200]!r}"] += 1
                    if answer.headers.get("connection") == "close":
                        break


def socket_to(server: Server) -> socket.socket:
    return socket.create_connection((server.host, server.port), 10)


@pytest.mark.parametrize("latency_ms", [0, 30])
def test_clients_lose_no_answer_while_the_server_ends_under_load(tmp_path: Path, latency_ms: int) -> None:
    repo = write_bank_repo(tmp_path)
    with standin_client.running() as stand_in:
        url = stand_in.store_url()
        apply_and_put(repo, url, rows())
        if latency_ms:
            stand_in.control(latency_ms={"1": latency_ms, "99": latency_ms})
        with serving_features(repo, url, "--workers", "2") as server:
            clients = [Client(server, first) for first in range(16)]
            for client in clients:
                client.start()
            eventually(lambda: all(client.outcomes["right"] > 5 for client in clients))
            server.process.send_signal(signal.SIGTERM)
            assert server.wait() == 0
            for client in clients:
                client.join()
            assert "Traceback" not in server.said
    outcomes = sum((client.outcomes for client in clients), Counter[str]())
    assert set(outcomes) == {"right"}, outcomes
    assert outcomes["right"] > 100
