"""What a fake transport can't show: half-closed connections, resets, and readers that don't read."""

from __future__ import annotations

import socket
import threading

from tests.support.server_process import Connection, serving


def post(path: str, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode() + body


def test_a_client_that_shuts_its_side_after_asking_gets_its_answers_and_the_end() -> None:
    with serving() as server:
        connection = server.connect()
        connection.send(post("/later?200", b"") + post("/echo", b"x"))
        connection.socket.shutdown(socket.SHUT_WR)
        assert [connection.read().body for _ in range(2)] == [b"later", b"x"]
        assert connection.is_closed_by_server()


def test_a_client_that_sends_a_body_over_the_limit_reads_why() -> None:
    """It sends all of it before it reads, as most clients do: a reset would take the answer from it."""
    with serving() as server:
        connection = server.connect()
        connection.send(post("/echo", bytes(20_000_000)))
        assert connection.read().status == 413
        assert connection.is_closed_by_server()


def test_a_client_that_reads_late_gets_all_its_answers() -> None:
    size, times = 300_000, 40
    with serving() as server:
        connection = server.connect()
        other = server.connect()
        sender = threading.Thread(target=connection.send, args=(post("/echo", b"x" * size) * times,))
        sender.start()
        assert other.ask("/echo", b"meanwhile").body == b"meanwhile"
        assert all(len(connection.read().body) == size for _ in range(times))
        sender.join()
        assert connection.ask("/echo", b"after").body == b"after"


def test_many_pipelined_requests_are_answered_in_order() -> None:
    with serving() as server:
        connection = server.connect()
        requests = [
            post(f"/later?{number % 7}" if number % 3 else "/echo", b"%d" % number) for number in range(300)
        ]
        sender = threading.Thread(target=connection.send, args=(b"".join(requests),))
        sender.start()
        bodies = [connection.read().body for _ in range(300)]
        sender.join()
    assert bodies == [b"later" if number % 3 else b"%d" % number for number in range(300)]


def test_a_request_in_three_segments_is_one_request() -> None:
    with serving() as server:
        connection = server.connect()
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = post("/echo", b"hello")
        for _ in range(3):
            for piece in (request[:20], request[20:-5], request[-5:]):
                connection.send(piece)
            assert connection.read().body == b"hello"


def test_a_client_that_resets_its_connection_harms_nobody() -> None:
    with serving() as server:
        leaving = server.connect()
        leaving.send(post("/later?50", b""))
        leaving.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        leaving.close()
        connection: Connection = server.connect()
        assert connection.ask("/later?100").body == b"later"
        assert server.stop() == 0
    assert "Traceback" not in server.said
